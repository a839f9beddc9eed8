# What each target does: `make help`. Everything may be repeated; what is there already is not made again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build test demo bench sim soak fuzz fmt lint

TRIPLE     := x86_64-unknown-linux-gnu
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
BUILT      := $(TARGET_DIR)/$(TRIPLE)/release
COVEY      := $(CURDIR)/target/release/covey
needs      := @test-vms/scripts/needs

# Tests start containers and machines. Who is not root runs the built tests, not the compiler, through sudo.
ifneq ($(shell id -u),0)
AS_ROOT := sudo --preserve-env
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(AS_ROOT)
endif

help:
	@printf '%s\n' \
	  'make build                target/release/covey: the agent and the command line, one static binary' \
	  'make test                 installs what is missing and runs every test' \
	  'make demo                 one node: jobs, a killed container, a killed agent, logs, why (under a minute)' \
	  'make bench [NAME=] [COUNT=]   each figure beside its peer'"'"'s; NAME runs one: $(BENCHES)' \
	  'make fuzz [SECONDS=60]    runs each fuzz target for a while (needs cargo-fuzz and a nightly toolchain)' \
	  'make fmt, make lint       formats; checks format and lints' \
	  'make sim SEEDS=N, make soak MINUTES=N   not there yet'

BENCHES := start submit agent-kills cycles memory

build:
	$(needs) build
	cargo build --release --locked --package covey
	@mkdir -p $(dir $(COVEY))
	@rm -f $(COVEY)
	@ln $(BUILT)/covey $(COVEY) 2>/dev/null || cp $(BUILT)/covey $(COVEY)

# The summary of the test runner comes last.
test: build
	$(needs) test
	cargo test --release --locked --workspace --doc --quiet
	@if cargo nextest --version >/dev/null 2>&1; then \
	  COVEY=$(COVEY) cargo nextest run --release --locked --workspace; \
	else \
	  echo 'cargo-nextest is not installed: using cargo test'; \
	  COVEY=$(COVEY) cargo test --release --locked --workspace --bins --lib --tests; \
	fi

demo: build
	$(needs) demo
	@$(AS_ROOT) env COVEY=$(COVEY) test-vms/demo/one-node

bench: build
	$(needs) bench
	@cargo build --release --locked --quiet --package test-vms --bin covey-bench
	@$(AS_ROOT) env COVEY=$(COVEY) $(BUILT)/covey-bench $(NAME) $(if $(COUNT),--count $(COUNT))

sim soak:
	@echo 'make $@: not there yet; the simulation and the faults on several hosts come with the cell of many nodes.' >&2
	@exit 1

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
