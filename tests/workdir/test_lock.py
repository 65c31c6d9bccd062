"""One writer a workdir, whatever became of the one before."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmjax.workdir import lock as workdir_lock

HOLD = (
    "import sys, time; from mmjax.workdir import lock as workdir_lock\n"
    "with workdir_lock.held(sys.argv[1]): print('held', flush=True); time.sleep(600)"
)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the workdir `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_refused_by_name_and_a_killed_one_does_not_block(holder, tmp_path):
    with pytest.raises(ValueError) as error, workdir_lock.held(tmp_path):
        pass
    assert f"process {holder.pid} on {socket.gethostname()}" in str(error.value)
    assert str(tmp_path) in str(error.value) and "another --workdir" in str(error.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with workdir_lock.held(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_it_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), workdir_lock.held(tmp_path / "new"):
        raise KeyError
    with workdir_lock.held(tmp_path / "new"):
        pass


def written_by(tmp_path, **holder):
    (tmp_path / ".lock").write_text(json.dumps({"started": "before"} | holder))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(workdir_lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(workdir_lock, "DEAD_AFTER_SECONDS", 0.5)


def test_another_hosts_run_is_refused_while_it_shows_that_it_lives(tmp_path, quick):
    """As on a disk whose flock ends at the host."""
    written_by(tmp_path, host="elsewhere", pid=1)
    done = threading.Event()
    beat = threading.Thread(target=workdir_lock._beat, args=(tmp_path / ".lock", done))
    beat.start()
    with pytest.raises(ValueError, match="process 1 on elsewhere"), workdir_lock.held(tmp_path):
        pass
    done.set()
    beat.join()
    with workdir_lock.held(tmp_path):  # its beat has stopped
        pass


def no_flock(monkeypatch):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)


def test_without_flock_a_living_process_of_this_host_is_refused(
    holder, tmp_path, quick, monkeypatch
):
    no_flock(monkeypatch)
    os.utime(tmp_path / ".lock", (1, 1))  # its clock may be wrong: only a change counts

    def soon():
        time.sleep(0.2)
        os.utime(tmp_path / ".lock")

    threading.Thread(target=soon).start()
    with pytest.raises(ValueError, match=f"process {holder.pid} "), workdir_lock.held(tmp_path):
        pass


def test_without_flock_a_dead_process_of_this_host_does_not_block(tmp_path, monkeypatch):
    gone = subprocess.Popen(["true"])
    gone.wait()
    no_flock(monkeypatch)
    written_by(tmp_path, host=socket.gethostname(), pid=gone.pid)
    with workdir_lock.held(tmp_path):
        pass


def test_a_workdir_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    taken = workdir_lock.held(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="Cannot write in the folder"), taken:
        pass
