#!/usr/bin/env bash
# Train on a Slurm cluster:
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# GPUS in all (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS are taken from the environment.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options]" >&2; exit 2; }
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
# shellcheck disable=SC2086  # SRUN_ARGS holds several words
srun --partition="$1" --job-name="$2" --gres="gpu:$GPUS_PER_NODE" --ntasks="$GPUS" \
  --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
  ${SRUN_ARGS:-} python -u "$(dirname "$0")/train.py" "$3" --launcher slurm "${@:4}"
