"""The first-error benchmark, whole: which questions are asked of which engine, and the tables.

A recipe's proposer is who is asked, where the recipe names one; any engine will do, servers of
chat messages included. Every answer is kept in the run directory as it arrives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from midcourse.config import Recipe, served_by
from midcourse.engines import check_model, engine_identity, told_templates
from midcourse.errors import DataError
from midcourse.localize.ask import Cases, Localization, LocalizeSettings, localization
from midcourse.localize.cases import ErrorCase, load_error_cases
from midcourse.localize.scores import baselines, first_error_tables, score
from midcourse.pipeline.session import Tools, identify_model
from midcourse.pipeline.values import Model
from midcourse.prompts import load_prompt_set
from midcourse.records import content_id
from midcourse.run import Run, Stage
from midcourse.steps import BLANK_LINES, StepRule
from midcourse.store.files import write_json_atomic
from midcourse.table import Table

#: How a question is called, the setting that asks for it, and its prompt.
_WAYS = (
    ("with reference", "given", "localize"),
    ("without reference", "none", "localize_no_reference"),
)


def load_cases(
    paths: Sequence[str], limit_per_source: int | None, rule: StepRule = BLANK_LINES
) -> list[ErrorCase]:
    """Read the cases of all files, only the first so many of each source if there is a limit.

    `rule` is as for `load_error_cases`.
    """
    kept: dict[tuple[str, str], ErrorCase] = {}
    seen: Counter[str] = Counter()
    for case in (case for path in paths for case in load_error_cases(path, rule)):
        if kept.setdefault((case.source, case.case_id), case) is not case:
            raise DataError(f"{case.source} {case.case_id} is in two of the files: give it once")
    limited = []
    for case in kept.values():
        seen[case.source] += 1
        if limit_per_source is None or seen[case.source] <= limit_per_source:
            limited.append(case)
    return limited


def run_localization(run: Run, cases: Sequence[ErrorCase]) -> list[Table]:
    """Ask about every case as the recipe says; return the scores and the baselines.

    The tables are kept in ``localize.json`` too. Raises MidcourseError; what was answered before
    is kept.
    """
    model, results = locator(run.recipe), {}
    with closing(Tools(run, model, run.recipe.grade)) as tools:
        for asked in questions(run.recipe, model, cases):
            run.announce([asked])
            run.complete(asked, tools)
            results[f"{model.label}, {asked.label}"] = score(cases, run.read(asked))
    tables = first_error_tables(results, baselines(cases))
    write_json_atomic(run.directory / "localize.json", [asdict(table) for table in tables])
    return tables


def locator(recipe: Recipe) -> Model:
    """Return the recipe's proposer, known by its content; its label is for people."""
    engine = recipe.proposer_engine or recipe.engine
    source = recipe.proposer_model or served_by(engine, recipe.model)
    check_model(engine, source.path)
    label = engine.model_name or Path(source.path).name
    told = told_templates(source).values()
    known = content_id(identify_model(source), engine_identity(engine), *told)[:10]
    return Model(name=known, label=label, source=source, engine=engine)


def questions(
    recipe: Recipe, model: Model, cases: Sequence[ErrorCase]
) -> list[Stage[Localization, LocalizeSettings]]:
    """Return what is asked each way: where the reference is shown, only about cases with one."""
    prompts, stages = load_prompt_set(recipe.prompts), []
    for way, setting, purpose in _WAYS:
        asked = [case for case in cases if case.reference is not None or setting == "none"]
        if asked and recipe.localize.reference in ("both", setting):
            settings = LocalizeSettings(
                cases=Cases(tuple(asked)),
                prompt=prompts[purpose],
                sampling=recipe.localize.sampling,
                model=model,
                seed=recipe.seed,
            )
            stages.append(localization(settings, way))
    if not stages:
        raise DataError("localize: none of these solutions has a reference: set localize.reference")
    return stages
