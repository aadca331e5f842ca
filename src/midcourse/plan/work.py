"""What a run will do: the steps of the recipe's own method, and what each of them asks for.

The method is composed without its problems: one stands for all, a plan knows how many there are. A
step's settings say what it does, `Expected` how often. A context that several requests share (32
continuations of one prefix) is counted once as prefill: engines keep it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, inf
from typing import Any

from midcourse.config import (
    HELD_OUT_SET,
    EngineConfig,
    Part,
    Recipe,
    TrainRlConfig,
    TrainSftConfig,
)
from midcourse.data.parts import place
from midcourse.data.problems import is_generated, read_problems
from midcourse.data.rows import is_hub
from midcourse.data.sources import find_source
from midcourse.errors import ConfigError, DataError
from midcourse.pipeline import contexts as kinds
from midcourse.pipeline import stages
from midcourse.pipeline.contexts import Population
from midcourse.pipeline.evaluation import LikelihoodSettings
from midcourse.pipeline.method import Method, method
from midcourse.pipeline.models import RlSettings, SelfDistillSettings, TuneSettings
from midcourse.pipeline.session import Setup, load_problem_sets
from midcourse.pipeline.values import Candidates, Model, ProblemSets, Selection, Subset
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import TrainingProcesses
from midcourse.plan.search import PassRates, rollouts_of_search
from midcourse.plan.shapes import ModelShape
from midcourse.records import Condition, Problem, SftRow, content_id
from midcourse.run import Stage, Step, Training, in_order
from midcourse.stages.search import rounds_within
from midcourse.training.jobs import steps_of

_EVALUATED = 200  # problems of a set, where the recipe names a file that is not there
_RECORD_BYTES = 60  # a verdict, a status or a row without its ids, compressed
_SAVED_BYTES = 4  # weights are saved as they were trained, in float32


def compose(recipe: Recipe) -> Method:
    """Return the method of a recipe. No model is looked at and no file of problems is read."""
    text = dict.fromkeys(("text", "answer", "reference_solution", "source", "split"), "1")
    one = [Problem(problem_id="one for all", **text)]
    held_out = [HELD_OUT_SET] if recipe.problems.held_out_path else []
    sets = ProblemSets(one, dict.fromkeys([*held_out, *recipe.evaluate.benchmarks], one))
    if recipe.problems.kind == "lab":
        sets = load_problem_sets(recipe)
    setup = Setup.with_problems(recipe, sets, lambda m: content_id(m.path, m.revision)[:10])
    return method(setup)


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
    if settings.contexts.population is Population.CANDIDATES:
        return Kind.VERIFY
    evaluated = settings.contexts.population in (Population.HELD_OUT, Population.PROBE)
    return Kind.EVALUATE if evaluated else Kind.SAMPLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step asks for, e.g. 4,500 contexts × 32 continuations of 3,500 tokens."""

    kind: Kind
    requests: float
    """The records of a stage; rows trained on, rollouts sampled in RL."""
    replies: int = 1
    """What a server sends for each of them: one, or one a turn."""
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


def schedule(asked: Iterable[tuple[Step, ...]], expected: Expected) -> list[tuple[Step, Work]]:
    """Return the work of every step that a run completes, in order, and what is opened for it.

    One engine is open at a time. Trainings of a kind start together unless each takes all devices.
    """
    planned: list[tuple[Step, Work]] = []
    held: object = None
    for step in in_order(asked):
        work, opens = expected.work(step.settings), False
        if isinstance(step, Training):
            opens, held = step.alone or held is not work.kind, work.kind
        elif work.model:
            needed = (work.model.name, work.kind is Kind.LIKELIHOOD)
            opens = needed != held and work.engine is not None and work.engine.loads_models
            held = needed
        planned.append((step, replace(work, opens=int(opens))))
    return planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How many there will be of everything: follows the problems through the funnel."""

    given: Assumptions
    """Filled in."""
    problems: Mapping[str, float]
    """Training problems, and those of every set to evaluate on, a subset as it is cut."""
    hard: float
    shape: ModelShape
    """The policy's."""

    @classmethod
    def of(
        cls, setup: Setup, given: Assumptions, pass_rates: PassRates, shape: ModelShape
    ) -> Expected:
        """Fill in what is not given, and count the problems as far as they can be read."""
        recipe, sample = setup.recipe, setup.recipe.sample
        problems, numbers = _count_problems(setup, given), _numbers_of_rollouts(recipe, given)
        hard_share = given.hard_share
        if hard_share is None:
            hard_share = _mean(numbers, lambda k: sum(s * (1 - r) ** k for r, s in pass_rates))
        rollouts = _mean(numbers, float)
        searched = _mean(
            numbers,
            lambda k: rollouts_of_search(pass_rates, rounds_within(sample.rounds, k)).rollouts,
        )
        limit = sample.sampling.max_tokens
        rollout = min(given.rollout_tokens or 0.43 * limit, limit)
        defaults = {
            "rollouts_per_problem": searched,
            "rl_tokens": min(rollout, recipe.train_rl.sampling.max_tokens),
            "continuation_tokens": rollout * (1 - given.prefix_share),
            "guided_tokens": given.reference_tokens,
            "review_tokens": 0.25 * recipe.propose.sampling.max_tokens,
        }
        filled = {name: getattr(given, name) or value for name, value in defaults.items()}
        filled |= {
            "num_problems": problems[Population.TRAIN],
            "num_held_out": problems.get(HELD_OUT_SET, 0),
            "hard_share": hard_share,
            "rollout_tokens": rollout,
        }
        if not sample.rounds:
            filled["rollouts_per_problem"] = rollouts
        given, hard = given.model_copy(update=filled), hard_share * problems[Population.TRAIN]
        return cls(given=given, problems=problems, hard=hard, shape=shape)

    def number(self, of: object) -> float:
        """Return how many there will be of what has these settings, or is chosen by them."""
        return _NUMBER[type(of)](self, of)

    def _rollouts(self, settings: stages.SampleSettings) -> float:
        """Return how many rollouts are drawn; where continuations are searched, at most."""
        is_train = settings.contexts.population is Population.TRAIN
        each = self.given.rollouts_per_problem if is_train else settings.num_rollouts
        return self.number(settings.contexts) * each

    def _cases(self, settings: stages.CasesSettings) -> float:
        drawn: stages.SampleSettings = settings.drawn.rollouts.settings
        is_hard = isinstance(settings.among, Selection)
        problems = self.number(settings.among if is_hard else drawn.contexts)
        return problems * min(settings.num_rollouts, drawn.num_rollouts)

    def _candidates(self, candidates: Candidates) -> float:
        settings = candidates.proposals.settings
        if isinstance(settings, stages.ShiftSettings):
            return self.number(settings)
        still = self.given.hinted_share if candidates.hard and candidates.hard.hinted else 1.0
        return self.number(settings.cases.settings) * self.given.candidate_share * still

    def ready(self, rows: Stage[SftRow, Any]) -> float:
        """Return how many rows can be trained on."""
        settings = rows.settings
        if isinstance(settings, stages.SolutionRowSettings):
            return self.ready(settings.step_rows)
        candidates, design = settings.continuations.candidates, settings.design
        one = design.rows_per_problem == "one"
        number = self.number(candidates.hard if one else candidates)
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

    def work(self, settings: object) -> Work:
        """Return what a step with these settings asks for."""
        is_told = isinstance(settings, stages.ProposeSettings) and settings.world is not None
        if type(settings) in _WORK and not is_told:
            return _WORK[type(settings)](self, settings)
        kind = Kind.GRADE if isinstance(settings, stages.GradeSettings) else Kind.RECORDS
        number = self.number(settings)
        return Work(kind=kind, requests=number, disk_bytes=number * _RECORD_BYTES)

    def _sample(self, settings: stages.SampleSettings) -> Work:
        given, contexts, requests = self.given, settings.contexts, self.number(settings)
        shown, said = given.prompt_tokens, min(given.rollout_tokens, settings.sampling.max_tokens)
        if isinstance(contexts, kinds.HintedQuestions):
            shown += given.hint_tokens
        elif isinstance(contexts, kinds.Reflections):
            shown += given.reference_tokens + given.rollout_tokens
        elif isinstance(contexts, kinds.Continuations):
            shown = self._shown(contexts.condition)
            if contexts.condition.continues is not Condition.PROBLEM:
                said = given.continuation_tokens
        return Work(
            kind=kind_of(settings),
            requests=requests,
            prefill_tokens=self.number(contexts) * shown,
            tokens=requests * said,
            context=shown + said / 2,
            longest=given.prompt_tokens + settings.sampling.max_tokens,
            model=settings.model,
            disk_bytes=requests * said * given.disk_bytes_per_token,
        )

    def _shown(self, condition: Condition) -> float:
        """Return the tokens that a row of Table 1 begins from."""
        given, continues = self.given, condition.continues
        shown = given.prompt_tokens + (given.hint_tokens if condition.has_hint else 0.0)
        if continues is not Condition.PROBLEM:
            shown += given.prefix_tokens
        if continues is Condition.PREFIX_INTERVENTION:
            shown += given.intervention_tokens
        return shown

    def _propose(self, settings: stages.ProposeSettings) -> Work:
        """Return the questions about the cases, each of one or two turns."""
        given, config, cases = self.given, settings.config, settings.cases.settings
        # If k questions leave a share of 1 − c without an accepted answer, each of them succeeds
        # with 1 − (1 − c)^(1/k).
        each = float(config.num_proposals)
        once = 1 - (1 - given.candidate_share) ** (1 / each)
        if once and config.stop_at_first_accepted:
            each = given.candidate_share / once
        drawn = cases.drawn.rollouts.settings.sampling.max_tokens
        reference = given.reference_tokens if config.reference != "none" else 0.0
        shown = given.prompt_tokens + given.rollout_tokens + reference
        guided = given.guided_tokens if settings.guided else 0.0
        said, limit = given.review_tokens + guided, config.sampling.max_tokens
        questions = self.number(cases) * each
        # What is shared is sampled, and prefilled with what it goes on from, once per rollout.
        opened = self.number(cases) if config.shares_solution else questions
        return Work(
            kind=Kind.PROPOSE,
            requests=questions,
            replies=2 if settings.guided else 1,
            prefill_tokens=opened * shown,
            tokens=questions * given.review_tokens + opened * guided,
            context=shown + said / 2,
            longest=given.prompt_tokens + drawn + reference + limit * config.num_turns,
            model=settings.proposer,
            disk_bytes=questions * (shown + said) * given.disk_bytes_per_token,
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
        return self._reinforced(settings.config, settings.start)

    def _self_distilled(self, settings: SelfDistillSettings) -> Work:
        """Return the work of RL that is as long as SFT on rows of the same problems."""
        config = settings.config
        rows = self.ready(settings.rows) if settings.rows else self.hard
        steps = steps_of(config, ceil(rows))
        return self._reinforced(config.as_rl(max(steps, 1)), settings.start)

    def _reinforced(self, config: TrainRlConfig, start: Model) -> Work:
        """Return what is sampled and trained on; `rl_sampled_share` foresees a refill."""
        given, shape = self.given, self.shape
        prompts = config.num_iterations * config.prompts_per_iteration * given.rl_sampled_share
        shares = config.mean_shares()
        prompt = sum(share * self._shown(condition) for condition, share in shares.items())
        is_hinted = any(condition.has_hint for condition in shares)
        opening = given.prompt_tokens + (given.hint_tokens if is_hinted else 0.0)
        whole = sum(share for c, share in shares.items() if c.continues is Condition.PROBLEM)
        rest = min(given.rl_tokens, given.continuation_tokens)
        said = whole * given.rl_tokens + (1 - whole) * rest
        checkpoints = config.num_iterations // config.save_every
        rollouts = prompts * config.num_generations
        return Work(
            kind=Kind.RL,
            requests=rollouts,
            prefill_tokens=prompts * prompt,
            tokens=rollouts * said,
            context=prompt + said / 2,
            longest=opening + config.sampling.max_tokens,
            model=start,
            training=config,
            disk_bytes=(1 + config.keep_checkpoints * checkpoints) * shape.parameters * _SAVED_BYTES
            + rollouts * given.rl_tokens * given.disk_bytes_per_token,
            passing_bytes=checkpoints * 3 * shape.trained(config.lora_rank) * _SAVED_BYTES,
        )

    def _likelihood(self, settings: LikelihoodSettings) -> Work:
        """Return the scoring of interventions, rows, references and own rollouts by one model."""
        given, most = self.given, settings.max_items
        rows = min(most, self.ready(settings.rows))
        references = min(most, self.problems[Population.TRAIN])
        own = min(most, self.number(settings.own.rollouts.settings)) if settings.own else 0.0
        made, prompt = settings.rows.settings, given.prompt_tokens
        # Of a step, the row and the step given its prefix; else the row alone.
        is_step = isinstance(made, stages.StepRowSettings) and made.design.source == "intervention"
        steps = rows if is_step else 0.0
        if settings.unseen is not None:
            steps += self.number(settings.unseen)
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


#: What asks a model, by the settings of the step.
_WORK: dict[type, Callable[[Expected, Any], Work]] = {
    stages.SampleSettings: Expected._sample,
    stages.ProposeSettings: Expected._propose,
    TuneSettings: Expected._tune,
    RlSettings: Expected._rl,
    SelfDistillSettings: Expected._self_distilled,
    LikelihoodSettings: Expected._likelihood,
}
#: How many there are: e is what is expected, s the settings of a step or a choice in them.
_NUMBER: dict[type, Callable[[Expected, Any], float]] = {
    Selection: lambda e, s: _within(s.subset, e.hard) * (e.given.hinted_share if s.hinted else 1.0),
    Candidates: Expected._candidates,
    kinds.HardOnes: lambda e, s: _within(
        s.subset, e.number(s.selection) * (e.given.missing_share if s.missing else 1.0)
    ),
    kinds.RowProblems: lambda e, s: e.ready(s.rows),
    kinds.Questions: lambda e, s: (
        e.number(s.among)
        if s.among
        else e.problems.get(s.of or s.population, float(len(s.texts.items)))
    ),
    kinds.HintedQuestions: lambda e, s: e.number(s.hard),
    kinds.Reflections: lambda e, s: e.ready(s.rows),
    kinds.Continuations: lambda e, s: min(e.number(s.candidates), s.limit or inf),
    stages.SampleSettings: Expected._rollouts,
    stages.GradeSettings: lambda e, s: e.number(s.rollouts.settings),
    stages.SelectSettings: lambda e, s: (
        e.number(s.among) if s.among else e.problems[Population.TRAIN]
    ),
    stages.ReferenceSettings: lambda e, s: e.number(s.hard),
    stages.CasesSettings: Expected._cases,
    stages.ProposeSettings: lambda e, s: e.number(s.cases.settings),
    stages.ShiftSettings: lambda e, s: e.number(s.candidates),
    stages.StepRowSettings: lambda e, s: e.number(s.continuations),
    stages.SolutionRowSettings: lambda e, s: e.ready(s.step_rows),
}


def _within(subset: Subset | None, number: float) -> float:
    return min(number, subset.size) if subset else number


def _mean(numbers: Mapping[int, float], value: Callable[[int], float]) -> float:
    """Return the mean of what a number of rollouts comes to, over the shares of the problems."""
    return sum(share * value(number) for number, share in numbers.items())


def _numbers_of_rollouts(recipe: Recipe, given: Assumptions) -> dict[int, float]:
    """Return the share of the training problems by their number of rollouts."""
    sample, config = recipe.sample, recipe.problems
    shares: Mapping[str, float] = given.source_shares
    if sample.num_rollouts_by_source and not shares:
        shares = _source_shares(config.path, config.columns, config.limit, config.part)
    found = {sample.num_rollouts: 1.0}
    for source, number in sample.num_rollouts_by_source.items():
        share = shares.get(source, 0.0)
        found[sample.num_rollouts] -= share
        found[number] = found.get(number, 0.0) + share
    return found


def _count_problems(setup: Setup, given: Assumptions) -> dict[str, float]:
    """Count the problems as far as they can be read; what is given wins.

    Sets that are there whole, as the lab's, need no count.
    """
    recipe, sets, counts = setup.recipe, setup.problems, dict[str, float]()
    config, evaluate = recipe.problems, recipe.evaluate
    if config.kind == "lab":
        train: int | None = len(sets.train)
        counts[HELD_OUT_SET] = len(sets.evaluation[HELD_OUT_SET])
    else:
        train = _count(config.path, config.columns, config.limit, config.part)
        places = {name: (of.path, of.columns, of.limit) for name, of in evaluate.benchmarks.items()}
        if config.held_out_path:
            columns, limit = config.columns_of_held_out, config.held_out_limit
            places[HELD_OUT_SET] = (config.held_out_path, columns, limit)
        counts |= {name: _count(*place) or _EVALUATED for name, place in places.items()}
    if given.num_held_out is not None:
        counts[HELD_OUT_SET] = given.num_held_out
    for name, number in counts.items():
        counts[name] = min(number, evaluate.subset_of(name) or number)
    if train := given.num_problems or train:
        return {Population.TRAIN: train, **counts}
    raise ConfigError(
        f"plan: no problems at {config.path!r} and no problems.limit: say how many there will "
        "be, e.g. --assume num_problems=50000"
    )


_WHOLE: Part = (0.0, 1.0)


def _count(
    path: str, columns: Mapping[str, str], limit: int | None, part: Part = _WHOLE
) -> int | None:
    """Return how many problems of a file are in a part, at most `limit`; broken ones count.

    Without a file return `limit`: the hub is not asked and tasks are not generated.
    """
    sources = _sources(path, columns, part)
    return limit if sources is None else min(sources.total(), limit or sources.total())


def _source_shares(
    path: str, columns: Mapping[str, str], limit: int | None, part: Part
) -> dict[str, float]:
    """Return the share of each source among the problems; nothing without a file.

    A limit is taken to leave the mix as it is.
    """
    sources = _sources(path, columns, part) or Counter()
    return {source: number / sources.total() for source, number in sources.items()}


def _sources(path: str, columns: Mapping[str, str], part: Part) -> Counter[str] | None:
    """Count the problems of a file by source, broken ones under none; None without a file."""
    try:
        if is_generated(path) or is_hub(find_source(path)[1]):
            return None
        problems = (row.problem for row in read_problems(path, columns=columns))
        return Counter(
            p.source if p else ""
            for p in problems
            if p is None or part[0] <= place(p.text) < part[1]
        )
    except DataError:
        return None
