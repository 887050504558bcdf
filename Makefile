PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test test-all lint type docs bench clean

demo: $(STAMP)  ## train the language model and the MLP, print the table: about 5 minutes on 2 cores
	$(BIN)/python -m benchmarks demo

# One thread each: two processes whose threads wait for each other by spinning take several times as long.
test: $(STAMP)  ## the tests, without the slow learning checks, in two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test-all: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -q -m "slow or not slow" --timeout 3600

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP)  ## types of the package as it is installed: in the checkout, mypy does not see sb3_llm.envs
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/installed .
	cd build/installed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p sb3_llm

docs: $(STAMP)  ## the site, into build/site; a link or a heading that is not there is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP)  ## what scoring, a whole update and a whole iteration of PPO cost: about 25 minutes
	$(BIN)/python -m benchmarks scoring
	$(BIN)/python -m benchmarks update
	$(BIN)/python -m benchmarks profile

# constraints.txt pins every version; torch there is a CPU build where pip can find one.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[benchmarks,zoo,dev,docs]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info
