"""tests/configs/ holds what every config resolves to: a changed default shows in the diff."""

import json

import pytest
from resolved_configs import FOLDER, NAMES, resolved


@pytest.mark.parametrize("name", NAMES)
def test_a_config_resolves_to_what_its_file_says(name):
    file = FOLDER / f"{name}.json"
    rewrite = "python tests/helpers/resolved_configs.py"
    assert file.exists(), f"{file} is missing: {rewrite}"
    now, then = json.loads(resolved(name)), json.loads(file.read_text())
    assert now == then, f"{name} resolves to something else: read the diff after {rewrite}"


def test_no_file_is_left_over():
    assert {f.stem for f in FOLDER.glob("*.json")} == set(NAMES)
