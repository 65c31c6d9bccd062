"""Errors that orbax's threads and tasks print, and the main thread raises too."""

import logging
import sys
import threading
import traceback
from typing import Any


def silence() -> None:
    """Print them no more."""
    threading.excepthook = _print_once
    sys.unraisablehook = _print_unawaited
    for noisy in ("absl", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _is_repeated(trace: Any) -> bool:
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(trace))
    return any(module.startswith(("orbax.", "asyncio.")) for module in modules)


def _print_once(args: threading.ExceptHookArgs) -> None:
    if not _is_repeated(args.exc_traceback):
        threading.__excepthook__(args)


def _print_unawaited(args: Any) -> None:
    if not _is_repeated(args.exc_traceback):
        sys.__unraisablehook__(args)
