"""The in-process engine against transformers' own generate and logits processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from midcourse.engines._decoding import KvBuffer, _warp, sample_tokens, uniforms
from midcourse.engines.base import Request, ScoreRequest
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.lab import base_folder
from midcourse.records import Sampling


def sampling(**changes: float) -> Sampling:
    fields = {
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
        "max_tokens": 30,
    }  # fmt: skip
    return Sampling(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(base_folder(), max_batch_rows=4)


def test_greedy_is_generate_whatever_shares_the_batch(engine: TransformersEngine) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = (5, 17, 40, 3, 17, 60, 9)
    prompts = [tuple(torch.randint(5, 800, (n,), generator=generator).tolist()) for n in lengths]
    requests = [
        Request(
            request_id=str(i), prompt_token_ids=p, sampling=sampling(temperature=0.0), seed=i,
            group=str(i),
        )
        for i, p in enumerate(prompts)
    ]  # fmt: skip
    with engine.session() as session:
        session.submit(requests)
        found = {c.request_id: c.token_ids for c in session.completions()}
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        expected = engine.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30
        )
        assert list(found[str(i)]) == expected[0, len(prompt) :].tolist()


def test_the_key_value_cache_stays_within_its_memory(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_token = 4 * 2**30 // engine.kv_cache_tokens
    tight = TransformersEngine(
        base_folder(), max_batch_rows=64, kv_cache_gib=700 * (per_token + 1) / 2**30
    )
    held: list[int] = []
    step = TransformersEngine.step

    def watch(self: TransformersEngine, tokens: torch.Tensor, buffer: KvBuffer) -> torch.Tensor:
        logits = step(self, tokens, buffer)
        held.append(buffer.num_rows * buffer.keys[0].shape[2])
        return logits

    monkeypatch.setattr(TransformersEngine, "step", watch)
    requests = [
        Request(
            request_id=str(i), prompt_token_ids=tuple(range(5, 25 + i)), sampling=sampling(),
            seed=i, group=str(i),
        )
        for i in range(30)
    ]  # fmt: skip
    found = []
    for one in (tight, engine):
        with one.session() as session:
            session.submit(requests)
            found.append({c.request_id: c.token_ids for c in session.completions()})
        if one is tight:
            assert max(held) // 200 > 1
            assert max(held) <= tight.kv_cache_tokens
    assert found[0] == found[1]


def test_warping_is_that_of_transformers() -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(6, 1, dtype=torch.long)
    cases = [
        (sampling(top_k=5), TopKLogitsWarper(5)),
        (sampling(top_p=0.8), TopPLogitsWarper(0.8)),
        (sampling(min_p=0.1), MinPLogitsWarper(0.1)),
    ]
    for parameters, theirs in cases:
        expected = theirs(ids, logits.clone())
        assert torch.equal(_warp(logits, parameters).isinf(), expected.isinf())


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[1, 2], [3, 3], [4, 5]])
    expected = RepetitionPenaltyLogitsProcessor(1.7)(ids, logits.clone()).argmax(-1)
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)
    parameters = [sampling(temperature=0.0, repetition_penalty=1.7)] * 3
    assert torch.equal(sample_tokens(logits, parameters, torch.zeros(3), seen), expected)


def test_draws_follow_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2, 1e-12])).expand(20_000, 4)
    draws = torch.from_numpy(uniforms(np.arange(20_000), np.zeros(20_000)))
    tokens = sample_tokens(logits, [sampling()] * 20_000, draws, None)
    shares = torch.bincount(tokens, minlength=4) / 20_000
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2, 0.0], abs=0.015)


def test_draws_differ_by_seed_and_by_position() -> None:
    seeds, positions = np.meshgrid(np.arange(50), np.arange(50))
    draws = uniforms(seeds.ravel(), positions.ravel())
    assert len(set(draws)) == 2500
    assert (draws.min() >= 0, draws.max() < 1) == (True, True)
    assert draws.mean() == pytest.approx(0.5, abs=0.03)


def test_scores_are_the_model_s_own(engine: TransformersEngine) -> None:
    ids = (5, 40, 300, 20, 77, 8)
    (scores,) = engine.score([ScoreRequest(request_id="x", token_ids=ids, num_context=2)])
    with torch.inference_mode():
        logprobs = engine.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [logprobs[i - 1, ids[i]].item() for i in range(2, 6)]
    assert scores.logprobs == pytest.approx(expected, abs=1e-4)
    entropies = [-(logprobs[i - 1].exp() * logprobs[i - 1]).sum().item() for i in range(2, 6)]
    assert scores.entropies == pytest.approx(entropies, abs=1e-4)
