"""A run directory opened to read: its recipe's method, and the records of every stage."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from midcourse.engines import open_renderer
from midcourse.errors import ArtifactError
from midcourse.pipeline.kept import check_problems
from midcourse.pipeline.method import Method, method
from midcourse.pipeline.session import Setup
from midcourse.progress import SilentProgress
from midcourse.records import Role, Start
from midcourse.rendering import Renderer
from midcourse.run import Run, Stage, read_recipe
from midcourse.training.rl.store import RlMember, read_rl

R = TypeVar("R")


@dataclass(frozen=True)
class FinishedRun:
    """A run directory and the stages of its recipe. Nothing is sampled, trained or written."""

    run: Run
    method: Method

    @property
    def renderer(self) -> Renderer:
        """The policy's renderer."""
        base = self.method.setup.base
        return open_renderer(base.engine, base.source, base.source.path)

    def stage(self, name: str, label: str) -> Stage[Any, Any]:
        """Return the stage of a name and a label, as ``midcourse status`` lists them.

        Raises ArtifactError if the recipe has none.
        """
        steps = [step for steps in self.method.steps() for step in steps]
        stages = [step for step in steps if isinstance(step, Stage)]
        for stage in stages:
            if (stage.name, stage.label) == (name, label):
                return stage
        known = ", ".join(dict.fromkeys(f"{stage.name} {stage.label}" for stage in stages))
        raise ArtifactError(f"there is no stage {name} {label!r}: the recipe has {known}")

    def rl_rollouts(self, start: Start, without: Collection[str] = ()) -> Iterator[RlMember]:
        """Stream what RL from the base or from the patched model sampled, group after group.

        Each rollout comes with its grade, as it was rewarded, and its `RlSample`: iteration, group
        and advantage. `without` names fields of `Rollout` that are not read and come back empty,
        as ``token_ids``. Raises ArtifactError if that training is not complete.
        """
        trained = self.method.models.in_role(Role(start, rl=True)).trained
        assert trained is not None
        self.run.require(trained)
        return read_rl(self.run.path(trained), without)

    def read(self, stage: Stage[R, Any], without: Collection[str] = ()) -> Iterator[R]:
        """Stream the records of a stage. Raises ArtifactError if it is not complete."""
        return self.run.read(stage, without)


def open_run(directory: str | Path) -> FinishedRun:
    """Open a run directory to read it.

    Raises ArtifactError if it is not one or of other problems, DataError if its problems are gone.
    """
    directory = Path(directory)
    resolved = directory / "config.resolved.json"
    if not resolved.is_file():
        raise ArtifactError(f"{directory} is not a run directory: it has no config.resolved.json")
    recipe = read_recipe(resolved)
    run, setup = Run(directory, recipe, SilentProgress()), Setup.of(recipe)
    check_problems(run.problems_path, setup.problems)
    return FinishedRun(run, method(setup))
