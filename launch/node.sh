#!/usr/bin/env bash
# Makes a machine of a cluster ready: a Python where it has none that fits, .venv in the checkout, jax for its chips,
# and a bucket as a folder. A second call costs nothing.
#
#   launch/node.sh tpu               chips: tpu, cuda12, cuda13 (extras of setup.py)
#   launch/node.sh tpu my-bucket     also mounts gs://my-bucket at /mnt/my-bucket
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

case "${1:-}" in
  -h | --help)
    sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
    ;;
  tpu | cuda12 | cuda13) ;;
  *) fail "wanted tpu, cuda12 or cuda13, got ${1:-nothing}" ;;
esac

# Images of TPU machines come with Python 3.10: uv, from their own pip, fetches one that fits.
if [ ! -e "$VENV/bin/python" ] && ! (find_python) >/dev/null 2>&1; then
  python3 -m pip install --quiet --user uv || fail "no Python 3.11 or 3.12 here, and pip could not install uv to fetch one"
  python3 -m uv python install --quiet 3.12
  PYTHON="$(python3 -m uv python find 3.12)"
fi
prepare_environment
install "$1" --requirement "$ROOT/requirements.txt" --editable "${ROOT}[$1]"

bucket="${2:-}"
if [ -n "$bucket" ] && ! mountpoint -q "/mnt/$bucket"; then
  command -v gcsfuse >/dev/null || fail "gcsfuse is not installed (cloud.google.com/storage/docs/cloud-storage-fuse/install)"
  sudo mkdir -p "/mnt/$bucket"
  sudo chown "$(id -u)" "/mnt/$bucket"
  # A checkpoint is written into a folder that is renamed when it is whole; by default gcsfuse refuses to rename one.
  gcsfuse --implicit-dirs --rename-dir-limit=200000 "$bucket" "/mnt/$bucket"
fi
