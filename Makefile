# Every command of the project. Needs make, git, Python 3.11 to 3.14 and a package index; the rest
# is installed into this folder (.venv, and .tools when there is no uv on the PATH).
#
#   ARGS=...    options passed on:  make demo ARGS=--headless   make test ARGS='-k compose'
#   PYTHON=...  the Python to use:  make setup PYTHON=/opt/python3.12/bin/python3

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ARGS ?=
PYTHON ?=

# An environment that the user is in must not be taken for the project's.
unexport CONDA_PREFIX PYTHONHOME PYTHONPATH VIRTUAL_ENV

VENV := .venv
STAMP := $(VENV)/.driftgate-setup
# Runs .ci/install.py, which looks for the right Python by itself when none was named.
INSTALL = python=$${PYTHON:-python3}; \
	command -v "$$python" >/dev/null || { \
	  echo "$$python is not on the PATH. Install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 7))' || { \
	  echo "$$python is too old. Install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }; \
	"$$python" .ci/install.py
export PYTHON

.PHONY: help setup demo test screenshots lint lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## install everything into .venv (the other commands do it by themselves)

# Done again only when what it is made from has changed.
$(STAMP): requirements.lock pyproject.toml
	@$(INSTALL) setup --python "$$PYTHON"

demo: $(STAMP) ## run the whole story on a broker of its own: rollout, regression, rollback
	@$(VENV)/bin/driftgate demo $(ARGS)

test: $(STAMP) ## run the tests
	@$(VENV)/bin/python -m pytest $(ARGS)

screenshots: $(STAMP) ## take pictures of the web console (needs chromium on the PATH)
	@$(VENV)/bin/python -m tests.screenshots $(ARGS)

lint: $(STAMP) ## check style, format and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/mypy .ci/install.py

lock: ## write requirements.lock anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(INSTALL) lock --python "$$PYTHON" $(ARGS)

clean: ## remove all that these commands made in this folder
	@rm -rf .venv .tools build dist screenshots .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@rm -rf ./*.egg-info
