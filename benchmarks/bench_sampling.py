"""Sampling of the in-process engine against `generate`, on one model at a time.

Loads: continuations of one prefix, short and long, and the ragged mix of the lab's own sample
stage. The floor of decoding is reading every weight once per step for the whole batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rows import Row

from midcourse.config import ProblemsConfig, SamplingConfig
from midcourse.engines import resolve_model
from midcourse.engines.base import Request
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.lab.problems import lab_problems

REAL_MODEL = Path(".cache/smollm2-135m-instruct")


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
    for name, path in (("lab", "lab"), ("SmolLM2-135M", str(REAL_MODEL))):
        if path != "lab" and not REAL_MODEL.is_dir():
            print(f"sampling {name}: skipped, run 'make real' once to unpack it")
            continue
        engine = TransformersEngine(resolve_model(path), max_batch_rows=512)
        for load in _loads(engine, name == "lab"):
            yield _compare(engine, name, load)


def _loads(engine: TransformersEngine, is_lab: bool) -> Iterator[Load]:
    torch.manual_seed(0)
    prefix = [tuple(torch.randint(300, 800, (400,)).tolist())]
    yield Load("32 × 32 tokens after a prefix of 400", prefix, 32, 32, False, 3.0)
    yield Load("32 × 256 tokens after a prefix of 400", prefix, 32, 256, False, 1.5)
    if is_lab:
        problems = lab_problems(ProblemsConfig(kind="lab"), 0).train[:16]
        users = [[{"role": "user", "content": p.text}] for p in problems]
        short = [tuple(engine.renderer.prompt_ids(user)) for user in users]
        yield Load("16 problems × 64 ragged rollouts", short, 64, 140, True, 2.0)


def _compare(engine: TransformersEngine, model: str, load: Load) -> Row:
    if not load.ragged:
        engine.__dict__["stop_ids"] = frozenset()
    ours = _speed(lambda: _ours(engine, load))
    engine.__dict__.pop("stop_ids", None)
    theirs = _speed(lambda: _theirs(engine, load))
    return Row(
        what=f"{model}, {load.what}",
        ours=ours,
        theirs=theirs,
        unit="tokens/s",
        against="generate(num_return_sequences)",
        target=load.target,
        floor=_floor(engine, load, ours),
    )


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


def _ours(engine: TransformersEngine, load: Load) -> int:
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


def _theirs(engine: TransformersEngine, load: Load) -> int:
    """Run `generate` in left-padded batches of 256 rows, as one would by hand."""
    at_once = max(1, 256 // load.count)
    batches = [load.contexts[i : i + at_once] for i in range(0, len(load.contexts), at_once)]
    return sum(_generate(engine, batch, load) for batch in batches)


def _generate(engine: TransformersEngine, contexts: Sequence[tuple[int, ...]], load: Load) -> int:
    width = max(map(len, contexts))
    ids = torch.tensor([[0] * (width - len(c)) + list(c) for c in contexts])
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts])
    with torch.inference_mode():
        sampled = engine.model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            num_return_sequences=load.count,
            max_new_tokens=load.max_tokens,
            min_new_tokens=None if load.ragged else load.max_tokens,
        )[:, width:]
    # Padding after a row's end is no sampled token.
    return int((sampled != engine.model.config.pad_token_id).sum())
