"""An image tokenizer: convolutions to a grid of codes, and from the codes back to the pixels.

Two kinds share one network, that of DALL-E's discrete VAE: "gumbel", where the encoder gives a
distribution over the codes, relaxed in training (Ramesh et al. 2021, arXiv 2102.12092, section 2.1
and appendix A), and "vq", where it gives a vector and the nearest of a codebook is taken (van den
Oord et al. 2017, arXiv 1711.00937).
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.patch_embed import check_divides
from mmjax.layers.precision import activation_dtype
from mmjax.layers.quantizer import Quantizer, updated, usage
from mmjax.layers.sizes import TrainSize
from mmjax.losses.reconstruction import MARGIN, code_kl, logit_laplace
from mmjax.models.build import build
from mmjax.models.image_codebook import GROUPS, DVAEEncoder, pointwise, residual_block
from mmjax.schedule import check_schedule, schedule
from mmjax.system import CODEBOOK, Context, Memory, Outputs, System, Terms

KINDS = ("gumbel", "vq")


class DVAEDecoder(nn.Module):
    """The decoder of DALL-E's discrete VAE: [B, h, w, N] -> [B, h·p, w·p, channels] float32.

    Attributes:
      channels: of the result.
      width, blocks, groups: as in `DVAEEncoder`; the first group is the widest.
      first: channels before the first group.

    Source: Ramesh et al. 2021, appendix A.2; openai/DALL-E, decoder.py.
    """

    channels: int = 6
    width: int = 256
    first: int = 128
    blocks: int = 2
    groups: int = GROUPS
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = pointwise(self.first, self.dtype, "input")(x.astype(activation_dtype(self.dtype)))
        gain = (self.groups * self.blocks) ** -2
        for group in range(self.groups):
            channels = self.width * 2 ** (self.groups - 1 - group)
            for block in range(self.blocks):
                name = f"group{group}_block{block}"
                x = residual_block(x, channels, gain, self.dtype, name, decoder=True)
            if group < self.groups - 1:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
        return pointwise(self.channels, self.dtype, "output")(jax.nn.relu(x)).astype(jnp.float32)


class ImageTokenizer(TrainSize, nn.Module):
    """batch["image"] [B, H, W, 3] uint8 -> codes of patches of p pixels, and the reconstruction.

    Gives `image_codes` [B, H/p, W/p] int32; `pixels`, what the decoder gives for each pixel: mean
    and log scale of a logit-Laplace distribution [B, H, W, 6] ("gumbel") or values in [-1, 1]
    [B, H, W, 3] ("vq"); `reconstruction` [B, H, W, 3] float32 in [0, 1]. "gumbel" also gives `kl`
    [B], nats per code; "vq" `latents` [B, H/p, W/p, code_width] and `commitment` [B].

    With batch["gumbel_noise"] [B, H/p, W/p, codes] and ["temperature"] [B], as `corrupt` makes
    them, the decoder of "gumbel" gets softmax((logits + noise) / temperature) in place of the most
    probable code.

    Attributes:
      codes: their number.
      kind: "gumbel" or "vq".
      width, blocks, groups, first: of encoder and decoder; p is 2 ** (groups - 1).
      code_width: of the codebook's vectors ("vq").
    """

    codes: int = 8192
    kind: str = "gumbel"
    image_size: int | tuple[int, int] = (256, 256)
    width: int = 256
    blocks: int = 2
    groups: int = GROUPS
    first: int = 128
    code_width: int = 32
    dtype: str = "float32"

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the codes of an image."""
        height, width = self.train_size
        return height // 2 ** (self.groups - 1), width // 2 ** (self.groups - 1)

    def check(self) -> None:
        """Raise ValueError for an unknown kind, or a size that the groups do not divide."""
        if self.kind not in KINDS:
            raise ValueError(f"kind of an image tokenizer is '{self.kind}'; use 'gumbel' or 'vq'.")
        check_divides(self.train_size, 2 ** (self.groups - 1))

    def towers(self, **kwargs: Any) -> tuple[DVAEEncoder, DVAEDecoder]:
        """The encoder and the decoder."""
        sizes = {"width": self.width, "blocks": self.blocks, "groups": self.groups}
        sizes |= {"dtype": self.dtype, **kwargs}
        outputs, channels = (self.codes, 6) if self.kind == "gumbel" else (self.code_width, 3)
        encoder = DVAEEncoder(outputs, image_size=self.image_size, **sizes)
        return encoder, DVAEDecoder(channels, first=self.first, **sizes)

    def setup(self):
        self.check()
        self.encoder, self.decoder = self.towers()
        if self.kind == "vq":
            self.quantizer = Quantizer(self.codes, self.code_width)

    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        del train  # all randomness is in the batch
        x = self._encoded(batch["image"])
        if self.kind == "vq":
            given = self.quantizer(x)
            codes, vectors = given.codes, given.vectors
            outputs = {"latents": x, "commitment": given.commitment.mean((1, 2))}
        else:
            codes = x.argmax(-1).astype(jnp.int32)
            if "gumbel_noise" in batch:
                temperature = batch["temperature"][:, None, None, None]
                vectors = jax.nn.softmax((x + batch["gumbel_noise"]) / temperature, axis=-1)
            else:
                vectors = self._vectors(codes)
            outputs = {"kl": code_kl(x).mean((1, 2))}
        pixels = self.decoder(vectors)
        return {
            "image_codes": codes,
            "pixels": pixels,
            "reconstruction": self._image(pixels),
            **outputs,
        }

    def encode(self, image: jax.Array) -> jax.Array:
        """Codes [B, h, w] int32 of images [B, H, W, 3] uint8, without gradient."""
        x = self._encoded(image)
        codes = self.quantizer(x).codes if self.kind == "vq" else x.argmax(-1).astype(jnp.int32)
        return jax.lax.stop_gradient(codes)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] uint8 of codes [B, h, w]."""
        image = self._image(self.decoder(self._vectors(codes)))
        return jnp.round(255 * image).astype(jnp.uint8)

    def _encoded(self, image: jax.Array) -> jax.Array:
        """Logits of the codes, or latent vectors, [B, h, w, N] float32."""
        return self.encoder({"image": image})["image_code_logits"]

    def _vectors(self, codes: jax.Array) -> jax.Array:
        """What the decoder takes for each code, [B, h, w, N]."""
        if self.kind == "vq":
            return self.quantizer.look_up(codes)
        return jax.nn.one_hot(codes, self.codes, dtype=jnp.float32)

    def _image(self, pixels: jax.Array) -> jax.Array:
        """Pixels in [0, 1] from those of the decoder."""
        if self.kind == "vq":
            return jnp.clip((pixels + 1) / 2, 0.0, 1.0)
        mean = jax.nn.sigmoid(pixels[..., :3])
        return jnp.clip((mean - MARGIN) / (1 - 2 * MARGIN), 0.0, 1.0)


def make_image_tokenizer(fields: Mapping[str, Any], where: str, **kwargs: Any) -> ImageTokenizer:
    """The tokenizer with these fields, as a part of another model.

    Raises:
      ValueError: an unknown setting, or sizes that do not fit.
    """
    fields = check_kwargs(ImageTokenizer, fields, where)
    ImageTokenizer(**fields, parent=None).check()
    return ImageTokenizer(**fields, **kwargs)


def make_model(config: Mapping[str, Any]) -> ImageTokenizer:
    """The tokenizer that `config.model` describes. See `build`.

    Raises:
      ValueError: an unknown setting, or sizes that do not fit.
    """
    model = build(ImageTokenizer, config)
    model.check()
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """An image tokenizer; for the settings of `config.loss` see `gumbel` and `vector_quantized`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    hooks = {"gumbel": gumbel, "vq": vector_quantized}[model.kind]
    return System(
        model=model,
        spec={"image": jax.ShapeDtypeStruct((1, *model.train_size, 3), jnp.uint8)},
        evaluators={"reconstruction": {"kind": "reconstruction"}},
        **hooks(model, **check_kwargs(hooks, config["loss"], "config.loss")),
    )


def gumbel(model: ImageTokenizer, temperature: Any = 1.0) -> dict[str, Callable]:
    """Loss and noise of the kind "gumbel".

    The loss gives `reconstruction`, the negative logit-Laplace log-likelihood of a channel of a
    pixel; `kl`, nats per code, of the codes' distribution to the uniform one; `temperature`; and
    of the batch `codes_used` and `perplexity`, see `quantizer.usage`. In the paper's loss the
    weight of `kl` is 6.6 / 192: its β, per code of 8 x 8 x 3 values.

    Args:
      temperature: of the relaxation, a number or a schedule; in the paper from 1 to 1/16.
    """
    check_schedule(temperature, "config.loss.temperature", 1e-3)

    def corrupt(batch: Batch, context: Context) -> Batch:
        shape = (*model.grid, model.codes)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, shape))(context.rng)
        value = jnp.asarray(schedule(temperature, context.step), jnp.float32)
        rows = jnp.broadcast_to(value, (len(batch["image"]),))
        return {**batch, "gumbel_noise": noise, "temperature": rows}

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        target = batch["image"].astype(jnp.float32) / 255
        return {
            "reconstruction": logit_laplace(outputs["pixels"], target).mean((1, 2, 3)),
            "kl": outputs["kl"],
            "temperature": batch["temperature"],
            **usage(outputs["image_codes"], model.codes),
        }

    return {"corrupt": corrupt, "loss": loss}


def vector_quantized(
    model: ImageTokenizer, decay: float = 0.99, revive: float = 0.1
) -> dict[str, Callable]:
    """Loss and codebook of the kind "vq".

    The loss gives `reconstruction`, the mean square error of the pixels in [-1, 1], `commitment`,
    and of the batch `codes_used` and `perplexity`, see `quantizer.usage`.

    Args:
      decay, revive: see `quantizer.updated`.
    """

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        target = batch["image"].astype(jnp.float32) / 127.5 - 1
        return {
            "reconstruction": jnp.square(outputs["pixels"] - target).mean((1, 2, 3)),
            "commitment": outputs["commitment"],
            **usage(outputs["image_codes"], model.codes),
        }

    def remember(memory: Memory, outputs: Outputs, batch: Batch, context: Context) -> Memory:
        del batch
        given = outputs["latents"], outputs["image_codes"], None, context.rng[0]
        book = memory[CODEBOOK]["quantizer"]
        return {CODEBOOK: {"quantizer": updated(book, *given, decay=decay, revive=revive)}}

    return {"loss": loss, "remember": remember}
