"""Measures the verifier before and after, on spoiled attempts with a known first error.

The attempts are at problems that no warm-up trained on, so the truth is known and new. Each is
asked about twice, with the reference shown and without it, by the same stage that proposes in the
loop. An answer counts only if it is right in form too; whoever cannot write the block names
nothing. Next to the shares stands what a reader of positions alone would reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from midcourse.checkers import Grader
from midcourse.config import ProposeConfig
from midcourse.engines import open_engine
from midcourse.metrics import wilson
from midcourse.progress import Failures
from midcourse.records import (
    Condition,
    FinishReason,
    Problem,
    Proposal,
    ProposalOutcome,
    Rollout,
    token_ids_sha,
)
from midcourse.run import Artifact
from midcourse.stages.propose import Case, Proposer, propose
from midcourse.steps import STEP_SEPARATOR
from midcourse.store import StageStore, write_json_atomic
from midcourse.table import Table, share
from midcourse.warmup.attempts import Attempt
from midcourse.warmup.documents import intervention_text
from midcourse.warmup.run import Warmup
from midcourse.warmup.solutions import answer_of, numbers_in, response_steps

_COLUMNS = ("model", "reference", "error named", "and mended", "none there, none named", "no block")
_REFERENCES: dict[Literal["given", "none"], str] = {"given": "shown", "none": "not shown"}


def check_table(warmup: Warmup) -> Table:
    """Ask each model about each attempt, with and without the reference; count what is right.

    The table is also written to ``check/table.json``.
    """
    cases, attempts = [], {}
    for problem, solution in warmup.part(warmup.recipe.problems.part, warmup.config.num_checks):
        drawn = warmup.row_maker.verification(problem, solution, 0, with_reference=False)
        if drawn is not None:
            rollout = _rollout(warmup, problem, drawn.attempt)
            cases.append(Case(problem, rollout, problem.reference_solution or ""))
            attempts[rollout.rollout_id] = drawn.attempt
    rows = []
    for name, path in warmup.models.items():
        for reference, how in _REFERENCES.items():
            answers = _asked(warmup, cases, name, path, reference).read(Proposal)
            rows.append((name, how, *_shares([(p, attempts[p.rollout_id]) for p in answers])))
    title = "Verification of attempts with a known first error"
    table = Table(title, _COLUMNS, tuple(rows), _note(attempts.values()))
    write_json_atomic(warmup.run.directory / "check" / "table.json", asdict(table))
    return table


def _rollout(warmup: Warmup, problem: Problem, attempt: Attempt) -> Rollout:
    text = STEP_SEPARATOR.join(response_steps(attempt.lines))
    ids = tuple(warmup.row_maker.renderer.encode(text))
    return Rollout(
        rollout_id=f"spoiled-{problem.problem_id}",
        problem_id=problem.problem_id,
        index=0,
        condition=Condition.PROBLEM,
        parent_id=None,
        prompt_sha=token_ids_sha(()),
        prompt_tokens=0,
        text=text,
        token_ids=ids,
        num_tokens=len(ids),
        finish_reason=FinishReason.STOP,
        model="spoiled",
        sampling=warmup.config.check_sampling.record(),
        seed=warmup.recipe.seed,
    )


def _asked(
    warmup: Warmup,
    cases: Sequence[Case],
    name: str,
    path: Path,
    reference: Literal["given", "none"],
) -> Artifact:
    """Complete the proposals of one model under one condition."""
    sampling = warmup.config.check_sampling
    config = ProposeConfig(
        turns="single", reference=reference, num_rollouts=1, num_proposals=1, sampling=sampling
    )
    asked = cases if reference == "given" else [replace(case, reference="") for case in cases]

    def produce(
        store: StageStore[Proposal], failures: Failures
    ) -> Iterator[tuple[str, list[Proposal]]]:
        maker, recipe = warmup.row_maker, warmup.recipe
        opened = open_engine(recipe.engine, recipe.model, str(path))
        with closing(opened) as engine, Grader() as grader:
            proposer = Proposer(
                engine=engine,
                renderer=maker.renderer,
                policy=maker.renderer,
                prompts=maker.prompts,
                grader=grader,
                config=config,
                name=name,
                run_seed=maker.seed,
            )
            yield from propose(asked, proposer, store.done, failures)

    label = f"{name.removeprefix('+ ').replace(' ', '-')}-{reference}"
    artifact, settings = warmup.artifact(label, "check"), config.model_dump(mode="json")
    return warmup.run.records(
        artifact, Proposal, settings, [], len(cases), produce, lambda proposal: proposal.outcome
    )


def _shares(answers: Sequence[tuple[Proposal, Attempt]]) -> tuple[str, ...]:
    wrong = [(p, a) for p, a in answers if a.error_step is not None]
    right = [p for p, a in answers if a.error_step is None]
    located = [(p, a) for p, a in wrong if p.error_step == a.error_step]
    fixed = [p for p, a in located if _is_fixed(p, a)]
    spared = [p for p in right if p.outcome is ProposalOutcome.NO_ERROR_FOUND]
    blockless = (ProposalOutcome.NO_TAG, ProposalOutcome.TRUNCATED)
    return (
        _share(len(located), len(wrong)),
        _share(len(fixed), len(wrong)),
        _share(len(spared), len(right)),
        f"{sum(p.outcome in blockless for p, _ in answers)}/{len(answers)}",
    )


def _share(number: int, of: int) -> str:
    return f"{number}/{of} = {share(wilson(number, of), 1)} %" if of else "–"


def _is_fixed(proposal: Proposal, attempt: Attempt) -> bool:
    """Whether the accepted intervention holds the numbers of the right step, in order."""
    if proposal.outcome is not ProposalOutcome.ACCEPTED or attempt.error_step is None:
        return False
    right = attempt.true_lines[attempt.error_step]
    expected = intervention_text(right, answer_of(attempt.true_lines))
    return numbers_in(proposal.intervention or "") == numbers_in(expected or "")


def _note(attempts: Collection[Attempt]) -> str:
    steps = Counter(a.error_step for a in attempts if a.error_step is not None)
    return (
        f"{len(attempts)} attempts at problems that were not trained on; 95 % Wilson. Always "
        f"naming the most common step would be right in {max(steps.values(), default=0)} of "
        f"{steps.total()} wrong attempts."
    )
