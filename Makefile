# Everything people and CI call. `make help` lists it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Workers of xdist take one thread each; a third one works while others wait for servers and kills.
export OMP_NUM_THREADS ?= 1
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export WANDB_MODE ?= offline
export WANDB_ERROR_REPORTING := false
# A run starts dozens of processes, each of which would compile this package anew without its cache.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo demo-full test test-slow test-gpu infra lint format bench constraints graph clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## Install everything into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "svd needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraints constraints.txt --editable '.[dev]'
	@$(BIN)/python -m compileall -q -j 0 svd flows
	@touch $@

demo: install  ## Run the whole pipeline on real video: curate, train, evaluate, register (about 8 minutes)
	@$(BIN)/svd demo

demo-full: install  ## Run the demo and what is derived from its models: interpolation, adapters (about 25 minutes)
	@$(BIN)/svd demo --full

test: install lint  ## Lint, then run the tests (no GPU, no account, no running service)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not slow and not gpu and not infra'

test-slow: install  ## Run the slow checks (tens of minutes)
	$(BIN)/pytest -m 'slow and not gpu and not infra'

test-gpu: install  ## Run the checks that need a CUDA device
	$(BIN)/pytest -m gpu

infra: install  ## Check infra/ with terraform and kubectl, where they are on the PATH
	$(BIN)/uv pip install --python $(BIN)/python --constraints constraints.txt --editable '.[dev,infra]'
	$(BIN)/pytest -m infra tests/infra

lint: install  ## Check style, types and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: install  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## Run the benchmarks; paste what they print into benchmarks/LOG.md
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

constraints: install  ## Renew constraints.txt from what resolves today
	@{ echo "# Exact versions that were tested together; make constraints renews them. Names and versions only."; \
	  $(BIN)/uv pip compile --quiet --extra dev --no-annotate --no-header pyproject.toml; } > constraints.txt.partial
	@mv constraints.txt.partial constraints.txt

graph: install  ## Write into dvc.yaml which code each stage hangs on
	$(BIN)/python -m tests.contract.graph_code

clean:  ## Remove live state and stage outputs of this checkout (not the DVC cache)
	rm -rf .runs wandb data models reports samples
