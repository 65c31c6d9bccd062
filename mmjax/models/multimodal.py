"""One transformer for any set of modalities: classification and masked prediction."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.batch import MODALITIES, Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.fusion import Fusion, Stream, make_fusion
from mmjax.layers.linear import Linear, class_head
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.tokens import TOKENS, Tokens
from mmjax.layers.transformer import Transformer
from mmjax.losses.masked import masked_ids, masked_values
from mmjax.models.vit import classification
from mmjax.sharding import shard


class MultimodalTransformer(nn.Module):
    """Tokens of each modality -> its own encoder -> a fusion -> a classification head.

    Gives fused_features [B, width], and logits [B, num_classes] where there is a head. A modality
    that the batch lacks, or that `<modality>_present` denies, is missing: see
    `mmjax.layers.fusion`. With a mask_ratio a training step gives, for each modality of the batch,
    `<modality>_prediction` of the tokens that were hidden from it, `<modality>_content` and
    `<modality>_hidden` [B, L].

    Attributes:
      image, audio, text: fields of `ImageTokens`, `AudioTokens`, `TextTokens` but the width; None:
        the model does not know that modality.
      encoder_depth: blocks of each modality before they meet; may be 0.
      fusion: `kind` (see `mmjax.layers.fusion.FUSIONS`) and fields of that kind.
      num_classes: size of the head; None: no head.
      mask_ratio: probability with which a training step hides a token.

    Raises:
      ValueError: no modality in the settings, or none in the batch.
    """

    width: int
    heads: int
    mlp_dim: int
    fusion: Mapping[str, Any]
    image: Mapping[str, Any] | None = None
    audio: Mapping[str, Any] | None = None
    text: Mapping[str, Any] | None = None
    encoder_depth: int = 2
    num_classes: int | None = None
    mask_ratio: float = 0.0
    activation: str = "gelu"
    dropout: float = 0.0
    norm_epsilon: float = 1e-6
    dtype: str = "float32"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the model knows, in the order of `mmjax.batch.MODALITIES`."""
        known = tuple(m for m in MODALITIES if getattr(self, m, None) is not None)
        if not known:
            raise ValueError(f"config.model has no modality: set one of {', '.join(TOKENS)}.")
        return known

    def tokens(self, modality: str, **kwargs) -> nn.Module:
        """The embedding of a modality."""
        fields = {"width": self.width, "dtype": self.dtype, **getattr(self, modality)}
        where = f"config.model.{modality}"
        return TOKENS[modality](**check_kwargs(TOKENS[modality], fields, where), **kwargs)

    def make_fusion(self, **kwargs) -> Fusion:
        """The fusion, with the model's own sizes where `fusion` gives no other."""
        names = ("heads", "mlp_dim", "activation", "dropout", "dtype")
        own = {name: getattr(self, name) for name in names} | {"epsilon": self.norm_epsilon}
        settings = {"modalities": self.modalities, **own, **self.fusion}
        return make_fusion(settings, "config.model.fusion", **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        given = [m for m in self.modalities if m in batch]
        if not given:
            raise ValueError(
                f"The batch has none of the model's modalities {', '.join(self.modalities)}; it "
                f"has {sorted(batch)}."
            )
        streams, tokens, hidden = {}, {}, {}
        for m in given:
            present = batch.get(f"{m}_present", jnp.ones(len(batch[m]), bool))
            tokens[m] = self.tokens(m, name=f"{m}_tokens")(_without_absent(batch, m, present))
            streams[m], hidden[m] = self._encode(m, tokens[m], present, train)
        fused = self.make_fusion(name="fusion")(streams, train=train)

        features = shard(fused.features.astype(jnp.float32), "batch", "act_embed")
        outputs = {"fused_features": features}
        if self.num_classes is not None:
            outputs["logits"] = class_head(self.num_classes)(features)
        if self.mask_ratio and (train or self.is_initializing()):
            for m in given:
                outputs[f"{m}_prediction"] = self._predict(m, fused.tokens[m], tokens[m])
                outputs[f"{m}_content"], outputs[f"{m}_hidden"] = tokens[m].content, hidden[m]
        return outputs

    def _encode(
        self, modality: str, tokens: Tokens, present: jax.Array, train: bool
    ) -> tuple[Stream, jax.Array]:
        """The modality's encoded stream, and which of its tokens were hidden [B, L]."""
        x, stream = tokens.x, activation_dtype(self.dtype)
        init = nn.initializers.normal(0.02)
        hidden = jnp.zeros(tokens.mask.shape, bool)
        if self.mask_ratio:
            hide = param(self, f"{modality}_hide", init, (self.width,), ("embed",))
            if train:
                lots = jax.random.bernoulli(self.make_rng("dropout"), self.mask_ratio, hidden.shape)
                hidden = lots & tokens.mask & present[:, None]
                x = jnp.where(hidden[:, :, None], hide.astype(stream)[None, None], x)
        kind = param(self, f"{modality}_embedding", init, (self.width,), ("embed",))
        x = x + (tokens.position + kind[None]).astype(stream)[None]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = shard(x, "batch", "length", "act_embed")
        if self.encoder_depth:
            x = Transformer(
                self.encoder_depth,
                self.heads,
                self.mlp_dim,
                activation=self.activation,
                dropout=self.dropout,
                epsilon=self.norm_epsilon,
                dtype=self.dtype,
                name=modality,
            )(x, tokens.mask, train=train)
        return Stream(x, tokens.mask, present), hidden

    def _predict(self, modality: str, fused: jax.Array, tokens: Tokens) -> jax.Array:
        """What the fused tokens [B, L, D] say of each: values [B, L, P] or logits [B, L, V]."""
        if modality == "text":
            size, name = self.text["vocab_size"], "vocab"
        else:
            size, name = tokens.content.shape[-1], "patch"
        return Linear((size,), ("embed", name), dtype=self.dtype, name=f"{modality}_prediction")(
            fused
        )


def _without_absent(batch: Batch, modality: str, present: jax.Array) -> Batch:
    """The batch with zeros where the modality is absent: what lies there may be no number."""
    x = batch[modality]
    absent = ~present.reshape(-1, *(1,) * (x.ndim - 1))
    return {**batch, modality: jnp.where(absent, jnp.zeros((), x.dtype), x)}


def make_model(config: Mapping[str, Any]) -> MultimodalTransformer:
    """The model that `config.model` describes.

    Raises:
      ValueError: an unknown setting, in it or in its parts.
    """
    model = MultimodalTransformer(**check_kwargs(MultimodalTransformer, config, "config.model"))
    check(model)
    return model


def check(model: MultimodalTransformer) -> None:
    """Build its parts, so that a typing error shows now and not in the first step."""
    for m in model.modalities:
        model.tokens(m, parent=None)
    model.make_fusion(parent=None)


def make_loss(config: Mapping[str, Any]) -> Callable[..., dict[str, jax.Array]]:
    """`classification` and `accuracy` where the model has a head (`config.loss.label_smoothing`;
    see `mmjax.models.vit`), and `masked_<modality>` where it predicts what was hidden.

    Raises:
      ValueError: an unknown setting.
    """
    return terms(**check_kwargs(terms, config, "config.loss"))


def terms(label_smoothing: float = 0.0) -> Callable[..., dict[str, jax.Array]]:
    """The loss function of those settings; see `make_loss`."""
    classify = classification(label_smoothing)

    def loss(outputs, batch):
        found = classify(outputs, batch) if "logits" in outputs else {}
        for m in MODALITIES:
            if f"{m}_prediction" in outputs:
                masked = masked_ids if m == "text" else masked_values
                parts = (outputs[f"{m}_{part}"] for part in ("prediction", "content", "hidden"))
                found[f"masked_{m}"] = masked(*parts)
        return found

    return loss


def check_batch(model: Mapping[str, Any], batch: Batch) -> None:
    """Raise ValueError for a batch on the host in which a modality has nothing to predict."""
    if not model.get("mask_ratio") or jax.process_count() > 1:  # one's rows may have none of it
        return
    for m in MODALITIES:
        present = batch.get(f"{m}_present")
        if m in batch and present is not None and not np.asarray(present).any():
            raise ValueError(
                f"No example of the batch has its {m}, so that masked_{m} has nothing to predict: "
                "check config.data.train, or set config.model.mask_ratio to 0."
            )


def make_example_losses(config: Mapping[str, Any]) -> Callable[..., dict[str, jax.Array]]:
    """The classification loss of each example, (outputs, batch) -> {"classification": [B]}; a
    model without a head has none (masked prediction is a mean over tokens)."""
    loss = make_loss(config)

    def losses(outputs, batch):
        if "logits" not in outputs:
            return {}
        targets = {n: batch[n][:, None] for n in ("label", "label_probs") if n in batch}
        found = jax.vmap(lambda logits, t: loss({"logits": logits[None]}, t))(
            outputs["logits"], targets
        )
        return {"classification": found["classification"]}

    return losses


def spec(model: MultimodalTransformer, loss: Mapping[str, Any]) -> Spec:
    """What the model reads of a batch of one."""
    del loss
    arrays = {}
    for m in model.modalities:
        arrays |= model.tokens(m, parent=None).spec()
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
