"""What a run will do: the steps of the recipe's own method, and what each of them asks for.

The method is composed without its problems: one stands for all, a plan knows how many there are. A
step's settings say what it does, `Expected` how often. A context that several requests share (32
continuations of one prefix) is counted once as prefill: engines keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from midcourse.checkers.reasoning_gym import NAME as TASKS
from midcourse.config import EngineConfig, Part, Recipe, TrainRlConfig, TrainSftConfig
from midcourse.data.parts import place
from midcourse.data.problems import read_problems
from midcourse.data.rows import is_hub
from midcourse.data.sources import find_source
from midcourse.errors import ConfigError, DataError
from midcourse.pipeline import contexts as kinds
from midcourse.pipeline import stages
from midcourse.pipeline.contexts import Population
from midcourse.pipeline.evaluation import LikelihoodSettings
from midcourse.pipeline.method import Method, method
from midcourse.pipeline.models import RlSettings, TuneSettings
from midcourse.pipeline.session import Setup, load_problem_sets
from midcourse.pipeline.values import Candidates, Model, ProblemSets, Selection
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import TrainingProcesses
from midcourse.plan.search import PassRates, rollouts_of_search
from midcourse.plan.shapes import ModelShape
from midcourse.records import Condition, Problem, SftRow, content_id
from midcourse.run import Stage, Step, Training

#: Held-out problems where the recipe names a file that is not there.
_HELD_OUT = 200
#: A verdict, a status or a row without its ids, compressed.
_RECORD_BYTES = 60
#: Weights are saved as they were trained, in float32.
_SAVED_BYTES = 4


def compose(recipe: Recipe) -> Method:
    """Return the method of a recipe. No model is looked at and no file of problems is read."""
    text = dict.fromkeys(("text", "answer", "reference_solution", "source", "split"), "1")
    one = [Problem(problem_id="one for all", **text)]
    sets = ProblemSets(one, {"held_out": one} if recipe.problems.held_out_path else {})
    if recipe.problems.kind == "lab":
        sets = load_problem_sets(recipe)
    setup = Setup.with_problems(recipe, sets, lambda m: content_id(m.path, m.revision)[:10])
    return method(setup)


def in_order(asked: Sequence[tuple[Step, ...]]) -> Iterator[tuple[Step, ...]]:
    """Yield every step once, its inputs first; what one tuple holds is completed together."""
    seen: set[tuple[str, str]] = set()

    def visit(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
        for step in steps:
            if (step.name, step.key) not in seen:
                yield from visit(step.inputs)
        fresh = tuple(step for step in steps if (step.name, step.key) not in seen)
        seen.update((step.name, step.key) for step in fresh)
        if fresh:
            yield fresh

    for steps in asked:
        yield from visit(steps)


class Kind(StrEnum):
    """What takes the time; names the rate in `Assumptions` where there is one."""

    SAMPLE = "sample"
    VERIFY = "verify"
    EVALUATE = "evaluate"
    HELP = "help"
    """A teacher or a writer of references samples."""
    PROPOSE = "propose"
    SFT = "sft"
    RL = "rl"
    LIKELIHOOD = "likelihood"
    GRADE = "grade"
    RECORDS = "records"
    """Records are read and others written: no time worth counting."""


def kind_of(settings: stages.SampleSettings) -> Kind:
    """Return what a sampling counts as."""
    if settings.model.role is None:
        return Kind.HELP
    by_population = {
        Population.CANDIDATES: Kind.VERIFY,
        Population.HELD_OUT: Kind.EVALUATE,
        Population.PROBE: Kind.EVALUATE,
    }
    return by_population.get(settings.contexts.population, Kind.SAMPLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step asks for, e.g. 4,500 contexts × 32 continuations of 3,500 tokens."""

    kind: Kind
    requests: float
    """The records of a stage; rows or rollouts trained on."""
    prefill_tokens: float = 0.0
    """Tokens of distinct contexts."""
    tokens: float = 0.0
    """Tokens sampled, trained on or scored."""
    context: float = 0.0
    """Mean number of tokens that one of them looks back on."""
    longest: float = 0.0
    """The longest context with its completion, or row, that may occur."""
    model: Model | None = None
    """Whose engine is open meanwhile; of a training, where it starts."""
    training: TrainSftConfig | TrainRlConfig | None = None
    opens: int = 0
    """Engines opened, or training processes started, for it."""
    disk_bytes: float = 0.0
    passing_bytes: float = 0.0
    """Disk that is free again afterwards: checkpoints to resume from."""

    @property
    def engine(self) -> EngineConfig | None:
        """What samples or scores."""
        if self.model is None or self.training is not None:
            return None
        engine = self.model.engine
        return engine.scoring if self.kind is Kind.LIKELIHOOD else engine

    @property
    def devices(self) -> int:
        """Devices that are held meanwhile."""
        if self.training is not None:
            return TrainingProcesses.of(self.training.accelerate).number
        return self.engine.num_devices if self.engine else 0


def schedule(asked: Sequence[tuple[Step, ...]], expected: Expected) -> list[tuple[Step, Work]]:
    """Return the work of every step that a run completes, in order, and what is opened for it.

    One engine is open at a time. Trainings that run together start together.
    """
    planned: list[tuple[Step, Work]] = []
    held: object = None
    for steps in in_order(asked):
        for step in steps:
            work = expected.work(step.settings)
            if isinstance(step, Training):
                opens, held = step.alone or step is steps[0], None
            else:
                needed = (work.model.name, work.kind is Kind.LIKELIHOOD) if work.model else held
                opens = needed != held and work.engine is not None and work.engine.loads_models
                held = needed
            planned.append((step, replace(work, opens=int(opens))))
    return planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How many there will be of everything: follows the problems through the funnel."""

    given: Assumptions
    """Filled in."""
    number: Mapping[Population, float]
    """The problems of each population that consists of some."""
    shape: ModelShape
    """The policy's."""

    @classmethod
    def of(
        cls, setup: Setup, given: Assumptions, pass_rates: PassRates, shape: ModelShape
    ) -> Expected:
        """Fill in what is not given, and count the problems as far as they are at hand."""
        recipe, sample = setup.recipe, setup.recipe.sample
        train, held_out, probe = _count_problems(setup, given)
        hard, draws = given.hard_share, float(sample.num_rollouts)
        if hard is None:
            hard = sum(share * (1 - rate) ** sample.num_rollouts for rate, share in pass_rates)
        if sample.rounds:
            searched = rollouts_of_search(pass_rates, sample.rounds).rollouts
            draws = given.rollouts_per_problem or searched
        limit = sample.sampling.max_tokens
        rollout = min(given.rollout_tokens or 0.43 * limit, limit)
        defaults = {
            "rl_tokens": min(rollout, recipe.train_rl.sampling.max_tokens),
            "continuation_tokens": rollout * (1 - given.prefix_share),
            "guided_tokens": given.reference_tokens,
            "review_tokens": 0.25 * recipe.propose.sampling.max_tokens,
        }
        lengths = {name: getattr(given, name) or value for name, value in defaults.items()}
        known = {
            "num_problems": train,
            "num_held_out": held_out,
            "hard_share": hard,
            "rollouts_per_problem": draws,
            "rollout_tokens": rollout,
        }
        number = {
            Population.TRAIN: train,
            Population.HELD_OUT: held_out,
            Population.PROBE: probe,
            Population.HARD: train * hard,
        }
        return cls(given=given.model_copy(update=lengths | known), number=number, shape=shape)

    # How many.

    def hard(self, selection: Selection | None = None) -> float:
        """Return how many problems are hard, or are chosen among those."""
        share = self.given.hinted_share if selection and selection.hinted else 1.0
        return self.number[Population.HARD] * share

    def contexts(self, contexts: kinds.Contexts) -> float:
        """Return how many contexts there are of a kind."""
        match contexts:
            case kinds.Continuations(candidates=candidates, limit=limit):
                found = self.candidates(candidates)
                return found if limit is None else min(found, limit)
            case kinds.Questions(among=kinds.HardOnes(selection, missing)):
                return self.hard(selection) * (self.given.missing_share if missing else 1.0)
            case kinds.HintedQuestions(hard=selection):
                return self.hard(selection)
            case kinds.Questions(among=kinds.RowProblems(rows)) | kinds.Reflections(rows=rows):
                return self.ready(rows)
        return self.number[contexts.population]

    def rollouts(self, settings: stages.SampleSettings) -> float:
        """Return how many rollouts are drawn; where continuations are searched, at most."""
        is_search = settings.rounds and settings.contexts.population is Population.TRAIN
        each = self.given.rollouts_per_problem if is_search else settings.num_rollouts
        return self.contexts(settings.contexts) * each

    def cases(self, settings: stages.CasesSettings) -> float:
        """Return how many incorrect rollouts the proposer is asked about."""
        drawn: stages.SampleSettings = settings.drawn.rollouts.settings
        problems = self.contexts(drawn.contexts)
        if isinstance(settings.among, Selection):
            problems = self.hard(settings.among)
        return problems * min(settings.num_rollouts, drawn.num_rollouts)

    def candidates(self, candidates: Candidates) -> float:
        """Return how many rollouts have an accepted intervention."""
        settings = candidates.proposals.settings
        if isinstance(settings, stages.ShiftSettings):
            return self.candidates(settings.candidates)
        still = self.given.hinted_share if candidates.hard and candidates.hard.hinted else 1.0
        return self.cases(settings.cases.settings) * self.given.candidate_share * still

    def ready(self, rows: Stage[SftRow, Any]) -> float:
        """Return how many rows can be trained on."""
        settings = rows.settings
        if isinstance(settings, stages.SolutionRowSettings):
            return self.ready(settings.step_rows)
        candidates, design = settings.continuations.candidates, settings.design
        one = design.rows_per_problem == "one"
        number = self.hard(candidates.hard) if one else self.candidates(candidates)
        return number * (self.given.verified_share if design.filter else 1.0)

    def row_tokens(self, rows: Stage[SftRow, Any]) -> float:
        """Return the mean length of a row: of a step, or of a whole solution."""
        given, settings = self.given, rows.settings
        if isinstance(settings, stages.SolutionRowSettings):
            is_short = settings.solutions is None or settings.config.trace == "summary"
            solution = min(given.rollout_tokens, settings.config.sampling.max_tokens)
            return given.prompt_tokens + (given.reference_tokens if is_short else solution)
        prefix = 0.0 if settings.design.prefix == "dropped" else given.prefix_tokens
        suffix = given.continuation_tokens if settings.design.suffix else 0.0
        return given.prompt_tokens + prefix + given.intervention_tokens + suffix

    # How much work.

    def work(self, settings: object) -> Work:
        """Return what a step with these settings asks for."""
        return _WORK[type(settings)](self, settings)

    def _records(self, number: float, kind: Kind = Kind.RECORDS) -> Work:
        return Work(kind=kind, requests=number, disk_bytes=number * _RECORD_BYTES)

    def _sampled(
        self, kind: Kind, requests: float, shown: float, said: float, contexts: float | None = None
    ) -> Work:
        """Return the sampling of `said` tokens after `shown` ones."""
        tokens = requests * said
        return Work(
            kind=kind,
            requests=requests,
            prefill_tokens=(requests if contexts is None else contexts) * shown,
            tokens=tokens,
            context=shown + said / 2,
            disk_bytes=tokens * self.given.disk_bytes_per_token,
        )

    def _sample(self, settings: stages.SampleSettings) -> Work:
        opening, contexts = self._opening(settings), self.contexts(settings.contexts)
        return replace(
            self._sampled(kind_of(settings), self.rollouts(settings), *opening, contexts),
            longest=self.given.prompt_tokens + settings.sampling.max_tokens,
            model=settings.model,
        )

    def _opening(self, settings: stages.SampleSettings) -> tuple[float, float]:
        """Return the mean tokens of a context, and of what is sampled from it."""
        given, contexts = self.given, settings.contexts
        shown, tokens = given.prompt_tokens, min(given.rollout_tokens, settings.sampling.max_tokens)
        if isinstance(contexts, kinds.HintedQuestions):
            shown += given.hint_tokens
        elif isinstance(contexts, kinds.Reflections):
            shown += given.reference_tokens + given.rollout_tokens
        elif isinstance(contexts, kinds.Continuations):
            shown += given.hint_tokens if contexts.hints else 0.0
            continues = contexts.condition.continues
            if continues is not Condition.PROBLEM:
                shown, tokens = shown + given.prefix_tokens, given.continuation_tokens
            if continues is Condition.PREFIX_INTERVENTION:
                shown += given.intervention_tokens
        return shown, tokens

    def _propose(self, settings: stages.ProposeSettings) -> Work:
        """Return the questions about the cases, each of one or two turns."""
        given, config, cases = self.given, settings.config, settings.cases.settings
        if settings.world is not None:
            return self._records(self.cases(cases))
        # If k questions leave a share of 1 − c without an accepted answer, each of them succeeds
        # with 1 − (1 − c)^(1/k).
        each = float(config.num_proposals)
        once = 1 - (1 - given.candidate_share) ** (1 / each)
        if once and config.stop_at_first_accepted:
            each = given.candidate_share / once
        drawn = cases.drawn.rollouts.settings.sampling.max_tokens
        reference = given.reference_tokens if config.reference != "none" else 0.0
        shown = given.prompt_tokens + given.rollout_tokens + reference
        said = given.review_tokens + (given.guided_tokens if settings.guided else 0.0)
        limit = config.sampling.max_tokens * (2 if settings.guided else 1)
        work = self._sampled(Kind.PROPOSE, self.cases(cases) * each, shown, said)
        return replace(
            work,
            longest=given.prompt_tokens + drawn + reference + limit,
            model=settings.proposer,
            disk_bytes=(work.prefill_tokens + work.tokens) * given.disk_bytes_per_token,
        )

    def _tune(self, settings: TuneSettings) -> Work:
        config, made = settings.config, settings.rows.settings
        rows, length = self.ready(settings.rows) * config.num_epochs, self.row_tokens(settings.rows)
        if config.max_steps:
            rows = min(rows, config.max_steps * config.batch_size)
        whole = isinstance(made, stages.SolutionRowSettings)
        return Work(
            kind=Kind.SFT,
            requests=rows,
            tokens=rows * length * (1 if settings.rejected is None else 2),
            context=length / 2,
            longest=(made.config if whole else made.design).max_tokens,
            model=settings.start,
            training=config,
            disk_bytes=self.shape.parameters * _SAVED_BYTES,
        )

    def _rl(self, settings: RlSettings) -> Work:
        given, shape, config = self.given, self.shape, settings.config
        prompts = float(config.num_iterations * config.prompts_per_iteration)
        prompt = given.prompt_tokens + (given.hint_tokens if settings.hints else 0.0)
        checkpoints = config.num_iterations // config.save_every
        rollouts = prompts * config.num_generations
        return replace(
            self._sampled(Kind.RL, rollouts, prompt, given.rl_tokens, prompts),
            longest=prompt + config.sampling.max_tokens,
            model=settings.start,
            training=config,
            disk_bytes=shape.parameters * _SAVED_BYTES,
            passing_bytes=checkpoints * 3 * shape.trained(config.lora_rank) * _SAVED_BYTES,
        )

    def _likelihood(self, settings: LikelihoodSettings) -> Work:
        """Return the scoring of interventions, rows, references and own rollouts by one model."""
        given, most = self.given, settings.max_items
        rows = min(most, self.ready(settings.rows))
        references = min(most, self.number[Population.TRAIN])
        own = min(most, self.rollouts(settings.own.rollouts.settings)) if settings.own else 0.0
        made, prompt = settings.rows.settings, given.prompt_tokens
        # Of a step, the row and the step given its prefix; else the row alone.
        is_step = isinstance(made, stages.StepRowSettings) and made.design.source == "intervention"
        steps = rows if is_step else 0.0
        if settings.unseen is not None:
            steps += self.contexts(settings.unseen)
        texts = rows + steps + references + own
        in_rows = rows * (self.row_tokens(settings.rows) - prompt)
        others = references * given.reference_tokens + own * given.rollout_tokens
        return Work(
            kind=Kind.LIKELIHOOD,
            requests=texts,
            prefill_tokens=texts * prompt + steps * given.prefix_tokens,
            tokens=in_rows + steps * given.intervention_tokens + others,
            context=prompt + given.rollout_tokens / 2,
            model=settings.model,
            disk_bytes=texts * _RECORD_BYTES,
        )


#: What a step asks for, by its settings.
_WORK: Mapping[type, Callable[[Expected, Any], Work]] = {
    stages.SampleSettings: Expected._sample,
    stages.GradeSettings: lambda e, s: e._records(e.rollouts(s.rollouts.settings), Kind.GRADE),
    stages.SelectSettings: lambda e, s: e._records(
        e.hard(s.among) if s.among else e.number[Population.TRAIN]
    ),
    stages.ReferenceSettings: lambda e, s: e._records(e.hard(s.hard)),
    stages.CasesSettings: lambda e, s: e._records(e.cases(s)),
    stages.ProposeSettings: Expected._propose,
    stages.ShiftSettings: lambda e, s: e._records(e.candidates(s.candidates)),
    stages.StepRowSettings: lambda e, s: e._records(e.contexts(s.continuations)),
    stages.SolutionRowSettings: lambda e, s: e._records(e.ready(s.step_rows)),
    TuneSettings: Expected._tune,
    RlSettings: Expected._rl,
    LikelihoodSettings: Expected._likelihood,
}


def _count_problems(setup: Setup, given: Assumptions) -> tuple[int, int, int]:
    """Count training, held-out and probe problems, as far as they are at hand; given ones win."""
    config, sets, probe = setup.recipe.problems, setup.problems, 0
    if config.kind == "lab":
        train: int | None = len(sets.train)
        held_out, probe = (len(sets.evaluation[name]) for name in ("held_out", "known"))
    else:
        path, columns, limit = config.held_out_path, config.columns, config.held_out_limit
        train = _count(config.path, columns, config.limit, config.part)
        held_out = (_count(path, columns, limit) or _HELD_OUT) if path else 0
    train = given.num_problems or train
    if not train:
        raise ConfigError(
            f"plan: no problems at {config.path!r} and no problems.limit: say how many there will "
            "be, e.g. --assume num_problems=50000"
        )
    return train, held_out if given.num_held_out is None else given.num_held_out, probe


def _count(
    path: str, columns: Mapping[str, str], limit: int | None, part: Part = (0.0, 1.0)
) -> int | None:
    """Return how many problems of a file are in a part, at most `limit`; broken ones count.

    Without a file return `limit`: the hub is not asked and tasks are not generated.
    """
    try:
        if path.startswith(f"{TASKS}:") or is_hub(find_source(path)[1]):
            return limit
        found = [row.problem for row in read_problems(path, columns=columns)]
    except DataError:
        return limit
    number = sum(one is None or part[0] <= place(one.text) < part[1] for one in found)
    return min(number, limit or number)
