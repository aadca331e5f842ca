"""The records of the first-error benchmark: what people marked, and what was answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LocalizationOutcome(StrEnum):
    """What became of one question for the first error. Only the first two are answers."""

    NAMED = "named"
    """A step of the attempt was named."""
    NO_ERROR = "no_error"
    """The tag is there and empty: the attempt is right."""
    NO_TAG = "no_tag"
    MALFORMED = "malformed"
    OUT_OF_RANGE = "out_of_range"
    """The number is not that of a step."""
    TRUNCATED = "truncated"
    PROMPT_TOO_LONG = "prompt_too_long"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCase:
    """A solution in which people marked the first wrong step, e.g. error_step 2 of 5 steps."""

    case_id: str
    """Unique within its source."""
    source: str
    """Data set and part, e.g. ``ProcessBench/gsm8k``."""
    problem: str
    reference: str | None
    """A right solution, where the data set has one."""
    steps: tuple[str, ...]
    error_step: int | None
    """0-based first wrong step; null if people found none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Localization:
    """One answer to where an attempt first goes wrong, next to what people marked."""

    localization_id: str
    case_id: str
    source: str
    locator: str
    """Who was asked: a model folder's or a served model's name."""
    shows_reference: bool
    num_steps: int
    error_step: int | None
    """As marked: 0-based, null if there is no error."""
    outcome: LocalizationOutcome
    named_step: int | None
    """As answered: 0-based; set where, and only where, the outcome is `named`."""
    reply: str
    prompt_name: str
    prompt_sha: str
