"""Imports of mmjax have no cycle and go one way: those inside functions and for types included."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The layers, lowest first. A module belongs to the longest entry that its name begins with, and
# imports from its own entry and from those above it in this list.
ORDER = """
number
config  batch  schedule  sharding  finite  microbatch_check
storage
system
process
optim
workdir
data
tools
sample
layers  losses
decode
models
step
variables
weights
workdir.saved
pretrained
photos
evals.metrics  evals.attention_rollout  evals.occlusion  evals.zero_shot
evals.grad_cam
embedder
rerank
guide
speech  masks  conversation  text_stream
transcribe
detection
tools.classifier  tools.detector  tools.speech
tools.table
chat
search
serve
run
evals
report
plan
evaluate
train
search.__main__  serve.__main__  sample.__main__
zero_shot_calibration
zero_shot  segment  generate  pack  export  interpolate  replay  preflight  data.inspect
cluster_video
detect  unclip
__main__
"""


def modules(root):
    """name -> file of every module of a package."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name, known):
    """module -> line, of the modules of the same package that a module names in its imports."""
    path, found = known[name], {}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: package.count(".") + 2 - node.level]
                base = ".".join([*above, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [n if n in known else base for n in names]
        else:
            continue
        found |= {n: node.lineno for n in names if n in known and n != name}
    return found


def graph_of(root):
    known = modules(root)
    return {name: imports(name, known) for name in known}


def cycle(graph):
    """Such as "a:3 -> b:1 -> a", or None."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        chain = error.args[1][::-1]  # graphlib goes from what is imported to who imports it
        steps = [f"{a}:{graph[a][b]}" for a, b in zip(chain, chain[1:])]
        return " -> ".join([*steps, chain[-1]])
    return None


def against(graph, order):
    """A line for each import against the order, and for each module that has no place in it."""
    (package,) = {name.partition(".")[0] for name in graph}
    rank = {
        f"{package}.{entry}": (number, entry)
        for number, line in enumerate(order.strip().splitlines())
        for entry in line.split()
    }

    def place(name):
        """(line of the list, entry); packages themselves, if empty, have none."""
        while name not in rank and "." in name:
            name = name.rpartition(".")[0]
        return rank.get(name)

    wrong = []
    for name, imported in graph.items():
        if place(name) is None:
            if name != package:
                wrong.append(f"{name} has no place in the order")
            continue
        for other, line in imported.items():
            there = place(other) or place(name)  # one without a place is named already
            if there != place(name) and there[0] >= place(name)[0]:
                wrong.append(f"{name}:{line} imports {other}, which is not below it")
    return wrong


def test_there_is_no_cycle():
    assert cycle(graph_of(ROOT / "mmjax")) is None


def test_imports_go_down():
    wrong = against(graph_of(ROOT / "mmjax"), ORDER)
    assert not wrong, "\n".join(wrong)


def test_every_entry_of_the_order_is_there():
    known = modules(ROOT / "mmjax")
    assert [e for e in ORDER.split() if f"mmjax.{e}" not in known] == []


@pytest.fixture
def package(tmp_path):
    """Writes modules, name -> content, of a package `p`; its graph."""

    def write(**content):
        for name, text in content.items():
            path = tmp_path / "p" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return graph_of(tmp_path / "p")

    return write


LAZY = "def f():\n    from p import b\n"
TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import B\n"


@pytest.mark.parametrize(("a", "line"), [("import p.b", 1), (LAZY, 2), (TYPES, 3)])
def test_a_cycle_is_shown_as_a_chain(package, a, line):
    graph = package(a=a, b="from .c__d import x", c__d="from ..a import y")
    assert cycle(graph) is None  # ".c__d" is no module
    graph = package(b="from .c.d import x")
    chain = cycle(graph).split(" -> ")
    assert sorted(chain[:-1]) == [f"p.a:{line}", "p.b:1", "p.c.d:1"]
    assert chain[-1] == chain[0].partition(":")[0]
    steps = {"p.a": "p.b", "p.b": "p.c.d", "p.c.d": "p.a"}
    names = [step.partition(":")[0] for step in chain]
    assert all(steps[a] == b for a, b in zip(names, names[1:]))


def test_an_import_against_the_order_is_shown(package):
    graph = package(low="def f():\n    import p.high.x", high__x="import p.high.y", high__y="")
    assert against(graph, "low\nhigh") == ["p.low:2 imports p.high.x, which is not below it"]
    assert against(graph, "high\nlow") == []
    assert against(graph, "high  low") == ["p.low:2 imports p.high.x, which is not below it"]
    # An entry of its own takes a module out of its package.
    assert against(graph, "high.x\nlow\nhigh") == [
        "p.high.x:1 imports p.high.y, which is not below it"
    ]
    assert against(graph, "low") == [
        "p.high.x has no place in the order",
        "p.high.y has no place in the order",
    ]
