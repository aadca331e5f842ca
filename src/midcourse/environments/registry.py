"""The environments there are, by name: our own, those that packages bring, and those of a recipe.

A package brings them by entry points of the group ``midcourse.environments``; a recipe names one of
its user's own as ``package.module:Name``, a class or an object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from midcourse.environments.base import Environment, Role
from midcourse.environments.memory import MemoryEnvironment
from midcourse.errors import ConfigError
from midcourse.plugins import Plugin, find, installed

GROUP = "midcourse.environments"
_ENVIRONMENTS: dict[str, Environment] = {MemoryEnvironment.name: MemoryEnvironment()}
#: What an environment of one's own has to have.
_MEMBERS = ("name", "version", "role", "answer")


def environment_names() -> list[str]:
    """Return the names to choose among: nothing is imported for it."""
    return [*_ENVIRONMENTS, *(name for name in installed(GROUP) if name not in _ENVIRONMENTS)]


def environment_named(name: str) -> Environment:
    """Return an environment. Raises ConfigError for an unknown name or a bad plugin."""
    if name in _ENVIRONMENTS:
        return _ENVIRONMENTS[name]
    if plugin := find(name, installed(GROUP), "environment.name"):
        return _made(plugin, name)
    known = ", ".join(environment_names())
    raise ConfigError(
        f"environment.name {name[:40]!r}: choose one of {known}, or write one of your own as "
        "package.module:Name"
    )


@cache
def _made(plugin: Plugin, name: str) -> Environment:
    value: Any = plugin.value
    missing = [member for member in _MEMBERS if not hasattr(value, member)]
    if missing and not isinstance(value, type):
        raise ConfigError(
            f"environment.name {name!r} is no environment: it has no {', '.join(missing)} (see "
            "midcourse.environments.Environment; ToolEnvironment makes one of tools)"
        )
    try:
        made: Environment = value() if isinstance(value, type) else value
        version = f"{made.version}+{plugin.version}"
        if made.role not in get_args(Role):
            raise ValueError(f"its role is {made.role!r}, not one of {', '.join(get_args(Role))}")
        return _Own(made, version)
    except Exception as error:  # whatever a user's class does
        raise ConfigError(f"environment.name {name!r} cannot be made: {error}") from error


@dataclass(frozen=True, slots=True)
class _Own:
    """A user's environment, whose version tells its module's content too."""

    environment: Environment
    version: str

    @property
    def name(self) -> str:
        return self.environment.name

    @property
    def role(self) -> Role:
        return self.environment.role

    def answer(self, problem: Any, turns: Any) -> str | None:
        return self.environment.answer(problem, turns)
