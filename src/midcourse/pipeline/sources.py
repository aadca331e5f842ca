"""What stages are composed from: views of the problems, the questions about them, hints."""

from __future__ import annotations

from dataclasses import dataclass, field

from midcourse.config import HELD_OUT_SET, Recipe
from midcourse.environments import environment_named
from midcourse.errors import ConfigError
from midcourse.pipeline.contexts import Hints
from midcourse.pipeline.session import Setup
from midcourse.pipeline.values import Dialogues, Problems, Subset, Texts, view
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
            self._views[of, names] = view(self.whole(of), *names)
        return self._views[of, names]

    def questions(self, of: str = "train") -> Texts:
        """Return what the user says for each problem of a set."""
        if of not in self._texts:
            prompt = self.setup.prompts["solve"]
            texts = {p.problem_id: prompt.render(problem=p.text) for p in self.whole(of)}
            self._texts[of] = Texts(texts)
        return self._texts[of]

    def dialogues(self, of: str = "train") -> Dialogues | None:
        """Return what answers the model's turns about a set; None where nothing does.

        An environment sees texts and entries, and no answer.
        """
        config = self.recipe.environment
        if not config.name:
            return None
        return Dialogues(
            environment=config.name,
            version=environment_named(config.name).version,
            max_turns=config.max_turns,
            timeout_seconds=config.timeout_seconds,
            problems=self.problems("text", "entry", of=of),
        )

    def hints(self) -> Hints:
        """Return how hints are made. Raises ConfigError if the prompt set has none."""
        recipe = self.recipe
        return Hints(prompt=self.setup.prompts["hint"], config=recipe.hints, seed=recipe.seed)

    def whole(self, of: str = "train") -> list[Problem]:
        """Return one set of problems with all their fields; what is evaluated on may be a subset.

        Raises ConfigError if there is no such set.
        """
        sets, recipe = self.setup.problems, self.recipe
        if of == "train":
            return sets.train
        if of not in sets.evaluation:
            known = ", ".join(sets.evaluation) or "none"
            raise ConfigError(
                f"there are no {of} problems to evaluate on (there are: {known}): set "
                f"{'problems.held_out_path' if of == HELD_OUT_SET else f'evaluate.sets.{of}.path'}"
            )
        subset = Subset.of(recipe.evaluate.subset_of(of), recipe.seed)
        return subset.choose(sets.evaluation[of]) if subset else sets.evaluation[of]
