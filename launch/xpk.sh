#!/usr/bin/env bash
# Trains on a GKE cluster with TPUs by xpk (github.com/AI-Hypercomputer/xpk), which makes a JobSet and queues it.
#
#   launch/xpk.sh --name run1 --cluster C --project P --zone us-west4-a --tpu-type v5litepod-256 --num-slices 2 \
#     --image REGISTRY/ssu_jax:1 --config configs/moe_64.py --workdir /data/run1 -- --config.data.dir=/data/records
#
#   --name NAME               of the workload
#   --cluster C --project P --zone Z
#   --tpu-type T              v5litepod-256 (chips), v6e-256 (chips), v5p-512 (cores), v4-512 (cores)
#   --num-slices N            slices of that size (default 1)
#   --image IMAGE             built from launch/Dockerfile
#   --config FILE.py          a file of the image
#   --workdir DIR             a path that every host sees: `xpk storage attach` mounts a bucket or a Filestore
#   --priority P              very-low ... very-high (default medium)
#   --max-restarts N          how often at most to start again (default 100)
#   --grace-seconds N         between SIGTERM and the end: time to save (default 120)
#   --dry-run                 prints the commands and runs none
#   -- OPTIONS                further options of ssu train
#
# Started again for 75 and 76 (and, by xpk itself, 42 and 127 to 255: hosts that died); any other code fails the workload.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

name="" cluster="" project="" zone="" tpu_type="" image="" config="" workdir=""
num_slices=1 priority=medium max_restarts=100 grace_seconds=120
read_options "name cluster project zone tpu_type image config workdir" \
  "num_slices priority max_restarts grace_seconds" "$@"
check_name name
check_number num_slices 1
check_number max_restarts 0
check_number grace_seconds 1
check_config "$config"
[ -z "$(bucket_of "$workdir")" ] || fail "--workdir: wanted its path in the pods ('xpk storage attach' mounts a bucket), got $workdir"
folder="$(mounted "$workdir")" || exit 2
need xpk "pip install xpk"

# xpk runs the command in a subshell and sends that one SIGTERM: exec puts the program in its place.
train_with ssu "$config" "$folder"
run xpk workload create "--workload=$name" "--cluster=$cluster" "--project=$project" "--zone=$zone" \
  "--tpu-type=$tpu_type" "--num-slices=$num_slices" "--docker-image=$image" "--priority=$priority" \
  "--max-restarts=$max_restarts" "--restart-on-exit-codes=$(IFS=, && echo "${RESTARTS[*]}")" \
  "--termination-grace-period-seconds=$grace_seconds" "--command=exec $(quoted "${train[@]}")"
