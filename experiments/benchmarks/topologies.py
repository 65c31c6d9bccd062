"""A benchmark's cases on several TPU topologies: a process each, since libtpu is set up once."""

import json
import subprocess
import sys


def cases_of(script, topologies):
    """What `script`, with this command's arguments and --one, prints for each topology: a line of
    JSON a case."""
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
