"""What a model may talk to between its turns: tools, memories, worlds."""

from __future__ import annotations

from midcourse.environments.base import Environment, Role
from midcourse.environments.registry import environment_named, environment_names
from midcourse.environments.tools import ToolEnvironment

__all__ = ["Environment", "Role", "ToolEnvironment", "environment_named", "environment_names"]
