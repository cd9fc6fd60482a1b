PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/bin/uv

.PHONY: setup demo test test-spark test-slow chromium wrk faketime check bench-features bench-serving format lock lock-peers clean

setup: $(VENV)/ready

# The lock carries hashes; `uv pip sync` makes the environment equal to it, byte for byte. Bytecode is
# compiled here once: where Python may not write it, every command would start in twice the time.
$(VENV)/ready: requirements.lock pyproject.toml src/konveyer/bundle/_forest.c
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || $(BIN)/python -m pip install --quiet "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q src
	touch $@

demo: setup
	$(BIN)/konveyer demo

test: setup chromium wrk faketime
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not spark and not slow"

test-spark: setup
	$(BIN)/python -m pytest -m spark $(or $(TESTS),tests/parity)

test-slow: setup
	$(BIN)/python -m pytest -m slow tests

# The portal is tested in a real browser.
chromium:
	command -v chromium >/dev/null || (apt-get -qq update && apt-get -qq install --yes chromium >/dev/null)

# The load generator of the serving benchmark.
wrk:
	@command -v wrk >/dev/null || (apt-get -qq update && apt-get -qq install --yes wrk >/dev/null)

# Nodes are tested under a clock that jumps.
faketime:
	test -n "$$(ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null)" || (apt-get -qq update && apt-get -qq install --yes libfaketime >/dev/null)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One JSON object a line; ARGS="--quick" or ARGS="--only publish" narrow it (benchmarks/README.md).
bench-features: setup
	@$(BIN)/python -m benchmarks.features.run $(ARGS)

bench-serving: setup wrk
	@$(BIN)/python -m benchmarks.serving.run $(ARGS)

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

COMPILE := pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11

# What the image of deploy/Containerfile has, in the versions of requirements.lock.
IMAGE := --extra development --extra execution --extra onnx --extra postgres --extra redis --extra databases --group image

lock: setup
	$(UV) $(COMPILE) --all-extras --group dev pyproject.toml --output-file requirements.lock
	$(UV) $(COMPILE) $(IMAGE) --constraint requirements.lock pyproject.toml --output-file deploy/requirements.lock

# Benchmarks are run against the versions that these name.
lock-peers: setup
	for peer in benchmarks/peers/*/requirements.in benchmarks/serving/project/requirements.in; do \
		(cd $$(dirname $$peer) && $(abspath $(UV)) $(COMPILE) --upgrade requirements.in \
			--output-file requirements.lock) || exit 1; done

clean:
	rm -rf $(VENV) benchmarks/peers/.environments .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
