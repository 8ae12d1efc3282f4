# make demo     install, then simulate, reconstruct and compare two events; results in demo/
# make test     install, then all tests
# make lint     install, then style and types
# make install  create .venv and install into it; done again only when a list of packages has changed
# make readme   put the tables and pictures of demo/ into the README (the screenshot needs Chromium)
# make clean    remove .venv and everything that was built
#
# PYTHON=python3.12 chooses the interpreter; pip obeys its usual settings and PIP_ variables. JOBS=4 tests in 4 processes.
# CKF="E F G" chooses the configurations of the Kalman filter for the demonstration: see bench/ckf.py.

PYTHON ?= python3
JOBS ?= 2
CKF ?= E G
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: help install demo test lint format readme clean
help:
	@sed -n 's/^# make/make/p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt .ci/install
	@bash .ci/install $(PYTHON) $(VENV)
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m bench.demo -o demo --ckf $(CKF)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: $(STAMP)
	@$(BIN)/python -m bench.readme demo

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find cloudchamber bench tests -name __pycache__ -type d -prune -exec rm -rf {} +
