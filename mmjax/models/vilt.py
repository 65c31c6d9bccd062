"""ViLT: masked words, matching and alignment of image and text; answers; ranking of texts."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.losses.classification import (
    check_classes,
    check_labels,
    check_token_labels,
    classification_loss,
    token_classification,
)
from mmjax.losses.masked import mask_words, masked_ids
from mmjax.losses.optimal_transport import transport_distance
from mmjax.models.build import build
from mmjax.models.vilt_model import ViLT
from mmjax.sample.rows import numbered
from mmjax.system import Context, Outputs, System, Terms, Weighted


@dataclasses.dataclass(frozen=True)
class Objectives:
    """Settings of `config.loss` of a ViLT.

    Attributes:
      mask_id: id of the mask token, with the head for words: 103 in BERT's vocabulary.
      mask_ratio: probability of masking a word.
      false_texts: texts of other examples that a ranking head scores beside an image's own.
      alignment: also compute the term `alignment`, with the head for matching.
      answers: "softmax", or "sigmoid": each answer a yes or no of its own, as in the paper's VQA.
      label_smoothing: of the classification, of an example or of its tokens.

    Raises:
      ValueError: a value that is none of these.
    """

    mask_id: int | None = None
    mask_ratio: float = 0.15
    false_texts: int = 15
    alignment: bool = True
    answers: str = "softmax"
    label_smoothing: float = 0.0

    def __post_init__(self):
        if self.answers not in ("softmax", "sigmoid"):
            raise ValueError(
                f"config.loss.answers is '{self.answers}'; use 'softmax' or 'sigmoid'."
            )
        if not 0 < self.mask_ratio < 1:
            raise ValueError(
                f"config.loss.mask_ratio is {self.mask_ratio}: it is above 0 and below 1."
            )

    def check(self, model: ViLT, batch_size: int) -> None:
        """Raise ValueError where these do not fit the model or the batch in training."""
        if model.words and (self.mask_id is None or not 0 <= self.mask_id < _vocabulary(model)):
            raise ValueError(
                f"config.loss.mask_id is {self.mask_id}: set it to the id of the tokenizer's mask "
                f"token, 0 to {_vocabulary(model) - 1} (103 in BERT's vocabulary)."
            )
        if model.matching and batch_size == 1:
            raise ValueError(
                "A batch of one example has no image that does not match its text: set "
                "config.batch_size to 2 or more, or config.model.matching to 0."
            )
        if model.matching == 1 and not 0 < self.false_texts < batch_size:
            raise ValueError(
                f"config.loss.false_texts is {self.false_texts}: a batch of {batch_size} has 1 to "
                f"{batch_size - 1} texts of other examples."
            )


def make_model(config: Mapping[str, Any]) -> ViLT:
    """The model that `config.model` describes.

    Raises:
      ValueError: an unknown setting, in it or in its parts, or inconsistent ones.
    """
    model = build(ViLT, config, "text_embed", "patches")
    model.check()
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """A ViLT; for the settings of `config.loss` see `Objectives`, for the terms `terms`.

    Raises:
      ValueError: an unknown setting, or inconsistent ones.
    """
    model = make_model(config["model"])
    objectives = Objectives(**check_kwargs(Objectives, config["loss"], "config.loss"))
    classes = {"classes": model.num_classes, "setting": "config.model.num_classes"}
    labeled, tokens = "label" in spec(model), "text_label" in spec(model)
    if not (labeled or tokens or model.words or model.matching):
        return System(model=model, spec=spec(model), loss=None)
    if config["batch_size"]:  # else the model is only loaded, which needs none of these
        objectives.check(model, config["batch_size"])
    shows = {"kind": "classification", "modalities": ("image", "text")}
    return System(
        model=model,
        spec=spec(model),
        loss=terms(objectives),
        evaluators={"classification": shows if model.images == 1 else {"kind": "image_pairs"}},
        corrupt=corrupt(model, objectives),
        check_batch=functools.partial(check_batch, model, config.get("loss_weights", {})),
        check_source=functools.partial(check_classes, **classes) if labeled else None,
    )


def spec(model: ViLT) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    several = (model.images,) if model.images > 1 else ()
    length = model.text_embed(parent=None).length
    arrays = {
        "image": ((*several, *model.train_size, 3), jnp.uint8),
        "text": ((length,), jnp.int32),
        "text_mask": ((length,), jnp.bool_),
    }
    if model.image.get("padded_size"):
        arrays["image_size"] = ((*several, 2), jnp.int32)
    if model.words:
        arrays["text_word"] = ((length,), jnp.int32)
    if model.num_classes is not None and model.classify == "tokens":
        arrays["text_label"] = ((length,), jnp.int32)
    elif model.num_classes is not None:
        arrays["label"] = ((), jnp.int32)
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}


def corrupt(model: ViLT, objectives: Objectives) -> Callable[[Batch, Context], Batch] | None:
    """`System.corrupt`: masked words, an image that may not match, or other texts; None: nothing.

    Adds `text_corrupted` and `text_masked` [B, L] with the head for words. With that for matching,
    `match_image`, `match_image_size`, `match_image_present`, and `match_label` [B] bool: with
    probability 1/2, the image of the example before it and false. Batches are shuffled, so that is
    a random image, and of a mesh only the rows at the edge of a device move; in an evaluation it
    depends on the batch size. An example keeps its image where the other one is missing or has the
    same text.

    With the head for ranking, `false_text`, `false_text_mask` [B, N, L] and `false_text_valid`
    [B, N]: the texts of the N examples before it, valid if they are there and not its own.
    """
    masks, pairs, ranks = model.words, model.matching == 2, model.matching == 1

    def f(batch: Batch, context: Context) -> Batch:
        found = dict(batch)
        keys = [numbered(context.rng, i) for i in (0, 1)]
        if masks:
            rest = {"mask_id": objectives.mask_id, "rate": objectives.mask_ratio}
            found["text_corrupted"], found["text_masked"] = mask_words(
                batch["text"],
                maskable(batch),
                keys[0],
                vocab_size=_vocabulary(model),
                word=batch["text_word"],
                **rest,
            )
        if pairs:
            found |= _pairs(batch, keys[1])
        if ranks:
            found |= _false_texts(batch, objectives.false_texts)
        return found

    return f if masks or pairs or ranks else None


def maskable(batch: Batch) -> jax.Array:
    """[B, L] bool: the tokens that may be masked."""
    found = batch["text_mask"] & (batch["text_word"] >= 0)
    return found & batch["text_present"][:, None] if "text_present" in batch else found


def _pairs(batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """The images for the matching head; see `corrupt`."""
    image, text = batch["image"], batch["text"]
    rows = len(image)
    present = batch.get("image_present", jnp.ones(rows, bool))
    other = functools.partial(jnp.roll, shift=1, axis=0)
    differs = (text != other(text)).any(-1) & present & other(present)
    swapped = differs & jax.vmap(jax.random.bernoulli)(keys)

    def choose(x):
        where = swapped.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(where, other(x), x)

    found = {"match_image": choose(image), "match_image_present": present}
    if "image_size" in batch:
        found["match_image_size"] = choose(batch["image_size"])
    return found | {"match_label": ~swapped}


def _false_texts(batch: Batch, count: int) -> dict[str, jax.Array]:
    """The texts for the ranking head; see `corrupt`."""

    def others(x):
        shifted = [jnp.roll(x, shift, axis=0) for shift in range(1, count + 1)]
        return jnp.stack(shifted, axis=1)

    text = batch["text"]
    valid = (others(text) != text[:, None]).any(-1)
    if "text_present" in batch:
        valid = valid & others(batch["text_present"])
    return {
        "false_text": others(text),
        "false_text_mask": others(batch["text_mask"]),
        "false_text_valid": valid,
    }


def terms(objectives: Objectives) -> Callable[[Outputs, Batch, Context], Terms]:
    """The loss: `classification` and `accuracy` with a classification head, `token_classification`
    and `token_accuracy` with one of the tokens of the text, `masked_text` with the head for words,
    `matching`, `matching_accuracy` and `alignment` with that for matching, `ranking` and
    `ranking_accuracy` with that for ranking.

    `alignment` is the transport distance between the words and the patches of pairs that match,
    and minus that of pairs that do not; the paper gives it the weight 0.1.

    `ranking` is the cross-entropy of the own text among it and the false ones (`compute_irtr`).

    Source: Kim et al. 2021 (arXiv 2102.03334), sections 3.2 and 4.2; dandelin/ViLT, objectives.py.
    """

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        found: dict[str, Weighted] = {}
        if "logits" in outputs:
            smoothing, independent = objectives.label_smoothing, objectives.answers == "sigmoid"
            found |= classification_loss(outputs["logits"], batch, smoothing, independent)
        if "token_logits" in outputs:
            found |= token_classification(
                outputs["token_logits"], batch, objectives.label_smoothing
            )
        if "text_masked" in batch:
            masked = batch["text_masked"]
            found["masked_text"] = masked_ids(outputs["text_prediction"], batch["text"], masked)
        if "match_label" in batch:
            found |= _matching(outputs, batch, objectives.alignment)
        if "rank_scores" in outputs:
            found |= _ranking(outputs["rank_scores"], batch)
        return found

    return loss


def _matching(outputs: Outputs, batch: Batch, aligns: bool) -> dict[str, Weighted]:
    logits, sign = outputs["match_logits"], jnp.where(batch["match_label"], 1.0, -1.0)
    present = batch["match_image_present"]
    if "text_present" in batch:
        present = present & batch["text_present"]
    margin = sign * (logits[:, 1] - logits[:, 0])
    found = {
        "matching": Weighted(jax.nn.softplus(-margin), present),
        "matching_accuracy": Weighted(margin > 0, present),
    }
    if aligns:
        words, patches = inner_tokens(batch["text_mask"]), outputs["match_image_tokens_mask"][:, 1:]
        tokens = outputs["match_text_tokens"], outputs["match_image_tokens"][:, 1:]
        distance = transport_distance(*tokens, words, patches)
        found["alignment"] = Weighted(sign * distance, present & words.any(-1))
    return found


def _ranking(scores: jax.Array, batch: Batch) -> dict[str, Weighted]:
    """The loss of the scores [B, 1 + N] of the own text and of the false ones."""
    valid = batch["false_text_valid"]
    present = valid.any(1)
    for name in ("image_present", "text_present"):
        if name in batch:
            present = present & batch[name]
    own = scores[:, 0]
    false = jnp.where(valid, scores[:, 1:], -jnp.inf)
    false = jnp.where(present[:, None], false, 0.0)  # no gradient of a row without any is NaN
    return {
        "ranking": Weighted(jax.nn.softplus(jax.nn.logsumexp(false, axis=1) - own), present),
        "ranking_accuracy": Weighted(own > false.max(1), present),
    }


def inner_tokens(mask: jax.Array) -> jax.Array:
    """[..., L] bool: the valid tokens without the first and the last, [CLS] and [SEP]."""
    inner, no = mask[..., 1:], jnp.zeros_like(mask[..., :1])
    return jnp.concatenate([no, inner], axis=-1) & jnp.concatenate([inner, no], axis=-1)


def check_batch(model: ViLT, loss_weights: Mapping[str, Any], batch: Batch) -> None:
    """Raise ValueError for a batch on the host that cannot be learned from: a label that is no
    answer, examples none of which has a weighted loss, or an `image_size` larger than the images.
    """
    if model.num_classes is not None:
        check_labels(batch, model.num_classes, "config.model.num_classes")
        check_token_labels(batch, model.num_classes, "config.model.num_classes")
    if jax.process_count() == 1:  # the rows of one process may have none
        _check_rows(loss_weights, batch)
    size = batch.get("image_size")
    if size is not None and "image" in batch:
        sides = batch["image"].shape[-3:-1]
        wrong = np.asarray(size).reshape(-1, 2)
        wrong = wrong[(wrong > sides).any(-1) | (wrong < 0).any(-1)]
        if len(wrong):
            raise ValueError(
                f"The batch has an image_size of {wrong[0].tolist()} in an array of "
                f"{list(sides)}: it is the height and width of the valid pixels, see pad_corner."
            )


def _check_rows(loss_weights: Mapping[str, Any], batch: Batch) -> None:
    """Raise ValueError where every weighted loss needs what no example has."""
    everywhere = np.ones(len(batch["text"]), bool)
    image, text = (batch.get(f"{name}_present", everywhere) for name in ("image", "text"))
    pairs = bool(np.any(image & text))
    learned = dict.fromkeys(loss_weights, True)
    learned |= dict.fromkeys(("matching", "alignment", "ranking"), pairs)
    learned["token_classification"] = "text_label" in batch and bool(
        np.any((np.asarray(batch["text_label"]) >= 0) & np.asarray(text)[:, None])
    )
    learned["masked_text"] = "text_word" in batch and bool(np.any(maskable(batch)))
    if not loss_weights or any(learned[name] for name in loss_weights):
        return
    if "masked_text" in loss_weights and np.any(text):
        raise ValueError(
            "No word of the batch can be masked: text_word is -1, or text_mask false, on every "
            "token. Check the captions of config.data.train, and the length in tokenize()."
        )
    raise ValueError(
        f"No example of the batch has a loss in config.loss_weights ({', '.join(loss_weights)}): "
        "masked_text needs a text, token_classification one with a text_label, matching, alignment "
        "and ranking an image and a text; check config.data.train."
    )


def _vocabulary(model: ViLT) -> int:
    return model.text_embed(parent=None).vocab_size
