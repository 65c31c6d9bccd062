"""Writes tests/slow.txt: the tests that `make test` leaves out.

    python -m pytest tests -n 2 --dist loadfile --durations=0 --durations-min=1 > LOG
    python tests/helpers/slow_tests.py LOG --seconds=4

`make test-slow` runs them. A test is slow if its call took so long in every given log that has it.
"""

import argparse
import re
from pathlib import Path

FILE = Path(__file__).parent.parent / "slow.txt"
_LINE = re.compile(r"([\d.]+)s call +(tests/\S+::.+)")


def slow(logs, seconds):
    """Ids of the tests whose call took `seconds` or more in all logs that have it."""
    times = {}
    for log in logs:
        for line in log.splitlines():
            if match := _LINE.fullmatch(line.strip()):
                times.setdefault(match[2], []).append(float(match[1]))
    return sorted(test for test, found in times.items() if min(found) >= seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    found = slow([log.read_text() for log in args.logs], args.seconds)
    FILE.write_text("".join(f"{test}\n" for test in found))
    print(f"{len(found)} tests of {args.seconds:g} s or more: {FILE}")


if __name__ == "__main__":
    main()
