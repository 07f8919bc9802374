#!/usr/bin/env bash
# Every check: lint, format, floors, tests. Makes .venv first where it is missing.
#
#   ./launch/test.sh                     everything that is quick and needs neither torch nor TensorFlow
#   ./launch/test.sh --full              that too (installs both)
#   ./launch/test.sh --lint              lint, format and floors only (the pre-commit hook)
#   ./launch/test.sh tests/data -k mel   any arguments of pytest
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

mode="" selection=()
case "${1:-}" in
  -h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
    ;;
  --full)
    mode="--full" selection=(-m "full or not full")
    shift
    ;;
  --lint)
    mode="--lint"
    shift
    ;;
esac
prepare_environment "$mode"
# Paths given from another folder keep their meaning; without any, pytest takes testpaths of the checkout.
arguments=()
for argument in "$@"; do
  if [ -e "$argument" ]; then argument="$(cd "$(dirname "$argument")" && pwd)/$(basename "$argument")"; fi
  arguments+=("$argument")
done
cd "$ROOT" || exit 2

# A process a core, a file of tests each; with four the suite waits for its longest file.
processes=(--numprocesses auto --maxprocesses 4 --dist loadfile)
failed=()
check() {
  local name="$1"
  shift
  echo "== $name"
  "$VENV/bin/python" "$@" || failed+=("$name")
}
check lint -m ruff check .
check format -m ruff format --check .
check floors -c 'import importlinter.cli; importlinter.cli.lint_imports_command()' --no-logo
if [ "$mode" != --lint ]; then
  check tests -m pytest "${processes[@]}" ${selection[@]+"${selection[@]}"} ${arguments[@]+"${arguments[@]}"}
fi
if [ ${#failed[@]} -gt 0 ]; then
  echo "FAILED: ${failed[*]}"
  exit 1
fi
echo "all checks passed"
