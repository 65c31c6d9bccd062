#!/usr/bin/env bash
# A Cloud TPU slice: the same command on all of its hosts.
#   TPU=my-slice ZONE=us-east5-b TOPOLOGY=v5e:16x16 \
#       experiments/launch/tpu.sh configs/clip_b16_laion2b.py /mnt/shared/runs/b16 [--config.KEY=VALUE ...]
# The repository lies in ~/mmjax of every host with its .venv (and jax[tpu] in it); the workdir is
# on a disk that all hosts see. Start it again after a stop: it resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${TPU:?the name of the slice}" "${ZONE:?its zone}"
config=$1 workdir=$2
shift 2

everywhere() { # a command with its arguments, quoted, in ~/mmjax of every host
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
        --command="cd ~/mmjax && $(printf '%q ' "$@")"
}

if [[ -n ${TOPOLOGY:-} ]]; then # here, without the TPU, before it is paid for
    .venv/bin/python -m mmjax.plan --config="$config" --topology="$TOPOLOGY" "$@"
fi
everywhere .venv/bin/python -m mmjax.preflight --config="$config" --workdir="$workdir" "$@"
everywhere .venv/bin/python -m mmjax.train --config="$config" --workdir="$workdir" "$@"
