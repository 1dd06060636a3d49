# Needs Python >= 3.11 and make. Everything else comes into .venv from the package index, as constraints.txt pins it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/made.stamp
SERVER := $(VENV)/server.stamp
DEV := $(VENV)/dev.stamp
BENCH := $(VENV)/bench.stamp
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

# The oldest torch that we take has a house of its own.
MIN_VENV := .venv-torch-min
MIN_DEV := $(MIN_VENV)/dev.stamp

# Threads of torch that wait for each other sleep: beside other busy processes spinning is many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo up test test-deep test-faults test-torch-min bench-train bench-serve bench-soak soak check \
  reference openapi fix

help: ## say what each target does
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "make %-14s %s\n", $$1, $$2}'

demo: $(SERVER) ## train a small CNN on scikit-learn's digits and ask it, over HTTP
	$(BIN)/python -m examples.digits.demo

up: $(SERVER) ## start the embedded stack in ~/.modelyard and stay; Ctrl-C stops it
	$(BIN)/python -m deploy.local

test: $(DEV) ## run the whole suite but its long tests and most faults, about 20 minutes on two cores
	$(BIN)/pytest tests -m 'not deep and not faults' -n 2 --dist loadgroup

test-deep: $(DEV) ## run the long tests
	$(BIN)/pytest tests -m deep

test-faults: $(DEV) ## kill, break and abuse what runs, half an hour at most; docs/reliability.md has the list
	timeout --signal=INT 1800 $(BIN)/pytest tests -m faults -s

test-torch-min: $(MIN_DEV) ## run what touches torch (unit and numerics) on the oldest torch that is taken, 2.11
	$(MIN_VENV)/bin/pytest tests/unit tests/numerics -m 'not deep and not faults' -n 2 --dist loadgroup

bench-train: $(BENCH) ## train the same through the service and as plain scripts, against bars; about half an hour
	$(BIN)/python -m benchmarks.train

bench-serve: $(BENCH) ## one net behind the service and behind other Python servers, against bars; needs wrk; about 20 minutes
	$(BIN)/python -m benchmarks.serve

bench-soak: $(BENCH) ## ten minutes of predictions while an alias flips and models load, fail and are evicted
	$(BIN)/python -m benchmarks.serving.soak

soak: $(DEV) ## 15 minutes of jobs and predictions while everything is killed at random; nothing may be lost
	$(BIN)/python -m benchmarks.survival

check: $(DEV) ## format, lint, types, import contracts; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

reference: $(DEV) ## write docs/reference from the registry of what a spec may name
	$(BIN)/python -m core.nets.reference docs/reference

openapi: $(DEV) ## write docs/reference/openapi.json, the wire as a client sees it
	$(BIN)/python -m service.reference docs/reference/openapi.json

fix: $(DEV) ## format and lint, changing files
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(SERVER): pyproject.toml constraints.txt | $(MADE)
	@echo "installing the server; the first time takes some minutes (torch is large)"
	$(INSTALL) '.[server,explain,demo]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(MADE)
	@echo "installing the server and its tests; the first time takes some minutes (torch is large)"
	$(INSTALL) '.[server,explain,export,demo,dev]'
	@touch $(SERVER) $@

$(BENCH): pyproject.toml constraints.txt | $(MADE)
	@echo "installing the server and what it is compared with"
	$(INSTALL) '.[server,explain,demo,bench]'
	@touch $(SERVER) $@

# What torch pins for itself is left to it; all else is as constraints.txt pins it.
$(MIN_DEV): pyproject.toml constraints.txt constraints-torch-min.txt | $(MADE)
	@echo "installing the oldest torch beside the newest; this takes some minutes and 6 GB"
	$(PYTHON) -m venv $(MIN_VENV)
	grep -vE '^((torch|torchvision|triton|setuptools)==|(cuda|nvidia)-)' constraints.txt > $(MIN_VENV)/constraints.txt
	$(MIN_VENV)/bin/python -m pip install --quiet --constraint $(MIN_VENV)/constraints.txt \
	  --constraint constraints-torch-min.txt --editable '.[server,explain,export,demo,dev]'
	@touch $@

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "expected Python >= 3.11, found: $$($(PYTHON) --version 2>&1)." \
	       "Install one and name it, for example: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
