#!/usr/bin/env bash
# Trains over several processes of this machine, which stand for the hosts of a cluster: one JAX job with a
# coordinator on the loopback, every process with devices (forced CPU ones) and rows of the batch of its own.
#
#   ./launch/local_multiprocess.sh -- ssu train --config configs/nano.py --workdir runs/nano --config.data.dir=data
#   ./launch/local_multiprocess.sh --processes 4 --devices 2 -- ssu train ...   goes on in another layout
#   ./launch/local_multiprocess.sh --dry-run -- ssu train ...                   prints the commands and ends
#
# --processes N (2), --devices N of each (4). Lines of process i begin with [i]. A process that ends badly ends all;
# the exit code is that of the first one that did. Ctrl-C or SIGTERM: all save and stop; a second one ends them at once.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

processes=2 devices=4 dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit
      ;;
    --processes | --devices)
      [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || fail "wanted a number after $1, got '${2:-}'"
      if [ "$1" = --processes ]; then processes="$2"; else devices="$2"; fi
      shift 2
      ;;
    --dry-run)
      dry_run=yes
      shift
      ;;
    --)
      shift
      break
      ;;
    *) fail "unknown argument $1; the command to run comes after -- (see --help)" ;;
  esac
done
[ $# -gt 0 ] || fail "wanted a command after --, for example: -- ssu train --config configs/nano.py --workdir runs/nano"

if [ -n "$dry_run" ]; then
  port=12345
else
  [ -x "$VENV/bin/ssu" ] || prepare_environment
  port="$("$VENV/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
fi
export PATH="$VENV/bin:$PATH"

# XLA cuts large sums on a CPU by the number of its threads, which follows the devices of a process: NPROC makes it the
# same in every layout, and so the bits of the losses.
settings_of() { # I: what tells process I who it is
  settings=(
    JAX_PLATFORMS=cpu "NPROC=${NPROC:-$((processes * devices))}"
    "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices"
    "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_NUM_PROCESSES=$processes" "JAX_PROCESS_ID=$1"
  )
}

if [ -n "$dry_run" ]; then
  for ((i = 0; i < processes; i++)); do
    settings_of "$i"
    printf '%q ' env "${settings[@]}" "$@"
    printf '&\n'
  done
  echo wait
  exit
fi

named() { # NAME: puts it before every line; not awk or sed, of which some wait for a block of lines
  trap '' INT TERM
  while IFS= read -r line || [ -n "$line" ]; do printf '[%s] %s\n' "$1" "$line"; done
}

# Each in a process group of its own, so that Ctrl-C of the terminal reaches it once: from here.
set -m
pids=()
for ((i = 0; i < processes; i++)); do
  settings_of "$i"
  env "${settings[@]}" "$@" > >(named "$i") 2>&1 &
  pids+=($!)
done
to_all() { kill "-$1" ${pids[@]+"${pids[@]}"} 2>/dev/null; }
trap 'to_all TERM' INT TERM

worst=0
while [ ${#pids[@]} -gt 0 ]; do
  left=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      left+=("$pid")
      continue
    fi
    wait "$pid"
    code=$?
    if [ $worst -eq 0 ] && [ $code -ne 0 ]; then
      worst=$code ended=$SECONDS
      echo "$(basename "$0"): a process ended with exit code $code" >&2
    fi
  done
  pids=(${left[@]+"${left[@]}"})
  # They end by themselves when they miss the one that is gone; none is left behind.
  if [ $worst -ne 0 ] && [ $((SECONDS - ended)) -ge 8 ]; then to_all KILL; fi
  sleep 0.2
done
exit "$worst"
