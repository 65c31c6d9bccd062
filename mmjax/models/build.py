"""Build a model from its config section, with immediate errors for wrong settings."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flax.linen as nn

from mmjax.config import check_kwargs

K = TypeVar("K")
M = TypeVar("M", bound=nn.Module)


def build(kind: type[M], section: Mapping[str, Any], *parts: str) -> M:
    """The model of class `kind` that `config.model` describes.

    Args:
      parts: methods that make a part of the model; called here, so that a wrong setting in its
        section is reported now and not in the first step.

    Raises:
      ValueError: an unknown setting, in it or in its parts.
    """
    model = kind(**check_kwargs(kind, section, "config.model"))
    for part in parts:
        getattr(model, part)(parent=None)
    return model


def of_kind(
    kinds: Mapping[str, Callable[..., K]], fields: Mapping[str, Any], where: str, **linen: Any
) -> K:
    """The module of the kind that `fields` names, from the others of them.

    Args:
      where: the name of the section that the fields are from, for messages.

    Raises:
      ValueError: an unknown kind, or an unknown setting of it.
    """
    fields = dict(fields)
    kind = fields.pop("kind")
    if kind not in kinds:
        raise ValueError(f"{where}.kind is '{kind}'; use one of {sorted(kinds)}.")
    return kinds[kind](**check_kwargs(kinds[kind], fields, where), **linen)
