"""Sampling of the in-process engine against `generate` and against a vLLM server.

Loads: continuations of one prefix, short and long, and the ragged mix of the lab's own sample
stage, on one model at a time. The floor of decoding is reading every weight once per step for the
whole batch. vLLM is measured where ``make test-vllm`` has set it up, in the same dtype.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rows import Row
from transformers import AutoModelForCausalLM, GenerationConfig, TopPLogitsWarper

from midcourse.config import ModelConfig, ProblemsConfig, SamplingConfig, VllmConfig
from midcourse.engines import open_engine, resolve_model
from midcourse.engines._sampling import keep_top_p
from midcourse.engines.base import Engine, Request
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.lab.problems import lab_problems

REAL_MODEL = Path(".cache/smollm2-135m-instruct")
VLLM_PYTHON = Path(".venv-vllm/bin/python")


@dataclass(frozen=True, slots=True)
class Load:
    """Contexts, completions of each, new tokens of each; ragged ones may stop earlier."""

    what: str
    contexts: Sequence[tuple[int, ...]]
    count: int
    max_tokens: int
    ragged: bool
    target: float


def rows() -> Iterator[Row]:
    """Yield a row per model and load; the real model only where ``make real`` has made it."""
    yield _top_p()
    for name, path in (("lab", "lab"), ("SmolLM2-135M", str(REAL_MODEL))):
        if path != "lab" and not REAL_MODEL.is_dir():
            print(f"sampling {name}: skipped, run 'make real' once to unpack it")
            continue
        engine = TransformersEngine(resolve_model(path), max_batch_rows=512)
        loads, speeds = list(make_loads(engine, name == "lab")), list[float]()
        # As anyone loads it: our way of attending at one token a step is not lent to `generate`.
        plain = AutoModelForCausalLM.from_pretrained(
            resolve_model(path), dtype=engine.model.dtype
        ).to(engine.model.device)
        for load in loads:
            row = _compare(engine, plain, name, load)
            speeds.append(row.ours)
            yield row
            if engine.model.device.type == "cuda":  # on a CPU it takes ten times as long
                theirs = _speed(partial(sample_by_batch, plain, load))
                yield replace(row, theirs=theirs, against="generate_batch", target=None, floor="")
        if VLLM_PYTHON.is_file():
            engine.close()
            yield from _against_vllm(name, path, loads, speeds)
        else:
            print(f"sampling {name} against vLLM: skipped, run 'make test-vllm' to set it up")


def _top_p() -> Row:
    """Return the row of what top-p adds to a step: it is a third of one, if it sorts."""
    logits = 6 * torch.randn(512, 927, generator=torch.Generator().manual_seed(0))
    theirs = TopPLogitsWarper(0.99)
    return Row(
        what="top-p 0.99 of 512 rows over 927 ids",
        ours=_speed(lambda: sum(len(keep_top_p(logits, 0.99)) for _ in range(20))),
        theirs=_speed(lambda: sum(len(theirs(None, logits)) for _ in range(20))),
        unit="rows/s",
        against="TopPLogitsWarper",
        target=2.0,
    )


def make_loads(engine: TransformersEngine, is_lab: bool) -> Iterator[Load]:
    """Yield what is measured, the ragged load for the lab's model alone."""
    torch.manual_seed(0)
    prefix = [tuple(torch.randint(300, 800, (400,)).tolist())]
    yield Load("32 × 32 tokens after a prefix of 400", prefix, 32, 32, False, 3.0)
    yield Load("32 × 256 tokens after a prefix of 400", prefix, 32, 256, False, 1.5)
    if is_lab:
        problems = lab_problems(ProblemsConfig(kind="lab"), 0).train[:16]
        users = [[{"role": "user", "content": p.text}] for p in problems]
        short = [tuple(engine.renderer.prompt_ids(user)) for user in users]
        yield Load("16 problems × 64 ragged rollouts", short, 64, 140, True, 2.0)


def _compare(engine: TransformersEngine, plain: Any, model: str, load: Load) -> Row:
    if not load.ragged:
        engine.__dict__["stop_ids"] = frozenset()
    ours = _speed(lambda: sample(engine, load))
    engine.__dict__.pop("stop_ids", None)
    theirs = _speed(lambda: sample_by_generate(plain, load))
    return Row(
        what=f"{model}, {load.what}",
        ours=ours,
        theirs=theirs,
        unit="tokens/s",
        against="generate(num_return_sequences)",
        target=load.target,
        floor=_floor(engine, load, ours),
    )


def _against_vllm(
    name: str, path: str, loads: Sequence[Load], speeds: Sequence[float]
) -> Iterator[Row]:
    """Yield a row per load: the same requests to a server of the same model on this machine."""
    config = VllmConfig(
        server_python=str(VLLM_PYTHON.absolute()), kv_cache_gib=2, concurrency=1024,
        server_arguments=("--enforce-eager", "--max-num-seqs", "512"),
    )  # fmt: skip
    server = open_engine(config, ModelConfig(path=path, dtype="float32"), path)
    try:
        # Its first requests are slow, once: `_speed` would see nothing else.
        for load in loads:
            sample(server, replace(load, max_tokens=8))
        for load, ours in zip(loads, speeds, strict=True):
            yield Row(
                what=f"{name}, {load.what}",
                ours=ours,
                theirs=_speed(lambda load=load: sample(server, load)),  # type: ignore[misc]
                unit="tokens/s",
                against="a vLLM server on the CPU, float32",
            )
    finally:
        server.close()


def _floor(engine: TransformersEngine, load: Load, speed: float) -> str:
    """Say which share of the machine's arithmetic the tokens need, by a measured matrix product."""
    if load.ragged:
        return ""
    size = 1024
    a = torch.randn(load.count, size, dtype=engine.model.dtype, device=engine.model.device)
    b = torch.randn(size, size, dtype=a.dtype, device=a.device)
    products = _speed(lambda: sum(1 for _ in range(200) if (a @ b) is not None))
    weights = sum(p.numel() for p in engine.model.parameters())
    return f"{speed * weights / (products * load.count * size * size):.0%} of the matrix products"


def _speed(run: Callable[[], int]) -> float:
    """Return units per second of the better of two runs after one to warm up, if that is short."""
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        done = run()
        seconds = time.perf_counter() - started
        best = max(best, done / seconds)
        if seconds > 30:
            break
    return best


def sample(engine: Engine, load: Load) -> int:
    """Sample a load; return how many tokens came."""
    sampling = SamplingConfig(max_tokens=load.max_tokens).record()
    requests = [
        Request(
            request_id=f"{i}/{n}", prompt_token_ids=ids, sampling=sampling, seed=n, group=str(i)
        )
        for i, ids in enumerate(load.contexts)
        for n in range(load.count)
    ]
    with engine.session() as session:
        session.submit(requests)
        return sum(len(completion.token_ids) for completion in session.completions())


def sample_by_generate(plain: Any, load: Load) -> int:
    """Run `generate` in left-padded batches of 256 rows, as one would by hand."""
    at_once = max(1, 256 // load.count)
    batches = [load.contexts[i : i + at_once] for i in range(0, len(load.contexts), at_once)]
    return sum(_generate(plain, batch, load) for batch in batches)


def sample_by_batch(plain: Any, load: Load) -> int:
    """Run transformers' continuous batching; return how many tokens came."""
    asked = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=load.max_tokens,
        eos_token_id=plain.generation_config.eos_token_id if load.ragged else -1,
    )
    prompts = [list(context) for context in load.contexts for _ in range(load.count)]
    made = plain.generate_batch(prompts, generation_config=asked)
    return sum(len(output.generated_tokens) for output in made.values())


def _generate(plain: Any, contexts: Sequence[tuple[int, ...]], load: Load) -> int:
    width = max(map(len, contexts))
    ids = torch.tensor([[0] * (width - len(c)) + list(c) for c in contexts])
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts])
    with torch.inference_mode():
        sampled = plain.generate(
            ids.to(plain.device),
            attention_mask=mask.to(plain.device),
            do_sample=True,
            top_k=0,
            num_return_sequences=load.count,
            max_new_tokens=load.max_tokens,
            min_new_tokens=None if load.ragged else load.max_tokens,
        )[:, width:]
    # Padding after a row's end is no sampled token.
    return int((sampled != plain.config.pad_token_id).sum())
