# `make demo` runs the whole loop; `make test` runs the tests. Each sets up everything it needs.
# `make demo ARGS=--no-serve` ends instead of leaving Argilla and the dashboard running.

VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
# Two test processes that both compute on two threads wait for each other more than they compute.
test slow coverage: export OMP_NUM_THREADS := 1

.PHONY: help demo test slow check format coverage browser services clean
help:
	@sed -n '1,2s/^# //p' Makefile
	@echo "others: slow (long proofs), coverage, check (ruff, mypy, import-linter), format, browser,"
	@echo "  services (PostgreSQL, Redis and nginx for the tests that need them), clean"

demo: $(VENV)/.all
	$(BIN)/handloom demo $(ARGS)

# Files are shared out over two processes, each with an Argilla server of its own.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: $(VENV)/.dev browser
	$(PYTEST) -m "not slow" $(ARGS)

slow: $(VENV)/.dev browser
	$(PYTEST) -m slow $(ARGS)

# Measuring takes the servers under the tests along, and so about twice the time.
coverage: $(VENV)/.dev browser
	$(PYTEST) -m "not slow" --cov --cov-report=term --cov-fail-under=85 $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The first Python on the PATH that the dependencies support.
$(BIN)/python:
	@for python in python3 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
	  then echo "$$python -m venv $(VENV)"; exec $$python -m venv $(VENV); fi; \
	done; echo "error: no Python 3.11 to 3.13 found. Install one and run the command again" >&2; exit 1

$(VENV)/.all: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@ $(VENV)/.all

# The browser tests drive a real Chromium, Debian's where there is one to install.
browser:
	@if ! command -v chromium chromium-browser google-chrome >/dev/null; then \
	  as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$as_root apt-get update -qq && $$as_root apt-get install -y -qq chromium >/dev/null; fi

# PostgreSQL, Redis and nginx, which the tests of a stock Argilla start for themselves: without
# them those tests are skipped. Debian's packages start a service each; .ci/run installs them.
services:
	@if ! (PATH=$$PATH:/usr/sbin && command -v redis-server && command -v nginx \
	    && ls /usr/lib/postgresql/*/bin/initdb) \
	    >/dev/null 2>&1; then \
	  as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq postgresql redis-server nginx-light >/dev/null; fi

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* build *.egg-info
