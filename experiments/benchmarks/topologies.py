"""A benchmark's cases on several TPU topologies: a process each, since libtpu is set up once."""

import json
import subprocess
import sys


def cases_of(script, topologies):
    """What `script`, with this command's arguments and --one, prints for each topology: a line of
    JSON per case."""
    cases = []
    for topology in topologies:
        command = [sys.executable, script, *sys.argv[1:], "--one", "--topologies", topology]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                cases.append(json.loads(line))
                print(line.strip(), file=sys.stderr)
        if process.returncode:
            sys.exit(f"{topology}: stopped with exit code {process.returncode}")
    return cases


def markdown(head, cases, cells_of):
    """A row per case, of `cells_of(case)` and the `seconds` that it took to compile; below them the
    parts of programs that were not counted, `unknown`."""
    head = [*head, "seconds to compile (wall, CPU)"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for case in cases:
        cells = [*cells_of(case), "{:.0f}, {:.0f}".format(*case["seconds"])]
        lines.append("| " + " | ".join(cells) + " |")
        if case["unknown"]:
            lines.append(f"(not counted: {', '.join(case['unknown'])})")
    return "\n".join(lines)
