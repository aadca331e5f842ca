"""The warm-up on disk: rows, a model, more rows, another model, and a measure of both.

    runs/<name>/worked/rows         worked/model/final         solves in our answer form
    runs/<name>/verification/rows   verification/model/final   and verifies: the base of the loop

Paths do not hold keys, because another recipe names the last folder as its ``model.path``; the run
directory itself belongs to one recipe. Everything resumes as in any other run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from midcourse.config import ModelConfig, TrainSftConfig
from midcourse.data import load_problems
from midcourse.data.parts import problems_in
from midcourse.engines import (
    IDENTITY,
    check_model,
    model_fingerprint,
    model_folder,
    open_renderer,
)
from midcourse.errors import ConfigError, DataError
from midcourse.progress import Failures
from midcourse.prompts import load_prompt_set
from midcourse.records import RowOutcome, SftRow, content_id
from midcourse.run import Artifact, Run, Sitting
from midcourse.store import StageStore, write_json_atomic
from midcourse.training.jobs import Job, run_jobs, sft_content
from midcourse.warmup.rows import Readable, RowMaker, readable


class Warmup:
    """One warm-up over one recipe. Raises MidcourseError before any work if the recipe is off."""

    def __init__(self, run: Run) -> None:
        self.run, self.recipe, self.config = run, run.recipe, run.recipe.warmup
        self.config.check_parts(self.recipe.problems.part)
        if self.recipe.problems.kind != "jsonl":
            raise ConfigError("warmup: problems.kind must be 'jsonl': the lab's model needs none")
        check_model(self.recipe.model.path)
        source = self.recipe.problems
        self.problems = load_problems(source.path, columns=source.columns)

    @cached_property
    def row_maker(self) -> RowMaker:
        """What turns problems into rows."""
        return RowMaker(
            renderer=open_renderer(self.recipe.engine, self.recipe.model, self.recipe.model.path),
            prompts=load_prompt_set(self.recipe.prompts),
            seed=self.recipe.seed,
            max_tokens=self.config.max_tokens,
        )

    def part(self, part: tuple[float, float], limit: int | None) -> list[Readable]:
        """Return the first `limit` problems of a part whose solution can be read."""
        return readable(problems_in(self.problems, part), limit)

    @cached_property
    def start(self) -> Path:
        """The model as it was given."""
        return model_folder(self.recipe.model.path, self.recipe.model.revision)

    @cached_property
    def worked(self) -> Artifact:
        """The model that was taught the answer form."""
        config = self.config.worked
        problems = self.part(config.part, config.limit)
        rows = self._rows("worked", len(problems), lambda: self.row_maker.worked(problems))
        return self._train("worked", rows, config.train, self.start, [])

    @cached_property
    def verification(self) -> Artifact:
        """The model that was then taught to verify: the base of the loop."""
        config, replayed = self.config.verification, self.config.worked
        problems = self.part(config.part, config.limit)
        again = self.part(replayed.part, replayed.limit)[: config.num_worked]

        def rows() -> Iterator[SftRow]:
            yield from self.row_maker.verifications(problems, config.num_attempts)
            yield from self.row_maker.worked(again)

        number = len(problems) * config.num_attempts + len(again)
        made = self._rows("verification", number, rows)
        start = self.worked.path / "final"
        return self._train("verification", made, config.train, start, [self.worked])

    @property
    def models(self) -> dict[str, Path]:
        """The three models by name, made where they are missing."""
        return {
            "as given": self.start,
            "+ worked solutions": self.worked.path / "final",
            "+ verification": self.verification.path / "final",
        }

    @property
    def _settings(self) -> dict[str, object]:
        return {
            **self.config.model_dump(), "seed": self.recipe.seed, "prompts": self.recipe.prompts,
            "model": model_fingerprint(self.recipe.model.path),
            "revision": self.recipe.model.revision,
            "problems": content_id([p.problem_id for p in self.problems]),
        }  # fmt: skip

    def artifact(self, stage: str, label: str) -> Artifact:
        """Name a folder of this run; the key says what it was made from, the path does not."""
        key = content_id(stage, label, self._settings)[:10]
        return Artifact(f"{label} {stage}", "", key, self.run.directory / label / stage)

    def _rows(self, label: str, number: int, make: Callable[[], Iterator[SftRow]]) -> Artifact:
        artifact, settings = self.artifact("rows", label), self._settings

        def produce(
            store: StageStore[SftRow], failures: Failures
        ) -> Iterator[tuple[str, list[SftRow]]]:
            for row in make():
                if row.row_id not in store.done:
                    yield row.row_id, [row]

        return self.run.records(
            artifact, SftRow, settings, [], number, produce, lambda row: row.outcome
        )

    def _train(
        self, label: str, rows: Artifact, config: TrainSftConfig, start: Path, made: list[Artifact]
    ) -> Artifact:
        artifact, settings, inputs = self.artifact("model", label), self._settings, [*made, rows]
        if artifact.is_complete:
            return artifact
        ready = [row for row in rows.read(SftRow) if row.outcome is RowOutcome.READY]
        if not ready:
            raise DataError(
                f"warmup: no {label} row could be made: are there worked solutions with equations "
                "such as 48 / 2 = 24 in this part of the problems?"
            )
        sitting = Sitting.begin()
        model = ModelConfig(path=str(start))
        content, total = sft_content(config, model, self.recipe.seed, rows.path, ready)
        job = Job(f"train {label}", artifact.path, content, total, config.accelerate)
        (summary,) = run_jobs([job], self.run.reporter)
        identity = {"key": artifact.key, "finished": datetime.now(UTC).isoformat(), **summary}
        write_json_atomic(artifact.path / "final" / IDENTITY, identity)
        self.run.complete(artifact, settings, inputs, sitting, summary)
        return artifact
