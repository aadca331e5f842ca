"""The credit map, whole: which stages it takes, of a run or of marked solutions, and its files.

All of it is made in a run directory and kept there: kill it and run it again. The base writes what
is scored in a run; of marked solutions the model at hand scores what others wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from midcourse.config import Recipe
from midcourse.credit.attempts import Attempts, MarkedAttempts, RunAttempts, first_of_each
from midcourse.credit.figures import attempt_panels, summary_panel
from midcourse.credit.measures import (
    CreditSettings,
    LabMarks,
    Measure,
    PlainMarks,
    Question,
    StepLikelihood,
    StepMarks,
    StepNumbers,
    StepScores,
    credit,
)
from midcourse.credit.scores import FOUND_DROP, FOUND_ERROR, score_tables, scores_by_target
from midcourse.credit.signals import Mapped, Named, mapped
from midcourse.credit.values import StepPrefixes, values_of
from midcourse.errors import ConfigError, DataError
from midcourse.localize.ask import Cases
from midcourse.localize.cases import ErrorCase
from midcourse.localize.run import locator
from midcourse.pipeline import Graded, Method, Session
from midcourse.pipeline.interventions import asked_about, proposals_for
from midcourse.pipeline.session import Tools
from midcourse.pipeline.sources import GOLD, WHOLE
from midcourse.pipeline.stages import SampleSettings, draw
from midcourse.pipeline.values import Model, Problems, view
from midcourse.prompts import Prompt, PromptSet, load_prompt_set
from midcourse.records import Proposal
from midcourse.report.plots import csv_text
from midcourse.report.svg import draw_panels
from midcourse.run import Run, Stage, code_revision, package_versions
from midcourse.store.files import write_durably, write_json_atomic
from midcourse.table import Table
from midcourse.tokens import read_tokens

_DRAWINGS = {FOUND_ERROR: "credit-first-error", FOUND_DROP: "credit-value-drop"}
_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditStages:
    """What a credit map is made of."""

    attempts: Attempts
    scores: tuple[Stage[StepScores, Any], ...]
    """One a measure."""
    values: Graded | None
    """None where `credit.measures` leaves them out."""
    proposals: Stage[Proposal, Any] | None = None

    def steps(self) -> list[Stage[Any, Any]]:
        """Return the stages in the order in which they are completed: what samples nothing first.

        So an interrupted map holds the cheap signals.
        """
        steps: list[Stage[Any, Any]] = [*self.scores]
        if self.proposals:
            steps.append(self.proposals)
        return steps + ([self.values.rollouts, self.values.grades] if self.values else [])


def questions(prompts: PromptSet, wanted: Sequence[str]) -> tuple[Question, ...]:
    """Return what is asked about the steps: the measures that are wanted and have a prompt."""
    makers: dict[Measure, tuple[str, Callable[[Measure, Prompt], Question]]] = {
        Measure.POLICY: ("solve", _likelihood),
        Measure.PRIVILEGED: ("guided_solve", _likelihood),
        Measure.NUMBERS: ("localize_no_reference", _numbers),
        Measure.NUMBERS_REFERENCE: ("localize", _numbers),
        Measure.MARKS: ("mark_no_reference", _marks),
        Measure.MARKS_REFERENCE: ("mark", _marks),
    }
    return tuple(
        make(measure, prompts[purpose])
        for measure, (purpose, make) in makers.items()
        if measure in wanted and purpose in prompts
    )


def _likelihood(measure: Measure, prompt: Prompt) -> Question:
    return StepLikelihood(measure=measure, prompt=prompt)


def _numbers(measure: Measure, prompt: Prompt) -> Question:
    return StepNumbers(measure=measure, prompt=prompt)


def _marks(measure: Measure, prompt: Prompt) -> Question:
    marking = LabMarks() if prompt.name.startswith("lab/") else PlainMarks()
    return StepMarks(measure=measure, prompt=prompt, marking=marking)


def _composed(
    recipe: Recipe, prompts: PromptSet, model: Model, attempts: Attempts, problems: Problems
) -> CreditStages:
    """Return the stages for attempts at `problems`, which hold the golds."""
    asked = questions(prompts, recipe.credit.measures)
    scores = tuple(
        credit(CreditSettings(attempts=attempts, model=model, question=question), question.measure)
        for question in asked
    )
    values = None
    if "values" in recipe.credit.measures:
        sampled = SampleSettings(
            model=model,
            contexts=StepPrefixes(attempts=attempts, prompt=prompts["solve"]),
            num_rollouts=recipe.credit.num_continuations,
            sampling=recipe.sample.sampling,
            stream="credit",
            seed=recipe.seed,
            budget=attempts.budget,
        )
        drawn = draw(sampled, problems)
        assert isinstance(drawn, Graded)
        values = drawn
    return CreditStages(attempts=attempts, scores=scores, values=values)


def stages_of_run(made: Method) -> CreditStages:
    """Return what maps the base's wrong rollouts of training problems that have a reference.

    Raises DataError if none has.
    """
    s, recipe = made.interventions.sources, made.setup.recipe
    if recipe.environment.name:
        raise ConfigError(
            "credit: the rollouts are dialogues (environment.name), which cannot be mapped: give a "
            "run without an environment"
        )
    given = [p for p in s.problems(*WHOLE, "source").items if p.reference_solution]
    if not given:
        raise DataError("credit: no training problem has a reference: give them reference_solution")
    chosen = first_of_each(given, lambda p: p.source, recipe.credit.limit_per_source)
    among = Problems(tuple(chosen))
    cases = asked_about(s, made.train, among, recipe.credit.num_rollouts, "credit")
    attempts = RunAttempts(
        cases=cases,
        problems=among,
        world=recipe.problems if recipe.problems.kind == "lab" else None,
        seed=recipe.seed,
        steps=s.setup.steps,
    )
    gold = view(chosen, *GOLD)
    composed = _composed(recipe, s.setup.prompts, s.setup.base, attempts, gold)
    return CreditStages(
        attempts=attempts,
        scores=composed.scores,
        values=composed.values,
        proposals=proposals_for(s, cases, view(chosen, *WHOLE), "credit"),
    )


def stages_of_cases(recipe: Recipe, model: Model, cases: Sequence[ErrorCase]) -> CreditStages:
    """Return what maps solutions with a human mark, scored and continued by `model`."""
    limit = recipe.credit.limit_per_source
    attempts = MarkedAttempts(cases=Cases(tuple(cases)), limit_per_source=limit)
    checker = recipe.problems.checker
    problems = {
        a.problem.problem_id: replace(a.problem, checker=checker) for a in attempts.of_files()
    }
    if not problems:
        raise DataError("credit: no solution of two steps or more has a marked error")
    gold = view(problems.values(), *GOLD)
    return _composed(recipe, load_prompt_set(recipe.prompts), model, attempts, gold)


# --- completing --------------------------------------------------------------------------------


def map_run(session: Session, made: Method) -> list[Mapped]:
    """Complete the credit map of a run and return it. Raises MidcourseError."""
    stages = stages_of_run(made)
    session.check(stages.steps())
    for step in stages.steps():
        session.complete(step)
    return _read(session.run, stages)


def map_cases(run: Run, cases: Sequence[ErrorCase]) -> list[Mapped]:
    """Complete the credit map of marked solutions and return it. Raises MidcourseError."""
    model = locator(run.recipe)
    stages = stages_of_cases(run.recipe, model, cases)
    with closing(Tools(run, model, run.recipe.grade)) as tools:
        run.announce(stages.steps())
        for step in stages.steps():
            run.complete(step, tools)
    return _read(run, stages)


def _read(run: Run, stages: CreditStages) -> list[Mapped]:
    attempts, values = stages.attempts.read(run), {}
    if stages.values:
        rollouts = run.read(stages.values.rollouts, ("token_ids",))
        values = values_of(attempts, rollouts, run.read(stages.values.grades))
    named = _named(run, stages.proposals) if stages.proposals else {}
    scores = [score for stage in stages.scores for score in run.read(stage)]
    return mapped(attempts, scores, values, named)


def _named(run: Run, proposals: Stage[Proposal, Any]) -> dict[str, Named]:
    """Return what the first proposal of each rollout names, by rollout id.

    It is priced at the mean of a request, as a manifest counts them.
    """
    counts = read_tokens(run.artifact(proposals).manifest.get("tokens", {})).values()
    requests = sum(count.requests for count in counts)
    total = sum(count.tokens_in + count.tokens_out for count in counts)
    tokens = round(total / requests) if requests else 0
    made = run.read(proposals, ("turns",))
    ordered = sorted(made, key=lambda p: (p.index, p.item), reverse=True)
    return {p.rollout_id: Named(p.error_step, tokens) for p in ordered}


# --- files -------------------------------------------------------------------------------------


def write_map(found: Sequence[Mapped], run: Run, out: Path) -> list[Table]:
    """Write ``credit.md``, ``.json``, ``.csv`` and the drawings to `out`; return the tables."""
    out.mkdir(parents=True, exist_ok=True)
    by_target = scores_by_target(found)
    tables = score_tables(found, by_target)
    drawings = {_DRAWINGS[title]: [summary_panel(title, s)] for title, s in by_target.items()}
    for name, panels in {**drawings, "credit-attempts": attempt_panels(found)}.items():
        write_durably(out / f"{name}.svg", draw_panels(panels, "Credit map").encode())
    lines = [line for table in tables for line in _section(table)]
    write_durably(out / "credit.md", "\n".join(lines).encode())
    write_durably(out / "credit.csv", csv_text(*_rows(found)).encode())
    state = {"recipe": run.recipe.name, "seed": run.recipe.seed, "code": code_revision()}
    document = {
        **state,
        "versions": package_versions(),
        "tables": [asdict(table) for table in tables],
        "attempts": [_document(one) for one in found],
    }
    write_json_atomic(out / "credit.json", document)
    return tables


def _section(table: Table) -> list[str]:
    return [
        f"## {table.title}",
        "",
        *table.markdown(),
        "",
        *([table.note, ""] if table.note else []),
    ]


def _document(one: Mapped) -> dict[str, object]:
    """Return an attempt as JSON: one number a step in every list."""
    values = one.values
    return {
        "attempt_id": one.attempt.attempt_id,
        "problem_id": one.attempt.problem.problem_id,
        "source": one.attempt.problem.source,
        "num_steps": len(one.attempt.steps),
        "error_step": one.attempt.error_step,
        "drop_steps": one.drop_steps,
        "num_continuations": [len(found) for found in values.outcomes] if values else None,
        "num_correct": [sum(found) for found in values.outcomes] if values else None,
        "num_unanswered": values.num_unanswered if values else None,
        "signals": {name: [round(x, _DIGITS) for x in c] for name, c in one.curves.items()},
        "tokens": dict(one.costs),
    }


def _rows(found: Sequence[Mapped]) -> tuple[list[str], list[list[float | str]]]:
    """Return columns and one row a step; names and signs of values as in ``export credit``."""
    names = list(dict.fromkeys(name for one in found for name in one.curves))
    columns = ["attempt_id", "problem_id", "source", "step", "is_first_error", "value_before",
               "value_after", "num_before", *names]  # fmt: skip
    return columns, [
        _row(one, step, names) for one in found for step in range(len(one.attempt.steps))
    ]


def _row(one: Mapped, step: int, names: Sequence[str]) -> list[float | str]:
    attempt, values = one.attempt, one.values
    known = attempt.error_step is not None
    measured: list[float | str] = ["", "", ""]
    if values:
        measured = [
            round(values.before[step], _DIGITS),
            round(values.after[step], _DIGITS),
            len(values.outcomes[step]),
        ]
    signals = [round(one.curves[n][step], _DIGITS) if n in one.curves else "" for n in names]
    named = int(attempt.error_step == step) if known else ""
    ids = [attempt.attempt_id, attempt.problem.problem_id, attempt.problem.source]
    return [*ids, step, named, *measured, *signals]
