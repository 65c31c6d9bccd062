"""The model of ViLT: one transformer over text tokens and linear projections of patches."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.activations import ACTIVATIONS
from mmjax.layers.bert_embed import BertEmbed, WordHead
from mmjax.layers.linear import Linear, class_head
from mmjax.layers.norm import LayerNorm
from mmjax.layers.padded_patches import PaddedPatches
from mmjax.layers.parameters import param
from mmjax.layers.pooling import pool_tokens
from mmjax.layers.sizes import height_width
from mmjax.models.encoder import Encoder
from mmjax.sharding import shard

CLASSIFY = ("question", "images", "tokens")


class View(NamedTuple):
    """A text and an image that the transformer sees together; None: the batch has none of these.

    Attributes:
      mask: [B, L] bool, the valid tokens of the text.
      kind: row of the modality table for the image.
    """

    text: jax.Array | None
    mask: jax.Array | None
    image: jax.Array | None
    size: jax.Array | None
    present: jax.Array | None
    kind: int


class ViLT(Encoder, kw_only=True):
    """Text and image -> text_tokens [B, L, width], image_tokens [B, 1 + P, width], logits.

    The batch has `text` [B, L] int32 with `text_mask`, and `image` [B, H, W, 3] uint8, of which
    `image_size` [B, 2] int32 (height, width) are the valid pixels at the top left; without it all
    are. With `images` > 1 these have a second axis of images, each seen beside the same text in a
    pass of its own.

    Further outputs: image_tokens_mask [B, 1 + P] bool (the first is the class token), and with the
    heads fused_features [B, images * width] (pooled first token of the text), logits
    [B, num_classes] or token_logits [B, L, num_classes], match_logits [B, matching],
    text_prediction [B, L, vocab].
    Without text only the tokens of the image.
    Where `corrupt` has put them into the batch, text_prediction is of `text_corrupted` [B, L]
    beside the image, and the matching head sees `text` beside `match_image`, in a second pass,
    which also gives match_text_tokens, match_image_tokens and match_image_tokens_mask. With
    `false_text` and `false_text_mask` [B, N, L], the image is also seen beside each of these:
    rank_scores [B, 1 + N], the first of its own text.

    Attributes: those of `Encoder`, and
      text: fields of `BertEmbed`; image: fields of `PaddedPatches`, and `padded_size`, (H, W) of
        the arrays in training where these are larger than `image_size`.
      images: images of an example.
      modality_types: rows of the modality table: text, image, second image, ...
      pooler: a map of the first token, tanh(W x + b).
      words: a head for masked words, tied to the word embedding.
      matching: logits of the head on whether image and text match: 2 in pretraining (no, yes), 1
        for ranking, 0 without it.
      num_classes: size of the classification head; None: no head.
      classify: "question" (one image, an inner layer twice as wide), "images" (of all images the
        pooled features concatenated, as in NLVR2) or "tokens" (each token of the text).

    Raises:
      ValueError: inconsistent settings, a batch with another number of images, or with none.

    Source: Kim et al. 2021 (arXiv 2102.03334); dandelin/ViLT, vilt_module.py.
    """

    text: Mapping[str, Any]
    image: Mapping[str, Any]
    images: int = 1
    modality_types: int = 2
    pooler: bool = True
    words: bool = False
    matching: int = 0
    num_classes: int | None = None
    classify: str = "question"
    qkv_bias: bool = True

    def text_embed(self, **kwargs) -> BertEmbed:
        """The embedding that `text` describes."""
        own = {"epsilon": self.norm_epsilon, "dropout": self.dropout, "dtype": self.dtype}
        fields = {"width": self.width, **own, **self.text}
        return BertEmbed(**check_kwargs(BertEmbed, fields, "config.model.text"), **kwargs)

    def patches(self, **kwargs) -> PaddedPatches:
        """The embedding that `image` describes."""
        given = {k: v for k, v in self.image.items() if k != "padded_size"}
        fields = {"width": self.width, "dtype": self.dtype, **given}
        return PaddedPatches(**check_kwargs(PaddedPatches, fields, "config.model.image"), **kwargs)

    @property
    def train_size(self) -> tuple[int, int]:
        """(height, width) of the image arrays in training."""
        return height_width(self.image.get("padded_size") or self.image["image_size"])

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        self.check()
        views = self._views(batch)

        # ---- all views as rows of one batch, those of an example next to each other
        embed, init = self.text_embed(name="text"), nn.initializers.normal(0.02)
        shape = (self.modality_types, self.width)
        types = param(self, "modality_embedding", init, shape, (None, "embed"))
        tokens = []
        if "text" in batch:
            tokens.append(_word_tokens(embed, views, batch.get("text_segment"), types, train))
        if "image" in batch:
            tokens.append(self._patch_tokens(views, types, train))
        x, mask = (jnp.concatenate(parts, axis=1) for parts in zip(*tokens))

        # ---- blocks
        blocks = self.blocks(self.depth, "transformer", qkv_bias=self.qkv_bias)
        x = blocks(shard(x, "batch", "length", "act_embed"), mask, train=train)
        x = LayerNorm(self.norm_epsilon, name="norm")(x)  # in fp32, as are all outputs

        # ---- tokens, and what the heads make of them
        length = batch["text"].shape[1] if "text" in batch else 0
        pooled = pool_tokens(x, "cls")
        x, mask = (rearrange(a, "(b n) ... -> b n ...", n=len(views)) for a in (x, mask))
        outputs = {}
        names = ("", "match_") if "match_image" in batch else ("",) * (self.images == 1)
        for i, name in enumerate(names):
            outputs[f"{name}text_tokens"] = x[:, i, :length]
            outputs[f"{name}image_tokens"] = x[:, i, length:]
            outputs[f"{name}image_tokens_mask"] = mask[:, i, length:]
        if "text" not in batch:
            return {k: v for k, v in outputs.items() if "text" not in k}
        if self.pooler:
            maps = Linear((self.width,), ("embed", None), kernel_init=init, name="pooler")
            pooled = rearrange(jnp.tanh(maps(pooled)), "(b n) d -> b n d", n=len(views))
            seen = pooled[:, : self.images]
            outputs["fused_features"] = rearrange(seen, "b n d -> b (n d)")
        if self.words:
            head = WordHead(
                embed.vocab_size,
                activation=self.activation,
                epsilon=self.norm_epsilon,
                dtype=self.dtype,
                name="word_head",
            )
            outputs["text_prediction"] = head(outputs["text_tokens"], embed.embedding)
        if self.matching:
            head = Linear((self.matching,), ("embed", None), kernel_init=init, name="match_head")
            if "false_text" in batch:
                outputs["rank_scores"] = head(pooled)[..., 0]
                pooled = pooled[:, :1]
            outputs["match_logits"] = head(pooled[:, -1])
        if self.num_classes is not None:
            outputs |= self._classes(outputs)
        return outputs

    def check(self) -> None:
        """Raise ValueError for inconsistent settings."""
        if self.classify not in CLASSIFY:
            raise ValueError(
                f"config.model.classify is '{self.classify}'; use one of {', '.join(CLASSIFY)}."
            )
        if self.matching not in (0, 1, 2):
            raise ValueError(f"config.model.matching is {self.matching}; use 0, 1 or 2 logits.")
        pools = self.matching or (self.num_classes is not None and self.classify != "tokens")
        if pools and not self.pooler:
            raise ValueError("The heads of this ViLT need its pooler: set config.model.pooler.")
        most = self.patches(parent=None).max_patches
        if most is not None and most < 1:
            raise ValueError(
                f"config.model.image.max_patches is {most}: use a number of patches, or None for "
                "all."
            )
        if self.modality_types < 1 + self.images:
            raise ValueError(
                f"config.model.modality_types is {self.modality_types}, and text and {self.images} "
                f"image(s) need {1 + self.images}."
            )
        if self.images > 1 and (self.words or self.matching or self.classify != "images"):
            raise ValueError(
                f"A ViLT of {self.images} images has no other head than classify='images': unset "
                "words and matching, or set images to 1."
            )

    def _views(self, batch: Batch) -> list[View]:
        """What the transformer sees of each example, one view after the other."""
        text, image = batch.get("text"), batch.get("image")
        if (text is None and image is None) or (text is None and self.images > 1):
            raise ValueError(
                f"The batch has {sorted(batch)}: a ViLT needs text, or of one image only that."
            )
        size, present = batch.get("image_size"), batch.get("image_present")
        mask = None if text is None else _text_mask(batch)
        if image is None:
            return [View(text, mask, None, None, None, 1)] * self.images
        axes = 4 if self.images == 1 else 5
        if image.ndim != axes or (axes == 5 and image.shape[1] != self.images):
            raise ValueError(
                f"The batch's image has the shape {list(image.shape)}, and config.model.images is "
                f"{self.images}: change one."
            )
        if self.images > 1:
            present = jnp.ones(len(image), bool) if present is None else present
            shown = batch.get("image_mask", jnp.ones(image.shape[:2], bool)) & present[:, None]
            sizes = [None if size is None else size[:, i] for i in range(self.images)]
            return [
                View(text, mask, image[:, i], sizes[i], shown[:, i], i + 1)
                for i in range(self.images)
            ]
        first = View(batch.get("text_corrupted", text), mask, image, size, present, 1)
        if "false_text" in batch:
            both = (rearrange(batch[f"false_text{x}"], "b n l -> n b l") for x in ("", "_mask"))
            return [first, *(View(*text, image, size, present, 1) for text in zip(*both))]
        if "match_image" not in batch:
            return [first]
        size, there = batch.get("match_image_size"), batch["match_image_present"]
        return [first, View(text, mask, batch["match_image"], size, there, 1)]

    def _patch_tokens(
        self, views: list[View], types: jax.Array, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Class and patch tokens of all images, with their modality, and the mask."""
        patches = self.patches()
        nn.share_scope(self, patches)  # the parameters have the names of a `ViT`
        image, size = _rows([v.image for v in views]), _rows([v.size for v in views])
        x, seen = patches(image, size, train=train)
        kinds = types.astype(x.dtype)[jnp.asarray([v.kind for v in views])]
        kinds = jnp.tile(kinds, (len(x) // len(views), 1))
        present = _rows([v.present for v in views])
        x = nn.Dropout(self.dropout, deterministic=not train)(x + kinds[:, None])
        return x, seen if present is None else seen & present[:, None]

    def _classes(self, outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The output of the classification head."""
        if self.classify == "tokens":
            return {"token_logits": class_head(self.num_classes)(outputs["text_tokens"])}
        x = outputs["fused_features"]
        inner = (2 if self.classify == "question" else self.images) * self.width
        init = nn.initializers.normal(0.02)
        x = Linear((inner,), ("embed", None), kernel_init=init, name="head_inner")(x)
        x = ACTIVATIONS["gelu"](LayerNorm(1e-5, axis=None, name="head_norm")(x))
        return {"logits": class_head(self.num_classes)(x)}


def _rows(views: list[jax.Array | None]) -> jax.Array | None:
    """[B, ...] of each of n views -> [B * n, ...], the views of an example next to each other, so
    that they stay on its device."""
    if views[0] is None:
        return None
    return rearrange(jnp.stack(views, axis=1), "b n ... -> (b n) ...")


def _word_tokens(
    embed: BertEmbed,
    views: list[View],
    segment: jax.Array | None,
    types: jax.Array,
    train: bool,
) -> tuple[jax.Array, jax.Array]:
    """Tokens of all texts, with their modality, and the mask."""
    mask = _rows([v.mask for v in views])
    segment = None if segment is None else repeat(segment, "b l -> (b n) l", n=len(views))
    x = embed(_rows([v.text for v in views]), segment, train=train)
    return x + types[0].astype(x.dtype)[None, None], mask


def _text_mask(batch: Batch) -> jax.Array:
    """[B, L] bool; of a missing text only the first token is valid, which is pooled."""
    mask = batch.get("text_mask", jnp.ones(batch["text"].shape, bool))
    if "text_present" in batch:
        first = jnp.arange(mask.shape[1]) == 0
        mask = (mask & batch["text_present"][:, None]) | first[None]
    return mask
