# Each command makes its own environment in .venv the first time, and whenever what it needs changes.

PYTHON ?= python3
BIN := .venv/bin
WEIGHTS := notebooks/data/minilm_sample.safetensors
NEEDS := pyproject.toml constraints.txt

.PHONY: demo test test-long docs lint format clean

demo: .venv/.cli  ## find and compare masks of real weights, with a picture
	mkdir -p out
	$(BIN)/masksolve find $(WEIGHTS) --pattern 4:8 --out out/masks.safetensors \
	  --apply out/pruned.safetensors --json out/report.json --plot out/masks.png --force
	$(BIN)/masksolve compare $(WEIGHTS) --pattern 2:4 --sample 256 --plot out/compare.png --force
	@echo "Written: out/masks.safetensors, out/pruned.safetensors, out/report.json, out/masks.png, out/compare.png"

test: .venv/.test  ## the whole suite: kernels uncompiled, then everything, doctests included
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest tests/kernels --cov --cov-report=
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-append --cov-fail-under=95

test-long: .venv/.test  ## the tests that take minutes
	$(BIN)/python -m pytest -m long

docs: .venv/.docs  ## the documentation, into docs/_build/html; notebooks are run anew
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

lint: .venv/.lint  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/.lint  ## let ruff write the layout
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove the environment and everything made
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* out build dist docs/_build docs/tutorials
	rm -rf masksolve/kernels/__pycache__ benchmarks/__pycache__

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "masksolve needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/.cli: EXTRAS := cli,plot
.venv/.test: EXTRAS := cli,plot,test
.venv/.lint: EXTRAS := cli,plot,test,lint
.venv/.docs: EXTRAS := cli,plot,test,docs
.venv/.cli .venv/.test .venv/.lint .venv/.docs: $(NEEDS) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@
