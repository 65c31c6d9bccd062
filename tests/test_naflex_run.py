"""A run with two patch budgets, each with its own rows: training, resume, replay, evaluation."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_clip import get_config

from mmjax import replay
from mmjax.train import train


def write_drawings(root, count=16):
    """Images of `count` shapes, and their captions."""
    root.mkdir()
    rng, lines = np.random.default_rng(0), []
    for i in range(count):
        pixels = rng.integers(0, 256, (5 + 2 * i, 37 - 2 * i, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "caption": f"number {i}"}) + "\n")
    (root / "captions.jsonl").write_text("".join(lines))


def config(root, steps):
    config = get_config()
    config.total_steps, config.checkpoint.every, config.batch_size = steps, 100, 16
    source = {"kind": "folder", "root": str(root), "captions": "captions.jsonl"}
    config.data.train = {
        "kind": "mixture",
        "whole_batches": True,
        "parts": {
            "few": {"source": source, "transform": "decode | patches(4, 8)"},
            "many": {"source": source, "transform": "decode | patches(8, 8)", "batch_size": 8},
        },
    }
    config.data.transform = "choose_caption | tokenize(12)"
    sizes = {k: config.model.image[k] for k in ("width", "depth", "heads", "mlp_dim")}
    tower = {"kind": "naflex", "patch_size": 8, "position_grid": (2, 2), "max_patches": 8}
    config.model.image = {**sizes, **tower}
    section = {"kind": "retrieval", "source": source, "transform": "decode | patches(8, 8)"}
    config.evals = {"all": section}
    return config.lock()


def test_a_run_in_two_budgets_resumes_exactly(tmp_path, capsys):
    root, whole, parts = (tmp_path / name for name in ("drawings", "whole", "parts"))
    write_drawings(root)
    uneven = config(root, 4)
    with uneven.unlocked():
        uneven.data.train.parts.many.batch_size = 4  # on 8 devices
    with pytest.raises(ValueError, match="parts.many.batch_size is 4, which the mesh.*use 8"):
        train(uneven, whole)
    small = config(root, 4)
    with small.unlocked():
        few = small.data.train.parts.few
        few.source = {"kind": "part", "source": few.source, "stop": 0.5}
    with pytest.raises(ValueError, match="parts.few has 16 rows, and its source 8 examples"):
        train(small, whole)
    results = train(config(root, 4), whole)
    assert 0 < results["all/image_to_text/recall@5"] <= 1
    train(config(root, 3), parts)
    train(config(root, 4), parts, ("total_steps",))
    losses = [
        [json.loads(line).get("train/loss") for line in (path / "metrics.jsonl").open()]
        for path in (whole, parts)
    ]
    losses = [[x for x in found if x is not None] for found in losses]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    lines = [(path / "batches.jsonl").read_text().splitlines() for path in (whole, parts)]
    assert lines[0] == lines[1] and len(lines[0]) == 4
    spent = [json.loads(line) for line in (whole / "goodput.jsonl").open()]
    assert [row["step"] for row in spent if "compile" in row["lost"]] == [1, 2]  # once a budget
    capsys.readouterr()
    for step in (2, 3):  # one of each budget
        replay.replay(parts, step)
        assert "the exact batch that was trained on" in capsys.readouterr().out
