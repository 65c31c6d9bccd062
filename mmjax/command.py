"""The command line of train and evaluate: fast help, and errors as one sentence.

A command calls `start` before it imports jax: help answers at once, a mistyped flag costs nothing,
and the allocator is set in time.
"""

import argparse
import sys
import traceback
from collections.abc import Callable

from mmjax import runtime

WORKDIR = ("--workdir", {"required": True, "help": "the run's folder: checkpoints, logs, report"})


def start(doc: str, *flags: tuple[str, dict]) -> argparse.Namespace:
    """Parse the command line and prepare the process.

    Args:
      doc: the module's docstring, shown by --help.
      flags: (name, keyword arguments of `add_argument`).

    Returns:
      the flags, and in `overrides` all arguments that begin with --config. and a key.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name, settings in flags:
        parser.add_argument(name, **settings)
    args, rest = parser.parse_known_args()
    wrong = [r for r in rest if not r.startswith("--config.")]
    if wrong:
        parser.error(f"unknown arguments {' '.join(wrong)}; a setting is --config.KEY=VALUE")
    args.overrides = rest
    runtime.prepare()
    return args


def run(main: Callable[[], object]) -> None:
    """Call `main` and exit: 0, or 2 with one sentence where mmjax itself refused the input."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:
        raised_in = list(traceback.walk_tb(error.__traceback__))[-1][0].f_globals["__name__"]
        # A ValueError from inside jax or numpy is a bug, and a bug shows its trace.
        if raised_in != "__main__" and not raised_in.startswith(("mmjax.", "config_")):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
