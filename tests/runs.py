"""Runs for tests: a recipe's method, and a session that completes what a test asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from midcourse.config import Recipe
from midcourse.pipeline import Method, Session, method, open_session
from midcourse.progress import SilentProgress

T = TypeVar("T")


def run_to(
    directory: Path, recipe: Recipe, use: Callable[[Session, Method], T], *, shared: bool = False
) -> T:
    """Return what `use` makes of a session in `directory` and the recipe's method."""
    with open_session(recipe, directory, SilentProgress(), shared=shared) as session:
        return use(session, method(session.setup))
