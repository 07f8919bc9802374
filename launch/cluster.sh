# shellcheck shell=bash disable=SC2034
# Sourced by the scripts that start runs on clusters: their options, the dry run, the command that every host runs.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# What the exit codes of `ssu train` ask for. Starting again helps after these: 75 a peer was lost (or, by
# --stopped-code, the run was asked to stop and has saved), 76 it stood still. A process that a signal ended (its
# memory was taken: 137; its peers were gone: 134, jax's own abort) is a peer lost to the others.
RESTARTS=(75 76)
DIED=(134 137)
# After these it does not: 1 a check, 2 a user's mistake, 70 a defect, 77 numbers, 78 data, 79 no usable checkpoint;
# 126 and 127 are the shell's: no such program.
ENDS=(1 2 70 77 78 79 126 127)

dry_run="" train_options=() train=()

# The comment at the top of the script is its help.
usage() {
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
  exit
}

# read_options "name zone" "slices spot" "$@": --name VALUE or --name=VALUE sets $name. Those of the first list must be
# given; one whose default is "no" is a flag. What follows -- goes to `ssu train`.
read_options() {
  # Local names that no option has: --name sets $name.
  local _known=" $1 $2 " _required="$1" _option _key
  shift 2
  while [ $# -gt 0 ]; do
    _option="${1%%=*}"
    _key="${_option#--}" _key="${_key//-/_}"
    case "$1" in
      -h | --help) usage ;;
      --dry-run) dry_run=yes ;;
      --)
        shift
        train_options=("$@")
        break
        ;;
      --*)
        [[ "$_known" = *" $_key "* ]] || fail "no such option: $_option (see --help; options of ssu train follow --)"
        if [[ "${!_key}" = no || "${!_key}" = yes ]]; then
          [ "$_option" = "$1" ] || fail "$_option takes no value"
          printf -v "$_key" yes
        elif [ "$_option" != "$1" ]; then
          printf -v "$_key" %s "${1#*=}"
        else
          [[ $# -gt 1 && "$2" != --* ]] || fail "$_option wants a value"
          printf -v "$_key" %s "$2"
          shift
        fi
        ;;
      *) fail "wanted an option, got $1 (see --help; options of ssu train follow --)" ;;
    esac
    shift
  done
  for _key in $_required; do
    [ -n "${!_key}" ] || fail "wanted --${_key//_/-} (see --help)"
  done
}

# A number of at least $2.
check_number() {
  case "${!1}" in *[!0-9]* | "") fail "--${1//_/-}: wanted a whole number, got ${!1}" ;; esac
  [ "${!1}" -ge "$2" ] || fail "--${1//_/-}: wanted at least $2, got ${!1}"
}

# Becomes part of a name, a path or a file that others read.
check_name() {
  [[ "${!1}" =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] \
    || fail "--${1//_/-}: wanted at most 40 small letters, digits and hyphens, got ${!1}"
}

# need PROGRAM WHERE-FROM: a dry run needs none.
need() {
  [ -n "$dry_run" ] || command -v "$1" >/dev/null || fail "$1 is not installed: $2 (--dry-run works without)"
}

# Words as a shell would read them back.
quoted() {
  local word text="" quote="'" escaped="'\\''"
  for word in "$@"; do
    [[ "$word" =~ ^[-A-Za-z0-9_./:=,@%+]+$ ]] || word="'${word//$quote/$escaped}'"
    text+=" $word"
  done
  echo "${text# }"
}

# Runs a command, or prints it as it would be typed.
run() {
  if [ -n "$dry_run" ]; then
    quoted "$@"
  else
    "$@"
  fi
}

# As `run`, with a text as the command's input.
run_with() {
  if [ -n "$dry_run" ]; then
    printf '%s <<"INPUT"\n%s\nINPUT\n' "$(quoted "${@:2}")" "$1"
  else
    "${@:2}" <<<"$1"
  fi
}

# Sets $train, the command of every host; the same one starts and resumes.
train_with() { # SSU CONFIG WORKDIR
  train=("$1" train --stopped-code=75 --config "$2" --workdir "$3" ${train_options[@]+"${train_options[@]}"})
}

# A file of this checkout, without the row that may follow a colon.
check_config() {
  [ -f "$ROOT/${1%%:*}" ] || fail "--config: no such file in the checkout: $1"
}

# A bucket is mounted at /mnt/BUCKET: checkpoints are written as files.
mounted() {
  case "$1" in
    gs://*) echo "/mnt/${1#gs://}" ;;
    /*) echo "$1" ;;
    *) fail "--workdir: wanted an absolute path that every host sees, or gs://BUCKET/FOLDER, got $1" ;;
  esac
}

# The bucket of gs://BUCKET/FOLDER, else nothing.
bucket_of() {
  case "$1" in gs://*) cut -d/ -f3 <<<"$1" ;; esac
}

# Whether the first is among the others.
holds() {
  local code="$1" each
  shift
  for each in "$@"; do [ "$each" = "$code" ] && return; done
  return 1
}
