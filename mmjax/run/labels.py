"""The order of a run's classes: that of its checkpoint, or of the head that it starts from."""

from collections.abc import Collection, Mapping
from typing import Any

from mmjax.data import mixture
from mmjax.data.source import Source
from mmjax.run import initial
from mmjax.run.experiment import Experiment


def by_name(
    run: Experiment,
    source: Source,
    saved: Mapping[str, Any] | None,
    allow: Collection[str] = (),
) -> Source:
    """The training source, with labels that are indices into the logits of the run's model.

    Classes are matched by name: the source may have those of the model in another order, or some of
    them. Sources and systems without class names or labels are returned as they are.

    Args:
      source: as it was opened, from `experiment.open_training`.
      saved: the JSON part of the checkpoint that is resumed; None: the run starts, perhaps with the
        head of another model (config.init_from).
      allow: of --allow_change; "data.train" allows that classes are missing since then.

    Raises:
      ValueError: a class that the model does not have, or classes that have changed since the
        checkpoint was saved; names those that differ.
    """
    if saved and "data.train" not in allow:
        _check_unchanged(source, saved)
    if "label" not in run.spec:
        return source
    if saved:
        known, whose = saved.get("class_names"), "this run's checkpoint"
    else:
        path = run.config.init_from.path
        known = initial.head_names(path, run.params, run.config.init_from.only)
        whose = f"the head of '{path}'"
    if known is None:
        mixture.check_classes(source)
        return source
    try:
        return mixture.renumbered(source, known, whose)
    except ValueError as error:
        new = "" if saved else " For a new head, leave it out of config.init_from.only."
        raise ValueError(f"{error}{new}") from None


def _check_unchanged(source: Source, saved: Mapping[str, Any]) -> None:
    had = saved.get("source_classes", saved.get("class_names"))
    has = mixture.classes_of(source)
    if had is None or has is None or set(had) == set(has):
        return
    changes = [
        f"{', '.join(repr(name) for name in names if name not in others)} {what}"
        for names, others, what in ((had, has, "missing"), (has, had, "new"))
        if set(names) - set(others)
    ]
    raise ValueError(
        f"The classes of {source.name} have changed since this run was saved: "
        f"{'; '.join(changes)}. Restore them, or train in another --workdir."
    )
