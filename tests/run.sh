#!/usr/bin/env bash
# Runs the tests on a fresh machine: sets up .venv, then hands every argument to pytest.
#
#     bash tests/run.sh                    # all of them
#     bash tests/run.sh -m 'not story'     # without those that start several processes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup_venv.sh

# Ranks share the cores: one thread each is faster, and sums come in one order.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export TOKENIZERS_PARALLELISM=false
# Nothing may be downloaded by a test.
export HF_HUB_OFFLINE=1
exec python -m pytest "$@"
