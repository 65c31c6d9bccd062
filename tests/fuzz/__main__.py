"""Give every reader of files mutated inputs, and list what it does other than refuse them.

    python -m tests.fuzz --minutes=30
    python -m tests.fuzz --minutes=1 --reader=tar,gguf
    python -m tests.fuzz --reader=tar --input=1234 --save=FILE    # one input again

The inputs follow from their number; --first continues after those of an earlier run.
"""

import argparse
import sys
from pathlib import Path

from tests.fuzz.run import READERS, fuzz, summary


def main() -> int:
    """The command; its exit code is 1 if there were faults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="for all readers together")
    parser.add_argument("--reader", default=",".join(READERS), help="some of [%(default)s]")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--input", type=int, help="this input alone")
    parser.add_argument("--save", type=Path, help="write the last faulty input there")
    args = parser.parse_args()
    names = args.reader.split(",")
    if unknown := [name for name in names if name not in READERS]:
        parser.error(f"there is no reader {', '.join(unknown)}; there are {', '.join(READERS)}")
    total, every = 0, []
    for name in names:
        if args.input is None:
            first, count = args.first, None
        else:
            first, count = args.input, 1
        done, faults = fuzz(name, first, count, args.minutes * 60 / len(names))
        print(
            f"{name}: {done.inputs:,} inputs in {done.seconds:.0f} s, {len(faults)} faults, the "
            f"slowest {done.slowest:.2f} s, {done.memory / 1e6:.0f} MB above idle",
            flush=True,
        )
        if faults:
            print(summary(faults), flush=True)
        total, every = total + done.inputs, every + faults
    print(f"{total:,} inputs, {len(every)} faults")
    if args.save and every:
        args.save.write_bytes(every[-1].data)
    return int(bool(every))


if __name__ == "__main__":
    sys.exit(main())
