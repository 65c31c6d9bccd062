"""Labels for images, by the real command and by its parts."""

import json
import os
import shutil
from pathlib import Path

import commands
import numpy as np
import odd_names
import pytest
from png import png
from safetensors.numpy import load_file, save_file
from tiny_index import MODEL, draw

from mmjax import zero_shot, zero_shot_calibration
from mmjax.embedder import Embedder, open_embedder


def run(*args):
    return commands.run("-m", "mmjax.zero_shot", *args, f"--model={MODEL}")


def test_json_lines_hold_the_softmax_of_the_averaged_prompts(tmp_path):
    for i in range(9):
        draw(tmp_path / "some" / f"{i}.png", i)
    (tmp_path / "some" / "4.png").write_bytes(png(1, 1))
    draw(tmp_path / "z.tif", 9)
    odd_names.write(tmp_path / "some", (tmp_path / "z.tif").read_bytes(), b"z\xe9\n.tif")
    templates = ("a {}", "the {} there")
    done = run(
        tmp_path / "some", "--labels=dog, red,,dog", "--top=5", "--json", "--templates", *templates
    )
    assert done.returncode == 0, done.stderr
    assert "warning: left out 1 repeated and 1 empty labels" in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    odd = os.fsdecode(b"z\xe9\n.tif")
    assert [Path(r["path"]).name for r in rows] == [*(f"{i}.png" for i in range(9)), odd]
    assert "has 1 x 1 pixels" in rows[4]["error"]

    embedder = open_embedder(MODEL, sizes=(4,))
    prompts = embedder.texts([t.replace("{}", n) for n in ("dog", "red") for t in templates])
    called = dict(zero_shot.zero_shot(MODEL, ("dog", "red"), [Path(rows[0]["path"])], templates))
    shown = {x["label"]: x["share"] for x in rows[0]["labels"]}
    assert dict(zip(("dog", "red"), called[Path(rows[0]["path"])])) == pytest.approx(
        shown, abs=1e-5
    )
    weights = prompts.reshape(2, 2, -1).mean(axis=1)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    for row in rows[:4] + rows[5:]:
        image = embedder.images([embedder.prepare(Path(row["path"]).read_bytes())])[0]
        shares = np.exp(embedder.logit_scale * (weights @ image))
        shares /= shares.sum()
        expected = dict(zip(("dog", "red"), shares))
        assert {x["label"]: x["share"] for x in row["labels"]} == pytest.approx(expected, abs=1e-4)
        assert row["labels"][0]["share"] >= row["labels"][1]["share"]


def test_a_table_and_one_sentence_where_nothing_can_be_read(tmp_path):
    draw(tmp_path / "a.png", 0)
    (tmp_path / "b.png").write_bytes(b"hello")
    (tmp_path / "c.heic").write_bytes(b"hello")
    odd_names.write(tmp_path, (tmp_path / "a.png").read_bytes(), b"a\xe9\n.png")
    done = run(tmp_path, "--labels=dog,red", "--top=1")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0].split() == ["image", "label", "probability"]
    assert len(lines) == 3 and lines[1].split()[1] in ("dog", "red")
    assert r"a\udce9\n.png" in lines[2]
    assert "1 of 3 images cannot be read" in done.stderr and "b.png: 5 bytes" in done.stderr
    assert f"{tmp_path}: skipped 1 .heic (no image formats that are read)" in done.stderr
    for path in tmp_path.glob("a*"):
        path.unlink()
    done = run(tmp_path, "--labels=dog")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: None of the 1 images can be read: see above."


def test_labels_and_templates_in_each_way_they_are_given(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("a red, round thing\n\nдом\n a red, round thing\n")
    assert zero_shot.read_labels(str(file)) == ["a red, round thing", "дом"]
    file.write_bytes("\ufeffcat\r\nа\u2028б\n".encode())
    assert zero_shot.read_labels(str(file)) == ["cat", "а\u2028б"]
    file.write_bytes("cat\nà".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels.txt, line 2, is not UTF-8"):
        zero_shot.read_labels(str(file))
    assert zero_shot.read_labels(" cat,dog ,cat,") == ["cat", "dog"]
    with pytest.raises(ValueError, match="There is no file of labels 'label.txt'"):
        zero_shot.read_labels("label.txt")
    for empty in ("", " , ,"):
        with pytest.raises(ValueError, match="are empty: write them as"):
            zero_shot.read_labels(empty)
    assert zero_shot.read_templates(["plain"]) == ("{}",)
    assert zero_shot.read_templates(["a {}", "the {}"]) == ("a {}", "the {}")
    with pytest.raises(ValueError, match="has no {}, or several"):
        zero_shot.read_templates(["photos"])


def test_a_sigmoid_model_judges_each_label_by_itself():
    embedder = object.__new__(Embedder)
    embedder.logit_scale, embedder.logit_bias = 10.0, -2.0
    shares = embedder.probabilities(np.asarray([[0.2, 0.5, -1.0]]))
    np.testing.assert_allclose(shares, 1 / (1 + np.exp(-np.asarray([[0.0, 3.0, -12.0]]))))


def test_a_calibration_is_fitted_to_folders_and_says_what_not_to_trust(tmp_path):
    for name in ("dog", "red"):
        for i in range(6):
            draw(tmp_path / "known" / name / f"{i}.png", i + 6 * (name == "red"))
    file = tmp_path / "calibration.json"
    # Refused before an image or a model is read.
    known = ("-m", "mmjax.zero_shot", "--model=gone", f"--fit={file}", tmp_path / "known")
    for labels, coverage, message in (
        ("dog,red", 2, "--coverage is 2"),
        ("dog", 1, "folder 'red'"),
    ):
        done = commands.run(*known, f"--labels={labels}", f"--coverage={coverage}")
        assert done.returncode == 2 and message in done.stderr, done.stderr
    done = run(tmp_path / "known", "--labels=dog,red", f"--fit={file}", "--coverage=0.5")
    assert done.returncode == 0, done.stderr
    assert "for 50 % of 12 images" in done.stdout
    done = run(tmp_path / "known", "--labels=dog,red", f"--calibration={file}", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    fitted = json.loads(file.read_text())
    for row in rows:
        given, calibrated = (np.asarray([x[k] for x in row["labels"]]) for k in KINDS)
        # Of two labels the logits' difference is divided by the temperature.
        odds = np.log(given[0] / given[1]) / fitted["temperature"]
        assert calibrated[0] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-5)
        assert calibrated.sum() == pytest.approx(1)
        assert row["abstain"] == bool(calibrated[0] < fitted["threshold"])
        assert row["coverage"] == 0.5
    assert sum(not row["abstain"] for row in rows) in (6, 7)  # of equal ones more
    done = run(tmp_path / "known", "--labels=dog,blue", f"--calibration={file}")
    assert done.returncode == 2 and "was fitted with the labels 'dog, red'" in done.stderr


KINDS = ("share", "calibrated")


def test_an_ensemble_of_models_says_how_far_they_disagree(tmp_path):
    # The same model with a lower temperature: as sure of the same labels, less or more.
    other = shutil.copytree(MODEL, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["logit_scale"] = np.asarray(tensors["logit_scale"] - np.float32(2))
    save_file(tensors, other / "model.safetensors")
    draw(tmp_path / "some" / "a.png", 0)
    done = run(tmp_path / "some", "--labels=dog,red", "--json", "--members", other)
    assert done.returncode == 0, done.stderr
    (row,) = (json.loads(line) for line in done.stdout.splitlines())
    paths, labels = [tmp_path / "some" / "a.png"], ("dog", "red")
    p = np.stack(
        [dict(zero_shot.zero_shot(m, labels, paths, ("{}",)))[paths[0]] for m in (MODEL, other)]
    )
    shown = {x["label"]: (x["share"], x["deviation"]) for x in row["labels"]}
    for i, label in enumerate(labels):
        assert shown[label] == pytest.approx((p[:, i].mean(), p[:, i].std()), abs=1e-5)
    entropy = -(p * np.log(p)).sum(1).mean(), -(p.mean(0) * np.log(p.mean(0))).sum()
    assert row["mutual_information"] == pytest.approx(entropy[1] - entropy[0], abs=1e-5)
    assert row["mutual_information"] > 0
    opened = [open_embedder(model, sizes=(1,)) for model in (MODEL, other)]
    zero_shot.check_different((MODEL, other), opened)
    with pytest.raises(ValueError, match="are the same model: give each member .* once"):
        zero_shot.check_different((MODEL, other, "link"), [*opened, opened[1]])
    done = run(tmp_path / "some", "--labels=dog,red", "--members", other, "--fit=a.json")
    assert done.returncode == 2 and "A calibration is of one model" in done.stderr


def test_files_that_are_no_calibration_are_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no calibration"):
        zero_shot_calibration.load(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"temperature": 0}')
    with pytest.raises(ValueError, match="was not written by --fit: it has no 'threshold'"):
        zero_shot_calibration.load(tmp_path / "a.json")
    about = {"model": "x", "labels": ["dog"], "templates": ["{}"]}
    with pytest.raises(ValueError, match="is in the folder 'cat', which is none of the labels"):
        zero_shot_calibration.fit_to_folders(np.zeros((1, 1)), [Path("cat/1.png")], 0.8, **about)
    made = zero_shot_calibration.fit_to_folders(np.zeros((1, 1)), [Path("dog/1.png")], 1.0, **about)
    made.save(tmp_path / "a.json")
    assert zero_shot_calibration.load(tmp_path / "a.json") == made
    made.check("x", ["dog"], ["{}"])
    with pytest.raises(ValueError, match="the model 'x' and is used with 'y'"):
        made.check("y", ["dog"], ["{}"])
