#!/usr/bin/env bash
# What train.sbatch runs on every node: one DeepSpeed launcher, which starts one rank a GPU.
set -euo pipefail

[[ -f .venv/bin/activate ]] && source .venv/bin/activate
# Compiled operators and kernels must not be shared between nodes over a network file system.
scratch="${TMPDIR:-/tmp}/stillhouse-$SLURM_JOB_ID-$SLURM_NODEID"
export TORCH_EXTENSIONS_DIR="${TORCH_EXTENSIONS_DIR:-$scratch/extensions}"
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-$scratch/triton}"

# The launcher handles neither signal and would die of it. Ignoring survives exec, and the trainer
# installs a handler of its own, which asks for a checkpoint at the end of the step.
trap '' USR1 USR2
exec deepspeed --quiet --hostfile "$STILLHOUSE_HOSTFILE" --no_ssh --node_rank "$SLURM_NODEID" \
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" --no_local_rank "$@"
