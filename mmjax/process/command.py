"""The command line: fast help, and errors as one sentence.

A command calls `start` before it imports jax, so that --help and a mistyped flag answer at once and
the allocator is set in time.
"""

import argparse
import difflib
import math
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from mmjax import storage
from mmjax.process import runtime

URLS = ("workdir", "model")  # flags whose value may be one: a folder of a bucket
MOST_SEEDS = 1 << 32  # as in a config
WORKDIR = ("--workdir", {"required": True, "help": "the run's folder, also gs:// or s3://"})
PROCESSES = tuple(
    (flag, {"type": kind, "default": os.environ.get(variable), "help": f"{what} [{variable}]"})
    for flag, kind, variable, what in (
        (
            "--coordinator",
            str,
            "JAX_COORDINATOR_ADDRESS",
            "several processes: HOST:PORT of process 0; SLURM, Open MPI and Cloud TPU need no flag",
        ),
        ("--num_processes", int, "JAX_NUM_PROCESSES", "how many there are"),
        ("--process_id", int, "JAX_PROCESS_ID", "which one this is, from 0"),
    )
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage has twenty."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows the flags)\n")


def start(doc: str, *flags: tuple[str, dict]) -> argparse.Namespace:
    """Parse the command line and prepare the process.

    Args:
      doc: the module's docstring, shown by --help.
      flags: (name, keyword arguments of `add_argument`).

    Returns:
      the flags, with all --config.KEY=VALUE arguments in `overrides`.
    """
    parser = _Parser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name, settings in flags:
        parser.add_argument(name, **settings)
    args, rest = parser.parse_known_args()
    wrong = [r for r in rest if not r.startswith("--config.")]
    if wrong:
        near = difflib.get_close_matches(wrong[0].partition("=")[0], [n for n, _ in flags], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        parser.error(f"unknown arguments {' '.join(wrong)}; {hint}a setting is --config.KEY=VALUE")
    for name, value in vars(args).items():
        if name not in URLS and isinstance(value, str) and storage.is_url(value):
            known = " and ".join(f"--{flag}" for flag in URLS)
            parser.error(f"--{name} is a URL, which only {known} may be: give a path of a disk")
        if isinstance(value, float) and not math.isfinite(value):
            parser.error(f"--{name} is {value}: give a finite number")
        if name == "seed" and not 0 <= (value or 0) < MOST_SEEDS:
            parser.error(f"--seed is {value}: give a whole number from 0 to {MOST_SEEDS - 1}")
    args.overrides = rest
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the starter ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no trace of the imports that follow
    runtime.prepare()
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files that are not UTF-8
    return args


def line_of(command: str, arguments: Sequence[str]) -> str:
    """A command as one would type it, such as `mmjax train --config=c.py --config.evals="{}"`."""

    def quoted(argument: str) -> str:
        plain = not set(argument) & set('"\\$`!')
        return f'"{argument}"' if "'" in argument and plain else shlex.quote(argument)

    return " ".join([command, *map(quoted, arguments)])


def run(main: Callable[[], object]) -> None:
    """Call `main` and exit: 0, or 2 with one sentence where mmjax itself refused the input.

    Of several processes, the others end too: see `mmjax.process.distributed.leave`.
    """
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except KeyboardInterrupt:
        _leave("it was interrupted", 130)
    except Exception as error:
        lost = _lost_peer(error)
        if lost is not None:
            print(f"error: {lost}.", file=sys.stderr)
            _leave(lost, 1)
        # A ValueError from inside jax or numpy is a bug, and a bug shows its trace.
        if is_refusal(error):
            # A damaged checkpoint leaves orbax reads pending, which Python would report at exit.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            print(f"error: {error}", file=sys.stderr)
            _leave(str(error), 2)
        traceback.print_exc()
        _leave(f"{type(error).__name__}: {error}"[:500], 1)


def _lost_peer(error: Exception) -> str | None:
    """Which other process was lost, where that may be the cause of an error of jax's.

    jax raises errors of a collective operation as either of two types.
    """
    if type(error).__name__ != "JaxRuntimeError" and "Gloo" not in str(error):
        return None
    from mmjax.process import distributed  # imported late, see `_leave`

    return distributed.lost_peer()


def _leave(sentence: str, code: int) -> None:
    from mmjax.process import (
        distributed,  # imported late: `main` may set what jax reads when it is imported
    )

    distributed.leave(sentence, code)


def is_refusal(error: Exception) -> bool:
    """Whether mmjax itself refused the input: a ValueError from inside jax or numpy is a bug."""
    last = list(traceback.walk_tb(error.__traceback__))[-1][0]
    raised_in = last.f_globals.get("__name__", "")  # compiled code may have none
    ours = raised_in == "__main__" or raised_in.startswith(("mmjax.", "config_"))
    return isinstance(error, ValueError) and ours
