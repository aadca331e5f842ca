"""Requests that fail for good: outcomes if they are few, the end of a stage if they are many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from conftest import PROPOSAL
from hostile_server import Asked, Behaviour, replies, says, serving
from midcourse.checkers import GradeResult, checker_named
from midcourse.config import Recipe, SamplingConfig
from midcourse.engines.base import Completion, Request, failed
from midcourse.engines.stream import Stream
from midcourse.errors import EngineError
from midcourse.pipeline import Method, Session
from midcourse.progress import Failures
from midcourse.records import (
    Condition,
    FinishReason,
    Problem,
    Proposal,
    ProposalOutcome,
    Rollout,
    Solvability,
    UngradedCause,
    Verdict,
)
from midcourse.rendering import SplitIds
from midcourse.stages.contexts import Context
from midcourse.stages.grade import grade_of
from midcourse.stages.sample import SampleSpec, duplicate_share, sample
from midcourse.stages.search import search
from midcourse.stages.select import is_incorrect, select
from midcourse.store.stage import read_manifest
from replay_engine import ReplayEngine
from runs import run_to

SPEC = SampleSpec(
    num_rollouts=4, sampling=SamplingConfig(max_tokens=100).record(), budget="total",
    model="base", run_seed=0, stage="train",
)  # fmt: skip
PROBLEM = Problem(
    problem_id="p0", text="What is 2 + 2?", answer="4", reference_solution=None, source="x",
    split="train",
)  # fmt: skip
REVIEW = "Compare and intervene"


def contexts(count: int) -> list[Context]:
    return [
        Context(
            problem_id=f"p{i}", condition=Condition.PROBLEM, parent_id=None, prompt_ids=(i,),
            response=SplitIds([], []), open_box="",
        )
        for i in range(count)
    ]  # fmt: skip


def engine_that_fails(problems: Collection[int]) -> ReplayEngine:
    """An engine that fails every request about these problems."""

    def complete(request: Request) -> Completion:
        if request.prompt_token_ids[0] in problems:
            return failed(request, "the server gave nonsense")
        return Completion(
            request_id=request.request_id, token_ids=(1, 2), text=f"{request.seed}",
            finish_reason=FinishReason.STOP,
        )  # fmt: skip

    return ReplayEngine(complete, concurrency=8)


def drawn(num_failing: int, failures: Failures, count: int = 100) -> list[Rollout]:
    engine = engine_that_fails(range(num_failing))
    return list(sample(contexts(count), SPEC, engine, (), failures))


def test_a_few_failures_are_outcomes_and_come_last() -> None:
    failures = Failures(max_share=0.01)
    rollouts = drawn(1, failures)
    assert [r.finish_reason for r in rollouts[-4:]] == [FinishReason.REQUEST_FAILED] * 4
    assert {r.problem_id for r in rollouts[-4:]} == {"p0"}
    assert (failures.num_recorded, failures.num_failed, len(rollouts)) == (4, 0, 400)
    assert failures.first_error == "the server gave nonsense"


def test_many_failures_are_left_for_a_later_run() -> None:
    failures = Failures(max_share=0.01)
    rollouts = drawn(2, failures)
    assert (failures.num_recorded, failures.num_failed, len(rollouts)) == (0, 8, 392)


def test_what_is_few_is_a_share_of_the_whole_stage() -> None:
    resumed = Failures(max_share=0.01, num_done=400)
    assert resumed.may_record(["a"] * 4, 0)
    assert not Failures(max_share=0.01).may_record(["a"] * 4, 0)
    assert Failures(max_share=0.01).may_record(["a"], 0)
    assert not Failures(max_share=0.0).may_record(["a"], 10_000)
    assert Failures(max_share=1.0).may_record(["a"] * 9, 0)


def test_a_search_that_was_stopped_has_no_failures_left() -> None:
    calls = Counter[str]()

    def complete(request: Request) -> Completion:
        calls[request.group] += 1
        if calls[request.group] == 1:
            return failed(request, "gone")
        return Completion(
            request_id=request.request_id, token_ids=(1,), text=f"{request.prompt_token_ids[0]}",
            finish_reason=FinishReason.STOP,
        )  # fmt: skip

    failures, engine = Failures(max_share=1.0), ReplayEngine(complete, concurrency=1)
    found = search(
        contexts(2), SPEC, (1, 3), engine, lambda r: r.text == "0", (), (), failures
    )  # fmt: skip
    outcomes = Counter((r.problem_id, str(r.finish_reason)) for r in found)
    assert outcomes[("p0", "request_failed")] == 0
    assert outcomes == {("p0", "stop"): 1, ("p1", "stop"): 3, ("p1", "request_failed"): 1}
    assert failures.num_recorded == 1


def test_a_failure_is_never_a_wrong_answer() -> None:
    rollouts = drawn(1, Failures(max_share=1.0), count=2)
    checker, wrong = checker_named("math"), GradeResult(Verdict.NO_ANSWER, None, None)
    grades = [grade_of(rollout, wrong, checker) for rollout in rollouts]
    of_first = [grade for grade in grades if grade.problem_id == "p0"]
    assert {(g.verdict, g.cause) for g in of_first} == {
        (Verdict.UNGRADED, UngradedCause.NOT_SAMPLED)
    }
    assert not [grade for grade in of_first if is_incorrect(grade, truncated_is_incorrect=True)]
    assert not [grade for grade in of_first if grade.truncated]
    (status,) = select([PROBLEM], of_first, num_rollouts=4, truncated_is_incorrect=True)
    assert (status.status, status.num_ungraded) == (Solvability.UNDECIDED, 4)


def test_texts_that_are_missing_are_not_the_same_text() -> None:
    assert duplicate_share(drawn(3, Failures(max_share=1.0), count=3)).num_contexts == 0


def test_what_failed_is_asked_once_more_when_all_else_is_answered() -> None:
    asked = list[str]()

    def answer(stream: Stream) -> Any:
        while stream.pending:
            for request in stream.take():
                asked.append(request.request_id)
                again = asked.count(request.request_id) > 1
                fails = request.request_id == "a" or (request.request_id == "b" and not again)
                done = Completion(request_id=request.request_id, finish_reason=FinishReason.STOP)
                yield failed(request, "no") if fails else done

    def request(name: str) -> Request:
        return Request(
            request_id=name, prompt_token_ids=(1,), sampling=SPEC.sampling, seed=0, group=""
        )

    stream = Stream(answer)
    stream.submit([request(name) for name in "abcx"])
    done = []
    for completion in stream.completions():
        done.append((completion.request_id, completion.error))
        if completion.request_id == "c":
            stream.submit([request("d")])
            stream.cancel(["x"])
    assert done == [("c", None), ("d", None), ("a", "no"), ("b", None)]
    assert asked == list("abcd") + list("ab")


# --- a whole run, with a proposer that is a server ---------------------------------------------


def proposer(recipe_data: dict[str, Any], url: str, **changes: Any) -> Recipe:
    engine = {"kind": "openai", "urls": [url], "served_model": "m", "chat": True, "concurrency": 2}
    data = recipe_data | {"proposer_engine": engine, "proposer_model": {"path": "lab"}} | changes
    return Recipe.model_validate(data)


def proposes(is_refused: Callable[[Asked], bool], otherwise: Behaviour) -> Behaviour:
    def behave(asked: Asked) -> None:
        about_it = REVIEW in asked.body["messages"][-1]["content"] and is_refused(asked)
        (otherwise if about_it else says(message={"content": PROPOSAL}))(asked)

    return behave


def proposals(session: Session, made: Method) -> tuple[list[Proposal], Path]:
    session.complete(made.proposals)
    path = session.run.path(made.proposals)
    return list(session.read(made.proposals)), path


def test_a_question_that_a_server_never_answers_is_an_outcome(
    recipe_data: dict[str, Any], tmp_path: Path
) -> None:
    once = list[int]()

    def is_first_seed(asked: Asked) -> bool:
        once.append(asked.body["seed"])
        return bool(asked.body["seed"] == once[0])

    with serving(proposes(is_first_seed, replies('{"error": {"message": "no"}}', 400))) as server:
        made, path = run_to(tmp_path / "run", proposer(recipe_data, server.url), proposals)
    outcomes = Counter(proposal.outcome for proposal in made)
    assert outcomes[ProposalOutcome.REQUEST_FAILED] == 1
    assert outcomes[ProposalOutcome.ACCEPTED] > 1
    assert read_manifest(path)["counts"]["request_failed"] == 1


def test_too_many_failures_stop_a_stage_and_may_be_accepted(
    recipe_data: dict[str, Any], tmp_path: Path
) -> None:
    odd = proposes(lambda asked: asked.body["seed"] % 2 == 1, says(finish_reason="abort"))
    with serving(odd) as server:
        for _ in range(2):
            with pytest.raises(EngineError, match=r"failed \(.*abort.*larger max_failed_share"):
                run_to(tmp_path / "run", proposer(recipe_data, server.url), proposals)
        accepting = proposer(recipe_data, server.url, max_failed_share=1.0)
        made, _ = run_to(tmp_path / "run", accepting, proposals)
    outcomes = Counter(proposal.outcome for proposal in made)
    assert outcomes[ProposalOutcome.REQUEST_FAILED] > 1
    assert outcomes[ProposalOutcome.ACCEPTED] > 1


def test_no_secret_is_in_any_byte_of_a_run(
    recipe_data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", "sk-canary")
    canaries = (b"sk-canary", b"pass-canary")

    def echo(asked: Asked) -> None:
        said = f"{asked.headers['authorization']} pass-canary sk-canary"
        asked.send(json.dumps({"error": {"message": said}}).encode(), 400)

    with serving(proposes(lambda asked: asked.body["seed"] % 2 == 1, echo)) as server:
        recipe = proposer(recipe_data, server.url.replace("//", "//me:pass-canary@"))
        assert recipe.proposer_engine is not None
        engine = recipe.proposer_engine.model_copy(update={"api_key_env": "CANARY_KEY"})
        keyed = recipe.model_copy(update={"proposer_engine": engine, "max_failed_share": 1.0})
        made, _ = run_to(tmp_path / "run", keyed, proposals)
    assert [p for p in made if p.outcome is ProposalOutcome.REQUEST_FAILED]
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert [path.name for path in written if path.name == "config.resolved.json"]
    assert not [path for path in written for c in canaries if c in path.read_bytes()]
