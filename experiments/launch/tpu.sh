#!/usr/bin/env bash
# A Cloud TPU slice: the same command on all of its hosts, and again after a crash or a preemption.
#   TPU=my-slice ZONE=us-east5-b TOPOLOGY=v5e:16x16 \
#       experiments/launch/tpu.sh configs/clip_b16_laion2b.py gs://BUCKET/runs/b16 [--config.KEY=VALUE ...]
# The slice is there, with the repository in ~/mmjax of every host and jax[tpu] in its .venv. Or it
# is asked for as a queued resource, and again whenever it is taken away:
#   TYPE=v5litepod-256 VERSION=v2-alpha-tpuv5-lite SPOT=1 SETUP='git clone URL mmjax && ...' TPU=...
# SETUP runs once on every host of a new slice, in its home. The slice is deleted at the end, unless
# KEEP=1. TOPOLOGY: compile for it here first, before it is paid for.
# Others: MAX_RESTARTS (20), PAUSE (30 seconds, between two looks at the state).
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${TPU:?the name of the slice}" "${ZONE:?its zone}"
pause=${PAUSE:-30}

queue() { # a subcommand of queued-resources, for this slice
    gcloud compute tpus queued-resources "$1" "$TPU" --zone="$ZONE" "${@:2}"
}

everywhere() { # a line of shell, on every host
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

state() { queue describe --format='value(state.state)' 2>/dev/null || echo MISSING; }

wait_for_slice() { # until it is active; asks for one where there is none
    [[ -n ${TYPE:-} ]] || return 0
    local now last=""
    while now=$(state) && [[ $now != ACTIVE ]]; do
        [[ $now == "$last" ]] || echo "tpu.sh: $TPU is $now" >&2
        last=$now
        case $now in
        MISSING)
            queue create --node-id="$TPU" --accelerator-type="$TYPE" \
                --runtime-version="${VERSION:?the runtime version of TYPE}" ${SPOT:+--spot}
            fresh=1
            ;;
        FAILED | SUSPENDED) queue delete --force --quiet ;; # it was taken away
        esac
        sleep "$pause"
    done
    if [[ -n $fresh && -n ${SETUP:-} ]]; then
        everywhere "$SETUP"
    fi
    fresh=""
}

if [[ -n ${TOPOLOGY:-} ]]; then # here, without the TPU, before it is paid for
    .venv/bin/python -m mmjax.plan --config="$1" --topology="$TOPOLOGY" "${@:3}"
fi
fresh=""
output=$(mktemp)
trap 'rm -f "$output"' EXIT
for ((restart = 0; ; restart++)); do
    # gcloud's own exit code does not tell that of a host: each prints it.
    run="cd ~/mmjax && { experiments/launch/host.sh $(printf '%q ' "$@"); echo \"host ended with code \$?\"; }"
    code=1
    if wait_for_slice && everywhere "$run" 2>&1 | tee "$output"; then
        # The largest; a refusal before all, as the others only follow.
        codes=$(grep -o 'host ended with code [0-9]*' "$output" | grep -o '[0-9]*$' | sort -n)
        code=$(tail -n 1 <<<"${codes:-1}")
        if grep -qx 2 <<<"$codes"; then code=2; fi
    fi
    case $code in 0 | 2 | 130) break ;; esac
    if ((restart >= ${MAX_RESTARTS:-20})); then
        echo "tpu.sh: it ended with code $code, after $restart restarts: giving up" >&2
        break
    fi
    echo "tpu.sh: it ended with code $code; restart $((restart + 1))" >&2
    sleep "$pause"
done
if [[ -n ${TYPE:-} && -z ${KEEP:-} ]]; then
    queue delete --force --quiet
fi
exit "$code"
