#!/usr/bin/env bash
# A Python with grpcio for the interop tests, as DIR/python/bin/python, without root and without touching the system's
# own packages. Quick when it is already there.
#
#   tests/tools/python.sh DIR
#
# PYTHON names the interpreter to start from (python3 otherwise). Versions are pinned in requirements.txt beside this
# script. What cannot be had is named, with the reason; that is a failure only with CI=true.
set -euo pipefail

tools=${1:?usage: python.sh DIR (where to install, such as target/tools)}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
wanted=$(cd "$(dirname "$0")" && pwd)/requirements.txt
base=${PYTHON:-python3}
home=$tools/python
why=

works() { # the Python of DIR has what is wanted
    cmp -s "$wanted" "$home/requirements.txt" && "$home/bin/python" -c 'import grpc, google.protobuf' 2>/dev/null
}

# Wheels only: building grpcio from source takes longer than all tests.
install=(install --quiet --no-input --disable-pip-version-check --no-warn-script-location --only-binary :all: -r "$wanted")

in_venv() {
    "$base" -m venv "$home" >"$home.log" 2>&1 && "$home/bin/python" -m pip "${install[@]}" >>"$home.log" 2>&1
}

# Without venv (Debian has it in a package of its own), but with pip: a folder, and a python that looks there.
in_folder() {
    "$base" -m pip --version >/dev/null 2>&1 || return 1
    "$base" -m pip "${install[@]}" --target "$home/packages" >>"$home.log" 2>&1 || return 1
    mkdir -p "$home/bin"
    printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" "$@"\n' "$home/packages" "$(command -v "$base")" >"$home/bin/python"
    chmod +x "$home/bin/python"
}

reason() { # the line of the log that says most
    { grep -m1 -E '^(ERROR|error)' "$home.log" || tail -n1 "$home.log"; } 2>/dev/null
}

set_up() {
    if ! command -v "$base" >/dev/null; then
        why="no $base here: install Python 3.10 or newer (Debian: apt install python3-venv), or set PYTHON to its path"
        return 1
    fi
    rm -rf "$home"
    if ! in_venv; then
        rm -rf "$home"
        if ! in_folder; then
            why=$(reason)
            if ! "$base" -c 'import ensurepip' 2>/dev/null && ! "$base" -m pip --version >/dev/null 2>&1; then
                why="$base has neither venv nor pip (Debian: apt install python3-venv)"
            fi
            return 1
        fi
    fi
    cp "$wanted" "$home/requirements.txt"
}

if works || { set_up && works; }; then
    echo "python    $("$home/bin/python" -c 'import grpc, platform; print(platform.python_version(), "with grpcio", grpc.__version__)'), $home/bin/python"
    exit 0
fi
echo "python    no grpcio to be had here: ${why:-it was installed and cannot be imported}" >&2
[[ ${CI:-} != true ]]
