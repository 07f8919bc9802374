#!/usr/bin/env bash
# Trains on a GKE cluster with TPU node pools and the JobSet controller: fills in launch/gke/jobset.yaml and applies it.
#
#   launch/gke_jobset.sh --name run1 --topology v5e:16x16 --num-slices 2 --image REGISTRY/ssu_jax:1 \
#     --config configs/moe_64.py --workdir gs://BUCKET/run1 -- --config.data.dir=/mnt/BUCKET/data
#
#   --name NAME               of the JobSet
#   --topology T              as for ssu compile-check: v4, v5e, v5p or v6e with the chips along each axis
#   --num-slices N            slices of that shape, a node pool each (default 1)
#   --chips-per-host N        of the machine type (default 4; 8 for ct5lp-hightpu-8t, ct6e-standard-8t)
#   --image IMAGE             built from launch/Dockerfile
#   --config FILE.py          a file of the image
#   --workdir DIR             gs://BUCKET/FOLDER (mounted at /mnt/BUCKET by GKE's Cloud Storage FUSE driver), or with
#                             --claim a path below the volume's mount
#   --claim NAME              a PersistentVolumeClaim that many pods may write, mounted at the first folder of --workdir
#   --namespace N             default: default
#   --service-account S       of Kubernetes; a bucket wants one that may write it (default: default)
#   --on-demand               no spot nodes
#   --max-restarts N          how often at most to start again (default 100)
#   --grace-seconds N         between SIGTERM and the end: time to save (default 120; GKE gives spot nodes about 15)
#   --context C               of kubectl
#   --dry-run                 prints the command and the file, and runs nothing
#   -- OPTIONS                further options of ssu train
#
# 1, 2, 70, 77, 78 and 79 fail the JobSet at once; anything else, 75, 76 and a lost node too, starts all pods again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

name="" topology="" image="" config="" workdir="" claim="" context=""
num_slices=1 chips_per_host=4 namespace=default service_account=default on_demand=no max_restarts=100 grace_seconds=120
read_options "name topology image config workdir" "claim context num_slices chips_per_host namespace service_account \
on_demand max_restarts grace_seconds" "$@"
check_name name
check_name namespace
check_name service_account
check_number num_slices 1
check_number chips_per_host 1
check_number max_restarts 0
check_number grace_seconds 1
check_config "$config"
need kubectl "kubernetes.io/docs/tasks/tools"

# Labels of the node pools: cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
case "$topology" in
  v4:*) accelerator=tpu-v4-podslice axes=3 ;;
  v5e:*) accelerator=tpu-v5-lite-podslice axes=2 ;;
  v5p:*) accelerator=tpu-v5p-slice axes=3 ;;
  v6e:*) accelerator=tpu-v6e-slice axes=2 ;;
  *) accelerator="" axes=1 ;;
esac
shape="${topology#*:}"
[[ -n "$accelerator" && "$shape" =~ ^[1-9][0-9]*(x[1-9][0-9]*){$((axes - 1))}$ ]] \
  || fail "--topology: wanted v4:4x4x8, v5e:16x16, v5p:4x8x8, v6e:16x16 and the like, got $topology"
chips=$((${shape//x/*}))
[ $((chips % chips_per_host)) -eq 0 ] || fail "--topology: $chips chips do not divide over hosts of $chips_per_host (--chips-per-host)"

folder="$(mounted "$workdir")" || exit 2
bucket="$(bucket_of "$workdir")"
if [ -n "$bucket" ]; then
  [ -z "$claim" ] || fail "--claim: --workdir is in a bucket already"
  mount="/mnt/$bucket"
  options="implicit-dirs,rename-dir-limit=200000" # a checkpoint's folder is renamed when it is whole
  volume="csi: {driver: gcsfuse.csi.storage.gke.io, volumeAttributes: {bucketName: $bucket, mountOptions: \"$options\"}}"
else
  [ -n "$claim" ] || fail "--workdir: a path wants --claim NAME, the volume that holds it; or give gs://BUCKET/FOLDER"
  check_name claim
  mount="/$(cut -d/ -f2 <<<"$folder")"
  volume="persistentVolumeClaim: {claimName: $claim}"
fi

json() { # a list of JSON strings, which YAML reads too
  local each text=""
  for each in "$@"; do
    each="${each//\\/\\\\}"
    text+=", \"${each//\"/\\\"}\""
  done
  echo "${text#, }"
}

text="$(<"$ROOT/launch/gke/jobset.yaml")"
fill() { # NAME VALUE
  text=${text//@$1@/"$2"}
}
train_with ssu "$config" "$folder"
fill NAME "$name"
fill NAMESPACE "$namespace"
fill NUM_SLICES "$num_slices"
fill HOSTS $((chips / chips_per_host))
fill CHIPS_PER_HOST "$chips_per_host"
fill ACCELERATOR "$accelerator"
fill SHAPE "$shape"
fill MAX_RESTARTS "$max_restarts"
fill GRACE_SECONDS "$grace_seconds"
fill SERVICE_ACCOUNT "$service_account"
fill ENDS "$(IFS=, && echo "${ENDS[*]}")"
fill MOUNT "$mount"
fill VOLUME "$volume"
fill IMAGE "$(json "$image")"
fill COMMAND "$(json "${train[@]}")"
# What a line of the template is for stands behind it.
if [ "$on_demand" = yes ]; then text="$(grep -v '# spot$' <<<"$text")"; fi
if [ -z "$bucket" ]; then text="$(grep -v '# bucket$' <<<"$text")"; fi

run_with "$text" kubectl ${context:+"--context=$context"} apply --filename -
