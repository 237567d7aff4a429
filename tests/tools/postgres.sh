#!/usr/bin/env bash
# A real PostgreSQL for the tests, as DIR/postgres/bin/{postgres,initdb}, with DIR/postgres/lib for the libraries that the
# machine lacks, without root and without installing anything. Quick when it is already there.
#
#   tests/tools/postgres.sh DIR
#
# Taken is, in this order: what POSTGRES_BIN names (a folder that holds postgres and initdb), what was unpacked before,
# what is installed, and on Debian and Ubuntu the packages of the machine's own suite, which are unpacked. POSTGRES_FETCH=1
# passes over what is installed. What cannot be had is named, with the reason; that is a failure only with CI=true.
set -euo pipefail

tools=${1:?usage: postgres.sh DIR (where to unpack, such as target/tools)}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
home=$tools/postgres
why=

. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

version_in() { # BIN-FOLDER [LIB-FOLDER] -> 15.18, or nothing
    [[ -x $1/initdb ]] || return 0
    { LD_LIBRARY_PATH=${2:-} "$1/postgres" --version 2>/dev/null || true; } | awk '/PostgreSQL/ {print $3}'
}

installed() { # -> the folder of the newest that is installed
    local bin
    for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(pg_config --bindir 2>/dev/null || true)"; do
        if [[ -n $bin && -n $(version_in "$bin") ]]; then
            echo "$bin"
            return
        fi
    done
}

take() { # BIN-FOLDER [LIB-FOLDER], what lies below DIR relative to it, so that DIR may be moved
    rm -rf "$home/bin" "$home/lib"
    mkdir -p "$home"
    ln -s "${1#"$home/"}" "$home/bin"
    [[ -z ${2:-} ]] || ln -s "${2#"$home/"}" "$home/lib"
}

unpack_from() { # MIRROR SUITE; sets why when it fails
    local work=$tools/.postgres.$$ server package needed bin
    configure_apt "$work" "deb $1 $2 main"
    if ! own_apt "$work" update >"$work/log" 2>&1 || grep -q '^E:\|^Err' "$work/log"; then
        why="suite $2: $(grep -m1 -E '^(E|W|Err)' "$work/log" || tail -n1 "$work/log")"
        return 1
    fi
    server=$(APT_CONFIG=$work/apt.conf apt-cache depends postgresql | awk '$1 == "Depends:" && $2 ~ /^postgresql-[0-9]+$/ {print $2}')
    if [[ -z $server ]]; then
        why="suite $2 has no postgresql"
        return 1
    fi
    # What the server needs beyond what the machine has, by its own list of packages; LLVM aside, which is for compiling
    # queries and as large as all the rest.
    needed=$(own_apt "$work" -o Dir::State::status=/var/lib/dpkg/status -o Debug::NoLocking=1 \
        install -y --no-install-recommends --print-uris "$server" libpq5 2>>"$work/log" |
        awk '/^\047/ {sub(/_.*/, "", $2); if ($2 ~ /^lib/ && $2 !~ /^libllvm/) print $2}' || true)
    # shellcheck disable=SC2086 # names of packages
    if ! (cd "$work" && own_apt "$work" download "$server" libpq5 $needed >>"$work/log" 2>&1); then
        why="suite $2 has no $server that can be fetched: $(tail -n1 "$work/log")"
        return 1
    fi
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
    rm -rf "$home"
    mkdir -p "$home"
    mv "$work/root" "$home/root"
    bin=$(echo "$home"/root/usr/lib/postgresql/*/bin)
    take "$bin" "$(dirname "$(echo "$home"/root/usr/lib/*/libpq.so.5)")"
    if [[ -z $(version_in "$home/bin" "$home/lib") ]]; then
        why="suite $2 carries a $server that does not run here: $(LD_LIBRARY_PATH=$home/lib "$home/bin/postgres" --version 2>&1 | tail -n1)"
        rm -rf "$home"
        return 1
    fi
}

fetch() { # sets why when it fails
    local mirror suite first=
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        why='no apt here; install PostgreSQL, or set POSTGRES_BIN to the folder of its binaries'
        return 1
    fi
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    why='the sources of apt name no mirror'
    while read -r mirror; do
        [[ -n $mirror && -n $suite ]] || continue
        if unpack_from "$mirror" "$suite"; then
            return 0
        fi
        first=${first:-$why}
        rm -rf "$tools/.postgres.$$"
    done <<<"$(mirrors)"
    why=${first:-$why}
    return 1
}

trap 'rm -rf "$tools/.postgres.$$"' EXIT
if [[ -n ${POSTGRES_BIN:-} && -n $(version_in "$POSTGRES_BIN") ]]; then
    echo "postgres  $(version_in "$POSTGRES_BIN"), $POSTGRES_BIN (from POSTGRES_BIN)"
    exit 0
fi
if [[ -z $(version_in "$home/bin" "$home/lib") ]]; then
    bin=
    [[ ${POSTGRES_FETCH:-} == 1 ]] || bin=$(installed)
    if [[ -n $bin ]]; then
        take "$bin"
    elif ! fetch; then
        echo "postgres  none to be had here: $why" >&2
        [[ ${CI:-} != true ]]
        exit
    fi
fi
echo "postgres  $(version_in "$home/bin" "$home/lib"), $(readlink "$home/bin")"
