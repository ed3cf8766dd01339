# make demo   set up .venv and open the page on the embedded index: http://127.0.0.1:7860
# make test   set up .venv and run every check
# Others: install, test-fast, lint, types, assets, clean.
#
# Variables: PYTHON=python3.12, VENV=path, TORCH=cpu (CPU wheels of PyTorch, a tenth of the download),
# ARGS="--port 8000" (for demo), TESTS=tests/attribution, WORKERS=2, CHROMIUM=/path/to/browser.

PYTHON ?= python3
VENV ?= .venv
TORCH ?=
TESTS ?= tests
ARGS ?=
WORKERS ?= logical

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Small tests in parallel processes, one thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist loadfile
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: demo install test test-fast lint types assets clean

demo: $(VENV)/.installed
	$(BIN)/python app.py $(ARGS)

install: $(VENV)/.installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Whence needs Python 3.11 or later; try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up $(VENV): a few minutes, once."
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/python
	$(if $(filter cpu,$(TORCH)),$(PIP) torch --index-url $(TORCH_CPU))
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

# Every check. Chromium comes from the distribution; where it is missing and cannot be installed, the last line says so.
test: lint types
	@export CHROMIUM="$$(sh tests/chromium.sh)"; \
	  marks="not gpu"; [ -n "$$(command -v nvidia-smi)" ] && marks="gpu or not gpu"; \
	  [ -n "$$CHROMIUM" ] || marks="($$marks) and not browser"; \
	  $(PYTEST) -m "$$marks" $(TESTS) || exit; \
	  [ -n "$$CHROMIUM" ] || echo "make test: the browser tests did NOT run: install Chromium (apt-get install chromium)"

# The quick ones, while you work.
test-fast: install
	$(PYTEST) -m "not slow and not browser and not gpu" $(TESTS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# All in assets/ that derives from the model and the data.
assets: install
	$(BIN)/python -m precompute assets

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
