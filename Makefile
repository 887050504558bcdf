PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test test-all lint type bench clean

demo: $(STAMP)  ## train the language model and the MLP, print the table: about 8 minutes on 2 cores
	$(BIN)/python -m benchmarks demo

test: $(STAMP)  ## the tests, without the slow learning checks
	$(BIN)/python -m pytest -q

test-all: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -q -m "slow or not slow" --timeout 3600

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP)  ## types of the package as it is installed, seen from outside the checkout
	cd $(VENV) && bin/mypy --config-file ../pyproject.toml -p sb3_llm

bench: $(STAMP)
	$(BIN)/python -m benchmarks demo --out runs/bench

# constraints.txt pins every version; torch there is a CPU build where pip can find one.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[benchmarks,dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info
