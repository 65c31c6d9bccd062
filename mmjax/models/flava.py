"""FLAVA: an image, a text and a multimodal encoder, pretrained on pairs and on either alone."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.bert_embed import WordHead
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm, unit_length
from mmjax.layers.parameters import param
from mmjax.models import clip, loss_memory
from mmjax.models import flava_pretraining as pretraining
from mmjax.models.build import build
from mmjax.models.flava_encoders import MultimodalEncoder, TextEncoder
from mmjax.models.image_codebook import DVAEEncoder, RandomQuantizer, make_codebook
from mmjax.models.vit import ViT
from mmjax.system import System

EPSILON = 1e-12  # of every norm, as in BERT
MASKED_INPUTS = ("image_masked", "text_corrupted")


class FLAVA(nn.Module):
    """Image and text encoders with a shared embedding space, and a multimodal encoder of both.

    A batch with `image` gives image_tokens [B, 1 + patches, width], image_features [B, width] (the
    first token) and image_embed [B, embed_dim]; one with `text` likewise; both give
    multimodal_tokens and multimodal_features, of the one that is present where an example lacks the
    other. Tokens are normalized and fp32, embeddings of unit length. logit_scale is always given.

    With heads, a batch with `image_masked` [B, patches] bool, or with `text_corrupted` [B, L] int32
    and its `text_corrupted_mask`, gives masked_image_logits [B, patches, V] and masked_text_logits
    [B, L, V] of each encoder by itself and, in place of the multimodal outputs,
    multimodal_image_logits, multimodal_text_logits and match_logits [B, 2], the second for a match.
    With a codebook, `image_codebook` [B, h, w, 3] uint8 gives image_codes [B, patches] int32.

    Attributes:
      image, text, multimodal: fields of the encoders (`ViT`, `TextEncoder`, `MultimodalEncoder`);
        they inherit `dtype`.
      codebook: `kind` and fields of `make_codebook`; None: no codebook. Freeze `codebook/.*`.
      heads: the heads of pretraining; they need encoders of one width.
      codebook_size: ids of the codebook.
      pooler: tanh(W x + b) of each encoder's first token: image_pooled and so on, [B, width].
      logit_scale_init, logit_scale_max: logarithms of the inverse temperature. A training step
        uses it within 0 and the maximum.

    Raises:
      ValueError: a codebook with another grid than the image's patches, or encoders of several
        widths under the heads.

    Source: Singh et al. 2022 (arXiv 2112.04482), sections 3.1 and 3.2; transformers'
    FlavaForPreTraining.
    """

    embed_dim: int
    image: Mapping[str, Any]
    text: Mapping[str, Any]
    multimodal: Mapping[str, Any]
    codebook: Mapping[str, Any] | None = None
    codebook_size: int = 8192
    heads: bool = True
    pooler: bool = False
    logit_scale_init: float = math.log(1 / 0.07)
    logit_scale_max: float = 4.6052
    dtype: str = "float32"

    def image_tower(self, **kwargs) -> ViT:
        """The image encoder."""
        usual = {"pool": "all", "class_token": True, "mask_token": self.heads}
        usual["norm_epsilon"] = EPSILON
        return self._part(ViT, {**usual, **self.image}, "image", **kwargs)

    def text_tower(self, **kwargs) -> TextEncoder:
        """The text encoder."""
        return self._part(TextEncoder, self.text, "text", **kwargs)

    def multimodal_tower(self, **kwargs) -> MultimodalEncoder:
        """The multimodal encoder."""
        return self._part(MultimodalEncoder, self.multimodal, "multimodal", **kwargs)

    def image_codebook(self, **kwargs) -> DVAEEncoder | RandomQuantizer | None:
        """The codebook, if any."""
        if self.codebook is None:
            return None
        return make_codebook(self.codebook, "config.model.codebook", **kwargs)

    def _part(self, kind: type, fields: Mapping[str, Any], part: str, **kwargs) -> nn.Module:
        fields = {"dtype": self.dtype, **fields}
        return kind(**check_kwargs(kind, fields, f"config.model.{part}"), **kwargs)

    def _widths(self) -> dict[str, int]:
        return {
            "image": self.image_tower(parent=None).sizes["width"],
            "text": self.text_tower(parent=None).width,
            "multimodal": self.multimodal_tower(parent=None).width,
        }

    def check(self, **kwargs) -> None:
        """Raise ValueError for encoders or a codebook that do not fit together."""
        image, widths = self.image_tower(**kwargs), self._widths()
        if self.heads and len(set(widths.values())) > 1:
            raise ValueError(
                "The heads of a FLAVA need encoders of one width, and those of config.model have "
                f"{widths}: change them, or set config.model.heads to False."
            )
        needed = {"pool": "all", "class_token": True, "mask_token": self.heads or image.mask_token}
        wrong = [name for name, value in needed.items() if getattr(image, name) != value]
        if wrong:
            raise ValueError(
                f"config.model.image.{wrong[0]} is {getattr(image, wrong[0])!r}, and a FLAVA needs "
                f"{needed[wrong[0]]!r}: leave it out."
            )
        text = self.text_tower(**kwargs)
        if text.mask_id is not None and text.mask_id >= text.vocab_size:
            raise ValueError(
                f"config.model.text.mask_id is {text.mask_id}, and vocab_size {text.vocab_size}: "
                "the mask token must be one of the vocabulary."
            )
        codebook = self.image_codebook(**kwargs)
        if codebook is not None:
            if codebook.vocab_size != self.codebook_size:
                raise ValueError(
                    f"config.model.codebook has {codebook.vocab_size} ids and "
                    f"config.model.codebook_size is {self.codebook_size}: set both to one number."
                )
            patches = (image.sizes["patch_size"], codebook.patch)
            if min(patches) < 1:
                raise ValueError(
                    f"The image has patches of {patches[0]} pixels and the codebook of "
                    f"{patches[1]}: set patch_size of both to 1 or more."
                )
            sizes = (image.train_size, codebook.train_size)
            grids = [tuple(n // patch for n in size) for size, patch in zip(sizes, patches)]
            if grids[0] != grids[1]:
                raise ValueError(
                    f"The image has {grids[0]} patches and the codebook gives {grids[1]} ids, "
                    f"one per {codebook.patch} pixels: change config.model.codebook.image_size."
                )

    def setup(self):
        self.encoders = {
            "image": self.image_tower(name="image"),
            "text": self.text_tower(name="text"),
        }
        self.joint = self.multimodal_tower(name="multimodal")
        self.codes = self.image_codebook(name="codebook")
        towers = {**self.encoders, "multimodal": self.joint}
        widths = self._widths()
        self.norms = {
            m: LayerNorm(tower.norm_epsilon, name=f"{m}_norm") for m, tower in towers.items()
        }
        self.poolers = {m: _pooler(widths[m], f"{m}_pooler") for m in towers}
        self.projections = {
            m: clip.joint_projection(widths[m], self.embed_dim, True, f"{m}_proj")
            for m in self.encoders
        }
        width, init = widths["multimodal"], nn.initializers.normal(0.02)
        self.to_multimodal = {
            m: Linear((width,), ("embed", None), True, self.dtype, init, name=f"{m}_to_multimodal")
            for m in self.encoders
        }
        scale = nn.initializers.constant(self.logit_scale_init)
        self.log_scale = param(self, "logit_scale", scale, (), ())
        if self.heads:
            self.word_heads = {
                f"{task}_{m}": self._head(m, f"{task}_{m}_head")
                for task in ("masked", "multimodal")
                for m in self.encoders
            }
            self.match_pooler = _pooler(width, "match_pooler")
            self.match_head = Linear(
                (2,), ("embed", "classes"), kernel_init=init, name="match_head"
            )

    def _head(self, modality: str, name: str) -> WordHead:
        tower = self.encoders[modality]
        size = self.codebook_size if modality == "image" else tower.vocab_size
        return WordHead(size, False, tower.activation, tower.norm_epsilon, self.dtype, name=name)

    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        outputs, states = {"logit_scale": self._scale(train)}, {}
        plain = {k: x for k, x in batch.items() if k not in MASKED_INPUTS}
        for m in (m for m in self.encoders if m in batch):
            states[m] = self._encode(m, plain, train)
            outputs |= self._tokens(m, states[m])
            outputs[f"{m}_embed"] = unit_length(self.projections[m](outputs[f"{m}_features"]))
        masked = any(name in batch for name in MASKED_INPUTS) or self.is_initializing()
        if self.heads and masked:
            outputs |= self._predict(batch, train)
        elif len(states) == 2:
            outputs |= self._tokens("multimodal", self._fuse(states, batch, train))
        if self.codes is not None and "image_codebook" in batch:
            codes = self.codes({"image": batch["image_codebook"]})["image_codes"]
            outputs["image_codes"] = codes.reshape(len(codes), -1)
        return outputs

    def _scale(self, train: bool) -> jax.Array:
        """exp of the parameter `logit_scale`, in training within its limits."""
        scale = self.log_scale
        if train:  # the gradient passes the limits, as where the parameter itself is clamped
            clamped = jnp.clip(scale, 0.0, self.logit_scale_max)
            scale = scale + jax.lax.stop_gradient(clamped - scale)
        return jnp.exp(scale)

    def _encode(self, modality: str, batch: Batch, train: bool) -> jax.Array:
        """The tokens of the last block, not normalized."""
        encoder = self.encoders[modality]
        if modality == "image":
            return encoder(batch, train=train)["image_tokens"]
        return encoder(
            batch["text"], batch.get("text_mask"), batch.get("text_segment"), train=train
        )

    def _fuse(self, states: Mapping[str, jax.Array], batch: Batch, train: bool) -> jax.Array:
        """The multimodal encoder on the tokens of both; those that are missing are masked."""
        image, text = (self.to_multimodal[m](states[m]) for m in self.encoders)
        seen = []
        for m, x in (("image", image), ("text", text)):
            mask = batch.get("text_mask") if m == "text" else None
            mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
            present = batch.get(f"{m}_present")
            seen.append(mask if present is None else mask & present[:, None])
        given = any(k in batch for k in ("text_mask", "image_present", "text_present"))
        mask = jnp.concatenate(seen, axis=1) if given else None
        return self.joint(image, text, mask, train=train)

    def _tokens(self, modality: str, states: jax.Array) -> dict[str, jax.Array]:
        """The outputs of an encoder from the tokens of its last block."""
        tokens = self.norms[modality](states)
        first = tokens[:, 0]
        outputs = {f"{modality}_tokens": tokens, f"{modality}_features": first}
        if self.pooler:
            outputs[f"{modality}_pooled"] = jnp.tanh(self.poolers[modality](first))
        return outputs

    def _predict(self, batch: Batch, train: bool) -> dict[str, jax.Array]:
        """The logits of all heads from masked inputs."""
        if "text_corrupted" in batch:
            batch = {
                **batch,
                "text": batch["text_corrupted"],
                "text_mask": batch["text_corrupted_mask"],
            }
        states = {m: self._encode(m, batch, train) for m in self.encoders if m in batch}
        outputs = {}
        for m, x in states.items():
            tokens = self._tokens(m, x)[f"{m}_tokens"]
            tokens = tokens[:, 1:] if m == "image" else tokens  # without the class token
            outputs[f"masked_{m}_logits"] = self.word_heads[f"masked_{m}"](tokens)
        if len(states) == 2:
            joint = self._fuse(states, batch, train)
            tokens = self._tokens("multimodal", joint)["multimodal_tokens"]
            of = dict(zip(("before", *states), _split(tokens, states)))
            for m in states:
                outputs[f"multimodal_{m}_logits"] = self.word_heads[f"multimodal_{m}"](of[m])
            pooled = jnp.tanh(self.match_pooler(tokens[:, 0]))
            outputs["match_logits"] = self.match_head(pooled)
        return outputs


def _split(tokens: jax.Array, states: Mapping[str, jax.Array]) -> list[jax.Array]:
    """Multimodal tokens [B, S, D] as class tokens, patches [B, P, D] and text [B, L, D]."""
    length = tokens.shape[1] - states["text"].shape[1]
    patches = length - states["image"].shape[1] + 1
    return jnp.split(tokens, [patches, length], axis=1)


def _pooler(width: int, name: str) -> Linear:
    """The map before the tanh of BERT's pooler."""
    return Linear((width,), ("embed", None), kernel_init=nn.initializers.normal(0.02), name=name)


def make_model(config: Mapping[str, Any]) -> FLAVA:
    """The model that `config.model` describes. See `build`."""
    return build(FLAVA, config, "check")


def make_system(config: Mapping[str, Any]) -> System:
    """FLAVA with the losses of its pretraining; see `flava_pretraining`.

    A model without heads has the contrastive loss alone; without a codebook, no loss of images.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    settings = pretraining.Settings(
        **check_kwargs(pretraining.Settings, config["loss"], "config.loss")
    )
    if model.heads and config.get("batch_size"):  # else the model is only loaded
        settings.check(model)
    return System(
        model=model,
        spec=spec(model, settings.mask_duplicates),
        loss=functools.partial(pretraining.terms, settings),
        corrupt=functools.partial(pretraining.corrupt, model, settings) if model.heads else None,
        limits=clip.limits(model),
        evaluators={"contrastive": {"kind": "retrieval"}},
        check_batch=functools.partial(pretraining.check_rows, config.get("loss_weights", {})),
        notes=functools.partial(loss_memory.notes, config),
        leaner_losses=functools.partial(loss_memory.leaner_losses, config),
    )


def spec(model: FLAVA, example_ids: bool) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    image, length = model.image_tower(parent=None), model.text_tower(parent=None).length
    arrays = {
        "image": ((*image.train_size, 3), jnp.uint8),
        "text": ((length,), jnp.int32),
        "text_mask": ((length,), jnp.bool_),
    }
    if example_ids:
        arrays["example_id"] = ((), jnp.int32)
    codebook = model.image_codebook(parent=None)
    if codebook is not None:
        arrays["image_codebook"] = ((*codebook.train_size, 3), jnp.uint8)
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
