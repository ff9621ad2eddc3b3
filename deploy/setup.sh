#!/usr/bin/env bash
# Makes .venv as constraints.txt pins it, and the system libraries that it needs.
# It says first what that costs, and does nothing when nothing has changed.
# Usage: deploy/setup.sh [browser]   (browser: Chromium too, for the tests of the page)
set -euo pipefail
cd "$(dirname "$0")/.."

readonly COST="4 GB to download, 7.7 GB on disk; 2 minutes at 100 MB/s, 8 at 10 MB/s"

say() { echo "[setup] $*"; }

libraries_missing() {
  local pair known
  known=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p)
  for pair in libusb-1.0.so.0=libusb-1.0-0 libGL.so.1=libgl1 libgomp.so.1=libgomp1 \
    libX11.so.6=libx11-6; do
    grep -qF "${pair%=*} " <<<"$known" || echo "${pair#*=}"
  done
  if [[ "${1:-}" == browser ]] && ! command -v chromium >/dev/null; then echo chromium; fi
  if [[ -z "$(find_uv)" ]] && ! python3 -c 'import ensurepip' 2>/dev/null; then
    echo python3-venv
  fi
}

install_libraries() {
  local missing sudo=()
  missing=$(libraries_missing "$@" | xargs)
  if [[ -z "$missing" ]]; then return; fi
  if [[ $EUID -ne 0 ]]; then sudo=(sudo -n); fi
  if ! command -v apt-get >/dev/null || ! "${sudo[@]}" true 2>/dev/null; then
    say "These system packages are missing and I may not install them. Run this, then try again:"
    echo "sudo apt-get update && sudo apt-get install -y --no-install-recommends $missing"
    exit 1
  fi
  say "Installing system packages: $missing"
  "${sudo[@]}" apt-get update -qq
  # shellcheck disable=SC2086  # one word a package
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $missing
}

find_uv() {
  local path
  for path in "$(command -v uv || true)" "$HOME/.local/bin/uv" .uv/bin/uv; do
    if [[ -n "$path" ]] && "$path" --version >/dev/null 2>&1; then
      echo "$path"
      return
    fi
  done
}

obtain_uv() {
  if [[ -z "$(find_uv)" ]]; then
    say "Fetching uv, the installer, into .uv"
    python3 -m venv .uv
    .uv/bin/python -m pip install -q uv
  fi
}

fingerprint() { cat pyproject.toml constraints.txt deploy/setup.sh | sha256sum | cut -d' ' -f1; }

install_packages() {
  local uv wanted
  wanted=$(fingerprint)
  if [[ "$(cat .venv/installed 2>/dev/null)" == "$wanted" ]]; then return; fi
  say "Making .venv: $COST. The next time: nothing."
  obtain_uv
  uv=$(find_uv)
  "$uv" venv -q --allow-existing --python '>=3.11' .venv
  "$uv" pip install --python .venv/bin/python -c constraints.txt -e '.[test]'
  echo "$wanted" >.venv/installed
}

install_libraries "$@"
install_packages
