r"""An environment of tools: the public methods of an object that is made anew for each dialogue.

The object is what TRL's ``environment_factory`` makes: it may have a ``reset``, and every other
public method but ``get_reward`` is a tool. ``reset`` is given ``problem`` and ``entry``, texts of
the problem; what it returns is not shown, since a dialogue begins with the problem alone.

    class Calculator:
        def add(self, a: float, b: float) -> float:
            return a + b

    Calculating = ToolEnvironment("calculator", "1", Calculator)

A model calls tools as Qwen and Hermes do, by JSON in a tag, as often as it likes in one turn; a
turn without a call ends the dialogue:

    <tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from midcourse.environments.base import Role
from midcourse.records import Problem

#: What the trainer calls, not the model.
_NO_TOOLS = ("reset", "get_reward")
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolEnvironment:
    """Calls methods; those of its own are `base.Environment`'s."""

    name: str
    version: str
    factory: Callable[[], Any]
    """Makes the object whose methods are the tools. Its answers must depend on the calls alone."""
    role: Role = "tool"

    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """Return what the calls of the last turn gave, one on a line; None if there is none.

        A call of the model that cannot be read, or that a tool refuses with an error, is answered
        with what is wrong about it. The calls of earlier turns are made again first.
        """
        tools = self.factory()
        if hasattr(tools, "reset"):
            tools.reset(problem=problem.text, entry=problem.entry)
        results: list[str] = []
        for turn in turns:
            results = [_called(tools, call) for call in _CALL.findall(turn)]
        return "\n".join(results) if results else None


def _called(tools: Any, text: str) -> str:
    """Make one call; what a model does wrong is told to it."""
    try:
        call = json.loads(text)
        name, arguments = call["name"], call.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return 'error: a call is {"name": …, "arguments": {…}}'
    method = getattr(tools, name, None) if isinstance(name, str) and name.isidentifier() else None
    if name in _NO_TOOLS or str(name).startswith("_") or not callable(method):
        return f"error: there is no tool {str(name)[:40]!r}"
    if not isinstance(arguments, dict):
        return "error: arguments are an object of names and values"
    try:
        return str(method(**arguments))
    except Exception as error:  # noqa: BLE001 - a tool's own way to refuse what it is given
        return f"error: {type(error).__name__}: {error}"[:500]
