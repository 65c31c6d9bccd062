"""The TFDS builders of this repository, by name; each is built once and then opened."""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmjax.data.cache import data_root, locked

if TYPE_CHECKING:  # importing TFDS takes most of a second
    import tensorflow_datasets as tfds

BUILDERS = (
    "emoji",
    "openclipart",
    "tuxpaint",
    "tuxpaint_sounds",
    "image_folder",
    "esc10",
    "fsdd",
    "lip_digits",
    "mnist_digits",
    "ktuberling",
    "kgeography",
    "wesnoth",
)


def make_builder(
    name: str, data_dir: str | os.PathLike | None = None, root: str | os.PathLike | None = None
) -> "tfds.core.DatasetBuilder":
    """One of `BUILDERS`, not yet built.

    Args:
      data_dir: the cache (default: see `mmjax.data.cache.data_root`).
      root: path of the raw data, for builders that read files: an unpacked openclipart, tuxpaint,
        ktuberling, kgeography or wesnoth tree, the folder or tar archive of an image folder, of
        ESC-10 or of FSDD (also for lip_digits), the wheel with MNIST.

    Raises:
      ValueError: a name that is not in `BUILDERS`, or an `image_folder` without `root`.
    """
    where = {"data_dir": str(data_root(data_dir)), "file_format": "array_record"}
    if name == "emoji":
        from mmjax.data.builders.emoji import Emoji

        return Emoji(**where)
    if name == "openclipart":
        from mmjax.data.builders.openclipart import Openclipart

        return Openclipart(root=root, **where)
    if name == "tuxpaint":
        from mmjax.data.builders.tuxpaint import Tuxpaint

        return Tuxpaint(root=root, **where)
    if name == "tuxpaint_sounds":
        from mmjax.data.builders.tuxpaint_sounds import TuxpaintSounds

        return TuxpaintSounds(root=root, **where)
    if name == "image_folder":
        from mmjax.data.builders.image_folder import ImageFolder, folder_config

        return ImageFolder(config=folder_config(root, data_dir), **where)
    if name == "esc10":
        from mmjax.data.builders.esc10 import Esc10

        return Esc10(root=root, **where)
    if name == "fsdd":
        from mmjax.data.builders.fsdd import Fsdd

        return Fsdd(root=root, **where)
    if name == "lip_digits":
        from mmjax.data.builders.lip_digits import LipDigits

        return LipDigits(root=root, **where)
    if name == "mnist_digits":
        from mmjax.data.builders.mnist_digits import MnistDigits

        return MnistDigits(root=root, **where)
    if name == "ktuberling":
        from mmjax.data.builders.ktuberling import Ktuberling

        return Ktuberling(root=root, **where)
    if name == "kgeography":
        from mmjax.data.builders.kgeography import Kgeography

        return Kgeography(root=root, **where)
    if name == "wesnoth":
        from mmjax.data.builders.wesnoth import Wesnoth

        return Wesnoth(root=root, **where)
    raise ValueError(f"There is no builder '{name}'; the builders are {', '.join(BUILDERS)}.")


def prepared_builder(
    name: str, data_dir: str | os.PathLike | None = None, root: str | os.PathLike | None = None
) -> "tfds.core.DatasetBuilder":
    """`make_builder`, with its data built on disk if needed; an interrupted build starts over.

    TFDS writes to a temporary directory and renames it at the end; with the lock, one process
    builds while the others wait.
    """
    with _quiet():
        builder = make_builder(name, data_dir, root)
        if _is_built(builder):
            return builder
        path = builder.data_path
        with locked(path.parent / f".{path.name}.lock"):
            builder = make_builder(name, data_dir, root)  # another process may just have built it
            if _is_built(builder):
                return builder
            for left_over in path.parent.glob(f"incomplete.*_{path.name}"):
                shutil.rmtree(left_over)
            builder.download_and_prepare()
    return builder


def _is_built(builder: "tfds.core.DatasetBuilder") -> bool:
    # TFDS's own is_prepared() says the same, and logs a warning whenever the answer is no.
    return (builder.data_path / "dataset_info.json").exists()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The builders show their own progress line; TFDS would add two bars and a page of output.
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
