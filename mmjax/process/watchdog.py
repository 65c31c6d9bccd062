"""End the process, with every thread's stack, when a step hangs.

One process that stalls leaves all others waiting in a collective. A run that ends is started again
by its scheduler; a run that hangs only costs.
"""

import faulthandler
import os
import socket
import sys
import threading
import time

EXIT_CODE = 3
FIRST_STEP = 4  # times the limit: it compiles


class Watchdog:
    """`with Watchdog(limit) as watchdog:` around the loop; `watchdog.step(n)` before each step.

    Args:
      seconds: the longest that a step may take, its wait for data included; 0 disables the
        watchdog. The first step, which compiles, may take four times as long.
      who: names this process in the message.
    """

    def __init__(self, seconds: float, who: str = ""):
        self._limit, self._who = seconds, who or socket.gethostname()
        self._deadline, self._step, self._first = None, 0, True
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def step(self, number: int) -> None:
        """Step `number` begins."""
        allowed = self._limit * (FIRST_STEP if self._first else 1)
        self._step, self._first, self._deadline = number, False, time.monotonic() + allowed

    def rest(self) -> None:
        """No step is under way: an evaluation or a save may take as long as it needs."""
        self._deadline = None

    def __enter__(self) -> "Watchdog":
        if self._limit > 0:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        if self._limit > 0:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        every = min(5.0, self._limit / 4)
        while not self._done.wait(every):
            # In case native code keeps this thread from running: this timer needs no Python.
            faulthandler.dump_traceback_later(FIRST_STEP * self._limit + 60, exit=True)
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self._abort()

    def _abort(self) -> None:
        sys.stderr.write(
            f"\nerror: step {self._step} on {self._who} has taken longer than "
            f"config.step_timeout_seconds = {self._limit:g} allows, and is taken to hang; the "
            "stack of every thread follows. The same command resumes from the last checkpoint.\n"
        )
        faulthandler.dump_traceback(all_threads=True)
        sys.stderr.flush()
        os._exit(EXIT_CODE)
