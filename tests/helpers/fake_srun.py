"""A stand-in for SLURM's srun on one machine: as many processes as SLURM_NTASKS, its variables set.

Options of srun come before the command; the exit code is the largest of the tasks'.
"""

import os
import subprocess
import sys

command = sys.argv[1:]
while command[0].startswith("--"):
    command = command[1:]
count = int(os.environ["SLURM_NTASKS"])
tasks = [
    subprocess.Popen(
        command,
        env=os.environ
        | {"SLURM_STEP_NODELIST": "localhost", "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
    )
    for i in range(count)
]
sys.exit(max(abs(task.wait()) for task in tasks))
