"""Where the experiments run: one scale, some seeds, and per seed one run directory for all recipes.

A recipe of an experiment is `recipes/paper/int.toml`, the scale, `recipes/paper/<name>.toml` and,
where the scale has something to add to just this recipe (a proposer's model, more samples),
`recipes/scale/<scale>/<name>.toml`; each is laid over what stands before it. Artifacts are named by
what made them, so what two recipes have in common is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from midcourse.config import Recipe, load_recipe
from midcourse.errors import ConfigError
from midcourse.pipeline import Pipeline
from midcourse.progress import Reporter
from midcourse.records import content_id
from midcourse.run import Run

T = TypeVar("T")

#: The recipe that all others are laid over.
WHOLE_METHOD = "int"
#: Recipes about a kind of model that not every scale has; they run where it names one.
_NEEDS_A_MODEL = frozenset(
    {
        "distillation-thinking",
        "distillation-summary",
        "written-reference",
        "proposer-weak",
        "proposer-capable",
    }
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Opens the pipelines of an experiment, e.g. recipe ``suffix`` at the lab's scale, seed 0."""

    scale: Path
    """A file of sizes and model names, e.g. ``recipes/scale/lab.toml``."""
    seeds: tuple[int, ...]
    reporter: Reporter
    recipes: Path = Path("recipes/paper")
    runs: Path = Path("runs")
    overlays: tuple[Path, ...] = ()
    """Further files of sizes, e.g. for the machine; laid over all others."""

    settings: tuple[str, ...] = ()
    """``key=value``, over all files."""

    @property
    def scale_name(self) -> str:
        """Name the scale and what is laid over it, e.g. ``lab`` or ``lab-k1024``."""
        return "-".join(file.stem for file in (self.scale, *self.overlays))

    def run_directory(self, seed: int) -> Path:
        """Return the run directory that all recipes of one seed share."""
        return self.runs / f"reproduce-{self.scale_name}-seed{seed}"

    def recipe(self, name: str, seed: int) -> Recipe:
        """Return one resolved recipe. Raises ConfigError in one line."""
        own = self.recipes / f"{name}.toml"
        if not own.is_file():
            raise ConfigError(f"no recipe at {own}: run from the root of the repository")
        extra = self._extra(name)
        layers = [self.scale, *([] if name == WHOLE_METHOD else [own])]
        layers += [*([extra] if extra.is_file() else []), *self.overlays]
        fixed = [f"name={name}", f"seed={seed}", "train_rl.keep_checkpoints=true"]  # Fig. 12
        return load_recipe(self.recipes / f"{WHOLE_METHOD}.toml", [*fixed, *self.settings], layers)

    def has(self, name: str) -> bool:
        """Whether the scale names the model that a recipe is about."""
        return name not in _NEEDS_A_MODEL or self._extra(name).is_file()

    def _extra(self, name: str) -> Path:
        return self.scale.with_suffix("") / f"{name}.toml"

    def identity(self, names: Sequence[str]) -> str:
        """Return what tells the settings of some recipes, over all seeds, from others."""
        there = [name for name in names if self.has(name)]
        every = [self.recipe(name, s).model_dump(mode="json") for name in there for s in self.seeds]
        return content_id(every)

    def read(self, name: str, reader: Callable[[Pipeline], T]) -> list[T]:
        """Return what `reader` takes from the pipeline of each seed; what is missing is made."""
        return [self._read(name, seed, reader) for seed in self.seeds]

    def _read(self, name: str, seed: int, reader: Callable[[Pipeline], T]) -> T:
        recipe = self.recipe(name, seed)
        run = Run(self.run_directory(seed), recipe, self.reporter, shared=True)
        with run, Pipeline(run) as pipeline:
            return reader(pipeline)
