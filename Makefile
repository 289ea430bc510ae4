# make demo   install everything into .venv and run the quick start
# make test   install everything into .venv and run the linter, the docs' build and the tests
# make docs   build the docs into build/site/
# make format let ruff mend what it can
# make test-oldest
#             install the oldest versions that the package admits into .venv-oldest and run the tests

PYTHON ?= python3
BIN := .venv/bin

demo: .venv/installed
	$(BIN)/ohem-d2 train

# Two tests at a time, of one thread each: two processes of two threads would fight for the cores.
# Tests of a file stay together, for the models and data that they share.
test: export OMP_NUM_THREADS = 1
test: .venv/installed docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pip check
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-oldest: export OMP_NUM_THREADS = 1
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/pip check
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile

docs: .venv/installed
	$(BIN)/mkdocs build --strict

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Detectron2 needs torch and setuptools to be there before it is built; and a build of it that pip
# has cached may be for another torch.
.venv/installed: requirements.txt setup.py pyproject.toml
.venv-oldest/installed: requirements-oldest.txt setup.py pyproject.toml
.venv/installed .venv-oldest/installed:
	$(PYTHON) -m venv $(@D)
	grep -E '^(torch|torchvision|numpy|setuptools|wheel|ninja)==' $< > $(@D)/first.txt
	$(@D)/bin/pip install -r $(@D)/first.txt
	$(@D)/bin/pip install --no-build-isolation --no-cache-dir -r $<
	$(@D)/bin/pip install --no-build-isolation --no-deps -e .
	touch $@

.PHONY: demo test test-oldest docs format
