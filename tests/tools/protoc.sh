#!/bin/sh
# Prints the path of a protoc, which etcd-client's build script needs, and says on stderr which it is: one that is
# installed, else one that cargo fetches from its registry into its own cache, without root.
#
#   tests/tools/protoc.sh DIR      what is built on the way goes to DIR/protoc
set -eu

tools=${1:?usage: protoc.sh DIR (where to build, such as target/tools)}
here=$(cd "$(dirname "$0")" && pwd)

if installed=$(command -v protoc 2>/dev/null); then
    echo "protoc    $installed ($("$installed" --version))" >&2
    echo "$installed"
elif fetched=$(CARGO_TARGET_DIR=$tools/protoc cargo run --quiet --locked --manifest-path "$here/protoc/Cargo.toml"); then
    echo "protoc    $fetched (fetched by cargo)" >&2
    echo "$fetched"
else
    echo "protoc    none is installed and none could be fetched for this platform: install one" \
        "(Debian: protobuf-compiler, brew: protobuf), or set PROTOC to its path" >&2
    exit 1
fi
