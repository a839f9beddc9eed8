# What each target does: `make help`. Everything may be repeated; what is there already is not made again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build test test-vm demo bench sim soak fuzz fmt lint

TRIPLE     := x86_64-unknown-linux-gnu
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
BUILT      := $(TARGET_DIR)/$(TRIPLE)/release
COVEY      := $(CURDIR)/target/release/covey
PROGRAMS   := covey covey-lab
needs      := @test-vms/scripts/needs

# Tests start containers and machines. Who is not root runs the built tests, not the compiler, through sudo.
ifneq ($(shell id -u),0)
AS_ROOT := sudo --preserve-env
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(AS_ROOT)
endif

help:
	@printf '%s\n' \
	  'make build                target/release/covey (the agent and the command line, one static binary) and covey-lab' \
	  'make test                 installs what is missing and runs every test' \
	  'make test-vm [STORY=]     stories of whole cells, told on virtual machines with a stock kernel; STORY names one' \
  'make demo                 three nodes on this machine: jobs, a container, an agent and a machine killed, why, overcommit (2 minutes)' \
	  'make bench [NAME=] [COUNT=]   each figure beside its peer'"'"'s; NAME runs one: $(BENCHES)' \
	  'make fuzz [SECONDS=60]    runs each fuzz target for a while (needs cargo-fuzz and a nightly toolchain)' \
	  'make fmt, make lint       formats; checks format and lints' \
	  'make sim SEEDS=N          the seeded simulations of make test, with so many seeds' \
	  'make soak MINUTES=N       faults on a real host for so long'

BENCHES := start submit agent-kills cycles start-cycle starts shim-memory memory many estimate idle logs upgrades beside antagonists hog jump valley cell-up cell-submit cell-crash cell-placer placer-kills reclaimed death-50 swim

build:
	$(needs) build
	cargo build --release --locked --package covey --package test-vms $(PROGRAMS:%=--bin %)
	@mkdir -p $(dir $(COVEY))
# A copy, as every installed program is one, and not a link: what a linker writes lies in the page cache page by page, what
# is copied in larger pieces, which the kernel maps at once. A container's start is a tenth cheaper for it.
	@for program in $(PROGRAMS); do \
	  rm -f $(dir $(COVEY))$$program; \
	  cp $(BUILT)/$$program $(dir $(COVEY)); \
	done

# The summary of the test runner comes last.
test: build
	$(needs) test
	cargo test --release --locked --workspace --doc --quiet
	cargo test --release --locked --package oci --no-default-features --lib --quiet seccomp
	@if cargo nextest --version >/dev/null 2>&1; then \
	  COVEY=$(COVEY) cargo nextest run --release --locked --workspace; \
	else \
	  echo 'cargo-nextest is not installed: using cargo test'; \
	  COVEY=$(COVEY) cargo test --release --locked --workspace --bins --lib --tests; \
	fi

# The stories of `make test`, which it tells on namespaces, on virtual machines under software emulation: some take minutes.
STORY ?= agent_killed all_off_and_on node_crashed placer_crashed split
test-vm: build
	$(needs) test
	@COVEY=$(COVEY) COVEY_LAB_VM=1 cargo nextest run --release --locked --package test-vms --test stories \
	  --profile long --test-threads 1 --no-fail-fast $(STORY) virtual_machines

demo: build
	$(needs) demo
	@$(AS_ROOT) env COVEY=$(COVEY) test-vms/demo/three-nodes

bench: build
	$(needs) bench
	@cargo build --release --locked --quiet --package test-vms --package gossip --package oci --bin covey-bench --example figures --example cycles
	@$(AS_ROOT) env COVEY=$(COVEY) $(BUILT)/covey-bench $(NAME) $(if $(COUNT),--count $(COUNT))

# The seeded drivers of `make test`, longer: the whole cell in virtual time, and parts of it: the ledger's voters, the
# node's core, a cell of cores under one placer after another. A failing seed is printed; SEED=n with `make test` or here plays it alone.
SEEDS ?= 2000
sim:
	$(needs) build
	@SEEDS=$(SEEDS) cargo nextest run --release --locked --package agent --profile long \
	  -E 'test(=random::random) or test(=cell::random_cell) or test(=sim::raft::nothing_acknowledged_is_lost_and_the_ledger_comes_back) or test(=sim::voters::voters_follow_the_nodes_and_nothing_is_lost) or test(=sim::whole::whole_cell)'

# Faults on a real host for so long: agents killed under tasks, tasks started and stopped.
MINUTES ?= 10
soak: build
	$(needs) bench
	@cargo build --release --locked --quiet --package test-vms --bin covey-bench
	@end=$$(( $$(date +%s) + $(MINUTES) * 60 )); rounds=0; \
	while [ $$(date +%s) -lt $$end ]; do \
	  $(AS_ROOT) env COVEY=$(COVEY) $(BUILT)/covey-bench agent-kills cycles --count 100; rounds=$$((rounds + 1)); \
	done; echo "soak: $$rounds rounds without a fault"

SECONDS ?= 60
fuzz:
	$(needs) fuzz
	@test-vms/scripts/fuzz $(SECONDS)

fmt:
	cargo fmt --all

lint: # as in .ci/run
	$(needs) build
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets --quiet -- -D warnings
