# Everything runs in .venv, which `make venv` (and every target that needs it) sets up once.
# Needs make and Python 3.11 or newer; PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up-for-plastic-rl
WORKERS ?= 2
SEEDS ?= 0
FORMATTED := $(wildcard plastic_rl tests benchmarks envs)

# One thread in each process: small networks are slower on more, and results do not depend on the machine.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv train test test-slow check format bench experiments clean

help:
	@echo "make venv         set-up alone: a virtual environment in $(VENV)"
	@echo "make train        set-up, then train and evaluate the default agent (about 2 minutes)"
	@echo "make test         quick tests;  make test-slow: the others"
	@echo "make check        format, lint, types, import order, docstring examples"
	@echo "make format       let the formatter rewrite the code"
	@echo "make bench        measure the speed and memory of training"
	@echo "make experiments  re-run the recorded experiments (SEEDS=0,1,2), skipping what is finished"
	@echo "make clean        remove caches and build products ($(VENV) and runs/ stay)"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "plastic_rl needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	# torch alone and first: pip's own settings (an index or a folder of files) decide which build it is.
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

venv: $(STAMP)

# Each call trains a fresh run: nothing is ever overwritten.
train: $(STAMP)
	$(BIN)/plastic-rl train configs/default.yaml --name "default-$$(date +%Y%m%d-%H%M%S)"

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff format --check $(FORMATTED)
	$(BIN)/ruff check $(FORMATTED)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules plastic_rl -q

format: $(STAMP)
	$(BIN)/ruff format $(FORMATTED)
	$(BIN)/ruff check --fix $(FORMATTED)

bench: $(STAMP)
	$(BIN)/python -m benchmarks

experiments: $(STAMP)
	$(BIN)/python -m plastic_rl.experiment configs --seeds $(SEEDS) $(foreach file,$(wildcard envs/*.py),--plugin $(file))

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
