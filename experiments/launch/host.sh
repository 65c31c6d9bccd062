#!/usr/bin/env bash
# What every host of a run executes, however it was launched: the checks, then training.
#   experiments/launch/host.sh CONFIG WORKDIR [--config.KEY=VALUE ...]
# Several hosts find each other by SLURM, Cloud TPU or Open MPI, or by JAX_COORDINATOR_ADDRESS,
# JAX_NUM_PROCESSES and JAX_PROCESS_ID. Start it again after a stop: it resumes.
#
# Exit codes, the same on all hosts but for one that was killed: 0, done; 2, refused, with one
# sentence: starting it again would not help; 130 and 143, saved after Ctrl-C or SIGTERM; any other,
# such as 1 where another host was lost: start all of them again.
set -euo pipefail
cd "$(dirname "$0")/../.."
config=$1 workdir=$2
shift 2
python=${PYTHON:-.venv/bin/python}

"$python" -m mmjax.preflight --config="$config" --workdir="$workdir" "$@"
exec "$python" -m mmjax.train --config="$config" --workdir="$workdir" "$@"
