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


def run_localization(run: Run, cases: Sequence[ErrorCase]) -> list[Table]:
    """Ask about every case as the recipe says; return the scores and the baselines.

    The tables are kept in ``localize.json`` too. Raises MidcourseError; what was answered before
    is kept.
    """
    recipe, questions = run.recipe, _questions(run.recipe, cases)
    model = recipe.proposer_model or recipe.model
    config = recipe.proposer_engine or recipe.engine
    if config.kind in ("transformers", "vllm"):
        check_model(model.path)
    identity, results = locator_identity(model, config), {}
    with closing(open_engine(config, model, model.path)) as engine:
        takes_ids = engine.capabilities.token_ids
        for way, (prompt, asked) in questions.items():
            locator = Locator(
                engine=engine,
                renderer=open_renderer(config, model, model.path) if takes_ids else None,
                prompt=prompt,
                sampling=recipe.localize.sampling.record(),
                name=config.served_model or Path(config.script or model.path).name,
                run_seed=recipe.seed,
            )
            answers = _ask(run, locator, asked, way, identity).read(Localization)
            results[f"{locator.name}, {way}"] = score(cases, answers)
    tables = first_error_tables(results, baselines(cases))
    write_json_atomic(run.directory / "localize.json", [asdict(table) for table in tables])
    return tables


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


def locator_identity(model: ModelConfig, engine: EngineConfig) -> dict[str, object]:
    """Return what tells one answerer from another: a script is what it says, not where it lies."""
    script = Path(engine.script).read_text("utf-8") if engine.kind == "scripted" else ""
    return {
        "model": model_fingerprint(model.path),
        "served_model": engine.served_model,
        "script": script,
    }


def _ask(
    run: Run, locator: Locator, cases: Sequence[ErrorCase], label: str, identity: dict[str, object]
) -> Artifact:
    """Complete the stage of one prompt."""
    settings = {
        "cases": content_id([asdict(case) for case in cases]),
        "prompt": [locator.prompt.name, locator.prompt.sha],
        "sampling": run.recipe.localize.sampling.model_dump(),
        "seed": run.recipe.seed,
        **identity,
    }
    artifact = run.artifact("localize", label, settings, [])

    def produce(
        store: StageStore[Localization], failures: Failures
    ) -> Iterator[tuple[str, list[Localization]]]:
        answers = localize(cases, locator, store.done, failures)
        return ((answer.localization_id, [answer]) for answer in answers)

    return run.records(
        artifact, Localization, settings, [], len(cases), produce, lambda answer: answer.outcome
    )
