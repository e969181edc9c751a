# Everything a newcomer needs: `make demo` and `make test`. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin

PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check proofs docs clean install

install: .venv/installed

.venv/usable: pyproject.toml runtime/pyproject.toml constraints.txt  # what the demo and users need
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable ./runtime --editable ".[envs,report]"
	touch $@

.venv/installed: .venv/usable  # and what developers need
	$(PIP) --editable ./runtime --editable ".[dev]"
	$(PIP) --no-deps openpi-client==0.1.2  # asks for numpy 1, works with 2
	touch $@

demo: .venv/usable  ## RACTD and a simple rival on the embedded dataset, and who won
	$(BIN)/ractd data make hopper-mixed
	$(BIN)/ractd compare hopper-mixed --methods ractd bc:preset=best-tenth --seeds 1 -- --evaluation.episodes 50

test: install  ## what CI runs; a file's tests share what they train, so a file stays with one worker
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: install  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proofs: install  ## the slow tests
	$(BIN)/pytest -m slow

docs: install  ## the site, in site/
	$(BIN)/mkdocs build

clean:  ## what was installed and built, not what was trained
	rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache .hypothesis
