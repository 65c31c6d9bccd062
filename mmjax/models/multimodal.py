"""One transformer for any set of modalities: classification and masked prediction."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import MODALITIES, Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.fusion import Fusion, Stream, make_fusion
from mmjax.layers.fusion.alone import Alone, fall_back
from mmjax.layers.linear import Linear, class_head
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.tokens import TOKENS, Tokens
from mmjax.layers.transformer import Transformer
from mmjax.losses.classification import (
    check_classes,
    check_evidential,
    check_labels,
    classification_loss,
)
from mmjax.losses.masked import masked_ids, masked_values
from mmjax.losses.reconstruction import feature_error
from mmjax.sample.rows import numbered
from mmjax.schedule import Schedule, schedule
from mmjax.sharding import shard
from mmjax.system import Context, Outputs, System, Terms, Weighted


class MultimodalTransformer(nn.Module):
    """Tokens of each modality -> an encoder per modality -> a fusion -> a classification head.

    Gives fused_features [B, width], and logits [B, num_classes] with a head. A modality is missing
    where the batch does not have it or `<modality>_present` is false: see `mmjax.layers.fusion`.
    Where the batch has `<modality>_masked` [B, L] (see `mask_tokens`), those tokens are replaced by
    a learned mask token and the model gives `<modality>_prediction` of every token,
    `<modality>_content` and `<modality>_masked`. With `fallback_depth` it gives
    `<modality>_logits` [B, num_classes] of each modality alone, and with `fusion.reconstruction`
    `reconstruction`, `reconstruction_target` [B, M, width] and `reconstruction_known` [B, M].

    Attributes:
      image, audio, text: fields of `ImageTokens`, `AudioTokens`, `TextTokens` without the width;
        None: the model does not have that modality.
      encoder_depth: blocks per modality before the fusion; may be 0.
      fusion: `kind` (see `mmjax.layers.fusion.FUSIONS`) and fields of that kind.
      num_classes: size of the head; None: no head.
      fallback_depth: each modality also has a classifier of its own, after so many blocks over its
        encoder's output; `logits` of an example that misses a modality are the mean of those of the
        modalities that it has. None: no such classifiers.
      mask_ratio: probability with which a training step masks a token.

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
    fallback_depth: int | None = None
    mask_ratio: float = 0.0
    activation: str = "gelu"
    dropout: float = 0.0
    norm_epsilon: float = 1e-6
    dtype: str = "float32"

    @property
    def modalities(self) -> tuple[str, ...]:
        """The model's modalities, in the order of `mmjax.batch.MODALITIES`."""
        known = tuple(m for m in MODALITIES if getattr(self, m, None) is not None)
        if not known:
            raise ValueError(f"config.model has no modality: set one of {', '.join(TOKENS)}.")
        return known

    def tokens(self, modality: str, **kwargs) -> nn.Module:
        """The embedding of a modality."""
        fields = {"width": self.width, "dtype": self.dtype, **getattr(self, modality)}
        where = f"config.model.{modality}"
        return TOKENS[modality](**check_kwargs(TOKENS[modality], fields, where), **kwargs)

    def sizes(self) -> dict[str, Any]:
        """Settings that the model's parts share."""
        names = ("heads", "mlp_dim", "activation", "dropout", "dtype")
        return {name: getattr(self, name) for name in names} | {"epsilon": self.norm_epsilon}

    def make_fusion(self, **kwargs) -> Fusion:
        """The fusion; its sizes default to those of the model."""
        settings = {"modalities": self.modalities, **self.sizes(), **self.fusion}
        return make_fusion(settings, "config.model.fusion", **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        given = [m for m in self.modalities if m in batch]
        if not given:
            raise ValueError(
                f"The batch has none of the model's modalities {', '.join(self.modalities)}; it "
                f"has {sorted(batch)}."
            )
        streams, tokens, masked = {}, {}, {}
        for m in given:
            present = batch.get(f"{m}_present", jnp.ones(len(batch[m]), bool))
            tokens[m] = self.tokens(m, name=f"{m}_tokens")(_zero_missing(batch, m, present))
            masked[m] = batch.get(f"{m}_masked", jnp.zeros(tokens[m].mask.shape, bool))
            masked[m] &= tokens[m].mask & present[:, None]
            streams[m] = self._encode(m, tokens[m], masked[m], present, train)
        fused = self.make_fusion(name="fusion")(streams, train=train)

        features = shard(fused.features.astype(jnp.float32), "batch", "act_embed")
        outputs = {"fused_features": features}
        if self.num_classes is not None:
            outputs["logits"] = class_head(self.num_classes)(features)
        if self.fallback_depth is not None:
            outputs |= self._fall_back(outputs["logits"], streams, train)
        if fused.reconstruction is not None:
            outputs["reconstruction"] = fused.reconstruction.values.astype(jnp.float32)
            outputs["reconstruction_target"] = fused.reconstruction.target
            outputs["reconstruction_known"] = fused.reconstruction.known
        for m in given:
            if f"{m}_masked" in batch or (self.mask_ratio and self.is_initializing()):
                outputs[f"{m}_prediction"] = self._predict(m, fused.tokens[m], tokens[m])
                outputs[f"{m}_content"], outputs[f"{m}_masked"] = tokens[m].content, masked[m]
        return outputs

    def _encode(
        self, modality: str, tokens: Tokens, masked: jax.Array, present: jax.Array, train: bool
    ) -> Stream:
        """The modality's encoded stream; `masked` [B, L]: tokens replaced by the mask token."""
        x, stream = tokens.x, activation_dtype(self.dtype)
        init = nn.initializers.normal(0.02)
        if self.mask_ratio:
            mask_token = param(self, f"{modality}_hide", init, (self.width,), ("embed",))
            x = jnp.where(masked[:, :, None], mask_token.astype(stream)[None, None], x)
        kind = param(self, f"{modality}_embedding", init, (self.width,), ("embed",))
        x = x + (tokens.position + kind[None]).astype(stream)[None]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = shard(x, "batch", "length", "act_embed")
        if self.encoder_depth:
            encoder = Transformer(self.encoder_depth, **self.sizes(), name=modality)
            x = encoder(x, tokens.mask, train=train)
        return Stream(x, tokens.mask, present)

    def _fall_back(
        self, logits: jax.Array, streams: Mapping[str, Stream], train: bool
    ) -> dict[str, jax.Array]:
        """`logits`, and `<modality>_logits` of the modalities that the batch has."""
        alone = {}
        for m, stream in streams.items():
            head = Alone(
                classes=self.num_classes,
                depth=self.fallback_depth,
                **self.sizes(),
                name=f"{m}_alone",
            )
            alone[m] = head(stream, train=train)
        nothing, nowhere = jnp.zeros_like(logits), jnp.zeros(len(logits), bool)
        every = jnp.stack([alone.get(m, nothing) for m in self.modalities], axis=1)
        present = [streams[m].present if m in streams else nowhere for m in self.modalities]
        found = {"logits": fall_back(logits, every, jnp.stack(present, axis=1))}
        return found | {f"{m}_logits": x for m, x in alone.items()}

    def _predict(self, modality: str, fused: jax.Array, tokens: Tokens) -> jax.Array:
        """Predictions from the fused tokens [B, L, D]: values [B, L, P] or logits [B, L, V]."""
        if modality == "text":
            size, name = self.text["vocab_size"], "vocab"
        else:
            size, name = tokens.content.shape[-1], "patch"
        return Linear((size,), ("embed", name), dtype=self.dtype, name=f"{modality}_prediction")(
            fused
        )


def _zero_missing(batch: Batch, modality: str, present: jax.Array) -> Batch:
    """The batch with zeros where the modality is missing, as its values may be NaN."""
    x = batch[modality]
    missing = ~present.reshape(-1, *(1,) * (x.ndim - 1))
    return {**batch, modality: jnp.where(missing, jnp.zeros((), x.dtype), x)}


def make_model(config: Mapping[str, Any]) -> MultimodalTransformer:
    """The model that `config.model` describes.

    Raises:
      ValueError: an unknown setting, in it or in its parts.
    """
    model = MultimodalTransformer(**check_kwargs(MultimodalTransformer, config, "config.model"))
    check(model)
    return model


def check(model: MultimodalTransformer) -> None:
    """Build the model's parts, so that wrong settings are reported now, not in the first step."""
    for m in model.modalities:
        model.tokens(m, parent=None)
    model.make_fusion(parent=None)
    if model.fallback_depth is not None and model.num_classes is None:
        raise ValueError(
            "config.model.fallback_depth is for classifiers, and config.model.num_classes is None: "
            "set the number of classes, or leave out fallback_depth."
        )
    if model.fusion.get("reconstruction") and len(model.modalities) < 2:
        raise ValueError(
            "config.model.fusion.reconstruction decodes a modality from the others, and the model "
            f"has {model.modalities[0]} alone: add a modality, or set it to 0."
        )


def make_system(config: Mapping[str, Any]) -> System:
    """Classification, masked prediction, or both, with any fusion.

    The loss gives `classification` and `accuracy` if the model has a head
    (`config.loss.label_smoothing` and `evidential`; see `classification_loss`), `fallback`, the
    mean over the modalities of an example of the cross-entropies of their own classifiers, if it
    has those, `reconstruction`, the mean of `feature_error` over the modalities that are known, if
    it has decoders, and `masked_<modality>` if it has a mask_ratio; a modality that is missing from
    a whole batch gives no loss.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    _check_trained(model, config.get("loss_weights", {}))
    head = {"classes": model.num_classes, "setting": "config.model.num_classes"}
    labeled = model.num_classes is not None
    if model.fallback_depth is not None and config["loss"].get("evidential") is not None:
        raise ValueError(
            "config.loss.evidential reads logits as evidence, and the classifiers of "
            "config.model.fallback_depth are trained by cross-entropy: leave one of them out."
        )
    return System(
        model=model,
        spec=spec(model),
        loss=terms(**check_kwargs(terms, config["loss"], "config.loss")),
        corrupt=functools.partial(mask_tokens, model) if model.mask_ratio else None,
        check_batch=functools.partial(check_labels, **head) if labeled else None,
        check_source=functools.partial(check_classes, **head) if labeled else None,
        evaluators={"classification": {"kind": "classification", "modalities": model.modalities}},
    )


def _check_trained(model: MultimodalTransformer, weights: Mapping[str, Any]) -> None:
    """Raise ValueError for parts that are used where a modality is missing and that no loss of
    `config.loss_weights`, if it has any, trains."""
    parts = {
        "fallback": ("fallback_depth", model.fallback_depth is not None),
        "reconstruction": ("fusion.reconstruction", bool(model.fusion.get("reconstruction"))),
    }
    for term, (setting, used) in parts.items():
        if used and weights and term not in weights:
            raise ValueError(
                f"config.model.{setting} is set and config.loss_weights has no '{term}', which "
                f"trains it: add a weight, such as 1.0, or leave out {setting}."
            )


def mask_tokens(model: MultimodalTransformer, batch: Batch, context: Context) -> Batch:
    """The batch with `<modality>_masked` [B, L]: each token True with probability mask_ratio."""
    masked = {}
    for i, m in enumerate(m for m in model.modalities if m in batch):
        shape = model.tokens(m, parent=None).mask_shape(batch[m].shape)
        keys = numbered(context.rng, i)
        draw = functools.partial(jax.random.bernoulli, p=model.mask_ratio, shape=shape[1:])
        masked[f"{m}_masked"] = jax.vmap(draw)(keys)
    return {**batch, **masked}


def terms(label_smoothing: float = 0.0, evidential: Schedule | None = None) -> Callable[..., Terms]:
    """The loss function for these settings of `config.loss`; see `make_system`."""
    check_evidential(evidential, label_smoothing)

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        losses = {}
        if "logits" in outputs:
            weight = None if evidential is None else schedule(evidential, context.step)
            losses = classification_loss(
                outputs["logits"], batch, label_smoothing, evidential=weight
            )
        alone = [m for m in MODALITIES if f"{m}_logits" in outputs]
        if alone:
            losses["fallback"] = _fallback_loss(alone, outputs, batch, label_smoothing)
        if "reconstruction" in outputs:
            errors = feature_error(outputs["reconstruction"], outputs["reconstruction_target"])
            losses["reconstruction"] = _mean(errors, outputs["reconstruction_known"])
        for m in MODALITIES:
            if f"{m}_prediction" in outputs:
                masked = masked_ids if m == "text" else masked_values
                parts = (outputs[f"{m}_{part}"] for part in ("prediction", "content", "masked"))
                losses[f"masked_{m}"] = masked(*parts)
        return losses

    return loss


def _fallback_loss(
    modalities: Sequence[str], outputs: Outputs, batch: Batch, label_smoothing: float
) -> Weighted:
    """The cross-entropy of each modality's own classifier, averaged over those of the example."""
    losses, known = [], []
    for m in modalities:
        term = classification_loss(outputs[f"{m}_logits"], batch, label_smoothing)["classification"]
        losses.append(term.value)
        known.append(term.weight & batch.get(f"{m}_present", True))
    return _mean(jnp.stack(losses, axis=1), jnp.stack(known, axis=1))


def _mean(values: jax.Array, known: jax.Array) -> Weighted:
    """The mean of each row's known values [B, M]; a row without any does not count."""
    count = known.sum(axis=1)
    mean = jnp.where(known, values, 0.0).sum(axis=1) / jnp.maximum(count, 1).astype(jnp.float32)
    return Weighted(mean, count > 0)


def spec(model: MultimodalTransformer) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    arrays = {}
    for m in model.modalities:
        arrays |= model.tokens(m, parent=None).spec()
    if model.num_classes is not None:
        arrays["label"] = ((), jnp.int32)
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
