#!/usr/bin/env bash
# The demo services on a three-node etcd, by docker-compose.yml; the Makefile calls it.
#
#   docker/cluster.sh up      images, containers, and a wait until all of it is whole; prints what there is
#   docker/cluster.sh down    away with all of it, its data too
#   docker/cluster.sh test    a cluster of its own, and every fault that it has to stand
#
# Images are replaced by ETCD_IMAGE, POSTGRES_IMAGE, RUNTIME_IMAGE, RUST_IMAGE, SERVICES_IMAGE. PREBUILT=1 takes the
# binaries of `make build`, BINARIES=DIR those of a folder; PREBUILT=0 builds them inside. Without either they are built
# inside where the image of Rust can be had. Where no registry can be reached, images are made from Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
scratch=$target/cluster
mkdir -p "$scratch"

. docker/images.sh

# Longer than a first start takes on a busy machine with two cores.
LIMIT=${CLUSTER_LIMIT:-180}

compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose "$@"
    elif command -v docker-compose >/dev/null; then
        DOCKER_BUILDKIT=0 docker-compose "$@"
    else
        fail 'there is neither "docker compose" nor docker-compose'
    fi
}

tools() { compose exec -T tools "$@"; }

# What has to serve: a line NAME COUNT for each service.
wanted() {
    docker ps -a --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
        --format '{{.Label "com.docker.compose.service"}}' |
        sed -nE 's/^(greeter|balance|gift|edge)-[0-9]+$/\1/p' | sort | uniq -c | awk '{print $2, $1}'
}

until_whole() {
    local end=$((SECONDS + LIMIT)) found name count missing last=
    while :; do
        missing=
        found=$(tools svcctl services -o json 2>/dev/null | tr -d ' \n' || true)
        while read -r name count; do
            [[ $found == *"{\"name\":\"$name\",\"serving\":$count,"* ]] || missing+=" $name"
        done <<<"$wanted"
        [[ -n $missing ]] || return 0
        if [[ $missing != "$last" ]]; then
            say "waiting for$missing"
            last=$missing
        fi
        if ((SECONDS > end)); then
            compose ps >&2 || true
            compose logs --no-color >"$scratch/up.log" 2>&1 || true
            fail "not whole after $LIMIT s; missing:$missing; the containers' own words are in $scratch/up.log"
        fi
        sleep 1
    done
}

up() {
    make_images
    say "starting the containers"
    compose up -d --no-build --remove-orphans >"$scratch/up.log" 2>&1 || {
        tail -n 30 "$scratch/up.log" >&2
        fail 'the containers do not start'
    }
    wanted=$(wanted)
    until_whole
}

down() {
    compose down --volumes --remove-orphans --timeout 5 >"$scratch/down.log" 2>&1 || {
        tail -n 30 "$scratch/down.log" >&2
        fail 'it does not come down'
    }
}

show() {
    local tools
    tools=$(docker ps --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
        --filter label=com.docker.compose.service=tools --format '{{.Names}}')
    tools svcctl services
    echo
    tools svcctl get
    cat <<TEXT

edge     http://127.0.0.1:${EDGE_1_PORT:-8080} and :${EDGE_2_PORT:-8081}: a page, and HTTP and JSON
           curl http://127.0.0.1:${EDGE_1_PORT:-8080}/v1/services
etcd     127.0.0.1:${ETCD_1_PORT:-12379}, :${ETCD_2_PORT:-22379}, :${ETCD_3_PORT:-32379}
           svcctl get --endpoints 127.0.0.1:${ETCD_1_PORT:-12379}
inside   docker exec $tools svcctl drain greeter greeter-1 --wait
           docker exec $tools greeter-load --seconds 5
end it   make cluster-down
TEXT
}

# A cluster of its own, beside one that a user may have up; away with it however the test ends.
test_it() {
    trap '[[ -n ${KEEP:-} ]] || down' EXIT
    # What a run that was killed has left is no start.
    down
    up
    local code=0
    "${MAKE:-make}" --no-print-directory cluster-test-driver PROJECT="$COMPOSE_PROJECT_NAME" || code=$?
    [[ $code == 0 ]] || compose logs --no-color >"$scratch/test.log" 2>&1 || true
    [[ $code == 0 ]] || say "the containers' own words are in $scratch/test.log"
    return "$code"
}

docker info >/dev/null 2>&1 || fail 'no Docker here: "docker info" fails'
if [[ ${1:-} == test ]]; then
    export COMPOSE_PROJECT_NAME=svc-cluster-test
    # So that there are calls under way when something happens.
    export GREETER_DELAY=20ms
    export EDGE_1_PORT=18080 EDGE_2_PORT=18081 ETCD_1_PORT=12381 ETCD_2_PORT=22381 ETCD_3_PORT=32381
else
    export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-svc-cluster}
fi
case ${1:-} in
up)
    up
    show
    ;;
down)
    down
    ;;
test)
    test_it
    ;;
*)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac
