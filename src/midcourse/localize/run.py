"""The first-error benchmark, whole: which questions are asked of which engine, and the tables.

It is a stage like any other: `midcourse.run` keeps every answer and resumes. A recipe's
proposer is who is asked, where the recipe names one; any engine will do, servers of chat messages
included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from midcourse.config import EngineConfig, ModelConfig, Recipe
from midcourse.engines import check_model, model_fingerprint, open_engine, open_renderer
from midcourse.engines.base import Engine
from midcourse.errors import DataError
from midcourse.localize.ask import Locator, localize
from midcourse.localize.cases import load_error_cases
from midcourse.localize.records import ErrorCase, Localization
from midcourse.localize.scores import baselines, first_error_tables, score
from midcourse.progress import Failures
from midcourse.prompts import Prompt, load_prompt_set
from midcourse.records import content_id
from midcourse.run import Artifact, Run
from midcourse.store import StageStore, write_json_atomic
from midcourse.table import Table

_PROMPTS = {"with reference": "localize", "without reference": "localize_no_reference"}


def load_cases(paths: Sequence[str], limit_per_source: int | None) -> list[ErrorCase]:
    """Read the cases of all files, only the first so many of each source if there is a limit."""
    kept: dict[tuple[str, str], ErrorCase] = {}
    seen: Counter[str] = Counter()
    for case in chain.from_iterable(load_error_cases(path) for path in paths):
        if kept.setdefault((case.source, case.case_id), case) is not case:
            raise DataError(f"{case.source} {case.case_id} is in two of the files: give it once")
        seen[case.source] += 1
        if limit_per_source is not None and seen[case.source] > limit_per_source:
            del kept[case.source, case.case_id]
    return list(kept.values())


def run_localization(run: Run, cases: Sequence[ErrorCase]) -> list[Table]:
    """Ask about every case as the recipe says; return the scores and the baselines.

    The tables are kept in ``localize.json`` too. Raises MidcourseError; what was answered before
    is kept.
    """
    recipe = run.recipe
    model, config = _locator_of(recipe)
    if config.kind in ("transformers", "vllm"):
        check_model(model.path)
    questions = _questions(recipe, cases)
    with closing(open_engine(config, model, model.path)) as engine:
        artifacts = {
            shown: _ask(run, engine, prompt, asked, shown)
            for shown, (prompt, asked) in questions.items()
        }
    name = _name(model, config)
    results = {f"{name}, {s}": score(cases, a.read(Localization)) for s, a in artifacts.items()}
    tables = first_error_tables(results, baselines(cases))
    write_json_atomic(run.directory / "localize.json", [asdict(table) for table in tables])
    return tables


def _locator_of(recipe: Recipe) -> tuple[ModelConfig, EngineConfig]:
    return recipe.proposer_model or recipe.model, recipe.proposer_engine or recipe.engine


def _name(model: ModelConfig, config: EngineConfig) -> str:
    """Return what people call the model, or the script that stands in for one."""
    return config.served_model or Path(config.script or model.path).name


def _questions(
    recipe: Recipe, cases: Sequence[ErrorCase]
) -> dict[str, tuple[Prompt, list[ErrorCase]]]:
    """Return the prompt and the cases of each way to ask."""
    prompts, wanted = load_prompt_set(recipe.prompts), recipe.localize.reference
    questions = {}
    for shown, purpose in _PROMPTS.items():
        is_given = shown == "with reference"
        asked = [case for case in cases if case.reference is not None or not is_given]
        if asked and wanted in ("both", "given" if is_given else "none"):
            questions[shown] = (prompts[purpose], asked)
    if not questions:
        raise DataError("localize: none of these solutions has a reference: set localize.reference")
    return questions


def _ask(
    run: Run, engine: Engine, prompt: Prompt, cases: Sequence[ErrorCase], label: str
) -> Artifact:
    """Complete the stage of one prompt."""
    recipe = run.recipe
    model, config = _locator_of(recipe)
    settings = {
        "cases": content_id(
            [[c.source, c.case_id, c.problem, c.steps, c.reference, c.error_step] for c in cases]
        ),
        "prompt": [prompt.name, prompt.sha], "sampling": recipe.localize.sampling.model_dump(),
        "model": model_fingerprint(model.path), "served_model": config.served_model,
        "script": config.script, "seed": recipe.seed,
    }  # fmt: skip
    artifact = run.artifact("localize", label, settings, [])

    def produce(
        store: StageStore[Localization], failures: Failures
    ) -> Iterator[tuple[str, list[Localization]]]:
        takes_ids = engine.capabilities.token_ids
        locator = Locator(
            engine=engine,
            renderer=open_renderer(config, model, model.path) if takes_ids else None,
            prompt=prompt,
            sampling=recipe.localize.sampling.record(),
            name=_name(model, config),
            run_seed=recipe.seed,
        )
        for answer in localize(cases, locator, store.done, failures):
            yield answer.localization_id, [answer]

    return run.records(
        artifact, Localization, settings, [], len(cases), produce, lambda answer: answer.outcome
    )
