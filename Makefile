# What `make run` starts, and where it keeps its data. `make run LISTEN=127.0.0.1:8000 DATA=/var/lib/choir` says otherwise.
LISTEN ?= 127.0.0.1:7400
DATA ?= data
CARGO ?= cargo

.PHONY: help run test lint no-std crash bench

help:
	@echo "make run     a server on $(LISTEN), with its data in $(DATA)"
	@echo "make test    everything that must hold"
	@echo "make crash   kills a server in the middle of writing, 20 times, and counts what is lost"
	@echo "make bench   first sync and restart over a thread of 1,000,000 entries; fsyncs of 256 writers"

run:
	$(CARGO) run --release --bin choir -- serve --listen $(LISTEN) --data $(DATA)

test: lint no-std
	$(CARGO) test --workspace --all-targets
	$(CARGO) test --workspace --doc

# Formatting, lints and documentation: a warning is a failure.
lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --lib

# Protocol and core build into a program without a system (docs/decisions/0003).
no-std:
	$(CARGO) build --manifest-path crates/choir-core/tests/no_std/Cargo.toml --target-dir target/no-std

crash:
	CHOIR_CRASH_ROUNDS=20 $(CARGO) test --release -p choir-cli --test crash -- --nocapture

bench:
	$(CARGO) build --release -p choir-cli -p choir-bench
	target/release/choir-bench first-sync
	target/release/choir-bench writers
