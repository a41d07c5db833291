#!/bin/sh
# What the tests of the page need: Chromium, from the distribution where apt has it and this user may install it. Without it
# they print that they were skipped.
set -eu
for name in chromium chromium-headless-shell google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "no Chromium, and no apt-get to install it with: tests of the page will be skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install --quiet --yes --no-install-recommends chromium fonts-dejavu-core >/dev/null; }
install || { apt-get update --quiet >/dev/null && install; } || echo "apt-get has no Chromium: tests of the page will be skipped" >&2
