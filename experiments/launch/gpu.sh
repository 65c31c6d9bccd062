#!/usr/bin/env bash
# One machine with one or more GPUs: a single process drives them all.
#   experiments/launch/gpu.sh configs/clip_emoji.py runs/clip_emoji [--config.KEY=VALUE ...]
# Start it again after a stop: it resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
config=$1 workdir=$2
shift 2
python=${PYTHON:-.venv/bin/python}

"$python" -m mmjax.preflight --config="$config" --workdir="$workdir" "$@"
exec "$python" -m mmjax.train --config="$config" --workdir="$workdir" "$@"
