"""Build a model from its config section, with immediate errors for wrong settings."""

from collections.abc import Mapping
from typing import Any, TypeVar

import flax.linen as nn

from mmjax.config import check_kwargs

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
