"""How cores are shared out: threads of a product, batches side by side, waiting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from midcourse.engines._threads import Cores, share_cores, using_threads
from midcourse.engines.base import Completion, Request
from midcourse.engines.bundled import base_folder
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.processes import threads_each, wait_passively
from midcourse.records import Sampling

SAMPLING = Sampling(
    temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=12
)


class Weights(nn.Module):
    """A model of so many parameters that take no memory."""

    def __init__(self, count: int, device: str = "cpu") -> None:
        super().__init__()
        self.device = torch.device(device)
        self.weight = nn.Parameter(torch.empty(count, device="meta"))


@pytest.mark.parametrize(
    ("count", "asked", "max_rows", "expected"),
    [
        (1_000_000, None, 256, Cores(2, 1)),
        (1_000_000, None, 100, Cores(1, 1)),
        (1_000_000, 2, 256, Cores(1, 2)),
        (135_000_000, None, 256, Cores(1, 2)),
        (135_000_000, 1, 256, Cores(2, 1)),
    ],
)
def test_a_small_model_computes_with_one_thread(
    count: int, asked: int | None, max_rows: int, expected: Cores
) -> None:
    with using_threads(2):
        assert share_cores(Weights(count), asked, max_rows) == expected


def test_a_user_who_leaves_one_thread_gets_one() -> None:
    with using_threads(1):
        assert share_cores(Weights(1_000_000), None, 512) == Cores(1, 1)


def test_threads_are_left_alone_on_a_gpu() -> None:
    assert share_cores(Weights(1_000_000, "cuda"), 4, 512) == Cores(1, None)


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    with using_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def requests() -> list[Request]:
    prompts = [tuple(range(5, 25 + number % 3)) for number in range(3)]
    return [
        Request(
            request_id=f"{n}/{index}", prompt_token_ids=prompt, sampling=SAMPLING,
            seed=60 * n + index, group=str(n),
        )
        for n, prompt in enumerate(prompts)
        for index in range(60)
    ]  # fmt: skip


def completions(num_threads: int, cancelled: int = 0) -> list[Completion]:
    """Sample on two threads of torch: one batch with both, or two with one each."""
    with using_threads(2):
        engine = TransformersEngine(base_folder(), max_batch_rows=128, num_threads=num_threads)
        assert engine.cores == Cores(2 // num_threads, num_threads)
        with engine.session() as session:
            session.submit(requests())
            found = session.completions()
            first = next(found)
            session.cancel([one.request_id for one in requests()[180 - cancelled :]])
            return [first, *found]


@pytest.mark.slow
def test_batches_side_by_side_sample_what_one_batch_samples() -> None:
    together, apart = completions(num_threads=2), completions(num_threads=1)
    assert {c.request_id: c.token_ids for c in apart} == {
        c.request_id: c.token_ids for c in together
    }
    assert len(apart) == 180


@pytest.mark.slow
def test_the_order_of_completions_does_not_depend_on_which_batch_is_faster() -> None:
    assert completions(num_threads=1) == completions(num_threads=1)


@pytest.mark.slow
def test_a_cancelled_request_leaves_the_second_batch_too() -> None:
    answered = {one.request_id for one in completions(num_threads=1, cancelled=60)}
    assert sum(one.startswith("2/") for one in answered) < 60
    assert {one for one in answered if not one.startswith("2/")} == {
        one.request_id for one in requests()[:120]
    }


@pytest.mark.parametrize("theirs", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "100"}])
def test_who_says_how_threads_wait_is_heeded(theirs: dict[str, str]) -> None:
    environment = dict(theirs)
    wait_passively(environment)
    assert environment == theirs


def test_threads_wait_passively_unless_told_otherwise() -> None:
    environment = dict[str, str]()
    wait_passively(environment)
    assert environment == {"OMP_WAIT_POLICY": "passive"}


def test_trainings_share_the_cores_or_take_what_the_user_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_each(1), threads_each(2), threads_each(16)] == [8, 4, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_each(2) == 3
