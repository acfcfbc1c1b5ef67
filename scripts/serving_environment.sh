#!/usr/bin/env bash
# Makes the environment in which `fpn serve` runs its server: what serving.lock pins. Nothing where it
# is there already; safe to run again after an interruption. Needs the project's environment (`make setup`).
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

VENV=$(realpath -ms "${VENV:-.venv}")
SERVING=$PWD/.venv-serving
STAMP=$SERVING/.complete

digest=$(cat scripts/serving_environment.sh serving.lock | sha256sum)
[ "$(cat "$STAMP" 2>/dev/null)" != "$digest" ] || exit 0
echo "setup: making $SERVING from serving.lock (2 GB, a minute)" >&2
base=$("$VENV/bin/python" -c 'import sys; print(f"{sys.base_prefix}/bin/python3.{sys.version_info[1]}")')
"$VENV/bin/uv" venv --quiet --clear --python "$base" "$SERVING"
"$VENV/bin/uv" pip sync --quiet --compile-bytecode --require-hashes --python "$SERVING/bin/python" serving.lock || {
  echo "setup: the packages could not be installed: check the network and the disk, then run make serving again" >&2
  exit 2
}
echo "$digest" >"$STAMP"
