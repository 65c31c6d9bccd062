"""Parts of a model that come from another run: they are frozen, taken, and the ones expected.

A system names them in `System.given`: a DALL-E learns the codes of one image tokenizer, and means
nothing with those of another.
"""

import re
from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from mmjax.optim.tree_paths import shapes
from mmjax.system import SAVED, System
from mmjax.workdir.checksum import digest


def check_frozen(system: System, frozen: Any) -> None:
    """Raise ValueError for a given part that would be trained.

    Args:
      frozen: a tree like the parameters, True where one is frozen.
    """
    flat = traverse_util.flatten_dict(frozen, sep="/")
    for part in system.given:
        if not all(value for path, value in flat.items() if path.startswith(f"{part}/")):
            raise ValueError(
                f"The parameters {part}/... are of another run and not trained: set "
                f"config.optim.freeze=('{part}/.*',)."
            )


def check_taken(system: System, settings: Mapping[str, Any], tree: Any) -> None:
    """Check the given parts at the start of a run, and print their fingerprints.

    Args:
      settings: `config.init_from`.
      tree: the parameters, and the collections of `SAVED` beside them.

    Raises:
      ValueError: a part that `settings` do not take from another run, or another part than the one
        that the system names.
    """
    only = settings["only"]
    for part, known in system.given.items():
        mine = [path for path in shapes(tree) if _inside(path, part)]
        taken = settings["path"] and (
            not only or all(any(re.fullmatch(x, path) for x in only) for path in mine)
        )
        if not taken:
            raise ValueError(
                f"The parameters {part}/... are of another run: name it in config.init_from.path, "
                rf"and set config.init_from.only=('(codebook/)?{part}/.*',)."
            )
        found = fingerprint(tree, part)
        if known and found != known:
            raise ValueError(
                f"config.model.fingerprint is {known}, and the {part} in '{settings['path']}' has "
                f"{found}: it is another one, or was trained anew; name the right run, or leave "
                "the fingerprint empty to train with this one."
            )
        print(f"{part}: fingerprint {found}")


def fingerprint(tree: Any, part: str) -> str:
    """16 hex digits that change with any parameter or codebook of a part of a model."""
    return digest(tree, lambda path: _inside(path, part))


def _inside(path: str, part: str) -> bool:
    return path.startswith((f"{part}/", *(f"{name}/{part}/" for name in SAVED)))
