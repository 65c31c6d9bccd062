"""The real commands, each in a process of its own that starts with the libraries imported.

Importing jax and the others costs seconds of CPU, and the tests start a hundred commands. So this
file is also a program: it imports them once, and then forks for every order. A forked process is
like any other: it runs the command, with signals and exit code.
test_command.py starts commands as a user does, without this.
"""

import functools
import gc
import importlib
import itertools
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    *("jax", "flax.linen", "optax", "orbax.checkpoint", "grain", "ml_collections", "einops"),
    *("PIL.Image", "tokenizers", "safetensors.numpy", "simplejpeg", "tensorflow_datasets"),
    *("tensorboardX", "matplotlib.pyplot", "rich.console", "jax.experimental.multihost_utils"),
    # Of mmjax what is no command, and reads no variables of the environment when it is imported.
    *("mmjax.run.experiment", "mmjax.evals.evaluators", "mmjax.report.page"),
)


class Command:
    """A running command, with part of the interface of `subprocess.Popen`."""

    def __init__(self, words, *, devices=1, file_size=None, **variables):
        self._folder = _folder() / str(next(_numbers))
        self._folder.mkdir()
        for name in ("stdout", "stderr"):
            (self._folder / name).touch()  # readable before the command has started
        order = {
            "words": [str(word) for word in words],
            "environment": os.environ | {"XLA_FLAGS": xla_flags(devices)} | variables,
            "folder": str(self._folder),
            "file_size": file_size,
        }
        server = _server()
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        self.pid = int(server.stdout.readline())

    @property
    def returncode(self):
        """The exit code, or minus the signal that ended it; None while it runs."""
        try:
            return int((self._folder / "code").read_text())
        except (FileNotFoundError, ValueError):  # missing, or not yet written
            return None

    poll = returncode.fget

    def send_signal(self, number):
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout=600):
        until = time.monotonic() + timeout
        while self.returncode is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return self.returncode

    def said(self, where="stdout"):
        """Its output so far."""
        return (self._folder / where).read_text()

    def communicate(self, timeout=600):
        """Wait for its end; (stdout, stderr)."""
        self.wait(timeout)
        return self.said(), self.said("stderr")


def xla_flags(devices):
    """XLA_FLAGS of conftest.py, for another number of fake devices."""
    return f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"


def start(*words, **settings):
    """Start `python WORDS`, where the words start with -m MODULE, -c CODE or a file.

    Args:
      devices: number of fake CPU devices.
      file_size: the largest size in bytes of a file that it may write.
      variables: of its environment; too late for those that jax reads when it is imported.
    """
    return Command(words, **settings)


def run(*words, timeout=600, **settings):
    """`start`, and wait for the end; returncode, stdout and stderr."""
    command = start(*words, **settings)
    stdout, stderr = command.communicate(timeout)
    return SimpleNamespace(returncode=command.returncode, stdout=stdout, stderr=stderr)


# ---- the process that forks


_numbers = itertools.count()


@functools.cache
def _folder():
    return Path(tempfile.mkdtemp(prefix="commands-"))


@functools.cache
def _server():
    """The forking process; it ends when its stdin closes, with this process."""
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _orders():
    """Return each order in a process of its own; its parent writes down the exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies of those parents
    for line in sys.stdin:
        if os.fork():
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            return order
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        (Path(order["folder"]) / "code").write_text(str(os.waitstatus_to_exitcode(status)))
        os._exit(0)
    os._exit(0)


def _become(words, environment, folder, file_size):
    """Turn this process into `python WORDS`, started in the repository."""
    for number, name in enumerate((os.devnull, f"{folder}/stdout", f"{folder}/stderr")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    kind, *sys.argv = words
    if kind == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        code, sys.argv[0] = sys.argv[0], "-c"
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv.insert(0, kind)
        sys.path.insert(0, str(Path(kind).resolve().parent))
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # forked processes share these objects
    _become(**_orders())
