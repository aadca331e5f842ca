"""Where the experiments run: one scale, some seeds, and per seed one run directory for all recipes.

A recipe of an experiment is the packaged `paper/int`, the scale, `paper/<name>` and, where the
scale has something to add to just this recipe (a proposer's model, more samples), `<scale>/<name>`;
each is layered on those before it. Artifacts are named by what made them, so what two recipes have
in common is made once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from midcourse.config import OpenAIConfig, Recipe, load_recipe
from midcourse.engines import is_model
from midcourse.experiments.catalogue import Row
from midcourse.experiments.data import Reading, RunData
from midcourse.pipeline import Method, Session, method, open_session
from midcourse.progress import Reporter
from midcourse.recipes import find_recipe, recipe_names
from midcourse.records import content_id
from midcourse.report.estimates import Clusters, pool
from midcourse.run import read_recipe

T = TypeVar("T")

#: The recipe that all others are layered on.
WHOLE_METHOD = "int"
#: Recipes about a kind of model that not every scale has; they run where it names one.
_OPTIONAL = (
    "distillation-thinking", "distillation-summary", "written-reference",
    "proposer-weak", "proposer-capable",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExperimentRunner:
    """Opens what an experiment reads, e.g. recipe ``suffix`` at the lab's scale, seed 0."""

    scale: Path
    """A file of sizes and model names, e.g. the packaged ``scale/lab``."""
    seeds: tuple[int, ...]
    reporter: Reporter
    runs: Path = Path("runs")
    overlays: tuple[Path, ...] = ()
    """Further files of sizes, e.g. for the machine; layered on all others."""
    settings: tuple[str, ...] = ()
    """``key=value``, over all files."""
    data: RunData | None = None
    """Where what is read of runs is kept; default: it is read of the runs each time."""
    _recipes: dict[str, Recipe] = field(init=False, repr=False, compare=False, default_factory=dict)
    """Those that were read from their files, at some seed."""

    @property
    def scale_name(self) -> str:
        """The scale and what is layered on it, e.g. ``lab`` or ``lab-k1024``."""
        return "-".join(file.stem for file in (self.scale, *self.overlays))

    @property
    def is_lab(self) -> bool:
        """Whether problems are the lab's, which knows the true first error and probes notions."""
        return self.recipe(WHOLE_METHOD, self.seeds[0]).problems.kind == "lab"

    def run_directory(self, seed: int) -> Path:
        """Return the run directory that all recipes of one seed share."""
        return self.runs / f"reproduce-{self.scale_name}-seed{seed}"

    def recipe(self, name: str, seed: int) -> Recipe:
        """Return one resolved recipe; its files are read once. Raises ConfigError in one line."""
        if name not in self._recipes:
            self._recipes[name] = self._read_recipe(name, seed)
        return self._recipes[name].model_copy(update={"seed": seed})

    def _read_recipe(self, name: str, seed: int) -> Recipe:
        layers = [self.scale, *self._own(name), *self.overlays]
        fixed = [f"name={name}", f"seed={seed}", "train_rl.keep_checkpoints=true"]  # Fig. 12
        whole = find_recipe(f"paper/{WHOLE_METHOD}")
        return load_recipe(whole, [*fixed, *self.settings], layers)

    def _own(self, name: str) -> list[Path]:
        """Return what one recipe adds to the whole method: in general, and at this scale.

        A recipe may be of this scale alone.
        """
        extra = [self._extra(name)] if self._extra(name).is_file() else []
        if name == WHOLE_METHOD or (extra and f"paper/{name}" not in recipe_names()):
            return extra
        return [find_recipe(f"paper/{name}"), *extra]

    def has(self, name: str) -> bool:
        """Whether the scale knows a recipe, and the model that it is about is there.

        What is kept as data needs no model.
        """
        if name not in _OPTIONAL:
            return f"paper/{name}" in recipe_names() or self._extra(name).is_file()
        if not self._extra(name).is_file():
            return False
        recipe = self.recipe(name, self.seeds[0])
        for engine in (recipe.proposer_engine, recipe.teacher_engine):
            if isinstance(engine, OpenAIConfig) and not engine.urls:
                return False
        if recipe.proposer_model is None or (self.data and not self.data.may_run):
            return True
        return is_model(recipe.proposer_model.path)

    def _extra(self, name: str) -> Path:
        return self.scale.with_suffix("") / f"{name}.toml"

    def identity(self, names: Sequence[str]) -> str:
        """Return what tells the settings of some recipes, over all seeds, from others."""
        there = [name for name in names if self.has(name)]
        every = [self.recipe(name, s).model_dump(mode="json") for name in there for s in self.seeds]
        return content_id(every)

    def read(self, name: str, take: Callable[[Session, Method, Row], T]) -> dict[int, T]:
        """Return what is read of one recipe, by seed."""
        return self.read_rows([Row(name=name, recipe=name)], Reading(take))[name]

    def read_rows(self, rows: Iterable[Row], reading: Reading[T]) -> dict[str, dict[int, T]]:
        """Return what is read of each row that the scale has a model for, by name and seed.

        What `data` holds is taken from there; for the rest a recipe of a seed is opened once.
        Raises MissingDataError if `data` lacks something and no run may be opened.
        """
        there = [row for row in rows if self.has(row.recipe)]
        found: dict[str, dict[int, T]] = {row.name: {} for row in there}
        for name in dict.fromkeys(row.recipe for row in there):
            of_recipe = [row for row in there if row.recipe == name]
            for seed in self.seeds:
                for row_name, value in self._read(name, seed, of_recipe, reading).items():
                    found[row_name][seed] = value
        return found

    def _read(self, name: str, seed: int, rows: Iterable[Row], reading: Reading[T]) -> dict[str, T]:
        recipe = self.recipe(name, seed)
        if self.data is None:
            return {row: value for row, value, _ in self._read_run(recipe, rows, reading)}
        kept, keys = self.data.of(recipe), {row.name: reading.key(row) for row in rows}
        for key in keys.values():
            self.data.check(kept, recipe, key)
        lacking = [row for row in rows if keys[row.name] not in kept.readings]
        for row_name, value, seconds in self._read_run(recipe, lacking, reading):
            dumped = reading.adapter.dump_python(value, mode="json")
            kept.keep(keys[row_name], dumped, seconds)
        validate = reading.adapter.validate_python
        return {row.name: validate(kept.readings[keys[row.name]], strict=False) for row in rows}

    def _read_run(
        self, recipe: Recipe, rows: Iterable[Row], reading: Reading[T]
    ) -> Iterator[tuple[str, T, float]]:
        """Yield the name of each row, what is read, and the seconds that it took."""
        if not (rows := list(rows)):
            return
        with open_session(recipe, self._place(recipe), self.reporter, shared=True) as session:
            made = method(session.setup)
            for row in rows:
                began = time.monotonic()
                value = reading.take(session, made, row)
                yield row.name, value, time.monotonic() - began

    def _place(self, recipe: Recipe) -> Path:
        """Return the run directory of the seed.

        Where data is kept, a recipe that has changed under its name gets a directory of its own.
        """
        usual = self.run_directory(recipe.seed)
        made = usual / "recipes" / f"{recipe.name}.json"
        if self.data is None or not made.is_file():
            return usual
        if read_recipe(made).identity() == recipe.identity():
            return usual
        return usual.with_name(f"{usual.name}-{recipe.name}-{content_id(recipe.identity())}")

    def pooled(
        self, rows: Iterable[Row], reading: Reading[Clusters[T]]
    ) -> dict[str, dict[str, list[T]]]:
        """Return what is read of each row, seeds joined by problem."""
        return {name: pool(runs.values()) for name, runs in self.read_rows(rows, reading).items()}
