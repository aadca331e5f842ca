"""The warm-up on disk: rows, a model, more rows, another model.

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
from midcourse.records import RowOutcome, SftRow, content_id
from midcourse.rendering import Renderer
from midcourse.run import Keyed, Training, Work, stage
from midcourse.stages.build_sft import IGNORED
from midcourse.store.files import write_json_atomic
from midcourse.warmup.documents import Document, readable, verifications, worked


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonSettings:
    """What decides the rows of one lesson."""

    base: Model
    """Rows are in its tokens."""
    prompts: Mapping[str, Prompt]
    seed: int
    max_tokens: int
    """A longer row is refused, never cut."""
    worked: Problems
    """Whose solutions are to be learned."""
    attempted: Problems
    """At which attempts are to be verified."""
    num_attempts: int


@stage("rows", SftRow)
def lesson_rows(settings: LessonSettings, work: Work[SftRow]) -> Iterator[Keyed[SftRow]]:
    """*rows*: verification of attempts, then worked solutions."""
    renderer, prompts = work.tools.renderer(settings.base), settings.prompts
    attempted = readable(settings.attempted.items)
    documents = chain(
        verifications(attempted, settings.num_attempts, prompts, settings.seed),
        worked(readable(settings.worked.items), prompts),
    )
    rows = (row_of(document, renderer, settings.max_tokens) for document in documents)
    return ((row.row_id, [row]) for row in rows if row.row_id not in work.done)


def row_of(document: Document, renderer: Renderer, max_tokens: int) -> SftRow:
    """Return a document as a row; unlike an intervention, a whole reply ends: that is trained."""
    prompt_ids = renderer.prompt_ids([{"role": "user", "content": document.user}])
    reply_ids = [*renderer.reply_ids(document.reply), *renderer.end_of_turn_ids]
    fits = len(prompt_ids) + len(reply_ids) <= max_tokens
    return SftRow(
        row_id=content_id(document.source, document.problem_id, document.user, document.reply),
        source=document.source,
        outcome=RowOutcome.READY if fits else RowOutcome.TOO_LONG,
        problem_id=document.problem_id,
        proposal_id=None,
        input_ids=(*prompt_ids, *reply_ids) if fits else (),
        labels=(*(IGNORED for _ in prompt_ids), *reply_ids) if fits else (),
        closes_turn=True,
        prompt_tokens=len(prompt_ids),
        prefix_tokens=0,
        intervention_tokens=0,
        num_correct=0,
        num_continuations=0,
    )


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
        self.checked = self.part(self.recipe.problems.part, self.config.num_checks)

    def part(self, part: tuple[float, float], limit: int | None) -> Problems:
        """Return the first `limit` problems of a part whose solution can be read."""
        pairs = readable(problems_in(self.setup.problems.train, part), limit)
        if not pairs:
            raise DataError(
                f"warmup: no reference solution in part {list(part)} of the problems can be read: "
                "are there worked solutions with equations such as 48 / 2 = 24?"
            )
        return Problems(tuple(problem for problem, _ in pairs))

    @cached_property
    def worked(self) -> Model:
        """The model that was taught the answer form."""
        return self._taught(
            "worked", self.config.worked.train, self._worked_settings, self.setup.base
        )

    @cached_property
    def verification(self) -> Model:
        """The model that was then taught to verify: the base of the loop."""
        config, solved = self.config.verification, self._worked_settings
        settings = replace(
            solved,
            worked=Problems(solved.worked.items[: config.num_worked]),
            attempted=self.part(config.part, config.limit),
            num_attempts=config.num_attempts,
        )
        return self._taught("verification", config.train, settings, self.worked)

    def models(self) -> dict[str, Model]:
        """Return the three models by name."""
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
        if self.session.run.is_complete(training):
            return
        folder = self.session.run.path(training)
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / "key.txt"
        if marker.is_file() and marker.read_text("utf-8") != training.key:
            raise ArtifactError(
                f"{folder} was begun with other data or another model: use another --run-dir, or "
                f"delete {self.session.run.directory} to begin again"
            )
        marker.write_text(training.key, "utf-8")

    @cached_property
    def _worked_settings(self) -> LessonSettings:
        names = ("solve", "single_turn", "no_reference")
        return LessonSettings(
            base=self.setup.base,
            prompts={name: self.setup.prompts[name] for name in names},
            seed=self.recipe.seed,
            max_tokens=self.config.max_tokens,
            worked=self.part(self.config.worked.part, self.config.worked.limit),
            attempted=Problems(()),
            num_attempts=0,
        )

    def _taught(
        self, label: str, config: TrainSftConfig, settings: LessonSettings, start: Model
    ) -> Model:
        rows = lesson_rows(settings, label)
        tuning = TuneSettings(
            config=config, start=start, rows=rows, rejected=None, seed=self.recipe.seed
        )
        training = tune(tuning, label=label, folder=f"{label}/model")
        return replace(
            start, name=f"sft:{training.key}", label=label, role=None, trained=training,
            folder="final",
        )  # fmt: skip
