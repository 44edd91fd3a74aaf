#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB_NAME CONFIG [more arguments of train.py]; GPUS, GPUS_PER_NODE, CPUS_PER_TASK and
# SRUN_ARGS come from the environment.
set -euo pipefail
PARTITION=${1:?usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS]}
JOB_NAME=${2:?usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS]}
CONFIG=${3:?usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS]}
GPUS=${GPUS:-4}
GPUS_PER_NODE=${GPUS_PER_NODE:-$GPUS}
# shellcheck disable=SC2086  # several words in SRUN_ARGS
srun -p "$PARTITION" --job-name="$JOB_NAME" --gres="gpu:$GPUS_PER_NODE" --ntasks="$GPUS" \
  --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="${CPUS_PER_TASK:-4}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$CONFIG" --launcher slurm "${@:4}"
