#!/usr/bin/env bash
# Trains on a Cloud TPU from a queue, spot by default: asks until chips are granted, copies this checkout's last commit
# to every host, trains, and begins again when the chips are taken; the run resumes. Stays in the foreground (tmux).
#
#   launch/tpu_queued_resources.sh --name run1 --project P --zone us-west4-a --accelerator-type v5litepod-256 \
#     --runtime-version v2-alpha-tpuv5-lite --config configs/moe_64.py --workdir gs://BUCKET/run1 \
#     -- --config.data.dir=/mnt/BUCKET/data --config.mesh.fsdp=8
#
#   --name NAME               of the request and its nodes
#   --project P --zone Z      where the chips are
#   --accelerator-type T      v5litepod-256 (chips), v6e-256 (chips), v5p-512 (cores: 256 chips), v4-512 (cores)
#   --runtime-version V       image of the hosts: v2-alpha-tpuv5-lite, v2-alpha-tpuv6e, v2-alpha-tpuv5, tpu-ubuntu2204-base
#   --config FILE.py          a file of this checkout
#   --workdir DIR             gs://BUCKET/FOLDER (mounted at /mnt/BUCKET) or a path that every host sees
#   --num-slices N            slices of that size, joined by the data-centre network (default 1)
#   --on-demand               no spot chips
#   --max-restarts N          how often at most to start again (default 100)
#   --poll-seconds N          between two looks at the queue (default 60)
#   --keep                    keeps the chips when the run is done
#   --dry-run                 prints the commands and runs none
#   -- OPTIONS                further options of ssu train
#
# Ends with the exit code of the run. Starts again for 75 and 76 and wherever the chips are gone; 1, 2, 70, 77, 78 and 79
# end it, and the chips stay for a look: the line that deletes them is printed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

name="" project="" zone="" accelerator_type="" runtime_version="" config="" workdir=""
num_slices=1 on_demand=no max_restarts=100 poll_seconds=60 keep=no
read_options "name project zone accelerator_type runtime_version config workdir" \
  "num_slices on_demand max_restarts poll_seconds keep" "$@"
check_name name
check_number num_slices 1
check_number max_restarts 0
check_number poll_seconds 0
check_config "$config"
folder="$(mounted "$workdir")" || exit 2
need gcloud "cloud.google.com/sdk/docs/install"

queue() { # VERB ARGUMENTS...: of our request
  run gcloud compute tpus queued-resources "$1" "$name" "--project=$project" "--zone=$zone" "${@:2}"
}

look() {
  queue describe '--format=value(state.state)'
}

request() {
  local nodes=("--node-id=$name") kind=(--spot)
  [ "$num_slices" -eq 1 ] || nodes=("--node-count=$num_slices" "--node-prefix=$name")
  [ "$on_demand" = no ] || kind=()
  queue create "--accelerator-type=$accelerator_type" "--runtime-version=$runtime_version" "${nodes[@]}" \
    ${kind[@]+"${kind[@]}"}
}

give_back() {
  queue delete --force --quiet
}

# Returns when the chips are ours. FAILED and SUSPENDED are ends: such a request is deleted and made anew.
# (cloud.google.com/tpu/docs/queued-resources)
obtain() {
  local now
  while true; do
    now="$(look 2>/dev/null)" || now=ABSENT
    echo "$(date +%T) $name: $now" >&2
    case "$now" in
      ACTIVE) return ;;
      ABSENT) request || echo "$name: not taken, asking again" >&2 ;;
      FAILED | SUSPENDED | SUSPENDING) give_back || true ;;
    esac
    sleep "$poll_seconds"
  done
}

# By default gcloud talks to 64 hosts at a time; a run needs all of them at once.
# (cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources/ssh)
everywhere=(--worker=all --node=all --batch-size=4096 --quiet)
# A host that is taken does not say goodbye: without a sign of life for two minutes the connection ends.
shell=(ssh "${everywhere[@]}" --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4)

send_code() { # joined by &&: where a caller looks at its exit code, bash does not stop at a failure inside
  local archive="ssu_jax.tar.gz" bucket
  bucket="$(bucket_of "$workdir")"
  run git -C "$ROOT" archive --format=tar.gz "--output=${TMPDIR:-/tmp}/$archive" HEAD \
    && run gcloud compute tpus queued-resources scp "${TMPDIR:-/tmp}/$archive" "$name:$archive" "--project=$project" \
      "--zone=$zone" "${everywhere[@]}" \
    && queue "${shell[@]}" \
      "--command=mkdir -p ssu_jax && tar -xzf $archive -C ssu_jax && ssu_jax/launch/node.sh tpu${bucket:+ $bucket}"
}

# The connection may break while the hosts go on: the lock lets the next start wait for them.
train_on_all() {
  train_with .venv/bin/ssu "$config" "$folder"
  queue "${shell[@]}" "--command=cd ssu_jax && exec flock /tmp/ssu-train.lock $(quoted "${train[@]}")"
}

if [ -n "$dry_run" ]; then # one round, when all goes well
  request
  look
  send_code
  train_on_all
  [ "$keep" = yes ] || give_back
  exit
fi

say_how_to_give_back() {
  echo "$name keeps its chips. To give them back: $(dry_run=yes give_back)" >&2
}
trap 'say_how_to_give_back; exit 130' INT

for ((round = 0; round <= max_restarts; round++)); do
  obtain
  code=0
  # Hosts that are just up may not answer yet (1, 255): tried again. node.sh ends with 2 where it cannot help itself.
  send_code || { code=$?; [ "$code" -eq 2 ] || code=255; }
  if [ "$code" -eq 0 ]; then train_on_all || code=$?; fi
  if [ "$code" -eq 0 ]; then
    [ "$keep" = yes ] || give_back
    exit
  fi
  # Where chips are being taken the connection breaks first, and its exit code is not the run's word.
  sleep "$poll_seconds"
  if holds "$code" "${ENDS[@]}" && [ "$(look 2>/dev/null)" = ACTIVE ]; then
    echo "$name: ended with exit code $code, starting again would not help" >&2
    say_how_to_give_back
    exit "$code"
  fi
  echo "$name: exit code $code, starting again (up to $max_restarts times, this was start $((round + 1)))" >&2
done
say_how_to_give_back
fail "$name: started $((max_restarts + 1)) times, the last exit code was $code: see its log before starting it again"
