# Everything a newcomer needs: `make demo` and `make test`. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check proofs docs clean install

install: .venv/installed

.venv/installed: pyproject.toml runtime/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ./runtime --editable ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps openpi-client==0.1.2  # asks for numpy 1, works with 2
	touch $@

demo: install  ## the whole pipeline on the embedded dataset, and its result table
	$(BIN)/ractd data make hopper-mixed
	$(BIN)/ractd train hopper-mixed --preset demo --out runs/demo

test: install  ## what CI runs; a file's tests share what they train, so a file stays with one worker
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: install  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proofs: install  ## the slow tests
	$(BIN)/pytest -m slow

docs: install  ## the site, in site/
	$(BIN)/mkdocs build

clean:
	rm -rf .venv runs site .pytest_cache .mypy_cache .ruff_cache
