"""BLIP for NLVR2: whether a sentence is true of two images."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.linear import Linear, class_head
from mmjax.layers.norm import LayerNorm
from mmjax.layers.pair_attention import PairBlock
from mmjax.layers.precision import activation_dtype
from mmjax.layers.stack import stack
from mmjax.losses.classification import check_classes, check_labels
from mmjax.models import captioner
from mmjax.models.build import build
from mmjax.models.classification import classification
from mmjax.models.encoder import BertEncoder
from mmjax.models.vit import ViT
from mmjax.system import System


class PairEncoder(BertEncoder, kw_only=True):
    """A text and a pair of images -> [B, L, width]: BERT whose layers attend to both images.

    Attributes: those of `BertEncoder`, and
      merge_depth: the last layers that merge what they read of both images by a linear map; the
        others average it.

    Raises:
      ValueError: a text longer than `length`, or more merging layers than layers.

    Source: salesforce/BLIP, models/nlvr_encoder.py, which merges in all layers after the sixth.
    """

    merge_depth: int

    def check(self) -> None:
        """Raise ValueError for inconsistent settings."""
        if not 0 <= self.merge_depth <= self.depth:
            raise ValueError(
                f"config.model.text.merge_depth is {self.merge_depth} of {self.depth} layers: use "
                "0 to all of them."
            )

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array,
        images: jax.Array,
        images_mask: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """`images`: [B, 2, S, C]; the masks are [B, L] and [B, 2, S] bool."""
        self.check()
        embed = self.embeddings(segments=0, name="embed")
        x = embed(text, train=train).astype(activation_dtype(self.dtype))
        for name, depth in (
            ("averaging", self.depth - self.merge_depth),
            ("merging", self.merge_depth),
        ):
            if depth:
                layers = stack(PairBlock, depth, self, (nn.broadcast,) * 3, self.remat)(
                    self.heads,
                    self.mlp_dim,
                    norm="post",
                    cross="between",
                    activation=self.activation,
                    dropout=self.dropout,
                    epsilon=self.norm_epsilon,
                    dtype=self.dtype,
                    train=train,
                    merge=name == "merging",
                    name=name,
                )
                x = layers(x, images, mask, images_mask)[0]
        return x


class BLIPNLVR(nn.Module):
    """Two images and a sentence -> logits [B, num_classes], false and true,
    and fused_features [B, width].

    The batch has `image` [B, 2, H, W, 3] uint8, with `image_mask` [B, 2] if some are missing, and
    `text` [B, L] with `text_mask`.

    Attributes:
      image: fields of `ViT`; text: fields of `PairEncoder`; both inherit `dtype`.
      encode_token: id that replaces the first token of the text; None: it stays.

    Raises:
      ValueError: a batch without two images and a text.

    Source: Li et al. 2022 (arXiv 2201.12086), section 5.4; salesforce/BLIP, models/blip_nlvr.py.
    """

    image: Mapping[str, Any]
    text: Mapping[str, Any]
    encode_token: int | None = None
    num_classes: int = 2
    dtype: str = "float32"

    def image_tower(self, **kwargs) -> ViT:
        """The image encoder that `image` describes."""
        fields = {"pool": "all", "class_token": True, **self.image}
        return captioner.image_tower(fields, self.dtype, **kwargs)

    def text_encoder(self, **kwargs) -> PairEncoder:
        """The text encoder that `text` describes."""
        fields = {"dtype": self.dtype, **self.text}
        fields = check_kwargs(PairEncoder, fields, "config.model.text")
        encoder = PairEncoder(**fields, **kwargs)
        encoder.check()
        return encoder

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        image = batch.get("image")
        if image is None or image.ndim != 5 or image.shape[1] != 2 or "text" not in batch:
            shapes = {name: list(x.shape) for name, x in batch.items()}
            raise ValueError(
                f"The batch has {shapes}: this BLIP reads a text and two images, [B, 2, H, W, 3]; "
                "use a source of pairs, such as kind 'nlvr2'."
            )
        tower = self.image_tower(name="image")
        tokens = tower({"image": rearrange(image, "b n h w c -> (b n) h w c")}, train=train)
        norm = LayerNorm(tower.norm_epsilon, self.dtype, name="image_norm")
        tokens = rearrange(norm(tokens["image_tokens"]), "(b n) s c -> b n s c", n=2)

        text = batch["text"]
        mask = batch.get("text_mask", jnp.ones(text.shape, bool))
        if self.encode_token is not None:
            text = text.at[:, 0].set(self.encode_token)
        seen = _seen(batch, tokens)
        x = self.text_encoder(name="text_encoder")(text, mask, tokens, seen, train=train)
        features = x[:, 0].astype(jnp.float32)
        init = nn.initializers.normal(0.02)
        inner = Linear(features.shape[-1:], ("embed", None), kernel_init=init, name="head_inner")
        logits = class_head(self.num_classes)(jax.nn.relu(inner(features)))
        return {"fused_features": features, "logits": logits}


def _seen(batch: Batch, tokens: jax.Array) -> jax.Array | None:
    """[B, 2, S] bool, false on the tokens [B, 2, S, C] of a missing image; None: none is."""
    if not {"image_mask", "image_present"} & set(batch):
        return None
    everywhere = jnp.ones(tokens.shape[:2], bool)
    shown = batch.get("image_mask", everywhere)
    shown = shown & batch.get("image_present", everywhere[:, 0])[:, None]
    return repeat(shown, "b n -> b n s", s=tokens.shape[2])


def make_model(config: Mapping[str, Any]) -> BLIPNLVR:
    """The model that `config.model` describes.

    Raises:
      ValueError: an unknown setting, in it or in its parts, or a token outside the vocabulary.
    """
    model = build(BLIPNLVR, config, "image_tower", "text_encoder")
    token, vocabulary = model.encode_token, model.text_encoder(parent=None).vocab_size
    if token is not None and not 0 <= token < vocabulary:
        raise ValueError(
            f"config.model.encode_token is {token} and the vocabulary {vocabulary}: give the id of "
            "a token in the vocabulary."
        )
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """The classifier; `config.loss` may set `label_smoothing`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    classes = {"classes": model.num_classes, "setting": "config.model.num_classes"}
    return System(
        model=model,
        spec=spec(model),
        loss=classification(**check_kwargs(classification, config["loss"], "config.loss")),
        check_batch=functools.partial(check_labels, **classes),
        check_source=functools.partial(check_classes, **classes),
        evaluators={"classification": {"kind": "image_pairs"}},
    )


def spec(model: BLIPNLVR) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    length = model.text_encoder(parent=None).length
    arrays = {
        "image": ((2, *model.image_tower(parent=None).train_size, 3), jnp.uint8),
        "text": ((length,), jnp.int32),
        "text_mask": ((length,), jnp.bool_),
        "label": ((), jnp.int32),
    }
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
