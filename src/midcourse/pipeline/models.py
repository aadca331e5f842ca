"""From verified interventions, or a baseline's solutions, to rows; from rows to models.

A recipe makes one fine-tuned model, `patched`, and RL from it and from the base. What it is
fine-tuned on is ``build_sft.source``; its label says so, because a baseline is not InT.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from midcourse.config import (
    GradeConfig,
    ModelConfig,
    ProposeConfig,
    TrainRlConfig,
    TrainSftConfig,
)
from midcourse.engines import open_renderer, require_undamaged
from midcourse.errors import DataError
from midcourse.pipeline.contexts import (
    Continuations,
    Hints,
    Population,
    Questions,
    Reflections,
    RowProblems,
    ready_rows,
)
from midcourse.pipeline.interventions import INTERVENTION, Interventions
from midcourse.pipeline.sources import GOLD, Sources
from midcourse.pipeline.stages import (
    SampleSettings,
    SolutionRowSettings,
    StepRowSettings,
    draw,
    graders_of,
    shown_references,
    solution_rows,
    step_rows,
)
from midcourse.pipeline.values import Dialogues, Drawn, Model, Problems, Selection, Texts
from midcourse.prompts import Prompt
from midcourse.records import Condition, Problem, ProblemStatus, Role, SftRow, Start
from midcourse.run import Reader, Stage, Training
from midcourse.stages.build_sft import RowDesign
from midcourse.stages.propose import guided_prompt, review_prompt
from midcourse.steps import BLANK_LINES, StepRule
from midcourse.tokens import Asked
from midcourse.training.jobs import (
    Reviews,
    RlContext,
    RlJob,
    RlProblem,
    SdftJob,
    SftJob,
    Teaching,
    choose_rows,
)

# --- fine-tuning -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings:
    """What decides a fine-tuned model."""

    config: TrainSftConfig
    start: Model
    rows: Stage[SftRow, Any]
    rejected: Stage[SftRow, Any] | None
    """Step-DPO: the rows of the original steps."""
    seed: int


def tune(settings: TuneSettings, *, label: str, folder: str = "") -> Training[TuneSettings]:
    """*train sft*: a model fine-tuned on rows, by SFT or by Step-DPO."""
    alone = bool(settings.config.accelerate)
    return Training(label=label, settings=settings, job=_tune_job, alone=alone, folder=folder)


def _tune_job(settings: TuneSettings, reader: Reader, key: str) -> SftJob:
    config, source = settings.config, _source(settings.start, reader)
    rows = ready_rows(reader, settings.rows)
    if not rows:
        raise DataError(
            f"train {config.method}: no row of {settings.rows.label} is ready, so there is nothing "
            "to train on; look at 'midcourse status' and ask for more rollouts or proposals"
        )
    return SftJob(
        config=config,
        model=source,
        seed=settings.seed,
        rows=choose_rows(reader.path(settings.rows), rows),
        rejected_rows=reader.path(settings.rejected) if settings.rejected else None,
    )


def _source(model: Model, reader: Reader) -> ModelConfig:
    """Return where the weights of a model lie by now. Raises ArtifactError if they are damaged."""
    if model.trained is None:
        require_undamaged(Path(model.source.path))
        return model.source
    folder = reader.path(model.trained) / model.folder
    require_undamaged(folder)
    return model.source.model_copy(update={"path": str(folder), "revision": None})


# --- RL ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RlProblems:
    """The problems that RL trains on."""

    problems: Problems
    """All training problems, with texts and golds, and references where hints are made of them."""
    among: Selection | None
    """The hard ones alone; none for all."""
    kept_in: Stage[SftRow, Any] | None = None
    """Only those with a verified intervention among these rows: the paper's D_train."""
    written: Selection | None = None
    """Where references were written: those problems with them."""

    def read(self, reader: Reader) -> list[Problem]:
        """Return the problems, in the order of the recipe's."""
        if self.among is None:
            written = self.written.read(reader) if self.written else []
            by_id = {problem.problem_id: problem for problem in written}
            return [by_id.get(p.problem_id, p) for p in self.problems.items]
        chosen = self.among.read(reader)
        if self.kept_in is not None:
            kept = {row.problem_id for row in reader.read(self.kept_in) if row.num_correct}
            chosen = [problem for problem in chosen if problem.problem_id in kept]
        return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class RlSettings:
    """What decides a model after RL."""

    config: TrainRlConfig
    start: Model
    problems: RlProblems
    questions: Texts
    hints: Hints | None
    """Where groups begin from hints alone."""
    graders: Mapping[str, str]
    seed: int
    limits: GradeConfig
    """How long and with how much memory an answer may be graded: not part of the identity."""
    continuations: tuple[Continuations, ...] = ()
    """Of verified candidates, where groups begin from them."""
    measured: Stage[ProblemStatus, Any] | None = None
    """Where the order is one by pass rate: what tells it."""
    asking: Asking | None = None
    """How RL asks for interventions of its own, where it does."""
    informed: Prompt | None = None
    """What the teacher is asked with in self-distillation, where there is any."""
    dialogues: Dialogues | None = None
    """Where an environment answers the policy's turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How the policy is asked for interventions in RL."""

    config: ProposeConfig
    review: Prompt
    guided: Prompt | None
    steps: StepRule = BLANK_LINES

    def about(self, problems: Sequence[Problem]) -> Reviews:
        """Return the questions' parts; of problems that have the reference that is to be shown.

        Raises DataError if none has one.
        """
        shown = shown_references(problems, self.config)
        asked = [
            replace(problem, reference_solution=shown[problem.problem_id])
            for problem in problems
            if shown[problem.problem_id] or self.config.reference == "none"
        ]
        if not asked:
            raise DataError(
                "train_rl.online: no problem has a reference_solution to propose with: add some, "
                "or set propose.reference = 'none'"
            )
        return Reviews(
            config=self.config, review=self.review, guided=self.guided, problems=tuple(asked),
            steps=self.steps.name,
        )  # fmt: skip


def reinforce(settings: RlSettings, *, label: str) -> Training[RlSettings]:
    """*train rl*: GRPO from a model."""
    return Training(
        label=label, settings=settings, job=_rl_job, alone=settings.config.takes_all_devices
    )


def _rl_job(settings: RlSettings, reader: Reader, key: str) -> RlJob:
    problems = settings.problems.read(reader)
    statuses = reader.read(settings.measured) if settings.measured else ()
    rates = {status.problem_id: status.pass_rate for status in statuses}
    continued = _rl_continuations(settings, reader)
    return RlJob(
        config=settings.config,
        model=_source(settings.start, reader),
        seed=settings.seed,
        policy=f"rl:{key}",
        grade=settings.limits,
        reviews=settings.asking.about(problems) if settings.asking else None,
        teaching=_teaching(settings.informed, problems) if settings.informed else None,
        talk=settings.dialogues.talk if settings.dialogues else None,
        problems=tuple(
            RlProblem(
                problem_id=problem.problem_id,
                gold=problem.gold,
                contexts=(*_rl_openings(settings, problem), *continued[problem.problem_id]),
                pass_rate=rates.get(problem.problem_id),
            )
            for problem in problems
        ),
    )


def _teaching(informed: Prompt, problems: Sequence[Problem]) -> Teaching:
    return Teaching(prompt=informed, problems=tuple(problems))


def _rl_openings(settings: RlSettings, problem: Problem) -> Iterator[RlContext]:
    """Yield the contexts of a problem that begin with an empty reply."""
    if set(settings.config.conditions) != {Condition.HINT}:
        text = settings.questions.items[problem.problem_id]
        yield RlContext(condition=Condition.PROBLEM, message=text)
    if settings.hints is None:
        return
    if not problem.reference_solution:
        raise DataError(
            f"train_rl.contexts: problem {problem.problem_id} has no reference_solution to hint "
            "from: add it, or set train_rl.problems = 'hard' and reference.write = 'missing'"
        )
    shares = settings.config.hint_shares
    texts = [settings.hints.of_share(problem, share) for share in shares]
    for text in texts or [settings.hints.text(problem)]:
        yield RlContext(condition=Condition.HINT, message=text)


def _rl_continuations(settings: RlSettings, reader: Reader) -> defaultdict[str, list[RlContext]]:
    """Return the contexts that take up verified candidates, by problem: ids as verified."""
    found = defaultdict[str, list[RlContext]](list)
    for continuations in settings.continuations:
        start = settings.start
        renderer = open_renderer(start.engine, start.source, start.source.path)
        message = continuations.messages(reader, renderer)
        proposals = {p.proposal_id: p for p in continuations.proposals(reader)}
        for context in continuations.contexts(reader, renderer):
            made = RlContext(
                condition=context.condition,
                message=message(proposals[context.parent_id or ""]),
                prefix_ids=tuple(context.response.prefix),
                addition_ids=tuple(context.response.addition),
                open_box=context.open_box,
                parent_id=context.parent_id,
                said=context.said,
                given=context.given,
            )
            found[context.problem_id].append(made)
    return found


# --- self-distillation -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfDistillSettings:
    """What decides a model that was patched by itself, shown references."""

    config: TrainSftConfig
    start: Model
    problems: RlProblems
    rows: Stage[SftRow, Any] | None
    """Those that SFT would be trained on, where it is their problems."""
    questions: Texts
    informed: Prompt
    """What the teacher is asked with."""
    graders: Mapping[str, str]
    seed: int
    limits: GradeConfig
    """As of `RlSettings`."""


def self_distill(settings: SelfDistillSettings, *, label: str) -> Training[SelfDistillSettings]:
    """*train sft*: a model that learned on its own rollouts from itself, shown references."""
    alone = bool(settings.config.accelerate) or settings.config.student.sampler == "vllm"
    return Training(label=label, settings=settings, job=_self_distill_job, alone=alone)


def _self_distill_job(settings: SelfDistillSettings, reader: Reader, key: str) -> SdftJob:
    problems = settings.problems.read(reader)
    for problem in problems:
        if not problem.reference_solution:
            raise DataError(
                f"train_sft.method 'sdft': problem {problem.problem_id} has no reference_solution "
                "to show the teacher: add it, or set reference.write = 'missing'"
            )
    rows = ready_rows(reader, settings.rows) if settings.rows else problems
    if not rows:
        raise DataError("train sdft: there is no problem to train on; look at 'midcourse status'")
    return SdftJob(
        config=settings.config,
        model=_source(settings.start, reader),
        seed=settings.seed,
        policy=f"sdft:{key}",
        grade=settings.limits,
        problems=tuple(
            RlProblem(
                problem_id=problem.problem_id,
                gold=problem.gold,
                contexts=(
                    RlContext(
                        condition=Condition.PROBLEM,
                        message=settings.questions.items[problem.problem_id],
                    ),
                ),
            )
            for problem in problems
        ),
        teaching=_teaching(settings.informed, problems),
        num_rows=len(rows),
    )


# --- composition -------------------------------------------------------------------------------

#: What a fine-tuned model is called, by what it was fine-tuned on.
_LABELS = {
    "intervention": "patched",
    "original_step": "SFT on original steps",
    "reference": "SFT on references",
    "self_reflection": "SFT on self-reflections",
    "distillation": "SFT on a teacher's traces",
}


def _rl_label(config: TrainRlConfig) -> str:
    """Return what RL is called by its loss, and by what its groups begin from."""
    conditions = config.conditions
    if config.distill_weight:
        name = "SDPO" if config.distill_weight == 1 else "RL with SDPO"
        shown = {"sibling": "", "reference": " from references"}
        return name + shown.get(config.distill_from, " from siblings or references")
    if conditions == (Condition.PROBLEM,):
        return "RL"
    if conditions == (Condition.HINT,):
        return "hint-guided RL"
    return f"RL from {' and '.join(conditions)}"


@dataclass(frozen=True)
class Models:
    """The rows and the models of a recipe."""

    sources: Sources
    referenced: Selection
    """The hard problems, before hints are looked at."""
    interventions: Interventions

    @cached_property
    def step_rows(self) -> Stage[SftRow, Any]:
        """Rows of single steps: what InT trains on, also where a baseline is trained instead."""
        return self._step_rows(RowDesign.of(self.sources.recipe.build_sft))

    def _step_rows(self, design: RowDesign) -> Stage[SftRow, Any]:
        is_control = design.source == "original_step"
        condition = Condition.PREFIX_ERROR if is_control else INTERVENTION
        settings = StepRowSettings(
            design=design,
            continuations=self.interventions.continuations(condition),
            verified=self.interventions.verified[INTERVENTION],
            policy=self.sources.setup.base,
            seed=self.sources.recipe.seed,
        )
        return step_rows(settings, design.source)

    @cached_property
    def solutions(self) -> Drawn | None:
        """What a baseline's rows are made of: rewrites of the base's attempts, a teacher's traces.

        References need no rollouts.
        """
        s, config = self.sources, self.sources.recipe.build_sft
        model, contexts = s.setup.base, self._asked_for_solutions()
        if contexts is None:
            return None
        if config.source == "distillation":
            engine, arguments = s.recipe.teacher_engine, config.teacher_template_arguments
            model = s.setup.helper(config.teacher, None, engine, arguments)
        settings = SampleSettings(
            model=model,
            contexts=contexts,
            num_rollouts=config.num_solutions,
            sampling=config.sampling,
            stream="teacher" if config.source == "distillation" else "reflection",
            seed=s.recipe.seed,
        )
        asked = Asked.TEACHER if config.source == "distillation" else Asked.POLICY
        return draw(settings, s.problems(*GOLD), asked=asked)

    def _asked_for_solutions(self) -> Reflections | Questions | None:
        source, interventions = self.sources.recipe.build_sft.source, self.interventions
        if source == "self_reflection":
            return Reflections(
                rows=self.step_rows,
                candidates=interventions.candidates(),
                cases=interventions.cases,
                prompt=self.sources.setup.prompts["reflect"],
                steps=self.sources.setup.steps,
            )
        if source == "distillation":
            return Questions(
                texts=self.sources.questions(),
                population=Population.ROWS,
                among=RowProblems(self.step_rows),
            )
        return None

    @cached_property
    def rows(self) -> Stage[SftRow, Any]:
        """The rows to fine-tune on."""
        config = self.sources.recipe.build_sft
        if not config.is_baseline:
            return self.step_rows
        settings = SolutionRowSettings(
            config=config,
            step_rows=self.step_rows,
            hard=self.interventions.hard,
            solutions=self.solutions,
            policy=self.sources.setup.base,
            seed=self.sources.recipe.seed,
        )
        return solution_rows(settings, config.source)

    @cached_property
    def patched(self) -> Model:
        """The base fine-tuned on the rows, by SFT or by Step-DPO; or by self-distillation."""
        recipe, base = self.sources.recipe, self.sources.setup.base
        training = self._self_distilled() if recipe.train_sft.method == "sdft" else self._tuned()
        return Model(
            name=f"{recipe.train_sft.method}:{training.key}",
            label=training.label,
            source=base.source,
            engine=base.engine,
            role=Role(Start.PATCHED),
            trained=training,
            folder="final",
        )

    def _tuned(self) -> Training[TuneSettings]:
        recipe, base = self.sources.recipe, self.sources.setup.base
        is_dpo = recipe.train_sft.method == "dpo"
        rejected = RowDesign.of(recipe.build_sft, "original_step")
        settings = TuneSettings(
            config=recipe.train_sft,
            start=base,
            rows=self.rows,
            rejected=self._step_rows(rejected) if is_dpo else None,
            seed=recipe.seed,
        )
        return tune(settings, label="Step-DPO" if is_dpo else _LABELS[recipe.build_sft.source])

    def _self_distilled(self) -> Training[SelfDistillSettings]:
        s, config = self.sources, self.sources.recipe.train_sft
        problems = s.problems("text", *GOLD, "reference_solution")
        rows = self.step_rows if config.student.problems == "rows" else None
        settings = SelfDistillSettings(
            config=config,
            start=s.setup.base,
            problems=RlProblems(
                problems=problems,
                among=replace(self.interventions.hard, problems=problems),
                kept_in=rows,
            ),
            rows=rows,
            questions=s.questions(),
            informed=s.setup.prompts["guided_solve"],
            graders=graders_of(s.problems("checker")),
            seed=s.recipe.seed,
            limits=s.recipe.grade,
        )
        return self_distill(settings, label="OPSD" if config.distill.teacher == "base" else "SDFT")

    def in_role(self, role: Role) -> Model:
        """Return the model that plays a role; along RL, the one of an iteration."""
        start = self.sources.setup.base if role.start is Start.BASE else self.patched
        if not role.rl or role.iteration == 0:
            return start
        training, last = self._reinforced[role.start], self.sources.recipe.train_rl.num_iterations
        step = last if role.iteration is None else role.iteration
        return Model(
            name=f"rl:{training.key}@{step}",
            label=training.label if step == last else f"{training.label} @ {step}",
            source=start.source,
            engine=start.engine,
            role=role,
            trained=training,
            folder="final" if step == last else f"step-{step:06d}",
        )

    def course(self, start: Start) -> dict[int, Model]:
        """Return the models of one RL run by iteration: its start, what was kept, its end."""
        config = self.sources.recipe.train_rl
        every = config.save_every if config.keep_checkpoints else config.num_iterations
        steps = [*range(0, config.num_iterations, every), config.num_iterations]
        return {step: self.in_role(Role(start, rl=True, iteration=step)) for step in steps}

    @property
    def compared(self) -> list[Model]:
        """The models that the recipe compares, in order."""
        return [self.in_role(role) for role in self.sources.recipe.evaluate.roles]

    @cached_property
    def rl_problems(self) -> RlProblems:
        """The problems that RL trains on, as the recipe chooses (§4.2)."""
        config, s = self.sources.recipe.train_rl, self.sources
        shows = Condition.HINT in config.conditions or bool(config.online.share)
        shows |= bool(config.distill_weight) and config.distill_from != "sibling"
        problems = s.problems("text", *GOLD, *(("reference_solution",) if shows else ()))
        if config.problems == "all":
            is_written = s.recipe.reference.write != "none" and shows
            written = replace(self.referenced, problems=problems) if is_written else None
            return RlProblems(problems=problems, among=None, written=written)
        return RlProblems(
            problems=problems,
            among=replace(self.interventions.hard, problems=problems),
            kept_in=self.step_rows if config.problems == "verified" else None,
        )

    @cached_property
    def _reinforced(self) -> dict[Start, Training[RlSettings]]:
        """GRPO from the base and from the patched model, on the same problems."""
        return {start: self._reinforce(self.in_role(Role(start))) for start in Start}

    def _reinforce(self, start: Model) -> Training[RlSettings]:
        s, config = self.sources, self.sources.recipe.train_rl
        is_ordered = config.order != "shuffled"
        settings = RlSettings(
            config=config,
            start=start,
            problems=self.rl_problems,
            questions=s.questions(),
            hints=s.hints() if Condition.HINT in config.conditions else None,
            graders=graders_of(s.problems("checker")),
            seed=s.recipe.seed,
            limits=s.recipe.grade,
            continuations=self._continued(config.conditions),
            measured=self.referenced.statuses if is_ordered else None,
            asking=self._asking() if config.online.share else None,
            informed=s.setup.prompts["guided_solve"] if config.distill_weight else None,
            dialogues=s.dialogues(),
        )
        how = _rl_label(config) + (" with online InT" if config.online.share else "")
        return reinforce(settings, label=f"{start.label} + {how}")

    def _continued(self, conditions: Sequence[Condition]) -> tuple[Continuations, ...]:
        """Return the verified candidates, as each condition that continues them takes them up."""
        found = [c for c in conditions if c.continues is not Condition.PROBLEM]
        if not found:
            return ()
        make, kept_by = self.interventions.continuations, self.interventions.verified[INTERVENTION]
        return tuple(replace(make(condition), kept_by=kept_by.grades) for condition in found)

    def _asking(self) -> Asking:
        recipe, prompts = self.sources.recipe, self.sources.setup.prompts
        changes = {
            "num_proposals": recipe.train_rl.online.num_proposals,
            "num_rollouts": ProposeConfig().num_rollouts,  # one of each group, whatever it says
        }
        config = recipe.propose.model_copy(update=changes)
        return Asking(
            config=config,
            review=review_prompt(prompts, config),
            guided=guided_prompt(prompts, config),
            steps=self.sources.setup.steps,
        )

    def rl_trainings(self) -> list[Training[RlSettings]]:
        """Return the RL trainings that are compared; both where the recipe compares none."""
        roles = self.sources.recipe.evaluate.roles
        starts = {role.start for role in roles if role.rl} or set(Start)
        return [self._reinforced[start] for start in Start if start in starts]
