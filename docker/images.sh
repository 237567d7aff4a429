# Sourced by cluster.sh: the images that docker-compose.yml names, from a registry, or made here from Debian's packages
# where there is none. Sets and exports ETCD_IMAGE, POSTGRES_IMAGE, RUNTIME_IMAGE, SERVICES_IMAGE.

# How long a registry may take to say whether it has an image; to fetch it, it has the time that it needs.
: "${REGISTRY_TIMEOUT:=10}"

. tests/tools/apt.sh

say() { echo "cluster: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

here() { docker image inspect "$1" >/dev/null 2>&1; }

# True if the image is here, or could be pulled.
obtain() { # IMAGE
    here "$1" && return
    [[ ${registry:-} == away ]] && return 1
    local code=0
    timeout "$REGISTRY_TIMEOUT" docker manifest inspect "$1" >/dev/null 2>&1 || code=$?
    if [[ $code != 0 ]]; then
        # One that does not answer at all is not asked again.
        [[ $code != 124 ]] || registry=away
        return 1
    fi
    say "pulling $1"
    docker pull -q "$1" >/dev/null
}

# The image that a variable names; or its default; or, where neither can be had, one that is made here.
choose() { # VARIABLE DEFAULT LOCAL-TAG MAKER
    local variable=$1 default=$2 local_tag=$3 maker=$4
    if [[ -n ${!variable:-} ]]; then
        obtain "${!variable}" || fail "$variable=${!variable}: no such image here, and no registry has it"
    elif obtain "$default"; then
        printf -v "$variable" %s "$default"
    else
        here "$local_tag" || "$maker" "$local_tag"
        printf -v "$variable" %s "$local_tag"
    fi
    export "${variable?}"
}

# Commands that need root: as root, or by sudo where that asks nothing.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

# debootstrap, installed or unpacked; it is a shell script.
find_debootstrap() { # WORKDIR MIRROR SUITE; sets debootstrap
    if command -v debootstrap >/dev/null; then
        debootstrap=(debootstrap)
        return
    fi
    say "fetching debootstrap from $2 (unpacked, not installed)"
    configure_apt "$1/apt" "deb $2 $3 main"
    own_apt "$1/apt" update >"$1/log" 2>&1 && (cd "$1/apt" && own_apt "$1/apt" download debootstrap) >>"$1/log" 2>&1 ||
        fail "no debootstrap: $(tail -n1 "$1/log"); install it, or set RUNTIME_IMAGE"
    dpkg-deb -x "$1"/apt/debootstrap_*.deb "$1/debootstrap"
    debootstrap=(env DEBOOTSTRAP_DIR="$1/debootstrap/usr/share/debootstrap" "$1/debootstrap/usr/sbin/debootstrap")
}

# Debian's base, from the mirror that this machine's own apt sources name.
make_base() { # TAG
    local work mirror tried= code=1 proxy
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "no registry has $1, and this machine has no apt to make it from; set RUNTIME_IMAGE"
    work=$(mktemp -d "$scratch/base.XXXXXX")
    proxy=$(apt-config shell proxy Acquire::http::Proxy | sed -E "s/^proxy='(.*)'$/\1/")
    say "no registry has $1: making it from Debian's packages, half a minute"
    while read -r mirror; do
        [[ $mirror == */debian* ]] || continue
        tried=$mirror
        find_debootstrap "$work" "$mirror" bookworm
        # Outside our own folder: what it makes belongs to root.
        code=0
        as_root env ${proxy:+http_proxy="$proxy"} "${debootstrap[@]}" --variant=minbase --include=ca-certificates \
            bookworm "$work/root" "$mirror" >"$work/log" 2>&1 </dev/null || code=$?
        [[ $code != 0 ]] || break
        say "debootstrap from $mirror: $(tail -n1 "$work/log")"
        as_root rm -rf "$work/root"
    done <<<"$(mirrors)"
    [[ $code == 0 ]] ||
        fail "no base can be made (${tried:-the sources of apt name no mirror of Debian}); set RUNTIME_IMAGE"
    # A third of it is for readers.
    as_root rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/* \
        "$work"/root/usr/share/{doc,man,locale,info}/*
    as_root tar -C "$work/root" -c . | docker import --change 'CMD ["bash"]' - "$1" >/dev/null
    as_root rm -rf "$work"
}

# The etcd that the tests run on.
make_etcd() { # TAG
    tests/tools/etcd.sh "$target/tools" >/dev/null || true
    local bin=$target/tools/etcd-3.5/bin context
    [[ -x $bin/etcd ]] || fail "no registry has an etcd, and tests/tools/etcd.sh finds none; set ETCD_IMAGE"
    say "making $1 from $("$bin/etcd" --version | awk '/^etcd Version/ {print "etcd " $3}')"
    context=$(mktemp -d "$scratch/etcd.XXXXXX")
    cp docker/etcd/Dockerfile "$bin/etcd" "$bin/etcdctl" "$context/"
    build "$1" "$context"
    rm -rf "$context"
}

make_postgres() { # TAG
    local context
    say "making $1 from Debian's packages"
    context=$(mktemp -d "$scratch/postgres.XXXXXX")
    cp docker/postgres/{Dockerfile,entrypoint.sh} "$context/"
    # Of this machine's way to the packages all that means the same inside: no paths.
    apt-config dump | grep -E '^Acquire::(Check-|Retries|http|https)' | grep -v '"/' >"$context/host.conf" || true
    build "$1" "$context"
    rm -rf "$context"
}

# On the host's network: its names and proxies are those by which this machine reaches its packages.
build() { # TAG CONTEXT ARGUMENT...
    local tag=$1 context=$2 log
    shift 2
    log=$(mktemp "$scratch/build.XXXXXX")
    if ! docker build --network host --build-arg RUNTIME_IMAGE="$RUNTIME_IMAGE" -t "$tag" "$@" "$context" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "docker build of $tag failed"
    fi
    rm -f "$log"
}

# Ours: built inside, or from binaries that are there.
make_services() {
    local context binary rust=${RUST_IMAGE:-rust:1-bookworm}
    if [[ -z ${PREBUILT:-} ]]; then
        if obtain "$rust"; then PREBUILT=0; else PREBUILT=1; fi
        [[ $PREBUILT == 0 ]] || say "no registry has $rust: taking binaries that are built here"
    fi
    if [[ $PREBUILT != 1 ]]; then
        say "building $SERVICES_IMAGE with $rust, some minutes"
        build "$SERVICES_IMAGE" . -f docker/Dockerfile --build-arg RUST_IMAGE="$rust"
        return
    fi
    # Into a folder of BINARIES, or as `make build` makes them.
    local folder=${BINARIES:-$target/release}
    [[ -n ${BINARIES:-} ]] || "${MAKE:-make}" --no-print-directory build
    context=$(mktemp -d "$scratch/services.XXXXXX")
    mkdir "$context/prebuilt"
    for binary in svcctl greeter greeter-load balance gift edge edge-load; do
        [[ -x $folder/$binary ]] || fail "there is no $folder/$binary; build it, or set BINARIES to its folder"
        # Without what only a debugger reads: a tenth of the size.
        strip -o "$context/prebuilt/$binary" "$folder/$binary" 2>/dev/null || cp "$folder/$binary" "$context/prebuilt/"
    done
    say "building $SERVICES_IMAGE from the binaries in $folder"
    build "$SERVICES_IMAGE" "$context" -f docker/Dockerfile --build-arg PREBUILT=1 --build-arg RUST_IMAGE="$RUNTIME_IMAGE"
    rm -rf "$context"
}

make_images() {
    local debian=debian:bookworm-slim
    choose RUNTIME_IMAGE "$debian" "$debian" make_base
    choose ETCD_IMAGE quay.io/coreos/etcd:v3.5.21 svc-local/etcd:3.5 make_etcd
    choose POSTGRES_IMAGE postgres:15-bookworm svc-local/postgres:15 make_postgres
    if [[ -n ${SERVICES_IMAGE:-} ]]; then
        obtain "$SERVICES_IMAGE" || fail "SERVICES_IMAGE=$SERVICES_IMAGE: no such image here, and no registry has it"
    else
        SERVICES_IMAGE=svc-demo-services
        make_services
    fi
    export SERVICES_IMAGE
}
