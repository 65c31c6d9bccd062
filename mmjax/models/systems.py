"""The systems by name; each is a file with `make_model`, `make_loss`, `make_example_losses`,
`spec`, and perhaps `check_batch`, `make_generate` and `make_choice`, `notes`, `leaner_losses`."""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmjax.batch import Batch, Spec
from mmjax.config import nearest
from mmjax.models import (
    captioner,
    clip,
    coca,
    flamingo,
    language,
    multimodal,
    text_encoder,
    vit,
    vqa,
)

SYSTEMS = {
    "captioner": captioner,
    "clip": clip,
    "coca": coca,
    "flamingo": flamingo,
    "language_model": language,
    "multimodal": multimodal,
    "text_encoder": text_encoder,
    "vit": vit,
    "vqa": vqa,
}


def _system(config: Mapping[str, Any]) -> ModuleType:
    name = config["model"].get("name", "")
    if name not in SYSTEMS:
        raise ValueError(
            f"config.model.name is '{name}'; the systems are {', '.join(sorted(SYSTEMS))}."
            + nearest(name, SYSTEMS)
        )
    return SYSTEMS[name]


def make_model(config: Mapping[str, Any]) -> Any:
    """The Linen module that `config.model` describes; `config.model.name` names its system.

    Raises:
      ValueError: an unknown system or an unknown setting.
    """
    fields = config["model"]
    fields = fields.to_dict() if isinstance(fields, ConfigDict) else dict(fields)
    fields.pop("name", None)
    return _system(config).make_model(fields)


def make_loss(config: Mapping[str, Any]) -> Callable[..., dict[str, Any]]:
    """The system's loss, `(outputs, batch) -> dict of scalars`, as `config.loss` describes it.

    Raises:
      ValueError: an unknown system or an unknown setting.
    """
    return _system(config).make_loss(config.get("loss", {}))


def make_example_losses(config: Mapping[str, Any]) -> Callable[..., dict[str, Any]]:
    """The loss of each example, `(outputs, batch) -> dict of [B]`: those terms of the system's loss
    that are means over the examples, under the same names.

    Raises:
      ValueError: an unknown system or an unknown setting.
    """
    return _system(config).make_example_losses(config.get("loss", {}))


def spec(config: Mapping[str, Any]) -> Spec:
    """Shapes and dtypes, for a batch of one, of what the config's model and loss read."""
    return _system(config).spec(make_model(config), config.get("loss", {}))


def check_batch(config: Mapping[str, Any], batch: Batch) -> None:
    """Raise ValueError for a batch, still on the host, that the system cannot learn from."""
    system = _system(config)
    if hasattr(system, "check_batch"):
        system.check_batch(config["model"], batch)


def make_generate(
    config: Mapping[str, Any], model: Any, tokenizer: Any, settings: Mapping[str, Any]
) -> Callable[[Any, Batch], list[str]]:
    """What the system writes: `(params, batch) -> texts`, one a row of the batch.

    `batch` has what the texts are about and, where there are prompts, `text` and `text_mask`.

    Args:
      settings: of decoding.

    Raises:
      ValueError: the system writes no text, or an unknown setting.
    """
    return _writing(config).make_generate(model, tokenizer, settings)


def make_choice(
    config: Mapping[str, Any], model: Any, tokenizer: Any, texts: Sequence[str]
) -> Callable[[Any, Batch], np.ndarray]:
    """How probable the system finds known texts: `(params, batch) -> [B, C]` log p of each.

    `batch` is as for `make_generate`; the tokens of a text and its end count.

    Raises:
      ValueError: the system writes no text, or there are no texts.
    """
    return _writing(config).make_choice(model, tokenizer, texts)


def _writing(config: Mapping[str, Any]) -> ModuleType:
    """The system's module, if it writes."""
    system = _system(config)
    if not hasattr(system, "make_generate"):
        raise ValueError(
            f"The system '{config['model']['name']}' writes no text: remove the evaluations that "
            "need it from config.evals."
        )
    return system


def notes(config: Mapping[str, Any], mesh: Mesh) -> list[str]:
    """Lines that the system would have a person read before the first step."""
    system = _system(config)
    return system.notes(config, mesh) if hasattr(system, "notes") else []


def leaner_losses(config: Mapping[str, Any], devices: int) -> list[tuple[dict[str, Any], int]]:
    """Settings of `config.loss` with which the system's loss needs less memory, and the bytes that
    each of `devices` saves by them."""
    system = _system(config)
    return system.leaner_losses(config, devices) if hasattr(system, "leaner_losses") else []
