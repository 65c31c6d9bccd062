"""run.json: what it keeps, and what it says of the checkout."""

import json
import math
import os
import subprocess
import sys

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from mmjax.workdir import manifest


def test_manifest_keeps_sections_and_says_what_ran(tmp_path):
    cfg = ml_collections.ConfigDict({"sizes": (1, 2), "limit": math.inf, "none": None})
    manifest.write_manifest(tmp_path, config=cfg, results={"loss": np.float32(0.5)})
    manifest.write_manifest(tmp_path, results={"recall": jnp.float32(0.25)})
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["config"] == {"sizes": [1, 2], "limit": "Infinity", "none": None}
    assert run["results"] == {"recall": 0.25}
    assert run["devices"] == {"kind": "cpu", "count": 8}
    assert run["packages"]["numpy"] == np.__version__
    assert run["python"] == sys.version.split()[0]
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_failed_manifest_leaves_the_old_one(tmp_path, monkeypatch):
    manifest.write_manifest(tmp_path, results={"a": 1})
    before = (tmp_path / "run.json").read_text()

    def fail(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ValueError, match=r"Cannot write .*run.json: No space left"):
        manifest.write_manifest(tmp_path, results={"a": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == before


def test_a_manifest_that_is_not_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="run.json is not JSON"):
        manifest.write_manifest(tmp_path)


def test_git_revision_inside_and_outside_a_checkout(tmp_path, monkeypatch):
    def git(*args):
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    module = tmp_path / "manifest.py"
    module.write_text("x = 1\n")
    monkeypatch.setattr(manifest, "__file__", str(module))
    assert manifest.git_revision() is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "x")
    assert manifest.git_revision() is None  # not tracked: another project's checkout
    git("add", "manifest.py")
    git("commit", "-q", "-m", "x")
    (tmp_path / "notes.txt").write_text("untracked")
    assert manifest.git_revision() == {"revision": git("rev-parse", "HEAD"), "dirty": False}
    module.write_text("x = 2\n")
    assert manifest.git_revision()["dirty"] is True
