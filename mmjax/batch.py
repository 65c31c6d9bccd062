"""The batch contract: a flat dict of arrays with presence masks, and its check against a model.

`image [B,H,W,3] uint8`, `text [B,L] int32`, `text_mask [B,L] bool`, `audio [B,F,M] float32` (a
log-mel spectrogram), `label [B] int32` (−1: none), `label_probs [B,C] float32`, `<modality>_present
[B] bool`, `part [B] int32` (of a mixture), `example_id [B] int64` (−1: a padding row). Of N regions
of an image: `boxes [B,N,4] float32` (x0, y0, x1, y1 in 0..1), `boxes_mask [B,N] bool`, `box_label
[B,N] int32` (−1: none), `masks [B,N,H,W] bool`, `points [B,N,2] float32` (x, y in 0..1),
`point_labels [B,N] int32`, `frame [B,4] float32` (see `transforms.region_steps`).
"""

from collections.abc import Mapping

import jax
import numpy as np

Batch = Mapping[str, jax.Array | np.ndarray]
Spec = Mapping[str, jax.ShapeDtypeStruct]


class UpTo(jax.ShapeDtypeStruct):
    """An array of a spec of which `axis` may be shorter: the same in a batch, and compiled once for
    each length."""

    def __init__(self, shape: tuple[int, ...], dtype: jax.typing.DTypeLike, axis: int):
        super().__init__(shape, dtype)
        self.axis = axis


MODALITIES = ("image", "text", "audio", "video")
# Of the regions of an image, with the value that stands for none.
REGIONS = {
    "boxes": 0,
    "boxes_mask": False,
    "box_label": -1,
    "masks": False,
    "points": 0,
    "point_labels": -1,
    "frame": 0,
}


def modality_of(key: str) -> str:
    """The modality that an array of a batch belongs to: "audio" also of a `waveform`."""
    name = key.split("_")[0]
    return "audio" if name == "waveform" else name


def shapes(batch: Batch) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The shape of each array, for comparison: a step is compiled once for batches of the same."""
    return tuple(sorted((name, x.shape) for name, x in batch.items()))


def check(batch: Batch, spec: Spec) -> None:
    """Compare a batch with what the model expects, all axes but the first; see `UpTo`.

    Raises:
      ValueError: a missing array, another shape or another dtype; names both and the fix.
    """
    for name, want in spec.items():
        if name not in batch:
            raise ValueError(
                f"The batch has no '{name}', which config.model needs; it has {sorted(batch)}. "
                "Add the step that makes it to config.data.transform."
            )
        have, shape, most = batch[name], list(want.shape[1:]), ""
        if isinstance(want, UpTo) and have.ndim == want.ndim:
            at = want.axis - 1
            shape[at], most = min(shape[at], have.shape[want.axis]), " at most"
        if list(have.shape[1:]) != shape or have.dtype != want.dtype:
            raise ValueError(
                f"The batch's '{name}' is {have.dtype}{list(have.shape[1:])} per example, and "
                f"config.model expects{most} {want.dtype}{list(want.shape[1:])}: change "
                "config.data.transform or the model's sizes."
            )


def to_device_dtypes(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as sent to the device: int64 (`example_id`) as int32, all else unchanged.

    Ids are taken modulo 2**32, so that beyond 2**31 they are negative there, and still differ where
    examples do; −1 alone is a padding row. `example_ids` gives them back.
    """
    return {k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in batch.items()}


def example_ids(ids: np.ndarray) -> np.ndarray:
    """int64 ids, less than 2**32 - 1, of those of a device; −1 stays."""
    return np.where(ids == -1, -1, ids.astype(np.int64) & 0xFFFFFFFF)
