"""What an experiment comes to: tables, claims with a verdict, figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from midcourse.experiments.bench import Bench
from midcourse.report.plots import Figure
from midcourse.report.shape import ShapeLine
from midcourse.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one experiment over all seeds of a bench."""

    tables: tuple[Table, ...]
    claims: tuple[ShapeLine, ...]
    """What the paper says, and whether it holds here."""
    figure: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One table, figure or analysis, e.g. ``table1``."""

    name: str
    title: str
    recipes: tuple[str, ...]
    """The recipes of ``recipes/paper/`` that it opens."""
    make: Callable[[Bench], Result] = field(repr=False)
    needs_lab: bool = False
    """Whether it asks for the true first error, which only the lab knows."""


def claim_lines(claims: Sequence[ShapeLine]) -> list[str]:
    """Return the claims with their verdicts as lines of Markdown."""
    rows = tuple((claim.claim, claim.verdict, claim.figures) for claim in claims)
    return ["", *Table("", ("the paper's shape", "here", "figures"), rows).markdown()]


def table_lines(table: Table) -> list[str]:
    """Return a titled table with its note as lines of Markdown."""
    return ["", f"## {table.title}", "", *table.markdown(), "", table.note]
