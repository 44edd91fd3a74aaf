#!/usr/bin/env bash
# tools/dist_train.sh CONFIG PROCESSES [more arguments of train.py]: one process a GPU (or gloo processes on CPUs).
set -euo pipefail
CONFIG=${1:?usage: tools/dist_train.sh CONFIG PROCESSES [ARGUMENTS]}
PROCESSES=${2:?usage: tools/dist_train.sh CONFIG PROCESSES [ARGUMENTS]}
"${PYTHON:-python}" -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" --nproc_per_node="$PROCESSES" \
  "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
