"""Fine-tuning by the real commands: a published folder, then LoRA on that run, then mixtures."""

import json
import re
from pathlib import Path

import commands
import jax
import numpy as np
import pytest
import toy
from tiny_clip import write_folder

from mmjax import config as configs
from mmjax import interpolate, pretrained
from mmjax.run import experiment, initial
from mmjax.run.open_run import open_run
from mmjax.workdir import checkpoint

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "tests" / "golden" / "clip"
SMALL = ["batch_size=8", "total_steps=4", "log_every=1", "checkpoint.every=4"]
FIGURES = ["--target=held_out/text_to_image/recall@1", "--retained=held_out/text_to_image/mrr"]


def run(module, *arguments, fails=False):
    done = commands.run("-m", f"mmjax.{module}", *arguments)
    assert done.returncode == (2 if fails else 0), done.stdout + done.stderr
    return done.stderr.strip() if fails else done.stdout


def train(weights, workdir, pictures, *more):
    settings = [f"--config.{s}" for s in (*SMALL, f"data.train.source.root={pictures}", *more)]
    return run(
        "train", f"--config=configs/finetune_folder.py:{weights}", f"--workdir={workdir}", *settings
    )


def flat(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x) for p, x in leaves}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A full fine-tuning of the published CLIP, and LoRA on that run."""
    root = tmp_path_factory.mktemp("finetune")
    write_folder(root / "pictures", count=80)
    said = train(CLIP, root / "full", root / "pictures", "optim.learning_rate=1e-2")
    targets = "lora.targets=('.*/attention/.*/kernel',)"
    said_lora = train(
        root / "full", root / "lora", root / "pictures", targets, "optim.learning_rate=1e-2"
    )
    return root, said, said_lora


def test_a_published_folder_is_tuned_and_compared_with_itself(runs):
    root, said, _ = runs
    assert "a published 'clip':" in said
    assert "taken   image/class_token" in said
    assert "kept" not in said
    assert "before and after training" in said
    found = json.loads((root / "full" / "run.json").read_text())
    start, end = found["start"], found["results"]
    assert start["evaluators"] == end["evaluators"]
    assert start["values"].keys() == end["values"].keys() == end["change"].keys()
    for name, value in start["values"].items():
        assert end["change"][name] == end["values"][name] - value
    assert any(end["change"].values())
    report = (root / "full" / "report.html").read_text()
    assert "before training" in report and ">change</th>" in report
    rows = [json.loads(x) for x in (root / "full" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["step"] == 0

    tuned, base = pretrained.load(root / "full"), pretrained.load(CLIP)
    assert tuned.config == {**base.config, "dtype": "float32"}
    assert tuned.tokenizer.encode(["a b"], 12)[0].tolist() == (
        base.tokenizer.encode(["a b"], 12)[0].tolist()
    )
    assert tuned.transform == base.transform


def test_lora_is_merged_where_the_run_is_read_and_saved(runs, tmp_path):
    root, _, said = runs
    saves = checkpoint.Checkpoints(root / "lora", read_only=True)
    start, merged = pretrained.load(root / "full"), pretrained.load(root / "lora")
    shapes = saves.shapes(4)
    saves.close()
    added = {k for k in shapes if k.startswith("params/lora/")}
    assert len(added) == 2 * 2 * 2
    assert sum(k.startswith("opt_state") and "attention" in k for k in shapes) == 2 * len(added)
    assert f", {sum(np.prod(shapes[k]) for k in added):,} trained" in (
        (root / "lora" / "parameters.txt").read_text()
    )
    before, after = flat(start.params), flat(merged.params)
    assert before.keys() == after.keys()
    for name in before:
        assert np.array_equal(before[name], after[name]) == (
            "/attention/" not in name or "bias" in name
        ), name
    # What is saved is the merged model, in the published layout.
    pretrained.save_pretrained(merged, tmp_path / "out")
    again = flat(pretrained.load(tmp_path / "out").params)
    for name, value in after.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    # The run's own words about its start are those of the run that it began from.
    ends = json.loads((root / "full" / "run.json").read_text())["results"]["values"]
    begins = json.loads((root / "lora" / "run.json").read_text())["start"]["values"]
    assert begins == pytest.approx(ends, abs=1e-6)


def test_mixtures_go_from_the_base_to_the_tuned_model(runs, tmp_path):
    root, _, _ = runs
    out = tmp_path / "curve"
    said = run(
        "interpolate",
        f"--tuned={root / 'full'}",
        f"--out={out}",
        *FIGURES,
        "--alphas=0,0.5,1",
        "--save=0.5",
        "--save_as=pretrained",
    )
    assert said.count("alpha ") == 3
    found = json.loads((out / "curve.json").read_text())
    results = json.loads((root / "full" / "run.json").read_text())
    names = [f.split("=")[1] for f in FIGURES]
    for row, values in (
        (found["rows"][0], results["start"]["values"]),
        (found["rows"][2], results["results"]["values"]),
    ):
        assert {k: row[k] for k in names} == pytest.approx({k: values[k] for k in names}, abs=1e-6)
    assert (out / "curve.md").read_text().count("\n") == 5
    assert "<svg" in (out / "curve.svg").read_text()

    base, tuned, half = (
        flat(pretrained.load(p).params) for p in (CLIP, root / "full", out / "alpha_0.5")
    )
    for name in base:
        np.testing.assert_allclose(half[name], (base[name] + tuned[name]) / 2, atol=1e-7)

    opened, given, step = open_run(root / "lora")
    interpolate.save_workdir(opened, given, step, tmp_path / "saved", {"alpha": 1.0})
    again = pretrained.load(tmp_path / "saved")
    want = flat(pretrained.load(root / "lora").params)
    for name, value in flat(again.params).items():
        np.testing.assert_array_equal(value, want[name], err_msg=name)
    assert again.tokenizer.fingerprint == opened.tokenizer.fingerprint
    with pytest.raises(ValueError, match="holds a run already"):
        interpolate.save_workdir(opened, given, step, tmp_path / "saved", {"alpha": 1.0})


def test_mix_is_linear_and_exact_at_both_ends():
    rng = np.random.default_rng(0)
    a, b = ({"x": rng.normal(size=(3, 4)).astype(np.float32)} for _ in range(2))
    assert np.array_equal(interpolate.mix(a, b, 0.0)["x"], a["x"])
    assert np.array_equal(interpolate.mix(a, b, 1.0)["x"], b["x"])
    np.testing.assert_allclose(interpolate.mix(a, b, 0.3)["x"], 0.7 * a["x"] + 0.3 * b["x"], 1e-6)
    with pytest.raises(ValueError, match=r"alpha is 1.2: use one from 0 .* to 1"):
        interpolate.mix(a, b, 1.2)


def test_bad_mixtures_are_one_sentence(tmp_path):
    said = run(
        "interpolate",
        f"--tuned={tmp_path}",
        f"--out={tmp_path}",
        *FIGURES,
        "--alphas=0,1.5",
        fails=True,
    )
    assert said == "error: alpha is 1.5: use one from 0 (the base) to 1 (the tuned model)."


def test_another_model_is_refused(tmp_path):
    vit = toy.build(toy.config("vit"))
    saves = checkpoint.Checkpoints(tmp_path)
    state = {"params": toy.init(vit).params}
    saves.save(1, state, {"step": 1, "config": configs.to_json(vit.config), "tokenizer": {}})
    saves.close()
    with pytest.raises(ValueError, match=f"'{tmp_path}', a 'vit', has no text tower"):
        configs.load(f"{ROOT}/configs/finetune_folder.py:{tmp_path}")
    with pytest.raises(
        checkpoint.TreeMismatchError, match="of another model. missing: params/image"
    ):
        initial.parameters_from(tmp_path, toy.build(toy.config("clip")).params)


def test_published_weights_lie_on_the_mesh_of_the_run():
    mesh = ["mesh.data=4", "mesh.fsdp=2"]
    config = configs.load(f"{ROOT}/configs/finetune_folder.py:{CLIP}", mesh)
    run = experiment.build(config, None)
    found, report = initial.parameters_from(CLIP, run.params)
    assert "kept" not in report and "unused" not in report
    wanted = pretrained.load(CLIP).params
    for (path, got), want, lies in zip(
        jax.tree_util.tree_leaves_with_path(found), *map(jax.tree.leaves, (wanted, run.params))
    ):
        assert got.sharding == lies.sharding, path
        np.testing.assert_array_equal(got, want)
    some, _ = initial.parameters_from(CLIP, run.params, only=("image/.*",))
    assert isinstance(some["text"]["embedding"], jax.ShapeDtypeStruct)
    with pytest.raises(ValueError, match="there is no 'nowhere'"):
        initial.parameters_from("nowhere", run.params)


def test_the_settings_of_its_docstring_can_be_set():
    doc = (ROOT / "configs" / "finetune_folder.py").read_text().split('"""')[1]
    written = re.findall(r"--config\.([a-z_.]+=(?:\"[^\"]*\"|\S+))", doc)
    config = configs.load(
        f"{ROOT}/configs/finetune_folder.py:{CLIP}", [w.replace('"', "") for w in written]
    )
    assert config.optim.freeze == ("image/.*",)
    assert config.lora.targets == (".*/attention/.*/kernel",)
    for source in (config.data.train.source, config.evals.held_out.source.source):
        assert source.root == "IMAGES"
        assert source.captions == "results.csv" and source.multiple_captions is True


def test_a_config_with_an_argument_says_so():
    with pytest.raises(ValueError, match="takes an argument after a colon: .*:WEIGHTS"):
        configs.load(f"{ROOT}/configs/finetune_folder.py")
    with pytest.raises(ValueError, match="takes no argument"):
        configs.load(f"{ROOT}/configs/clip_emoji.py:x")
