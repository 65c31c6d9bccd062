#!/usr/bin/env bash
# SLURM: one task a GPU; jax finds the others from SLURM's own variables.
#   sbatch --nodes=4 experiments/launch/slurm.sh configs/clip_b16_laion2b.py /shared/runs/b16 [--config.KEY=VALUE ...]
# Submit it from the repository, on a disk that all nodes see.
#SBATCH --job-name=mmjax
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
# The last line: 5 minutes before the time is up, all tasks save and end with code 143. Submit it
# again to go on; a second job with --dependency=afternotok:JOBID does that by itself.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
config=$1 workdir=$2
shift 2
python=${PYTHON:-.venv/bin/python}

srun "$python" -m mmjax.preflight --config="$config" --workdir="$workdir" "$@"
srun --kill-on-bad-exit=1 "$python" -m mmjax.train --config="$config" --workdir="$workdir" "$@"
