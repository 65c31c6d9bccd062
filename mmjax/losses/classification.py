"""Softmax cross-entropy of labels, hard or soft."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import ArrayLike, Float

from mmjax.batch import Batch
from mmjax.losses.evidential import evidential_loss
from mmjax.losses.masked import per_example
from mmjax.schedule import Schedule, check_schedule
from mmjax.system import Weighted


def classification_loss(
    logits: Float[ArrayLike, "b c"],
    batch: Batch,
    label_smoothing: float = 0.0,
    independent: bool = False,
    evidential: ArrayLike | None = None,
) -> dict[str, Weighted]:
    """`classification` and `accuracy` per example; an example whose `label` is -1 is left out.

    Args:
      logits: [B, C]; the batch has `label_probs` [B, C], as from Mixup, or `label` [B] int.
      independent: each class is a yes or no of its own: the sum of the binary cross-entropies, for
        `label_probs` that need not add up to 1, as for the answers of VQA (Teney et al. 2018, arXiv
        1708.02711, section 3.5).
      evidential: the weight of the regularizer of `evidential_loss`, which then is the loss.

    Raises:
      ValueError: the batch has neither.
    """
    present = jnp.ones(len(logits), bool)
    if "label" in batch:
        present = batch["label"] >= 0
    if "label_probs" in batch:
        target = batch["label_probs"]
    elif "label" in batch:
        target = jax.nn.one_hot(batch["label"], logits.shape[-1])
    else:
        raise ValueError(
            "The classification loss needs 'label' or 'label_probs' in the batch, which has "
            f"{sorted(batch)}: use a data set with labels."
        )
    smooth = optax.smooth_labels(target, label_smoothing)
    if evidential is not None:
        loss = evidential_loss(logits, smooth, evidential)
    elif independent:
        loss = optax.sigmoid_binary_cross_entropy(logits, smooth).sum(-1)
    else:
        loss = optax.softmax_cross_entropy(logits, smooth)
    correct = logits.argmax(-1) == target.argmax(-1)
    return {
        "classification": Weighted(loss, present),
        "accuracy": Weighted(correct, present),
    }


def token_classification(
    logits: Float[ArrayLike, "b l c"], batch: Batch, label_smoothing: float = 0.0
) -> dict[str, Weighted]:
    """`token_classification` and `token_accuracy` of the tokens of a text that have a class.

    Each is the mean over an example's tokens, weighted by their number, so that a batch has the
    mean over all of its tokens. The batch has `text_label` [B, L] int32, negative where there is
    none: on padding and special tokens, and -100 in the files of others.

    Source: transformers 5.23, ViltForTokenClassification and BertForTokenClassification.
    """
    label = batch["text_label"]
    counted = label >= 0
    if "text_present" in batch:
        counted = counted & batch["text_present"][:, None]
    logits = logits.astype(jnp.float32)
    target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1]), label_smoothing)
    correct = (logits.argmax(-1) == label).astype(jnp.float32)
    return {
        "token_classification": per_example(optax.softmax_cross_entropy(logits, target), counted),
        "token_accuracy": per_example(correct, counted),
    }


def check_evidential(
    evidential: Schedule | None, label_smoothing: float, independent: bool = False
) -> None:
    """Raise ValueError for settings of `config.loss` that do not go together."""
    if evidential is None:
        return
    check_schedule(evidential, "config.loss.evidential", low=0.0)
    if label_smoothing or independent:
        raise ValueError(
            "config.loss.evidential takes one class of each example as it is: set label_smoothing "
            "to 0 and independent to False."
        )


def check_classes(source: Any, classes: int, setting: str) -> None:
    """Raise ValueError for a training source with more class names than the head has classes."""
    names = source.class_names
    if names is not None and len(names) > classes:
        raise ValueError(
            f"{source.name} has {len(names)} classes and the head {classes}, so that "
            f"{', '.join(map(repr, names[classes:][:5]))} would have no logit: set {setting} to "
            f"{len(names)}, or train on a set with fewer classes."
        )


def check_token_labels(batch: Batch, classes: int, setting: str) -> None:
    """Raise ValueError for a `text_label` on the host that is no class of the head."""
    label = np.asarray(batch.get("text_label", -1))
    if label.max(initial=-1) >= classes:
        raise ValueError(
            f"The batch has the text_label {label.max()} and the head {classes} classes (0 to "
            f"{classes - 1}, and negative ones for none): set {setting} to the number of classes."
        )


def check_labels(batch: Batch, classes: int, setting: str) -> None:
    """Raise ValueError for a label on the host that is neither -1 nor a class of the head."""
    label = batch.get("label")
    if label is None or not np.size(label):
        return
    wrong = np.asarray(label)[(np.asarray(label) < -1) | (np.asarray(label) >= classes)]
    if len(wrong):
        raise ValueError(
            f"The batch has the label {wrong[0]} and the head {classes} classes (0 to "
            f"{classes - 1}, and -1 for none): set {setting} to the number of classes of "
            "config.data.train."
        )
