"""tests/slow.txt names tests that exist: a renamed one would come back into `make test`."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_slow_test_exists():
    for line in (ROOT / "tests" / "slow.txt").read_text().splitlines():
        file, _, test = line.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test.partition("[")[0].rpartition("::")[2] in names, line
