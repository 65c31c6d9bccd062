#!/usr/bin/env bash
# One machine with one or more GPUs: a single process drives them all; started again after a crash.
#   experiments/launch/gpu.sh configs/clip_emoji.py runs/clip_emoji [--config.KEY=VALUE ...]
set -euo pipefail
here=$(dirname "$0")
exec "$here/again.sh" "$here/host.sh" "$@"
