"""Run directories written record by record, as stages write them, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from midcourse.records import (
    Condition,
    FinishReason,
    Grade,
    Problem,
    Proposal,
    ProposalOutcome,
    Rollout,
    Sampling,
    Turn,
    Verdict,
    content_id,
)
from midcourse.store.files import write_checked_json
from midcourse.store.index import IndexEntry, read_index, write_index
from midcourse.store.stage import StageStore, write_records

R = TypeVar("R")

SAMPLING = Sampling(
    temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=9
)


class MadeRun:
    """A run directory in the making."""

    def __init__(self, directory: Path, problems: Sequence[Problem], **recipe: Any) -> None:
        self.directory = directory
        (directory / "problems").mkdir(parents=True)
        write_records(directory / "problems" / "train.parquet", problems, Problem)
        given = {"name": "made", "seed": 0, "model": {"path": "lab"}, **recipe}
        write_checked_json(directory / "config.resolved.json", given)

    def stage(
        self,
        name: str,
        label: str,
        record: type[R],
        records: Iterable[R],
        key: Callable[[R], str],
        *,
        inputs: Sequence[Path] = (),
        complete: bool = True,
    ) -> Path:
        """Write a stage; records of one key stand next to one another. Return its folder."""
        folder = self.directory / name / content_id(name, label)[:10]
        with StageStore(folder, record) as store:
            for done, of_key in groupby(records, key=key):
                store.append(done, list(of_key))
            if complete:
                made_from = {f"{path.parent.name} {label}": path.name for path in inputs}
                told = {"stage": name, "label": label, "key": folder.name, "inputs": made_from}
                store.seal({**told, "counts": {}})
        self.announce(folder, name, label)
        return folder

    def announce(self, folder: Path, name: str, label: str) -> None:
        """Enter a folder in the index."""
        entries = read_index(self.directory).entries
        place = str(folder.relative_to(self.directory))
        write_index(self.directory, {**entries, place: IndexEntry(name, label)})

    def drawn(
        self, label: str, pairs: Sequence[tuple[Rollout, Verdict]], **how: Any
    ) -> tuple[Path, Path]:
        """Write rollouts and their grades; return both folders."""
        rollouts = [rollout for rollout, _ in pairs]
        sampled = self.stage("sample", label, Rollout, rollouts, lambda r: r.rollout_id, **how)
        grades = [graded(rollout, verdict) for rollout, verdict in pairs]
        how["inputs"] = [sampled]
        return sampled, self.stage("grade", label, Grade, grades, lambda g: g.rollout_id, **how)


def made_problem(name: str, **changes: Any) -> Problem:
    fields = {
        "problem_id": name, "text": f"What is 2 + 2, {name}?", "answer": "4",
        "reference_solution": "4.", "source": "made", "split": "train",
    }  # fmt: skip
    return Problem(**{**fields, **changes})


def made_rollout(name: str, problem_id: str, **changes: Any) -> Rollout:
    fields: dict[str, Any] = {
        "rollout_id": name, "problem_id": problem_id, "index": 0, "condition": Condition.PROBLEM,
        "parent_id": None, "prompt_sha": "", "prompt_tokens": 3,
        "text": f"Two and two.\n\nSo 2 + 2 = 5 ({name}).\n\nThe answer is \\boxed{{5}}.",
        "token_ids": (1, 2, 3), "num_tokens": 3, "finish_reason": FinishReason.STOP,
        "model": "base:k", "sampling": SAMPLING, "seed": 0,
    }  # fmt: skip
    return Rollout(**{**fields, **changes})


def made_proposal(name: str, rollout: Rollout, **changes: Any) -> Proposal:
    turn = Turn(prompt=f"Review {rollout.text}", reply="Step 2.", finish_reason=FinishReason.STOP)
    fields: dict[str, Any] = {
        "proposal_id": name, "problem_id": rollout.problem_id, "rollout_id": rollout.rollout_id,
        "index": 0, "item": 0, "proposer": "base:k", "outcome": ProposalOutcome.ACCEPTED,
        "detail": "", "error_step": 1, "location": 2, "intervention": f"2 + 2 is four, {name}.\n\n",
        "after_error": False, "leaks_substring": False,
        "turns": (turn,), "prompt_name": "review", "prompt_sha": "",
    }  # fmt: skip
    return Proposal(**{**fields, **changes})


def graded(rollout: Rollout, verdict: Verdict) -> Grade:
    return Grade(
        rollout_id=rollout.rollout_id, problem_id=rollout.problem_id, parent_id=rollout.parent_id,
        condition=rollout.condition, verdict=verdict,
        extracted_answer="4" if verdict is Verdict.CORRECT else "5", cause=None,
        truncated=rollout.finish_reason is FinishReason.LENGTH, grader="test",
    )  # fmt: skip


def made_run(
    directory: Path,
    num_attempts: int,
    num_proposals: int = 1,
    num_continuations: int = 4,
    text: Callable[[str], str] | None = None,
) -> MadeRun:
    """Write a run of one attempt per problem; the first continuation of each is correct.

    `text` makes the text of an attempt or a continuation of its name.
    """

    def rollout(name: str, problem_id: str, **changes: Any) -> Rollout:
        said = {"text": text(name)} if text else {}
        return made_rollout(name, problem_id, **said, **changes)

    problems = [made_problem(f"p{n}") for n in range(num_attempts)]
    run = MadeRun(directory, problems)
    attempts = [rollout(f"r{n}", f"p{n}") for n in range(num_attempts)]
    sampled, _ = run.drawn("train", [(one, Verdict.INCORRECT) for one in attempts])
    run.stage("cases", "train", Rollout, attempts, lambda r: r.rollout_id, inputs=[sampled])
    proposals = [
        made_proposal(f"{attempt.rollout_id}-{n}", attempt, index=n)
        for attempt in attempts
        for n in range(num_proposals)
    ]
    made = run.stage("propose", "train", Proposal, proposals, lambda p: p.rollout_id)
    condition = Condition.PREFIX_INTERVENTION
    pairs = [
        (
            rollout(
                f"{proposal.proposal_id}-c{n}",
                proposal.problem_id,
                condition=condition,
                parent_id=proposal.proposal_id,
                index=n,
            ),
            Verdict.INCORRECT if n else Verdict.CORRECT,
        )
        for proposal in proposals
        for n in range(num_continuations)
    ]
    run.drawn(str(condition), pairs, inputs=[made])
    return run
