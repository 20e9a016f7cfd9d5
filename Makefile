# Only make, python3 (3.11+) and a C library are assumed. `make up` and `make test` set up what is missing, once; after
# that they need no network.

PYTHON ?= python3
DOCS ?= docs
DATA ?= .leat/data
PORT ?=

BIN := .venv/bin
export UV_NO_PROGRESS := $(if $(MAKE_TERMOUT),,1)
export UV_PYTHON_DOWNLOADS := never
# Without cached byte code every process of ours needs twice the time to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up test lint bench faults lock clean setup setup-dev

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

up: .venv/.ready ## Start everything, watch DOCS, serve (DOCS=dir DATA=dir PORT=n)
	@exec $(BIN)/leat up --docs "$(DOCS)" --data "$(DATA)" --host 127.0.0.1 $(if $(PORT),--port $(PORT))

test: lint ## Check style, types and imports, then run every test
	@$(BIN)/python -m pytest -q

lint: .venv/.ready-dev ## Check style, types and imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: .venv/.ready-dev ## Measure; every file in benchmarks/ is a command with options (python -m benchmarks.NAME --help)
	@for name in embed text index load search stream; do echo "== bench_$$name"; $(BIN)/python -m benchmarks.bench_$$name || exit 1; done

TIER ?= N
SEED ?= 1
ONLY ?=
faults: .venv/.ready-dev ## Kill, stop and starve processes for minutes; write docs/reports/faults-DATE.md (TIER=N SEED=n ONLY="A08 C12")
	@$(BIN)/python -m tests.faults.campaign --tier $(TIER) --seed $(SEED) $(if $(ONLY),--only $(ONLY))

lock: .venv/.ready-dev ## Resolve the dependencies anew and pin them by hash
	@$(BIN)/python -m infra.local.lockfiles

setup: .venv/.ready ## Install what `make up` needs
setup-dev: .venv/.ready-dev ## Install what `make test` needs

clean: ## Remove the environment and caches; data and tools stay in .leat/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -not -path './.leat/*' -prune -exec rm -rf {} +

# pip brings uv (checked by its hash), uv brings the rest: several times as fast as pip alone.
.venv/.uv: requirements-uv.lock
	@$(PYTHON) -I infra/local/preflight.py
	@echo "Creating .venv …"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-uv.lock
	@touch $@

.venv/.ready: .venv/.uv requirements.lock pyproject.toml
	@echo "Installing packages …"
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

.venv/.ready-dev: .venv/.ready requirements-dev.lock
	@echo "Installing packages for tests …"
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --require-hashes -r requirements-dev.lock
	@touch $@
