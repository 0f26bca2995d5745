#!/usr/bin/env bash
# Fine-tune all weights of a Yuan2-2B with torchrun and DeepSpeed ZeRO-2.
#
#   scripts/train_yuan2_2b.sh --data_path ./chat.json --output_dir ./out
#
# What is to be trained, and how, says scripts/recipes/yuan2-2b-full.yaml; flags given here win over
# it. Paths are relative to the checkout. GPUS is the number of GPUs (8), MASTER_PORT the port
# on which the processes meet (20001).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

exec torchrun --nproc_per_node="${GPUS:-8}" --master_port="${MASTER_PORT:-20001}" \
    fastchat/train/train_mem.py --config scripts/recipes/yuan2-2b-full.yaml "$@"
