"""Sampling speed of the in-process engine against `generate`, in the same run: ``make bench``.

Ratios, not times: machines are noisy. Two loads on the lab's base model: 32 continuations of 32
tokens after a prefix of 400, and the lab's own sample stage, many short ragged rollouts.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from midcourse.config import ProblemsConfig, SamplingConfig
from midcourse.engines import resolve_model
from midcourse.engines.base import Request
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.lab.problems import lab_problems
from midcourse.records import Sampling


def main() -> None:
    """Measure both loads and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lab")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    engine = TransformersEngine(resolve_model(arguments.model), max_batch_rows=256)
    torch.manual_seed(0)
    long = tuple(torch.randint(300, 800, (400,)).tolist())
    users = [problem.text for problem in lab_problems(ProblemsConfig(kind="lab"), 0).train[:8]]
    short = [tuple(engine.renderer.prompt_ids([{"role": "user", "content": u}])) for u in users]
    figures = {
        "32 × 32 tokens after a prefix of 400": _compare(engine, [long], 32, 32, stop=False),
        "8 problems × 32 ragged rollouts": _compare(engine, short, 32, 140, stop=True),
    }
    for name, (ours, theirs) in figures.items():
        print(f"{name}: {ours:,.0f} tokens/s, generate {theirs:,.0f}, {ours / theirs:.1f} ×")
    if arguments.json:
        record = {"machine": platform.machine(), "threads": torch.get_num_threads(), **figures}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def _compare(
    engine: TransformersEngine,
    contexts: Sequence[tuple[int, ...]],
    count: int,
    max_tokens: int,
    stop: bool,
) -> tuple[float, float]:
    """Return tokens per second of the engine and of `generate` on the same contexts."""
    sampling = SamplingConfig(max_tokens=max_tokens).record()
    if not stop:
        engine.__dict__["stop_ids"] = frozenset()
    ours = _speed(lambda: _ours(engine, contexts, count, sampling))
    engine.__dict__.pop("stop_ids", None)
    return ours, _speed(lambda: _theirs(engine, contexts, count, max_tokens, stop))


def _speed(run: Callable[[], int]) -> float:
    run()  # Warm: first calls allocate.
    started = time.perf_counter()
    return run() / (time.perf_counter() - started)


def _ours(
    engine: TransformersEngine, contexts: Sequence[tuple[int, ...]], count: int, sampling: Sampling
) -> int:
    requests = [
        Request(
            request_id=f"{i}/{n}", prompt_token_ids=ids, sampling=sampling, seed=n, group=str(i)
        )
        for i, ids in enumerate(contexts)
        for n in range(count)
    ]
    with engine.session() as session:
        session.submit(requests)
        return sum(len(completion.token_ids) for completion in session.completions())


def _theirs(
    engine: TransformersEngine,
    contexts: Sequence[tuple[int, ...]],
    count: int,
    max_tokens: int,
    stop: bool,
) -> int:
    """Run `generate` with `num_return_sequences`, left-padded, as one would by hand."""
    width = max(map(len, contexts))
    ids = torch.tensor([[0] * (width - len(c)) + list(c) for c in contexts])
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts])
    with torch.inference_mode():
        rows = engine.model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            num_return_sequences=count,
            max_new_tokens=max_tokens,
            min_new_tokens=None if stop else max_tokens,
        )[:, width:]
    # Padding after a row's end is no sampled token.
    return int((rows != engine.model.config.pad_token_id).sum())


if __name__ == "__main__":
    main()
