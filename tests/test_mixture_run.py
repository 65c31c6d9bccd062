"""A run of a mixture: preflight, training, weights changed on a resume, and its batches again."""

import json

import pytest
from tiny_clip import get_config, write_folder

from mmjax import preflight, replay
from mmjax.train import train
from mmjax.workdir import lock as workdir_lock
from mmjax.workdir.checkpoint import CheckpointError

ALLOWED = ("total_steps", "data.train.parts.texts.weight")


def config(root, steps, weight):
    config = get_config()
    config.total_steps, config.checkpoint.every = steps, 100
    config.evals = {}
    source = {"kind": "folder", "root": str(root), "captions": "captions.jsonl"}
    config.data.train = {
        "kind": "mixture",
        "parts": {
            "pairs": {"source": source, "transform": "decode", "weight": 3.0},
            "texts": {"source": source, "weight": weight},
        },
    }
    config.data.transform = "choose_caption | tokenize(12)"
    return config.lock()


def test_a_run_whose_weights_change(tmp_path, capsys):
    root, workdir = tmp_path / "pictures", tmp_path / "run"
    write_folder(root)
    rising, falling = ((0, 0.0), (2, 3.0)), ((0, 3.0), (6, 0.0))
    with workdir_lock.held(workdir):
        preflight.preflight(config(root, 3, rising), workdir)
    said = capsys.readouterr().out
    for place in ("data.train.parts.pairs.source: 24 ex", "data.train: 48 examples of the mixture"):
        assert place in said

    train(config(root, 3, rising), workdir)
    with pytest.raises(CheckpointError, match="allow_change=data.train.parts.texts.weight,t"):
        train(config(root, 6, falling), workdir)
    capsys.readouterr()
    train(config(root, 6, falling), workdir, ALLOWED)
    assert "from the next step on" in capsys.readouterr().out
    saved = json.loads((workdir / "checkpoints" / "6" / "run" / "metadata").read_text())
    assert [step for step, _ in saved["mixture_weights"]] == [0, 3]
    assert saved["parts"] == {"pairs": 24, "texts": 24}
    for step in (3, 4):
        replay.replay(workdir, step)
        assert "the exact batch that was trained on" in capsys.readouterr().out
