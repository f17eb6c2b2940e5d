# Every target does its own set-up: a clone, make and Python >= 3.11 are enough.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO_OUT ?= demo-out
DEMO_FLAGS ?=
PYTEST_FLAGS ?=
CHAOS_FLAGS ?=
FUZZ_FLAGS ?=
# Where the pictures of `make viewers` go
PICTURES ?= docs
# Where the wheels of `make wheelhouse` go, and the extras that they are for: EXTRAS=medgemma
WHEELHOUSE ?= wheelhouse
EXTRAS ?=
# Many tests wait for nodes and archives that they start, so all cores have work; 0 runs them one after the other, for --pdb.
PYTEST_WORKERS ?= $(shell nproc)
# One thread for arithmetic in each of those processes: on a busy machine, threads that wait for each other cost the small
# models of the tests many times what they save.
PYTEST = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest --numprocesses $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder
COV := --cov --cov-report=
SOURCES := $(shell find m3node tests benchmarks -name '*.py' -not -path '*/node_modules/*' 2>/dev/null)

.PHONY: help demo test check lint format coverage bench chaos viewers docs wheelhouse clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/.core  ## a phantom CT goes through a real DICOM connection and comes back as SR, SEG and GSPS
	$(BIN)/m3node demo --out $(DEMO_OUT) $(DEMO_FLAGS)

# COVERAGE=1 records coverage on the way, so that `make check` need not run the tests again.
test: $(VENV)/.test  ## all tests; those whose peers are not installed skip and say so
	$(if $(COVERAGE),rm -f .coverage .coverage.* && )$(PYTEST) $(if $(COVERAGE),$(COV)) $(PYTEST_FLAGS)

check: lint coverage  ## ruff, mypy --strict, and the coverage figure

lint: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.check  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: .coverage
	@# Of processes that ended late; what a killed one left half written is passed over.
	@if ls .coverage.* >/dev/null 2>&1; then $(BIN)/coverage combine --append --quiet 2>/dev/null || true; fi
	@$(BIN)/coverage report --format=total | sed 's/^/coverage: /; s/$$/ % of lines and branches/'

.coverage: $(SOURCES) pyproject.toml | $(VENV)/.test
	rm -f .coverage .coverage.*
	$(PYTEST) --quiet $(COV) $(PYTEST_FLAGS)

bench: $(VENV)/.test $(VENV)/.bench  ## ratio tables against dcmtk, SimpleITK, dcmqi and plain transformers
	$(BIN)/python -m benchmarks

chaos: $(VENV)/.test  ## 60 series while 30 random kills hit the node and archives fail; CHAOS_FLAGS="--seed 2"
	$(BIN)/python tests/chaos/chaos.py $(CHAOS_FLAGS)

fuzz: $(VENV)/.test  ## 20,000 hostile connections beside an honest sender; FUZZ_FLAGS="--seed 2 --cases 100000"
	$(BIN)/python tests/fuzz/fuzz.py $(FUZZ_FLAGS)

# Needs orthanc, orthanc-dicomweb, nginx-light, chromium and npm; PICTURES=FOLDER leaves those of docs/ as they are.
viewers: $(VENV)/.test  ## Orthanc, the node, Orthanc and OHIF in Chromium: SEG and SR as a reader sees them; writes docs/ohif-*.png
	$(BIN)/python tests/e2e/viewer/viewers.py --pictures $(PICTURES)

# For the Python and the processor of this machine; pip is in it, since Debian's Python has none. The install is in README.md.
wheelhouse: $(VENV)/.python  ## all that an install without a network needs; EXTRAS=medgemma for the detector medgemma
	@[ ! -e $(WHEELHOUSE) ] || [ -e $(WHEELHOUSE)/SHA256SUMS ] || { echo "$(WHEELHOUSE) is there and is no wheelhouse" >&2; exit 1; }
	rm -rf $(WHEELHOUSE)
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip wheel --quiet --disable-pip-version-check \
	    --wheel-dir $(WHEELHOUSE) '.$(if $(EXTRAS),[$(EXTRAS)])' pip
	cp -r constraints.txt configs $(WHEELHOUSE)
	cd $(WHEELHOUSE) && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum > SHA256SUMS
	@du -sh $(WHEELHOUSE)

docs: $(VENV)/.test  ## write the tables of docs/ that are made from the code anew
	$(BIN)/python tests/write_documents.py --write

clean:  ## remove what the targets made, the environment included
	rm -rf $(VENV) $(DEMO_OUT) wheelhouse .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache tests/e2e/viewer/node_modules build/ohif-*

# One stamp for each set of packages: the demo needs the core alone.
$(VENV)/.python: .ci/make-venv
	.ci/make-venv $(VENV)
	touch $@

$(VENV)/.core: pyproject.toml constraints.txt $(VENV)/.python
	$(PIP) --editable .
	touch $@

$(VENV)/.test $(VENV)/.check $(VENV)/.bench: $(VENV)/.%: $(VENV)/.core
	$(PIP) --editable '.[$*]'
	touch $@
