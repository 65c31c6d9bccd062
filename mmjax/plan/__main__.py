"""Estimate what a config needs on given accelerators, before paying for them.

    python -m mmjax.plan --config=configs/clip_b16_laion2b.py --topology=v5e:16x16

Compiles the real training step with the real TPU compiler, without a TPU, data or tokenizer, and
prints what it finds: memory, collectives, time and cost; and, where it does not fit, the first
change that makes it fit. --topology=gpu:h100x8 or cpu:8 compiles with XLA's CPU compiler and
estimates. Settings as in train: --config.batch_size=32768.

Exit codes: 0: it fits; 1: it does not; 2: bad input; 3: --limit was reached.
"""

# ruff: noqa: E402
from mmjax.plan import chips
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--config", {"required": True, "help": "a file of configs/"}),
        ("--topology", {"required": True, "help": "v5e:16x16, v5p:4x4x4, gpu:h100x8, cpu:8, ..."}),
        ("--json", {"action": "store_true", "help": "numbers for programs instead of a page"}),
        ("--price", {"type": float, "metavar": "P", "help": "per chip-hour, in your currency"}),
        (
            "--limit",
            {"type": float, "default": 3600, "metavar": "SECONDS", "help": "time limit (3600)"},
        ),
        ("--no-search", {"action": "store_true", "help": "if it does not fit, try no changes"}),
    )
    command.run(lambda: chips.prepare(ARGS.topology))

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mmjax import config as configs
from mmjax.data.cache import read_json, write_json
from mmjax.models.systems import make_system
from mmjax.plan import page as plan_page
from mmjax.plan.estimate import Estimate, estimate, remat_sections
from mmjax.process.progress import Line


class LimitError(Exception):
    """--limit was reached."""


def plan(
    config: ConfigDict,
    topology: chips.Topology,
    *,
    search: bool = True,
    run: Callable[[str, Callable[[], Estimate]], Estimate] = lambda title, work: work(),
    tell: Callable[[str, Mapping[str, float]], None] = lambda stage, known: None,
) -> dict[str, Any]:
    """What a config needs, and the first change that makes it fit if it does not.

    Args:
      config: locked, from `mmjax.config.load`.
      search: try changes if it does not fit.
      run: calls its second argument, shows its first meanwhile, and may raise `LimitError`.
      tell: see `estimate`.

    Returns:
      "estimate"; "tried": list of (change, estimate), of which the last fits if any does; and
      "limited": whether the limit was reached during the search.

    Raises:
      ValueError: bad input. LimitError: the limit was reached before there was an estimate.
    """
    found = run("the config", lambda: estimate(config, topology, tell))
    tried = []
    if found.fits or not search:
        return {"estimate": found, "tried": tried, "limited": False}
    for change in changes(config, found):
        changed = configs.override(config.copy_and_resolve_references(), change)
        try:
            one = run(" ".join(change), lambda changed=changed: estimate(changed, topology, tell))
        except LimitError:
            return {"estimate": found, "tried": tried, "limited": True}
        tried.append((change, one))
        if one.fits:
            break
    return {"estimate": found, "tried": tried, "limited": False}


def changes(config: ConfigDict, found: Estimate) -> Iterator[tuple[str, ...]]:
    """Overrides that need less memory, those that cost the least time first.

    First a leaner form of the loss, then a sharded state (fsdp), then recomputation (remat), each
    alone and combined; then microbatches, with the last of these.
    """
    missing = found.memory["peak"] - found.hbm
    loss, saved = _loss(config, found, missing)
    split = _fsdp(found, missing - saved)
    yield from (change for change in (loss, split) if change)
    if loss and split:
        yield (*loss, *split)
    now = [section.remat for section in remat_sections(config).values()]
    policies = ["none", "dots", "full"]
    weakest = min((policies.index(p) for p in now), default=len(policies))
    remat = ()
    for policy in policies[weakest + 1 :]:
        remat = _remat(config, policy)
        yield remat
        if loss or split:
            yield (*loss, *split, *remat)
    parts = config.microbatches
    shards = config.batch_size // _shards(found)
    while (parts := 2 * parts) <= min(shards, 64):
        if shards % parts == 0:
            yield (f"--config.microbatches={parts}", *loss, *split, *remat)


def _shards(found: Estimate) -> int:
    return found.mesh["data"] * found.mesh["fsdp"]


def _loss(config: ConfigDict, found: Estimate, missing: float) -> tuple[tuple[str, ...], float]:
    """A form of the loss that saves the missing bytes, or else the leanest, if that can save a
    tenth of them; and the bytes that it saves."""
    system = make_system(config)
    leaner = system.leaner_losses(_shards(found)) if system.leaner_losses is not None else []
    enough = [one for one in leaner if one[1] >= missing]
    some = [one for one in leaner[-1:] if one[1] >= missing / 10]
    for settings, saved in (enough + some)[:1]:
        return tuple(f"--config.loss.{k}={v}" for k, v in settings.items()), saved
    return (), 0.0


def _fsdp(found: Estimate, missing: float) -> tuple[str, ...]:
    """Shard the state over more chips, if that can save a tenth of the missing bytes."""
    data, fsdp = found.mesh["data"], found.mesh["fsdp"]
    times, whole = 1, sum(found.state.values())
    while data % (2 * times) == 0 and times < 8 and whole * (1 - 1 / times) < missing:
        times *= 2
    if times == 1 or whole * (1 - 1 / times) < missing / 10:
        return ()
    sizes = {"data": data // times, "fsdp": fsdp * times, "tensor": found.mesh["tensor"]}
    return tuple(f"--config.mesh.{axis}={size}" for axis, size in sizes.items())


def _remat(config: ConfigDict, policy: str) -> tuple[str, ...]:
    return tuple(f"--config.{place}.remat={policy}" for place in remat_sections(config))


class Watch:
    """Runs work in a thread, shows its stage and seconds, and stops waiting at the limit.

    Args:
      usual: seconds that this work took the last time; None: it was never done.

    Attributes:
      known: what `tell` was last given.
    """

    def __init__(self, limit: float, usual: float | None = None):
        self.started, self.limit, self.usual = time.monotonic(), limit, usual
        self.stage, self.known = "", {}

    def tell(self, stage: str, known: Mapping[str, float]) -> None:
        """Record the stage and what is known; see `estimate`."""
        self.stage, self.known = stage, {**self.known, **known}

    def _facts(self, title: str, seconds: float) -> list[str]:
        usual = "" if self.usual is None else f" (the last time {self.usual:.0f} s)"
        return [f"{title}: {self.stage}, {seconds:.0f} s{usual}"]

    def __call__(self, title: str, work: Callable[[], Estimate]) -> Estimate:
        box: dict[str, Any] = {}

        def target():
            try:
                box["result"] = work()
            except BaseException as error:
                box["error"] = error

        # The compiler cannot be interrupted, but it does not hold this thread.
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        line = Line(lambda task: self._facts(title, task.elapsed), self.limit)
        try:
            while thread.is_alive():
                passed = time.monotonic() - self.started
                if passed >= self.limit:
                    raise LimitError
                line.update(passed)
                thread.join(min(self.limit - passed, 1.0))
        finally:
            line.stop()
        if "error" in box:
            raise box["error"]
        return box["result"]


def _seconds_file() -> Path:
    """How long the compilation of each config and topology took here."""
    return Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).parent / "plan_seconds.json"


def main(args: Any) -> int:
    """Plan, print, and return the exit code."""
    topology = chips.parse(args.topology)
    config = configs.load(args.config, args.overrides)
    # A cached program would show no time to compile.
    jax.config.update("jax_enable_compilation_cache", False)
    seconds = read_json(_seconds_file()) or {}
    key = f"{config.name} {topology.name}"
    watch = Watch(args.limit, seconds.get(key))
    try:
        found = plan(config, topology, search=not args.no_search, run=watch, tell=watch.tell)
    except LimitError:
        print(plan_page.known(watch.known, args.json))
        print(
            f"error: --limit={args.limit:g} seconds were over before {args.config} was compiled "
            f"for {topology.name}: give it more, or a smaller topology.",
            file=sys.stderr,
        )
        return 3
    write_json(_seconds_file(), seconds | {key: found["estimate"].compile_seconds})
    if args.json:
        print(json.dumps(plan_page.as_json(found, args.price), indent=2))
    else:
        print(plan_page.page(found, config, topology, args.price))
    if found["limited"]:
        return 3
    return 0 if found["estimate"].fits else 1


if __name__ == "__main__":
    code = []
    command.run(lambda: code.append(main(ARGS)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code[0])  # without waiting for a compiler that was given up
