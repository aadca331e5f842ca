"""What stages are composed from: views of the problems, the questions about them, hints."""

from __future__ import annotations

from dataclasses import dataclass, field

from midcourse.config import Recipe
from midcourse.errors import ConfigError
from midcourse.pipeline.contexts import Hints
from midcourse.pipeline.session import Setup
from midcourse.pipeline.values import Problems, Texts, view
from midcourse.records import Problem

GOLD = ("answer", "checker", "entry")
"""The fields of a problem that a grader reads."""
WHOLE = ("text", *GOLD, "reference_solution")


@dataclass(frozen=True)
class Sources:
    """A setup, and the views and texts that were made of it, each once."""

    setup: Setup
    _views: dict[tuple[str, tuple[str, ...]], Problems] = field(default_factory=dict)
    _texts: dict[str, Texts] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the setup."""
        return self.setup.recipe

    def problems(self, *names: str, of: str = "train") -> Problems:
        """Return one set of problems with these fields alone."""
        if (of, names) not in self._views:
            self._views[of, names] = view(self._set(of), *names)
        return self._views[of, names]

    def questions(self, of: str = "train") -> Texts:
        """Return what the user says for each problem of a set."""
        if of not in self._texts:
            prompt = self.setup.prompts["solve"]
            texts = {p.problem_id: prompt.render(problem=p.text) for p in self._set(of)}
            self._texts[of] = Texts(texts)
        return self._texts[of]

    def hints(self) -> Hints:
        """Return how hints are made. Raises ConfigError if the prompt set has none."""
        recipe = self.recipe
        return Hints(prompt=self.setup.prompts["hint"], config=recipe.hints, seed=recipe.seed)

    def _set(self, name: str) -> list[Problem]:
        problems = self.setup.problems
        if name == "train":
            return problems.train
        if name not in problems.evaluation:
            raise ConfigError(f"there are no {name} problems: set problems.held_out_path")
        return problems.evaluation[name]
