"""The in-process engine against transformers' own generate and logits processors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.masking_utils import create_causal_mask

from midcourse.engines import fast_batch
from midcourse.engines._decoder import Decoder, half_of_free
from midcourse.engines._head import _ends_with
from midcourse.engines._sampling import _warp, sample_tokens, uniforms
from midcourse.engines.base import Request, ScoreRequest
from midcourse.engines.bundled import base_folder
from midcourse.engines.fast_batch import FastBatch
from midcourse.engines.plain_batch import PlainBatch, check_state
from midcourse.engines.transformers_engine import COLUMNS_AT_ONCE, TransformersEngine
from midcourse.errors import EngineError
from midcourse.records import Sampling
from tiny import make_random, random_model


def sampling(**changes: float) -> Sampling:
    fields = {
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
        "max_tokens": 30,
    }  # fmt: skip
    return Sampling(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(base_folder(), max_batch_rows=4)


#: Rows at once, and from how many shared tokens on a context is attended to once.
BATCHES = [(rows, least) for rows in (4, 14, 64) for least in (1, 50, 10_000)]


@pytest.mark.parametrize(
    ("max_batch_rows", "least"),
    [
        pytest.param(*batch, marks=[] if batch == (14, 50) else pytest.mark.slow)
        for batch in BATCHES
    ],
)
def test_greedy_is_generate_whatever_shares_the_batch(
    max_batch_rows: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lone contexts, contexts that rows share, rows that end early and others that join."""
    monkeypatch.setitem(fast_batch._WORTH_SHARING, "cpu", least)
    engine = TransformersEngine(base_folder(), max_batch_rows=max_batch_rows)
    generator = torch.Generator().manual_seed(0)
    counts = {5: 1, 17: 6, 40: 1, 3: 5, 18: 1, 60: 9, 9: 4, 1: 1, 33: 2}
    prompts = [tuple(torch.randint(5, 800, (n,), generator=generator).tolist()) for n in counts]
    expected = {}
    for prompt in prompts:
        ids = torch.tensor([prompt])
        sampled = engine.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30
        )
        expected[prompt] = sampled[0, len(prompt) :].tolist()
    requests = [
        Request(
            request_id=f"{len(prompt)}/{n}",
            prompt_token_ids=prompt,
            sampling=sampling(temperature=0.0, max_tokens=30 - n),
            seed=n,
            group=str(len(prompt)),
        )
        for prompt, count in zip(prompts, counts.values(), strict=True)
        for n in range(count)
    ]
    with engine.session() as session:
        session.submit(requests)
        found = {c.request_id: list(c.token_ids) for c in session.completions()}
    assert found == {
        r.request_id: expected[r.prompt_token_ids][: r.sampling.max_tokens] for r in requests
    }


def test_memory_that_torch_keeps_for_reuse_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"mem_get_info": (10, 100), "memory_reserved": 80, "memory_allocated": 50}
    for name, found in gpu.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, found=found: found)
    assert half_of_free(torch.device("cuda")) == 20


def test_a_shared_context_is_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(base_folder(), max_batch_rows=64)
    held: list[int] = []
    step = FastBatch.step

    def watch(self: FastBatch, tokens: torch.Tensor) -> torch.Tensor:
        logits, buffer = step(self, tokens), self.buffer
        rows, _, columns, _ = buffer.stores[0].shape
        held.append(rows * columns + buffer.shared_columns)
        return logits

    monkeypatch.setattr(FastBatch, "step", watch)
    prompt = tuple(range(5, 405))
    with engine.session() as session:
        session.submit(
            [
                Request(
                    request_id=str(n), prompt_token_ids=prompt, sampling=sampling(), seed=n,
                    group="g",
                )
                for n in range(32)
            ]
        )  # fmt: skip
        assert len(list(session.completions())) == 32
    assert max(held) <= 400 + 32 * 64


EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
FAST: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("qwen2", {}),
    ("qwen3", {}),
    ("mistral", {"sliding_window": 1024}),
    ("gemma", {}),
    ("olmo2", {}),
]
PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("gemma2", {"attn_logit_softcapping": 5.0, "sliding_window": 16}),
    ("gemma2", {"attn_logit_softcapping": 5.0, "sliding_window": 1024}),
    ("gemma3_text", {"sliding_window": 16}),
    (
        "gpt_oss",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, **EXPERTS},
    ),
    ("mistral", {"sliding_window": 16}),
    ("lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    ("bamba", {"attn_layer_indices": [1], **MAMBA}),
    ("falcon_h1", {"mamba_d_ssm": 64, **MAMBA}),
    (
        "jamba",
        {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_dt_rank": 4},
    ),
    ("qwen3_next", {"layer_types": ["linear_attention", "full_attention"], **LINEAR}),
    ("deepseek_v3", {"num_key_value_heads": 4, "first_k_dense_replace": 2, **LATENT}),
    ("mamba", {"state_size": 8}),
    ("mamba2", {"num_heads": 8, "state_size": 8, "n_groups": 1}),
    ("llama4_text", {"attention_chunk_size": 16, "intermediate_size_mlp": 64, **EXPERTS}),
    ("bloom", {"n_layer": 2, "n_head": 4}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "changes"), [*FAST, *PLAIN])
def test_other_architectures_sample_and_score_as_transformers_does(
    tmp_path: Path, architecture: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where prompts of several lengths share a batch, and rows leave it early."""
    monkeypatch.setitem(fast_batch._WORTH_SHARING, "cpu", 50)
    make_random(tmp_path, architecture, **changes)
    engine = TransformersEngine(tmp_path, max_batch_rows=8, max_context_tokens=512)
    assert engine.is_fast == ((architecture, changes) in FAST)
    prompts = [tuple(range(first, first + n)) for first, n in ((5, 20), (90, 4), (200, 20), (9, 3))]
    requests = [
        Request(
            request_id=f"{i}/{n}",
            prompt_token_ids=prompt,
            sampling=sampling(temperature=0.0, max_tokens=12 - n),
            seed=n,
            group=str(i),
        )
        for i, prompt in enumerate(prompts)
        for n in range(4)
    ]
    with engine.session() as session:
        session.submit(requests)
        found = {c.request_id: list(c.token_ids) for c in session.completions()}
    scored = [
        ScoreRequest(request_id=str(i), token_ids=p, num_context=1) for i, p in enumerate(prompts)
    ]
    scores = {s.request_id: s.logprobs for s in engine.score(scored)}
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        sampled = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )[0, len(prompt) :].tolist()
        assert [found[f"{i}/{n}"] for n in range(4)] == [sampled[: 12 - n] for n in range(4)]
        with torch.inference_mode():
            logprobs = theirs(ids).logits[0].log_softmax(-1)
        expected = [logprobs[k - 1, prompt[k]].item() for k in range(1, len(prompt))]
        assert scores[str(i)] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("rwkv", {"attention_hidden_size": 32}),
        ("xlstm", {"num_heads": 4, "chunk_size": 8}),
        ("recurrent_gemma", {"lru_width": 32, "attention_window_size": 16}),
    ],
)
def test_a_state_outside_any_cache_is_refused_in_one_line(
    tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    make_random(tmp_path, architecture, **changes)
    words = f"^{architecture} keeps its state outside transformers' cache.*engine.kind = 'vllm'$"
    with pytest.raises(EngineError, match=words):
        TransformersEngine(tmp_path, max_context_tokens=64).session().__enter__()


def test_a_state_that_the_cache_loses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(random_model("mamba2", num_heads=8, state_size=8, n_groups=1))
    check_state(decoder)
    run = decoder.run

    def forget(ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
        return run(ids, mask, positions, decoder.new_cache())

    monkeypatch.setattr(decoder, "run", forget)
    with pytest.raises(EngineError, match=r"^mamba2 keeps its state outside"):
        check_state(decoder)


def adopted(model: Any) -> tuple[bool, str]:
    """Whether a model goes the fast way for rows of 512 tokens, and its attention afterwards."""
    is_fast = fast_batch.adopt(Decoder(model), 512)
    return is_fast, model.config._attn_implementation


def test_a_soft_cap_that_no_logit_shows_and_no_config_names_is_heeded() -> None:
    model = random_model("gemma2", sliding_window=1024)
    model.config.attn_logit_softcapping = None
    for cap, outcome in ((None, (True, "midcourse")), (1e6, (False, "eager"))):
        for layer in model.model.layers:
            layer.self_attn.attn_logit_softcapping = cap
        assert adopted(model) == outcome


@pytest.mark.parametrize(("window", "is_fast"), [(511, False), (512, True)])
def test_a_window_that_only_the_mask_knows_is_heeded(
    window: int, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def near(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return key > query - window

    slid = partial(create_causal_mask, and_mask_function=near)
    monkeypatch.setattr("transformers.models.llama.modeling_llama.create_causal_mask", slid)
    assert adopted(random_model("llama")) == (is_fast, "midcourse" if is_fast else "sdpa")


def test_a_mask_of_the_model_s_own_making_keeps_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could hide anything later on."""
    name = "transformers.models.llama.modeling_llama.create_causal_mask"
    monkeypatch.setattr(name, lambda **given: None)
    assert adopted(random_model("llama")) == (False, "sdpa")


def test_a_model_that_counts_positions_by_its_cache_keeps_its_own_way() -> None:
    """Its rows would all be as long as the longest."""
    model = random_model("llama")
    forward = model.model.forward

    def count(*args: Any, **given: Any) -> Any:
        return forward(*args, **(given | {"position_ids": None}))

    model.model.forward = count
    assert adopted(model) == (False, "sdpa")


@pytest.mark.parametrize(
    ("architecture", "changes", "per_row", "per_token"),
    [
        # float32: eight heads' states of 8 × 8, a kernel's width of the convolution's channels.
        ("mamba2", {"num_heads": 8, "state_size": 8, "n_groups": 1}, 2 * 4 * (512 + 4 * 80), 0),
        ("llama", {}, 0, 2 * 2 * 4 * 16),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, 4 * 32 * 3, 2 * 4 * 16),
    ],
)
def test_the_memory_of_a_state_counts(
    architecture: str, changes: dict[str, Any], per_row: int, per_token: int
) -> None:
    decoder = Decoder(random_model(architecture, **changes))
    assert decoder.sizes == (per_row, per_token)
    batch = PlainBatch(decoder, cache_bytes=3 * (per_row + 30 * per_token))
    assert batch.begin([], [])
    context = tuple(range(20))
    assert [batch.fits(context, 10) for _ in range(4)] == [True, True, True, False]


@pytest.mark.slow
def test_the_key_value_cache_stays_within_its_memory(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, per_token = Decoder(engine.model).sizes
    config = engine.model.config
    assert per_token == 2 * config.num_hidden_layers * config.num_key_value_heads * 4 * (
        config.head_dim
    )
    tight = TransformersEngine(
        base_folder(), max_batch_rows=64, kv_cache_gib=700 * per_token / 2**30
    )
    held: list[int] = []
    step = FastBatch.step

    def watch(self: FastBatch, tokens: torch.Tensor) -> torch.Tensor:
        logits, buffer = step(self, tokens), self.buffer
        rows, _, columns, _ = buffer.stores[0].shape
        held.append(rows * columns)
        return logits

    monkeypatch.setattr(FastBatch, "step", watch)
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
            assert max(held) <= 700
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


@pytest.mark.parametrize("top_p", [0.0, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 30.0])
def test_top_p_is_that_of_transformers(top_p: float, spread: float) -> None:
    # In float64: where a sum is within rounding of top-p, the order of adding decides.
    random = torch.Generator().manual_seed(3)
    logits = spread * torch.randn(64, 900, generator=random, dtype=torch.float64)
    logits += torch.linspace(0, 0.1, 900)  # Of equal ids, which are kept is nobody's promise.
    logits[32:, 200:] = -torch.inf
    expected = TopPLogitsWarper(top_p)(None, logits.clone())
    assert torch.equal(_warp(logits, sampling(top_p=top_p)), expected)


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


def test_a_long_row_is_scored_a_few_tokens_at_a_time(engine: TransformersEngine) -> None:
    generator, applied = torch.Generator().manual_seed(0), list[int]()
    ids = torch.randint(5, 800, (1000,), generator=generator)
    asked = ScoreRequest(request_id="x", token_ids=tuple(ids.tolist()), num_context=3)
    head = engine.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda *called: applied.append(called[2][..., 0].numel()))
    (scores,) = engine.score([asked])
    hook.remove()
    assert max(applied) == COLUMNS_AT_ONCE < 997 < sum(applied)
    with torch.inference_mode():
        logprobs = engine.model(ids[None]).logits[0, 2:-1].log_softmax(-1)
    expected = logprobs.gather(-1, ids[3:, None])[:, 0].tolist()
    assert scores.logprobs == pytest.approx(expected, abs=1e-4)
    assert scores.entropies == pytest.approx((-(logprobs.exp() * logprobs).sum(-1)).tolist(), 1e-4)


@pytest.mark.parametrize(
    ("architecture", "changes", "is_split"),
    [
        ("qwen3", {}, True),
        ("gemma2", {"final_logit_softcapping": 5.0}, False),
        ("granite", {"logits_scaling": 4.0}, False),
        ("cohere", {"logit_scale": 0.25}, False),
    ],
)
def test_what_a_model_does_to_its_logits_is_in_its_scores(
    tmp_path: Path, architecture: str, changes: dict[str, Any], is_split: bool
) -> None:
    make_random(tmp_path, architecture, **changes)
    engine = TransformersEngine(tmp_path)
    model, ids = engine.model, torch.arange(10, 40)
    with torch.inference_mode():
        assert _ends_with(model, model.get_output_embeddings(), ids[None, :4]) == is_split
        logprobs = model(ids[None]).logits[0, 1:-1].log_softmax(-1)
    (scores,) = engine.score(
        [ScoreRequest(request_id="x", token_ids=tuple(ids.tolist()), num_context=2)]
    )
    expected = logprobs.gather(-1, ids[2:, None])[:, 0].tolist()
    assert scores.logprobs == pytest.approx(expected, abs=1e-4)
