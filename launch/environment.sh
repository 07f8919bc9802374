# Sourced by quickstart.sh and test.sh: makes and fills .venv in the checkout; a second call costs nothing.
# Needs only a Python 3.11 or 3.12 with its own venv and pip. PYTHON=/path/to/python names one; VENV=/path moves .venv.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$ROOT/.venv}"

fail() {
  echo "$(basename "$0"): error: $*" >&2
  exit 2
}

# Prints "3.11" and the like, or nothing where the interpreter does not run (a version manager's shim, say).
version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

find_python() {
  local candidate version seen="" names=(python3.11 python3.12 python3 python)
  [ -n "${PYTHON:-}" ] && names=("$PYTHON")
  for name in "${names[@]}"; do
    while read -r candidate; do
      version="$(version_of "$candidate")"
      case "$version" in
        3.11 | 3.12)
          if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
          fi
          seen="$seen; $candidate is Python $version without venv (Debian: apt install python$version-venv)"
          ;;
        "") seen="$seen; $candidate does not run" ;;
        *) seen="$seen; $candidate is Python $version" ;;
      esac
    done < <(type -aP "$name")
  done
  fail "wanted Python 3.11 or 3.12, found none${seen:+: ${seen#; }}. Install one, or name it: PYTHON=/path/to/python3.11 $0"
}

make_venv() {
  if [ ! -e "$VENV/bin/python" ]; then
    local python
    python="$(find_python)" || exit 2
    echo "making $VENV with $python"
    "$python" -m venv "$VENV" || fail "could not make $VENV"
  fi
  case "$(version_of "$VENV/bin/python")" in
    3.11 | 3.12) ;;
    "") fail "$VENV is broken (its Python has moved or gone): remove it and run this again" ;;
    *) fail "$VENV holds Python $(version_of "$VENV/bin/python"); wanted 3.11 or 3.12: remove it and run this again" ;;
  esac
  "$VENV/bin/python" -c 'import pip' 2>/dev/null || "$VENV/bin/python" -m ensurepip >/dev/null || fail "no pip in $VENV"
}

# install NAME PIP-ARGUMENTS...: runs pip once for this content of the requirements, checkout and Python.
install() {
  local name="$1" stamp digest
  shift
  stamp="$VENV/ssu-$name.stamp"
  digest="$({ cat "$ROOT/requirements.txt" "$ROOT/setup.py" && echo "$ROOT $* $(version_of "$VENV/bin/python")"; } | cksum)"
  [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] && return
  echo "installing into $VENV: $name"
  local quiet=()
  [ -t 1 ] || quiet=(--quiet)
  "$VENV/bin/python" -m pip install --disable-pip-version-check ${quiet[@]+"${quiet[@]}"} "$@" \
    || fail "the installation failed (see above); run this again once the cause is mended"
  echo "$digest" > "$stamp"
}

# prepare_environment [--full]: the pinned packages and this checkout; --full adds torch and TensorFlow.
prepare_environment() {
  make_venv
  install packages --requirement "$ROOT/requirements.txt" --editable "$ROOT[test]"
  if [ "${1:-}" = --full ]; then
    # pip's own settings (PIP_FIND_LINKS and the like) decide which build of torch comes; the CPU one is enough.
    install full --requirement "$ROOT/requirements.txt" --editable "$ROOT[test-full]"
  fi
}
