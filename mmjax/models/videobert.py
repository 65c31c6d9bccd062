"""VideoBERT: masked words, masked video tokens, and whether a text and a video belong together.

Source: Sun et al. 2019 (arXiv 1904.01766).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.losses.masked import mask_words, masked_ids
from mmjax.models.build import build
from mmjax.models.videobert_model import VideoBERT, present
from mmjax.sample.rows import numbered
from mmjax.system import Context, Outputs, System, Terms, Weighted


@dataclasses.dataclass(frozen=True)
class Objectives:
    """Settings of `config.loss` of a VideoBERT.

    Attributes:
      mask_ratio: probability of masking a word or a video token.
      text_only, video_only, both: relative frequencies of the three regimes of training.

    Raises:
      ValueError: values out of range.
    """

    mask_ratio: float = 0.15
    text_only: float = 1.0
    video_only: float = 1.0
    both: float = 1.0

    def __post_init__(self):
        if not 0 < self.mask_ratio < 1:
            raise ValueError(
                f"config.loss.mask_ratio is {self.mask_ratio}: it is above 0 and below 1."
            )
        rates = (self.text_only, self.video_only, self.both)
        if min(rates) < 0 or not sum(rates) > 0:
            raise ValueError(
                f"config.loss has text_only, video_only and both {rates}: give frequencies of 0 or "
                "more, one of them above 0."
            )


def make_model(config: Mapping[str, Any]) -> VideoBERT:
    """The model that `config.model` describes.

    Raises:
      ValueError: an unknown setting, or an id that is not in the vocabulary.
    """
    model = build(VideoBERT, config, "text_fields")
    model.check()
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """A VideoBERT; for the settings of `config.loss` see `Objectives`, for the terms `terms`.

    Raises:
      ValueError: an unknown setting, or inconsistent ones.
    """
    model = make_model(config["model"])
    objectives = Objectives(**check_kwargs(Objectives, config["loss"], "config.loss"))
    if config["batch_size"] == 1 and objectives.both:
        raise ValueError(
            "A batch of one example has no video that does not match its text: set "
            "config.batch_size to 2 or more, or config.loss.both to 0."
        )
    return System(
        model=model,
        spec=spec(model),
        loss=terms,
        corrupt=functools.partial(corrupt, model, objectives),
        check_batch=check_batch,
        score=functools.partial(make_score, model),
    )


def spec(model: VideoBERT) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    length = model.text_fields()["length"]
    arrays = {
        "text": ((length,), jnp.int32),
        "text_mask": ((length,), jnp.bool_),
        "video_tokens": ((model.frames,), jnp.int32),
        "video_tokens_mask": ((model.frames,), jnp.bool_),
    }
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}


def inner(batch: Batch) -> jax.Array:
    """[B, L] bool: the valid tokens of the texts without the first and the last."""
    mask = batch["text_mask"]
    after = jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
    return mask & after & (jnp.arange(mask.shape[1]) > 0)[None]


def corrupt(model: VideoBERT, objectives: Objectives, batch: Batch, context: Context) -> Batch:
    """`System.corrupt`: regimes, videos that do not match, and masks.

    Adds `text_used` and `video_used` [B], one of them false in the regimes of text or video alone;
    a row that has one modality keeps it. Where both are used, with probability 1/2 the video is
    that of the example before, and `match_label` false; `match_valid` [B]: both are there, and the
    texts of the two differ. Adds `text_corrupted`, `text_masked` [B, L], `video_corrupted` and
    `video_masked` [B, T]. Words and video tokens count as masked only where they are used, and not
    in pairs that do not match.
    """
    keys = [numbered(context.rng, i) for i in range(4)]
    rates = np.asarray([objectives.text_only, objectives.video_only, objectives.both], np.float32)
    edges = np.cumsum(rates / rates.sum())
    regime = jnp.searchsorted(jnp.asarray(edges), jax.vmap(jax.random.uniform)(keys[0]))
    has_text, has_video = present(batch)
    either = has_text & has_video
    text_used = has_text & ((regime != 1) | ~either)
    video_used = has_video & ((regime != 0) | ~either)

    def other(x):
        return jnp.roll(x, 1, axis=0)

    differs = (batch["text"] != other(batch["text"])).any(1)
    pair = text_used & video_used & other(has_video) & differs
    swapped = pair & jax.vmap(jax.random.bernoulli)(keys[1])
    found = dict(batch) | {"text_used": text_used, "video_used": video_used}
    for name in ("video_tokens", "video_tokens_mask"):
        found[name] = jnp.where(swapped[:, None], other(batch[name]), batch[name])
    found["match_label"], found["match_valid"] = ~swapped, pair

    words = model.text_fields()["vocab_size"]
    rate = {"rate": objectives.mask_ratio}
    found["text_corrupted"], masked = mask_words(
        batch["text"], inner(batch), keys[2], vocab_size=words, mask_id=model.mask, **rate
    )
    found["text_masked"] = masked & (text_used & ~swapped)[:, None]
    shown = found["video_tokens_mask"]
    found["video_corrupted"], masked = mask_words(
        found["video_tokens"], shown, keys[3], vocab_size=model.codes, mask_id=model.codes, **rate
    )
    found["video_masked"] = masked & (video_used & ~swapped)[:, None]
    return found


def terms(outputs: Outputs, batch: Batch, context: Context) -> Terms:
    """The loss: `masked_text` and `masked_video`, cross-entropies of the masked tokens, with their
    accuracies, and `matching` with `matching_accuracy`, of text and video in one sequence."""
    del context
    text, video = outputs["text_prediction"], outputs["video_prediction"]
    logits = outputs["match_logits"]
    sign = jnp.where(batch["match_label"], 1.0, -1.0)
    margin = sign * (logits[:, 1] - logits[:, 0])
    return {
        "masked_text": masked_ids(text, batch["text"], batch["text_masked"]),
        "masked_video": masked_ids(video, batch["video_tokens"], batch["video_masked"]),
        "masked_text_accuracy": _accuracy(text, batch["text"], batch["text_masked"]),
        "masked_video_accuracy": _accuracy(video, batch["video_tokens"], batch["video_masked"]),
        "matching": Weighted(jax.nn.softplus(-margin), batch["match_valid"]),
        "matching_accuracy": Weighted(margin > 0, batch["match_valid"]),
    }


def _accuracy(logits: jax.Array, target: jax.Array, masked: jax.Array) -> Weighted:
    right = ((logits.argmax(-1) == target) & masked).sum(1, dtype=jnp.float32)
    count = masked.sum(1, dtype=jnp.float32)
    return Weighted(right / jnp.maximum(count, 1.0), count)


def check_batch(batch: Batch) -> None:
    """Raise ValueError for a batch on the host in which no example has a text or a video."""
    if jax.process_count() > 1:  # the rows of one process may have none
        return
    texts = np.asarray(batch["text_mask"]).any(1)
    if not (texts & batch.get("text_present", True)).any() and not batch["video_tokens_mask"].any():
        raise ValueError(
            "No example of the batch has a text or video tokens: check config.data.train, and the "
            "folder of clusters in video_tokens()."
        )


# ---- prediction of one modality from the other, and filling in blanks


def blank_video(model: VideoBERT, batch: Batch, frames: int) -> Batch:
    """The batch with `frames` masked tokens in place of its video: its `video_prediction` are the
    video tokens that its texts suggest."""
    rows = len(batch["text"])
    tokens = jnp.full((rows, model.frames), model.codes, jnp.int32)
    mask = jnp.broadcast_to(jnp.arange(model.frames)[None] < frames, tokens.shape)
    return {**batch, "video_tokens": tokens, "video_corrupted": tokens, "video_tokens_mask": mask}


def blank_text(model: VideoBERT, batch: Batch) -> Batch:
    """The batch with every word of its texts masked: its `text_prediction` are the words that its
    videos suggest, in texts of the same length."""
    blank = jnp.where(inner(batch), model.mask, batch["text"]).astype(jnp.int32)
    return {**batch, "text_corrupted": blank}


def make_score(
    model: VideoBERT, tokenizer: Any, texts: Sequence[str]
) -> Callable[[Any, Batch], jax.Array]:
    """`System.score`: (variables, batch) -> [B, C], log p of each of C texts given a video.

    All words of a text are masked, and the logarithms of their probabilities are added up: what
    fills in the blanks, as in zero-shot classification of actions and objects. A part in square
    brackets is blank alone: in "now let me show you how to [fry] the [egg]" two words. The parts
    are tokenized one by one.

    Raises:
      ValueError: no texts, or one that is empty or too long.

    Source: Sun et al. 2019, section 4.5.
    """
    length = model.text_fields()["length"]
    rows = [blanks(tokenizer, text, length) for text in texts]
    if not rows:
        raise ValueError("There are no texts to choose from: give at least one.")
    text, blank = (np.stack(x) for x in zip(*rows))
    mask = np.asarray(text != tokenizer.pad_id) | blank

    @jax.jit
    def score(variables, batch):
        videos = {k: batch[k] for k in ("video_tokens", "video_tokens_mask")}
        count = len(batch["video_tokens"])

        def one(given):
            ids, valid, hole = (jnp.broadcast_to(x[None], (count, length)) for x in given)
            row = {"text": ids, "text_mask": valid, **videos}
            row["text_corrupted"] = jnp.where(hole, model.mask, ids)
            log_p = jax.nn.log_softmax(model.apply(variables, row)["text_prediction"])
            log_p = jnp.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]
            return jnp.sum(log_p, axis=1, where=hole)

        return jax.lax.map(one, (jnp.asarray(text), jnp.asarray(mask), jnp.asarray(blank))).T

    return score


def blanks(tokenizer: Any, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids [L] of a text, and which of them are blanks [L]."""
    parts = text.replace("]", "[").split("[")  # every second one is in brackets
    pieces = [_ids(tokenizer, part) for part in parts]
    inside = [i % 2 == 1 or len(parts) == 1 for i, ids in enumerate(pieces) for _ in ids]
    ids = [i for piece in pieces for i in piece]
    if not any(inside) or len(ids) + 2 > length:
        raise ValueError(
            f"The text '{text}' has {len(ids)} tokens, {sum(inside)} of them blank: it needs one "
            f"blank or more, and at most {length - 2} tokens."
        )
    row = np.full(length, tokenizer.pad_id, np.int32)
    row[: len(ids) + 2] = [tokenizer.bos_id, *ids, tokenizer.eos_id]
    blank = np.zeros(length, bool)
    blank[1 : len(ids) + 1] = inside
    return row, blank


def _ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text without the first and the last."""
    ids, mask = tokenizer.encode([text], 4 * len(text) + 4)
    return ids[0][mask[0]][1:-1].tolist()
