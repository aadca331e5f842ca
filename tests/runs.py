"""Runs of a recipe as tests need them: one session, its method, and what a test makes of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from midcourse.checkers import AnswerChecker
from midcourse.config import Recipe
from midcourse.pipeline import Method, Session, method, open_session
from midcourse.progress import SilentProgress
from midcourse.records import RowOutcome, SftRow
from midcourse.report.collect import funnel_counts
from midcourse.report.tables import funnel_table

T = TypeVar("T")
EXACT = AnswerChecker("exact", "1", lambda answer, gold: answer == gold)
"""A checker that a recipe names by its path."""


def run_to(
    directory: Path, recipe: Recipe, use: Callable[[Session, Method], T], *, shared: bool = False
) -> T:
    """Open the run directory of a recipe; return what `use` makes of its session and method."""
    with open_session(recipe, directory, SilentProgress(), shared=shared) as session:
        return use(session, method(session.setup))


def funnel(session: Session, made: Method) -> dict[str, dict[str, int]]:
    """Return the counts of every stage up to the rows, completed; they must add up."""
    session.complete(made.models.rows)
    counts = funnel_counts(session.run, made)
    funnel_table(counts)
    return counts


def ready(session: Session, made: Method) -> list[SftRow]:
    """Return the rows that can be trained on."""
    return [row for row in session.read(made.models.rows) if row.outcome is RowOutcome.READY]
