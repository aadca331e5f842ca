"""Views of made-up runs, for tests of the viewer's page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from midcourse.viewer.data import (
    Continuation,
    Item,
    Kind,
    ProposalBody,
    RolloutBody,
    Token,
    View,
    ViewedProblem,
)

#: Bodies of a chunk.
CHUNK = 4
Body = ProposalBody | RolloutBody


def problem(name: str, **changes: object) -> ViewedProblem:
    fields: dict[str, object] = {
        "problem_id": name,
        "text": rf"Find all real $x$ with \(x^2 = 9\) and $x > 0$. It costs $5 and $6. ({name})",
        "answer": "3",
        "reference": "Since $x^2 - 9 = (x - 3)(x + 3)$, we have $$x = \\pm 3,$$ hence \\boxed{3}.",
        "source": "omni",
        "split": "train",
        "status": "hard",
        "num_correct": 0,
        "num_rollouts": 64,
    }
    return ViewedProblem(**{**fields, **changes})  # type: ignore[arg-type]


def proposal_body(word: str = "factor", **changes: object) -> ProposalBody:
    wrong = Continuation(
        rollout_id="c-wrong",
        condition="prefix_intervention",
        text="So $x = -3$.",
        verdict="incorrect",
        answer="-3",
    )
    right = Continuation(
        rollout_id="c-right",
        condition="prefix_intervention",
        text="Hence \\boxed{3}.",
        verdict="correct",
        answer="3",
    )
    before = Continuation(
        rollout_id="c-error",
        condition="prefix_error",
        text="Hence nothing.",
        verdict="no_answer",
        answer="",
    )
    fields: dict[str, object] = {
        "rollout_id": "r-0",
        "answer": "9",
        "steps": [
            "We square both sides.",
            "So $x = 9$.",
            "Check: **fine**.",
            "The answer is \\boxed{9}.",
        ],
        "intervention": f"Instead, {word} $x^2 - 9$ and keep the positive root.",
        "detail": "",
        "turns": [("Review this attempt.", "<intervention>…</intervention>")],
        "continuations": [wrong, wrong, before, right],
        "tokens": [
            Token(text="We", trained=False, base=None, patched=None),
            Token(text=" factor", trained=True, base=0.03, patched=0.62),
            Token(text=".\n", trained=True, base=0.9, patched=0.88),
        ],
    }
    return ProposalBody(**{**fields, **changes})  # type: ignore[arg-type]


def rollout_body(text: str = "Then $x = 3$.", **changes: object) -> RolloutBody:
    fields: dict[str, object] = {"context": "", "steps": ["Let us see.", text], "answer": "3"}
    return RolloutBody(**{**fields, **changes})  # type: ignore[arg-type]


def view(
    pairs: Sequence[tuple[dict[str, object], Body]],
    problems: Sequence[ViewedProblem],
    name: str = "made up",
) -> View:
    """Return a view of items, given as fields without their place, and their bodies."""
    items = [
        Item(**{"chunk": at // CHUNK, "position": at % CHUNK, "title": "title", **fields})  # type: ignore[arg-type]
        for at, (fields, _) in enumerate(pairs)
    ]
    bodies = [body for _, body in pairs]

    def chunks() -> Iterator[Sequence[Body]]:
        for start in range(0, len(bodies), CHUNK):
            yield bodies[start : start + CHUNK]

    facts = [("recipe", "made-up"), ("seed", "0")]
    return View(name=name, facts=facts, problems=problems, items=items, chunks=chunks())


def proposal(identifier: str, of: int = 0, **changes: object) -> dict[str, object]:
    return {
        "kind": Kind.PROPOSAL,
        "id": identifier,
        "problem": of,
        "outcome": "accepted",
        "verified": True,
        "title": "Instead, factor",
        "num_correct": 1,
        "num_continuations": 3,
        "location": 2,
        "trained": True,
        "model": "teacher",
        **changes,
    }


def rollout(identifier: str, of: int = 0, **changes: object) -> dict[str, object]:
    return {
        "kind": Kind.ROLLOUT,
        "id": identifier,
        "problem": of,
        "outcome": "incorrect",
        "model": "base",
        "eval_set": "held_out",
        "condition": "problem",
        "num_tokens": 120,
        **changes,
    }


def small_view() -> View:
    """Return two problems with proposals, one with rollouts of two models and two RL groups."""
    solved = problem("omni-2", source="aime", status="solved", num_correct=3)
    return view([*_proposals(), *_rollouts(), *_groups()], [problem("omni-1"), solved])


def _proposals() -> Iterator[tuple[dict[str, object], Body]]:
    """Yield one that is verified, one that leaks, one without a correct continuation."""
    untried: dict[str, Any] = {
        "verified": None,
        "trained": False,
        "num_correct": 0,
        "num_continuations": 0,
    }
    leak: dict[str, Any] = {
        **untried,
        "outcome": "leaks_answer",
        "location": 3,
        "title": "The answer is 3",
    }
    wrong: dict[str, Any] = {**untried, "verified": False, "num_continuations": 32, "location": 1}
    yield proposal("p-0"), proposal_body()
    told = proposal_body("telescope", continuations=[], tokens=[], detail="gives 3")
    yield proposal("p-1", **leak), told
    yield proposal("p-2", 1, **wrong), proposal_body("substitute", tokens=[])


def _rollouts() -> Iterator[tuple[dict[str, object], Body]]:
    for n in range(3):
        yield rollout(f"base-{n}", 1), rollout_body(f"wrong {n}", answer="4")
    for n in range(2):
        right = rollout(f"patched-{n}", 1, model="patched", outcome="correct")
        yield right, rollout_body(f"right {n}")


def _groups() -> Iterator[tuple[dict[str, object], Body]]:
    of_rl: dict[str, Any] = {"kind": Kind.RL, "model": "", "eval_set": "", "arm": "InT + RL"}
    for turn in range(2):
        for n in range(3):
            place: dict[str, Any] = {
                "iteration": turn,
                "group": 7,
                "advantage": 1.5 - n,
                "trained": True,
            }
            outcome = "incorrect" if n else "correct"
            item = rollout(f"rl-{turn}-{n}", 1, **of_rl, **place, outcome=outcome)
            yield item, rollout_body(f"sampled {turn} {n}")


def large_view(
    count: int, chunks: Iterable[Sequence[Body]] | None = None, chunk: int = CHUNK
) -> View:
    """Return `count` proposals of a fiftieth as many problems, `chunk` bodies to a chunk."""
    problems = [problem(f"omni-{number}") for number in range(max(1, count // 50))]
    items = [
        proposal(f"p-{n}", n // 50, num_correct=n % 4, title=f"Instead, idea {n}")
        for n in range(count)
    ]
    small = view(
        [(item, proposal_body(f"idea-{n}", turns=[], tokens=[])) for n, item in enumerate(items)],
        problems,
    )
    if chunks is None:
        return small
    placed = [
        replace(item, chunk=n // chunk, position=n % chunk) for n, item in enumerate(small.items)
    ]
    return replace(small, items=placed, chunks=chunks)
