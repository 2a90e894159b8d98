# Everything a developer or CI runs. `make help` lists the targets.
# Each target makes what it needs, so that a fresh machine needs `make` and Python only.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# More arguments for pytest, as in `make test ARGS="-k lease -x"`.
ARGS ?=
# A suite that hangs is a failure; half an hour is ten times what it takes.
TIME_LIMIT ?= 30m
ROOT := $(filter 0,$(shell id -u))

.PHONY: help
help: ## what can be made
	@sed -nE 's/^([a-z][a-z0-9-]*):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

# --- environments -------------------------------------------------------------------------------

.PHONY: venv
venv: .venv/.made ## the environment in .venv, pinned by constraints.txt

.venv/.made: pyproject.toml constraints.txt
	@.ci/python-for-venv "$(PYTHON)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: venv38
venv38: ## .venv38: Python 3.8, what the host program is tested on
	@.ci/venv38

.PHONY: hosts
hosts: ## the system packages that test hosts need (as root; else says what is missing)
	@.ci/host-packages

.PHONY: constraints
constraints: ## pin anew what a fresh environment gets
	.ci/pin > constraints.txt.new
	mv constraints.txt.new constraints.txt

# --- checks -------------------------------------------------------------------------------------

.PHONY: lint
lint: venv ## format, lint, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/zizmor --offline --quiet .github/workflows action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml

.PHONY: format
format: venv ## put the code into the one format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: test
test: venv venv38 ## every test but the slow proofs; as root with real hosts
	@$(if $(ROOT),$(MAKE) --no-print-directory hosts,\
	  echo "make test: not root: the tests on real hosts are skipped; sudo make test runs them")
	@.ci/lanes test-onhost test-here $(if $(ROOT),test-hosts) 'ARGS=$(ARGS)' 'COVERED=$(COVERED)'

.PHONY: coverage
coverage: ## `make test`, counting the lines that run, in every process: half as long again
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory test COVERED=yes TIME_LIMIT=1h
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

# The lanes of `make test`. A lane in which ARGS picks nothing is not a failure. A file stays with
# one process: what its tests share is made once.
.PHONY: test-here
test-here: venv
	$(call pytest,not slow and not fleet,here,-n auto --maxprocesses 4 --dist loadfile)

.PHONY: test-hosts
test-hosts: venv
	$(call pytest,not slow and fleet,hosts)

pytest = COVERAGE_FILE=.coverage.$(2) timeout --foreground -k 30 $(TIME_LIMIT) \
	  $(PYTEST) $(if $(COVERED),--cov --cov-report=) -m "$(1)" $(3) $(ARGS) || test $$? = 5

# The host program has to run on the oldest Python a host may have. Its tests import nothing but
# it and the test tools, so that they can. ARGS that name a file ask for that file only.
.PHONY: test-onhost
test-onhost: venv38
	@if test -x .venv38/bin/python && test -z '$(findstring tests/,$(ARGS))'; then \
	  timeout --foreground -k 30 $(TIME_LIMIT) env PYTHONPATH=. \
	    .venv38/bin/python -m pytest -q -p no:cacheprovider tests/onhost $(ARGS); fi

.PHONY: proofs
proofs: venv ## the slow proofs: crash at every step, power cuts, the protocol, many examples
	@$(MAKE) --no-print-directory hosts
	@.ci/lanes proofs-here $(if $(ROOT),proofs-hosts) 'ARGS=$(ARGS)'
	@$(if $(ROOT),$(MAKE) --no-print-directory proofs-crashes)

.PHONY: proofs-here
proofs-here: venv
	$(call proofs,slow and not fleet,-n auto --maxprocesses 2 --dist worksteal)

.PHONY: proofs-hosts
proofs-hosts: venv
	$(call proofs,slow and fleet and not alone)

# Last and alone: these strike within short leases, and take all the processors they get.
.PHONY: proofs-crashes
proofs-crashes: venv
	$(call proofs,slow and fleet and alone)

proofs = HYPOTHESIS_PROFILE=proofs timeout --foreground -k 30 2h \
	  $(PYTEST) -m "$(1)" $(2) $(ARGS) || test $$? = 5

.PHONY: docs
docs: venv ## the documentation is in step with the code
	$(PYTEST) -q -m docs $(ARGS)

# --- to see it work -----------------------------------------------------------------------------

.PHONY: demo
demo: venv ## a good deploy, a bad one, and the rescue, on this machine
	@test -x playbooks/demo/run || { echo "make: playbooks/demo/run is not there yet"; exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" playbooks/demo/run

.PHONY: bench
bench: venv ## detect to verified restored, and the peers, on test hosts (as root)
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[dev,bench]'
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench $(ARGS)

.PHONY: torture
torture: venv ## N deploys while a killer strikes at random; SEED=… draws the same (as root)
	@$(BIN)/python -m tests.crash.torture $(or $(N),200) $(if $(SEED),--seed $(SEED))

.PHONY: clean
clean: ## remove what was made, but not the environments
	rm -rf build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
