"""Where the experiments run: one scale, some seeds, and per seed one run directory for all recipes.

A recipe of an experiment is the packaged `paper/int`, the scale, `paper/<name>` and, where the
scale has something to add to just this recipe (a proposer's model, more samples), `<scale>/<name>`;
each is layered on those before it. Artifacts are named by what made them, so what two recipes have
in common is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from midcourse.config import Recipe, load_recipe
from midcourse.experiments.estimates import Clusters, pool
from midcourse.pipeline import Method, Session, method, open_session
from midcourse.progress import Reporter
from midcourse.recipes import find_recipe
from midcourse.records import content_id

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Reading = Callable[[Session, Method], T]
"""Takes something from one recipe of one seed; what is missing is made."""

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
        """Return one resolved recipe. Raises ConfigError in one line."""
        whole, own = find_recipe(f"paper/{WHOLE_METHOD}"), find_recipe(f"paper/{name}")
        optional = [self._extra(name)] if self._extra(name).is_file() else []
        layers = [self.scale, *([own] if own != whole else []), *optional, *self.overlays]
        fixed = [f"name={name}", f"seed={seed}", "train_rl.keep_checkpoints=true"]  # Fig. 12
        return load_recipe(whole, [*fixed, *self.settings], layers)

    def has(self, name: str) -> bool:
        """Whether the scale names the model that a recipe is about."""
        return name not in _OPTIONAL or self._extra(name).is_file()

    def _extra(self, name: str) -> Path:
        return self.scale.with_suffix("") / f"{name}.toml"

    def identity(self, names: Sequence[str]) -> str:
        """Return what tells the settings of some recipes, over all seeds, from others."""
        there = [name for name in names if self.has(name)]
        every = [self.recipe(name, s).model_dump(mode="json") for name in there for s in self.seeds]
        return content_id(every)

    def read(self, name: str, reading: Reading[T]) -> list[T]:
        """Return what `reading` takes from one recipe, by seed."""
        return self.read_all({name: (name, reading)})[name]

    def read_all(self, wanted: Mapping[K, tuple[str, Reading[T]]]) -> dict[K, list[T]]:
        """Return what each (recipe, reading) takes, by seed; a recipe of a seed is opened once."""
        found: dict[K, list[T]] = {key: [] for key in wanted}
        for name in dict.fromkeys(name for name, _ in wanted.values()):
            for seed in self.seeds:
                recipe, directory = self.recipe(name, seed), self.run_directory(seed)
                with open_session(recipe, directory, self.reporter, shared=True) as session:
                    made = method(session.setup)
                    for key, (of, reading) in wanted.items():
                        if of == name:
                            found[key].append(reading(session, made))
        return found

    def pooled(
        self, wanted: Mapping[K, tuple[str, Reading[Clusters[T]]]]
    ) -> dict[K, dict[str, list[T]]]:
        """Return what each (recipe, reading) takes, seeds joined by problem."""
        return {key: pool(runs) for key, runs in self.read_all(wanted).items()}
