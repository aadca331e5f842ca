"""What a verb says when it is done: what came of it, what it took, and what comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from midcourse.cli.typed import as_typed

if TYPE_CHECKING:
    from midcourse.pipeline import Method, Session
    from midcourse.run import Step

StepsOf = Callable[["Method"], Iterable["Step"]]


@dataclass(frozen=True, slots=True)
class Given:
    """What a command was given: the next one is given the same."""

    recipe: str
    overlays: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    run_dir: Path | None = None

    def command(self, verb: str) -> str:
        """Return a command on the same recipe: ``midcourse verify my.toml --set seed=1``."""
        words = [self.recipe]
        words += [word for name in self.overlays for word in ("--with", name)]
        words += [word for value in self.overrides for word in ("--set", value)]
        words += ["--run-dir", str(self.run_dir)] if self.run_dir else []
        return as_typed(["midcourse", *verb.split()], words)


def summarise(session: Session, verb: str, steps: Iterable[Step]) -> None:
    """Say of each step where it is, what came of it, and what it took.

    What is sampled only to be graded is said with its grades.
    """
    from midcourse.report.overview import result_of, spent
    from midcourse.store.progress import seconds_between
    from midcourse.tokens import TokenCount, add_tokens, duration, read_tokens

    run, ordered = session.run, list({session.run.path(step): step for step in steps}.values())
    seconds, tokens = 0.0, dict[str, TokenCount]()
    for number, step in enumerate(ordered):
        manifest = run.artifact(step).manifest
        seconds += seconds_between(manifest.get("started", ""), manifest.get("finished", ""))
        tokens = add_tokens(tokens, read_tokens(manifest.get("tokens", {})))
        follower = ordered[number + 1] if number + 1 < len(ordered) else None
        if step.name == "sample" and follower is not None and step in follower.inputs:
            continue
        cost = session.recipe.prices.cost(tokens)
        folder = run.path(step)
        parts = [result_of(folder, manifest), duration(seconds), *spent(tokens, cost)]
        which = f" ({step.label})" if len(ordered) > 1 else ""
        run.reporter.say(f"{verb}: complete in {folder}{which}: {', '.join(filter(None, parts))}")
        seconds, tokens = 0.0, {}


def following(session: Session, made: Method, later: Mapping[str, StepsOf]) -> str:
    """Return the first of the later verbs that has something to do; then what reports."""
    planned = [step for steps in made.steps() for step in steps]
    keys = {step.key for step in planned}

    def is_open(steps: Iterable[Step]) -> bool:
        return any(s.key in keys and not session.run.is_complete(s) for s in steps)

    found = next((verb for verb, steps_of in later.items() if is_open(steps_of(made))), "")
    return found or ("run" if is_open(planned) else "report")


def say_totals(session: Session) -> None:
    """Say what a run took altogether."""
    from midcourse.report.overview import read_overview

    directory = session.run.directory
    session.run.reporter.say(f"{directory}: {read_overview(directory).totals()}")
