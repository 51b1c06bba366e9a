# Everything runs in the virtual environment .venv, which need not be activated.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Keeps compiled modules, because tests start many processes, each of which would compile everything again.
unexport PYTHONDONTWRITEBYTECODE
# Number of test processes, each of which starts a PostgreSQL and a Redis. More than the cores of CI, because many tests
# wait for servers.
WORKERS ?= 3
# Building an index on a filled table may rightly take long; and storage is set again without harm, which is all that
# has no IF NOT EXISTS (a test runs every migration over what it has made).
SQUAWK_IGNORES := require-statement-timeout,prefer-robust-stmts

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest test-newest coverage lint bench soak statements format clean $(VENV)-newest/ready

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/ready ## Replay a support desk's conversations and show the stored data (KEEP=folder keeps the data)
	@$(BIN)/soldier-data demo $(if $(KEEP),--keep $(KEEP))

test: lint ## Run everything that CI checks
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-lowest: $(VENV)-lowest/ready ## Run the tests with the lowest supported versions of the dependencies (TESTS="path ...")
	$(VENV)-lowest/bin/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-newest: $(VENV)-newest/ready ## Run the tests with the newest versions of everything (TESTS="path ...")
	$(VENV)-newest/bin/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

coverage: $(VENV)/ready ## Run all tests and report uncovered lines
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov=soldier_data --cov-branch --cov-report=term-missing:skip-covered --cov-report=xml

lint: $(VENV)/ready ## Check style, types, import contracts and the SQL of the migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/soldier-data db sql 0001:head > $(VENV)/migrations.sql
	$(BIN)/squawk --pg-version 15 --exclude $(SQUAWK_IGNORES) $(VENV)/migrations.sql

bench: $(VENV)/ready ## Run the benchmarks and write benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks --write

soak: $(VENV)/ready ## Run the reliability tests with their full counts, and write docs/reliability.md
	$(BIN)/python -m pytest tests/reliability -n $(WORKERS) --soak --soak-report docs/reliability.md --timeout 3600

statements: $(VENV)/ready ## Write docs/statements.md, the SQL of all stores
	$(BIN)/python -m tests.statements

format: $(VENV)/ready ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment and all caches
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/ready: constraints.txt
$(VENV)-lowest/ready: constraints-lowest.txt
$(VENV)/ready $(VENV)-lowest/ready $(VENV)-newest/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "soldier_data needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager $(patsubst %.txt,--constraint %.txt,$(filter constraints%,$^)) --editable '.[dev]'
	@touch $@
