"""The command that segments images."""

import json

import commands
import numpy as np
import pytest
from parity import GOLDEN
from PIL import Image

from mmjax.data import rle
from mmjax.segment import read_prompt

MODEL = f"--model={GOLDEN / 'sam'}"


def test_images_are_segmented_by_points_and_from_a_grid(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(9, 0)
    Image.fromarray(pixels.repeat(9, 1)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    both = [str(tmp_path / name) for name in ("a.png", "b.png")]
    out = tmp_path / "points"
    run = commands.run("-m", "mmjax.segment", *both, MODEL, f"--out={out}", "--point=30,20")
    assert run.returncode == 0, run.stderr
    assert "a.png: 3 masks" in run.stdout and "b.png" in run.stderr
    found = json.loads((out / "a.json").read_text())
    assert [x["predicted_iou"] for x in found] == sorted(x["predicted_iou"] for x in found)[::-1]
    mask = rle.decode(rle.from_segmentation(found[0]["segmentation"], 54, 72))
    assert found[0]["area"] == mask.sum()
    assert Image.open(out / "a.png").size == (72, 54)
    again = commands.run("-m", "mmjax.segment", both[0], MODEL, f"--out={out}", "--point=30,20")
    assert again.returncode == 2 and "a.json' exists already: give another --out" in again.stderr
    grid = ("--points=3", "--iou=0", "--stability=0", f"--out={tmp_path / 'grid'}")
    run = commands.run("-m", "mmjax.segment", both[0], MODEL, *grid)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "grid" / "a.json").read_text())


def test_flags_of_another_form_are_refused(tmp_path):
    Image.new("RGB", (72, 54)).save(tmp_path / "a.png")
    base = (str(tmp_path / "a.png"), MODEL, f"--out={tmp_path / 'out'}")
    run = commands.run("-m", "mmjax.segment", *base, "--box=1,2,3")
    assert run.returncode == 2 and "'1,2,3' is not of the form x0,y0,x1,y1" in run.stderr
    run = commands.run("-m", "mmjax.segment", *base, "--point=99,2")
    assert run.returncode == 2 and "point (99, 2) is outside of the image" in run.stderr
    before = (tmp_path / "a.png").read_bytes()
    run = commands.run("-m", "mmjax.segment", base[0], MODEL, f"--out={tmp_path}", "--point=9,2")
    assert run.returncode == 2 and "a.png' exists already" in run.stderr
    assert (tmp_path / "a.png").read_bytes() == before  # the image itself
    for label in ("0.7", "1.5", "2", "-1"):
        with pytest.raises(ValueError, match=f"'9,2,{label}' is not of the form x,y or x,y,0"):
            read_prompt([f"9,2,{label}"], None)
