# make demo: set everything up and build results/table2.csv.
# make test: set everything up and pass the tests.   make check: style, types, the workflow's lint.
# make lock: new versions of the libraries.          make clean: remove artefacts; tables stay.
PYTHON ?= python3
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
BIN := .venv/bin

.PHONY: demo test check setup lock clean

demo: setup
	$(BIN)/snakemake --cores $(CORES) results/table2.csv
	@$(BIN)/python -m distillery show results/table2.csv

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/python workflow/scripts/lint.py
	$(BIN)/mypy

setup: .venv/.stamp

.venv/.stamp: requirements.lock pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "uv>=0.9"
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

lock:
	uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

clean:	# artefacts, logs and checkpoints; tables and what git tracks stay
	rm -rf results/store/*/ results/scratch results/logs results/benchmarks
