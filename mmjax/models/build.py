"""A model from its section of the config, refused at once where a setting is wrong."""

from collections.abc import Mapping
from typing import Any, TypeVar

import flax.linen as nn

from mmjax.config import check_kwargs

M = TypeVar("M", bound=nn.Module)


def build(kind: type[M], section: Mapping[str, Any], *parts: str) -> M:
    """The model of a class that `config.model` describes.

    Args:
      parts: methods that make a part of the model; called, so that a typing error in its section is
        found now and not in the first step.

    Raises:
      ValueError: an unknown setting, in it or in its parts.
    """
    model = kind(**check_kwargs(kind, section, "config.model"))
    for part in parts:
        getattr(model, part)(parent=None)
    return model
