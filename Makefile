# Every target sets up what it needs. `make demo` needs Python >= 3.11 with venv, and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info < (3,14))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# A CPU-only PyTorch index, where your index serves the CUDA build by default: make demo TORCH_INDEX=https://...
TORCH_INDEX ?=
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
COVERAGE_MINIMUM := 90
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
SOAK_MINUTES ?= 3
SEEDS ?= 7,18,33

.PHONY: help setup setup-dev demo test test-again test-unit test-integration test-e2e test-crash test-api test-chaos sim sim-full sim-mutants coverage-report bench bench-control quality format docs clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "ktrdr needs Python 3.11, 3.12 or 3.13 on the PATH (with venv). Found none."; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "Could not create $(VENV). On Debian and Ubuntu: apt-get install python3-venv"; exit 2; }

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing ktrdr and its pinned dependencies into $(VENV) (1 to 2 GB unpacked; PyTorch is the largest part) ..."
	@$(PIP_INSTALL) -e '.[all]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@echo "Installing the development tools into $(VENV) ..."
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@

setup: $(VENV)/.ready ## create .venv with everything a user needs

setup-dev: $(VENV)/.ready-dev ## the same, and the tools for tests and quality checks

demo: $(VENV)/.ready ## train and backtest a strategy on real prices, through a fleet on this machine
	@$(BIN)/ktrdr demo

test: $(VENV)/.ready-dev ## the whole suite, with branch coverage, failing under $(COVERAGE_MINIMUM) %
	@rm -f .coverage .coverage.*
	@$(PYTEST) -q -n $(WORKERS) --dist loadgroup --cov --cov-report= tests
	@$(BIN)/coverage report --fail-under=$(COVERAGE_MINIMUM) | tail -n 25

test-again: $(VENV)/.ready-dev ## what failed in the run before, once more and alone
	@$(if $(ROUNDS),CHAOS_ROUNDS=$(ROUNDS) CHAOS_SEED=$(or $(SEED),1)) $(PYTEST) -q --last-failed --last-failed-no-failures none tests
	@$(BIN)/coverage report --fail-under=$(COVERAGE_MINIMUM) | tail -n 2

test-unit: $(VENV)/.ready-dev ## pure and fast tests
	@$(PYTEST) -q -n $(WORKERS) tests/unit tests/contract tests/reference

test-integration: $(VENV)/.ready-dev ## real processes and real HTTP over loopback
	@$(PYTEST) -q -n $(WORKERS) --dist loadgroup tests/integration

test-e2e: $(VENV)/.ready-dev ## a user's commands from end to end
	@$(PYTEST) -q -n $(WORKERS) --dist loadgroup tests/e2e

test-api: $(VENV)/.ready-dev ## thousands of requests made from the OpenAPI document, and the API against its model; SEED=1
	@KTRDR_API_EXAMPLES=60 KTRDR_API_MACHINES=300 KTRDR_API_STEPS=60 KTRDR_API_SEED=$(or $(SEED),1) KTRDR_API_SHRINK=1 \
		$(PYTEST) -q -o timeout=3000 tests/integration/test_api_schema.py tests/unit/backend/test_api_machine.py

test-crash: $(VENV)/.ready-dev ## kill -9 while checkpoints and artifacts are written; KILLS=300 SEED=1
	@PYTHONPATH=tests $(BIN)/python -m crash --kills $(or $(KILLS),300) --seed $(or $(SEED),1)

test-chaos: $(VENV)/.ready-dev ## real processes killed, networks cut, disks full, clocks set, databases away; ROUNDS=12 SEED=1
	@CHAOS_ROUNDS=$(or $(ROUNDS),12) CHAOS_SEED=$(or $(SEED),1) $(PYTEST) -n $(WORKERS) tests/chaos

sim: $(VENV)/.ready-dev ## the control plane in virtual time under faults; SEEDS=7,18,33 or 1-50, FLEET and OPERATIONS for its size
	@PYTHONPATH=tests $(BIN)/python -m simulation --jobs $(WORKERS) --seeds $(SEEDS) $(if $(FLEET),--workers $(FLEET)) $(if $(OPERATIONS),--operations $(OPERATIONS)) $(if $(CHAOS_S),--chaos-s $(CHAOS_S)) $(if $(ALL),--demand-all)

sim-full: $(VENV)/.ready-dev ## the simulation at its full size, 10,000 workers and 1,000,000 operations: two hours and 12 GiB; SEED=1
	@PYTHONPATH=tests $(BIN)/python -m simulation --seeds $(or $(SEED),1) --workers 10000 --operations 1000000 --chaos-s 1500 --longest-s 15 --tell-every-s 60

sim-mutants: $(VENV)/.ready-dev ## bugs planted in copies of the control plane, each to be found by the simulation
	@PYTHONPATH=tests $(BIN)/python -m simulation.mutants --jobs $(WORKERS)

bench: $(VENV)/.ready-dev ## measure; prints one table with CPU seconds
	@$(BIN)/python benchmarks/run.py

bench-control: $(VENV)/.ready-dev ## the control plane under load: submissions, 10,000 workers, watchers, a queue, a soak, a ledger of a million; SOAK_MINUTES=3
	@SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/python benchmarks/run.py --control --limit-s $$((900 + 60 * $(SOAK_MINUTES)))

quality: $(VENV)/.ready-dev ## format, lint, types, floors, documents
	@$(BIN)/ruff format --check src tests benchmarks tools
	@$(BIN)/ruff check src tests benchmarks tools
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/check_docs.py

format: $(VENV)/.ready-dev ## rewrite sources in the house format
	@$(BIN)/ruff format src tests benchmarks tools
	@$(BIN)/ruff check --fix src tests benchmarks tools

docs: $(VENV)/.ready-dev ## regenerate the generated reference pages
	@for tool in tools/*_docs.py; do case $$tool in tools/check_docs.py) ;; *) $(BIN)/python $$tool ;; esac; done

clean: ## remove what the targets above made
	rm -rf $(VENV) build dist htmlcov ktrdr-demo .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
