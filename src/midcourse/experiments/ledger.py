"""What an arm costs in tokens, part by part: what its data and each iteration of its RL took.

Counts are those of the manifests, of RL those of its records. What was not counted is an error and
never 0. Two sums are made of the parts: `Spending.tokens`, in which every token that is written or
trained on counts once, and `Spending.passes`, in forward passes of a token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

from midcourse.errors import ArtifactError
from midcourse.experiments.catalogue import Row
from midcourse.experiments.readings import model_of
from midcourse.pipeline import Method, Session
from midcourse.pipeline.contexts import Population
from midcourse.pipeline.models import RlSettings, SelfDistillSettings, TuneSettings
from midcourse.records import Role
from midcourse.run import Stage, Step, Training, in_order, inputs_in
from midcourse.tokens import Asked, TokenCount, read_tokens, total_of
from midcourse.training.tokens import IterationTokens, tokens_by_iteration

#: A token that is trained on goes forward once and backward once, which is two forward passes.
_PASSES_OF_TRAINING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Tokens by what they were spent on. No part has a default: 0 is always said."""

    read: int
    """Prompts and prefixes of all that is written, once per request: a server that keeps a prefix
    reads less."""
    sampled: int
    """Written by the policy, in RL and for rows."""
    proposed: int
    verified: int
    """Continuations of interventions."""
    teacher: int
    """Written by a teacher, or by the writer of references."""
    trained: int
    """Whole sequences that the optimiser saw; of RL also those without an advantage."""
    scored: int
    """Forward passes without a backward one: of Step-DPO under its reference model, of RL before
    an update, of self-distillation under its teacher with what it is shown."""

    def __add__(self, other: Spending) -> Spending:
        names = (field.name for field in fields(self))
        return Spending(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def written(self) -> int:
        """What was sampled from any model."""
        return self.sampled + self.proposed + self.verified + self.teacher

    @property
    def tokens(self) -> int:
        """What the league's budget is counted in: written or trained on, each once."""
        return self.written + self.trained

    @property
    def passes(self) -> int:
        """Forward passes of a token through a model: one to read, write or score, three to train.

        Models count alike, whatever their size.
        """
        return self.read + self.written + self.scored + _PASSES_OF_TRAINING * self.trained


NOTHING = Spending(read=0, sampled=0, proposed=0, verified=0, teacher=0, trained=0, scored=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What one arm took at one seed."""

    shared: Spending
    """Finding the hard problems: for every arm the same, and not charged to any."""
    choice: Spending
    """Of a baseline, InT's proposals and verification, which chose the problems of its rows: not
    charged to it, since it could have rows of other problems without them."""
    start: Spending
    """Data and fine-tuning, before RL."""
    course: dict[int, Spending]
    """RL through each iteration whose model is kept; of 0 iterations, nothing."""

    @property
    def with_search(self) -> Ledger:
        """The same with finding the hard problems charged to its start, if it has one."""
        if self.start == NOTHING:
            return self
        return replace(self, start=self.start + self.shared, shared=NOTHING)

    def through(self, iteration: int) -> Spending:
        """Return what is charged for the model of an iteration."""
        return self.start + self.course[iteration]


def ledger(session: Session, method: Method, row: Row) -> Ledger:
    """Return what the model of a row took. Raises ArtifactError if a count is missing."""
    model_of(session, method, row.role)
    start = method.models.in_role(Role(row.role.start)).trained
    shared = in_order([inputs_in(method.hard)])
    chosen = in_order([(method.models.step_rows,)]) if start and _is_baseline(method) else []
    rl = method.models.in_role(row.role).trained if row.role.rl else None
    own = [*([start] if start else []), *(rl.inputs if rl else ())]
    return Ledger(
        shared=_sum(session, shared),
        choice=_sum(session, _without(chosen, shared)),
        start=_sum(session, _without(in_order([tuple(own)]), [*shared, *chosen])),
        course=_course(session, rl, method.models.course(row.role.start) if rl else ()),
    )


def _is_baseline(method: Method) -> bool:
    """Whether fine-tuning is on something else than InT's rows, and takes their problems alone."""
    recipe = method.setup.recipe
    return recipe.build_sft.is_baseline or recipe.train_sft.method == "sdft"


def _without(steps: Iterable[Step], others: Iterable[Step]) -> list[Step]:
    known = {step.key for step in others}
    return [step for step in steps if step.key not in known]


def _sum(session: Session, steps: Iterable[Step]) -> Spending:
    return sum((_spent(session, step) for step in steps), NOTHING)


def _spent(session: Session, step: Step) -> Spending:
    """Return what a complete step took, RL aside."""
    manifest = _counted(session, step)
    if isinstance(step, Training):
        return _tuned(session, step, manifest)
    count = total_of(read_tokens(manifest["tokens"]))
    if not count.requests:
        return NOTHING
    return replace(NOTHING, read=count.tokens_in, **{_part_of(step): count.tokens_out})


def _counted(session: Session, step: Step) -> dict[str, Any]:
    """Return the manifest of a step, which says its tokens."""
    session.complete(step)
    artifact = session.run.artifact(step)
    manifest = artifact.manifest
    if "tokens" not in manifest or (
        isinstance(step, Training) and "trained_tokens" not in manifest
    ):
        raise ArtifactError(
            f"{artifact.path}: the manifest does not say its tokens, so nothing can be charged: "
            "delete the folder to make it again"
        )
    return manifest


def _part_of(stage: Stage[Any, Any]) -> str:
    """Return what the tokens of a stage are spent on."""
    match stage.asked:
        case Asked.PROPOSER:
            return "proposed"
        case Asked.TEACHER | Asked.REFERENCE:
            return "teacher"
    is_verified = stage.settings.contexts.population is Population.CANDIDATES
    return "verified" if is_verified else "sampled"


def _tuned(session: Session, step: Training[Any], manifest: dict[str, Any]) -> Spending:
    """Return what fine-tuning took: on rows, on pairs, or on its own rollouts."""
    match step.settings:
        case TuneSettings(rejected=rejected):
            trained = int(manifest["trained_tokens"]["total"])
            return replace(NOTHING, trained=trained, scored=trained if rejected else 0)
        case SelfDistillSettings():
            made = tokens_by_iteration(session.path(step), num_updates=1)
            _check(step, manifest, made)
            return sum(map(_of_iteration, made), NOTHING)
    raise ArtifactError(f"ledger: what {step.label} takes is not known to it")


def _course(
    session: Session, rl: Training[RlSettings] | None, kept: Iterable[int]
) -> dict[int, Spending]:
    """Return what RL took through each iteration in `kept`."""
    if rl is None:
        return {0: NOTHING}
    manifest = _counted(session, rl)
    made = tokens_by_iteration(session.path(rl), rl.settings.config.num_updates)
    _check(rl, manifest, made)
    through = list(accumulate(map(_of_iteration, made), initial=NOTHING))
    return {iteration: through[iteration] for iteration in kept}


def _of_iteration(of: IterationTokens) -> Spending:
    asked = of.sampled + of.proposed + of.verified
    return Spending(
        read=asked.tokens_in,
        sampled=of.sampled.tokens_out,
        proposed=of.proposed.tokens_out,
        verified=of.verified.tokens_out,
        teacher=0,
        trained=of.sequences,
        scored=of.sequences + of.taught,
    )


def _check(of: Training[Any], manifest: dict[str, Any], made: list[IterationTokens]) -> None:
    """Raise ArtifactError unless the iterations add up to what the manifest says."""
    seen, written = manifest["trained_tokens"], total_of(read_tokens(manifest["tokens"]))
    sampled = sum((one.sampled + one.proposed + one.verified for one in made), TokenCount())
    found = sampled, sum(one.completions for one in made), sum(one.taught for one in made)
    said = written, seen["total"], seen.get("read_by_teacher", 0)
    if found != said:
        raise ArtifactError(
            f"{of.label}: its iterations do not add up to its manifest (tokens written, trained "
            f"on, read by a teacher: {_numbers(found)}, not {_numbers(said)}): its records or its "
            "metrics.jsonl are damaged; see 'midcourse repair'"
        )


def _numbers(counts: tuple[TokenCount, int, int]) -> str:
    sampled, trained, taught = counts
    return f"{sampled.tokens_out:,}, {trained:,}, {taught:,}"
