# Everything sets itself up: a machine with Python 3.11 or newer needs only `make correct` or `make test`.

BATCH ?= jobs/examples/people.yaml
PYTEST ?= tests
VENV := .venv
PYTHON := $(VENV)/bin/python
# What a command needs is installed when it is first used: READY for jobs and the endpoint, READY_SERVER for the servers of
# `make up`, READY_DEV for checks and tests.
READY := $(VENV)/.ready
READY_SERVER := $(VENV)/.ready-server
READY_DEV := $(VENV)/.ready-dev
# Processes of the tests: one for every core, at most eight.
PROCESSES ?= logical
# Set PYTHON3 to choose the interpreter; otherwise the first of these that works is taken.
PYTHON3 ?=
CANDIDATES := $(or $(PYTHON3),python3.11 python3.12 python3.13 python3)

.DEFAULT_GOAL := help
# Images of a cluster's nodes: which targets of cluster/Dockerfile, under which name (a registry before it), and further options.
TARGETS ?= cpu gpu
IMAGE ?= prompt-corrector
BUILD_OPTIONS ?=
# The builder: set BUILDER, otherwise the first of these that works is taken.
BUILDER ?=
BUILDERS := docker podman buildah
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: help setup correct serve up down test test-slow lint format type benchmark image clean
.NOTPARALLEL:

help:  ## show what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-10s %s\n", $$1, $$2 }'

correct: $(READY)  ## correct the example batch (or BATCH=file) on this machine
	@$(PYTHON) -m cluster.local run -- python -m jobs.correct $(BATCH)

serve: $(READY)  ## serve what reviewers approved on http://127.0.0.1:8000, until Ctrl-C
	@$(PYTHON) -m cluster.local run -- python -m serving

up: $(READY_SERVER)  ## start object store, MLflow and Ray on this machine; what was in them is there again
	@$(PYTHON) -m cluster.services up

down: $(READY)  ## stop them; data stays in .servers/
	@$(PYTHON) -m cluster.services down

# One thread a process: the tests' processes share the cores, and results do not depend on how many there are.
test test-slow: export OMP_NUM_THREADS ?= 1
RUN_TESTS = $(PYTHON) -m pytest --numprocesses $(PROCESSES) --maxprocesses 8 --dist loadgroup

test: lint type  ## lint, types, import contract and everything that a change can break (or PYTEST=tests/unit/jobs)
	@$(RUN_TESTS) -m 'not slow' $(PYTEST)

test-slow: $(READY_DEV)  ## what only a release needs to prove: inductor, browsers, lost nodes, every fault
	@$(RUN_TESTS) -m slow $(PYTEST)

lint: $(READY_DEV)  ## ruff and the import contract
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/lint-imports --no-logo --cache-dir .ci/cache/import-linter

format: $(READY_DEV)  ## let ruff format and fix what it can
	@$(VENV)/bin/ruff check --fix
	@$(VENV)/bin/ruff format

type: $(READY_DEV)  ## mypy
	@$(VENV)/bin/mypy

benchmark: $(READY_DEV)  ## speed of packed training: eight fine-tunes at once against one after another
	@$(PYTHON) -m tests.benchmarks.training --slots 8 --batch 1 4 --preservation none guard --sequential

image: export BUILDAH_LAYERS ?= true
image:  ## build a cluster's images, prompt-corrector:VERSION for GPUs and :VERSION-cpu (or TARGETS=cpu)
	@builder='$(BUILDER)'; \
	for candidate in $(BUILDERS); do \
	    [ -n "$$builder" ] || ! $$candidate info > /dev/null 2>&1 || builder=$$candidate; \
	done; \
	[ -n "$$builder" ] || { echo 'image: none of these works here: $(BUILDERS); install one, or start its daemon' >&2; exit 1; }; \
	for target in $(TARGETS); do \
	    case $$target in gpu) suffix= ;; *) suffix=-$$target ;; esac; \
	    $$builder build --file cluster/Dockerfile --target $$target --tag $(IMAGE):$(VERSION)$$suffix \
	        --label org.opencontainers.image.version=$(VERSION) \
	        --label org.opencontainers.image.revision=$$(git rev-parse HEAD 2> /dev/null || echo unknown) \
	        $(BUILD_OPTIONS) . || exit 1; \
	done

clean:  ## remove environment, caches and the local head's state; corrections in runs/ and servers' data in .servers/ stay
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m cluster.services down || true; fi
	rm -rf $(VENV) .local .ci/cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

setup: $(READY_DEV)  ## create .venv with the pinned packages, those of the tests, too

$(READY): EXTRAS :=
$(READY_SERVER): EXTRAS := [server]
$(READY_DEV): EXTRAS := [dev]
# What an installation brings along counts as installed: dev holds all, server what running needs.
$(READY): BRINGS := $(READY)
$(READY_SERVER): BRINGS := $(READY) $(READY_SERVER)
$(READY_DEV): BRINGS := $(READY) $(READY_SERVER) $(READY_DEV)

# The marks are written last. An installation that was interrupted leaves .installing, and the next one starts afresh,
# since pip cannot tell a half-written package from a whole one.
$(READY) $(READY_SERVER) $(READY_DEV): pyproject.toml constraints.txt
	@if [ -e $(VENV)/.installing ] || ! $(PYTHON) -m pip --version > /dev/null 2>&1; then \
	    rm -rf $(VENV); python=; \
	    for candidate in $(CANDIDATES); do \
	        if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	            python=$$candidate; break; \
	        fi; \
	    done; \
	    if [ -z "$${python:-}" ]; then \
	        echo 'setup: no Python 3.11 or newer with the venv module among: $(CANDIDATES)' >&2; \
	        echo 'setup: install one (Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON3=/path/to/python3' >&2; \
	        exit 1; \
	    fi; \
	    echo "setup: new environment in $(VENV) with $$($$python --version)"; \
	    mkdir -p $(VENV) && touch $(VENV)/.installing && $$python -m venv $(VENV) || exit 1; \
	fi
	@touch $(VENV)/.installing
	@echo 'setup: installing the pinned packages, some minutes the first time (log: $(VENV)/install.log)'
	@{ $(PYTHON) -m pip install --disable-pip-version-check --no-input --progress-bar off \
	        --constraint constraints.txt --editable '.$(EXTRAS)' 2>&1; echo "status $$?"; } \
	    | tee $(VENV)/install.log \
	    | awk '/^Collecting/ { printf "."; fflush(); seen = 1 } /^Installing collected/ { printf " unpacking"; fflush() } \
	           /^status / { status = $$2 } END { if (seen) print ""; exit status }' \
	    || { tail -n 20 $(VENV)/install.log >&2; echo 'setup: the installation failed' >&2; exit 1; }
	@rm -f $(VENV)/.installing && touch $(BRINGS)
