"""`config.data.hold_out`: a part of the training source that is only evaluated."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mmjax.batch import MODALITIES
from mmjax.data.transforms import chain
from mmjax.data.transforms.evaluation import evaluation_form
from mmjax.pretrained import IMAGE_STEPS


def evals_of(config: ConfigDict) -> Mapping[str, Any]:
    """`config.evals`, and with `config.data.hold_out` evaluators on what is held out.

    `held_out_loss` is the training loss; `held_out` is retrieval for a contrastive loss,
    classification or captioning. Their transform is the training one without its random steps.

    Raises:
      ValueError: an evaluator of the config that has one of these names.
    """
    fraction, data = config.data.hold_out, config.data
    if not fraction:
        return config.evals
    transform = evaluation_form(" | ".join(filter(None, [data.cached_transform, data.transform])))
    shared = {
        "source": {"kind": "part", "source": data.train, "start": 1 - fraction, "stop": 1.0},
        "transform": transform,
    }
    image = shared | {"transform": chain.only(transform, IMAGE_STEPS)}
    inputs = tuple(m for m in MODALITIES if m in config.model) or ("image",)
    window = config.model.get("text", {}).get("length", 21) - 1
    kinds = {
        "contrastive": image | {"kind": "retrieval"},
        "classification": shared | {"kind": "classification", "modalities": inputs},
        "captioning": image | {"kind": "captioning", "decode": {"max_new_tokens": window}},
    }
    found = {}
    if not data.batch_transform.startswith("interleave"):  # the loss reads several rows as one
        found["held_out_loss"] = shared | {"kind": "loss"}
    for term in config.loss_weights:
        if term in kinds:
            found.setdefault("held_out", kinds[term])
    twice = sorted(found.keys() & set(config.evals))
    if twice:
        raise ValueError(
            f"config.evals has {', '.join(twice)}, which config.data.hold_out adds: rename it."
        )
    return {**config.evals, **found}
