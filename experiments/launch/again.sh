#!/usr/bin/env bash
# Run a command, and again after a crash: up to MAX_RESTARTS (20) times, PAUSE (10) seconds apart.
#   experiments/launch/again.sh experiments/launch/host.sh CONFIG WORKDIR
# It ends where the command is done (0), was refused (2), or was stopped (130, 143), with that code.
# SIGTERM and Ctrl-C are passed on.
set -uo pipefail
stopped=""
for ((restart = 0; ; restart++)); do
    "$@" &
    child=$!
    trap 'stopped=1; kill -TERM $child 2>/dev/null' TERM INT
    wait $child
    code=$?
    while kill -0 $child 2>/dev/null; do # `wait` ends early at a signal
        wait $child
        code=$?
    done
    case $code in 0 | 2 | 130 | 143) exit $code ;; esac
    [[ -n $stopped ]] && exit $code
    if ((restart >= ${MAX_RESTARTS:-20})); then
        echo "again.sh: it ended with code $code, after $restart restarts: giving up" >&2
        exit $code
    fi
    echo "again.sh: it ended with code $code; restart $((restart + 1))" >&2
    sleep "${PAUSE:-10}"
done
