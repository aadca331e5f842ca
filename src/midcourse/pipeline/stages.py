"""The stages of records, as values: what each is called, may see, and makes.

Each builder returns a `Stage`. Its settings hold what decides the result and nothing else; the
function next to them turns settings and inputs into keyed records, with the pure functions of
`midcourse.stages`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, Literal, TypeVar

from midcourse.checkers import checker_named
from midcourse.config import (
    BuildSftConfig,
    ProblemsConfig,
    ProposeConfig,
    SamplingConfig,
    speaks_messages,
)
from midcourse.data.problems import require_references
from midcourse.engines.base import Engine
from midcourse.environments import environment_named
from midcourse.pipeline.contexts import Contexts, Continuations, ready_rows
from midcourse.pipeline.values import (
    Candidates,
    Dialogues,
    Drawn,
    Graded,
    Model,
    PerSource,
    Problems,
    Searched,
    Selection,
)
from midcourse.prompts import Prompt
from midcourse.records import (
    Grade,
    Problem,
    ProblemStatus,
    Proposal,
    Reference,
    Rollout,
    SftRow,
    Verdict,
)
from midcourse.rendering import Renderer
from midcourse.run import Keyed, Reader, Stage, Work, stage
from midcourse.stages.build_sft import RowDesign, Verification, build_sft
from midcourse.stages.grade import grade as grade_rollouts
from midcourse.stages.oracle import REFERENCE, Told, from_reference, oracle_proposals
from midcourse.stages.propose import (
    Case,
    Proposer,
    begins_with_solution,
    shuffled_references,
)
from midcourse.stages.propose import propose as ask_proposer
from midcourse.stages.reference import references as settle_references
from midcourse.stages.sample import Budget, SampleSpec, duplicate_share
from midcourse.stages.sample import sample as sample_contexts
from midcourse.stages.search import context_key
from midcourse.stages.search import search as search_contexts
from midcourse.stages.select import is_incorrect, summarize
from midcourse.stages.select import remarks as hard_set_remarks
from midcourse.stages.select import select as settle_statuses
from midcourse.stages.shift import shifted
from midcourse.stages.solution_rows import solution_rows as make_solution_rows
from midcourse.stages.solutions import Solution, reference_solution, solutions_by
from midcourse.steps import BLANK_LINES, StepRule
from midcourse.store.stage import Keys
from midcourse.tokens import Asked, TokenCount

R = TypeVar("R")
S = TypeVar("S")

TOKENS = ("token_ids",)
"""What most readers of rollouts do not need: most of the bytes."""


def keyed(
    records: Iterable[R], key: Callable[[R], str], done: Container[str]
) -> Iterator[Keyed[R]]:
    """Yield each record that is not done, under its key."""
    for record in records:
        if key(record) not in done:
            yield key(record), [record]


# --- sample and grade --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """A search: the sizes of its rounds, and what tells it that a rollout is correct."""

    sizes: tuple[int, ...]
    problems: Problems
    graders: Mapping[str, str]


def rounds_of(sizes: tuple[int, ...], problems: Problems) -> Rounds | None:
    """Return the search in rounds of these sizes; none where all is drawn."""
    return Rounds(sizes=sizes, problems=problems, graders=graders_of(problems)) if sizes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """What decides rollouts."""

    model: Model
    contexts: Contexts
    num_rollouts: int
    sampling: SamplingConfig
    stream: str
    """Names the stream of seeds: no two samplings of a run share one."""
    seed: int
    budget: Budget = "total"
    first_index: int = 0
    """Index of the first rollout: a later draw from the same contexts goes on counting."""
    rounds: Rounds | None = None
    per_source: PerSource | None = None
    """Of all training problems, where some have another number."""
    dialogues: Dialogues | None = None
    """Where an environment answers the model's turns."""


def _num_rollouts(settings: SampleSettings, reader: Reader) -> int | None:
    if settings.rounds:
        return None
    others = _by_problem(settings.per_source)
    usual = settings.contexts.count(reader) - len(others)
    return usual * settings.num_rollouts + sum(others.values())


def _by_problem(per_source: PerSource | None) -> Mapping[str, int]:
    return per_source.by_problem() if per_source else {}


def _engine(settings: SampleSettings, tools: Any) -> Engine:
    """Return what samples: the model's engine, in dialogue with an environment if there is one."""
    engine: Engine = tools.engine(settings.model)
    if settings.dialogues is None:
        return engine
    renderer: Renderer = tools.renderer(settings.model)
    return settings.dialogues.talk.through(engine, renderer)


def _check_sampled(settings: SampleSettings, tools: Any) -> None:
    """Raise ConfigError if the chat template is not as the settings need it."""
    _check_template(settings.model, tools)
    if settings.dialogues is not None:
        role = environment_named(settings.dialogues.environment).role
        tools.renderer(settings.model).check_turn_of(role)


def _is_correct(rounds: Rounds, work: Work[Rollout], rollout: Rollout) -> bool:
    (graded,) = grade_rollouts([rollout], rounds.problems.by_id, work.tools.grader, ())
    return graded.verdict is Verdict.CORRECT


def _duplicates(settings: SampleSettings, rollouts: Iterator[Rollout]) -> Mapping[str, object]:
    found = duplicate_share(rollouts)
    return {
        "duplicates": {"num_contexts": found.num_contexts, "num_identical": found.num_identical}
    }


def _duplicate_alarm(limit: float, manifest: Mapping[str, Any]) -> str:
    """Say that an engine ignores seeds, where too many contexts got one and the same text."""
    total, identical = (manifest["duplicates"][n] for n in ("num_contexts", "num_identical"))
    if not total or identical <= limit * total:
        return ""
    return (
        f"{identical} of {total} problems got one and the same text for every sample (limit "
        f"{limit:.0%}): the engine ignores seeds, and pass@k = 0 would be an illusion; raise "
        "sample.max_duplicate_share if this is meant"
    )


def _usage(rollout: Rollout) -> TokenCount | None:
    """Return the tokens of a rollout; none where its engine took messages and gave texts."""
    if not rollout.finish_reason.has_reply:
        return TokenCount()
    if not rollout.prompt_tokens:
        return None
    return TokenCount(1, rollout.prompt_tokens, rollout.num_tokens)


def _duplicate_remarks(limit: float, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield that many problems got one text for all samples, below the alarm's limit."""
    total, identical = (manifest["duplicates"][n] for n in ("num_contexts", "num_identical"))
    if limit < 1 and total and total / 2 <= identical <= limit * total:
        yield (
            f"{identical} of {total} problems got one and the same text for every sample: a low "
            "temperature, or an engine that ignores seeds, makes a hard set of few samples"
        )


@stage(
    "sample",
    Rollout,
    outcome=attrgetter("finish_reason"),
    total=_num_rollouts,
    summary=_duplicates,
    check=lambda settings, tools: _check_sampled(settings, tools),
    asked=Asked.POLICY,
    usage=_usage,
)
def sample(settings: SampleSettings, work: Work[Rollout]) -> Iterator[Keyed[Rollout]]:
    """*sample*: rollouts of every context; with rounds, until the first correct one."""
    model, rounds = settings.model, settings.rounds
    spec = SampleSpec(
        num_rollouts=settings.num_rollouts, sampling=settings.sampling.record(), model=model.name,
        budget=settings.budget, run_seed=settings.seed, stage=settings.stream,
        first_index=settings.first_index, by_problem=_by_problem(settings.per_source),
    )  # fmt: skip
    engine = _engine(settings, work.tools)
    contexts = settings.contexts.make(model, work.reader, work.tools)
    if rounds is None:
        rollouts = sample_contexts(contexts, spec, engine, work.done, work.failures)
    else:
        is_correct = partial(_is_correct, rounds, work)
        solved = {context_key(rollout) for rollout in work.kept() if is_correct(rollout)}
        rollouts = search_contexts(
            contexts, spec, rounds.sizes, engine, is_correct, solved, work.done, work.failures
        )
    for rollout in rollouts:
        yield rollout.rollout_id, [rollout]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeSettings:
    """What decides verdicts."""

    rollouts: Stage[Rollout, Any]
    problems: Problems
    """With their golds."""
    graders: Mapping[str, str]
    """Version of each checker that they name."""


def graders_of(problems: Problems) -> dict[str, str]:
    """Return the version of every checker that problems name."""
    return {name: checker_named(name).version for name in {p.checker for p in problems.items}}


@stage(
    "grade",
    Grade,
    outcome=attrgetter("verdict"),
    total=lambda settings, reader: reader.num_records(settings.rollouts),
    check=lambda settings, tools: tools.check_programs(settings.problems.items),
)
def grade(settings: GradeSettings, work: Work[Grade]) -> Iterator[Keyed[Grade]]:
    """*grade*: one verdict per rollout."""
    rollouts = work.reader.read(settings.rollouts, TOKENS)
    grades = grade_rollouts(rollouts, settings.problems.by_id, work.tools.grader, work.done)
    for graded in grades:
        yield graded.rollout_id, [graded]


def draw(
    settings: SampleSettings,
    problems: Problems,
    max_duplicate_share: float = 1.0,
    asked: Asked = Asked.POLICY,
) -> Drawn:
    """Sample and grade; `problems` hold the golds, tokens are counted as those of `asked`."""
    alarm = partial(_duplicate_alarm, max_duplicate_share)
    remarks = partial(_duplicate_remarks, max_duplicate_share)
    rollouts = sample(settings, settings.stream)
    rollouts = replace(rollouts, alarm=alarm, remarks=remarks, asked=asked)
    to_grade = GradeSettings(rollouts=rollouts, problems=problems, graders=graders_of(problems))
    grades = grade(to_grade, rollouts.label)
    return Searched(rollouts, grades) if settings.rounds else Graded(rollouts, grades)


# --- who is hard, with which reference ---------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectSettings:
    """What decides which problems are hard."""

    grades: Stage[Grade, Any]
    problems: Problems
    num_rollouts: int
    truncated_is_incorrect: bool
    among: Selection | None = None
    """Where only hard problems were drawn once more."""
    per_source: PerSource | None = None
    """Where some problems have another number of rollouts."""


def _made_of(settings: SelectSettings, statuses: Iterator[ProblemStatus]) -> Mapping[str, object]:
    sampled: SampleSettings = settings.grades.settings.rollouts.settings
    return {"summary": summarize(statuses) | {"max_tokens": sampled.sampling.max_tokens}}


def _selected(settings: SelectSettings, reader: Reader) -> Sequence[Problem]:
    return settings.among.read(reader) if settings.among else settings.problems.items


@stage(
    "select",
    ProblemStatus,
    outcome=attrgetter("status"),
    total=lambda settings, reader: len(_selected(settings, reader)),
    summary=_made_of,
    remarks=lambda manifest: hard_set_remarks(manifest["summary"]),
)
def select(settings: SelectSettings, work: Work[ProblemStatus]) -> Iterator[Keyed[ProblemStatus]]:
    """*select*: which problems have pass@k = 0."""
    statuses = settle_statuses(
        _selected(settings, work.reader),
        work.reader.read(settings.grades),
        num_rollouts=settings.num_rollouts,
        by_problem=_by_problem(settings.per_source),
        truncated_is_incorrect=settings.truncated_is_incorrect,
    )
    return keyed(statuses, lambda status: status.problem_id, work.done)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSettings:
    """What decides where references come from."""

    hard: Selection
    """With references."""
    write: Literal["none", "missing", "all"]
    attempts: Drawn | None = None


@stage("reference", Reference, total=lambda settings, reader: len(settings.hard.read(reader)))
def reference(settings: ReferenceSettings, work: Work[Reference]) -> Iterator[Keyed[Reference]]:
    """*reference*: where each hard problem's reference comes from; missing ones are written."""
    problems, attempts = settings.hard.read(work.reader), settings.attempts
    missing = [problem for problem in problems if not problem.reference_solution]
    asked = {"none": [], "missing": missing, "all": problems}[settings.write]
    rollouts = work.reader.read(attempts.rollouts, TOKENS) if attempts else ()
    grades = work.reader.read(attempts.grades) if attempts else ()
    found = settle_references(problems, asked, rollouts, grades)
    return keyed(found, lambda reference: reference.problem_id, work.done)


# --- interventions -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CasesSettings:
    """What decides which rollouts are asked about."""

    drawn: Drawn
    among: Selection | Problems
    """The problems whose rollouts may be asked about."""
    num_rollouts: int
    """At most so many of each problem, the first ones by index."""
    truncated_is_incorrect: bool


@stage("cases", Rollout, outcome=attrgetter("finish_reason"))
def cases(settings: CasesSettings, work: Work[Rollout]) -> Iterator[Keyed[Rollout]]:
    """*cases*: the incorrect rollouts that the proposer is asked about."""
    reader, among = work.reader, settings.among
    problems = among.items if isinstance(among, Problems) else among.read(reader)
    wanted = {problem.problem_id for problem in problems}
    incorrect = Keys(
        graded.rollout_id
        for graded in reader.read(settings.drawn.grades)
        if graded.problem_id in wanted and is_incorrect(graded, settings.truncated_is_incorrect)
    )
    found: dict[str, list[tuple[int, str]]] = {}
    for rollout in reader.read(settings.drawn.rollouts, TOKENS):
        if rollout.problem_id in wanted and rollout.rollout_id in incorrect:
            found.setdefault(rollout.problem_id, []).append((rollout.index, rollout.rollout_id))
    chosen = {
        rollout_id
        for rollouts in found.values()
        for _, rollout_id in sorted(rollouts)[: settings.num_rollouts]
    }
    asked = (r for r in reader.read(settings.drawn.rollouts) if r.rollout_id in chosen)
    return keyed(asked, lambda rollout: rollout.rollout_id, work.done)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeSettings:
    """What decides proposals."""

    cases: Stage[Rollout, Any]
    problems: Selection | Problems
    """With texts, golds and references."""
    config: ProposeConfig
    review: Prompt
    guided: Prompt | None
    proposer: Model
    policy: Model
    """Interventions are measured in its tokens."""
    graders: Mapping[str, str]
    seed: int
    world: ProblemsConfig | None = None
    """Where the problems come from, if that tells the first error: the lab's world, or worked
    references."""
    steps: StepRule = BLANK_LINES
    grades: Stage[Grade, Any] | None = None
    """Of the cases, where the prompt shows the test that an attempt failed."""


def _check_proposer(settings: ProposeSettings, tools: Any) -> None:
    """Raise MidcourseError if a reference is missing, or the template of a second turn."""
    _check_references(settings)
    proposer = settings.proposer
    if settings.world is None:
        _check_template(proposer, tools)
        if settings.guided and not speaks_messages(proposer.engine):
            tools.renderer(proposer).check_second_turn()


def _check_references(settings: ProposeSettings) -> None:
    """Raise DataError if a problem lacks the reference that is to be shown."""
    among = settings.problems
    is_written = isinstance(among, Selection) and among.references is not None
    is_lab = settings.world is not None and settings.world.kind == "lab"
    if settings.config.reference != "none" and not is_lab and not is_written:
        require_references(among.items if isinstance(among, Problems) else among.problems.items)


def _check_template(model: Model, tools: Any) -> None:
    """Raise ConfigError if a chat template cannot be read, or does not read what it is told."""
    source = model.source
    if (source.template_arguments or source.chat_template) and not speaks_messages(model.engine):
        tools.renderer(model)


def _guided_solutions(
    settings: ProposeSettings, proposals: Iterator[Proposal]
) -> Mapping[str, object]:
    own = (p for p in proposals if begins_with_solution(p, settings.config))
    verdicts = Counter(str(proposal.guided_verdict) for proposal in own)
    return {"guided_solutions": dict(sorted(verdicts.items()))} if verdicts else {}


@stage(
    "propose",
    Proposal,
    total=lambda settings, reader: reader.num_records(settings.cases),
    summary=_guided_solutions,
    check=_check_proposer,
    asked=Asked.PROPOSER,
)
def propose(settings: ProposeSettings, work: Work[Proposal]) -> Iterator[Keyed[Proposal]]:
    """*propose*: the first error and a one-step intervention for every case."""
    _check_references(settings)
    made = _shown_cases(settings, work.reader)
    if settings.world is not None:
        tell, name = _oracle(settings.world, settings.seed, settings.steps)
        terminator = settings.config.terminator
        return oracle_proposals(made, tell, name, terminator, work.done, settings.steps)
    tools = work.tools
    proposer = Proposer(
        engine=tools.engine(settings.proposer),
        renderer=tools.renderer_for(settings.proposer) or tools.renderer(settings.policy),
        policy=tools.renderer(settings.policy),
        review=settings.review,
        guided=settings.guided,
        grader=tools.grader,
        config=settings.config,
        name=settings.proposer.name,
        run_seed=settings.seed,
        steps=settings.steps,
    )
    return ask_proposer(made, proposer, work.done, work.failures)


def _oracle(
    world: ProblemsConfig, seed: int, steps: StepRule
) -> tuple[Callable[[Case], Told], str]:
    """Return what knows the first error of a rollout, and its name."""
    if world.kind != "lab":
        return lambda case: from_reference(case, steps), REFERENCE
    from midcourse.lab.problems import lab_problems
    from midcourse.lab.truth import NAME, world_step

    stories = lab_problems(world, seed).stories
    return lambda case: world_step(case, stories[case.problem.problem_id], steps), NAME


def _shown_cases(settings: ProposeSettings, reader: Reader) -> Iterator[Case]:
    """Yield the cases with their problems and the references that are shown."""
    among = settings.problems
    problems = among.items if isinstance(among, Problems) else among.read(reader)
    by_id = {problem.problem_id: problem for problem in problems}
    shown = shown_references(problems, settings.config)
    details = failure_details(settings.grades, reader)
    for rollout in reader.read(settings.cases):
        problem, detail = by_id[rollout.problem_id], details.get(rollout.rollout_id, "")
        yield Case(problem, rollout, shown[rollout.problem_id], detail)


def failure_details(grades: Stage[Grade, Any] | None, reader: Reader) -> dict[str, str]:
    """Return `Grade.detail` by rollout id, where a prompt shows the test that was failed."""
    found = reader.read(grades) if grades else ()
    return {graded.rollout_id: graded.detail for graded in found if graded.detail}


def shown_references(problems: Sequence[Problem], config: ProposeConfig) -> dict[str, str]:
    """Return the reference that is shown with each problem, by problem id; empty for none."""
    if config.reference == "shuffled":
        return shuffled_references(list(problems))
    is_given = config.reference == "given"
    return {p.problem_id: (p.reference_solution or "") if is_given else "" for p in problems}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftSettings:
    """What decides shifted proposals."""

    candidates: Candidates
    cases: Stage[Rollout, Any]
    shift: int
    terminator: str
    """What interventions end in."""
    steps: StepRule = BLANK_LINES


@stage("shift", Proposal, total=lambda settings, reader: len(settings.candidates.read(reader)))
def shift(settings: ShiftSettings, work: Work[Proposal]) -> Iterator[Keyed[Proposal]]:
    """*shift*: the candidates at another place; their content stays."""
    cases = work.reader.read(settings.cases, TOKENS)
    attempts = {rollout.rollout_id: settings.steps.of(rollout) for rollout in cases}
    candidates = settings.candidates.read(work.reader)
    how = (settings.shift, settings.terminator, settings.steps)
    moved = shifted(candidates, attempts, *how)
    return keyed(moved, lambda proposal: proposal.proposal_id, work.done)


# --- rows --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRowSettings:
    """What decides rows of single steps."""

    design: RowDesign
    continuations: Continuations
    """The contexts that the rows are made of."""
    verified: Drawn
    """The continuations of the interventions."""
    policy: Model
    seed: int


@stage("build-sft", SftRow, total=lambda settings, reader: settings.continuations.count(reader))
def step_rows(settings: StepRowSettings, work: Work[SftRow]) -> Iterator[Keyed[SftRow]]:
    """*build-sft*: prefix + intervention as ids and labels."""
    reader, continuations = work.reader, settings.continuations
    renderer = work.tools.renderer(settings.policy)
    rows = build_sft(
        continuations.proposals(reader),
        continuations.contexts(reader, renderer),
        verifications(reader, settings.verified, with_suffix=settings.design.suffix),
        settings.design,
        settings.seed,
    )
    return keyed(rows, lambda row: row.row_id, work.done)


def verifications(reader: Reader, verified: Drawn, *, with_suffix: bool) -> dict[str, Verification]:
    """Sum up the continuations of each proposal, by proposal id."""
    tallies: dict[str, Counter[Verdict]] = {}
    correct: dict[str, str] = {}
    for graded in reader.read(verified.grades):
        tallies.setdefault(str(graded.parent_id), Counter())[graded.verdict] += 1
        if graded.verdict is Verdict.CORRECT:
            correct.setdefault(str(graded.parent_id), graded.rollout_id)
    shas: dict[str, str] = {}
    suffixes: dict[str, Rollout] = {}
    for rollout in reader.read(verified.rollouts, () if with_suffix else TOKENS):
        parent_id = str(rollout.parent_id)
        shas[parent_id] = rollout.prompt_sha
        if with_suffix and correct.get(parent_id) == rollout.rollout_id:
            suffixes[parent_id] = rollout
    return {
        proposal_id: Verification(
            prompt_sha=shas[proposal_id],
            num_correct=tally[Verdict.CORRECT],
            num_graded=tally.total() - tally[Verdict.UNGRADED],
            num_ungraded=tally[Verdict.UNGRADED],
            correct_rollout=suffixes.get(proposal_id),
        )
        for proposal_id, tally in tallies.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionRowSettings:
    """What decides rows of whole solutions: a baseline's."""

    config: BuildSftConfig
    step_rows: Stage[SftRow, Any]
    """InT's rows, which these stand in for."""
    hard: Selection
    """With golds and references."""
    solutions: Drawn | None
    """Rewrites or a teacher's rollouts; references need none."""
    policy: Model
    seed: int


@stage(
    "build-sft",
    SftRow,
    total=lambda settings, reader: len(ready_rows(reader, settings.step_rows)),
)
def solution_rows(settings: SolutionRowSettings, work: Work[SftRow]) -> Iterator[Keyed[SftRow]]:
    """*build-sft* of a baseline: one whole solution for each of InT's rows."""
    wanted = ready_rows(work.reader, settings.step_rows)
    renderer = work.tools.renderer(settings.policy)
    rows = make_solution_rows(
        wanted, _solutions(settings, work.reader), settings.config, renderer, settings.seed
    )
    return keyed(rows, lambda row: row.row_id, work.done)


def _solutions(settings: SolutionRowSettings, reader: Reader) -> dict[str, list[Solution]]:
    """Return what there is to train on, by proposal id for rewrites, else by problem id."""
    drawn = settings.solutions
    if drawn is None:
        found = {p.problem_id: reference_solution(p) for p in settings.hard.read(reader)}
        return {name: [solution] for name, solution in found.items() if solution}
    is_rewrite = settings.config.source == "self_reflection"
    return solutions_by(
        lambda rollout: str(rollout.parent_id) if is_rewrite else rollout.problem_id,
        reader.read(drawn.rollouts, TOKENS),
        reader.read(drawn.grades),
        settings.config.trace,
    )
