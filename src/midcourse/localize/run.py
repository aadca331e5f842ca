"""The first-error benchmark, whole: which questions are asked of which engine, and the tables.

It is a stage like any other: `midcourse.run` keeps every answer and resumes. A recipe's
proposer is who is asked, where the recipe names one; any engine will do, servers of chat messages
included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from midcourse.config import OpenAIConfig, Recipe, SamplingConfig, ScriptedConfig
from midcourse.engines import check_model, engine_identity
from midcourse.errors import DataError
from midcourse.localize.ask import Locator, localize
from midcourse.localize.cases import load_error_cases
from midcourse.localize.records import ErrorCase, Localization
from midcourse.localize.scores import baselines, first_error_tables, score
from midcourse.pipeline.session import Tools, identify_model
from midcourse.pipeline.values import Model
from midcourse.prompts import Prompt, load_prompt_set
from midcourse.records import content_id
from midcourse.run import Keyed, Run, Stage, Work
from midcourse.store import write_json_atomic
from midcourse.table import Table

#: How a question is called, the setting that asks for it, and its prompt.
_WAYS = (
    ("with reference", "given", "localize"),
    ("without reference", "none", "localize_no_reference"),
)


def load_cases(paths: Sequence[str], limit_per_source: int | None) -> list[ErrorCase]:
    """Read the cases of all files, only the first so many of each source if there is a limit."""
    kept: dict[tuple[str, str], ErrorCase] = {}
    for case in chain.from_iterable(load_error_cases(path) for path in paths):
        if kept.setdefault((case.source, case.case_id), case) is not case:
            raise DataError(f"{case.source} {case.case_id} is in two of the files: give it once")
    seen: Counter[str] = Counter()
    limited = []
    for case in kept.values():
        seen[case.source] += 1
        if limit_per_source is None or seen[case.source] <= limit_per_source:
            limited.append(case)
    return limited


@dataclass(frozen=True, slots=True)
class Cases:
    """Solutions with a known first error, known by what they hold."""

    items: tuple[ErrorCase, ...]

    def identity(self) -> object:
        """Return a hash of them."""
        return content_id([asdict(case) for case in self.items])


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalizeSettings:
    """What decides the answers to one question."""

    cases: Cases
    prompt: Prompt
    sampling: SamplingConfig
    model: Model
    seed: int


def localization(
    settings: LocalizeSettings, *, label: str
) -> Stage[Localization, LocalizeSettings]:
    """*localize*: where each case first goes wrong, as a model answers one prompt."""
    return Stage(
        name="localize",
        label=label,
        record=Localization,
        settings=settings,
        make=_localize,
        outcome=lambda answer: answer.outcome,
        total=lambda settings, reader: len(settings.cases.items),
    )


def _localize(
    settings: LocalizeSettings, work: Work[Localization]
) -> Iterator[Keyed[Localization]]:
    locator = Locator(
        engine=work.tools.engine(settings.model),
        renderer=work.tools.renderer_for(settings.model),
        prompt=settings.prompt,
        sampling=settings.sampling.record(),
        name=settings.model.label,
        run_seed=settings.seed,
    )
    answers = localize(settings.cases.items, locator, work.done, work.failures)
    return ((answer.localization_id, [answer]) for answer in answers)


def run_localization(run: Run, cases: Sequence[ErrorCase]) -> list[Table]:
    """Ask about every case as the recipe says; return the scores and the baselines.

    The tables are kept in ``localize.json`` too. Raises MidcourseError; what was answered before
    is kept.
    """
    recipe, model, results = run.recipe, _asked(run.recipe), {}
    with closing(Tools(run, model, recipe.grade)) as tools:
        for way, (prompt, asked) in _questions(recipe, cases).items():
            settings = LocalizeSettings(
                cases=Cases(tuple(asked)),
                prompt=prompt,
                sampling=recipe.localize.sampling,
                model=model,
                seed=recipe.seed,
            )
            stage = localization(settings, label=way)
            run.announce([stage])
            run.complete(stage, tools)
            results[f"{model.label}, {way}"] = score(cases, run.read(stage))
    tables = first_error_tables(results, baselines(cases))
    write_json_atomic(run.directory / "localize.json", [asdict(table) for table in tables])
    return tables


def _asked(recipe: Recipe) -> Model:
    """Return the recipe's proposer; its label is a served name, a script or a folder."""
    source = recipe.proposer_model or recipe.model
    engine = recipe.proposer_engine or recipe.engine
    check_model(engine, source.path)
    label = Path(source.path).name
    if isinstance(engine, ScriptedConfig):
        label = Path(engine.script).name
    elif isinstance(engine, OpenAIConfig) and engine.served_model:
        label = engine.served_model
    known = content_id(identify_model(source), engine_identity(engine))[:10]
    return Model(name=f"{label}:{known}", label=label, source=source, engine=engine)


def _questions(
    recipe: Recipe, cases: Sequence[ErrorCase]
) -> dict[str, tuple[Prompt, list[ErrorCase]]]:
    """Return the prompt and the cases of each way to ask."""
    prompts, questions = load_prompt_set(recipe.prompts), {}
    for way, setting, purpose in _WAYS:
        asked = [case for case in cases if case.reference is not None or setting == "none"]
        if asked and recipe.localize.reference in ("both", setting):
            questions[way] = (prompts[purpose], asked)
    if not questions:
        raise DataError("localize: none of these solutions has a reference: set localize.reference")
    return questions
