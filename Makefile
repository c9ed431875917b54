# make demo   the main job: fetches what is needed, builds, runs the quickstart pipeline
# make test   everything that tests need, then all tests
# make test-parity   fetches ModelOpt, and compares calibration and quantization with it and with onnxruntime's quantizer
# make test-gpu      what only an NVIDIA GPU shows (libtorch with CUDA on LD_LIBRARY_PATH)
# make test-tensorrt-rtx   fetches TensorRT-RTX, and builds real engines of what is placed for it, without a GPU
# make build-tensorrt-rtx  qpipe with the backend `tensorrt-rtx` (docs/tensorrt-rtx.md)
# make build-tensorrt-11   qpipe, and a trtexec for the TensorRT 11 that pip installs (docs/tensorrt.md)
# make test-tensorrt-11    tests of that program, without TensorRT and without a GPU
# make test-exporters   fetches TensorFlow, Paddle and Ultralytics, and tests what their exporters write (Python 3.11)
PYTHON ?= python3
CARGO  ?= cargo
# Files whose modules a macro declares: `cargo fmt` does not see them.
UNSEEN  = worker/src/ops/standard/*.rs

# The bindings to TensorRT-RTX are generated with libclang: the fetched one, which takes its headers from the C compiler, or that of LIBCLANG_PATH.
ifndef LIBCLANG_PATH
CLANG = LIBCLANG_PATH="$(CURDIR)/.deps/libclang" BINDGEN_EXTRA_CLANG_ARGS="-isystem $$(cc -print-file-name=include)"
endif

.PHONY: demo test test-gpu test-parity test-exporters test-tensorrt-rtx build build-tensorrt-rtx deps deps-test deps-parity deps-exporters deps-tensorrt-rtx build-tensorrt-11 test-tensorrt-11 deps-tensorrt-11 lint fmt doc

demo: build
	target/release/qpipe run pipelines/quickstart.toml

build: deps
	$(CARGO) build --release --locked

test: deps-test
	$(CARGO) test --workspace --locked

build-tensorrt-rtx: deps deps-tensorrt-rtx
	$(CLANG) $(CARGO) build --release --locked --features qpipe-worker/tensorrt-rtx

# Beside qpipe-worker, which finds it there.
build-tensorrt-11: build deps-tensorrt-11
	$(CLANG) $(CARGO) build --release --locked -p qpipe-tensorrt --features tensorrt-11

test-gpu: deps-test
	$(CARGO) test -p qpipe-worker --lib --test it --locked -- --ignored --test-threads 1 gpu

test-parity: deps-parity
	PYTHON=$(PYTHON) $(CARGO) test -p qpipe-worker --test it --locked -- --ignored --test-threads 1 toolkits::

test-exporters: deps-exporters
	PYTHON=$(PYTHON) $(CARGO) test -p qpipe-worker --test it --locked -- --ignored --test-threads 1 exporters::

test-tensorrt-rtx: deps-tensorrt-rtx
	$(CLANG) $(CARGO) test -p qpipe-worker --features tensorrt-rtx --test it --locked tensorrt_rtx::
	$(CLANG) $(CARGO) test -p qpipe-tensorrt --features rtx --locked

test-tensorrt-11: deps-tensorrt-11
	$(CLANG) $(CARGO) clippy -p qpipe-tensorrt --features tensorrt-11 --all-targets --locked -- -D warnings
	$(CLANG) $(CARGO) test -p qpipe-tensorrt --features tensorrt-11 --locked

deps:
	@$(PYTHON) setup/fetch.py native data

deps-test:
	@$(PYTHON) setup/fetch.py native data python pytorch

deps-parity:
	@$(PYTHON) setup/fetch.py native python pytorch modelopt

deps-exporters:
	@$(PYTHON) setup/fetch.py native python pytorch keras paddle ultralytics

deps-tensorrt-rtx:
	@$(PYTHON) setup/fetch.py native tensorrt-rtx libclang

deps-tensorrt-11:
	@$(PYTHON) setup/fetch.py libclang

lint: deps
	$(CARGO) fmt --all --check
	rustfmt --edition 2024 --check $(UNSEEN)
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

fmt:
	$(CARGO) fmt --all
	rustfmt --edition 2024 $(UNSEEN)

doc:
	$(CARGO) doc --workspace --no-deps --locked
