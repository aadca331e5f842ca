"""Measures the verifier before and after, on spoiled attempts with a known first error.

The attempts are at problems that no warm-up trained on, so the truth is known and new. Each is
asked about twice, with the reference shown and without it, by the same stage that proposes in the
loop. An answer counts only if it is right in form too; a model that cannot write the block names
nothing. Next to the shares stands what a reader of positions alone would reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Literal

from midcourse.config import ProposeConfig, SamplingConfig
from midcourse.data.worked import answer_of, intervention_text, numbers_in, response_steps
from midcourse.metrics import wilson
from midcourse.pipeline.stages import ProposeSettings, graders_of, keyed, propose
from midcourse.pipeline.values import Model, Problems
from midcourse.records import (
    Condition,
    FinishReason,
    Proposal,
    ProposalOutcome,
    Rollout,
    token_ids_sha,
)
from midcourse.rendering import Renderer
from midcourse.run import Keyed, Stage, Work, stage
from midcourse.stages.propose import review_prompt
from midcourse.steps import STEP_SEPARATOR
from midcourse.store.files import write_json_atomic
from midcourse.table import Table, share
from midcourse.warmup.attempts import Attempt
from midcourse.warmup.documents import draw_verification, readable
from midcourse.warmup.run import Warmup

_COLUMNS = ("model", "reference", "error named", "and fixed", "none there, none named", "no block")
_REFERENCES: dict[Literal["given", "none"], str] = {"given": "shown", "none": "not shown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoiledSettings:
    """What decides the attempts that the verifier is measured on."""

    base: Model
    """Attempts are in its tokens."""
    problems: Problems
    sampling: SamplingConfig
    seed: int

    def attempts(self) -> dict[str, Attempt]:
        """Draw one attempt at each problem that allows one, by problem id."""
        drawn = (
            (problem.problem_id, draw_verification(self.seed, problem, solution, 0))
            for problem, solution in readable(self.problems.items)
        )
        return {problem_id: found.attempt for problem_id, found in drawn if found is not None}


def check_table(warmup: Warmup) -> Table:
    """Ask each model about each attempt, with and without the reference; count what is right.

    The table is also written to ``check/table.json``.
    """
    attempts, rows = _settings(warmup).attempts(), []
    for (name, how), asked in checks(warmup).items():
        answers = warmup.session.read(asked)
        rows.append((name, how, *_shares([(p, attempts[p.problem_id]) for p in answers])))
    title = "Verification of attempts with a known first error"
    table = Table(title, _COLUMNS, tuple(rows), _note(attempts.values()))
    folder = warmup.session.run.directory / "check"
    folder.mkdir(exist_ok=True)
    write_json_atomic(folder / "table.json", asdict(table))
    return table


def checks(warmup: Warmup) -> dict[tuple[str, str], Stage[Proposal, ProposeSettings]]:
    """Return what is asked of each model, by its name and whether the reference is shown."""
    spoiled = _settings(warmup)
    return {
        (name, how): _asked(warmup, spoiled, model, reference)
        for name, model in warmup.models().items()
        for reference, how in _REFERENCES.items()
    }


def _settings(warmup: Warmup) -> SpoiledSettings:
    return SpoiledSettings(
        base=warmup.setup.base,
        problems=warmup.checked,
        sampling=warmup.config.check_sampling,
        seed=warmup.recipe.seed,
    )


@stage("cases", Rollout, outcome=attrgetter("finish_reason"))
def _spoiled(settings: SpoiledSettings, work: Work[Rollout]) -> Iterator[Keyed[Rollout]]:
    """*cases*: the attempts as rollouts."""
    renderer = work.tools.renderer(settings.base)
    rollouts = (
        _rollout(settings, problem_id, attempt, renderer)
        for problem_id, attempt in settings.attempts().items()
    )
    return keyed(rollouts, lambda rollout: rollout.rollout_id, work.done)


def _rollout(
    settings: SpoiledSettings, problem_id: str, attempt: Attempt, renderer: Renderer
) -> Rollout:
    text = STEP_SEPARATOR.join(response_steps(attempt.lines))
    ids = tuple(renderer.reply_ids(text))
    return Rollout(
        rollout_id=f"spoiled-{problem_id}",
        problem_id=problem_id,
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
        sampling=settings.sampling.record(),
        seed=settings.seed,
    )


def _asked(
    warmup: Warmup, spoiled: SpoiledSettings, model: Model, reference: Literal["given", "none"]
) -> Stage[Proposal, ProposeSettings]:
    """Return the answers of one model under one condition, as a stage."""
    config = ProposeConfig(
        turns="single",
        reference=reference,
        num_rollouts=1,
        num_proposals=1,
        sampling=spoiled.sampling,
    )
    settings = ProposeSettings(
        cases=_spoiled(spoiled, "spoiled"),
        problems=spoiled.problems,
        config=config,
        review=review_prompt(warmup.setup.prompts, config),
        guided=None,
        proposer=model,
        policy=spoiled.base,
        graders=graders_of(spoiled.problems),
        seed=spoiled.seed,
    )
    return propose(settings, f"{model.label}, reference {_REFERENCES[reference]}")


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
