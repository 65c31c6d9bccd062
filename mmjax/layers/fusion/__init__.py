"""Modality fusions by name; each maps {modality: Stream} to Fused."""

from collections.abc import Mapping
from typing import Any

from mmjax.config import check_kwargs, nearest
from mmjax.layers.fusion.bottleneck import Bottleneck
from mmjax.layers.fusion.cross import Bidirectional, OneWay
from mmjax.layers.fusion.early import Early
from mmjax.layers.fusion.early_features import EarlyFeatures
from mmjax.layers.fusion.gated import Gated
from mmjax.layers.fusion.late import Late
from mmjax.layers.fusion.streams import Fused, Fusion, Stream

FUSIONS: dict[str, type[Fusion]] = {
    "early": Early,
    "early_features": EarlyFeatures,
    "late": Late,
    "gated": Gated,
    "cross_attention": OneWay,
    "bidirectional": Bidirectional,
    "bottleneck": Bottleneck,
}

__all__ = ["FUSIONS", "Fused", "Fusion", "Stream", "make_fusion"]


def make_fusion(settings: Mapping[str, Any], where: str, **module: Any) -> Fusion:
    """The fusion that a config section describes by `kind` and fields.

    Args:
      settings: the section; where: its path in the config, for error messages.
      module: Linen's `name` or `parent`.

    Raises:
      ValueError: an unknown kind or setting.
    """
    settings = dict(settings)
    kind = settings.pop("kind", None)
    if kind not in FUSIONS:
        raise ValueError(
            f"{where}.kind is '{kind}'; the fusions are {', '.join(FUSIONS)}."
            + nearest(str(kind), FUSIONS)
        )
    return FUSIONS[kind](**check_kwargs(FUSIONS[kind], settings, where), **module)
