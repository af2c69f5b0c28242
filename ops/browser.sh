#!/usr/bin/env bash
# A Chromium for the dashboard's tests: Debian's, where there is none and this user may install it.
# Without one they are skipped, and say so.
set -euo pipefail
for name in "${MMZERO_CHROMIUM:-}" chromium chromium-browser google-chrome-stable google-chrome; do
    if [ -n "$name" ] && command -v "$name" >/dev/null; then exit 0; fi
done
say() { printf '\033[2mbrowser: %s\033[0m\n' "$*"; }
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "no Chromium, the page's tests are skipped: apt-get install chromium, or set MMZERO_CHROMIUM"
    exit 0
fi
say "installing Chromium for the page's tests"
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; }
install 2>/dev/null || { apt-get update -qq && install; } || say "it could not be installed: the page's tests are skipped"
