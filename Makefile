# From a fresh clone: `make demo`, `make check` or `make test`. Each makes the environment itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Compiling 15,000 files ahead of time takes a minute; Python compiles each file on first import.
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -q --no-compile

# Many processes import the same modules: each module is compiled once, not once a process.
unexport PYTHONDONTWRITEBYTECODE

# What the commands import is compiled once here: also the first call is quick, and every call where
# PYTHONDONTWRITEBYTECODE is set, as in many containers.
COMPILE := $(BIN)/python -m compileall -q src/neuroxai && \
           $(BIN)/neuroxai methods > /dev/null && \
           $(BIN)/python -c 'import neuroxai.data.case_headers, neuroxai.models.card, neuroxai.reports.explain'

.PHONY: demo test check soak docs install bench format clean

demo: $(VENV)/.installed
	@$(BIN)/neuroxai demo --out demo

test: $(VENV)/.tested
	@$(BIN)/python -m pytest -n 2 --dist worksteal --durations 20 --junitxml .cache/tests.xml

check: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests too long for every change: full matrices, the shipped network, other releases of torch (14 GB
# of disk). Not part of CI.
soak: $(VENV)/.tested
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m soak --durations 20 --junitxml .cache/soak.xml
	@PYTHON=$(PYTHON) tests/torch_releases.sh

# The documentation with the API reference; a warning is an error.
docs: $(VENV)/.tested
	@$(BIN)/python -m sphinx -b html -q -W --keep-going docs .cache/docs
	@echo "Documentation: .cache/docs/index.html"

install: $(VENV)/.installed
	@echo "Installed: $(BIN)/neuroxai"

# Half an hour on an idle machine; each script also runs alone.
BENCHES := passes memory import_time cli_start convolutions guided_ig grad_cam session inspection \
           integrated_gradients sliding_window windows_of_a_lesion seven_maps scaling training augmentation gpu
bench: $(VENV)/.tested
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	@$(BIN)/python benchmarks/report.py

format: $(VENV)/.tested
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "NeuroXAI needs Python 3.11 or newer, got %s; try: make PYTHON=python3.11" % sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)

# The stamps are written last, so an interrupted installation is resumed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing NeuroXAI into $(VENV) (two to three minutes the first time) ..."
	@$(PIP) -c constraints.txt -e '.[all]'
	@$(COMPILE)
	@touch $@

# Both sets of extras at once: pip resolves once and builds the package once.
$(VENV)/.tested: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing NeuroXAI and the test tools into $(VENV) (two to three minutes the first time) ..."
	@$(PIP) -c constraints.txt -e '.[all,dev]'
	@$(COMPILE)
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
