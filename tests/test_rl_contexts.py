"""What RL begins from: contexts by share, their schedule, and the ids that are not trained."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import FIXED, PROPOSAL, REPLY
from midcourse.config import Recipe, TrainRlConfig, load_recipe
from midcourse.engines.bundled import base_folder
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.pipeline import Method, Session
from midcourse.pipeline.contexts import verified_ids
from midcourse.records import Condition, Gold, token_ids_sha
from midcourse.rendering import Renderer
from midcourse.stages.hints import hint_of
from midcourse.training.common import Setting
from midcourse.training.jobs import RlContext, RlJob, RlProblem
from midcourse.training.rl.collect import Collector, context_of
from midcourse.training.rl.run import make_rl_trainer
from midcourse.training.rl.schedule import Schedule, Slot
from midcourse.training.rl.trainer import RlTrainer
from rl_problems import FakeSampler, PatternGrader, rl_problem
from runs import run_to

HALF = {"problem": 0.5, "prefix_intervention": 0.5}


def config(**changes: Any) -> TrainRlConfig:
    small = {"num_iterations": 10, "prompts_per_iteration": 4, "num_generations": 4}
    return TrainRlConfig.model_validate({**small, **changes})


def guided(problem_id: str, num_interventions: int) -> RlProblem:
    """Return a problem that RL begins from its text, and from so many interventions."""
    plain = rl_problem(problem_id, f"Solve {problem_id}.", Gold("math", "1000"))
    contexts = [
        RlContext(
            condition=Condition.PREFIX_INTERVENTION,
            message=plain.contexts[0].message,
            prefix_ids=(41, 42, 43 + number),
            addition_ids=(51, 52),
            parent_id=f"{problem_id}-{number}",
        )
        for number in range(num_interventions)
    ]
    return RlProblem(problem_id=problem_id, gold=plain.gold, contexts=(*plain.contexts, *contexts))


PROBLEMS = [guided(f"p{number}", 3) for number in range(6)]


def all_slots(schedule: Schedule) -> list[Slot]:
    return [slot for i in range(schedule.config.num_iterations) for slot in schedule.slots(i)]


def test_by_default_every_group_begins_from_its_problem_alone() -> None:
    assert TrainRlConfig().conditions == (Condition.PROBLEM,)
    slots = all_slots(Schedule(PROBLEMS, config(), 0))
    assert {slot.context.condition for slot in slots} == {Condition.PROBLEM}
    # The mix changes the contexts, never the problems.
    mixed = all_slots(Schedule(PROBLEMS, config(contexts=HALF), 0))
    assert [s.problem.problem_id for s in mixed] == [s.problem.problem_id for s in slots]
    ids = [slot.problem.problem_id for slot in slots]
    assert all(len(set(ids[first : first + 6])) == 6 for first in range(0, 36, 6))


def test_every_condition_has_its_share_at_any_time() -> None:
    shares = {"problem": 0.2, "prefix": 0.3, "prefix_intervention": 0.5}
    slots = all_slots(Schedule(PROBLEMS, config(contexts=shares), 0))
    for number in range(1, len(slots) + 1):
        wanted = Counter(slot.wanted for slot in slots[:number])
        assert all(abs(wanted[Condition(name)] - number * shares[name]) < 1 for name in shares)


def test_shares_move_to_their_end_and_stay_there() -> None:
    mixed = config(contexts={"hint": 1}, contexts_end={"problem": 1}, anneal_share=0.5)
    hinted = [mixed.shares(i)[Condition.HINT] for i in range(10)]
    assert hinted == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0, 0])
    slots = all_slots(Schedule(PROBLEMS, mixed, 0))
    counts = Counter(slot.iteration for slot in slots if slot.wanted is Condition.HINT)
    assert counts == {0: 4, 1: 3, 2: 2, 3: 1}
    assert mixed.mean_shares()[Condition.HINT] == pytest.approx(0.25)


def test_hints_get_shorter_and_stay_at_their_shortest() -> None:
    def hinted(problem_id: str) -> RlProblem:
        texts = [RlContext(condition=Condition.HINT, message=share) for share in ("half", "less")]
        return replace(guided(problem_id, 0), contexts=tuple(texts))

    shrinking = config(contexts={"hint": 1}, hint_shares=[0.5, 0.25], anneal_share=0.4)
    schedule = Schedule([hinted(str(n)) for n in range(6)], shrinking, 0)
    shown = [{slot.context.message for slot in schedule.slots(i)} for i in range(10)]
    assert shown == [{"half"}] * 2 + [{"less"}] * 8


def test_contexts_of_a_problem_take_turns_and_a_problem_without_one_begins_from_its_text() -> None:
    problems = [guided("p", 3), *(guided(f"q{n}", 0) for n in range(3))]
    schedule = Schedule(problems, config(contexts={"prefix_intervention": 1}), 0)
    slots = all_slots(schedule)
    parents = [s.context.parent_id for s in slots if s.problem.problem_id == "p"]
    assert parents == [f"p-{number % 3}" for number in range(10)]
    others = [slot for slot in slots if slot.problem.problem_id != "p"]
    assert all(slot.context.condition is Condition.PROBLEM for slot in others)
    assert all(slot.falls_back for slot in others)
    assert not any(slot.falls_back for slot in slots if slot.problem.problem_id == "p")


def test_further_problems_are_known_beforehand_and_others_first() -> None:
    schedule = Schedule(PROBLEMS, config(max_refill=2.0), 0)
    for iteration in (3, 7):
        slots, further = schedule.slots(iteration), schedule.further(iteration)
        assert [slot.index for slot in further] == list(range(4, 12))
        assert further == Schedule(PROBLEMS, config(max_refill=2.0), 0).further(iteration)
        used = {slot.problem.problem_id for slot in slots}
        others = {slot.problem.problem_id for slot in further[: 6 - len(used)]}
        assert len(others) == 6 - len(used)
        assert not used & others
        # Only when all have come does a problem come again: then with fresh samples.
        every = [(s.problem.problem_id, s.occurrence) for s in (*slots, *further)]
        assert len(set(every)) == len(every) == 12
    assert schedule.further(3) != schedule.further(7)


def test_an_order_by_pass_rate_goes_through_quarters() -> None:
    problems = [
        RlProblem(
            problem_id=f"p{rate}",
            gold=Gold("math", "4"),
            contexts=PROBLEMS[0].contexts,
            pass_rate=rate / 16,
        )
        for rate in (3, 14, 0, 8, 1, 7, 15, 6, 2, 12, 5, 10, 4, 13, 9, 11)
    ]
    for order, turn in (("easy_first", 1), ("hard_first", -1)):
        schedule = Schedule(problems, config(order=order, num_iterations=12), 0)
        slots = all_slots(schedule)
        rates = [
            [16 * (s.problem.pass_rate or 0) for s in slots[n : n + 12]] for n in (0, 12, 24, 36)
        ]
        quarters = [[15, 14, 13, 12], [11, 10, 9, 8], [7, 6, 5, 4], [3, 2, 1, 0]][::turn]
        assert [sorted(part) for part in rates] == [sorted(quarter * 3) for quarter in quarters]
        assert {s.problem.pass_rate for s in schedule.further(0)} <= {r / 16 for r in quarters[0]}
    few = Schedule(problems[:5], config(order="easy_first"), 0)
    assert len({slot.problem.problem_id for slot in all_slots(few)}) == 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"contexts": {"problem": 0.5}}, "sum to 0.5"),
        ({"contexts": {"reflection": 1}}, "not a row of Table 1"),
        ({"contexts": {}}, "contexts is empty"),
        ({"anneal_share": 0.5}, "set contexts_end"),
    ],
)
def test_contexts_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(**changes)


def test_greedy_rollouts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sampling\.temperature = 0 draws the same rollout"):
        config(sampling={"temperature": 0})


def test_cuts_are_refused_where_they_would_look_like_stale_weights() -> None:
    for changes in ({"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.1}, {"repetition_penalty": 1.1}):
        with pytest.raises(ValueError, match="sampler 'vllm': the log-probabilities"):
            config(sampler="vllm", sampling=changes)
        assert config(sampler="engine", sampling=changes)
    assert config(sampler="vllm", sampling={"temperature": 0.7})


def test_an_order_needs_pass_rates() -> None:
    for changes, said in (
        ({"sample": {"num_rollouts": 4, "rounds": [1, 3]}}, "leave out sample.rounds"),
        ({"train_rl": {"order": "easy_first", "problems": "hard"}}, "one pass rate"),
    ):
        data = {"name": "x", "model": {"path": "lab"}, "train_rl": {"order": "easy_first"}}
        with pytest.raises(ValueError, match=said):
            Recipe.model_validate({**data, **changes})


def test_hint_guided_rl_is_a_context() -> None:
    recipe = load_recipe("paper/hint-rl", (), ["scale/lab"])
    assert recipe.train_rl.conditions == (Condition.HINT,)


# From the pipeline: the ids are those that were verified.

REFERENCE = "Take two.\n\nAdd two.\n\nFirst three.\n\nThen four.\n\nSo 4.\n\nIt is 4."
MIX = {"problem": 0.25, "hint": 0.25, "prefix": 0.25, "prefix_intervention": 0.25}


@pytest.fixture
def data(recipe_data: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The scripted recipe; the interventions of problem 2 lead nowhere."""
    rows = [
        {"id": f"p{i}", "problem": f"What is 2 + 2, {i}?", "answer": "4",
         "reference_solution": REFERENCE}
        for i in range(3)
    ]  # fmt: skip
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = [
        [r"Compare and intervene", PROPOSAL],
        [r"(?s)2, 2\?.*makes four\.\n\n$", REPLY],
        [r"makes four\.\n\n$", FIXED],
        [r".", REPLY, REPLY + " "],
    ]
    Path(recipe_data["engine"]["script"]).write_text(json.dumps(rules))
    return recipe_data


def rl_job(session: Session, m: Method) -> RlJob:
    training = m.models.rl_trainings()[0]
    session.complete(*training.inputs)
    job: RlJob = training.job(training.settings, session, training.key)
    return job


@pytest.mark.slow
def test_rl_begins_from_the_very_ids_that_were_verified(
    tmp_path: Path, data: dict[str, Any]
) -> None:
    def check(session: Session, m: Method) -> None:
        training = m.models.rl_trainings()[0]
        assert training.label == (
            "base + RL from problem and prefix and prefix_intervention and hint"
        )
        job = rl_job(session, m)
        verified = m.interventions.verified[Condition.PREFIX_INTERVENTION]
        kept = verified_ids(session, verified.grades)
        shas = {r.parent_id: r.prompt_sha for r in session.read(verified.rollouts)}
        assert kept < shas.keys()
        hard = {p.problem_id: p for p in m.hard.read(session)}
        renderer, seen = Renderer(ByteTokenizer()), set()
        for problem in job.problems:
            assert problem.contexts[0].condition is Condition.PROBLEM
            conditions = Counter(context.condition for context in problem.contexts)
            number = 0 if problem.problem_id == "p2" else 2
            assert conditions[Condition.PREFIX] == number
            assert conditions[Condition.PREFIX_INTERVENTION] == number
            for given in problem.contexts:
                slot = Slot(iteration=0, index=0, problem=problem, context=given, occurrence=0)
                context = context_of(slot, renderer)
                if given.condition is Condition.PREFIX_INTERVENTION:
                    assert token_ids_sha(context.token_ids) == shas[given.parent_id]
                    assert given.addition_ids
                    seen.add(given.parent_id)
                elif given.condition is Condition.PREFIX:
                    assert given.prefix_ids
                    assert not given.addition_ids
                elif given.condition is Condition.HINT:
                    assert f"Hint: {hint_of(hard[problem.problem_id], 0)}" in given.message
        assert seen == kept

    recipe = Recipe.model_validate({**data, "train_rl": {"contexts": MIX}})
    run_to(tmp_path / "run", recipe, check)


@pytest.mark.slow
def test_an_order_reads_the_pass_rates_of_sample(tmp_path: Path, data: dict[str, Any]) -> None:
    def rates(session: Session, m: Method) -> dict[str, float | None]:
        return {problem.problem_id: problem.pass_rate for problem in rl_job(session, m).problems}

    rules = [[r"2, 0\?", FIXED, REPLY], [r".", REPLY, REPLY + " "]]
    Path(data["engine"]["script"]).write_text(json.dumps(rules))
    recipe = Recipe.model_validate({**data, "train_rl": {"order": "easy_first"}})
    found = run_to(tmp_path / "run", recipe, rates)
    assert 0 < (found.pop("p0") or 0) < 1
    assert found == {"p1": 0.0, "p2": 0.0}


# In TRL's batch: only what was sampled is trained.


def collector_of(trainer: RlTrainer) -> Collector:
    collector: Collector = trainer.rollout_func
    return collector


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_only_newly_sampled_tokens_are_trained(tmp_path: Path) -> None:
    mixed = config(
        contexts=HALF,
        num_updates=1,
        micro_batch_size=16,
        sampling={"max_tokens": 8},
        max_logprob_gap=100,
    )
    trainer = make_rl_trainer(
        mixed, PROBLEMS, Setting(str(base_folder()), tmp_path, 0, print), "rl:k", PatternGrader()
    )
    sampler = FakeSampler()
    collector_of(trainer).sampler = sampler
    inputs = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    made = trainer._generate_and_score_completions(inputs)
    assert len(made["prompt_ids"]) == 16
    plain = [problem.contexts[0].message for problem in PROBLEMS]
    ids = [collector_of(trainer).renderer.prompt_ids([{"role": "user", "content": text}])
           for text in plain]  # fmt: skip
    assert trainer.args.vllm_max_model_length == max(map(len, ids)) + 8
    renderer, conditions = collector_of(trainer).renderer, Counter[Condition]()
    columns = (made[name].tolist() for name in
               ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask"))  # fmt: skip
    for ask, ids, mask, sampled, trained in zip(tuple(sampler.asked), *columns, strict=True):
        conditions[ask.context.condition] += 1
        given = [token for token, is_there in zip(ids, mask, strict=True) if is_there]
        message = f"Solve {ask.context.problem_id}."
        prompt = renderer.prompt_ids([{"role": "user", "content": message}])
        prefix: list[int] = []
        if ask.context.condition is Condition.PREFIX_INTERVENTION:
            number = int((ask.context.parent_id or "").rpartition("-")[2])
            prefix = [41, 42, 43 + number, 51, 52]
        assert given == [*prompt, *prefix]
        # The budget is that of verification: what stands there already counts.
        assert ask.sampling.max_tokens == 8 - len(prefix)
        kept = [token for token, is_there in zip(sampled, trained, strict=True) if is_there]
        (answer,) = sampler.sample([ask])
        assert tuple(kept) == answer.token_ids
    assert conditions == {Condition.PROBLEM: 8, Condition.PREFIX_INTERVENTION: 8}
