"""SPICE: captions compared as graphs of objects, attributes and relations (runs Java)."""

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def spice_folder() -> Path:
    """The folder of `spice-1.0.jar`: the environment's MMJAX_SPICE, else that of pycocoevalcap.

    Raises:
      ValueError: no Java, no such folder, or no parser in its `lib`; says how to install it.
    """
    if not shutil.which("java"):
        raise ValueError("SPICE runs on Java, which is not installed: install it, or drop SPICE.")
    folder = os.environ.get("MMJAX_SPICE")
    spec = importlib.util.find_spec("pycocoevalcap")
    if not folder and spec:  # a package without __init__.py
        folder = f"{spec.submodule_search_locations[0]}/spice"
    if not folder or not Path(folder, "spice-1.0.jar").exists():
        raise ValueError(
            f"SPICE needs spice-1.0.jar, which is not in {folder or 'any known folder'}: run "
            "`pip install pycocoevalcap`, or set MMJAX_SPICE to its folder."
        )
    missing = [name for name in _MODELS if not Path(folder, "lib", name).exists()]
    if missing:
        raise ValueError(
            f"SPICE needs {' and '.join(missing)} in {folder}/lib: take them from Stanford "
            "CoreNLP 3.6.0 (stanford-corenlp-full-2015-12-09.zip), or drop SPICE."
        )
    return Path(folder)


def spice(texts: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, " n"]:
    """F-score of each text `[N]`, in [0, 1]; NaN if neither text nor references have a tuple.

    Takes untokenized sentences, and up to 8 GB of memory.

    Raises:
      ValueError: see `spice_folder`; or the program fails (with the last line of its output).

    Source: Anderson et al. 2016 (arXiv:1607.08822), and the authors' program.
    """
    folder = spice_folder()
    cases = [
        {"image_id": i, "test": text, "refs": list(refs)}
        for i, (text, refs) in enumerate(zip(texts, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as work:
        Path(work, "in.json").write_text(json.dumps(cases))
        command = ["java", "-Xmx8G", "-jar", "spice-1.0.jar", f"{work}/in.json"]
        command += ["-cache", f"{work}/cache", "-out", f"{work}/out.json", "-subset", "-silent"]
        Path(work, "cache").mkdir()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(
                f"`{' '.join(command[:4])}` failed ({reason}): fix that, or drop SPICE."
            )
        found = json.loads(Path(work, "out.json").read_text())
    scores = {case["image_id"]: case["scores"]["All"]["f"] for case in found}
    return np.asarray([float(scores[i]) for i in range(len(cases))])
