# Everything runs in .venv, which `make venv` (and every target that needs it) sets up once.
# Needs make and Python 3.11 or newer; PYTHON=python3.12 chooses another interpreter. With a C++ compiler the package gets its
# compiled core, without one it is pure Python; PLASTIC_RL_REQUIRE_NATIVE=1 makes a failure to build the core an error.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up-for-plastic-rl
WORKERS ?= 2
SEEDS ?= 0
FORMATTED := $(wildcard plastic_rl tests benchmarks envs)
NATIVE := CMakeLists.txt $(wildcard plastic_rl/_native/src/*)

# One thread in each process: small networks are slower on more, and results do not depend on the machine.
export OMP_NUM_THREADS ?= 1

# For all that pip installs, and for what it builds with: older versions of pip read the first for both, newer ones the second.
# As an address, because pip would split a path at its spaces.
SPACE := $(subst ,, )
export PIP_CONSTRAINT := file://$(subst $(SPACE),%20,$(CURDIR))/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)

.DEFAULT_GOAL := help
.PHONY: help venv train test test-slow test-pure sanitize check format bench experiments wheel clean

help:
	@echo "make venv         set-up alone: a virtual environment in $(VENV)"
	@echo "make train        set-up, then train and evaluate the default agent (half a minute)"
	@echo "make test         quick tests;  make test-slow: the others"
	@echo "make test-pure    install without the compiled core, into a temporary folder, and train there for a moment"
	@echo "make sanitize     run the compiled core's kernels under sanitizers of addresses and undefined behaviour (minutes)"
	@echo "make check        format, lint, types, import order, docstring examples"
	@echo "make format       let the formatter rewrite the code"
	@echo "make bench        measure speed and memory, into bench.json (about 10 minutes)"
	@echo "make experiments  re-run the recorded experiments (SEEDS=0,1,2), skipping what is finished"
	@echo "make wheel        a source distribution, and a wheel made of it, in dist/"
	@echo "make clean        remove caches and build products, the compiled core too (runs/ and what is in $(VENV) stay)"

$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "plastic_rl needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	# torch alone and first: pip's own settings (an index or a folder of files) decide which build it is.
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install torch
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@

venv: $(STAMP)

# Each call trains a fresh run: nothing is ever overwritten.
train: $(STAMP)
	$(BIN)/plastic-rl train configs/default.yaml --name "default-$$(date +%Y%m%d-%H%M%S)"

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# What a machine without a compiler has, with the dependencies of $(VENV) and away from the source tree, where a core may lie.
test-pure: $(STAMP)
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	PLASTIC_RL_REQUIRE_NATIVE=0 CXX=/bin/false $(BIN)/python -m pip install --no-deps --target "$$folder/site" . && \
	export PYTHONPATH="$$folder/site" PYTHONSAFEPATH=1 && test -f "$$PYTHONPATH/plastic_rl/py.typed" && \
	$(BIN)/python -c 'import sys, plastic_rl._native as n; assert n.__file__.startswith(sys.argv[1]) and not n.levels()' "$$folder" && \
	$(BIN)/plastic-rl train configs/default.yaml --runs-folder "$$folder/runs" --name pure algorithm.total_timesteps=5000 \
		evaluation.tasks=10 evaluation.valid_tasks=10 'evaluation.baselines=[]' && test -f "$$folder/runs/pure/evaluation.json"

# All levels that this processor has, in a program without Python, against recorded cases.
sanitize: $(STAMP)
	$(BIN)/python tests/native/sanitize.py

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

wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build

clean:
	rm -rf $(STAMP) build dist plastic_rl/_native/_core*.so *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
