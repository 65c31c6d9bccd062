"""A step that hangs ends the process, says which, and shows where; work in time does not."""

import subprocess
import sys
import time
from pathlib import Path

from mmjax.process.watchdog import EXIT_CODE, Watchdog

HANG = """
import threading
from mmjax.process.watchdog import Watchdog

def wait_for_a_peer_that_never_comes():
    threading.Event().wait()

with Watchdog({limit}, "host-a") as watchdog:
    for step in range({steps}):
        watchdog.step(step)
    wait_for_a_peer_that_never_comes()
"""


def run(limit, steps):
    code = HANG.format(limit=limit, steps=steps)
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )


def test_a_step_that_hangs_is_named_with_the_stack_of_every_thread():
    done = run(limit=0.2, steps=3)
    assert done.returncode == EXIT_CODE != 0
    first = done.stderr.strip().splitlines()[0]
    assert first.startswith("error: step 2 on host-a") and "step_timeout_seconds = 0.2" in first
    assert "wait_for_a_peer_that_never_comes" in done.stderr


def test_the_first_step_may_compile_for_longer_but_not_for_ever():
    assert run(limit=0.2, steps=1).returncode == EXIT_CODE


def test_work_in_time_rests_and_a_limit_of_zero_end_nothing():
    with Watchdog(0.3) as watchdog:
        for step in range(8):
            watchdog.step(step)
            time.sleep(0.1)
        watchdog.rest()
        time.sleep(0.8)  # a long evaluation
    with Watchdog(0) as watchdog:
        watchdog.step(0)
        time.sleep(0.2)
