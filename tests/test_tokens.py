"""Tokens are counted as a server bills them, and no stop of a stage loses their count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hostile_server as hostile
from hostile_server import serving
from midcourse.config import GradeConfig, ModelConfig, Recipe, TrainRlConfig, TrainSftConfig
from midcourse.engines.metered import Meter, MeteredEngine
from midcourse.engines.openai_engine import OpenAIEngine
from midcourse.engines.replies import read_usage
from midcourse.engines.scripted_engine import ScriptedEngine
from midcourse.pipeline import method, open_session
from midcourse.progress import SilentProgress
from midcourse.records import Rollout, RowOutcome, SftRow
from midcourse.store.progress import PROGRESS
from midcourse.store.stage import read_manifest, read_stage
from midcourse.tokens import Asked, TokenCount, duration, number, plain_tokens, read_tokens
from midcourse.training.jobs import Job, RlJob, SftJob, choose_rows
from midcourse.training.tokens import training_tokens
from runs import run_to
from test_rl_records import ITERATIONS, entry, log, write
from test_servers import answers, engine_of, requests

MODEL = ModelConfig(path="lab")
RL_JOB = RlJob(
    config=TrainRlConfig(), model=MODEL, seed=0, policy="rl:k", grade=GradeConfig(), problems=()
)


class StopsAfter(SilentProgress):
    """A reporter in whose company a stage is interrupted after so many results."""

    def __init__(self, stage: str, number: int) -> None:
        self.stage, self.left = stage, number
        self.is_counting = False

    @contextmanager
    def task(self, label: str, *_: Any, **__: Any) -> Iterator[StopsAfter]:
        self.is_counting = label == self.stage
        yield self

    def advance(self, count: int = 1, note: str = "", tokens: int = 0) -> None:
        self.left -= self.is_counting
        if self.is_counting and not self.left:
            raise KeyboardInterrupt


def tokens_in(run: Path, stage: str, label: str) -> dict[str, TokenCount]:
    manifests = (read_manifest(path.parent) for path in run.glob(f"{stage}/*/manifest.json"))
    (found,) = [manifest["tokens"] for manifest in manifests if manifest["label"] == label]
    return read_tokens(found)


def sampled(folder: Path) -> TokenCount:
    rollouts = list(read_stage(folder, Rollout))
    return TokenCount(
        len(rollouts), sum(r.prompt_tokens for r in rollouts), sum(r.num_tokens for r in rollouts)
    )


def test_manifests_count_tokens_of_every_stage_by_who_was_asked(finished_run: Path) -> None:
    for manifest in finished_run.glob("sample/*/manifest.json"):
        assert read_manifest(manifest.parent)["tokens"] == {
            "policy": sampled(manifest.parent).plain()
        }
    proposed = tokens_in(finished_run, "propose", "train")
    assert list(proposed) == ["proposer"]
    assert proposed["proposer"].requests == 3 * 2 * 2
    assert proposed["proposer"].tokens_in > proposed["proposer"].tokens_out > 0
    assert tokens_in(finished_run, "grade", "train") == {}
    assert not list(finished_run.glob(f"*/*/{PROGRESS}*"))


def interrupted(run: Path, recipe: Recipe, stage: str, after: int) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        open_session(recipe, run, StopsAfter(stage, after)) as session,
    ):
        session.complete(method(session.setup).proposals)


def test_what_an_interrupted_stage_asked_for_is_counted_when_it_goes_on(
    tmp_path: Path, recipe: Recipe, finished_run: Path
) -> None:
    interrupted(tmp_path / "run", recipe, "propose train", 2)
    (noted,) = (tmp_path / "run").glob(f"propose/*/{PROGRESS}")
    at_stop = json.loads(noted.read_text())
    assert (at_stop["done"], at_stop["total"], at_stop["error"]) == (2, 6, "")
    assert at_stop["tokens"]["proposer"]["requests"] >= 4
    run_to(tmp_path / "run", recipe, lambda session, m: session.complete(m.proposals))
    whole = tokens_in(finished_run, "propose", "train")["proposer"]
    resumed = tokens_in(tmp_path / "run", "propose", "train")["proposer"]
    assert resumed.requests >= whole.requests, "what was asked twice was paid for twice"
    assert resumed.tokens_out * whole.requests == whole.tokens_out * resumed.requests


def test_rollouts_tell_their_tokens_where_nothing_else_does(tmp_path: Path, recipe: Recipe) -> None:
    interrupted(tmp_path / "run", recipe, "sample train", 5)
    (noted,) = (tmp_path / "run").glob(f"sample/*/{PROGRESS}")
    noted.unlink()  # as after a release that did not write it
    run_to(tmp_path / "run", recipe, lambda session, m: session.complete(m.train.rollouts))
    assert tokens_in(tmp_path / "run", "sample", "train") == {"policy": sampled(noted.parent)}


def test_proposals_of_which_nothing_is_known_leave_the_count_out(
    tmp_path: Path, recipe: Recipe
) -> None:
    interrupted(tmp_path / "run", recipe, "propose train", 2)
    (noted,) = (tmp_path / "run").glob(f"propose/*/{PROGRESS}")
    noted.write_text("{}")
    run_to(tmp_path / "run", recipe, lambda session, m: session.complete(m.proposals))
    assert "tokens" not in read_manifest(noted.parent)


def asked_by(engine: OpenAIEngine, number: int = 2) -> TokenCount:
    meter = Meter()
    metered = MeteredEngine(engine, meter, lambda text: len(text.split()))
    with metered.session() as session:
        session.submit(requests(number, prompt_token_ids=()))
        assert len(list(session.completions())) == number
    return meter.count


def chat(server: hostile.Hostile) -> OpenAIEngine:
    return engine_of(server, chat=True, concurrency=1)


STREAM = (
    'data: {"choices": [{"index": 0, "delta": {"content": "It is 42."}, "finish_reason": "stop"}]}',
    'data: {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 907}}',
    "data: [DONE]",
)


def test_a_server_of_texts_is_believed_where_it_says_what_it_bills() -> None:
    with serving(hostile.streams(*STREAM)) as server:
        assert asked_by(chat(server)) == TokenCount(2, 22, 1814), "thoughts are billed, not sent"
    assert server.asked[0].body["stream_options"] == {"include_usage": True}


def test_a_server_that_does_not_say_is_estimated_and_the_count_says_so() -> None:
    with serving(hostile.honest) as server:
        assert asked_by(chat(server)) == TokenCount(2, 10, 2, estimated=2)


@pytest.mark.parametrize(
    "words", ["stream_options: no such thing", "Extra inputs are not permitted", "unknown field"]
)
def test_a_server_that_refuses_to_say_is_not_asked_again_and_still_streams(words: str) -> None:
    with serving(hostile.unless(lambda body: words * ("stream_options" in body))) as server:
        assert asked_by(chat(server), 3).requests == 3
    asked = [("stream_options" in one.body, one.body["stream"]) for one in server.asked]
    assert asked == [(True, True), *[(False, True)] * 3]


@pytest.mark.parametrize(
    "usage", [None, 7, {}, {"prompt_tokens": "3", "completion_tokens": 1},
              {"prompt_tokens": -1, "completion_tokens": 1},
              {"prompt_tokens": 1, "completion_tokens": 10**12}],
)  # fmt: skip
def test_a_usage_that_cannot_be_is_none(usage: Any) -> None:
    assert read_usage(usage) is None


def test_attempts_that_are_repeated_are_counted_while_they_last() -> None:
    busy = hostile.replies("busy", 503)
    with serving(busy, busy, hostile.honest) as server:
        engine, meter = chat(server), Meter()
        meter.watch(engine)
        assert len(answers(engine, requests(1))) == 1
    assert (meter.num_retries, meter.num_failed) == (2, 0)


def test_a_prompt_without_room_and_a_failed_request_bill_nothing() -> None:
    meter = Meter()
    with MeteredEngine(
        ScriptedEngine(lambda *_: "x", max_context_tokens=3), meter, len
    ).session() as s:
        s.submit(requests(2))
        assert len(list(s.completions())) == 2
    assert meter.count == TokenCount()


def test_rl_counts_what_it_sampled_and_what_it_trained_on(tmp_path: Path) -> None:
    more = {"groups/trained_tokens": 24.0, "online/proposer_requests": 2.0,
            "online/proposer_in": 30.0, "online/proposer_out": 5.0}  # fmt: skip
    again = [entry(1, 0.0, **more), entry(2, 0.0, **more), entry(2, 0.0, **more)]
    log(write(tmp_path), *again)
    job = Job("RL", tmp_path, RL_JOB)
    number = sum(len(group.rollouts) for groups in ITERATIONS for group in groups)
    assert training_tokens(job, {}) == {
        "tokens": {
            "policy": {"requests": number, "in": 3 * number, "out": 3 * number},
            "proposer": {"requests": 4, "in": 60, "out": 10},
        },
        "trained_tokens": {"total": 48, "per_iteration": 24},
    }


def test_fine_tuning_counts_its_rows_once_per_epoch(finished_run: Path) -> None:
    (path,) = (file.parent for file in finished_run.glob("build-sft/*/manifest.json"))
    rows = [row for row in read_stage(path, SftRow) if row.outcome is RowOutcome.READY]
    whole = sum(len(row.input_ids) for row in rows)
    config = TrainSftConfig(num_epochs=3)
    job = SftJob(config=config, model=MODEL, seed=0, rows=choose_rows(path, rows))
    found = training_tokens(Job("SFT", finished_run, job), {"num_steps": 3, "num_rows": len(rows)})
    assert found == {"tokens": {}, "trained_tokens": {"total": 3 * whole, "per_epoch": whole}}


def test_counts_are_read_as_they_are_written() -> None:
    tokens: dict[str, TokenCount] = {
        Asked.POLICY: TokenCount(1, 2, 3, 1),
        Asked.TEACHER: TokenCount(),
    }
    assert read_tokens(plain_tokens(tokens)) == {"policy": TokenCount(1, 2, 3, 1)}


def test_numbers_and_spans_are_short() -> None:
    assert [number(n) for n in (0, 9999, 10_000, 999_960, 1e9)] == [
        "0", "9,999", "10.0 k", "1.00 M", "1.00 G"
    ]  # fmt: skip
    assert [duration(s) for s in (0.4, 59.6, 600, 3599, 7500)] == [
        "0 s", "1 min", "10 min", "1 h", "2 h 5 min"
    ]  # fmt: skip
