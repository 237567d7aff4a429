# The one list of commands. CI calls the same targets as the README.
#
# Needed: a C compiler, git, make and a Rust toolchain; for a part of the interop tests a Python 3.10 or newer. All
# else is fetched without root, below the target folder or cargo's own cache, and named as it is set up.
# CARGO_TARGET_DIR is honoured throughout.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export CARGO_TARGET_DIR := $(TARGET)

# etcd-client's build script needs protoc. Looked up once, and only by the targets that compile.
PROTOC_PATH = $(eval PROTOC_PATH := $$(or $$(PROTOC),$$(shell tests/tools/protoc.sh $(TARGET)/tools),$$(error no protoc, see above)))$(PROTOC_PATH)
CARGO = PROTOC='$(PROTOC_PATH)' cargo

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## release binaries, with all set-up
	$(CARGO) build --release --locked -p svcctl -p demo-services

.PHONY: demo
demo: build ## the main job, told in about a minute on an embedded etcd; DEMO_ETCD=URL takes a given one, KEEP=1 leaves it up
	$(TARGET)/release/svcctl demo $(if $(KEEP),--keep)

.PHONY: tools
tools: ## real etcds, a PostgreSQL and a Python with grpcio for the tests, unpacked under target/tools
	@tests/tools/etcd.sh $(TARGET)/tools
	@tests/tools/postgres.sh $(TARGET)/tools
	@tests/tools/python.sh $(TARGET)/tools
	@tests/tools/chromium.sh

# Most tests wait for events: more of them at once than there are cores.
export RUST_TEST_THREADS ?= 8

.PHONY: test
test: tools ## all tests, on the embedded etcd and on two real ones
	SVC_TOOLS=$(TARGET)/tools $(CARGO) test --locked --workspace

.PHONY: soak
soak: tools ## 200 instances on a cluster of three, through everything that can happen, for MINUTES=1
	SOAK_MINUTES=$(or $(MINUTES),1) SVC_TOOLS=$(TARGET)/tools $(CARGO) test --locked -p svc-tests --test registration -- \
		--ignored --exact soak::soak --nocapture

.PHONY: gift-soak
gift-soak: build tools ## gifts, RATE=100 a second for SECONDS=300, while services are killed; DATABASE=postgres or sqlite
	env SECONDS=$(or $(SECONDS),300) RATE=$(or $(RATE),100) SVC_TOOLS=$(TARGET)/tools $(CARGO) test --release --locked -p svc-tests \
		--test gift -- --exact soak::$(or $(DATABASE),postgres) --nocapture

.PHONY: histories
histories: tools ## random histories of registrations, STEPS=100000 on the embedded etcd and 1,000 on real ones
	HISTORY_STEPS=$(or $(STEPS),100000) SVC_TOOLS=$(TARGET)/tools $(CARGO) test --locked -p svc-tests --test registration -- \
		history:: --nocapture

.PHONY: cluster
cluster: ## the services on three etcd nodes and a PostgreSQL, with docker compose; docs/cluster.md
	@MAKE='$(MAKE)' docker/cluster.sh up

.PHONY: cluster-down
cluster-down: ## away with it, data and all
	@docker/cluster.sh down

.PHONY: cluster-test
cluster-test: ## every fault that a cluster of its own has to stand, under load; a table at the end
	@MAKE='$(MAKE)' docker/cluster.sh test

.PHONY: cluster-test-driver
cluster-test-driver:
	@$(CARGO) build --quiet --locked -p svc-tests --bin cluster-test
	@$(TARGET)/debug/cluster-test $(PROJECT)

.PHONY: lint
lint: ## formatting, clippy with warnings as errors, docs
	cargo fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

.PHONY: bench
bench: tools ## ratios against stock tonic and raw etcd, from one run; writes target/bench/report.json
	$(CARGO) build --release --locked -p svc-bench
	SVC_TOOLS=$(TARGET)/tools $(TARGET)/release/svc-bench

.PHONY: faults
faults: ## one line for each fault of docs/faults.md: how many tests it has
	@tests/tools/faults.sh
