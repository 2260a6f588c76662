#!/usr/bin/env bash
# What train.sbatch runs on every node: one DeepSpeed launcher, which starts one rank a GPU.
set -euo pipefail

# shellcheck source=/dev/null
[[ -f .venv/bin/activate ]] && source .venv/bin/activate
if ! command -v deepspeed > /dev/null; then
    echo "error: $(hostname) has no deepspeed: make $PWD/.venv with \`source launch/setup_venv.sh\`," \
        "or activate your environment before sbatch." >&2
    exit 2
fi
# Compiled operators and kernels must not be shared between nodes over a network file system.
scratch="${TMPDIR:-/tmp}/stillhouse-$SLURM_JOB_ID-$SLURM_NODEID"
export TORCH_EXTENSIONS_DIR="${TORCH_EXTENSIONS_DIR:-$scratch/extensions}"
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-$scratch/triton}"

# The launcher handles neither signal and would be killed by it. Ignored signals survive exec, and
# the trainer installs a handler of its own, which requests a checkpoint at the end of the step.
trap '' USR1 USR2
# Silent, so that an error is the one sentence of the run; train.sbatch reports the exit code.
exec deepspeed --log_level critical --hostfile "$STILLHOUSE_HOSTFILE" --no_ssh --node_rank "$SLURM_NODEID" \
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" --no_local_rank "$@"
