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
# The last line: 5 minutes before the time is up, all tasks save and end with code 143. Then, and
# after a crash, the job puts itself back into the queue, up to MAX_RESTARTS (20) times.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

code=0
srun --kill-on-bad-exit=1 experiments/launch/host.sh "$@" || code=$?
case $code in 0 | 2 | 130) exit $code ;; esac
if ((${SLURM_RESTART_COUNT:-0} >= ${MAX_RESTARTS:-20})); then
    echo "slurm.sh: it ended with code $code, after $SLURM_RESTART_COUNT restarts: giving up" >&2
    exit $code
fi
echo "slurm.sh: it ended with code $code; the job goes back into the queue" >&2
scontrol requeue "$SLURM_JOB_ID"
