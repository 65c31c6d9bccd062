r"""Images by a prior and a decoder as in DALL-E 2: of texts, variations, and what is between.

    python -m mmjax.unclip --decoder=runs/unclip_emoji --prior=runs/prior_emoji \
        --prompt="red apple" --count=4 --guidance=3 --out=apple.png
    python -m mmjax.unclip --decoder=runs/unclip_emoji --image=a.png --count=8 --out=variations.png
    python -m mmjax.unclip --decoder=runs/unclip_emoji --image=a.png --image=b.png --count=5 \
        --out=between.png
    python -m mmjax.unclip --decoder=runs/unclip_emoji --prior=runs/prior_emoji --image=a.png \
        --prompt="a cat" --prompt="a red cat" --count=5 --out=redder.png
    python -m mmjax.unclip --decoder=karlo-v1-alpha --prompt="a red bus" --out=bus.png

With one image: variations of it, which share its embedding. With two: what is between them; with
an image and two prompts: its embedding moved by up to half of the way to the difference of the two
texts. Both start from the noise that DDIM inversion finds in the images, so that the ends are
reconstructions. Both runs must have the same CLIP.

The decoder may be a folder of diffusers, Karlo's: a UnCLIPPipeline, for prompts, or a
UnCLIPImageVariationPipeline, for variations of an image. It has its own prior, if any.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--decoder", {"required": True, "help": "the workdir of an unclip, or Karlo's folder"}),
        ("--prior", {"default": "", "help": "the workdir of a diffusion_prior; for prompts"}),
        ("--prompt", {"action": "append", "default": [], "help": "a text; may be repeated"}),
        ("--image", {"action": "append", "default": [], "help": "a file; may be repeated"}),
        ("--out", {"required": True, "help": "a .png to write"}),
        ("--count", {"type": int, "default": 4, "help": "images of each [4]"}),
        ("--seed", {"type": int, "default": 0}),
        ("--steps", {"type": int, "help": "of prior and decoder [50; Karlo: 25]"}),
        ("--super_res_steps", {"type": int, "help": "of Karlo's enlarging [7]"}),
        ("--guidance", {"type": float, "help": "of the decoder [1; Karlo: 8]"}),
        ("--prior_guidance", {"type": float, "help": "of the prior [1; Karlo: 4]"}),
    )

import dataclasses
import functools
import io
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mmjax import pretrained, storage
from mmjax.data import image_files
from mmjax.models import glide_sampling, karlo_sampling
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained
from mmjax.process.progress import Progress
from mmjax.run.given_parts import fingerprint
from mmjax.sample.compiled import compiled
from mmjax.sample.embeddings import noise_between, slerp, text_diff
from mmjax.sample.progress import reported
from mmjax.sample.sheet import tile
from mmjax.system import System, row_keys

SHARED = ("image", "image_proj")  # the parts of the CLIP that the decoder has too
STEPS = 50
FARTHEST = 0.5  # of the way to the difference of two texts: the paper's section 3.3


class Part:
    """A loaded prior or decoder.

    Raises:
      ValueError: a model of another kind than one of these.
    """

    def __init__(self, path: str, *kinds: str):
        self.loaded: Pretrained = pretrained.load(path)
        if self.kind not in kinds:
            raise ValueError(f"'{path}' holds a '{self.kind}', not a '{kinds[0]}'.")
        self.system: System = make_system({"model": self.loaded.config})

    @property
    def kind(self) -> str:
        """The name of its system."""
        return self.loaded.config["name"]

    @functools.cached_property
    def clip_fingerprints(self) -> dict[str, str]:
        """Those of the parts of its CLIP's image side."""
        return {part: fingerprint(self.loaded.params, part) for part in SHARED}

    def sample(self, batch: dict, seed: int, settings: dict) -> dict[str, np.ndarray]:
        """`System.sample`, by the seed and each row's number."""
        rows = len(next(iter(batch.values())))
        keys = row_keys(jax.random.key(seed), jnp.arange(rows))
        found = self.system.sample(self.loaded.variables, batch, keys, settings)
        return jax.device_get(dict(found))

    def inverted(self, batch: dict, settings: dict) -> np.ndarray:
        """The noise [B, H, W, C] from which a decoder makes the images of a batch."""
        keys = row_keys(jax.random.key(0), jnp.arange(len(batch["image"])))
        invert = compiled(functools.partial(glide_sampling.invert, self.system.model))
        return np.asarray(invert(self.loaded.variables, batch, keys, settings)["start"])

    def texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The tokens of texts, as the model reads them."""
        length = self.loaded.text_length
        tokens, mask, cut = self.loaded.need_tokenizer().rows(list(texts), length)
        for text in dict.fromkeys(np.asarray(texts)[cut].tolist()):
            print(f"warning: '{text}' does not fit into {length} tokens: truncated.")
        if self.kind == "unclip":  # no text, as where it was dropped
            mask[[not text.strip() for text in texts]] = False
        return {"text": np.asarray(tokens, np.int32), "text_mask": np.asarray(mask, bool)}


def check_same_clip(decoder: Part, prior: Part) -> None:
    """Raise ValueError where a prior was trained with another CLIP than the decoder."""
    if decoder.clip_fingerprints != prior.clip_fingerprints:
        raise ValueError(
            "The prior was trained on another CLIP than the decoder, so its embeddings mean "
            "nothing to it: train both with the same config.init_from.path."
        )


def image_embeddings(prior: Part, images: Sequence[bytes]) -> np.ndarray:
    """[N, E] of encoded images, by the prior's CLIP."""
    batch = {"image": np.stack([prior.loaded.image(image) for image in images])}
    return np.asarray(
        jax.jit(prior.loaded.model.apply)(prior.loaded.variables, batch)["image_embed"]
    )


def text_embeddings(prior: Part, texts: Sequence[str]) -> np.ndarray:
    """[N, E] of texts, by the prior's CLIP."""
    outputs = jax.jit(prior.loaded.model.apply)(prior.loaded.variables, prior.texts(texts))
    return np.asarray(outputs["text_embed"])


def main() -> None:
    """The command."""
    out, prompts, files = Path(ARGS.out), ARGS.prompt, ARGS.image
    if out.suffix != ".png" or ARGS.count < 1:
        raise ValueError("Give an --out that ends in .png, and a --count of at least 1.")
    shapes = {(0, n) for n in range(1, 1000)} | {(1, 0), (1, 2), (2, 0)}
    if (len(files), len(prompts)) not in shapes:
        raise ValueError(
            f"There are {len(files)} images and {len(prompts)} prompts: give prompts, one image, "
            "two images, or one image and two prompts."
        )
    images = [image_files.read_checked(file) for file in files]
    decoder = Part(ARGS.decoder, "unclip", "karlo")
    settings = {"steps": _given("steps", STEPS), "guidance": _given("guidance", 1.0)}
    if decoder.kind == "karlo":
        batch, settings = of_karlo(decoder, images, prompts)
    elif not ARGS.prior and (prompts or len(files) > 1):
        raise ValueError("Embeddings of texts, and those between images, need a --prior.")
    elif ARGS.super_res_steps is not None:
        raise ValueError("--super_res_steps is of Karlo, and this decoder enlarges nothing.")
    elif len(files) == 1 and not prompts:
        batch = {"image": np.repeat(decoder.loaded.image(images[0])[None], ARGS.count, 0)}
    else:
        prior = Part(ARGS.prior, "diffusion_prior")
        check_same_clip(decoder, prior)
        batch = embeddings(decoder, prior, images, prompts, settings)
    total = sum(x for name, x in settings.items() if name.endswith("steps"))
    with Progress("Sampling", total) as bar, reported(lambda step, steps: bar.advance()):
        found = decoder.sample(batch, ARGS.seed, settings)["image"]
    buffer = io.BytesIO()
    Image.fromarray(tile(found, ARGS.count)).save(buffer, "PNG")
    storage.write(out, buffer.getvalue())
    print(f"{out}: {len(found)} images")


def of_karlo(
    decoder: Part, images: Sequence[bytes], prompts: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The batch that a Karlo samples from, and the settings.

    Raises:
      ValueError: what a Karlo does not draw.
    """
    if ARGS.prior or len(images) > 1 or (images and prompts):
        raise ValueError(
            "A Karlo draws images of prompts, or variations of one image, and has its own prior: "
            "leave out --prior, and give either prompts or one image."
        )
    settings = dataclasses.asdict(karlo_sampling.Settings())
    settings = {
        name: _given(name.replace("prior_steps", "steps"), x) for name, x in settings.items()
    }
    if images:  # no prior
        del settings["prior_steps"], settings["prior_guidance"]
    texts = [text for text in prompts or [""] for _ in range(ARGS.count)]
    batch = decoder.texts(texts)
    if images:
        batch["image"] = np.repeat(decoder.loaded.image(images[0])[None], ARGS.count, 0)
    return batch, settings


def _given(name: str, default: float) -> float:
    value = getattr(ARGS, name)
    return default if value is None else value


def embeddings(
    decoder: Part, prior: Part, images: Sequence[bytes], prompts: Sequence[str], settings: dict
) -> dict[str, np.ndarray]:
    """The batch that the decoder samples from."""
    if not images:
        texts = [text for text in prompts for _ in range(ARGS.count)]
        how = {"steps": _given("steps", STEPS), "guidance": _given("prior_guidance", 1.0)}
        embed = prior.sample(prior.texts(texts), ARGS.seed, how)["image_embed"]
        return {"image_embed": embed, **decoder.texts(texts)}
    given, steps = image_embeddings(prior, images), np.linspace(0, 1, ARGS.count)
    pixels = np.stack([decoder.loaded.image(image) for image in images])
    noise = decoder.inverted({"image": pixels, "image_embed": given}, settings)
    if prompts:
        embed = text_diff(given[0], *text_embeddings(prior, prompts), FARTHEST * steps)
        return {"image_embed": embed, "start": np.repeat(noise, len(steps), axis=0)}
    return {"image_embed": slerp(*given, steps), "start": noise_between(*noise, steps)}


if __name__ == "__main__":
    command.run(main)
