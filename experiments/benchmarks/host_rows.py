"""Rows per second of the training pipeline of a config, in this checkout and in another one.

    git worktree add /tmp/before main~20
    python experiments/benchmarks/host_rows.py --against=/tmp/before
    python experiments/benchmarks/host_rows.py --threads 2 --processes 2   # in place of threads

Every checkout (and number of threads) is a process of its own, with the examples in its cache; they
take turns, one at a time, so that other work on the machine affects all of them. The first batches
must be equal: what differs is only the time. `--first_epoch` measures instead how long a simulated
device waits in the first epoch, whose examples are not cached yet: it takes COMPILE seconds before
its first step, then STEP seconds a step. Results are in host_input.md.
"""

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import workers

COMPILE, STEP = 10.0, 0.03
WARM_UP = 4  # batches, whose checksum is compared


def opened(config_file, threads, processes=0):
    """(batch size, number of examples, function that makes a stream with an empty cache)."""
    from mmjax import config as configs
    from mmjax.data import mixture, pipeline
    from mmjax.run import experiment
    from mmjax.run import tokenizer as tokenizers

    config = configs.load(config_file)
    with tempfile.TemporaryDirectory(prefix="mmjax-host-rows-") as folder:
        source = mixture.open_training(config.data, workdir=folder)
    tokenizer = tokenizers.make_tokenizer(config.tokenizer, corpus=experiment.texts_of(source))
    size = config.batch_size

    def stream(cache=False):
        cached, transform = mixture.make_transforms(source, config.data, tokenizer)
        for i in range(len(source) if cache else 0):
            cached[i]
        settings = {"batch_size": size, "seed": 0, "num_threads": threads}
        settings |= {"num_workers": processes} if processes else {}
        return pipeline.train_batches(cached, transform, **settings)

    return size, len(source), stream


def work(config_file, threads, processes, batches):
    """Answers each line of standard input with the seconds per row of some batches."""
    size, examples, make = opened(config_file, threads, processes)
    stream = make(cache=True)
    found = hashlib.sha256()
    for _ in range(WARM_UP):
        for key, array in sorted(next(stream).items()):
            found.update(key.encode() + array.tobytes())
    for _ in range(4 * examples // size if processes else 0):
        next(stream)  # each process has a cache of its own
    workers.answer({"checksum": found.hexdigest()})
    for _ in sys.stdin:
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(batches):
            next(stream)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        workers.answer({"wall": wall / size / batches, "cpu": cpu / size / batches})


def work_first_epoch(config_file, threads):
    """Answers each line with the fraction of the first epoch that a device waits."""
    import jax

    from mmjax.data.prefetch import prefetch_to_device

    size, examples, make = opened(config_file, threads)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    workers.answer({"checksum": ""})
    for _ in sys.stdin:
        with prefetch_to_device(make(), device) as stream:
            next(stream)
            time.sleep(COMPILE)
            waited, begin = stream.wait_seconds, time.perf_counter()
            for _ in range(examples // size - 1):
                time.sleep(STEP)
                next(stream)
            spent = time.perf_counter() - begin
        workers.answer({"wait": (stream.wait_seconds - waited) / spent, "spent": spent})


def start(name, checkout, args, threads, processes):
    """A process that runs this file with the `mmjax` of a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--work", args.config]
    command += ["--threads", str(threads), "--batches", str(args.batches)]
    command += ["--processes", str(processes)]
    command += ["--first_epoch"] if args.first_epoch else []
    env = os.environ | {"PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    return workers.Process((name, threads), command, env)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--against", type=Path, help="the other checkout; without it: this one")
    add("--config", default=str(workers.ROOT / "configs" / "clip_emoji.py"))
    add("--threads", type=int, nargs="+", default=[1, 2])
    add("--batches", type=int, default=8, help="in a turn")
    add("--rounds", type=int, default=15)
    add("--first_epoch", action="store_true")
    add("--work", help=argparse.SUPPRESS)
    add("--processes", type=int, default=0, help="of this checkout, in place of its threads")
    args = parser.parse_args()
    if args.work:
        if args.first_epoch:
            work_first_epoch(args.work, args.threads[0])
        else:
            work(args.work, args.threads[0], args.processes, args.batches)
        return
    before = (args.against or workers.ROOT).resolve()
    sides = {"before": (before, 0), "now": (workers.ROOT, args.processes)}
    running = [
        start(name, checkout, args, n, processes)
        for n in args.threads
        for name, (checkout, processes) in sides.items()
    ]
    if len({process.ready["checksum"] for process in running}) > 1:
        raise SystemExit("The checkouts make different batches.")
    rounds = workers.rounds_of(running, args.rounds)
    for process in running:
        process.close()
    print(f"{args.config}, {args.rounds} rounds, load {os.getloadavg()[0]:.0f}\n")
    if args.first_epoch:
        for (side, n), *answers in ((p.name, *(r[p.name] for r in rounds)) for p in running):
            waits = [answer["wait"] for answer in answers]
            spent = statistics.median(answer["spent"] for answer in answers)
            print(
                f"{side}, {n} threads: waits {statistics.median(waits):.0%} "
                f"({min(waits):.0%} to {max(waits):.0%}) of an epoch of {spent:.1f} s"
            )
        return
    print("| threads | time | before, µs a row | now | ratio, median (range) |")
    print("|---|---|---|---|---|")
    for n in args.threads:
        for kind in ("wall", "cpu"):
            pairs = [[r[side, n][kind] for side in sides] for r in rounds]
            before, now = (1e6 * statistics.median(times) for times in zip(*pairs))
            ratios = [a / b for a, b in pairs]
            print(
                f"| {n} | {kind} | {before:.0f} | {now:.0f} | {statistics.median(ratios):.2f}× "
                f"({min(ratios):.2f} to {max(ratios):.2f}) |"
            )


if __name__ == "__main__":
    main()
