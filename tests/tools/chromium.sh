#!/usr/bin/env bash
# A Chromium and its ChromeDriver for the test of the edge's page. Taken is what is installed; with CI=true and as root on
# Debian they are installed. Where there are none the test says so: everything that the page asks for is tested without it.
set -euo pipefail

found() {
    command -v chromedriver >/dev/null && command -v chromium >/dev/null
}

if ! found && [[ ${CI:-} == true && $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "chromium  installing Debian's chromium and chromium-driver"
    {
        timeout 120 apt-get -qq update
        DEBIAN_FRONTEND=noninteractive timeout 480 apt-get -qq install -y --no-install-recommends chromium chromium-driver
    } </dev/null >/dev/null 2>&1 || true
fi
if found; then
    echo "chromium  $(chromedriver --version 2>/dev/null | awk '{print $2}'), $(command -v chromium)"
else
    echo "chromium  none here: the page is not tried in a browser; \`apt install chromium chromium-driver\` is what it takes" >&2
fi
