#!/usr/bin/env bash
# One machine's share of a training run on several: starts a process a GPU, which meet the others.
#
#   NODES=4 NODE_RANK=0 HEAD=10.0.0.1 scripts/cluster/train_node.sh \
#       fastchat/train/train_mem.py --config scripts/recipes/yuan2-2b-full.yaml --output_dir OUT
#
# Run it on each machine with its own NODE_RANK; the one of rank 0 is HEAD, an address that all
# others reach. Paths are relative to the checkout, and have to be the same on all machines, as the
# output folder has to be one that they share. Under Slurm, train.sbatch does all that.
#
# GPUS is the number of processes a machine (8), PORT where they meet (20001), RUN_ID tells runs on
# the same machines apart (yuan2), JOIN_SECONDS is how long to wait for the others (900), PYTHON an
# environment's python (python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

NODES="${NODES:-1}"
NODE_RANK="${NODE_RANK:-${SLURM_NODEID:-0}}"
HEAD="${HEAD:-localhost}"
PORT="${PORT:-20001}"

if [ $# -eq 0 ]; then
    echo "error: name what is to be run, such as fastchat/train/train_mem.py, and its flags" >&2
    exit 2
fi
if [ "$NODE_RANK" -ge "$NODES" ]; then
    echo "error: NODE_RANK is $NODE_RANK; with NODES=$NODES it is from 0 to $((NODES - 1))" >&2
    exit 2
fi

# Who keeps the meeting point is said, not guessed: names of a machine's own are often not those
# that others know it by.
is_host=false
if [ "$NODE_RANK" -eq 0 ]; then is_host=true; fi

exec "${PYTHON:-python3}" -m torch.distributed.run \
    --nnodes="$NODES" --nproc_per_node="${GPUS:-8}" \
    --rdzv_backend=c10d --rdzv_id="${RUN_ID:-yuan2}" --rdzv_endpoint="$HEAD:$PORT" \
    --rdzv_conf="is_host=$is_host,join_timeout=${JOIN_SECONDS:-900}" \
    "$@"
