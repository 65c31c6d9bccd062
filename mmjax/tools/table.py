"""The tools, by name."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from mmjax.config import nearest
from mmjax.tools.calculator import calculate
from mmjax.tools.crop import crop
from mmjax.tools.ocr import read_text
from mmjax.tools.run import Given, Loaded, Tool


def _calculator(arguments: str, given: Given) -> str:
    return calculate(arguments)


def _crop(arguments: str, given: Given) -> bytes:
    return crop(given.image(), arguments)  # that of the detector, whose boxes it takes


# Those with a model are imported at their first call: most runs have none.


def _classifier(path: str) -> Tool:
    from mmjax.tools.classifier import open_classifier

    return open_classifier(path)


def _detector(path: str) -> Tool:
    from mmjax.tools.detector import open_detect

    return open_detect(path)


def _speech(path: str) -> Tool:
    from mmjax.tools.speech import open_speech

    return open_speech(path)


TOOLS: Mapping[str, Tool] = {"calculator": _calculator, "crop": _crop, "ocr": read_text}
# Those with a model, from its path, and the seconds that calls after the first may take.
MODELS: Mapping[str, tuple[Callable[[str], Tool], float]] = {
    "classifier": (_classifier, 300.0),
    "detector": (_detector, 60.0),
    "speech": (_speech, 300.0),
}
OF_RECORDINGS = ("speech",)  # which do nothing without one
WITH_DEFAULT = ("classifier",)  # whose model need not be named


def named(names: str) -> dict[str, Tool]:
    """The tools of these names, separated by commas; with a model as "detector=PATH".

    Raises:
      ValueError: an unknown one, a model that is not named or not there, or one that a tool does
        not take.
    """
    found: dict[str, Tool] = {}
    for part in filter(None, (part.strip() for part in names.split(","))):
        name, has_model, path = (text.strip() for text in part.partition("="))
        if name in TOOLS:
            if has_model:
                raise ValueError(f"The tool '{name}' has no model: leave '={path}' out.")
            found[name] = TOOLS[name]
        elif name in MODELS:
            if not path and (has_model or name not in WITH_DEFAULT):
                raise ValueError(f"The tool '{name}' needs a model: write {name}=PATH.")
            if not (":" in path or Path(path).exists()):  # a URL, or of a package: seen when loaded
                raise ValueError(f"There is no '{path}', the model of the tool '{name}'.")
            load, most = MODELS[name]
            found[name] = Loaded(functools.partial(load, path), most)
        else:
            known = [*TOOLS, *MODELS]
            raise ValueError(
                f"There is no tool '{name}': use {', '.join(known)}.{nearest(name, known)}"
            )
    return found
