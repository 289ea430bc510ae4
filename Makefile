# make demo   install everything into .venv and run the quick start
# make test   install everything into .venv and run the linter and the tests
# make format let ruff mend what it can

PYTHON ?= python3
BIN := .venv/bin

demo: .venv/installed
	$(BIN)/python train_net.py

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Detectron2 needs torch and setuptools to be there before it is built; and a build of it that pip
# has cached may be for another torch.
.venv/installed: requirements.txt setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	grep -E '^(torch|torchvision|numpy|setuptools|wheel|ninja)==' requirements.txt > .venv/first.txt
	$(BIN)/pip install -r .venv/first.txt
	$(BIN)/pip install --no-build-isolation --no-cache-dir -r requirements.txt
	$(BIN)/pip install --no-build-isolation --no-deps -e .
	touch $@

.PHONY: demo test format
