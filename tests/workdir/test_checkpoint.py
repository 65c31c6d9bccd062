"""Checkpoints: bit for bit, onto other meshes, and after every kind of damage."""

import errno
import signal
from pathlib import Path

import commands
import jax
import numpy as np
import pytest
from train_states import (
    MESHES,
    OTHER,
    SHAPES,
    assert_identical,
    mesh_of,
    run_of,
    save,
    saved_run,
    state,
    target,
)

from mmjax.workdir import checkpoint
from mmjax.workdir.checkpoint import CheckpointError, Checkpoints, DamagedError, TreeMismatchError
from mmjax.workdir.checksum import checksums

# ---- whole ones


@pytest.mark.parametrize("shape", MESHES)
def test_restore_is_bit_for_bit_on_any_mesh(shape, tmp_path):
    """Written on 8 devices, read on 8, 4 x 2, 2 x 2 x 2 and 1."""
    save(tmp_path, 3)
    saves = Checkpoints(tmp_path)
    want = state(seed=99, mesh=mesh_of(shape))
    got = saves.restore(3, target(want))
    assert_identical(got, state(3))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert a.sharding == b.sharding
    kernel = got.params["image"]["mlp"]["kernel"]
    assert {s.data.shape for s in kernel.addressable_shards} == {
        (8 // shape.get("fsdp", 1), 4 // shape.get("tensor", 1))
    }
    assert saves.run(3) == saved_run(3)
    saves.close()


def test_split_state_comes_back_whole(tmp_path):
    save(tmp_path, 3, mesh=mesh_of(MESHES[2]))
    saves = Checkpoints(tmp_path)
    assert_identical(saves.restore(3, target(state(mesh=mesh_of(MESHES[3])))), state(3))


def test_the_newest_are_kept(tmp_path):
    save(tmp_path, 1, 2, 10, keep=2)
    saves = Checkpoints(tmp_path, keep=2)
    assert saves.steps() == [10, 2]
    assert sorted(p.name for p in saves.folder.iterdir() if p.is_dir()) == ["10", "2"]
    assert saves.newest_run()["step"] == 10
    assert saves.path(10).is_dir()
    saves.save(10, state(5), run_of(10))  # it is there: not written again
    saves.wait()
    assert_identical(saves.restore(10, target(state())), state(10))


def test_an_empty_workdir_has_none(tmp_path):
    saves = Checkpoints(tmp_path / "new")
    assert saves.steps() == []
    assert saves.newest_run() is None


def test_a_state_that_was_given_up_after_save_is_still_saved(tmp_path):
    """The train step donates its state while the writing goes on."""
    saves = Checkpoints(tmp_path)
    live = state(3)
    saves.save(3, live, run_of(3))
    advance = jax.jit(
        lambda s: jax.tree.map(lambda x: ~x if x.dtype == bool else x + x, s), donate_argnums=0
    )
    for _ in range(3):
        live = advance(live)
    jax.block_until_ready(live)
    saves.wait()
    assert_identical(saves.restore(3, target(state())), state(3))


# ---- another model


def test_another_model_is_refused_with_every_key(tmp_path):
    save(tmp_path, 1)
    saves = Checkpoints(tmp_path)
    other = target(state(shapes=OTHER))
    with pytest.raises(TreeMismatchError) as error:
        saves.restore(1, other)
    said = str(error.value)
    missing, extra, shape = (said.index(w) for w in ("missing: ", "extra: ", "other shape: "))
    assert missing < said.index("params/text/table") < extra
    assert extra < said.index("params/text/embedding") < shape
    assert "params/image/mlp/kernel [8, 4] (the model has [8, 12])" in said[shape:]
    assert "nu/image/mlp/kernel" in said[shape:]
    assert "bias" not in said
    with pytest.raises(TreeMismatchError, match="missing: average/text/table; other shape"):
        saves.restore_part(1, "average", other.params)
    assert_identical(saves.restore(1, target(state())), state(1))  # and it is still whole


def test_compare():
    checkpoint.compare({"a": (1,)}, {"a": (1,)}, "x")
    with pytest.raises(TreeMismatchError, match=r"extra: b\.$"):
        checkpoint.compare({"a": (1,), "b": (2,)}, {"a": (1,)}, "x")


# ---- damage


def files(folder):
    return [p for p in sorted(Path(folder).rglob("*")) if p.is_file()]


@pytest.mark.parametrize("how", ["no metadata", "no run", "garbled run", "half the numbers"])
def test_damaged_newest_is_put_aside_and_the_one_before_used(how, tmp_path, capsys):
    save(tmp_path, 1, 2)
    newest = tmp_path / "checkpoints" / "2"
    if how == "half the numbers":
        broken = [p for p in files(newest / "state") if "/d/" in str(p)]
    else:
        broken = files(newest / ("state" if "metadata" in how else "run"))
    assert broken
    for path in broken:
        if "half" in how:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            path.unlink() if how.startswith("no") else path.write_bytes(b"\x00{]")
    left = {p.relative_to(newest): p.read_bytes() for p in files(newest)}
    saves = Checkpoints(tmp_path)
    run, got = saves.restore_newest(target(state()))
    assert run == saved_run(1)
    assert_identical(got, state(1))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    for words in (f"warning: The checkpoint {newest} is damaged (", "2.damaged", "from step 1"):
        assert words in said[0]
    assert saves.steps() == [1]
    aside = tmp_path / "checkpoints" / "2.damaged"
    assert {p.relative_to(aside): p.read_bytes() for p in files(aside)} == left
    saves.save(2, state(2), run_of(2))  # its place is free again
    saves.close()
    again = Checkpoints(tmp_path)
    assert_identical(again.restore_newest(target(state()))[1], state(2))
    assert aside.is_dir()


LARGE = {**SHAPES, "text": {"embedding": (16, 4096)}}  # too large to lie among the indexes


def test_no_flipped_bit_is_restored_unseen(tmp_path):
    """In every file of a checkpoint: it is found, or it has changed nothing."""
    fields = {"shapes": LARGE, "ema": False, "mesh": mesh_of({"data": 1})}
    save(tmp_path, 1, **fields)
    want = state(1, **fields)
    rng, found = np.random.default_rng(0), set()
    folder = tmp_path / "checkpoints" / "1"
    saves = Checkpoints(tmp_path)
    for path in files(folder):
        whole = path.read_bytes()
        for _ in range(2 if len(whole) > 10_000 else min(1, len(whole))):
            data = bytearray(whole)
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            path.write_bytes(data)
            try:
                run, got = saves.restore_newest(target(want))
            except CheckpointError as error:
                assert "is damaged" in str(error) and str(folder) in str(error)
                found.add(path.relative_to(folder).parts[:2])
            else:
                assert run == saved_run(1)
                assert_identical(got, want)
        path.write_bytes(whole)
    numbers, indexes = ("state", "ocdbt.process_0"), ("state", "d")
    assert {numbers, indexes, ("run", "metadata"), ("state", "manifest.ocdbt")} <= found


def test_numbers_that_read_well_and_are_wrong_are_found(tmp_path, monkeypatch):
    """Damage that no file format sees: between the device and the disk, or on the way back."""
    saves = Checkpoints(tmp_path)
    right, wrong = state(1), state(2)
    monkeypatch.setattr(checkpoint, "checksums", lambda tree: checksums(right))
    saves.save(1, wrong, run_of(1))
    saves.wait()
    monkeypatch.undo()
    how = r"checkpoints/1 is damaged \(\d+ of \d+ arrays are not as saved, the first "
    with pytest.raises(DamagedError, match=how):
        saves.restore(1, target(state()))
    with pytest.raises(DamagedError, match=how + "average/"):
        saves.restore_part(1, "average", target(state().params))


def test_a_checkpoint_from_before_there_were_checksums_is_restored(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_sealed", lambda run: saved_run(1))
    save(tmp_path, 1)
    monkeypatch.undo()
    run, got = Checkpoints(tmp_path).restore_newest(target(state()))
    assert run == saved_run(1)
    assert_identical(got, state(1))


def test_all_damaged_is_an_error_and_stays_one(tmp_path):
    """The next start must not take an emptied folder for a new run."""
    save(tmp_path, 1, 2)
    for at in "12":
        for path in files(tmp_path / "checkpoints" / at / "run"):
            path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="No checkpoint in .* can be used.*none was chan"):
            Checkpoints(tmp_path).newest_run()
        with pytest.raises(CheckpointError, match="No checkpoint in .* can be used"):
            Checkpoints(tmp_path).restore_newest(target(state()))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_reading_leaves_a_save_under_way_alone(tmp_path):
    save(tmp_path, 1)
    under_way = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    under_way.mkdir()
    assert Checkpoints(tmp_path, read_only=True).steps() == [1]
    assert under_way.is_dir()


KILLED = """
import os, signal, sys, threading
sys.path[:0] = ["tests", "tests/helpers"]
import conftest
import train_states as t
from etils import epath
import orbax.checkpoint as ocp

workdir = sys.argv[1]
t.save(workdir, 1)
# Kill the process where the finished folder would get its name.
for cls in {type(epath.Path(workdir)), *type(epath.Path(workdir)).__mro__}:
    for name in ("rename", "replace"):
        if name in vars(cls):
            setattr(cls, name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
os.rename = os.replace = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
t.save(workdir, 2)
"""


def test_kill_in_the_middle_of_a_save_leaves_the_one_before(tmp_path):
    done = commands.run("-c", KILLED, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert any(name.startswith("2") and name != "2" for name in left), left
    saves = Checkpoints(tmp_path)
    assert saves.steps() == [1]
    assert saves.newest_run()["step"] == 1
    assert_identical(saves.restore(1, target(state())), state(1))
    saves.save(2, state(2), run_of(2))
    saves.close()
    assert Checkpoints(tmp_path).newest_run()["step"] == 2


# ---- a full disk


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_names_the_last_good_one_which_survives(tmp_path, monkeypatch):
    saves = Checkpoints(tmp_path)
    saves.save(1, state(1), run_of(1))
    saves.wait()
    with monkeypatch.context() as patch:
        import orbax.checkpoint as ocp

        patch.setattr(ocp.JsonCheckpointHandler, "async_save", full)
        with pytest.raises(CheckpointError) as error:
            saves.save(2, state(2), run_of(2))
            saves.save(3, state(3), run_of(3))  # finds that 2 was not written
    said = str(error.value)
    assert said.startswith("Checkpoint 2 could not be written")
    assert "No space left on device" in said
    assert f"the last good one is {tmp_path / 'checkpoints' / '1'}" in said
    fresh = Checkpoints(tmp_path)
    assert fresh.steps() == [1]
    assert_identical(fresh.restore(1, target(state())), state(1))
    fresh.save(2, state(2), run_of(2))  # there is room again
    fresh.close()
    assert Checkpoints(tmp_path).newest_run()["step"] == 2


def test_full_disk_at_the_first_save(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    saves = Checkpoints(tmp_path)
    monkeypatch.setattr(ocp.JsonCheckpointHandler, "async_save", full)
    with pytest.raises(CheckpointError, match="No space left on device.*none is saved"):
        saves.save(1, state(1), run_of(1))
        saves.wait()


def test_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Cannot use the workdir .*file"):
        Checkpoints(tmp_path / "file")


def test_a_workdir_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"workdir '.*caf\\udce9' is not UTF-8: rename it"):
        Checkpoints(tmp_path / "caf\udce9")
