"""`config.data.hold_out`: a part of the training source that is only evaluated."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mmjax.data.held_out import held_out
from mmjax.data.transforms import chain
from mmjax.data.transforms.evaluation import evaluation_form
from mmjax.system import System

# Evaluators that read the captions themselves, and the steps that their transform lacks.
READ_CAPTIONS = ("captioning", "retrieval", "transcription")
TEXT_STEPS = ("choose_caption", "first_caption", "longest_caption", "drop_words", "tokenize")
TEXT_STEPS += ("answer", "label", "transcript")


def evals_of(config: ConfigDict, system: System) -> Mapping[str, Any]:
    """`config.evals`, and with `config.data.hold_out` evaluators on what is held out.

    `held_out_loss` is the training loss. `System.evaluators` names others for the terms with a
    weight: `held_out`, or of several `held_out_<kind>`. Their transform is the training one without
    its random steps.

    Raises:
      ValueError: an evaluator of the config that has one of these names.
    """
    fraction, data = config.data.hold_out, config.data
    if not fraction:
        return config.evals
    transform = evaluation_form(" | ".join(filter(None, [data.cached_transform, data.transform])))
    kept = [name for name, *_ in chain.read(transform) if name not in TEXT_STEPS]
    shared = {
        "source": held_out(data.train, fraction)[1],
        "transform": transform,
    }
    without_text = shared | {"transform": chain.only(transform, kept)}
    found = {}
    if not data.batch_transform.startswith("interleave"):  # the loss reads several rows as one
        found["held_out_loss"] = shared | {"kind": "loss"}
    shown = [x for term, x in system.evaluators.items() if term in config.loss_weights]
    for settings in shown:
        kind = settings["kind"]
        name = "held_out" if len(shown) == 1 else f"held_out_{kind}"
        found[name] = (without_text if kind in READ_CAPTIONS else shared) | settings
    twice = sorted(found.keys() & set(config.evals))
    if twice:
        raise ValueError(
            f"config.evals has {', '.join(twice)}, which config.data.hold_out adds: rename it."
        )
    return {**config.evals, **found}
