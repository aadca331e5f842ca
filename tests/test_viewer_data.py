"""What the viewer knows of a run is what its records say: of whole, half and damaged ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, make_dataclass, replace
from math import log
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from rich.console import Console
from tokenizers import Tokenizer

from conftest import REPLY
from made_runs import MadeRun, graded, made_problem, made_proposal, made_rollout, made_run
from midcourse.config import Recipe
from midcourse.engines.base import ScoreRequest, TokenScores
from midcourse.engines.bundled import base_folder
from midcourse.errors import ArtifactError
from midcourse.pipeline import Method, Session, open_run
from midcourse.printable import printable
from midcourse.records import (
    Grade,
    Likelihood,
    ProblemStatus,
    Proposal,
    Rollout,
    RowOutcome,
    RowSource,
    SftRow,
    Solvability,
    Verdict,
)
from midcourse.report.show import find, panels
from midcourse.stages.build_sft import IGNORED
from midcourse.stages.likelihood import KEPT_TOKENS, ScoredText, likelihood, row_item_id
from midcourse.store.files import write_checked_json
from midcourse.store.stage import JOURNAL, read_manifest, read_stage
from midcourse.viewer.chunks import Chunks
from midcourse.viewer.collect import collect_view
from midcourse.viewer.data import (
    Continuation,
    Item,
    Kind,
    ProposalBody,
    RolloutBody,
    Token,
    View,
)
from midcourse.viewer.proposals import NO_ROOM, continuation
from midcourse.viewer.room import Room, Shown, Size, first_of_each, telling
from midcourse.viewer.sharing import shared, unshared
from runs import run_to
from test_rl_records import EVIL, ITERATIONS, write

INTERVENTION = "prefix_intervention"


def of_kind(view: View, kind: Kind) -> dict[str, Item]:
    return {item.id: item for item in view.items if item.kind is kind}


def bodies(view: View) -> dict[str, ProposalBody | RolloutBody]:
    """Return each item's body by its id; chunks are read once."""
    chunks = list(view.chunks)
    assert sum(map(len, chunks)) == len(view.items)
    return {item.id: chunks[item.chunk][item.position] for item in view.items}


def proposal_body(view: View, name: str) -> ProposalBody:
    body = bodies(view)[name]
    assert isinstance(body, ProposalBody)
    return body


def rollout_body(view: View, name: str) -> RolloutBody:
    body = bodies(view)[name]
    assert isinstance(body, RolloutBody)
    return body


def facts(view: View, name: str) -> list[str]:
    return [value for key, value in view.facts if key == name]


def stages(run_dir: Path, name: str) -> list[Path]:
    return sorted(path.parent for path in run_dir.glob(f"{name}/*/manifest.json"))


# --- a whole run ---------------------------------------------------------------------------------


def require_every_record(run_dir: Path, view: View) -> None:
    """Compare a view with the proposals and rollouts on disk, which are all complete."""
    found, proposals = bodies(view), of_kind(view, Kind.PROPOSAL)
    made = {
        one.proposal_id: one
        for path in stages(run_dir, "propose")
        for one in read_stage(path, Proposal)
    }
    assert proposals.keys() == made.keys()
    assert len(made) == sum(read_manifest(p)["num_records"] for p in stages(run_dir, "propose"))
    for name, record in made.items():
        item, body = proposals[name], found[name]
        assert isinstance(body, ProposalBody)
        assert (item.location, item.outcome) == (record.location, record.outcome)
        assert view.problems[item.problem].problem_id == record.problem_id
        assert body.turns == [(turn.prompt, turn.reply) for turn in record.turns]
        assert body.steps == REPLY.split("\n\n") or body.steps == f"{REPLY} ".split("\n\n")
        assert (body.rollout_id, body.answer) == (record.rollout_id, "5")
    sampled = [r for path in stages(run_dir, "sample") for r in read_stage(path, Rollout)]
    plain = {rollout.rollout_id: rollout for rollout in sampled if rollout.parent_id is None}
    assert of_kind(view, Kind.ROLLOUT).keys() == plain.keys()
    for name, rollout in plain.items():
        body = found[name]
        assert isinstance(body, RolloutBody)
        assert "\n\n".join(body.steps) == rollout.text
    assert len(sampled) == sum(read_manifest(p)["num_records"] for p in stages(run_dir, "sample"))


def require_every_verdict(run_dir: Path, view: View) -> Counter[str]:
    """Compare a view with the grades on disk; return how many continuations of each kind it has."""
    grades = {g.rollout_id: g for path in stages(run_dir, "grade") for g in read_stage(path, Grade)}
    found, conditions = bodies(view), Counter[str]()
    for name, item in of_kind(view, Kind.PROPOSAL).items():
        body = found[name]
        assert isinstance(body, ProposalBody)
        for shown in body.continuations:
            grade = grades.pop(shown.rollout_id)
            assert (shown.verdict, grade.parent_id) == (grade.verdict, name)
            assert shown.condition.removesuffix(" again") == grade.condition
            assert (shown.answer, shown.detail) == (grade.extracted_answer or "", grade.detail)
            conditions[shown.condition] += 1
        own = [c.verdict for c in body.continuations if c.condition == INTERVENTION]
        assert (item.num_continuations, item.num_correct) == (len(own), own.count("correct"))
        assert item.verified == (own.count("correct") > 0 if own else None)
    for name, item in of_kind(view, Kind.ROLLOUT).items():
        assert item.outcome == grades.pop(name).verdict
    assert not grades, "a grade is nowhere in the view"
    return conditions


def test_every_record_of_a_run_is_in_its_view(finished_run: Path) -> None:
    view = collect_view(finished_run)
    require_every_record(finished_run, view)
    assert require_every_verdict(finished_run, view) == {INTERVENTION: 24}


def test_problems_say_what_was_decided(finished_run: Path) -> None:
    view = collect_view(finished_run)
    finished = open_run(finished_run)
    statuses = {s.problem_id: s for s in finished.read(finished.method.statuses)}
    assert {p.problem_id for p in view.problems} == statuses.keys()
    for problem in view.problems:
        status = statuses[problem.problem_id]
        assert (problem.status, problem.num_correct, problem.num_rollouts) == (
            status.status, status.num_correct, status.num_rollouts
        )  # fmt: skip
    rows = {r.proposal_id for r in finished.read(finished.method.models.step_rows) if r.input_ids}
    trained = {name for name, item in of_kind(view, Kind.PROPOSAL).items() if item.trained}
    assert trained == rows
    assert facts(view, "recipe") == ["scripted"]
    assert facts(view, "proposals") == [f"12: 6 verified, {len(rows)} became rows"]


@pytest.mark.slow
def test_all_conditions_and_evaluations_are_in_the_view(
    tmp_path: Path, recipe_data: dict[str, Any], held_out_file: Path
) -> None:
    recipe_data["problems"]["held_out_path"] = str(held_out_file)
    recipe_data["evaluate"] = {"models": ["base"], "num_rollouts": 2, "ks": [1]}
    recipe = Recipe.model_validate(recipe_data)

    def complete(session: Session, made: Method) -> None:
        for steps in made.steps():
            session.complete(*steps)
        session.complete(made.interventions.reestimated.grades)

    run_to(tmp_path / "run", recipe, complete)
    view = collect_view(tmp_path / "run")
    require_every_record(tmp_path / "run", view)
    plain = dict.fromkeys(("problem", "prefix", "prefix_error", INTERVENTION), 24)
    conditions = require_every_verdict(tmp_path / "run", view)
    assert conditions == {**plain, f"{INTERVENTION} again": 24}
    sets = Counter((item.eval_set, item.model) for item in of_kind(view, Kind.ROLLOUT).values())
    own = ("held_out at temperature 1", "base")
    assert sets == {("held_out", "base"): 6, own: 6, ("train", "base"): 12}
    assert {p.split for p in view.problems} == {"train", "held_out"}


# --- RL ------------------------------------------------------------------------------------------


def rl_run(tmp_path: Path) -> MadeRun:
    run = MadeRun(tmp_path / "run", [made_problem(f"p{n}") for n in range(3)])
    folder = run.directory / "checkpoints" / "abc"
    write(folder)
    (folder / "job.json").write_text("{}")
    run.announce(folder, "checkpoints", "base + RL")
    return run


def test_rollouts_of_rl_have_arm_place_and_advantage(tmp_path: Path) -> None:
    view = collect_view(rl_run(tmp_path).directory)
    items, found = of_kind(view, Kind.RL), bodies(view)
    groups = [group for iteration in ITERATIONS for group in iteration]
    assert len(items) == sum(len(group.rollouts) for group in groups) == 28
    for group in groups:
        members = zip(group.rollouts, group.grades, group.advantages, strict=True)
        for rollout, grade, advantage in members:
            item = items[rollout.rollout_id]
            assert (item.arm, item.iteration, item.group) == (
                "base + RL", group.iteration, group.index
            )  # fmt: skip
            assert (item.outcome, item.advantage) == (grade.verdict, advantage)
            assert item.trained == group.is_trained
            assert found[rollout.rollout_id] == RolloutBody(
                context="", steps=[rollout.text], answer="4"
            )


def test_groups_are_left_out_whole_and_evenly(tmp_path: Path) -> None:
    view = collect_view(rl_run(tmp_path).directory, Room(characters=28 * 330 // 2))
    sizes = Counter((item.iteration, item.group) for item in of_kind(view, Kind.RL).values())
    assert set(sizes.values()) == {4}
    assert len(sizes) in (3, 4)
    assert facts(view, "left out")[0].startswith(f"{28 - 4 * len(sizes)} of 28 rollouts of RL")


# --- half, old and damaged runs ------------------------------------------------------------------


def test_a_stage_under_way_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    run = MadeRun(tmp_path / "run", [made_problem("p0")])
    rollouts = [made_rollout(f"r{n}", "p0", index=n) for n in range(3)]
    folder = run.stage("sample", "train", Rollout, rollouts, lambda r: r.rollout_id, complete=False)
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(b'{"crc":"0000')  # a line that is being written
    view = collect_view(run.directory)
    assert of_kind(view, Kind.ROLLOUT).keys() == {"r0", "r1", "r2"}
    assert {item.outcome for item in view.items} == {"not_graded"}
    assert facts(view, "under way") == ["sample train"]
    assert not facts(view, "cannot be read")


def test_a_run_that_has_just_begun_is_an_empty_view(tmp_path: Path) -> None:
    run = MadeRun(tmp_path / "run", [made_problem("p0")])
    view = collect_view(run.directory)
    assert (view.name, len(view.problems), view.items, list(view.chunks)) == ("made", 1, [], [])


@pytest.mark.parametrize("gone", ["stages.json", "config.resolved.json", "problems/train.parquet"])
def test_what_is_gone_is_missed_and_no_more(tmp_path: Path, gone: str) -> None:
    run = made_run(tmp_path / "run", 3)
    whole = collect_view(run.directory)
    (run.directory / gone).unlink()
    view = collect_view(run.directory)
    assert {i.id for i in view.items} == {i.id for i in whole.items}
    found = bodies(view)
    assert all(found[name] == body for name, body in bodies(whole).items())


def test_a_damaged_part_is_named_and_all_else_is_there(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 3)
    (part,) = run.directory.glob("cases/*/part-*")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 255
    part.write_bytes(content)
    view = collect_view(run.directory)
    assert len(of_kind(view, Kind.PROPOSAL)) == 3
    (note,) = facts(view, "cannot be read")
    assert note == f"{part.relative_to(run.directory)} is not what was written"
    body = proposal_body(view, "r0-0")
    assert body.steps[0] == "Two and two.", "the rollout is among those that were sampled"
    part.unlink()
    (note,) = facts(collect_view(run.directory), "cannot be read")
    assert "is missing" in note


def test_a_damaged_manifest_or_recipe_hides_no_record(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 2)
    for file in [
        *run.directory.glob("propose/*/manifest.json"),
        run.directory / "config.resolved.json",
    ]:
        file.write_text("{")
    view = collect_view(run.directory)
    assert len(of_kind(view, Kind.PROPOSAL)) == 2
    assert len(facts(view, "cannot be read")) == 2
    assert view.name == "run"


def test_what_another_release_wrote_in_another_form_is_named(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 2)
    (part,) = run.directory.glob("propose/*/part-*")
    part.rename(part.with_name("part-00000.parquet"))
    view = collect_view(run.directory)
    assert len(of_kind(view, Kind.ROLLOUT)) == 2
    earlier, lost = facts(view, "cannot be read")
    assert "an earlier midcourse" in earlier
    assert lost.startswith("8 continuations in sample/")


def test_a_proposal_whose_continuations_are_not_graded_yet_is_not_called_unverified(
    tmp_path: Path,
) -> None:
    run = made_run(tmp_path / "run", 1)
    for part in run.directory.glob("grade/*/part-*"):
        part.unlink()
    (item,) = of_kind(collect_view(run.directory), Kind.PROPOSAL).values()
    assert (item.verified, item.num_correct, item.num_continuations) == (None, 0, 4)


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a run directory"):
        collect_view(tmp_path)


def test_recipes_of_one_directory_share_what_was_drawn_for_both(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 2)
    rollouts = [made_rollout(f"r{n}", f"p{n % 2}") for n in range(4)]
    run.drawn("train of another recipe", [(one, Verdict.INCORRECT) for one in rollouts])
    (run.directory / "recipes").mkdir()
    (run.directory / "config.resolved.json").rename(run.directory / "recipes" / "made.json")
    write_checked_json(run.directory / "recipes" / "other.json", {"name": "other", "seed": 0})
    view = collect_view(run.directory)
    assert of_kind(view, Kind.ROLLOUT).keys() == {"r0", "r1", "r2", "r3"}
    assert facts(view, "recipe") == ["made, other"]
    assert view.name == "run"
    assert not facts(view, "left out")
    assert len(bodies(view)) == len(view.items)


# --- texts of others -----------------------------------------------------------------------------


def test_hostile_text_is_passed_on_as_it_is(tmp_path: Path) -> None:
    text = f"{EVIL}\n\nThen {EVIL}\r\n"
    run = made_run(tmp_path / "run", 1, text=lambda _: text)
    view = collect_view(run.directory)
    body = proposal_body(view, "r0-0")
    assert "\n\n".join(body.steps) == text
    assert {c.text for c in body.continuations} == {text}
    assert "\n\n".join(rollout_body(view, "r0").steps) == text


# --- room ----------------------------------------------------------------------------------------


def test_what_has_no_room_is_counted_and_proposals_stay(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 20, num_continuations=8)
    view = collect_view(run.directory, Room(characters=20_000))
    assert len(of_kind(view, Kind.PROPOSAL)) == 20
    body = proposal_body(view, "r0-0")
    verdicts = {c.text == NO_ROOM: Counter[str]() for c in body.continuations}
    for shown in body.continuations:
        verdicts[shown.text == NO_ROOM][shown.verdict] += 1
    assert verdicts[False] == Counter(correct=1, incorrect=1)
    assert verdicts[True] == Counter(incorrect=6)
    left_out = facts(view, "left out")
    assert [line.split(":")[0] for line in left_out] == ["120 of 160 texts of continuations"]
    assert facts(collect_view(run.directory), "left out") == []
    whole = collect_view(run.directory, Room(Shown.ALL, characters=1))
    assert facts(whole, "left out") == []
    assert len(whole.items) == 40


def test_only_hard_problems_or_no_rollouts_on_demand(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 4)
    statuses = [
        ProblemStatus(
            problem_id=f"p{n}", status=Solvability.HARD if n else Solvability.SOLVED,
            num_rollouts=4, num_correct=0, num_incorrect=4, num_ungraded=0, num_truncated=0,
            num_skipped=0,
        )
        for n in range(4)
    ]  # fmt: skip
    run.stage("select", "train", ProblemStatus, statuses, lambda s: s.problem_id)
    for shown, expected in ((Shown.HARD, {"r1", "r2", "r3"}), (Shown.NONE, set())):
        view = collect_view(run.directory, Room(shown))
        assert of_kind(view, Kind.ROLLOUT).keys() == expected
        assert len(of_kind(view, Kind.PROPOSAL)) == 4
        assert proposal_body(view, "r0-0").steps, "an attempt belongs to its proposals"
        (fact,) = facts(view, "left out")
        assert fact.startswith(f"{4 - len(expected)} of 4 rollouts: --rollouts {shown}")


def test_small_stages_leave_their_share_to_large_ones() -> None:
    small, large = Size(1, 0), Size(1000, 700_000)
    continued, others = Room(characters=1_000_000).divide([], [small, large])
    assert (continued, others) == ([], [None, 999])
    assert Room(Shown.NONE).divide([small], [large]) == ([None], [0])
    assert Room(Shown.ALL, 0).divide([small], [large]) == ([None], [None])
    both, one = Room(characters=1_000_000).divide([large], [large])
    assert (both, one) == ([500], [500]), "each may fill half"


def test_the_first_rollouts_of_every_problem_are_chosen() -> None:
    rollouts = [made_rollout(f"p{p}-{n}", f"p{p}", index=n) for p in range(3) for n in range(4)]
    order = {"p0": (True, 0), "p1": (False, 1), "p2": (False, 2)}
    assert first_of_each(rollouts, 3, order.__getitem__) == {"p1-0", "p2-0", "p1-1"}
    assert first_of_each(rollouts, 9, order.__getitem__) == {
        *(f"p{p}-{n}" for p in (1, 2) for n in range(4)), "p0-0"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("correct", "others", "expected"),
    [("ab", "xyz", "axy"), ("", "xyz", "xyz"), ("abc", "", "abc"), ("abc", "x", "abx")],
)
def test_telling_continuations_are_of_both_kinds(correct: str, others: str, expected: str) -> None:
    chosen = telling([*correct], [*others], 3)
    assert len(chosen) == 3
    assert {name in correct for name in chosen} == {name in correct for name in expected}


# --- tokens --------------------------------------------------------------------------------------


class UnevenScorer:
    """Scores the token at place n of a text with log-probability −n/100."""

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[TokenScores]:
        for asked in requests:
            places = range(asked.num_context, len(asked.token_ids))
            logprobs = tuple(-place / 100 for place in places)
            yield TokenScores(request_id=asked.request_id, logprobs=logprobs, entropies=logprobs)


def scored(num_tokens: int, num_kept: int) -> Likelihood:
    text = ScoredText(
        what="intervention_row", source_id="row", problem_id="p",
        token_ids=tuple(range(num_tokens)), num_context=3, num_kept=num_kept,
    )  # fmt: skip
    (item,) = likelihood([text], UnevenScorer(), "base:k", ())
    return item


def test_the_end_of_a_row_keeps_its_log_probabilities() -> None:
    plain, kept = scored(400, 0), scored(400, KEPT_TOKENS)
    assert kept.last_logprobs == tuple(-place / 100 for place in range(200, 400))
    assert replace(kept, last_logprobs=()) == plain, "no number and no id depends on it"
    short = scored(10, KEPT_TOKENS)
    assert len(short.last_logprobs) == short.num_tokens == 7
    assert -sum(short.last_logprobs) / 7 == pytest.approx(short.nll)


def row_of(proposal: Proposal, ids: Sequence[int], num_prompt: int, **changes: Any) -> SftRow:
    fields: dict[str, Any] = {
        "row_id": f"row-{proposal.proposal_id}", "source": RowSource.INTERVENTION,
        "outcome": RowOutcome.READY, "problem_id": proposal.problem_id,
        "proposal_id": proposal.proposal_id, "input_ids": tuple(ids),
        "labels": (*[IGNORED] * num_prompt, *ids[num_prompt:]), "closes_turn": False,
        "prompt_tokens": num_prompt, "prefix_tokens": 0, "intervention_tokens": 0,
        "num_correct": 1, "num_continuations": 4,
    }  # fmt: skip
    return SftRow(**{**fields, **changes})


def score_of(row: SftRow, model: str, logprobs: Sequence[float]) -> Likelihood:
    return Likelihood(
        item_id=row_item_id(model, row), problem_id=row.problem_id, model=model,
        what="intervention_row", num_tokens=len(logprobs), nll=1.0, entropy=1.0,
        mean_probability=0.5, last_logprobs=tuple(logprobs),
    )  # fmt: skip


def test_rows_show_their_tokens_with_probabilities_of_both_models(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 3)
    tokenizer = Tokenizer.from_file(str(base_folder() / "tokenizer.json"))
    text = "What is 2 + 2? Two ∑ and two."
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    (made,) = stages(run.directory, "propose")
    proposals = list(read_stage(made, Proposal))
    rows = [row_of(proposal, ids, 4) for proposal in proposals[:2]]
    refused = row_of(proposals[2], (), 0, outcome=RowOutcome.NOT_VERIFIED)
    run.stage("build-sft", "intervention", SftRow, [*rows, refused], lambda r: r.row_id)
    for label, model, probability in (("base", "base:k", 0.25), ("patched", "sft:k", 0.5)):
        item = score_of(rows[0], model, [log(probability)] * (len(ids) - 4))
        run.stage("likelihood", label, Likelihood, [item], lambda i: i.item_id)
    view = collect_view(run.directory)
    first, second, third = (proposal_body(view, p.proposal_id).tokens for p in proposals)
    assert "".join(token.text for token in first) == text
    assert [token.trained for token in first] == [False] * 4 + [True] * (len(ids) - 4)
    assert {(token.base, token.patched) for token in first[:4]} == {(None, None)}
    assert first[-1].base == pytest.approx(0.25)
    assert first[-1].patched == pytest.approx(0.5)
    assert {(token.base, token.patched) for token in second} == {(None, None)}, "not scored"
    assert not third
    trained = {name for name, item in of_kind(view, Kind.PROPOSAL).items() if item.trained}
    assert trained == {proposal.proposal_id for proposal in proposals[:2]}
    baseline = {"name": "made", "build_sft": {"source": "reference"}}
    write_checked_json(run.directory / "config.resolved.json", baseline)
    view = collect_view(run.directory)
    assert not any(item.trained for item in view.items), "other rows were trained on"


PROPOSAL = made_proposal("x", made_rollout("r", "p"))


@pytest.mark.parametrize(
    ("kind", "row", "lacks"),
    [
        ("likelihood", score_of(row_of(PROPOSAL, (1,), 0), "base:k", ()), "last_logprobs"),
        ("grade", graded(made_rollout("r", "p"), Verdict.INCORRECT), "detail"),
    ],
)
def test_records_of_an_earlier_release_are_read(
    tmp_path: Path, kind: str, row: Likelihood | Grade, lacks: str
) -> None:
    run, record = made_run(tmp_path / "run", 1), type(row)
    known, hints = [f for f in fields(row) if f.name != lacks], get_type_hints(record)
    earlier = make_dataclass(record.__name__, [(f.name, hints[f.name]) for f in known], frozen=True)
    old = earlier(**{f.name: getattr(row, f.name) for f in known})
    folder = run.stage(kind, "base", earlier, [old], lambda i: "k")
    assert list(read_stage(folder, record)) == [row]
    assert not facts(collect_view(run.directory), "cannot be read")


def test_what_became_of_a_program_is_in_the_view_and_drives_no_terminal(tmp_path: Path) -> None:
    run, rollout = made_run(tmp_path / "run", 1), made_rollout("tested", "p0")
    grade = replace(graded(rollout, Verdict.INCORRECT), detail=f"failed: test 2: {EVIL}")
    drawn = run.stage("sample", "tested", Rollout, [rollout], lambda r: r.rollout_id)
    run.stage("grade", "tested", Grade, [grade], lambda g: g.rollout_id, inputs=[drawn])
    view, console = collect_view(run.directory), Console(width=200)
    assert rollout_body(view, "tested").detail == grade.detail
    assert continuation(rollout, rollout.text, grade).detail == grade.detail
    with console.capture() as shown:
        console.print(panels(view, find(view, "tested")))
    assert f"failed: test 2: {printable(EVIL, keep='')}" in shown.get()


def test_a_text_of_several_places_is_written_once() -> None:
    text = "It stands in the steps of two proposals, and in what was asked."
    steps, turns = [text, "So."], [(f"Review {text}", text), (text, "So.")]
    bodies: list[ProposalBody | RolloutBody] = [
        ProposalBody(
            rollout_id="r", answer="", steps=steps, intervention="", detail="", turns=turns,
            continuations=[], tokens=[],
        ),
        RolloutBody(context="", steps=[text], answer=""),
    ]  # fmt: skip
    chunk = json.dumps(shared(bodies))
    assert chunk.count(text) == 2
    assert json.loads(chunk)["texts"] == [text]
    first, second = json.loads(chunk)["bodies"]
    assert (first["steps"], second["steps"]) == ([0, "So."], [0])
    assert first["turns"] == [[f"Review {text}", 0], [0, "So."]]
    assert unshared(json.loads(chunk)) == bodies


def test_bodies_that_wait_come_back_as_they_were() -> None:
    half = "half of a pair \udc80 \u2028 and a text that is long enough to be shared"
    one = Continuation(rollout_id="c", condition="prefix", text=half, verdict="correct", answer="")
    token = Token(text=half, trained=True, base=0.25, patched=None)
    proposal = ProposalBody(
        rollout_id="r", answer="1", steps=[half], intervention=half, detail="", turns=[("a", half)],
        continuations=[one, one], tokens=[token],
    )  # fmt: skip
    rollout = RolloutBody(context=half, steps=[half, ""], answer="2")
    bodies: list[ProposalBody | RolloutBody] = [proposal, rollout] * 60
    chunks = Chunks()
    places = [chunks.add(body, 1) for body in bodies]
    for _ in range(2):
        found = [list(chunk) for chunk in chunks]
        assert [found[chunk][position] for chunk, position in places] == bodies
    assert len(found) == 3


# --- size ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_proposals_are_all_in_the_view(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 2_500, num_proposals=4, num_continuations=2)
    view = collect_view(run.directory)
    proposals = of_kind(view, Kind.PROPOSAL)
    assert proposals.keys() == {f"r{n}-{m}" for n in range(2_500) for m in range(4)}
    assert {item.num_continuations for item in proposals.values()} == {2}
    assert {item.verified for item in proposals.values()} == {True}
    seen = 0
    for number, chunk in enumerate(view.chunks):
        seen += len(chunk)
        here = [item for item in view.items if item.chunk == number] if number in (0, 99) else []
        for item in here:
            body = chunk[item.position]
            if isinstance(body, ProposalBody):
                assert body.rollout_id == item.id.split("-")[0]
    assert seen == len(view.items)
    assert not facts(view, "left out")
