"""Records of a run, read back by other readers than ours where there are any."""

import json
import math
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.workdir import metrics


def lines(workdir):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def writer(workdir, **options):
    return metrics.MetricWriter(workdir, **{"tensorboard": False, **options})


def events(folder):
    """(step, name, value) as another reader of the event-file format finds them."""
    from tensorboardX.proto import event_pb2

    found, purges = [], []
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):  # records: length, its crc, the event, its crc
            size = int.from_bytes(content[at : at + 8], "little")
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + size])
            at += 16 + size
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            if event.session_log.status == 1:  # START: a reader drops what is later
                purges.append(event.step)
    return found, purges


def test_jsonl_holds_what_was_written(tmp_path):
    w = writer(tmp_path / "new")
    w.write(1, {"train/loss": jnp.float32(0.5), "lr": 0.1, "n": np.int64(3)})
    w.write(2, {"train/loss": math.nan, "up": math.inf, "down": -math.inf})
    assert lines(tmp_path / "new") == [
        {"step": 1, "train/loss": 0.5, "lr": 0.1, "n": 3.0},
        {"step": 2, "train/loss": "NaN", "up": "Infinity", "down": "-Infinity"},
    ]
    rows = metrics.read_metrics(tmp_path / "new")
    assert rows[0] == {"step": 1, "train/loss": 0.5, "lr": 0.1, "n": 3.0}
    assert math.isnan(rows[1]["train/loss"]) and rows[1]["down"] == -math.inf


def test_tensorboard_holds_what_was_written(tmp_path):
    w = writer(tmp_path, tensorboard=True)
    w.write(5, {"train/loss": 0.5, "bad": math.nan, "eval/seen/recall@1": 0.25})
    w.close()
    want = [(5, "train/loss", 0.5), (5, "eval/seen/recall@1", 0.25)]
    assert events(tmp_path / "tensorboard")[0] == want


def test_rewind_forgets_later_steps_everywhere(tmp_path):
    w = writer(tmp_path, tensorboard=True)
    for step in (10, 20, 30):
        w.write(step, {"loss": float(step)})
    w.close()
    w = writer(tmp_path, tensorboard=True)
    w.rewind(20)
    assert [row["step"] for row in lines(tmp_path)] == [10, 20]
    w.write(21, {"loss": 21.0})
    w.close()
    assert [row["step"] for row in lines(tmp_path)] == [10, 20, 21]
    assert events(tmp_path / "tensorboard")[1] == [21]


@pytest.mark.parametrize("kept_bytes", [1, 10, 29])
def test_a_torn_last_line_is_cut(tmp_path, kept_bytes):
    w = writer(tmp_path)
    w.write(1, {"loss": 1.0})
    w.write(2, {"loss": 2.0})
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + min(kept_bytes, len(whole) - first - 1)])
    assert [row["step"] for row in metrics.read_metrics(tmp_path)] == [1]
    w = writer(tmp_path)
    w.write(2, {"loss": 2.5})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.5}]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2"):
        metrics.read_metrics(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "line 2, is no JSON object: delete that line"),
        ('{"train/loss": 1}', "line 2, has no 'step'"),
        ('{"step": true}', "line 2, has a 'step' that is no integer"),
        ('{"step": 2, "train/loss": [1]}', "step 2 has a value that is no number"),
        ("[" * 100_000, "line 2, is not JSON"),
    ],
)
def test_a_line_of_something_else_is_named(line, message, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        metrics.read_metrics(tmp_path)


def test_other_processes_write_nothing(tmp_path):
    w = writer(tmp_path / "run", tensorboard=True, process_index=1)
    w.write(1, {"loss": 1.0})
    w.rewind(0)
    w.close()
    assert not (tmp_path / "run").exists()
    assert metrics.read_metrics(tmp_path / "run") == []


def test_a_full_disk_is_one_sentence(tmp_path):
    w = writer(tmp_path)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(ValueError, match="Cannot write .*No space left on device"):
        w.write(1, {"loss": 1.0})


def test_tensorboard_is_imported_late():
    code = "import sys, mmjax.workdir.metrics; print('tensorboardX' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_window_means_each_name_over_its_steps():
    window = metrics.ScalarWindow()
    window.add({"loss": jnp.float32(1.0), "finite": jnp.bool_(True)})
    window.add({"loss": jnp.bfloat16(3.0), "finite": jnp.bool_(False), "rare": 5})
    assert window.mean() == {"loss": 2.0, "finite": 0.5, "rare": 5.0}
    assert window.mean() == {}


def test_a_step_in_which_no_row_had_a_term_does_not_count_for_its_mean():
    window = metrics.ScalarWindow()
    for value in (1.0, np.nan, 4.0):
        window.add({"masked_text": jnp.float32(value), "never": jnp.float32(np.nan)})
    assert window.mean() == {"masked_text": 2.5}  # what no step had is left out
