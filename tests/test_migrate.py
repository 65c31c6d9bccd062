"""Checkpoints that the code before one Attention wrote: tests/golden/make_format1.py."""

import hashlib
import importlib.util
import json
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util
from flax.core import meta
from tiny_clip import write_folder

from mmjax import config as configs
from mmjax import evaluate, sharding, train
from mmjax.models import systems
from mmjax.optim import tree_paths
from mmjax.run.open_run import open_run
from mmjax.workdir import migrate
from mmjax.workdir.checkpoint import Checkpoints

GOLDEN = Path(__file__).parent / "golden"
SPEC = importlib.util.spec_from_file_location("make_format1", GOLDEN / "make_format1.py")
MODELS = np.load(GOLDEN / "format1" / "models.npz")
NAMES = sorted({name.split("/")[0] for name in MODELS})


def of_case(name, part):
    start = f"{name}/{part}/"
    return {k.removeprefix(start): MODELS[k] for k in MODELS if k.startswith(start)}


def old_params(name):
    """Path in format 1 -> values."""
    maker = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(maker)
    shapes = json.loads(str(MODELS[f"{name}/shapes"]))
    return {path: maker.values(path, tuple(shape)) for path, shape in shapes.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_format_1_gives_what_it_gave(name):
    config = configs.defaults()
    with config.unlocked(), config.ignore_type():
        config.model = json.loads(str(MODELS[f"{name}/model"]))
    model, batch = systems.make_system(config).model, of_case(name, "batch")
    target = meta.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"]))
    old = old_params(name)
    made = migrate.moves({f"params/{k}": x.shape for k, x in old.items()}, 1, "checkpoint")
    assert {k: move.shape for k, move in made.items()} == tree_paths.shapes({"params": target})
    restored = {"params": traverse_util.unflatten_dict(old, sep="/")}
    params = migrate.make({"params": on_one_device(target)}, made, restored)["params"]
    apply = jax.jit(lambda p, b: model.apply({"params": p}, b)).lower(params, batch)
    quick = {"xla_backend_optimization_level": 0}  # to compile
    found = apply.compile(compiler_options=quick)(params, batch)
    for output, expected in of_case(name, "outputs").items():
        tolerance = 1e-5 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(found[output], expected, rtol=0, atol=tolerance)


def on_one_device(tree):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), tree)


# ---- a workdir


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A run's folder as the old code left it; the config's paths are relative to its parent."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "images")
    with tarfile.open(GOLDEN / "format1" / "run.tar.xz") as tar:
        tar.extractall(tmp_path / "run", filter="data")
    return tmp_path / "run"


def digests(folder):
    files = (x for x in sorted(folder.rglob("*")) if x.is_file())
    return {str(x.relative_to(folder)): hashlib.md5(x.read_bytes()).hexdigest() for x in files}


def test_a_run_of_format_1_goes_on_as_it_did(workdir, monkeypatch):
    """The losses of the steps behind it are those of the old code; the old files stay."""
    before = digests(workdir / "checkpoints" / "2")
    saves = Checkpoints(workdir, read_only=True)
    assert "format" not in saves.run(2)
    config = configs.from_json(saves.run(2)["config"])
    saves.close()
    monkeypatch.setattr(evaluate, "finish", lambda *_: {})
    train.train(config, workdir)
    lines = [json.loads(s) for s in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {m["step"]: m["train/loss"] for m in lines if "train/loss" in m}
    losses = json.loads((GOLDEN / "format1" / "losses.json").read_text())
    assert set(found) == {3, 4}
    for step, loss in found.items():
        np.testing.assert_allclose(loss, losses[str(step)], rtol=1e-4)
    assert digests(workdir / "checkpoints" / "2") == before
    saves = Checkpoints(workdir, read_only=True)
    assert saves.run(4)["format"] == migrate.FORMAT
    names = saves.shapes(4)
    assert names == saves.shapes(2) and "params/caption_pool/attention/key_value/kernel" in names
    saves.close()


def test_its_parameters_are_read_onto_any_mesh(workdir):
    read = {}
    for mesh in ("{'data': 8, 'fsdp': 1, 'tensor': 1}", "{'data': 2, 'fsdp': 2, 'tensor': 2}"):
        run, variables, _ = open_run(workdir, 2, [f"mesh={mesh}"])
        params = variables["params"]
        for x, want in zip(jax.tree.leaves(params), jax.tree.leaves(run.params), strict=True):
            assert x.sharding.is_equivalent_to(want.sharding, x.ndim)
        read[mesh] = jax.tree.map(np.asarray, params)
    jax.tree.map(np.testing.assert_array_equal, *read.values())


# ---- the table


QKV = "text/decoder/stack/layers/attention/qkv/kernel"
POOL = "image/pool/key/kernel", "image/pool/value/kernel"


def state_shapes(**more):
    shapes = {f"params/{QKV}": (2, 16, 3, 4, 5), **{f"params/{p}": (16, 2, 8) for p in POOL}}
    moments = {f"opt_state/1/mu/{k.removeprefix('params/')}": s for k, s in shapes.items()}
    return shapes | moments | {"step": ()} | more


def test_the_optimizers_state_and_loras_additions_move_with_their_parameters():
    made = migrate.moves(state_shapes(**{f"params/lora/{QKV}/b": (2, 7, 3, 4, 5)}), 1, "")
    for start in ("params", "opt_state/1/mu"):
        assert made[f"{start}/{QKV}"].shape == (2, 16, 4, 3, 5)
        pair = made[f"{start}/image/pool/attention/key_value/kernel"]
        assert pair.old == tuple(f"{start}/{p}" for p in POOL) and pair.shape == (16, 2, 2, 8)
    assert made[f"params/lora/{QKV}/b"].swapped


def test_the_moving_average_gets_todays_name():
    made = migrate.moves({"ema_params/image/norm/scale": (3,)}, 1, "")
    assert made["average/image/norm/scale"].old == ("ema_params/image/norm/scale",)


def test_arrays_on_disk_are_split_as_those_of_today():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    made = migrate.moves(state_shapes(), 1, "")
    names = {QKV: (None, "embed", "qkv", "heads", "head_dim")}
    names["image/pool/attention/key_value/kernel"] = ("embed", "qkv", "heads", "head_dim")
    target = {
        f"params/{k}": jax.ShapeDtypeStruct(
            made[f"params/{k}"].shape, "float32", sharding=sharding.named(mesh, *axes)
        )
        for k, axes in names.items()
    }
    old = migrate.old_targets(target, made, "")
    spec = {k: tuple(x.sharding.spec) for k, x in old.items()}
    assert spec[f"params/{QKV}"] == (None, "fsdp", "tensor", None, None)
    assert {spec[f"params/{p}"] for p in POOL} == {("fsdp", "tensor", None)}
    assert old[f"params/{POOL[0]}"].shape == (16, 2, 8)
    assert old[f"params/{QKV}"].shape == (2, 16, 3, 4, 5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({f"opt_state/1/v_row/{QKV}": (2, 16, 3, 4)}, "is not of the shape of its parameter"),
        ({"params/lora/image/pool/key/kernel/a": (16, 3)}, "one of two maps that are one map now"),
    ],
)
def test_what_cannot_be_migrated_is_refused(more, message):
    made = migrate.moves(state_shapes(**more), 1, "checkpoint x")
    target = {k: jax.ShapeDtypeStruct(m.shape, "float32") for k, m in made.items()}
    with pytest.raises(ValueError, match=f"checkpoint x is of format 1.*{message}"):
        migrate.old_targets(target, made, "checkpoint x")


def test_a_later_format_is_refused():
    with pytest.raises(ValueError, match="has format 9, and this version of mmjax reads up to 2"):
        migrate.moves({}, 9, "checkpoint x")
