"""Questions to the proposer: what a reply becomes, and solutions that questions share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from midcourse.checkers import Grader
from midcourse.config import ProposeConfig, Recipe
from midcourse.engines.base import Capabilities, Completion, Request, failed
from midcourse.engines.scripted_engine import ByteTokenizer, ScriptedEngine
from midcourse.engines.stream import Stream
from midcourse.pipeline import Method, Session
from midcourse.progress import Failures
from midcourse.prompts import load_prompt_set
from midcourse.records import (
    Condition,
    FinishReason,
    Problem,
    Proposal,
    ProposalOutcome,
    Rollout,
    Verdict,
)
from midcourse.rendering import Renderer
from midcourse.report.collect import funnel_counts, guided_counts
from midcourse.report.status import status_table
from midcourse.report.tables import GuidedCount, funnel_table, guided_table
from midcourse.run import Keyed, Work
from midcourse.stages.propose import Case, Proposer, guided_prompt, propose, review_prompt
from midcourse.stages.shift import shifted
from midcourse.steps import BLANK_LINES, split_steps
from runs import run_to

ATTEMPT = "Two and two.\n\nSo 2 + 2 = 5.\n\nThe answer is \\boxed{5}."
PROBLEM = Problem(
    problem_id="p",
    text="What is 2 + 2?",
    answer="4",
    reference_solution="4.",
    source="test",
    split="train",
)
ROLLOUT = Rollout(
    rollout_id="r",
    problem_id="p",
    index=0,
    condition=Condition.PROBLEM,
    parent_id=None,
    prompt_sha="",
    prompt_tokens=1,
    text=ATTEMPT,
    token_ids=(),
    num_tokens=1,
    finish_reason=FinishReason.STOP,
    model="base",
    sampling=ProposeConfig().sampling.record(),
    seed=0,
)
SOLUTION = "Add them.\n\nThe answer is \\boxed{4}."


def block(content: str, location: int = 2) -> str:
    return f'<intervention>{{"content": "{content}", "location": {location}}}</intervention>'


def cases(number: int = 1) -> Iterator[Case]:
    for index in range(number):
        yield Case(PROBLEM, replace(ROLLOUT, rollout_id=f"r{index}"), "4.")


class TalkingEngine:
    """Answers with what `reply` says for the last message and the seed; keeps what it was asked."""

    def __init__(self, reply: Callable[[str, int], str], *, token_ids: bool = True) -> None:
        self.asked: list[Request] = []
        self.num_tokens = 0
        self.token_ids = token_ids
        self._reply = reply

    @property
    def capabilities(self) -> Capabilities:
        """Ids if asked for."""
        return Capabilities(
            token_ids=self.token_ids, seeds=True, max_context_tokens=100_000, concurrency=4
        )

    @contextmanager
    def session(self) -> Iterator[Stream]:
        """Open a session."""
        yield Stream(lambda stream: map(self.complete, stream.take()))

    def close(self) -> None:
        """Nothing is held."""

    def complete(self, request: Request) -> Completion:
        """Answer one request; one that is told to fail, fails."""
        self.asked.append(request)
        said = self._reply(request.messages[-1]["content"], request.seed)
        if said == "fail":
            return failed(request, "told to")
        engine = ScriptedEngine(lambda text, seed: said)
        completion = engine.complete(replace(request, prompt_token_ids=(1,)))
        self.num_tokens += len(completion.token_ids)
        return completion if self.token_ids else replace(completion, token_ids=())


def reviewer(*replies: str, solution: str = SOLUTION) -> TalkingEngine:
    """Solve with `solution`; review with one of `replies`, by the seed."""

    def reply(message: str, seed: int) -> str:
        is_review = "Substep 1" in message
        return replies[seed % len(replies)] if is_review else f"{solution} {seed}"

    return TalkingEngine(reply)


def ask(
    grader: Grader,
    engine: TalkingEngine,
    number: int = 1,
    done: Container[str] = (),
    **config: Any,
) -> list[Proposal]:
    """Return the proposals about so many rollouts."""
    settings = ProposeConfig.model_validate({"num_proposals": 4, **config})
    prompts, renderer = load_prompt_set("default"), Renderer(ByteTokenizer())
    proposer = Proposer(
        engine=engine,
        renderer=renderer,
        policy=renderer,
        review=review_prompt(prompts, settings),
        guided=guided_prompt(prompts, settings),
        grader=grader,
        config=settings,
        name="n",
        run_seed=0,
    )
    made = propose(cases(number), proposer, done, Failures(1.0, 0))
    found = [proposal for _, proposals in made for proposal in proposals]
    return sorted(found, key=lambda p: (p.rollout_id, p.index, p.item))


def outcomes(proposals: Sequence[Proposal]) -> list[str]:
    return [str(proposal.outcome) for proposal in proposals]


# --- a step that is there already ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "location"),
    [
        ("So 2 + 2 = 5.", 2),
        ("So 2+2=5.\n\n", 2),
        ("  So\n2 + 2\u00a0= 5.", 2),
        ("Two and two.\n\nSo 2 + 2 = 5.", 1),
        ("The answer is \\boxed{5}.\n\n", 3),
    ],
)
def test_a_step_said_again_is_unchanged(grader: Grader, content: str, location: int) -> None:
    assert BLANK_LINES.repeats(content, split_steps(ATTEMPT), location)
    written = content.replace("\\", "\\\\").replace("\n", "\\n")
    (made,) = ask(grader, reviewer(block(written, location)), num_proposals=1)
    assert made.outcome is ProposalOutcome.UNCHANGED
    assert made.location == location


@pytest.mark.parametrize(
    ("content", "location"),
    [
        ("So 2 + 2 = 4.", 2),
        ("so 2 + 2 = 5.", 2),
        ("So 22 = 5.", 2),
        ("So 2 + 2 = 5.", 3),
        ("So 2 + 2 = 5.\n\nBut wait.", 2),
        ("Two and two.\n\nSo 2 + 2 = 5.", 2),
    ],
)
def test_another_step_or_another_place_is_a_change(content: str, location: int) -> None:
    assert not BLANK_LINES.repeats(content, split_steps(ATTEMPT), location)


def test_composed_and_decomposed_characters_are_the_same() -> None:
    assert BLANK_LINES.repeats("Caf\u00e9 au lait.", ["Cafe\u0301 au lait.\n\n"], 1)
    assert not BLANK_LINES.repeats("1 2", ["12\n\n"], 1)


def test_a_list_is_held_against_the_attempt_item_by_item(grader: Grader) -> None:
    reply = (
        '<intervention>[{"content": "Two and two.", "location": 1}, '
        '{"content": "So 2 + 2 is even.", "location": 2}, '
        '{"content": "Two and two.", "location": 3}]</intervention>'
    )
    made = ask(grader, reviewer(reply), num_proposals=1, variant="list")
    assert outcomes(made) == ["unchanged", "accepted", "accepted"]


def test_a_terminator_that_is_text_hides_no_repeated_step(grader: Grader) -> None:
    engine = reviewer(block("So 2 + 2 = 5."))
    (made,) = ask(grader, engine, num_proposals=1, terminator=" Wait.")
    assert made.outcome is ProposalOutcome.UNCHANGED
    (made,) = ask(grader, reviewer(block("Two.")), num_proposals=1, terminator=" Wait.")
    moved = shifted([made], {"r0": ["One.\n\n", "x\n\n", "Two.\n\n"]}, 1, " Wait.")
    assert outcomes(list(moved)) == ["unchanged"]


def test_a_step_moved_to_where_it_stands_is_unchanged(grader: Grader) -> None:
    (made,) = ask(grader, reviewer(block("Two and two.")), num_proposals=1)
    assert made.outcome is ProposalOutcome.ACCEPTED
    steps = {"r0": split_steps(ATTEMPT)}
    moved = [next(shifted([made], steps, by, "\n\n")) for by in (-2, -1, 0, 1, 2)]
    assert outcomes(moved) == [
        "location_out_of_range",
        "unchanged",
        "accepted",
        "accepted",
        "location_out_of_range",
    ]


def test_what_was_drafted_in_a_thought_is_not_read(grader: Grader) -> None:
    thought = f"<think>{block('So 2 + 2 is 6.')}</think>"
    made = ask(grader, reviewer(thought + block("So 2 + 2 is even.")), num_proposals=1)
    assert made[0].intervention == "So 2 + 2 is even.\n\n"
    assert outcomes(ask(grader, reviewer(thought), num_proposals=1)) == ["no_tag"]


def test_a_thought_that_is_cut_off_is_truncated(grader: Grader) -> None:
    engine = reviewer(f"<think>{'hm ' * 200}{block('So 2 + 2 is even.')}")
    sampling = {"max_tokens": 200}
    (made,) = ask(grader, engine, num_proposals=1, sampling=sampling)
    assert (made.outcome, made.detail) == (ProposalOutcome.TRUNCATED, "turn 2 of 2")
    engine = reviewer("never asked", solution="<think>" + "hm " * 200)
    (made,) = ask(grader, engine, num_proposals=1, sampling=sampling)
    assert (made.outcome, made.detail) == (ProposalOutcome.TRUNCATED, "turn 1 of 2")


# --- one solution for all reviews ----------------------------------------------------------------

REPLIES = ("no tag", block("So 2 + 2 is even."), block("Add two to two."), block("Count on."))


def test_questions_share_one_guided_solution(grader: Grader) -> None:
    each, shared = reviewer(*REPLIES), reviewer(*REPLIES)
    apart = ask(grader, each, 3, guided="each")
    together = ask(grader, shared, 3, guided="shared")
    assert len(each.asked) == 3 * (4 + 4)
    assert len(shared.asked) == 3 * (1 + 4)
    assert len({request.seed for request in shared.asked}) == 3 * (1 + 4)
    # A byte is a token, and so is the end of a turn.
    said = {p.proposal_id: [len(t.reply) + 1 for t in p.turns] for p in (*apart, *together)}
    assert each.num_tokens == sum(sum(said[p.proposal_id]) for p in apart)
    solved = sum(said[p.proposal_id][0] for p in together if p.index == 0)
    assert shared.num_tokens == solved + sum(said[p.proposal_id][1] for p in together)
    solutions = [{p.turns[0].reply for p in together if p.rollout_id == f"r{n}"} for n in range(3)]
    assert [len(solution) for solution in solutions] == [1, 1, 1]
    assert len(set.union(*solutions)) == 3
    assert len({p.proposal_id for p in together}) == 12
    # The first question is the same either way; the others are others.
    firsts = [[p for p in made if p.index == 0] for made in (apart, together)]
    assert firsts[0] == firsts[1]
    ids = [{p.proposal_id for p in made if p.index} for made in (apart, together)]
    assert not ids[0] & ids[1]


def test_reviews_of_one_solution_have_one_context(grader: Grader) -> None:
    engine = reviewer(*REPLIES)
    ask(grader, engine, 2, guided="shared")
    contexts: dict[str, set[tuple[int, ...]]] = {}
    for request in engine.asked:
        contexts.setdefault(request.group, set()).add(request.prompt_token_ids)
    assert {len(ids) for ids in contexts.values()} == {1}
    groups = Counter(request.group for request in engine.asked)
    assert sorted(groups.values()) == [2, 4, 4]  # the solutions, of one problem; the reviews


def test_a_shared_solution_that_breaks_off_answers_every_question(grader: Grader) -> None:
    for stop in (False, True):
        for solution, outcome in (("x" * 300, "truncated"), ("fail", "request_failed")):

            def reply(message: str, seed: int, solution: str = solution) -> str:
                return solution

            engine = TalkingEngine(reply)
            made = ask(
                grader,
                engine,
                guided="shared",
                sampling={"max_tokens": 200},
                stop_at_first_accepted=stop,
            )
            assert outcomes(made) == [outcome] * 4
            assert {p.detail for p in made} == {"turn 1 of 2"}
            assert len({p.proposal_id for p in made}) == 4
            assert len({request.request_id for request in engine.asked}) == 1


def test_reviews_of_one_solution_stop_at_the_first_accepted(grader: Grader) -> None:
    engine = reviewer(*REPLIES[:2])
    made = ask(grader, engine, 8, guided="shared", stop_at_first_accepted=True)
    by_rollout = [[p for p in made if p.rollout_id == f"r{n}"] for n in range(8)]
    assert len({len(answers) for answers in by_rollout}) > 1
    for answers in by_rollout:
        assert len({p.turns[0].reply for p in answers}) == 1
        assert set(outcomes(answers)[:-1]) <= {"no_tag"}
        assert answers[-1].outcome is ProposalOutcome.ACCEPTED or len(answers) == 4
    assert len(engine.asked) == 8 + len(made)


def test_a_server_of_messages_is_shown_the_shared_solution(grader: Grader) -> None:
    engine = reviewer(*REPLIES)
    engine.token_ids = False
    made = ask(grader, engine, guided="shared")
    reviews = [request for request in engine.asked if len(request.messages) == 3]
    assert len(reviews) == 4
    assert {request.messages[1]["content"] for request in reviews} == {made[0].turns[0].reply}


def test_without_a_first_turn_there_is_nothing_to_share(grader: Grader) -> None:
    settings: list[dict[str, Any]] = [{"turns": "single"}, {"reference": "none"}]
    for changes in settings:
        made = [
            ask(grader, reviewer(*REPLIES), guided=guided, **changes)
            for guided in ("each", "shared")
        ]
        assert made[0] == made[1]
        assert {p.guided_verdict for p in made[0]} == {None}


# --- the guided solution is graded ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("solution", "verdict"),
    [
        (SOLUTION, Verdict.CORRECT),
        ("It is \\boxed{5}.", Verdict.INCORRECT),
        ("It is four.", Verdict.NO_ANSWER),
    ],
)
@pytest.mark.parametrize("guided", ["each", "shared"])
def test_the_guided_solution_is_graded(
    grader: Grader, solution: str, verdict: Verdict, guided: str
) -> None:
    made = ask(grader, reviewer(*REPLIES, solution=solution), guided=guided)
    assert {p.guided_verdict for p in made} == {verdict}


def two_turns(recipe_data: dict[str, Any], **changes: Any) -> Recipe:
    """The scripted recipe with a guided solution, right for every other seed."""
    script = Path(recipe_data["engine"]["script"])
    rules = script.read_text().removeprefix("[")
    solved = '["Reference solution", "It is \\\\boxed{4}.", "It is \\\\boxed{5}."]'
    proposed = PROPOSED.replace('"', '\\"')
    script.write_text(f'[["A student of yours", "{proposed}", "no tag"], {solved}, {rules}')
    propose = {"num_rollouts": 2, "num_proposals": 3, **changes}
    return Recipe.model_validate({**recipe_data, "prompts": "default", "propose": propose})


PROPOSED = block("So 2 + 2 makes four.")


@pytest.mark.slow
def test_guided_solutions_are_counted_once_each(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    def count(session: Session, m: Method) -> dict[Verdict, GuidedCount]:
        session.complete(m.models.rows)
        found = guided_counts(session.run, m)
        in_funnel = funnel_counts(session.run, m)["guided solutions"]
        assert in_funnel == {str(verdict): count.solutions for verdict, count in found.items()}
        funnel_table({"guided solutions": in_funnel})
        return found

    found = run_to(tmp_path / "run", two_turns(recipe_data, guided="shared"), count)
    assert set(found) == {Verdict.CORRECT, Verdict.INCORRECT}
    assert sum(count.solutions for count in found.values()) == 6
    for counted in found.values():
        assert counted.proposals == 3 * counted.solutions
        assert 0 < counted.accepted <= counted.candidates <= counted.solutions
        assert counted.kept == counted.candidates  # the script always gets there
    table = guided_table(found)
    right = found[Verdict.CORRECT]
    assert table.rows[0][:2] == ("correct", f"{right.solutions}/6 = {right.solutions / 0.06:.1f} %")
    (counts,) = [row[4] for row in status_table(tmp_path / "run").rows if row[0] == "propose"]
    solutions = f"; guided solutions: correct {right.solutions}, incorrect {6 - right.solutions}"
    assert solutions in counts


@pytest.mark.slow
def test_a_run_that_is_killed_shares_the_same_solutions(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    recipe = two_turns(recipe_data, guided="shared")

    def proposals(session: Session, m: Method) -> list[Proposal]:
        return sorted(session.read(m.proposals), key=lambda p: p.proposal_id)

    def cut(session: Session, m: Method) -> None:
        stage = m.proposals

        def stop_early(settings: Any, work: Work[Proposal]) -> Iterator[Keyed[Proposal]]:
            yield from islice(stage.make(settings, work), 2)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            session.complete(replace(stage, make=stop_early))

    whole = run_to(tmp_path / "a", recipe, proposals)
    run_to(tmp_path / "b", recipe, cut)
    assert run_to(tmp_path / "b", recipe, proposals) == whole
    assert len(whole) == 18
