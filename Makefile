# make demo   the main job: fetches what is needed, builds, runs the quickstart pipeline
# make test   everything that tests need, then all tests
PYTHON ?= python3
CARGO  ?= cargo
# Files whose modules a macro declares: `cargo fmt` does not see them.
UNSEEN  = worker/src/ops/standard/*.rs

.PHONY: demo test build deps deps-test deps-tensorrt-rtx lint fmt doc

demo: build
	target/release/qpipe run pipelines/quickstart.toml

build: deps
	$(CARGO) build --release --locked

test: deps-test
	$(CARGO) test --workspace --locked

deps:
	@$(PYTHON) setup/fetch.py native data

deps-test:
	@$(PYTHON) setup/fetch.py native data python pytorch

deps-tensorrt-rtx:
	@$(PYTHON) setup/fetch.py tensorrt-rtx

lint: deps
	$(CARGO) fmt --all --check
	rustfmt --edition 2024 --check $(UNSEEN)
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

fmt:
	$(CARGO) fmt --all
	rustfmt --edition 2024 $(UNSEEN)

doc:
	$(CARGO) doc --workspace --no-deps --locked
