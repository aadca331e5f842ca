"""What RL samples is kept as records: read, counted, shown, reported, and graded again.

Nothing is trained here: groups are written as RL writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from midcourse.checkers import Grader
from midcourse.cli import app
from midcourse.config import Recipe
from midcourse.errors import ArtifactError
from midcourse.pipeline import Method, Session, open_run
from midcourse.records import (
    Condition,
    FinishReason,
    Grade,
    Problem,
    Rollout,
    Sampling,
    Start,
    UngradedCause,
    Verdict,
)
from midcourse.report.audit import audit_rl, counts_table
from midcourse.report.rl import (
    RlCourse,
    agreement_table,
    group_table,
    read_course,
    read_log,
)
from midcourse.report.show import Wanted, choose, find, group_tables, groups_of, panels, read_view
from midcourse.report.write import write_report
from midcourse.run import WorkTimer
from midcourse.training.rl.advantages import advantages_of, reward_of
from midcourse.training.rl.groups import Group
from midcourse.training.rl.store import (
    Found,
    drop_groups,
    read_group_counts,
    read_group_summaries,
    read_rl,
    write_found,
    write_groups,
)
from runs import run_to
from test_store import proposal

VERDICTS = {"1": Verdict.CORRECT, "0": Verdict.INCORRECT, "u": Verdict.UNGRADED}
EVIL = "</script><img src=x onerror=alert(1)> [/bold] \u2028 \x1b]0;owned\x07 & <b>"
SAMPLING = Sampling(
    temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=9
)


def problem_of(problem_id: str, answer: str) -> Problem:
    return Problem(
        problem_id=problem_id,
        text="2 + 2?",
        answer=answer,
        reference_solution=None,
        source="",
        split="train",
    )


def rollout_of(iteration: int, problem_id: str, index: int, text: str) -> Rollout:
    return Rollout(
        rollout_id=f"{problem_id}-{iteration}-{index}",
        problem_id=problem_id,
        index=index,
        condition=Condition.PROBLEM,
        parent_id=None,
        prompt_sha="",
        prompt_tokens=3,
        text=text,
        token_ids=(1, 2, 3),
        num_tokens=3,
        finish_reason=FinishReason.STOP,
        model=f"rl:k@{iteration}",
        sampling=SAMPLING,
        seed=index,
    )


def grade_of(rollout: Rollout, verdict: Verdict) -> Grade:
    return Grade(
        rollout_id=rollout.rollout_id,
        problem_id=rollout.problem_id,
        parent_id=None,
        condition=rollout.condition,
        verdict=verdict,
        extracted_answer="4",
        cause=UngradedCause.TIMEOUT if verdict is Verdict.UNGRADED else None,
        truncated=False,
        grader="test",
    )


def group_of(
    iteration: int, index: int, signs: str, *, text: str = r"\boxed{4}", is_trained: bool = True
) -> Group:
    """Return a group of problem ``p<index>``, a rollout per sign: 1, 0 or u."""
    problem_id = f"p{index}"
    rollouts = [rollout_of(iteration, problem_id, number, text) for number in range(len(signs))]
    verdicts = [VERDICTS[sign] for sign in signs]
    return Group(
        iteration=iteration,
        index=index,
        context_ids=(7, 8),
        rollouts=tuple(rollouts),
        logprobs=((),) * len(signs),
        grades=tuple(map(grade_of, rollouts, verdicts)),
        advantages=tuple(advantages_of([reward_of(verdict) for verdict in verdicts], "mean")),
        is_trained=is_trained,
    )


#: Three iterations; in the second a third group took the place of one without a gradient.
ITERATIONS = [
    [group_of(0, 0, "0000"), group_of(0, 1, "1000")],
    [group_of(1, 0, "0000", is_trained=False), group_of(1, 1, "11u0"), group_of(1, 2, "1110")],
    [group_of(2, 0, "0100", text=EVIL), group_of(2, 1, "1111")],
]


def write(folder: Path, iterations: Sequence[Sequence[Group]] = ITERATIONS) -> Path:
    for number, groups in enumerate(iterations):
        write_groups(folder, number, groups)
    return folder


def log(folder: Path, *lines: str) -> None:
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def entry(step: int, gap: float, **more: float) -> str:
    numbers = {"step": step, "loss": 0.0, "sampler/logprob_gap": gap, **more}
    return json.dumps(numbers)


def printed(renderable: RenderableType) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_what_is_written_is_read_in_order_with_verdict_and_place(tmp_path: Path) -> None:
    members = list(read_rl(write(tmp_path)))
    groups = [group for iteration in ITERATIONS for group in iteration]
    assert [rollout for rollout, _, _ in members] == [r for g in groups for r in g.rollouts]
    assert [grade for _, grade, _ in members] == [grade for g in groups for grade in g.grades]
    assert [sample for _, _, sample in members] == [sample for g in groups for sample in g.samples]
    assert {r.token_ids for r, _, _ in read_rl(tmp_path, without=["token_ids"])} == {()}


def test_groups_are_counted_from_the_records(tmp_path: Path) -> None:
    summaries = read_group_summaries(write(tmp_path))
    counts = [summary.count for summary in summaries]
    assert counts == read_group_counts(tmp_path)
    assert [(c.iteration, c.num_correct, c.num_incorrect, c.num_ungraded) for c in counts] == [
        (0, 0, 4, 0), (0, 1, 3, 0), (1, 0, 4, 0), (1, 2, 1, 1), (1, 3, 1, 0), (2, 1, 3, 0),
        (2, 4, 0, 0),
    ]  # fmt: skip
    assert [summary.is_trained for summary in summaries] == [True] * 2 + [False] + [True] * 4
    assert {summary.num_tokens for summary in summaries} == {12}
    mixed = summaries[1]
    assert (mixed.least_advantage, mixed.greatest_advantage) == (-0.25, 0.75)


def test_what_will_be_done_again_is_dropped(tmp_path: Path) -> None:
    drop_groups(write(tmp_path), 1)
    assert {count.iteration for count in read_group_counts(tmp_path)} == {0}


def test_an_iteration_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    (last,) = write(tmp_path).glob("samples/*000002.parquet")
    last.unlink()
    assert {sample.iteration for _, _, sample in read_rl(tmp_path)} == {0, 1}


def test_show_lists_groups_of_a_problem_or_an_iteration(tmp_path: Path) -> None:
    write(tmp_path / "checkpoints" / "abc")
    every = printed(group_tables(groups_of(tmp_path, "", None)))
    assert "Groups of RL (abc)" in every
    assert len(re.findall(r"^\s*\d/\d ", every, re.MULTILINE)) == 7
    one = printed(group_tables(groups_of(tmp_path, "p1", 1)))
    (row,) = re.findall(r"^\s*\d/\d .*", one, re.MULTILINE)
    assert row.split() == ["1/1", "p1", "problem", "2", "1", "1", "-0.67…+0.33", "12", "trained"]
    assert "replaced" in printed(group_tables(groups_of(tmp_path, "p0", 1)))
    with pytest.raises(ArtifactError, match="no group of RL of problem 'p2' in iteration 0"):
        groups_of(tmp_path, "p2", 0)


def test_show_gives_groups_as_json(tmp_path: Path) -> None:
    write(tmp_path / "checkpoints" / "abc")
    asked = CliRunner().invoke(
        app, ["show", str(tmp_path), "p1", "--rl", "--iteration", "1", "--json"]
    )
    (one,) = json.loads(asked.stdout)
    assert (one["training"], one["index"], one["problem_id"], one["num_correct"]) == (
        "RL (abc)", 1, "p1", 2,
    )  # fmt: skip


def shown(run_dir: Path, record_id: str) -> str:
    (run_dir / "recipes").mkdir(exist_ok=True)  # what a run directory is known by, and a training
    (run_dir / "checkpoints" / "abc" / "job.json").touch()
    view = read_view(run_dir, with_rollouts=True)
    return printed(panels(view, find(view, record_id)))


def test_show_prints_a_rollout_with_its_place_in_rl_and_obeys_nothing(tmp_path: Path) -> None:
    write(tmp_path / "checkpoints" / "abc")
    text = shown(tmp_path, "p0-2-1")
    assert "p0-2-1: correct: " in text
    assert "iteration 2, group 0, problem, advantage +0.750" in text
    assert r"\x1b]0;owned\x07" in text
    assert "\x1b]0;" not in text
    assert "group 0, problem, replaced" in shown(tmp_path, "p0-1-0")
    assert shown(tmp_path, "p1").count("iteration ") == 12


def test_show_prints_what_online_int_proposed_about_rl_s_rollouts(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoints" / "abc")
    text = "Two and two.\n\nSo 2 + 2 = 5.\n\n"
    write(folder, [[group_of(0, 0, "0000", text=text)]])
    made = replace(proposal(0), rollout_id="p0-0-2")
    write_found(folder, 0, Found(proposals=(made,)))
    printed_one = shown(tmp_path, made.proposal_id)
    assert "→  So." in printed_one
    assert "So 2 + 2 = 5." in printed_one
    view = read_view(tmp_path, with_rollouts=False)
    assert made.proposal_id in {item.id for item in choose(view, Wanted())}


def test_the_log_keeps_the_last_entry_of_a_step_and_may_be_truncated(tmp_path: Path) -> None:
    assert read_log(tmp_path, 2) == {}
    summary = json.dumps({"step": 6, "train_runtime": 9.0})
    log(tmp_path, entry(2, 1.0), entry(4, 2.0), entry(4, 3.0), entry(6, 4.0), summary, '{"step": 8')
    gaps = {step: found["sampler/logprob_gap"] for step, found in read_log(tmp_path, 2).items()}
    assert gaps == {0: 1.0, 1: 3.0, 2: 4.0}


def test_tables_of_groups_and_of_agreement(tmp_path: Path) -> None:
    weight = {"sampler/importance_weight_max": 1.5, "clip_ratio/region_mean": 0.02}
    log(tmp_path, entry(1, 1e-6, **weight), entry(2, 3e-6), entry(6, 0.5))
    courses = {"base + RL": read_course(write(tmp_path), 1)}
    assert group_table(courses).rows == (("base + RL", "1-5", "7", "6", "1", "84", "72"),)
    first, second = agreement_table(courses).rows
    assert first == ("base + RL", "1-5", "2", "2e-06", "–", "–", "–", "1.5000", "–", "2.00%")
    assert second[:4] == ("base + RL", "6-10", "1", "0.5")
    assert agreement_table({"x": RlCourse([], {})}).rows == ()


def test_rewarded_rollouts_are_graded_again(tmp_path: Path) -> None:
    iterations = [[group_of(0, 0, "10"), group_of(0, 1, "11")], [group_of(1, 2, "00")]]
    folder = write(tmp_path / "checkpoints" / "abc", iterations)
    problems = [problem_of("p0", "4"), problem_of("p1", "5")]
    with Grader(num_workers=1) as second, Grader(num_workers=1) as now:
        assert audit_rl(tmp_path, problems, second, now) == {}, "it is not finished"
        (folder / "manifest.json").write_text("{}")
        found = audit_rl(tmp_path, problems, second, now)
    assert list(found) == [
        "RL (abc): as rewarded, and math-verify", "RL (abc): as rewarded, and graded again"
    ]  # fmt: skip
    for opinions in found.values():
        table = counts_table("", opinions)
        assert table.columns[1:] == ("correct", "incorrect")
        assert table.rows == (("correct", "1", "2"), ("incorrect", "1", "0"))
        assert {o.rollout_id for o in opinions if o.differs} == {"p0-0-1", "p1-0-0", "p1-0-1"}
    assert [opinions[0].by for opinions in found.values()] == ["math-verify", "midcourse now"]


def train_by_hand(session: Session, made: Method) -> None:
    """Complete a recipe whose RL has sampled what `ITERATIONS` say."""
    for training in made.models.rl_trainings():
        folder = session.run.path(training)
        folder.mkdir(parents=True)
        updates = training.settings.config.num_updates
        more = {"sampler/entropy": 0.75}
        log(write(folder), entry(updates, 1e-6), entry(2 * updates, 2e-6, **more))
        session.run.finish(training, WorkTimer.begin(), {})
    for steps in made.steps():
        session.complete(*steps)


@pytest.fixture
def rl_run(tmp_path: Path, recipe_data: dict[str, Any]) -> Path:
    evaluate = {"models": ["base", "base + RL"], "num_rollouts": 4, "ks": [1, 2]}
    recipe = Recipe.model_validate({**recipe_data, "evaluate": evaluate})

    def make(session: Session, made: Method) -> None:
        train_by_hand(session, made)
        write_report(session, made)

    run_to(tmp_path / "run", recipe, make)
    return tmp_path / "run"


@pytest.mark.slow
def test_a_report_shows_what_rl_sampled_and_a_finished_run_reads_it(rl_run: Path) -> None:
    members = list(open_run(rl_run).rl_rollouts(Start.BASE))
    assert len(members) == 28
    assert [rollout.text for rollout, _, sample in members if sample.advantage == 0.75] == [
        r"\boxed{4}", EVIL
    ]  # fmt: skip
    content = json.loads((rl_run / "report" / "tables.json").read_text())
    tables = {table["title"]: table["rows"] for table in content["tables"]}
    assert tables["RL: groups and tokens"] == [["base + RL", "1-5", "7", "6", "1", "84", "72"]]
    (agreement,) = tables["RL: do sampler and trainer agree?"]
    assert agreement[2:4] == ["2", "1.5e-06"]
    drawn = {path.stem for path in (rl_run / "report").glob("*.svg")}
    assert {"reward", "zero_advantage", "group_kinds", "sampler_gap", "sampler_entropy"} <= drawn
    page = (rl_run / "report" / "report.html").read_text()
    assert "<img" not in page
    assert "<script" not in page
