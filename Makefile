# The project's front door: `make demo` and `make test` need nothing but Python >= 3.11 and pip on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Two tests at a time, those with servers one by one (tests/conftest.py); PYTEST_ARGS= for one after the other.
PYTEST_ARGS ?= -n 2

.PHONY: demo test check bench lock up down clean screenshots

demo: $(VENV)/.runtime
	$(BIN)/reca demo

up: $(VENV)/.runtime
	$(BIN)/reca up

down: $(VENV)/.runtime
	$(BIN)/reca down

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m deployments.lock --check

# How fast the rooms are: make bench, make bench SECTIONS=judging BENCH_ARGS="--output bench.json"
bench: $(VENV)/.runtime
	$(BIN)/python -m deployments.bench $(SECTIONS) $(BENCH_ARGS)

# The pictures of both UIs in docs/images, from a run that is longer than the tests' (some minutes).
screenshots: $(VENV)/.dev
	RECA_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/browser/test_results.py

# Writes requirements.lock and requirements-dev.lock from the ranges in pyproject.toml.
lock: $(VENV)/.dev
	$(BIN)/python -m deployments.lock --write

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, %s is %d.%d: set PYTHON=/path/to/python3.11" % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet -r requirements-dev.lock
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
