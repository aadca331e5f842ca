"""Measures the verifier before and after, on spoiled attempts with a known first error.

The attempts are at problems that no warm-up trained on, so the truth is known and new. Each is
asked about twice, with the reference shown and without it, by the same stage that proposes in the
loop. An answer counts only if it is right in form too; whoever cannot write the block names
nothing. Beside the shares stands what a reader of positions alone would reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from midcourse.checkers import Grader
from midcourse.config import ProposeConfig
from midcourse.engines import open_engine
from midcourse.engines.base import Engine
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
from midcourse.warmup.rows import Readable
from midcourse.warmup.run import Warmup
from midcourse.warmup.solutions import numbers_in


@dataclass(frozen=True, slots=True)
class _Trial:
    """One attempt with its truth, as a rollout that can be asked about."""

    problem: Problem
    rollout: Rollout
    attempt: Attempt


def check_table(warmup: Warmup) -> Table:
    """Ask each model about each attempt, with and without the reference; count what is right.

    The table is also written to ``check/table.json``.
    """
    pairs = warmup.part(warmup.recipe.problems.part, warmup.config.num_checks)
    trials = [trial for pair in pairs if (trial := _trial(warmup, pair)) is not None]
    by_rollout = {trial.rollout.rollout_id: trial for trial in trials}
    rows = []
    for name, path in warmup.models.items():
        for reference in ("given", "none"):
            artifact = _asked(warmup, trials, name, path, reference)
            rows.append(_row(name, reference, list(artifact.read(Proposal)), by_rollout))
    table = Table(
        "Verification of attempts with a known first error",
        ("model", "reference", "error named", "and mended", "none there, none named", "no block"),
        tuple(rows),
        _note(trials),
    )  # fmt: skip
    write_json_atomic(warmup.run.directory / "check" / "table.json", asdict(table))
    return table


def _trial(warmup: Warmup, pair: Readable) -> _Trial | None:
    problem, solution = pair
    document = warmup.row_maker.verification(problem, solution, 0, with_reference=False)
    if document is None or document.attempt is None:
        return None
    text = STEP_SEPARATOR.join(document.attempt.steps)
    ids = tuple(warmup.row_maker.renderer.encode(text))
    return _Trial(problem, _rollout(warmup, problem, text, ids), document.attempt)


def _rollout(warmup: Warmup, problem: Problem, text: str, ids: tuple[int, ...]) -> Rollout:
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
    warmup: Warmup, trials: Sequence[_Trial], name: str, path: Path, reference: str
) -> Artifact:
    """Complete the proposals of one model under one condition."""
    label = f"{name.removeprefix('+ ').replace(' ', '-')}-{reference}"
    artifact = warmup.artifact(label, "check")
    config = ProposeConfig.model_validate(
        {"turns": "single", "reference": reference, "num_rollouts": 1, "num_proposals": 1,
         "sampling": warmup.config.check_sampling}
    )  # fmt: skip

    def produce(
        store: StageStore[Proposal], failures: Failures
    ) -> Iterator[tuple[str, list[Proposal]]]:
        recipe = warmup.recipe
        shown = ((t, t.problem.reference_solution or "") for t in trials)
        given = reference == "given"
        cases = [Case(t.problem, t.rollout, text if given else "") for t, text in shown]
        opened = open_engine(recipe.engine, recipe.model, str(path))
        with closing(opened) as engine, Grader() as grader:
            proposer = _proposer(warmup, engine, grader, config, name)
            yield from propose(cases, proposer, store.done, failures)

    return warmup.run.records(
        artifact, Proposal, config.model_dump(mode="json"), [], len(trials), produce,
        lambda proposal: proposal.outcome,
    )  # fmt: skip


def _proposer(
    warmup: Warmup, engine: Engine, grader: Grader, config: ProposeConfig, name: str
) -> Proposer:
    maker = warmup.row_maker
    return Proposer(
        engine=engine, renderer=maker.renderer, policy=maker.renderer, prompts=maker.prompts,
        grader=grader, config=config, name=name, run_seed=maker.seed,
    )  # fmt: skip


def _row(
    name: str, reference: str, proposals: Sequence[Proposal], trials: dict[str, _Trial]
) -> tuple[str, ...]:
    wrong = located = mended = correct = spared = blockless = 0
    for proposal in proposals:
        attempt = trials[proposal.rollout_id].attempt
        blockless += proposal.outcome in (ProposalOutcome.NO_TAG, ProposalOutcome.TRUNCATED)
        if attempt.error_step is None:
            correct += 1
            spared += proposal.outcome is ProposalOutcome.NO_ERROR_FOUND
            continue
        wrong += 1
        is_located = proposal.error_step == attempt.error_step
        located += is_located
        mended += is_located and _is_mended(proposal, attempt)
    return (
        name,
        {"given": "shown", "none": "not shown"}[reference],
        *(_share(number, of) for number, of in ((located, wrong), (mended, wrong))),
        _share(spared, correct),
        f"{blockless}/{len(proposals)}",
    )


def _share(number: int, of: int) -> str:
    return f"{number}/{of} = {share(wilson(number, of), 1)} %" if of else "–"


def _is_mended(proposal: Proposal, attempt: Attempt) -> bool:
    """Whether the accepted intervention holds the numbers of the right step, in order."""
    if proposal.outcome is not ProposalOutcome.ACCEPTED or attempt.error_step is None:
        return False
    expected = intervention_text(attempt.true_lines[attempt.error_step], attempt.true_answer)
    return numbers_in(proposal.intervention or "") == numbers_in(expected or "")


def _note(trials: Sequence[_Trial]) -> str:
    steps = Counter(t.attempt.error_step for t in trials if t.attempt.error_step is not None)
    most = max(steps.values(), default=0)
    return (
        f"{len(trials)} attempts at problems that were not trained on; 95 % Wilson. Always naming "
        f"the most common step would be right in {most} of {steps.total()} wrong attempts."
    )
