"""Several real processes on one machine: joining, waiting, sharing data, and ending together."""

import argparse
import json
import socket
import time

import commands
import jax
import numpy as np
import pytest
from contrastive_sharded import batch as pairs
from contrastive_sharded import gradients
from runs import ends, free_port
from tiny_clip import write_folder

from mmjax.process import distributed


@pytest.fixture(scope="module")
def meeting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_folder(folder, 32)
    where = f"--coordinator=localhost:{free_port()}"
    both = [
        commands.start(
            *("tests/helpers/meeting.py", where, "--num_processes=2", f"--process_id={i}", folder),
            devices=4,
        )
        for i in range(2)
    ]
    done = ends(both, timeout=120)
    lines = [line for _, out, _ in done for line in out.splitlines() if line.startswith("{")]
    assert len(lines) == 2, done
    return [json.loads(line) for line in lines], done


def test_processes_find_each_other_and_exchange_values(meeting):
    for found in meeting[0]:
        assert found["count"] == 2 and found["values"] == ["a", "b"]


def test_process_0_goes_first_and_the_others_find_what_it_made(meeting):
    assert [found["was_there"] for found in meeting[0]] == [False, True]


def test_the_rows_of_all_processes_are_exactly_the_epoch(meeting):
    first, second = (found["rows"] for found in meeting[0])
    whole = [a + b for a, b in zip(first, second)]
    assert sorted(i for batch in whole for i in batch) == list(range(32))
    # On the devices they lie as one process would have read them.
    assert meeting[0][0]["arrived"] == meeting[0][1]["arrived"] == whole


def test_the_rows_are_those_that_one_process_reads(meeting):
    from mmjax.data import pipeline
    from mmjax.data.source import Source

    class Numbers(Source):
        name, class_names = "numbers", None

        def __len__(self):
            return 32

        def __getitem__(self, index):
            return {}

    alone = pipeline.train_batches(Numbers(), lambda example, rng: {}, batch_size=8, seed=3)
    assert [next(alone)["example_id"].tolist() for _ in range(4)] == meeting[0][0]["arrived"]


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_ring_over_two_processes_equals_the_dense_loss_on_one_device(meeting, kind):
    x, y, ids = pairs(24)
    dense = gradients(kind, "dense", 24, 0.1)(x, y, np.float32(20), np.float32(-5), ids)
    for found in meeting[0]:
        for got, expected in zip(found[kind], jax.tree.leaves(dense), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_damage_that_one_process_meets_sends_all_to_the_checkpoint_before(meeting):
    for found in meeting[0]:
        assert found["restored"] == [1, True] and found["aside"]


def test_processes_that_share_rows_read_the_same(meeting):
    assert [found["share_of_tensor"] for found in meeting[0]] == [[0, 1], [0, 1]]


def test_values_that_differ_are_refused_by_host(meeting):
    for found in meeting[0]:
        assert found["same"] is None
        assert "the color" in found["other"] and "process 1 on " in found["other"]


def test_a_barrier_that_times_out_names_who_is_missing(meeting):
    sentence = meeting[0][0]["missing"]
    assert f"these did not come: process 1 on {socket.gethostname()};" in sentence
    assert "'a meeting'" in sentence


def test_a_process_that_fails_takes_the_others_with_it_and_they_say_why(meeting):
    (code, _, error), (code_of_failing, _, _) = meeting[1]
    assert code == code_of_failing == 2
    assert "process 1 on " in error and "the data ran out" in error
    assert "Traceback" not in error


def test_a_coordinator_that_is_not_there_is_one_sentence():
    call = (
        "import argparse; from mmjax.process import distributed; distributed.initialize("
        "argparse.Namespace(coordinator='localhost:{}', num_processes=2, process_id={}), timeout=2)"
    )
    # Each at an address of its own: neither meets the other.
    both = [commands.start("-c", call.format(free_port(), i)) for i in (1, 0)]
    lost, waiting = ends(both)
    assert lost[0] == 2 and "could not reach the coordinator localhost:" in lost[2], lost
    for code, _, error in (lost, waiting):
        assert code == 2 and len([x for x in error.splitlines() if x.startswith("error:")]) == 1
        assert "within 2 s" in error and "stack trace" not in error


def settings(coordinator=None, num_processes=None, process_id=None):
    return argparse.Namespace(
        coordinator=coordinator, num_processes=num_processes, process_id=process_id
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (settings(num_processes=2), "--coordinator"),
        (settings("somewhere"), "HOST:PORT"),
        (settings("a:1"), "--process_id"),
        (settings("a:1", 2, 2), "from 0 to 1"),
    ],
)
def test_incomplete_settings_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        distributed.initialize(given)


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "JAX_PLATFORMS": "cpu",
}
MPI = {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3", "JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize(
    ("environ", "cluster"),
    [
        ({"JAX_PLATFORMS": "cpu"}, None),
        ({}, None),  # this machine has no TPU
        (SLURM | {"SLURM_NTASKS": "2"}, "SLURM"),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}, None),  # sbatch, no srun
        (MPI | {"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        (MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JAX_PLATFORMS": "cpu"}, None),
    ],
)
def test_a_cluster_is_known_by_its_own_marks(environ, cluster):
    assert distributed.detect_cluster(environ) == cluster


def test_jax_reads_the_same_marks(monkeypatch):
    """The marks are jax's own: its detection must agree, or initialize would fail."""
    from jax._src.clusters import ClusterEnv

    by_name = {c.name: c for c in ClusterEnv._cluster_types}
    for name, environ in (("slurm", SLURM | {"SLURM_NTASKS": "2"}), ("ompi", MPI)):
        with monkeypatch.context() as patch:
            for key, value in environ.items():
                patch.setenv(key, value)
            assert by_name[name].is_env_present(), name


@pytest.mark.parametrize("killed", [0, 1])
def test_where_a_process_is_killed_the_other_says_which(killed, tmp_path):
    where = f"--coordinator=localhost:{free_port()}"
    files = [tmp_path / str(i) for i in range(2)]
    both = [
        commands.start(
            *("tests/helpers/summing.py", where, "--num_processes=2", f"--process_id={i}", file)
        )
        for i, file in enumerate(files)
    ]
    deadline = time.monotonic() + 120
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline and all(p.poll() is None for p in both), ends(both, 5)
        time.sleep(0.05)
    time.sleep(2)  # for signs of life
    both[killed].kill()
    code, _, error = ends([both[1 - killed]], timeout=60)[0]
    assert code == 1, error
    assert f"process {killed} on " in error and "was lost: it gives no sign of life" in error
    assert "Traceback" not in error
