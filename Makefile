PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/bin/uv

.PHONY: setup demo test chromium check format lock clean

setup: $(VENV)/ready

# The lock carries hashes; `uv pip sync` makes the environment equal to it, byte for byte. Bytecode is
# compiled here once: where Python may not write it, every command would start in twice the time.
$(VENV)/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || $(BIN)/python -m pip install --quiet "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/konveyer demo

test: setup chromium
	$(BIN)/python -m pytest

# The portal is tested in a real browser.
chromium:
	command -v chromium >/dev/null || (apt-get -qq update && apt-get -qq install --yes chromium >/dev/null)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: setup
	$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--all-extras --group dev pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
