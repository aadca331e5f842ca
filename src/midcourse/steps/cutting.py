r"""Cuts a response into steps at blank lines, and what is done with steps however they were cut.

A step ends with the blank line after it (``"\n\n"``), because tokenizers merge a full stop
with the newlines that follow: cutting *after* the blank line keeps the sampled tokens whole.
Nothing is ever stripped, so joining the steps gives back the text byte for byte (the paper,
§2, footnote 1).

    >>> split_steps("Let x = 2.\n\nThen 2x = 4.")
    ['Let x = 2.\n\n', 'Then 2x = 4.']

Other rules are in `midcourse.steps.rules`. This module also owns the only conversion between the
0-based ``error_step`` used inside and the 1-based ``location`` a model reads and writes
("Substep 1").
"""

from __future__ import annotations

from collections.abc import Sequence

from midcourse.records import Proposal

STEP_SEPARATOR = "\n\n"


def split_steps(text: str) -> list[str]:
    r"""Return the steps of `text`; ``join_steps(split_steps(text)) == text`` always.

    The cut is after exactly ``"\n\n"``, leftmost first: of three newlines the third belongs to
    the next step. The empty text has no steps.
    """
    pieces = text.split(STEP_SEPARATOR)
    steps = [piece + STEP_SEPARATOR for piece in pieces[:-1]]
    return [*steps, pieces[-1]] if pieces[-1] else steps


def join_steps(steps: Sequence[str]) -> str:
    """Return the text that `steps` were cut from."""
    return "".join(steps)


def location_from_error_step(error_step: int) -> int:
    """0-based step index → the 1-based number a model reads."""
    return error_step + 1


def error_step_from_location(location: int) -> int:
    """The 1-based number a model wrote → 0-based step index."""
    return location - 1


def insert_step(proposal: Proposal) -> int:
    """Return the 0-based step that a proposal's intervention replaces.

    Raises ValueError if the proposal has no location.
    """
    if proposal.location is None:
        raise ValueError(f"proposal {proposal.proposal_id} has no location")
    return error_step_from_location(proposal.location)


def step_at(steps: Sequence[str], offset: int) -> int:
    """Return the 0-based step that holds character `offset` (0-based) of the joined text.

    Raises ValueError if the text ends before it.
    """
    end = 0
    for index, step in enumerate(steps):
        end += len(step)
        if 0 <= offset < end:
            return index
    raise ValueError(f"offset {offset} is not within 0 … {end - 1}")
