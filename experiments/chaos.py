"""Kill a real run at random moments, start it again, and compare it with an undisturbed one.

    python experiments/chaos.py --kills=20 --out=experiments/chaos.md

Every run is `python -m mmjax.train` on a tiny CLIP (images made on the spot, dropout and random
crops on). A seeded generator draws SIGKILL or SIGTERM, and when: at a random time after the start,
or just after the start of a save. A run that reaches its end is compared with the undisturbed one:
checksums of every array of the last checkpoint, and the batch of every step, repeated steps
included; then another starts, until there are enough kills. Exits with 1 if anything differs.
"""

import argparse
import collections
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS, EVERY = 240, 20
CONFIG = """
import sys

sys.path.insert(0, {tests!r})
from tiny_clip import get_config as tiny


def get_config():
    config = tiny()
    config.total_steps, config.checkpoint.every, config.log_every = {steps}, {every}, 10
    config.data.train.root = {images!r}
    config.evals = {{}}
    return config
"""


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill: the signal, whether a save was running, the newest checkpoint, the exit code."""

    signal: str
    in_save: bool
    newest: int  # step of the newest checkpoint left; 0: none
    code: int


class Runs:
    """Starts `mmjax.train` in a folder of its own, to the end or to a kill."""

    def __init__(self, folder: Path):
        self.folder = folder
        sys.path.insert(0, str(ROOT / "tests" / "helpers"))
        from tiny_clip import write_folder

        write_folder(folder / "images")
        fields = {"tests": str(ROOT / "tests" / "helpers"), "images": str(folder / "images")}
        (folder / "chaos.py").write_text(CONFIG.format(steps=STEPS, every=EVERY, **fields))

    def start(self, workdir: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "mmjax.train", f"--config={self.folder / 'chaos.py'}"]
        flags = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
        cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # the many starts compile once
        with open(workdir.with_suffix(".log"), "ab") as log:
            return subprocess.Popen(
                [*command, f"--workdir={workdir}"],
                cwd=ROOT,
                env=os.environ | cache | {"XLA_FLAGS": flags},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def finish(self, workdir: Path) -> None:
        process = self.start(workdir)
        if process.wait():
            raise SystemExit(f"a run ended with {process.returncode}: {_tail(workdir)}")


def disturb(runs: Runs, workdir: Path, rng: random.Random, longest: float) -> Kill | None:
    """Start the run and kill it; None if it reached its end first."""
    number = rng.choice([signal.SIGKILL, signal.SIGTERM])
    left = _unfinished(workdir)  # by an earlier kill
    process = runs.start(workdir)
    if rng.random() < 0.5:
        moment = time.monotonic() + rng.uniform(0, longest)
        while process.poll() is None and time.monotonic() < moment:
            time.sleep(0.005)
    else:
        _wait_for_save(process, workdir, left, rng.randrange(1, 6))
        time.sleep(rng.uniform(0, 0.05))
    if process.poll() is not None:
        return _ended(process, workdir)
    process.send_signal(signal.SIGSTOP)  # pause it to see whether a save is in progress
    in_save = bool(_unfinished(workdir) - left)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    code = process.wait()
    if number == signal.SIGTERM and code not in (128 + signal.SIGTERM, -signal.SIGTERM):
        raise SystemExit(f"after SIGTERM a run ended with {code}: {_tail(workdir)}")
    return Kill(number.name, in_save, max(_steps(workdir), default=0), code)


def _ended(process: subprocess.Popen, workdir: Path) -> None:
    if process.returncode:
        raise SystemExit(f"a run ended with {process.returncode}: {_tail(workdir)}")


def _wait_for_save(process: subprocess.Popen, workdir: Path, left: set, count: int) -> None:
    """Return when the count-th checkpoint from now begins to be written."""
    seen = set()
    while process.poll() is None and len(seen) < count:
        seen |= _unfinished(workdir) - left
        time.sleep(0.001)


def _unfinished(workdir: Path) -> set[tuple[str, int]]:
    """(name, inode) of the folders of incomplete checkpoints."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {(entry.name, entry.inode()) for entry in entries if "tmp" in entry.name}


def _steps(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return [int(name) for name in names if name.isdigit()]


def arrays_of(workdir: Path) -> dict[str, list]:
    """path -> [shape, checksum] of the finished run's state, checked against the files."""
    import jax
    import orbax.checkpoint as ocp

    from mmjax.workdir.checksum import checksums

    folder = workdir / "checkpoints" / str(STEPS)
    saved = json.loads((folder / "run" / "metadata").read_text())["arrays"]
    state = ocp.PyTreeCheckpointer().restore(folder / "state")
    found = sorted(int(value) for value in jax.device_get(checksums(state)).values())
    if found != sorted(value for _, value in saved.values()):
        raise SystemExit(f"{folder}: the files do not match their checksums")
    return saved


def batches_of(workdir: Path) -> tuple[dict[int, dict], int]:
    """step -> its line of batches.jsonl, and how many steps were repeated; those must agree."""
    lines, again = {}, 0
    for line in map(json.loads, (workdir / "batches.jsonl").read_text().splitlines()):
        again += line["step"] in lines
        if lines.setdefault(line["step"], line) != line:
            raise SystemExit(f"{workdir}: step {line['step']} was repeated on another batch")
    return lines, again


def _tail(workdir: Path) -> str:
    return workdir.with_suffix(".log").read_text(errors="replace")[-2000:]


def chaos(folder: Path, kills: int, seed: int) -> str:
    """Run it all; returns a report in Markdown."""
    sys.path.insert(0, str(ROOT))
    runs, rng, begun = Runs(folder), random.Random(seed), time.monotonic()
    print("undisturbed run ...", flush=True)
    runs.finish(folder / "undisturbed")
    longest = (time.monotonic() - begun) / 2  # later moments would mostly miss a resumed run
    want, (lines, _) = arrays_of(folder / "undisturbed"), batches_of(folder / "undisturbed")
    if sorted(lines) != list(range(1, STEPS + 1)):
        raise SystemExit("the undisturbed run has not logged each of its steps")
    done: list[Kill] = []
    finished = repeated = 0
    ending = False
    while not ending:
        workdir = folder / f"run{finished + 1}"
        killed = disturb(runs, workdir, rng, longest) if len(done) < kills else None
        if killed:
            done.append(killed)
            spent = time.monotonic() - begun
            print(
                f"kill {len(done)}/{kills}: {killed.signal}{' in a save' * killed.in_save}, "
                f"newest checkpoint {killed.newest}; {spent:.0f} s",
                flush=True,
            )
            continue
        runs.finish(workdir)  # train to the end, if it is not done
        got, (seen, again) = arrays_of(workdir), batches_of(workdir)
        if got != want or seen != lines:
            raise SystemExit(f"run {finished + 1} differs from the undisturbed run; see {folder}")
        finished, repeated = finished + 1, repeated + again
        ending = len(done) == kills  # so that the last run is compared, too
        print(f"run {finished} reached its end: {len(want)} arrays and {STEPS} batches are equal")
    counts = collections.Counter((k.signal, k.in_save) for k in done)
    rows = [
        f"| {name} | {'while a checkpoint was being written' if in_save else 'at another time'} "
        f"| {count} |"
        for (name, in_save), count in sorted(counts.items())
    ]
    minutes = (time.monotonic() - begun) / 60
    found = (
        f"{len(done)} kills (seed {seed}) over {finished} runs of {STEPS} steps with a checkpoint "
        f"every {EVERY}; {repeated} logged steps were repeated. Every run ended with the "
        f"{len(want)} arrays of the undisturbed run, bit for bit, and every step, repeated ones "
        "included, had the batch of the undisturbed run (checksums of ids, pixels and tokens). "
        f"{minutes:.0f} minutes."
    )
    table = ["| signal | when | kills |", "|---|---|---|", *rows]
    return "\n".join([*table, "", textwrap.fill(found, 100)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="", help="a file that the report is written to")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mmjax-chaos-"))
    report = chaos(folder, args.kills, args.seed)
    print(report)
    if args.out:
        command = f"`python experiments/chaos.py --kills={args.kills} --seed={args.seed}`"
        Path(args.out).write_text(f"# Kills at random moments\n\n{command}\n\n{report}\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
