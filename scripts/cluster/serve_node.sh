#!/usr/bin/env bash
# One Slurm task of serve.sbatch: a worker on one GPU of this machine, known to the controller.
#
# Flags go to fastchat.serve.model_worker. CONTROLLER is the controller's URL, WORKER_PORT the port
# of the first worker of a machine (21002); the others take the next ones.
set -euo pipefail

port=$((${WORKER_PORT:-21002} + ${SLURM_LOCALID:-0}))
host="${SLURMD_NODENAME:-$(hostname)}"

# TERM, which Slurm sends before the time is up, makes the worker leave the controller and finish.
exec "${PYTHON:-python3}" -m fastchat.serve.model_worker \
    --host 0.0.0.0 --port "$port" --worker-address "http://$host:$port" \
    --controller-address "$CONTROLLER" "$@"
