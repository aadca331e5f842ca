"""Errors a user can act on, named for the boundary that broke.

    MidcourseError
    ├── ConfigError      a recipe, flag or prompt set is wrong: nothing was started
    ├── DataError        a problem file is wrong: the message names file, line and field
    ├── ArtifactError    a run directory is locked, damaged, of another schema or recipe
    ├── EngineError      a model or server failed in a way no retry can fix
    └── MissingExtra     an optional dependency is absent: the message is the command to run

Everything else is a bug of ours and keeps its traceback. A bad *item* (a rollout that
cannot be graded, a proposal that does not parse) is never an exception: it is a record
with an outcome.
"""

from __future__ import annotations


class MidcourseError(Exception):
    """Base of every error whose message alone tells a user what to do."""


class ConfigError(MidcourseError):
    """A recipe, a ``--set`` flag or a prompt set is wrong."""


class DataError(MidcourseError):
    """A problem file is wrong."""


class ArtifactError(MidcourseError):
    """A run directory cannot be used as it is."""


class EngineError(MidcourseError):
    """A model or a server cannot serve this run."""


class MissingExtra(MidcourseError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed: run  pip install 'midcourse[{extra}]'")
