"""The warm-up on disk: rows, a model, more rows, another model, and a measure of both.

    runs/<name>/worked/rows         worked/model/final         solves in our answer form
    runs/<name>/verification/rows   verification/model/final   and verifies: the base of the loop

Paths do not hold keys, because another recipe names the last folder as its ``model.path``; the run
directory itself belongs to one recipe and one set of problems. Everything resumes as in any run.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
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
from midcourse.errors import ArtifactError, ConfigError, DataError
from midcourse.progress import Failures
from midcourse.prompts import load_prompt_set
from midcourse.records import RowOutcome, SftRow, content_id
from midcourse.run import Artifact, Run, Sitting
from midcourse.store import StageStore, write_json_atomic
from midcourse.training.jobs import Job, run_jobs, sft_content
from midcourse.warmup.documents import Readable, RowMaker, readable


class Warmup:
    """One warm-up over one recipe. Raises MidcourseError before any work if the recipe is off."""

    def __init__(self, run: Run) -> None:
        self.run, self.recipe, self.config = run, run.recipe, run.recipe.warmup
        problems, model = self.recipe.problems, self.recipe.model
        self.config.check_parts(problems.part)
        if problems.kind != "jsonl":
            raise ConfigError("warmup: problems.kind must be 'jsonl': the lab's model needs none")
        check_model(model.path)
        self._problems = load_problems(problems.path, columns=problems.columns)
        content = [[p.problem_id, p.text, p.answer, p.reference_solution] for p in self._problems]
        self._settings: dict[str, object] = {
            **self.config.model_dump(),
            "seed": self.recipe.seed,
            "prompts": self.recipe.prompts,
            "model": model_fingerprint(model.path),
            "revision": model.revision,
            "problems": content_id(content),
        }

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
        return readable(problems_in(self._problems, part), limit)

    @cached_property
    def start(self) -> Path:
        """The model as it was given."""
        return model_folder(self.recipe.model.path, self.recipe.model.revision)

    @cached_property
    def worked(self) -> Artifact:
        """The model that was taught the answer form."""
        config = self.config.worked
        problems = self.part(config.part, config.limit)
        rows = self._rows("worked", self.row_maker.worked(problems))
        return self._train("worked", rows, config.train, self.start, [])

    @cached_property
    def verification(self) -> Artifact:
        """The model that was then taught to verify: the base of the loop."""
        config, solved = self.config.verification, self.config.worked
        problems = self.part(config.part, config.limit)
        again = self.part(solved.part, solved.limit)[: config.num_worked]
        made = chain(
            self.row_maker.verifications(problems, config.num_attempts),
            self.row_maker.worked(again),
        )
        rows = self._rows("verification", made)
        base = self.worked.path / "final"
        return self._train("verification", rows, config.train, base, [self.worked])

    @property
    def models(self) -> dict[str, Path]:
        """The three models by name, made where they are missing."""
        return {
            "as given": self.start,
            "+ worked solutions": self.worked.path / "final",
            "+ verification": self.verification.path / "final",
        }

    def artifact(self, stage: str, label: str) -> Artifact:
        """Name a folder of this run; raise ArtifactError if it was made from something else."""
        key = content_id(stage, label, self._settings)[:10]
        artifact = Artifact(f"{label} {stage}", "", key, self.run.directory / label / stage)
        if artifact.is_complete and artifact.manifest["key"] != key:
            raise ArtifactError(
                f"{artifact.path} was made from other problems, or another base model: use "
                f"another --run-dir, or remove {self.run.directory} to make it again"
            )
        return artifact

    def _train(
        self,
        label: str,
        rows: Artifact,
        config: TrainSftConfig,
        start: Path,
        inputs: list[Artifact],
    ) -> Artifact:
        model = self.artifact("model", label)
        if model.is_complete:
            return model
        ready = [row for row in rows.read(SftRow) if row.outcome is RowOutcome.READY]
        if not ready:
            raise DataError(
                f"warmup: no {label} row could be made: are there worked solutions with equations "
                "such as 48 / 2 = 24 in this part of the problems?"
            )
        sitting = Sitting.begin()
        base = ModelConfig(path=str(start))
        content, total = sft_content(config, base, self.recipe.seed, rows.path, ready)
        job = Job(f"train {label}", model.path, content, total, config.accelerate)
        (summary,) = run_jobs([job], self.run.reporter)
        identity = {"key": model.key, "finished": datetime.now(UTC).isoformat(), **summary}
        write_json_atomic(model.path / "final" / IDENTITY, identity)
        self.run.complete(model, self._settings, [*inputs, rows], sitting, summary)
        return model

    def _rows(self, label: str, rows: Iterator[SftRow]) -> Artifact:
        artifact = self.artifact("rows", label)

        def produce(
            store: StageStore[SftRow], failures: Failures
        ) -> Iterator[tuple[str, list[SftRow]]]:
            return ((row.row_id, [row]) for row in rows if row.row_id not in store.done)

        return self.run.records(
            artifact, SftRow, self._settings, [], None, produce, lambda row: row.outcome
        )
