"""The classes of a run are matched by name with its head, its checkpoint and every source.

The truth is in the folders' names: an image of a color is in the folder of that color, and the
published head gives its name, so that every accuracy is 1.
"""

import json
import shutil

import commands
import headed_vit
import pytest
import toy

from mmjax import pretrained
from mmjax.data.open_source import open_source
from mmjax.data.source import Source
from mmjax.run import labels
from mmjax.workdir.checkpoint import Checkpoints
from mmjax.workdir.metrics import read_metrics

HEAD = list(headed_vit.COLORS)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    headed_vit.write_model(root / "model")
    headed_vit.write_folder(root / "train", ["blue", "green", "red"])
    headed_vit.write_folder(root / "few", ["green", "red"])
    headed_vit.write_folder(root / "others", ["green", "violet", "yellow"])
    return root


@pytest.fixture(scope="module")
def trained(root):
    config = f"{headed_vit.__file__}:{root}"
    done = commands.run("-m", "mmjax.train", f"--config={config}", f"--workdir={root / 'run'}")
    assert done.returncode == 0, done.stderr
    return root / "run"


def results(workdir):
    return json.loads((workdir / "run.json").read_text())["results"]["values"]


def test_a_published_head_is_trained_and_evaluated_by_name(root, trained):
    (first, *_) = [row for row in read_metrics(trained) if "train/loss" in row]
    assert first["train/accuracy"] == 1.0  # labels of training, before the head could adapt
    found = results(trained)
    for name in ("few/top1", "others/top1", "loss/accuracy", "knn/top1", "linear_probe/top1"):
        assert found[name] == 1.0, name
    start = json.loads((trained / "run.json").read_text())["start"]["values"]
    assert start["few/top1"] == 1.0
    assert "yellow" in (trained / "report.html").read_text()
    # The run's own readers use the same names.
    assert list(pretrained.describe(trained).class_names) == HEAD
    pretrained.save_pretrained(pretrained.load(trained), root / "saved")
    again = json.loads((root / "saved" / "config.json").read_text())
    assert list(again["id2label"].values()) == HEAD


def test_the_checkpoint_is_evaluated_by_name(root, trained):
    headed_vit.write_folder(root / "again", ["blue", "yellow"])
    more = [f"--config.evals.{n}.source.root={root / 'again'}" for n in ("few", "others")]
    done = commands.run("-m", "mmjax.evaluate", f"--workdir={trained}", *more)
    assert done.returncode == 0, done.stderr
    found = results(trained)
    assert found["few/top1"] == found["others/top1"] == found["knn/top1"] == 1.0


def test_replay_numbers_the_labels_as_training_did(trained):
    done = commands.run("-m", "mmjax.replay", f"--workdir={trained}", "--step=1")
    assert done.returncode == 0, done.stderr
    assert "the exact batch that was trained on (all checksums agree)" in done.stdout
    keys = [line.split()[3:] for line in done.stdout.splitlines() if ".png" in line]
    assert len(keys) == 10
    for key, caption in keys:
        assert key.split("/")[0] == caption


def open_folder(path, tmp_path):
    return open_source({"kind": "folder", "root": path, "data_dir": tmp_path}, workdir=tmp_path)


def test_a_run_resumes_with_the_classes_that_it_had(root, trained, tmp_path):
    saves = Checkpoints(trained, read_only=True)
    saved = saves.run(1)
    saves.close()
    assert saved["class_names"] == HEAD and saved["source_classes"] == ["blue", "green", "red"]
    run = toy.build(toy.config("vit"))
    source = labels.by_name(run, open_folder(root / "train", tmp_path), saved)
    assert source.class_names == HEAD
    assert [HEAD[source.meta(i)["label"]] for i in (0, 4, 8)] == ["blue", "green", "red"]
    shutil.copytree(root / "train", tmp_path / "changed")
    (tmp_path / "changed" / "blue").rename(tmp_path / "changed" / "yellow")
    changed = open_folder(tmp_path / "changed", tmp_path)
    with pytest.raises(ValueError, match="have changed .*: 'blue' missing; 'yellow' new. Restore"):
        labels.by_name(run, changed, saved)
    allowed = labels.by_name(run, changed, saved, ["data.train"])
    assert HEAD[allowed.meta(11)["label"]] == "yellow"
    (tmp_path / "changed" / "red").rename(tmp_path / "changed" / "pink")
    with pytest.raises(
        ValueError, match="'pink' of .* is not among those of this run's checkpoint"
    ):
        labels.by_name(run, open_folder(tmp_path / "changed", tmp_path), saved, ["data.train"])
    # Those of another system are captions at most; changed ones are refused all the same.
    unlabeled = toy.build(toy.config("clip"))
    same = open_folder(root / "train", tmp_path)
    assert labels.by_name(unlabeled, same, saved) is same
    with pytest.raises(ValueError, match="have changed"):
        labels.by_name(unlabeled, changed, saved)


class Named(Source):
    """Without examples."""

    name = "named"

    def __init__(self, names):
        self.class_names = names

    def __len__(self):
        return 0


def start_from(path, only=(), system="vit"):
    return toy.build(toy.config(system, init_from={"path": str(path), "only": only}))


def test_a_start_from_a_head_takes_its_classes(root, trained):
    for path in (root / "model", trained):
        run = start_from(path)
        for names in (HEAD, ["green", "red"], None):
            assert labels.by_name(run, Named(names), None).class_names == HEAD
        pink = Named(["green", "pink"])
        said = "'pink' of named is not among those of the head of .* For a new head, leave it out"
        with pytest.raises(ValueError, match=said):
            labels.by_name(run, pink, None)
        # The tower alone has no classes.
        assert labels.by_name(start_from(path, ("norm/.*",)), pink, None) is pink
        assert labels.by_name(start_from(path, system="clip"), pink, None) is pink
    pink = Named(["pink"])
    assert labels.by_name(start_from(headed_vit.GOLDEN), pink, None) is pink  # LABEL_0 to LABEL_4
    assert labels.by_name(toy.build(toy.config("vit")), pink, None) is pink
    with pytest.raises(ValueError, match="there is no 'nowhere'"):
        labels.by_name(start_from("nowhere"), pink, None)
