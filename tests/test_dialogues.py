"""Several turns: an environment answers, and what it says is context, never trained on."""

from __future__ import annotations

import json
import math
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from midcourse.checkers import Grader, checker_named
from midcourse.config import Recipe, SamplingConfig, TrainRlConfig
from midcourse.config.stages import LAB_ENVIRONMENTS
from midcourse.engines.base import Completion, Request
from midcourse.engines.scripted_engine import ByteTokenizer, ScriptedEngine
from midcourse.environments import ToolEnvironment, environment_named
from midcourse.environments.memory import MemoryEnvironment
from midcourse.environments.timed import EnvironmentHangsError, TimedEnvironment
from midcourse.errors import ConfigError, DataError
from midcourse.export import export_run
from midcourse.lab.counts.world import MAX_COUNT
from midcourse.lab.kinds import Kind
from midcourse.lab.memory import documents, world
from midcourse.lab.splits import Split
from midcourse.lab.truth import first_wrong, world_step
from midcourse.lab.worlds import WORLDS
from midcourse.pipeline import Method, Session
from midcourse.pipeline.values import Dialogues, view
from midcourse.progress import Failures
from midcourse.prompts import load_prompt_set
from midcourse.records import (
    Condition,
    EnvironmentTurn,
    FinishReason,
    Gold,
    Problem,
    Proposal,
    ProposalOutcome,
    Rollout,
    SftRow,
    Verdict,
)
from midcourse.rendering import Renderer
from midcourse.run import identity_of
from midcourse.stages.build_sft import IGNORED
from midcourse.stages.contexts import continuation_context, opening_context
from midcourse.stages.dialogue import Dialogue, Talk
from midcourse.stages.flow import run_requests
from midcourse.stages.grade import grade
from midcourse.stages.propose import Case
from midcourse.stages.sample import SampleSpec, sample
from midcourse.steps import BLANK_LINES, answers_of, place_of, whole_text
from midcourse.training.rl.collect import Collector, slot_name
from midcourse.training.rl.groups import Group
from midcourse.training.rl.samplers import EngineSampler
from midcourse.training.rl.schedule import Schedule
from midcourse.training.sft import check_rows
from rl_problems import PatternGrader, rl_problem
from runs import ready, run_to

RENDERER = Renderer(ByteTokenizer())
PROBLEM = Problem(
    problem_id="p", text="Red is six times seven. What is red twice?", answer="84",
    reference_solution="Twice 6 times 7 makes 84.", source="s", split="train",
)  # fmt: skip
TURNS = ["Six times seven: 6 * 7 = 41.\n\nset red 41", "get red", "The answer is \\boxed{82}."]


def said(context: str, seed: int) -> str:
    """Reply as `TURNS`; what the memory said decides the answer."""
    turns = context.split("<|im_start|>assistant\n")
    if turns[-1].endswith("= 42.\n\n"):
        return "set red 42"
    if len(turns) == 4:
        value = "84" if "user\n42" in context else "82"
        return f"The answer is \\boxed{{{value}}}."
    return TURNS[len(turns) - 2].removeprefix(turns[-1])


def talk(script: Callable[[str, int], str] = said, max_turns: int = 8, **keys: Any) -> Dialogue:
    engine = ScriptedEngine(script, **keys)
    return Dialogue(engine, RENDERER, MemoryEnvironment(), {"p": PROBLEM}, max_turns)


def spec(max_tokens: int = 400, num_rollouts: int = 1) -> SampleSpec:
    return SampleSpec(
        num_rollouts=num_rollouts, sampling=SamplingConfig(max_tokens=max_tokens).record(),
        budget="total", model="base", run_seed=0, stage="train",
    )  # fmt: skip


def rollout_of(dialogue: Dialogue, max_tokens: int = 400) -> Rollout:
    opening = opening_context("p", Condition.PROBLEM, PROBLEM.text, RENDERER)
    (found,) = sample([opening], spec(max_tokens), dialogue, (), Failures())
    return found


def proposal_at(location: int, intervention: str, rollout: Rollout) -> Proposal:
    placed = BLANK_LINES.placed_in(intervention, rollout, location)
    return Proposal(
        proposal_id="q", problem_id="p", rollout_id=rollout.rollout_id, index=0, item=0,
        proposer="x", outcome=ProposalOutcome.ACCEPTED, detail="", error_step=location - 1,
        location=location, intervention=placed, after_error=False, leaks_substring=None, turns=(),
        prompt_name="", prompt_sha="",
    )  # fmt: skip


# --- environments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "answer"),
    [
        (["set red 32"], "kept"),
        (["set red 32", "get red"], "32"),
        (["set red 32", "set red 33", "I look it up.\n\nget red"], "33"),
        (["get red"], "nothing is kept under red"),
        (["set red thirty two", "get red"], "thirty two"),
        (["set red 32\nThe answer is 32."], None),
        (["get red and blue"], None),
        ([""], None),
        (["set  red 1"], None),
    ],
)
def test_memory(turns: list[str], answer: str | None) -> None:
    assert MemoryEnvironment().answer(PROBLEM, turns) == answer


class Account:
    """Tools as TRL's ``environment_factory`` makes them."""

    def reset(self, **_: Any) -> None:
        self.total = 0

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    def get_reward(self) -> float:
        return 1.0

    def _secret(self) -> str:
        return "told"


Accounts = ToolEnvironment("account", "1", Account)


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.mark.parametrize(
    ("turns", "answer"),
    [
        ([call("add", amount=2)], "2"),
        ([call("add", amount=2), call("add", amount=3)], "5"),
        ([call("add", amount=2) + call("add", amount=3)], "2\n5"),
        ([call("add", amount=2), "So it is 2."], None),
        ([call("add")], "error: TypeError: "),
        ([call("add", amount="x")], "error: TypeError: "),
        ([call("_secret")], "error: there is no tool '_secret'"),
        ([call("get_reward")], "error: there is no tool 'get_reward'"),
        ([call("reset")], "error: there is no tool 'reset'"),
        ([call("total")], "error: there is no tool 'total'"),
        (["<tool_call>{</tool_call>"], "error: a call is"),
        (["<tool_call>[1]</tool_call>"], "error: a call is"),
        (['<tool_call>{"name": "add", "arguments": [1]}</tool_call>'], "error: arguments are"),
        (['<tool_call>{"name": ["add"]}</tool_call>'], "error: there is no tool"),
    ],
)
def test_tools(turns: list[str], answer: str | None) -> None:
    found = Accounts.answer(PROBLEM, turns)
    assert found == answer if answer is None or "error" not in answer else answer in str(found)


def test_an_environment_is_found_by_its_name_or_path() -> None:
    assert environment_named("memory").answer(PROBLEM, ["get x"])
    own = environment_named("test_dialogues:Accounts")
    assert own.answer(PROBLEM, [call("add", amount=1)]) == "1"
    assert own.version.startswith("1+")


def test_the_documented_environment_is_one() -> None:
    page = (Path(__file__).parent.parent / "docs" / "domains.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(class Bell:.*?)```", page, re.DOTALL)
    made: dict[str, Any] = {}
    exec(code, made)
    bell = replace(talk(), environment=made["Bell"]())
    rollout = rollout_of(replace(bell, engine=ScriptedEngine(rings)))
    assert [turn.text for turn in rollout.given] == ["rung 1 times", "rung 2 times"]


def rings(context: str, seed: int) -> str:
    return "done" if "rung 2" in context else "I ring"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("calculator", "choose one of memory"),
        ("test_dialogues:Nobody", "has no Nobody"),
        ("test_dialogues:PROBLEM", "is no environment: it has no name, version, role"),
        ("test_dialogues:Account", "cannot be made"),
        ("no_such_module:X", "cannot be imported"),
    ],
)
def test_what_is_no_environment_is_told_in_one_line(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        environment_named(name)
    assert "\n" not in str(raised.value)


# --- rollouts ----------------------------------------------------------------------------------


def test_a_rollout_is_a_whole_dialogue() -> None:
    rollout = rollout_of(talk())
    assert rollout.turns == TURNS
    assert [turn.text for turn in rollout.given] == ["kept", "41"]
    assert rollout.finish_reason is FinishReason.STOP
    whole = RENDERER.tokenizer.decode(rollout.token_ids)
    assert whole == (
        f"{TURNS[0]}<|im_end|>\n<|im_start|>user\nkept<|im_end|>\n<|im_start|>assistant\n"
        f"{TURNS[1]}<|im_end|>\n<|im_start|>user\n41<|im_end|>\n<|im_start|>assistant\n"
        f"{TURNS[2]}<|im_end|>"
    )
    own = [t for t, is_own in zip(rollout.token_ids, rollout.sampled, strict=True) if is_own]
    assert RENDERER.tokenizer.decode(own) == "".join(f"{turn}<|im_end|>" for turn in TURNS)
    assert rollout.num_tokens == len(own)


def test_each_turn_has_a_seed_of_its_own_and_all_share_one_budget() -> None:
    asked: list[tuple[int, int]] = []

    def script(context: str, seed: int) -> str:
        asked.append((context.count("<|im_start|>assistant"), seed))
        return said(context, seed)

    whole = rollout_of(talk(script))
    assert [turn for turn, _ in asked] == [1, 2, 3]
    assert len({seed for _, seed in asked}) == 3
    assert rollout_of(talk(script)) == whole
    for budget in (whole.num_tokens - 1, whole.num_tokens):
        cut = rollout_of(talk(), budget)
        assert cut.num_tokens == budget
        ended = FinishReason.STOP if budget == whole.num_tokens else FinishReason.LENGTH
        assert cut.finish_reason is ended


class Unclosed(ScriptedEngine):
    """Ends turns without the id that the template ends them with, as some servers do."""

    def complete(self, request: Request) -> Completion:
        found = super().complete(request)
        return replace(found, token_ids=found.token_ids[:-1])


def test_a_turn_is_closed_before_it_is_answered() -> None:
    whole, unclosed = rollout_of(talk()), rollout_of(replace(talk(), engine=Unclosed(said)))
    assert unclosed.turns == whole.turns
    assert unclosed.token_ids == whole.token_ids[:-1]
    assert unclosed.num_tokens == whole.num_tokens - len(TURNS)


def test_a_dialogue_without_end_is_truncated() -> None:
    rollout = rollout_of(talk(lambda context, seed: "get red", max_turns=3))
    assert rollout.turns == ["get red"] * 3 + [""]
    assert rollout.finish_reason is FinishReason.LENGTH
    short = rollout_of(talk(max_context_tokens=130))
    assert short.finish_reason is FinishReason.LENGTH
    assert len(short.given) >= 1


class Broken(MemoryEnvironment):
    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        raise OSError("no disk")


def test_an_environment_that_fails_is_our_failure() -> None:
    dialogue = replace(talk(), environment=Broken())
    failures = Failures(max_share=1.0)
    opening = opening_context("p", Condition.PROBLEM, PROBLEM.text, RENDERER)
    (rollout,) = sample([opening], spec(), dialogue, (), failures)
    assert rollout.finish_reason is FinishReason.REQUEST_FAILED
    assert failures.first_error == "environment 'memory': OSError: no disk"
    with Grader() as grader:
        (graded,) = grade([rollout], {"p": PROBLEM}, grader, ())
    assert graded.verdict is Verdict.UNGRADED


class Slow(MemoryEnvironment):
    """Hangs where the model reads a value, whatever it catches."""

    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        if turns[-1] == "get red":
            for _ in range(6000):
                with suppress(Exception):
                    time.sleep(0.01)
        return super().answer(problem, turns)


def test_an_answer_that_does_not_come_is_our_failure() -> None:
    failures, slow = Failures(max_share=1.0), TimedEnvironment(Slow(), 0.05)
    opening = opening_context("p", Condition.PROBLEM, PROBLEM.text, RENDERER)
    (rollout,) = sample([opening], spec(), replace(talk(), environment=slow), (), failures)
    assert rollout.finish_reason is FinishReason.REQUEST_FAILED
    assert failures.first_error == "environment 'memory': TimeoutError: no answer within 0.05 s"


def test_an_environment_that_hangs_time_after_time_stops_the_stage() -> None:
    slow = TimedEnvironment(Slow(), 0.2)  # a busy machine may stall for a moment
    for _ in range(2):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                slow.answer(PROBLEM, ["get red"])
        assert slow.answer(PROBLEM, ["set red 1"]) is not None
    opening = opening_context("p", Condition.PROBLEM, PROBLEM.text, RENDERER)
    asked = iter(["get red"] * 9)
    dialogue = replace(talk(lambda context, seed: next(asked)), environment=slow)
    with pytest.raises(EnvironmentHangsError, match=r"'memory' hangs: 4 answers .* is kept$"):
        list(sample([opening], spec(num_rollouts=9), dialogue, (), Failures(max_share=1.0)))
    assert slow.num_hung == 4, "nobody waits for the other five"


class Late(MemoryEnvironment):
    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        time.sleep(0.5)
        return "late"


class Leaves(MemoryEnvironment):
    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        sys.exit(3)


class Thread(MemoryEnvironment):
    """Belongs to the thread that made it, as a connection to a database does."""

    def __init__(self) -> None:
        self.made_in = threading.get_ident()

    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        return str(threading.get_ident() == self.made_in)


def test_what_is_timed_raises_and_says_what_it_would_without() -> None:
    assert TimedEnvironment(Thread(), 5).answer(PROBLEM, ["get red"]) == "True"
    with pytest.raises(OSError, match="no disk"):
        TimedEnvironment(Broken(), 5).answer(PROBLEM, ["get red"])
    with pytest.raises(RuntimeError, match=r"it calls sys.exit\(3\)"):
        TimedEnvironment(Leaves(), 5).answer(PROBLEM, ["get red"])
    plain, timed = MemoryEnvironment(), TimedEnvironment(MemoryEnvironment(), 5)
    for turns in ([TURNS[0]], TURNS[:2], TURNS):
        assert timed.answer(PROBLEM, turns) == plain.answer(PROBLEM, turns)
    assert (timed.name, timed.version, timed.role) == (plain.name, plain.version, plain.role)


@pytest.mark.timeout(300, method="thread")
def test_an_alarm_of_someone_else_still_comes() -> None:
    rung = list[int]()
    before = signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(TimeoutError):
            TimedEnvironment(Slow(), 0.05).answer(PROBLEM, ["get red"])
        until = time.monotonic() + 60
        while not rung and time.monotonic() < until:
            time.sleep(0.01)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_in_another_thread_nothing_is_limited() -> None:
    with ThreadPoolExecutor(1) as pool:
        timed = TimedEnvironment(Late(), 0.05)
        assert pool.submit(timed.answer, PROBLEM, ["get red"]).result() == "late"
    with pytest.raises(TimeoutError):
        timed.answer(PROBLEM, ["get red"])


def test_how_long_an_answer_may_take_renames_nothing() -> None:
    told = Dialogues(
        environment="memory", version="1", max_turns=4, timeout_seconds=60,
        problems=view([PROBLEM], "text"),
    )  # fmt: skip
    assert identity_of(told) == identity_of(replace(told, timeout_seconds=1))
    assert identity_of(told) != identity_of(replace(told, max_turns=5))
    assert told.talk.timeout_seconds == 60


class Numbers(MemoryEnvironment):
    def answer(self, problem: Problem, turns: Sequence[str]) -> Any:
        return 41


def test_an_answer_that_is_no_text_is_our_failure() -> None:
    failures = Failures(max_share=1.0)
    opening = opening_context("p", Condition.PROBLEM, PROBLEM.text, RENDERER)
    dialogue = replace(talk(), environment=Numbers())
    (rollout,) = sample([opening], spec(), dialogue, (), failures)
    assert rollout.finish_reason is FinishReason.REQUEST_FAILED
    assert "its answer is of type int, not a text" in failures.first_error


def test_a_dialogue_can_be_taken_back_between_its_turns() -> None:
    dialogue = talk()
    requests = [
        Request(
            request_id=name, prompt_token_ids=tuple(b"x"), sampling=spec().sampling, seed=1,
            group=name, problem_id="p",
        )
        for name in ("a", "b")
    ]  # fmt: skip
    with dialogue.session() as session:
        session.submit(requests)
        session.cancel(["a"])
        assert [one.request_id for one in session.completions()] == ["b"]
    found = list(run_requests(dialogue, [(r, None) for r in requests], Failures()))
    assert sorted(one.request_id for _, one in found) == ["a", "b"]


def test_only_the_models_own_words_are_graded() -> None:
    def echo(context: str, seed: int) -> str:
        asked = context.count("<|im_start|>assistant")
        return ["set red \\boxed{84}", "get red", "I give up."][asked - 1]

    rollout = rollout_of(talk(echo))
    given = EnvironmentTurn(text="\\boxed{84}", at=6, start=6, num_tokens=1)
    plain = replace(rollout, text="get itdone", given=(given,))
    with Grader() as grader:
        mine, theirs = grade([rollout, plain], {"p": PROBLEM}, grader, ())
    assert mine.verdict is Verdict.CORRECT  # it wrote the box itself
    assert theirs.verdict is Verdict.NO_ANSWER


def test_an_answer_is_not_put_together_over_turns() -> None:
    given = EnvironmentTurn(text="kept", at=8, start=8, num_tokens=1)
    split = replace(rollout_of(talk()), text="\\boxed{84}", given=(given,))
    with Grader() as grader:
        (graded,) = grade([split], {"p": PROBLEM}, grader, ())
    assert graded.verdict is not Verdict.CORRECT


# --- steps -------------------------------------------------------------------------------------


def test_steps_end_with_their_turn() -> None:
    rollout = rollout_of(talk())
    steps = BLANK_LINES.of(rollout)
    assert steps == ["Six times seven: 6 * 7 = 41.\n\n", "set red 41", "get red", TURNS[2]]
    assert "".join(steps) == rollout.text
    assert answers_of(rollout, steps) == {1: "kept", 2: "41"}
    assert [place_of(rollout, steps, i).turn for i in range(5)] == [0, 0, 1, 2, 2]
    assert [place_of(rollout, steps, i).in_turn for i in range(4)] == [0, 30, 0, 0]
    assert "Substep 2: set red 41\n\nEnvironment: kept\n\nSubstep 3: get red" in (
        BLANK_LINES.shown(rollout)
    )
    assert whole_text(rollout.text, rollout.given).count("→") == 2


def test_an_empty_turn_has_no_step_and_loses_nothing() -> None:
    given = tuple(
        EnvironmentTurn(text=text, at=at, start=0, num_tokens=0)
        for text, at in (("what?", 0), ("kept", 9), ("still there?", 9))
    )
    rollout = replace(rollout_of(talk()), text="set red 1done", given=given)
    assert BLANK_LINES.of(rollout) == ["set red 1", "done"]
    assert answers_of(rollout, ["set red 1", "done"]) == {-1: "what?", 0: "kept\nstill there?"}
    assert BLANK_LINES.shown(rollout).startswith("Environment: what?\n\nSubstep 1: set red 1\n\n")
    assert place_of(rollout, ["set red 1", "done"], 1).turn == 3


# --- interventions -----------------------------------------------------------------------------


@pytest.mark.parametrize("location", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "condition", [Condition.PREFIX, Condition.PREFIX_ERROR, Condition.PREFIX_INTERVENTION]
)
def test_a_prefix_is_what_was_sampled_and_what_was_answered(
    condition: Condition, location: int
) -> None:
    rollout = rollout_of(talk())
    opening = opening_context("p", Condition.PROBLEM, PROBLEM.text, RENDERER)
    proposal = proposal_at(location, "NEW", rollout)
    context = continuation_context(
        condition, proposal, rollout, opening, RENDERER, checker_named("math")
    )
    before = ["", "Six times seven: 6 * 7 = 41.\n\n", f"{TURNS[0]}<kept>", "get red<41>"]
    prefix = "".join(before[:location]) if location != 3 else before[2]
    if location == 4:
        prefix = before[2] + before[3]
    elif location == 2:
        prefix = before[1]
    for answer in ("kept", "41"):
        whole = f"<|im_end|>\n<|im_start|>user\n{answer}<|im_end|>\n<|im_start|>assistant\n"
        prefix = prefix.replace(f"<{answer}>", whole)
    steps = BLANK_LINES.of(rollout)
    added = {
        Condition.PREFIX: "",
        Condition.PREFIX_ERROR: steps[location - 1],
        Condition.PREFIX_INTERVENTION: "NEW\n\n" if location in (1, 4) else "NEW",
    }[condition]
    assert RENDERER.tokenizer.decode(context.response.all) == prefix + added
    kept = context.response.prefix
    assert tuple(kept) == rollout.token_ids[: len(kept)]
    assert len(context.given) == max(0, location - 2)
    assert "".join(context.said) == "".join(steps[: location - 1]) + added


def test_what_is_continued_is_answered_as_if_it_had_been_said_at_once() -> None:
    rollout = rollout_of(talk())
    opening = opening_context("p", Condition.PROBLEM, PROBLEM.text, RENDERER)
    proposal = proposal_at(1, "Six times seven: 6 * 7 = 42.", rollout)
    context = continuation_context(
        Condition.PREFIX_INTERVENTION, proposal, rollout, opening, RENDERER, checker_named("math")
    )
    (continued,) = sample([context], spec(), talk(), (), Failures())
    assert continued.turns == ["set red 42", "get red", "The answer is \\boxed{84}."]
    assert [turn.text for turn in continued.given] == ["kept", "42"]
    # From the second turn on the memory holds what was written in the prefix.
    later = proposal_at(3, "get red", rollout)
    again = continuation_context(
        Condition.PREFIX_INTERVENTION, later, rollout, opening, RENDERER, checker_named("math")
    )
    # What was answered costs no budget: it is not the model's.
    assert again.response_tokens == len(again.response.all) - again.given[0].num_tokens
    (at_once,) = sample([again], spec(), talk(), (), Failures())
    assert [turn.text for turn in at_once.given] == ["41"]
    assert at_once.turns == ["", "The answer is \\boxed{82}."]


SCRIPT = [
    [
        r"The student's attempt",
        '<intervention>{"content": "6 * 7 = 42.", "location": 1}</intervention>',
    ],
    [r"= 42\.\n\n$", "set red 42"],
    [r"user\n42<\|im_end\|>\n<\|im_start\|>assistant\n$", "The answer is \\boxed{84}."],
    [r"user\n41<\|im_end\|>\n<\|im_start\|>assistant\n$", "The answer is \\boxed{82}."],
    [r"user\nkept<\|im_end\|>\n<\|im_start\|>assistant\n$", "get red"],
    [r"6 \* 7 = 41\.\n\n$", "set red 41"],
    [".", TURNS[0]],
]


def dialogue_recipe(tmp_path: Path, **sections: Mapping[str, object]) -> Recipe:
    script, problems = tmp_path / "script.json", tmp_path / "problems.jsonl"
    script.write_text(json.dumps(SCRIPT))
    rows = [
        {
            "problem": f"Red is six times seven, {index}.", "answer": "84",
            "reference_solution": "Twice 6 times 7 makes 84.",
        }
        for index in range(3)
    ]  # fmt: skip
    problems.write_text("\n".join(json.dumps(row) for row in rows))
    given: dict[str, Any] = {
        "name": "t",
        "problems": {"path": str(problems)},
        "model": {"path": "lab"},
        "engine": {"kind": "scripted", "script": str(script)},
        "environment": {"name": "memory"},
        "sample": {"num_rollouts": 4, "max_duplicate_share": 1.0},
        "propose": {"turns": "single", "num_rollouts": 1, "num_proposals": 1},
        "verify": {
            "num_continuations": 4,
            "conditions": ["prefix", "prefix_error", "prefix_intervention"],
        },
    }
    return Recipe.model_validate({**given, **sections})


def test_an_error_of_an_early_turn_is_repaired(tmp_path: Path) -> None:
    def rows(session: Session, made: Method) -> tuple[list[SftRow], dict[Condition, set[str]]]:
        session.complete(made.models.rows)
        interventions = made.interventions
        verdicts = {
            condition: {str(g.verdict) for g in session.read(drawn.grades)}
            for condition, drawn in interventions.verified.items()
        }
        return ready(session, made), verdicts

    found, verdicts = run_to(tmp_path / "run", dialogue_recipe(tmp_path), rows)
    assert verdicts == {
        Condition.PREFIX: {"incorrect"},
        Condition.PREFIX_ERROR: {"incorrect"},
        Condition.PREFIX_INTERVENTION: {"correct"},
    }
    assert len(found) == 3
    assert all(row.prefix_tokens == 0 and not row.closes_turn for row in found)


def test_what_an_environment_said_is_not_learned(tmp_path: Path) -> None:
    """The proposer names the last turn: all that stands before it is the prefix."""
    script = [[SCRIPT[0][0], SCRIPT[0][1].replace('"location": 1', '"location": 4')]]
    script += [[r"= 42\.\n\n$", "The answer is \\boxed{84}."], *SCRIPT[2:]]
    recipe = dialogue_recipe(tmp_path)
    (tmp_path / "script.json").write_text(json.dumps(script))

    def rows(session: Session, made: Method) -> list[SftRow]:
        session.complete(made.models.rows)
        return ready(session, made)

    found = run_to(tmp_path / "run", recipe, rows)
    assert len(found) == 3
    for row in found:
        learned = [label for label in row.labels if label != IGNORED]
        text = RENDERER.tokenizer.decode(learned)
        assert text == f"{TURNS[0]}<|im_end|>get red<|im_end|>6 * 7 = 42.\n\n"
        hidden = [i for i, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED]
        assert "user\n41" in RENDERER.tokenizer.decode(hidden)
        assert row.prefix_tokens > len(learned) - row.intervention_tokens
    ends = RENDERER.end_of_turn_ids
    check_rows(found, ends)  # its turns closed, and that is learned
    (row, *_) = found
    closed = replace(row, input_ids=(*row.input_ids, *ends), labels=(*row.labels, *ends))
    with pytest.raises(DataError, match="would teach an end-of-turn after the intervention"):
        check_rows([closed], ends)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"environment": {"name": "abacus"}}, "choose one of memory"),
        ({"train_rl": {"sampler": "vllm"}}, "knows no environment"),
        ({"build_sft": {"source": "self_reflection"}}, "a whole solution is one text"),
        ({"train_sft": {"method": "sdft"}}, "self-distillation knows no environment"),
        ({"problems": {"kind": "lab"}}, "no dialogue"),
    ],
)
def test_what_dialogues_cannot_be_is_told_before_work(
    tmp_path: Path, sections: dict[str, Any], words: str
) -> None:
    with pytest.raises((ConfigError, ValueError), match=words):
        run_to(tmp_path / "run", dialogue_recipe(tmp_path, **sections), lambda s, made: made.train)


def test_a_template_without_the_role_is_refused() -> None:
    class Strict(ByteTokenizer):
        def apply_chat_template(self, conversation: Any, **keys: Any) -> str:
            kept = [message for message in conversation if message["role"] != "tool"]
            return super().apply_chat_template(kept, **keys)

    Renderer(Strict()).check_turn_of("user")
    with pytest.raises(ConfigError, match="no turn of role 'tool'"):
        Renderer(Strict()).check_turn_of("tool")
    assert "tool\nhi" in RENDERER.decode(RENDERER.next_turn_ids("hi", "tool"))


def test_a_dialogue_can_be_handed_to_another_process() -> None:
    told = Talk(environment="memory", max_turns=4, timeout_seconds=60, problems=(PROBLEM,))
    dialogue = told.through(ScriptedEngine(said), RENDERER)
    assert rollout_of(dialogue).turns == TURNS


def test_what_is_handed_over_says_that_an_environment_is_missing(tmp_path: Path) -> None:
    run_to(
        tmp_path / "run", dialogue_recipe(tmp_path), lambda s, made: s.complete(made.models.rows)
    )
    export_run(tmp_path / "run", "trl", tmp_path / "out")
    card = " ".join((tmp_path / "out" / "README.md").read_text("utf-8").split())
    assert "trains all that follows the prompt" in card
    assert "the environment `memory`, which is not in here" in card


# --- RL ----------------------------------------------------------------------------------------


class Telling(ScriptedEngine):
    """Tells log-probabilities too."""

    def complete(self, request: Request) -> Completion:
        found = super().complete(request)
        return replace(found, logprobs=(-1.0,) * len(found.token_ids))


def test_rl_samples_dialogues_and_masks_what_was_answered() -> None:
    config = TrainRlConfig(
        num_iterations=1, prompts_per_iteration=1, num_generations=2, num_updates=1,
        sampling=SamplingConfig(max_tokens=400),
    )  # fmt: skip
    told = Talk(environment="memory", max_turns=8, timeout_seconds=60, problems=(PROBLEM,))
    groups: list[Group] = []
    collector = Collector(
        schedule=Schedule([rl_problem("p", PROBLEM.text, Gold("math", "10"))], config, 0),
        config=config, grader=PatternGrader(), renderer=RENDERER, policy="rl:k", seed=0,
        keep=lambda _, found: groups.extend(found),
    )  # fmt: skip
    collector.sampler = EngineSampler(
        engine=Telling(said), failures=Failures, converse=partial(told.through, renderer=RENDERER)
    )
    (name,) = [slot_name(slot) for slot in collector.schedule.slots(0)]
    columns = collector([[{"role": "user", "content": name}]] * 2, None)
    (group,) = groups
    for rollout, ids, mask, logprobs in zip(
        group.rollouts, columns["completion_ids"], columns["env_mask"], columns["logprobs"],
        strict=True,
    ):  # fmt: skip
        assert rollout.turns == TURNS
        assert mask == [int(is_own) for is_own in rollout.sampled]
        assert tuple(ids) == rollout.token_ids
        assert [math.isnan(value) for value in logprobs] == [not is_own for is_own in mask]
        assert sum(mask) == rollout.num_tokens


# --- the memory world --------------------------------------------------------------------------


def stories(kind: Kind, count: int = 40) -> list[world.Story]:
    return list(islice(world.generate_stories(kind, Split.TRAIN, 3), count))


def dialogue_with(story: world.Story, amounts: Sequence[int]) -> Rollout:
    """The dialogue of somebody to whom the moves mean these amounts."""
    turns = world.turn_texts(story.turns_with(amounts))

    def script(context: str, seed: int) -> str:
        return turns[context.count("<|im_start|>assistant") - 1]

    return rollout_of(talk(script, max_turns=16), 1000)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_worlds_own_dialogue_is_right(kind: Kind) -> None:
    for story in stories(kind):
        rollout = dialogue_with(story, story.amounts)
        steps = BLANK_LINES.of(rollout)
        assert [step.strip() for step in steps] == story.steps
        assert first_wrong(steps, story) is None
        assert rollout.text.endswith(f"\\boxed{{{story.answer}}}.")
        assert all(1 <= value <= MAX_COUNT for value in story.results_with(story.amounts))
        assert story.reference.endswith(f"The result is {story.answer}.")


def test_a_wrong_belief_is_written_turns_before_it_shows() -> None:
    waits = []
    for story in stories(Kind.COMPOSED):
        believed = [value.move.belief for value in story.values]
        rollout = dialogue_with(story, believed)
        steps = BLANK_LINES.of(rollout)
        error = first_wrong(steps, story)
        assert error is not None
        problem = replace(PROBLEM, answer=story.answer)
        told = world_step(Case(problem, rollout, ""), story)
        assert told.outcome is ProposalOutcome.ACCEPTED
        assert told.step == story.steps[error]
        name = steps[error + 1].split()[1]  # what is written right after the wrong step
        assert steps[error + 1].startswith("set ")
        read = next(i for i, step in enumerate(steps) if step == f"get {name}")
        turns = [place_of(rollout, steps, i).turn for i in (error, read)]
        waits.append(turns[1] - turns[0])
    assert min(waits) >= 1
    assert max(waits) >= 3


def test_recipes_know_what_answers_in_a_world() -> None:
    assert {n: w.environment for n, w in WORLDS.items() if w.environment} == LAB_ENVIRONMENTS


def test_documents_of_the_memory_world_are_dialogues_of_their_own_split() -> None:
    rng, prompts = random.Random(0), load_prompt_set("lab")
    for _ in range(50):
        document = documents.TASKS["solve"](rng, prompts)
        assert Split.of(document.user) is Split.PRETRAIN
        own = [document.reply, *document.later[1::2]]
        answers = [MemoryEnvironment().answer(PROBLEM, own[: i + 1]) for i in range(len(own))]
        assert [*document.later[::2], None] == answers


def test_a_completion_of_one_turn_is_as_it_was() -> None:
    """Without an environment's word nothing is different: the records are the same."""
    plain = talk(lambda context, seed: "The answer is \\boxed{82}.")
    dialogue, alone = rollout_of(plain), rollout_of(replace(plain, environment=Silent()))
    assert dialogue == alone
    assert dialogue.given == ()


class Silent(MemoryEnvironment):
    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        return None
