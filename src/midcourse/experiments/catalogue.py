"""The experiments as data, from ``experiments.toml``: what is read, the paper's figures, claims."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, TypeAdapter

from midcourse.records import Condition, Role
from midcourse.table import Table


class Measure(StrEnum):
    """What a claim compares."""

    ACCURACY = "accuracy"
    COVERAGE = "coverage"
    PASS_AT_K = "pass@k"
    MEAN = "mean"
    PLATEAU = "plateau"
    """pass@1 at the plateau of RL."""
    AREA = "area"
    """Area under pass@1 along RL."""
    REWARD = "reward"
    """In the last two fifths of RL."""
    ZERO_ADVANTAGE = "zero-advantage"
    """The ratio in all of RL."""
    AT_BUDGET = "at budget"
    """Gain in pass@1 where a budget of tokens ends."""
    ALONG_BUDGET = "along budget"
    """Mean gain in pass@1 while it is spent."""
    SLOPE = "slope"
    """Of the lead over distillation by the distance of its teacher."""


class Unit(StrEnum):
    """What is resampled, or counted, to tell how sure a statement is."""

    PROBLEM = "problem"
    """Right for what one model is asked: no training lies between."""
    RUN = "run"
    """Right for what is trained: runs of one recipe differ by more than their problems tell."""

    @property
    def said(self) -> str:
        """What a page says of statements and intervals."""
        return _SAID[self]


_SAID = {
    Unit.PROBLEM: "The unit is a problem: one model is asked, nothing is trained in between; seeds "
    "are pooled.",
    Unit.RUN: "The unit is a training run: arms are compared on the seeds that both have. "
    "Intervals: 95 %, Student's t over runs, from three runs on; with fewer a statement is open.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table, e.g. a model or a condition, and where it is read."""

    name: str
    recipe: str = "int"
    cells: tuple[str, ...] = ()
    """What stands next to the name, the paper's figures among it."""
    role: Annotated[Role, BeforeValidator(Role.parse)] = field(default_factory=Role)
    condition: Condition | None = None
    """What is continued from; of rows of continuations, none stands for those kept for training."""
    is_fresh: bool = False
    """Of those, the continuations that were drawn after the choice."""
    shift: int = 0
    """How many steps later the intervention is put."""
    text: str = ""
    """The kind of text whose likelihood is read; of a proposer's answers, how it was asked."""

    @property
    def key(self) -> str:
        """What decides what is read of it, next to the recipe, e.g. ``patched + RL``."""
        of = (
            self.condition,
            self.text,
            "fresh" * self.is_fresh,
            f"{self.shift:+}" * bool(self.shift),
        )
        return ", ".join(map(str, filter(None, (str(self.role), *of))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That one row is above others, or below them; words name {other}, {k}, {on}."""

    words: str
    ours: str
    theirs: tuple[str, ...] = ()
    """Left out: every other row."""
    lower: bool = False
    """That the row in `ours` is below the others, not above."""
    measure: Measure = Measure.ACCURACY
    factor: float = 1.0
    k: int = 0
    """Of pass@k, e.g. 8; left out, the largest that every problem has samples for."""
    only: str = ""
    """The evaluation set that it is about, or two whose gains it compares, with a comma between;
    left out, each of the experiment's."""
    within: float = 0.0
    """That the two differ by less than this part of the row in `of` instead."""
    of: str = ""
    unit: str = " %"
    """What means are said in; as they are, or in per cent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands around the rows of a table."""

    title: str
    columns: tuple[str, ...] = ()
    note: str = ""

    def table(self, *rows: tuple[str, ...]) -> Table:
        """Return the table with its rows."""
        return Table(self.title, self.columns, rows, self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One table, figure or analysis, e.g. ``table1``."""

    name: str = ""
    title: str
    tables: tuple[Head, ...] = ()
    rows: tuple[Row, ...] = ()
    row_notes: Mapping[str, str] = field(default_factory=dict)
    """What a table's note says of a row, by its name, where the row is there."""
    claims: tuple[Claim, ...] = ()
    unit: Unit = Unit.RUN
    """Of its claims."""
    stated_in: tuple[str, ...] = ()
    """Others whose claims say what it shows: no claim is made twice."""
    judged_on: str = ""
    """The page of results that judges what is read for it."""
    like: str = ""
    """Another experiment whose rows come first."""
    recipes: tuple[str, ...] = ()
    """The recipes of ``paper/`` that it opens; left out, those of its rows."""
    needs_lab: bool = False
    """Whether it asks for the true first error, which only the lab knows."""

    def of_recipes(self, recipes: Sequence[str]) -> Experiment:
        """Return it with the rows of these recipes alone. Claims about others are passed over."""
        rows = tuple(row for row in self.rows if row.recipe in recipes)
        return replace(self, rows=rows, recipes=tuple(dict.fromkeys(row.recipe for row in rows)))


@cache
def experiments() -> Mapping[str, Experiment]:
    """Return every experiment by name, in order."""
    text = (resources.files("midcourse.experiments") / "experiments.toml").read_text("utf-8")
    adapter = TypeAdapter(dict[str, Experiment], config=ConfigDict(extra="forbid"))
    read = adapter.validate_python(tomllib.loads(text))
    return {name: _complete(name, of, read.get(of.like)) for name, of in read.items()}


def _complete(name: str, of: Experiment, like: Experiment | None) -> Experiment:
    rows = (*like.rows, *of.rows) if like else of.rows
    recipes = of.recipes or tuple(dict.fromkeys(row.recipe for row in rows)) or ("int",)
    return replace(of, name=name, rows=rows, recipes=recipes)
