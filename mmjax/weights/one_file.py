"""The published models that are one file, by its suffix."""

from collections.abc import Callable, Mapping
from pathlib import Path

from mmjax.weights import published
from mmjax.weights.families import big_vision, compact_transformers, efficientnet_lite, glide
from mmjax.weights.published import Published
from mmjax.weights.torch_file import TorchFile


def open_torch(path: Path) -> Published:
    """Open a torch file by the names of its tensors.

    Raises:
      ValueError: a file that is damaged, or of another model.
    """
    shapes = TorchFile(path).shapes
    families = (family for family in (glide, compact_transformers) if family.is_one(shapes))
    theirs = next(families, efficientnet_lite)
    try:
        return theirs.open_file(path)
    except LookupError:  # of a tensor, or of its axes
        raise ValueError(
            f"'{path}' is damaged: a tensor of {theirs.TYPE} is missing or has other axes; get "
            "it again."
        ) from None


OPENERS: Mapping[str, Callable[[Path], Published]] = {
    ".gguf": published.open_gguf,
    ".npz": big_vision.open_file,
    ".pt": open_torch,
    ".pth": open_torch,
}
