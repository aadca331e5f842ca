"""The warm-up on disk: rows, a model, more rows, another model, and a measure of both.

    runs/<name>/worked/model/final         solves in our answer form
    runs/<name>/verification/model/final   and verifies: the base of the loop

Models lie in folders without keys, because another recipe names the last one as its
``model.path``; the run directory itself belongs to one recipe and one set of problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from midcourse.config import Recipe, TrainSftConfig
from midcourse.data import load_problems
from midcourse.data.parts import problems_in
from midcourse.engines import IDENTITY, check_model
from midcourse.errors import ArtifactError, ConfigError, DataError
from midcourse.pipeline.models import TuneSettings, tune
from midcourse.pipeline.session import Session, Setup, identify_model
from midcourse.pipeline.values import Model, Problems, ProblemSets
from midcourse.prompts import Prompt
from midcourse.records import Problem, SftRow
from midcourse.run import Keyed, Stage, Training, Work
from midcourse.store import write_json_atomic
from midcourse.warmup.documents import RowMaker, readable


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    """What decides the rows of one lesson."""

    base: Model
    """Rows are in its tokens."""
    prompts: Mapping[str, Prompt]
    seed: int
    max_tokens: int
    worked: Problems
    """Whose solutions are to be learned."""
    attempted: Problems = Problems(())
    """At which attempts are to be verified."""
    num_attempts: int = 0


def lesson_rows(settings: RowSettings, *, label: str) -> Stage[SftRow, RowSettings]:
    """Verification of attempts, then worked solutions, as rows."""
    return Stage(
        name="rows",
        label=label,
        record=SftRow,
        settings=settings,
        make=_lesson_rows,
        outcome=lambda row: row.outcome,
    )


def _lesson_rows(settings: RowSettings, work: Work[SftRow]) -> Iterator[Keyed[SftRow]]:
    maker = RowMaker(
        renderer=work.tools.renderer(settings.base),
        prompts=settings.prompts,
        seed=settings.seed,
        max_tokens=settings.max_tokens,
    )
    rows = chain(
        maker.verifications(readable(settings.attempted.items, None), settings.num_attempts),
        maker.worked(readable(settings.worked.items, None)),
    )
    return ((row.row_id, [row]) for row in rows if row.row_id not in work.done)


def warmup_setup(recipe: Recipe) -> Setup:
    """Load the problems of a warm-up. Raises MidcourseError before any work starts."""
    recipe.warmup.check_parts(recipe.problems.part)
    if recipe.problems.kind != "jsonl":
        raise ConfigError("warmup: problems.kind must be 'jsonl': the lab's model needs none")
    check_model(recipe.engine, recipe.model.path)
    problems = load_problems(recipe.problems.path, columns=recipe.problems.columns)
    return Setup.with_problems(recipe, ProblemSets(problems, {}), identify_model)


class Warmup:
    """One warm-up over one recipe, in a session whose setup is `warmup_setup`'s."""

    def __init__(self, session: Session) -> None:
        self.session, self.setup = session, session.setup
        self.recipe, self.config = session.recipe, session.recipe.warmup

    def part(self, part: tuple[float, float], limit: int | None) -> list[Problem]:
        """Return the first `limit` problems of a part whose solution can be read."""
        problems = problems_in(self.setup.problems.train, part)
        return [problem for problem, _ in readable(problems, limit)]

    @cached_property
    def row_settings(self) -> RowSettings:
        """What every lesson's rows have in common."""
        names = ("solve", "single_turn", "no_reference")
        return RowSettings(
            base=self.setup.base,
            prompts={name: self.setup.prompts[name] for name in names},
            seed=self.recipe.seed,
            max_tokens=self.config.max_tokens,
            worked=Problems(()),
        )

    @cached_property
    def worked(self) -> Model:
        """The model that was taught the answer form."""
        config = self.config.worked
        problems = self._lesson("worked", config.part, config.limit)
        rows = lesson_rows(replace(self.row_settings, worked=problems), label="worked")
        return self._taught("worked", rows, config.train, self.setup.base)

    @cached_property
    def verification(self) -> Model:
        """The model that was then taught to verify: the base of the loop."""
        config, solved = self.config.verification, self.config.worked
        again = self.part(solved.part, solved.limit)[: config.num_worked]
        settings = replace(
            self.row_settings,
            worked=Problems(tuple(again)),
            attempted=self._lesson("verification", config.part, config.limit),
            num_attempts=config.num_attempts,
        )
        rows = lesson_rows(settings, label="verification")
        return self._taught("verification", rows, config.train, self.worked)

    @property
    def models(self) -> dict[str, Model]:
        """The three models by name."""
        return {
            "as given": self.setup.base,
            "+ worked solutions": self.worked,
            "+ verification": self.verification,
        }

    def complete(self) -> Path:
        """Train what is missing; return the folder of the last model."""
        for model in (self.worked, self.verification):
            assert model.trained is not None
            self._claim(model.trained)
            folder = self.session.path(model.trained) / model.folder
            manifest = self.session.run.artifact(model.trained).manifest
            known = {"key": manifest["key"], "finished": manifest["finished"]}
            write_json_atomic(folder / IDENTITY, {**known, **manifest["counts"]})
        return folder

    def _claim(self, training: Training[Any]) -> None:
        """Refuse what a killed training left of other data: the folder's name holds no key."""
        self.session.run.is_complete(training)
        folder = self.session.run.path(training)
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / "key.txt"
        if marker.is_file() and marker.read_text("utf-8") != training.key:
            raise ArtifactError(
                f"{folder} was begun with other data or another model: use another --run-dir, or "
                f"delete {self.session.run.directory} to begin again"
            )
        marker.write_text(training.key, "utf-8")

    def _lesson(self, label: str, part: tuple[float, float], limit: int | None) -> Problems:
        problems = self.part(part, limit)
        if not problems:
            raise DataError(
                f"warmup: no {label} row can be made: are there worked solutions with equations "
                "such as 48 / 2 = 24 in this part of the problems?"
            )
        return Problems(tuple(problems))

    def _taught(
        self, label: str, rows: Stage[SftRow, Any], config: TrainSftConfig, start: Model
    ) -> Model:
        settings = TuneSettings(
            config=config, start=start, rows=rows, rejected=None, seed=self.recipe.seed
        )
        training = tune(settings, label=label, folder=f"{label}/model")
        return replace(
            start, name=f"sft:{training.key}", label=label, role=None, trained=training,
            folder="final",
        )  # fmt: skip
