"""Online InT: where a whole group is wrong, RL proposes, verifies and goes on from what helped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import FIXED, PROPOSAL, REPLY
from made_runs import MadeRun
from midcourse.checkers import Grader
from midcourse.config import (
    GradeConfig,
    ModelConfig,
    ProposeConfig,
    Recipe,
    TrainRlConfig,
    load_recipe,
)
from midcourse.engines.bundled import base_folder
from midcourse.engines.scripted_engine import ByteTokenizer, ScriptedEngine
from midcourse.errors import ConfigError, DataError
from midcourse.lab.counts.world import Kind
from midcourse.lab.problems import draw_problems
from midcourse.lab.splits import Split
from midcourse.lab.worlds import Story
from midcourse.pipeline.models import Asking
from midcourse.progress import Failures, SilentProgress
from midcourse.prompts import load_prompt_set
from midcourse.records import (
    Condition,
    Problem,
    Proposal,
    ProposalOutcome,
    UngradedCause,
    Verdict,
)
from midcourse.rendering import Renderer
from midcourse.steps import BLANK_LINES, insert_step
from midcourse.training.jobs import Job, RlJob, RlProblem, run_jobs
from midcourse.training.rl.collect import Collector
from midcourse.training.rl.groups import Group
from midcourse.training.rl.online import OnlineInT
from midcourse.training.rl.run import train_rl
from midcourse.training.rl.samplers import EngineSampler
from midcourse.training.rl.schedule import Schedule
from midcourse.training.rl.store import (
    drop_groups,
    read_found,
    read_group_counts,
    read_rl_rollouts,
    write_groups,
)
from midcourse.viewer.collect import collect_view
from midcourse.viewer.data import ProposalBody, RolloutBody
from rl_problems import rl_problem
from test_rl_servers import Serve, serve
from test_training import setting, weights

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
__all__ = ["serve"]
PROMPTS = load_prompt_set("lab")
CONFIG = TrainRlConfig.model_validate(
    {
        "num_iterations": 3, "prompts_per_iteration": 4, "num_generations": 4, "num_updates": 1,
        "micro_batch_size": 8, "save_every": 1, "sampling": {"max_tokens": 200},
        "online": {"share": 0.5, "num_continuations": 2},
    }
)  # fmt: skip


def problem(number: int, reference: str | None = "4.") -> Problem:
    return Problem(
        problem_id=f"p{number}", text=f"What is 2 + 2, {number}?", answer="4",
        reference_solution=reference, source="test", split="train",
    )  # fmt: skip


def asked_plainly(problems: list[Problem]) -> list[RlProblem]:
    return [
        rl_problem(p.problem_id, PROMPTS["solve"].render(problem=p.text), p.gold) for p in problems
    ]


def asking(**changes: Any) -> Asking:
    config = ProposeConfig(turns="single", num_proposals=1).model_copy(update=changes)
    return Asking(config=config, review=PROMPTS["single_turn"], guided=None)


def policy(text: str, seed: int) -> str:
    """Wrong at first, right after the intervention; p0 and p1 are solved without one."""
    if "Compare and intervene" in text:
        return PROPOSAL
    if text.endswith("makes four.\n\n"):
        return FIXED
    return FIXED if ", 0?" in text or ", 1?" in text else REPLY + " " * (seed % 3)


def run_of(
    out: Path, grader: Grader, config: TrainRlConfig = CONFIG, script: Any = policy
) -> tuple[Collector, OnlineInT]:
    """Return what an RL run samples with, without a trainer."""
    problems = [problem(n) for n in range(8)]
    plain = asked_plainly(problems)
    renderer = Renderer(ByteTokenizer())
    engine = ScriptedEngine(script)
    collector = Collector(
        schedule=Schedule(plain, config, seed=0), config=config, grader=grader, renderer=renderer,
        policy="rl:k", seed=0, keep=lambda iteration, groups: None,
    )  # fmt: skip
    collector.sampler = EngineSampler(engine=engine, failures=Failures)
    collector.online = OnlineInT(
        config=config, reviews=asking().about(problems), problems=plain, engine=engine,
        grader=grader, renderer=renderer, policy="rl:k", seed=0, out=out,
    )  # fmt: skip
    return collector, collector.online


def iterate(collector: Collector, iteration: int) -> list[Group]:
    """Do what comes before an iteration is trained on."""
    online = collector.online
    assert online is not None
    groups = collector.collect(online.place(collector.schedule.slots(iteration)))
    write_groups(online.out, iteration, groups)
    online.find(iteration, groups)
    return groups


def test_what_was_verified_takes_the_last_places_of_the_next_iteration(
    tmp_path: Path, grader: Grader
) -> None:
    collector, online = run_of(tmp_path, grader)
    first = iterate(collector, 0)
    wrong = {g.rollouts[0].problem_id for g in first if not any(g.rewards)}
    assert len(wrong) >= 2, "nothing to ask about: choose another seed"
    assert {g.rollouts[0].condition for g in first} == {Condition.PROBLEM}
    found, sampled = read_found(tmp_path, 0)
    assert {p.problem_id for p in found.proposals} == wrong
    assert {p.outcome for p in found.proposals} == {ProposalOutcome.ACCEPTED}
    assert len(found.rollouts) == len(found.grades) == 2 * len(wrong)
    assert {p.rollout_id for p in found.proposals} <= sampled.keys()
    assert all(p.proposer == "rl:k@0" for p in found.proposals)

    second = iterate(collector, 1)
    assert [g.rollouts[0].condition for g in second[:2]] == [Condition.PROBLEM] * 2
    for group in second[2:]:
        assert group.rollouts[0].condition is Condition.PREFIX_INTERVENTION
        assert {grade.verdict for grade in group.grades} == {Verdict.CORRECT}
    counts = online.numbers
    assert counts["online/used"] == 2
    assert collector.schedule.slots(1)[:2] == online.place(collector.schedule.slots(1))[:2]


def test_a_group_goes_on_from_the_ids_of_prefix_and_intervention(
    tmp_path: Path, grader: Grader
) -> None:
    collector, online = run_of(tmp_path, grader)
    iterate(collector, 0)
    found, sampled = read_found(tmp_path, 0)
    by_id = {p.proposal_id: p for p in found.proposals}
    for slot in online.place(collector.schedule.slots(1))[2:]:
        proposal = by_id[str(slot.context.parent_id)]
        rollout = sampled[proposal.rollout_id]
        prefix = BLANK_LINES.prefix_before(rollout.text, insert_step(proposal))
        assert slot.context.prefix_ids == rollout.token_ids[: len(slot.context.prefix_ids)]
        assert bytes(slot.context.prefix_ids).decode() == prefix
        assert bytes(slot.context.addition_ids).decode() == proposal.intervention
        verifying = [r for r in found.rollouts if r.parent_id == proposal.proposal_id]
        (group,) = collector.collect([slot])
        assert {r.prompt_sha for r in verifying} == {r.prompt_sha for r in group.rollouts}
        room = CONFIG.sampling.max_tokens - len(slot.context.prefix_ids + slot.context.addition_ids)
        assert {r.sampling.max_tokens for r in group.rollouts} == {room}


def test_what_was_found_is_counted(tmp_path: Path, grader: Grader) -> None:
    collector, online = run_of(tmp_path, grader)
    iterate(collector, 0)
    found, _ = read_found(tmp_path, 0)
    replies = sum(len(turn.reply) for p in found.proposals for turn in p.turns)
    number = float(len(found.proposals))
    assert online.numbers.pop("online/proposer_in") > online.numbers.pop("online/proposer_out") > 0
    assert online.numbers == {
        "online/proposer_requests": number,
        "online/asked": number,
        "online/accepted": number,
        "online/verified": number,
        "online/used": 0.0,
        "online/tokens": float(replies + sum(r.num_tokens for r in found.rollouts)),
    }


def test_it_is_bounded_and_the_last_iteration_asks_nothing(tmp_path: Path, grader: Grader) -> None:
    bounds = CONFIG.online.model_copy(update={"max_cases": 1, "share": 1.0})
    collector, online = run_of(tmp_path, grader, CONFIG.model_copy(update={"online": bounds}))
    for iteration in range(3):
        iterate(collector, iteration)
        assert online.numbers["online/asked"] == (1 if iteration < 2 else 0)
    assert online.numbers["online/used"] == 1
    assert read_found(tmp_path, 2)[0].proposals == ()


@pytest.mark.parametrize("reply", ["No idea.", PROPOSAL.replace("four", "five")])
def test_what_is_not_accepted_or_not_verified_is_kept_and_not_used(
    tmp_path: Path, grader: Grader, reply: str
) -> None:
    def useless(text: str, seed: int) -> str:
        return reply if "Compare and intervene" in text else REPLY

    collector, online = run_of(tmp_path, grader, script=useless)
    iterate(collector, 0)
    found, _ = read_found(tmp_path, 0)
    assert len(found.proposals) == 4
    assert online.numbers["online/verified"] == 0
    assert online.place(collector.schedule.slots(1)) == collector.schedule.slots(1)


def test_a_group_that_could_not_be_graded_is_not_taken_for_wrong(
    tmp_path: Path, grader: Grader
) -> None:
    collector, online = run_of(tmp_path, grader)
    groups = collector.collect(collector.schedule.slots(0))
    wrong = next(group for group in groups if not any(group.rewards))
    ungraded = tuple(
        replace(g, verdict=Verdict.UNGRADED, cause=UngradedCause.TIMEOUT) for g in wrong.grades
    )
    assert online._cases([replace(wrong, grades=(*ungraded[:2], *wrong.grades[2:]))])
    assert not online._cases([replace(wrong, grades=(*ungraded[:3], *wrong.grades[3:]))])
    right = tuple(replace(g, verdict=Verdict.CORRECT) for g in wrong.grades)
    assert not online._cases([replace(wrong, grades=(*right[:1], *wrong.grades[1:]))])
    guided = replace(wrong.rollouts[0], condition=Condition.PREFIX_INTERVENTION)
    assert not online._cases([replace(wrong, rollouts=(guided, *wrong.rollouts[1:]))])
    cut = tuple(replace(g, truncated=n < 2) for n, g in enumerate(wrong.grades))
    (case,) = online._cases([replace(wrong, grades=cut)])
    assert case.rollout == wrong.rollouts[2], "the first one that came to an end"


def test_another_process_finds_the_same_and_what_is_done_again_is_dropped(
    tmp_path: Path, grader: Grader
) -> None:
    collector, _ = run_of(tmp_path, grader)
    iterate(collector, 0)
    second = iterate(collector, 1)
    resumed, _ = run_of(tmp_path, grader)
    drop_groups(tmp_path, 1)
    assert sorted(p.name for p in tmp_path.rglob("*.parquet")) == ["iteration-000000.parquet"] * 6
    assert iterate(resumed, 1) == second


def test_problems_without_a_reference_are_not_asked_about() -> None:
    given, missing = problem(0), problem(1, reference=None)
    assert asking().about([given, missing]).problems == (given,)
    with pytest.raises(DataError, match="no problem has a reference_solution"):
        asking().about([missing])
    unseen = asking(reference="none").about([given, missing]).problems
    assert [p.reference_solution for p in unseen] == ["", ""]
    others = [problem(n, f"{n}.") for n in range(3)]
    shuffled = asking(reference="shuffled").about(others).problems
    assert [p.reference_solution for p in shuffled] == ["1.", "2.", "0."]


def test_it_is_off_by_default_and_then_nothing_changes() -> None:
    plain = Recipe.model_validate({"name": "x", "model": {"path": "lab"}})
    assert plain.train_rl.online.share == 0
    assert "online" not in plain.train_rl.identity()
    recipe = load_recipe("paper/online", overlays=["scale/lab"])
    assert recipe.train_rl.most_online == 2
    for sampler in ("generate", "vllm"):
        with pytest.raises(ConfigError, match="online asks the policy, which sampler"):
            load_recipe("paper/online", [f"train_rl.sampler={sampler}"], ["scale/lab"])
    with pytest.raises(ConfigError, match=r"cannot take propose\.truth"):
        load_recipe("paper/online", ["propose.truth=true"], ["scale/lab"])


# --- with a model ------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_killed_run_with_online_interventions_ends_as_a_whole_one(
    tmp_path: Path, grader: Grader
) -> None:
    stories: dict[str, Story] = {}
    problems = draw_problems(Kind.SINGLE, Split.TRAIN, 8, 0, stories)
    sizes = {"num_continuations": 8, "share": 0.5, "max_cases": 4}
    config = CONFIG.model_copy(
        update={
            "learning_rate": 1e-4,
            "sampling": CONFIG.sampling.model_copy(update={"max_tokens": 100}),
            "online": CONFIG.online.model_copy(update=sizes),
        }
    )
    tokens = ProposeConfig().sampling.model_copy(update={"max_tokens": 300})
    reviews = asking(sampling=tokens).about(problems)

    def train(out: Path, on_log: Any) -> None:
        out.mkdir(exist_ok=True)
        train_rl(config, asked_plainly(problems), setting(out, on_log), "rl:k", grader, reviews)

    def die_at_the_third(entry: Mapping[str, float]) -> None:
        if entry["step"] == 3:
            raise Killed

    logged: list[Mapping[str, float]] = []
    train(tmp_path / "whole", logged.append)
    with pytest.raises(Killed):
        train(tmp_path / "cut", die_at_the_third)
    train(tmp_path / "cut", lambda _: None)
    used = [entry["online/used"] for entry in logged if "reward" in entry]
    assert sum(used) >= 2, f"too little was verified to see anything: {json.dumps(logged)}"
    whole, cut = (list(read_rl_rollouts(tmp_path / name)) for name in ("whole", "cut"))
    assert cut == whole
    counts = read_group_counts(tmp_path / "whole")
    guided = [c for c in counts if c.condition is Condition.PREFIX_INTERVENTION]
    assert len(guided) == sum(used)
    assert any(c.num_correct for c in guided), "an intervention helps"
    for iteration in range(3):
        assert read_found(tmp_path / "cut", iteration) == read_found(tmp_path / "whole", iteration)
    ours, theirs = (weights(tmp_path / name / "final") for name in ("cut", "whole"))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    proposals: list[Proposal] = list(read_found(tmp_path / "whole", 0)[0].proposals)
    assert all(len(p.turns) == 1 for p in proposals)


@pytest.mark.nightly
def test_two_processes_share_the_servers_and_what_online_int_finds(
    tmp_path: Path, serve: Serve
) -> None:
    problems = draw_problems(Kind.SINGLE, Split.TRAIN, 8, 0, {})
    tokens = ProposeConfig().sampling.model_copy(update={"max_tokens": 300})
    config = CONFIG.model_copy(
        update={
            "num_iterations": 2,
            "accelerate": "accelerate/cpu2",
            "micro_batch_size": 4,
            "sampler": "servers",
            "servers": serve(""),
            "sampling": CONFIG.sampling.model_copy(update={"max_tokens": 100}),
            "online": CONFIG.online.model_copy(update={"max_cases": 4}),
        }
    )
    content = RlJob(
        config=config,
        model=ModelConfig(path=str(base_folder())),
        seed=0,
        policy="rl:k",
        grade=GradeConfig(num_workers=1),
        problems=tuple(asked_plainly(problems)),
        reviews=asking(sampling=tokens).about(problems),
    )
    out = tmp_path / "rl"
    run_jobs([Job("train rl", out, content)], SilentProgress())
    found, _ = read_found(out, 0)
    counts = read_group_counts(out)
    assert [c.iteration for c in counts] == [0] * 4 + [1] * 4
    guided = [c for c in counts if c.condition is Condition.PREFIX_INTERVENTION]
    assert len(guided) == min(2, len(found.verified())) > 0
    assert len({r.rollout_id for r in read_rl_rollouts(out)}) == 32
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    gaps = [line["sampler/logprob_gap"] for line in lines if "reward" in line]
    assert len(gaps) == 2
    assert max(gaps) < 1e-4


def test_the_viewer_has_what_online_int_made_and_what_groups_began_from(
    tmp_path: Path, grader: Grader
) -> None:
    run = MadeRun(tmp_path / "run", [problem(n) for n in range(8)])
    folder = run.directory / "checkpoints" / "k"
    collector, _ = run_of(folder, grader)
    groups = [group for iteration in range(2) for group in iterate(collector, iteration)]
    (folder / "job.json").write_text("{}")
    run.announce(folder, "checkpoints", "base + RL with online InT")
    view = collect_view(run.directory)
    chunks, items = list(view.chunks), {item.id: item for item in view.items}
    found, attempts = read_found(folder, 0)
    assert found.proposals
    for made in found.proposals:
        item = items[made.proposal_id]
        body = chunks[item.chunk][item.position]
        assert isinstance(body, ProposalBody)
        assert (item.kind, item.iteration, item.arm) == (
            "proposal", 0, "base + RL with online InT"
        )  # fmt: skip
        assert "\n\n".join(body.steps) == attempts[made.rollout_id].text
        assert body.answer == "5"
        verdicts = [g.verdict for g in found.grades if g.parent_id == made.proposal_id]
        assert [c.verdict for c in body.continuations] == verdicts
        assert item.verified == (Verdict.CORRECT in verdicts if verdicts else None)
    guided = [g for group in groups for g in group.rollouts if g.parent_id is not None]
    assert guided
    for rollout in guided:
        item = items[rollout.rollout_id]
        body = chunks[item.chunk][item.position]
        assert isinstance(body, RolloutBody)
        assert (item.iteration, item.condition) == (1, "prefix_intervention")
        assert body.context.startswith("Two and two.\n\n")
        assert body.context.endswith("makes four.\n\n")
