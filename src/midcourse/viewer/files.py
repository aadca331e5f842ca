"""What the files of a run directory hold: complete, under way, or damaged, without its recipe.

What cannot be read is left out and noted: a viewer of half a run says more than an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from midcourse.errors import ArtifactError, ConfigError
from midcourse.records import Grade, Rollout
from midcourse.steps import BLANK_LINES, StepRule, rule_named
from midcourse.store.files import load_checked
from midcourse.store.index import IndexEntry, read_index
from midcourse.store.repair import step_folders
from midcourse.store.stage import (
    OpenStage,
    inspect,
    missing_file,
    read_found,
    read_manifest,
)
from midcourse.viewer.room import Size

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Step:
    """A stage or a training that was begun."""

    name: str
    """E.g. ``grade``."""
    label: str
    path: Path
    manifest: Mapping[str, Any]
    """Empty until it is complete."""

    @property
    def key(self) -> str:
        """Its key, which is the name of most folders too."""
        return str(self.manifest.get("key", self.path.name))


@dataclass(eq=False)
class RunFiles:
    """A run directory to look at. Nothing is written."""

    directory: Path
    notes: list[str] = field(default_factory=list)
    """What could not be read, and why."""
    _found: dict[Path, OpenStage | None] = field(default_factory=dict)

    @cached_property
    def steps(self) -> list[Step]:
        """Every stage and training that was begun, in the order of the flow as far as known."""
        begun = {str(path.relative_to(self.directory)) for path in step_folders(self.directory)}
        in_order = [folder for folder in self._index if folder in begun]
        return [self._step(folder) for folder in (*in_order, *sorted(begun - {*in_order}))]

    @cached_property
    def num_waiting(self) -> int:
        """The number of stages and trainings that were announced and not begun."""
        begun = {step.path for step in self.steps}
        return sum(self.directory / folder not in begun for folder in self._index)

    @cached_property
    def _index(self) -> dict[str, IndexEntry]:
        return read_index(self.directory).entries

    def named(self, name: str) -> list[Step]:
        """Return the stages of a name, e.g. all that sample."""
        return [step for step in self.steps if step.name == name]

    @cached_property
    def recipes(self) -> list[dict[str, Any]]:
        """Return the resolved recipes, as they were written: one, or many of a shared directory."""
        files = [*self.directory.glob("config.resolved.json")]
        recipes = []
        for file in files or sorted(self.directory.glob("recipes/*.json")):
            content, problem = load_checked(file)
            if problem:
                self.notes.append(f"{file} {problem}")
            else:
                recipes.append(content)
        return recipes

    @cached_property
    def rule(self) -> StepRule:
        """The rule that attempts were cut by; blank lines where it is a function not to be had."""
        told = [recipe["steps"]["rule"] for recipe in self.recipes if recipe.get("steps")]
        try:
            return rule_named(told[0]) if told else BLANK_LINES
        except ConfigError as error:
            self.notes.append(f"{error}: attempts are shown cut at blank lines")
            return BLANK_LINES

    def records(
        self, step: Step, record_type: type[R], without: Collection[str] = ()
    ) -> Iterator[R]:
        """Stream the sound records of a stage; `without` names fields that come back empty."""
        found = self._inspected(step)
        return self.tolerant(read_found(found, record_type, without)) if found else iter(())

    def rollouts(self, step: Step) -> Iterator[Rollout]:
        """Stream the rollouts of a stage without their token ids."""
        return self.records(step, Rollout, ("token_ids",))

    def grades_of(self, sampled: Step) -> dict[str, Grade]:
        """Return the grades of the rollouts of a stage, by rollout id: the newest ones."""
        newest_first = self.named("grade")[::-1]
        complete = [step for step in newest_first if sampled.key in _inputs(step)]
        open_ = [s for s in newest_first if not s.manifest and s.label == sampled.label]
        found = (grade for step in (complete or open_)[:1] for grade in self.records(step, Grade))
        return {grade.rollout_id: grade for grade in found}

    def size(self, step: Step) -> Size:
        """Return how many rollouts a stage holds, and what they would take."""
        found = self._inspected(step)
        if found is None:
            return Size(0, 0)
        sealed, entries = size_of(found.parts), found.entries
        return Size(
            sealed.num_rollouts + sum(len(entry.rows) for entry in entries),
            sealed.num_bytes + sum(len(entry.line) for entry in entries),
        )

    def tolerant(self, records: Iterable[R]) -> Iterator[R]:
        """Yield records up to the first that cannot be read, which is noted."""
        try:
            yield from records
        except (ArtifactError, OSError, ValueError) as error:
            self.notes.append(str(error))

    def _step(self, folder: str) -> Step:
        path, manifest = self.directory / folder, dict[str, Any]()
        if (path / "manifest.json").is_file():
            try:
                manifest = read_manifest(path)
            except ArtifactError as error:
                self.notes.append(str(error))
        told = IndexEntry(manifest.get("stage", path.parent.name), manifest.get("label", ""))
        named = self._index.get(folder, told)
        return Step(named.stage, named.label, path, manifest)

    def _inspected(self, step: Step) -> OpenStage | None:
        """Look at a stage once: what is added to it later is not seen."""
        if step.path not in self._found:
            self._found[step.path] = found = next(self.tolerant(map(inspect, [step.path])), None)
            if found:
                self._note_damage(step, found)
        return self._found[step.path]

    def _note_damage(self, step: Step, found: OpenStage) -> None:
        # The last line of a stage under way may be half written: that is not damage.
        lines = tuple(number for number in found.damaged_lines if number != found.num_lines)
        self.notes += map(str, replace(found, damaged_lines=lines).damaged())
        missing = missing_file(step.path, step.manifest)
        if missing and not found.damaged_parts:
            self.notes.append(missing)


def _inputs(step: Step) -> Collection[str]:
    """Return the keys of what a complete stage was made from."""
    inputs: Mapping[str, str] = step.manifest.get("inputs", {})
    return inputs.values()


def size_of(parts: Iterable[Path]) -> Size:
    """Return what the rollouts of Parquet files would take, from the files' own statistics."""
    num_rows = num_bytes = 0
    for part in parts:
        metadata = pq.read_metadata(part)
        num_rows += metadata.num_rows
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema == "text":
                    num_bytes += column.total_uncompressed_size
    return Size(num_rows, num_bytes)
