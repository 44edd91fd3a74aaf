#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [more arguments of test.py]: every process scores its share of the images.
set -euo pipefail
CONFIG=${1:?usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [ARGUMENTS]}
CHECKPOINT=${2:?usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [ARGUMENTS]}
PROCESSES=${3:?usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [ARGUMENTS]}
"${PYTHON:-python}" -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" --nproc_per_node="$PROCESSES" \
  "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
