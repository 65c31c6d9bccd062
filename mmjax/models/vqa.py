"""Visual question answering by classification, with a question-only baseline."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.linear import Linear, class_head
from mmjax.losses.classification import check_classes, check_labels
from mmjax.losses.debias import learned_mixin, mixin_entropy
from mmjax.models import multimodal
from mmjax.models.multimodal import MultimodalTransformer
from mmjax.models.text import TextTransformer
from mmjax.system import Context, Outputs, System, Terms, Weighted


class VQA(nn.Module):
    """Image and question -> `logits` [B, C] over the answers; question -> `question_logits` [B, C].

    The question-only model is the baseline that shows what the image adds, and the bias model of
    learned-mixin; it shares no parameters with the main model. `mixin_gate` [B], 0 or above, is the
    weight of each example's bias in training.

    Attributes:
      answers: number of answer classes.
      main: fields of `MultimodalTransformer`, of image and text, without its head.
      question: fields of `TextTransformer`.
    """

    answers: int
    main: Mapping[str, Any]
    question: Mapping[str, Any]
    dtype: str = "float32"

    def main_model(self, **kwargs) -> MultimodalTransformer:
        """The model of image and question, with its head."""
        fields = {"dtype": self.dtype, "num_classes": self.answers, **self.main}
        fields = check_kwargs(MultimodalTransformer, fields, "config.model.main")
        return MultimodalTransformer(**fields, **kwargs)

    def question_model(self, **kwargs) -> TextTransformer:
        """The question-only model."""
        fields = {"dtype": self.dtype, "vocab_size": self.vocab_size, **self.question}
        fields = check_kwargs(TextTransformer, fields, "config.model.question")
        return TextTransformer(**fields, **kwargs)

    @property
    def vocab_size(self) -> int:
        """Vocabulary size of both models, unless `question` overrides it."""
        return self.main["text"]["vocab_size"]

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        outputs = self.main_model(name="main")(batch, train=train)
        # The gate is trained by the mixture; its gradient does not reach the features.
        features = jax.lax.stop_gradient(outputs["fused_features"])
        gate = Linear((1,), ("embed", None), name="mixin_gate")(features)
        outputs["mixin_gate"] = jax.nn.softplus(gate[:, 0])
        if "text" in batch:
            features = self.question_model(name="question")(batch, train=train)["text_features"]
            outputs["question_logits"] = class_head(self.answers)(features)
        return outputs


def make_model(config: Mapping[str, Any]) -> VQA:
    """The model that `config.model` describes.

    Raises:
      ValueError: an unknown setting, in it or in its parts.
    """
    model = VQA(**check_kwargs(VQA, config, "config.model"))
    main = model.main_model(parent=None)
    multimodal.check(main)
    if main.fallback_depth is not None or main.fusion.get("reconstruction"):
        raise ValueError(
            "config.model.main of a VQA has no fallback_depth and no fusion.reconstruction, since "
            "none of its losses trains them: leave them out, or use the system 'multimodal'."
        )
    model.question_model(parent=None)
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """VQA by classification; see `terms` for `config.loss`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    arrays = multimodal.spec(model.main_model(parent=None))
    head = {"classes": model.answers, "setting": "config.model.answers"}
    return System(
        model=model,
        spec=arrays | {"label": jax.ShapeDtypeStruct((1,), jnp.int32)},
        loss=terms(**check_kwargs(terms, config["loss"], "config.loss")),
        check_batch=functools.partial(check_labels, **head),
        check_source=functools.partial(check_classes, **head),
        evaluators={"classification": {"kind": "classification", "modalities": ("image", "text")}},
    )


def terms(debias: str = "none") -> Callable[..., Terms]:
    """`classification`, `question` (of the question-only model), `mixin_entropy`, and accuracies.

    Args:
      debias: "none", or "learned_mixin": the classification loss is then that of the mixture with
        the question-only model; set a weight for `mixin_entropy` in config.loss_weights (0.36 for
        VQA-CP in the paper).

    Raises:
      ValueError: another `debias`.
    """
    if debias not in ("none", "learned_mixin"):
        raise ValueError(f"config.loss.debias is '{debias}'; use 'none' or 'learned_mixin'.")

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        label = batch["label"]
        logits, bias, gate = (outputs[k] for k in ("logits", "question_logits", "mixin_gate"))
        mixed = learned_mixin(logits, bias, gate) if debias == "learned_mixin" else logits
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        terms = {
            "classification": cross_entropy(mixed, label),
            "question": cross_entropy(bias, label),
            "mixin_entropy": mixin_entropy(bias, gate),
            "accuracy": logits.argmax(-1) == label,
            "question_accuracy": bias.argmax(-1) == label,
            "mixin_gate": gate,
        }
        return {name: Weighted(value, label >= 0) for name, value in terms.items()}

    return loss
