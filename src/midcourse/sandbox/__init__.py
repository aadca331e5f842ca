"""Runs programs that nobody has read: apart from this machine, within limits, against tests."""

from __future__ import annotations

from midcourse.sandbox.launch import Limits, Outcome, Report, Sandbox, SandboxKind

__all__ = ["Limits", "Outcome", "Report", "Sandbox", "SandboxKind"]
