"""The page of what a model is given: rows of a batch, and numbers of several batches."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.batch import MODALITIES, Spec
from mmjax.data.transforms.patch_steps import as_image
from mmjax.report.markup import image_tag, scrolled, text
from mmjax.report.page import write_page
from mmjax.report.sections.regions import drawn
from mmjax.report.sections.sounds import spectrogram_image
from mmjax.report.sections.videos import contact_sheet

SIDE = 320  # pixels of the longer side of an image on the page
MASKED = 0.25  # the brightness of what a mask leaves out

Batch = Mapping[str, np.ndarray]


def write_batch_page(
    path: Path,
    title: str,
    about: Mapping[str, str],
    batches: Sequence[Batch],
    spec: Spec,
    *,
    shown: int,
    key_of: Callable[[int], str],
    tokenizer: Any = None,
    class_names: Sequence[str] | None = None,
    parts: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
      about: facts under the title.
      batches: host batches, one after the other; rows of the first are shown.
      spec: what the model reads.
      shown: how many rows.
      key_of: the key of an example, by its id.
      parts: names of the parts of a mixture.
    """
    first = batches[0]
    tiles = "".join(
        _tile(first, row, key_of, tokenizer, class_names, parts)
        for row in range(min(shown, len(first["example_id"])))
    )
    note = (
        '<p class="note">The first rows, as the model is given them: after transforms and '
        "truncation. Small numbers: the example's index in the source.</p>"
    )
    sections = [
        ("examples", "Examples", f'{note}<div class="examples wide">{tiles}</div>'),
        ("arrays", "Arrays", _table(arrays(batches, spec), "arrays of a batch")),
        ("modalities", "Modalities", _table(modalities(batches), "modalities")),
        ("parts", "Parts", _table(part_counts(batches, parts), "parts of the mixture")),
    ]
    write_page(path, title, about, [section for section in sections if section[2]])


def arrays(batches: Sequence[Batch], spec: Spec) -> list[dict[str, Any]]:
    """A row for each array: shapes, dtype, range and mean over all batches (of a mask: the true
    fraction), bytes of an example of the first, and whether the model reads it."""
    found = []
    for name, one in batches[0].items():
        values = [np.asarray(batch[name]) for batch in batches]
        low, high = min(x.min() for x in values), max(x.max() for x in values)
        total = sum(x.sum(dtype=np.float64) for x in values)
        mean = float(total / sum(x.size for x in values))
        bad = sum(int((~np.isfinite(x)).sum()) for x in values if x.dtype.kind == "f")
        found.append(
            {
                "array": name,
                "dtype": str(one.dtype),
                "shape": " or ".join(dict.fromkeys(str(list(x.shape)) for x in values)),
                "range": "" if one.dtype == bool else f"{low:.4g} to {high:.4g}",
                "mean": f"{mean:.1%} true" if one.dtype == bool else f"{mean:.4g}",
                "not finite": f"{bad:,}" if bad else "",
                "bytes an example": f"{one.nbytes // max(1, len(one)):,}",
                "read by the model": "yes" if name in spec else "no",
            }
        )
    return found


def modalities(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """For each modality, the number of rows that have it, and of those that miss it."""
    found = []
    for name in MODALITIES:
        present = [batch[f"{name}_present"] for batch in batches if f"{name}_present" in batch]
        if present:
            rows, there = sum(map(len, present)), sum(int(x.sum()) for x in present)
            counts = {"present": f"{there:,}", "missing": f"{rows - there:,}"}
            found.append({"modality": name, **counts, "%": f"{there / rows:.1%}"})
    return found


def part_counts(batches: Sequence[Batch], parts: Sequence[str]) -> list[dict[str, Any]]:
    """For each part of a mixture, its rows in the batches."""
    if not parts or "part" not in batches[0]:
        return []
    numbers = np.concatenate([batch["part"] for batch in batches])
    counts = np.bincount(numbers, minlength=len(parts))
    return [
        {"part": name, "rows": f"{count:,}", "%": f"{count / len(numbers):.1%}"}
        for name, count in zip(parts, counts)
    ]


def images_of(batch: Batch, row: int) -> list[np.ndarray]:
    """What a row shows, each uint8 [H, W, 3]: its images with boxes and masks (those packed in a
    row of patches side by side), the frames of its video, its spectrogram or the one of its
    waveform. Padding and what a mask leaves out is dark.
    """
    found = []
    if "image" in batch and _present(batch, "image", row):
        found += _images(batch, row)
    if "video" in batch and _present(batch, "video", row):
        frames = _pixels(batch["video"][row])
        if "video_mask" in batch:
            dark = (frames * MASKED).astype(np.uint8)
            frames = np.where(batch["video_mask"][row][:, None, None, None], frames, dark)
        found.append(contact_sheet(frames))
    if "audio" in batch and _present(batch, "audio", row):
        mask = batch["audio_mask"][row] if "audio_mask" in batch else None
        found.append(_spectrogram(batch["audio"][row], mask))
    if "waveform" in batch and _present(batch, "audio", row):
        found.append(spectrogram_image(np.asarray(batch["waveform"][row], np.float32)))
    return found


def _images(batch: Batch, row: int) -> Iterable[np.ndarray]:
    if batch["image"].ndim == 3:  # rows of patches
        yield as_image({name: batch[name][row] for name in ("image", "image_grid")})
        return
    images, several = batch["image"][row], batch["image"].ndim == 5
    valid = batch["image_mask"][row] if "image_mask" in batch and several else None
    for i, image in enumerate(images if several else images[None]):
        if valid is not None and not valid[i]:
            continue
        image = _pixels(image)
        if "image_size" in batch:
            size = batch["image_size"][row]
            height, width = size[i] if several else size
            image = image[:height, :width]
        if "boxes" in batch and not several:
            keep = batch["boxes_mask"][row] if "boxes_mask" in batch else slice(None)
            boxes = batch["boxes"][row][keep]
            labels = batch["box_label"][row][keep] if "box_label" in batch else range(len(boxes))
            masks = batch["masks"][row][keep] if "masks" in batch else ()
            if len(masks) and masks.shape[1:] != image.shape[:2]:
                masks = ()
            image = drawn(image, boxes, labels, masks)
        yield image


def _pixels(values: np.ndarray) -> np.ndarray:
    """As uint8: Mixup's pixels are fractional."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _spectrogram(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Frames [F, M] as an image, high frequencies at the top, scaled to their own range."""
    valid = values if mask is None or not mask.any() else values[mask]
    low, high = float(valid.min()), float(valid.max())
    scaled = ((values - low) / max(high - low, 1e-9)).clip(0, 1)
    if mask is not None:
        scaled = np.where(mask[:, None], scaled, 0.0)
    gray = np.round(255 * scaled).astype(np.uint8).T[::-1]
    return np.repeat(gray[..., None], 3, axis=2)


def words_of(
    batch: Batch, row: int, tokenizer: Any, class_names: Sequence[str] | None
) -> list[str]:
    """What a row says: its decoded tokens (without a tokenizer their ids) with their number, the
    part of them in the loss, and its label or labels by name."""
    found = []
    if "text" in batch and _present(batch, "text", row):
        ids = np.atleast_2d(batch["text"][row])
        masks = np.atleast_2d(batch["text_mask"][row]) if "text_mask" in batch else ids >= 0
        losses = batch.get("text_loss_mask")
        for i, (one, mask) in enumerate(zip(ids, masks)):
            if not mask.any():
                continue
            said = f"{_decoded(one[mask], tokenizer)} · {mask.sum()} of {len(one)} tokens"
            if losses is not None:
                learned = one[mask & np.atleast_2d(losses[row])[i]]
                said += f" · in the loss: {_decoded(learned, tokenizer) or 'nothing'}"
            found.append(said)

    def name(label: int) -> str:
        known = class_names is not None and 0 <= label < len(class_names)
        return f"{class_names[label]} ({label})" if known else str(label)

    if "label" in batch and batch["label"].ndim == 1 and batch["label"][row] >= 0:
        found.append(f"label: {name(int(batch['label'][row]))}")
    if "label_probs" in batch:
        probs = batch["label_probs"][row]
        best = np.argsort(-probs, kind="stable")[:3]
        found += [", ".join(f"{name(int(c))} {probs[c]:.0%}" for c in best if probs[c] > 0)]
    if "box_label" in batch:
        labels = batch["box_label"][row]
        labels = labels[batch["boxes_mask"][row]] if "boxes_mask" in batch else labels
        found.append(f"boxes: {', '.join(name(int(c)) for c in labels) or 'none'}")
    return found


def _decoded(ids: np.ndarray, tokenizer: Any) -> str:
    """The text of valid tokens; each sequence that an end token ends is a text of its own."""
    if tokenizer is None:
        return " ".join(map(str, ids))
    pieces = np.split(ids, np.flatnonzero(ids == tokenizer.eos_id) + 1)
    return " | ".join(filter(None, map(tokenizer.decode, pieces)))


def _present(batch: Batch, modality: str, row: int) -> bool:
    return f"{modality}_present" not in batch or bool(batch[f"{modality}_present"][row])


def _tile(
    batch: Batch,
    row: int,
    key_of: Callable[[int], str],
    tokenizer: Any,
    class_names: Sequence[str] | None,
    parts: Sequence[str],
) -> str:
    said = words_of(batch, row, tokenizer, class_names)
    about = said[0] if said else f"row {row}"
    images = "".join(
        image_tag(image, about, "grid" if max(image.shape[:2]) < 96 else "", SIDE)
        for image in images_of(batch, row)
    )
    missing = [name for name in MODALITIES if not _present(batch, name, row)]
    number = int(batch["example_id"][row])
    small = [str(number), key_of(number)]
    if parts and "part" in batch:
        small.append(f"part {parts[int(batch['part'][row])]}")
    if missing:
        small.append(f"without {', '.join(missing)}")
    words = "".join(f"<p>{text(one)}</p>" for one in said)
    return f"<article>{images}{words}<small>{html.escape(' · '.join(small))}</small></article>"


def _table(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    if not rows:
        return ""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in columns) + "</tr>"
        for row in rows
    )
    table = f'<table class="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return scrolled(table, about)
