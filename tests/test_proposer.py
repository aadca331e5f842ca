"""A proposer trained on its own proposals: which rows and ids; before and after, in the lab."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from made_runs import made_problem, made_proposal, made_rollout
from midcourse.cli import app
from midcourse.config import Recipe, load_recipe
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.errors import ConfigError
from midcourse.experiments.catalogue import experiments
from midcourse.experiments.verification import answers_on
from midcourse.lab.problems import lab_problems
from midcourse.lab.truth import first_error
from midcourse.pipeline import Method, Session
from midcourse.pipeline.proposer import Answers, proposers
from midcourse.prompts import load_prompt_set
from midcourse.records import (
    FinishReason,
    Proposal,
    ProposalOutcome,
    RowOutcome,
    RowSource,
    SftRow,
    Turn,
)
from midcourse.rendering import Renderer
from midcourse.report.proposer import Judged, answers_table, judged
from midcourse.stages.build_sft import IGNORED, Verification
from midcourse.stages.propose import Case
from midcourse.stages.proposer_rows import ProposerRowDesign, proposer_rows
from midcourse.steps import BLANK_LINES
from runs import run_to

RENDERER = Renderer(ByteTokenizer())
BLIND = load_prompt_set("lab")["no_reference"]
DESIGN = ProposerRowDesign(
    blind=None, rows_per_problem=9, min_correct_share=0.0, max_tokens=100_000
)
REFERENCE = "Two and two make four, says the book."
ASKED = f"What is 2 + 2, p?\n\nReference:\n{REFERENCE}"


def case(name: str = "r", problem_id: str = "p") -> Case:
    problem = made_problem(problem_id, reference_solution=REFERENCE)
    return Case(problem, made_rollout(name, problem_id), reference="")


def proposal(name: str, of: Case, *turns: Turn, **changes: Any) -> Proposal:
    turns = turns or (turn(ASKED, f"Substep 2: error. {name}"),)
    return made_proposal(name, of.rollout, turns=turns, **changes)


def turn(prompt: str, reply: str) -> Turn:
    return Turn(prompt=prompt, reply=reply, finish_reason=FinishReason.STOP)


def found(num_correct: int, num_graded: int = 4, num_ungraded: int = 0) -> Verification:
    return Verification(
        prompt_sha="", num_correct=num_correct, num_graded=num_graded, num_ungraded=num_ungraded
    )


def rows(
    proposals: Sequence[Proposal],
    cases: Sequence[Case],
    known: Mapping[str, Verification],
    seed: int = 0,
    **design: Any,
) -> list[SftRow]:
    by_id = {of.rollout.rollout_id: of for of in cases}
    how = replace(DESIGN, **design)
    return [*proposer_rows(proposals, by_id, known, how, RENDERER, BLANK_LINES, seed)]


def texts(row: SftRow) -> tuple[str, str]:
    """Return what is read and what is learned."""
    learned = [label for label in row.labels if label != IGNORED]
    decode = ByteTokenizer().decode
    return decode(row.input_ids[: row.prompt_tokens]), decode(learned)


# Rows.


def test_a_reply_is_learned_whole_with_its_end_and_nothing_else() -> None:
    of = case()
    made = proposal("a", of)
    (row,) = rows([made], [of], {"a": found(1)})
    prompt, reply = texts(row)
    assert (row.outcome, row.source, row.closes_turn) == ("ready", RowSource.PROPOSAL, True)
    assert ASKED in prompt
    assert reply.startswith(made.turns[0].reply)
    assert list(row.labels[-len(RENDERER.end_of_turn_ids) :]) == RENDERER.end_of_turn_ids
    assert row.labels[: row.prompt_tokens] == (IGNORED,) * row.prompt_tokens
    assert row.input_ids[row.prompt_tokens :] == row.labels[row.prompt_tokens :]
    assert (row.num_correct, row.num_continuations, row.rollout_id) == (1, 4, "r")


def test_a_blind_question_shows_no_reference_and_is_the_one_that_is_asked_without() -> None:
    of = case()
    (row,) = rows([proposal("a", of)], [of], {"a": found(1)}, blind=BLIND)
    prompt, reply = texts(row)
    assert REFERENCE not in prompt
    asked = BLIND.render(
        problem=of.problem.text,
        attempt=BLANK_LINES.number(BLANK_LINES.split(of.rollout.text)),
    )
    message = {"role": "user", "content": asked}
    assert list(row.input_ids[: row.prompt_tokens]) == RENDERER.prompt_ids([message])
    assert reply.startswith("Substep 2: error. a")
    (shown,) = rows([proposal("a", of)], [of], {"a": found(1)})
    assert row.row_id != shown.row_id


def test_of_two_turns_the_last_reply_is_learned_after_the_whole_first_turn() -> None:
    of = case()
    two = proposal("a", of, turn(ASKED, "It is 4."), turn("Now the attempt.", "Substep 2."))
    (row,) = rows([two], [of], {"a": found(1)})
    prompt, reply = texts(row)
    places = [prompt.index(part) for part in (ASKED, "It is 4.", "Now the attempt.")]
    assert places == sorted(places)
    assert reply.startswith("Substep 2.")


def test_every_proposal_has_an_outcome() -> None:
    of, other = case(), case("r2")
    made = [
        proposal("good", of),
        proposal("second", of, index=1),
        proposal("bad", other),
        proposal("lost", replace(other, rollout=replace(other.rollout, rollout_id="r3"))),
        proposal("refused", of, outcome=ProposalOutcome.NO_TAG),
    ]
    cases = [of, other, case("r3")]
    known = {"good": found(1), "bad": found(0), "lost": found(0, 3, 1)}
    outcomes = [row.outcome for row in rows(made, cases, known)]
    assert outcomes == ["ready", "not_chosen", "not_verified", "undecided", "not_accepted"]


def test_a_problem_has_at_most_so_many_rows_whichever_way_they_come() -> None:
    cases = [*(case(f"r{n}") for n in range(5)), case("q", "q")]
    made = [proposal(f"a-{of.rollout.rollout_id}", of) for of in cases]
    known = {one.proposal_id: found(2) for one in made}
    first = rows(made, cases, known, rows_per_problem=2)
    chosen = {row.proposal_id for row in first if row.outcome is RowOutcome.READY}
    number = Counter(row.problem_id for row in first if row.outcome is RowOutcome.READY)
    assert number == {"p": 2, "q": 1}
    again = rows(made[::-1], cases, known, rows_per_problem=2)
    assert {row.proposal_id for row in again if row.outcome is RowOutcome.READY} == chosen
    choices = {
        frozenset(r.proposal_id for r in rows(made, cases, known, seed, rows_per_problem=2)
                  if r.outcome is RowOutcome.READY)
        for seed in range(9)
    }  # fmt: skip
    assert len(choices) > 1


@pytest.mark.parametrize(
    ("num_correct", "share", "outcome"),
    [(1, 0.25, "ready"), (1, 0.5, "not_verified"), (2, 0.5, "ready"), (0, 0.0, "not_verified")],
)
def test_a_share_of_the_continuations_can_be_asked_for(
    num_correct: int, share: float, outcome: str
) -> None:
    of = case()
    (row,) = rows([proposal("a", of)], [of], {"a": found(num_correct)}, min_correct_share=share)
    assert row.outcome == outcome


def test_a_long_row_is_refused_and_never_cut() -> None:
    of = case()
    (whole,) = rows([proposal("a", of)], [of], {"a": found(1)})
    length = len(whole.input_ids)
    for limit, outcome in ((length, "ready"), (length - 1, "too_long")):
        (row,) = rows([proposal("a", of)], [of], {"a": found(1)}, max_tokens=limit)
        assert row.outcome == outcome
        assert len(row.input_ids) == len(row.labels) == (length if outcome == "ready" else 0)


# Bad input.


@pytest.mark.parametrize(
    ("propose", "train", "complaint"),
    [
        ({"truth": True}, {}, "propose.truth asks no model"),
        ({"variant": "list", "turns": "two"}, {}, "propose.variant = 'one'"),
        ({"reference": "none"}, {"reference": "given"}, "without their references"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_before_any_work(
    tmp_path: Path, propose: dict[str, Any], train: dict[str, Any], complaint: str
) -> None:
    lab = load_recipe("lab")
    recipe = lab.model_copy(
        update={
            "prompts": "default",
            "propose": lab.propose.model_copy(update=propose),
            "train_proposer": lab.train_proposer.model_copy(update=train),
        }
    )

    def use(session: Session, made: Method) -> None:
        with pytest.raises(ConfigError, match=complaint):
            proposers(made)
        assert not (tmp_path / "config.resolved.json").exists()

    run_to(tmp_path, recipe, use)


def test_a_proposer_that_others_serve_cannot_be_trained(tmp_path: Path) -> None:
    served = {"kind": "openai", "served_model": "big", "urls": ["http://127.0.0.1:9"]}
    data = load_recipe("lab").model_dump(mode="json") | {"proposer_engine": served}

    def use(session: Session, made: Method) -> None:
        with pytest.raises(ConfigError, match="served by others"):
            proposers(made)

    run_to(tmp_path, Recipe.model_validate(data), use)


# Before and after.


def test_shares_are_of_all_that_was_asked() -> None:
    of = {
        "p": [Judged(True, True, 4, 2), Judged(False, False, 0, 0)],
        "q": [Judged(True, True, 4, 0), Judged(False, True, 4, 4)],
    }
    (row,) = answers_table({("as it was", "shown"): of}, "held-out").rows
    assert row[:3] == ("as it was", "shown", "4")
    assert [float(cell.split()[0]) for cell in row[3:]] == [50, 75, 50, 37.5]
    elsewhere = {p: [one._replace(is_located=None) for one in items] for p, items in of.items()}
    (row,) = answers_table({("as it was", "shown"): elsewhere}, "held-out").rows
    assert row[3] == "–"


SMALL = [
    "problems.num_composed=6", "problems.num_single=4", "problems.num_known=0",
    "problems.num_held_out=6", "problems.num_probe=1", "sample.num_rollouts=8",
    "propose.num_rollouts=2", "propose.num_proposals=2", "verify.num_continuations=8",
    'verify.conditions=["prefix_intervention"]', "evaluate.num_rollouts=8", "evaluate.ks=[1]",
    "train_proposer.rows_per_problem=2", "train_proposer.check_rollouts=2",
    "train_proposer.train.max_steps=2", "train_proposer.train.batch_size=4",
    "train_proposer.train.micro_batch_size=4", "train_proposer.train.learning_rate=1e-4",
]  # fmt: skip


@pytest.mark.slow
def test_in_the_lab_a_proposer_is_trained_and_measured_and_done_again_does_nothing(
    tmp_path: Path,
) -> None:
    command = ["train", "proposer", "lab", "--run-dir", str(tmp_path / "run")]
    command += [word for value in SMALL for word in ("--set", value)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "train proposer: complete in" in done.output
    table = json.loads((tmp_path / "run" / "report" / "proposer.json").read_text())
    ways = [[name, how] for name in ("as it was", "trained") for how in ("shown", "not shown")]
    assert [row[:2] for row in table["rows"]] == ways
    assert len({row[2] for row in table["rows"]}) == 1, "all ways are asked about the same"
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert " done in " not in again.output, "nothing is made again"
    run_to(tmp_path / "run", load_recipe("lab", SMALL), _what_it_holds)


def _what_it_holds(session: Session, made: Method) -> None:
    ours = proposers(made)
    every = list(session.run.read(ours.rows))
    proposals = {p.proposal_id: p for p in session.run.read(made.proposals)}
    hard = {problem.problem_id for problem in made.hard.read(session)}
    asked = {name for name, p in proposals.items() if p.problem_id in hard}
    assert {row.proposal_id for row in every} == asked
    ready = [row for row in every if row.outcome is RowOutcome.READY]
    assert ready
    assert max(Counter(row.problem_id for row in ready).values()) <= 2
    references = {p.problem_id: str(p.reference_solution) for p in made.hard.read(session)}
    renderer = session.tools.renderer(made.setup.base)
    for row in ready:
        text = renderer.decode(row.input_ids[: row.prompt_tokens])
        assert references[row.problem_id] not in text
        assert references[row.problem_id] in proposals[str(row.proposal_id)].turns[0].prompt
    trained = {p.problem_id for p in session.setup.problems.train}
    answers = ours.answers(ours.trained, "none", "held_out")
    of_study = {row.name: row for row in experiments()["verification"].rows}
    read = answers_on("held_out").take(session, made, of_study["trained without, asked without"])
    assert read == judged(session.run, answers, session.recipe)
    _are_judged_by_the_truth(session, answers, trained)


def _are_judged_by_the_truth(session: Session, answers: Answers, trained: set[str]) -> None:
    stories = lab_problems(session.recipe.problems, session.recipe.seed).stories
    rollouts = {r.rollout_id: r for r in session.run.read(answers.cases)}
    made = sorted(session.run.read(answers.proposals), key=lambda p: p.rollout_id)
    found = judged(session.run, answers, session.recipe)
    assert not found.keys() & trained
    waiting = {name: list(items) for name, items in found.items()}
    for one in made:
        counted = waiting[one.problem_id].pop(0)
        truth = first_error(rollouts[one.rollout_id].text, stories[one.problem_id])
        assert counted.is_located == (one.error_step == truth)
        assert counted.is_accepted == (one.outcome is ProposalOutcome.ACCEPTED)
        assert counted.num_samples == (8 if counted.is_accepted else 0)
    assert not any(waiting.values())
