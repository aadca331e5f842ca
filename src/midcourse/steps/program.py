r"""Cuts a response that holds a program: prose at blank lines, code by its statements.

A code block is cut where a top-level statement begins; of a function or a method the head is a step
and so is every statement of its body. What is nested deeper stays whole. The borders are those of
Python's own parser, and lie between lines, so nothing is lost. A comment belongs to the statement
after it, a blank line to the one before it; the line that opens a block ends the prose before it.
Code that does not parse is cut into lines from where it stops parsing.

    >>> split_statements("Add:\n\n```python\ndef f(x):\n    y = x\n    return y\n```\n")
    ['Add:\n\n```python\n', 'def f(x):\n', '    y = x\n', '    return y\n', '```\n']
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from midcourse.steps.cutting import STEP_SEPARATOR, join_steps, split_steps

_FENCE = re.compile(r"^[ \t]*(?P<mark>```+|~~~+)(?P<info>[^\n`]*)(?:\n|\Z)", re.MULTILINE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_COMMENT = re.compile(r"\s*#")
#: What Python's parser raises at a text that is no program, or one too deep or too long for it.
_NO_PROGRAM = (SyntaxError, ValueError, RecursionError, MemoryError)
#: How many lines are taken off a broken program, one by one, until it parses.
_MAX_DROPPED = 40


def split_statements(text: str) -> list[str]:
    """Return the steps of a text: of its prose, and of the statements of its code blocks."""
    steps: list[str] = []
    end = 0
    for block in _blocks(text):
        before = [*split_steps(text[end : block.start]), text[block.start : block.code]]
        steps += [*before[:-2], "".join(before[-2:])]
        steps += _statements(text[block.code : block.code_end])
        closing = text[block.code_end : block.end]
        steps += [closing] if closing else []
        end = block.end
    return steps + split_steps(text[end:])


def code_blocks(text: str) -> list[str]:
    """Return what stands in the code blocks of a text; one that is still open counts."""
    return [text[block.code : block.code_end] for block in _blocks(text)]


def open_block(text: str) -> str:
    """Return the code block that a text leaves open, with the line that opens it; else ""."""
    last = next((b for b in _blocks(text) if b.code_end == b.end == len(text)), None)
    return text[last.start :] if last else ""


class _Block(NamedTuple):
    """Offsets of a block, of its code, of the line that closes it, and of what follows."""

    start: int
    code: int
    code_end: int
    end: int


def _blocks(text: str) -> Iterator[_Block]:
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence["mark"].startswith(opened["mark"]) and not fence["info"].strip():
            end = fence.end()
            end += len(text[end:]) - len(text[end:].lstrip("\r\n"))
            yield _Block(opened.start(), opened.end(), fence.start(), end)
            opened = None
    if opened is not None:
        yield _Block(opened.start(), opened.end(), len(text), len(text))


def _statements(code: str) -> list[str]:
    """Return the statements of a program, with all that stands between them."""
    lines = _LINE.findall(code)
    borders, parsed = _borders(lines)
    # What does not parse is cut into lines.
    cuts = [0, *(border for border in borders if border), *range(parsed, len(lines) + 1)]
    return ["".join(lines[a:b]) for a, b in pairwise(sorted(set(cuts)))]


def _borders(lines: Sequence[str]) -> tuple[list[int], int]:
    """Return the 0-based lines on which steps begin, and how many lines that holds for."""
    for count in range(len(lines), max(0, len(lines) - _MAX_DROPPED), -1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(textwrap.dedent("".join(lines[:count])))
        except _NO_PROGRAM:
            continue
        return [_with_comments(lines, at - 1, after) for at, after in _begins(tree.body, 0)], count
    return [], 0


def _begins(body: Sequence[ast.stmt], after: int) -> Iterator[tuple[int, int]]:
    """Yield the 1-based line on which each step begins, and the last line of the step before it."""
    for statement in body:
        decorators = getattr(statement, "decorator_list", [])
        first = min(node.lineno for node in (statement, *decorators))
        if first > after:
            yield first, after
        if isinstance(statement, ast.ClassDef):
            yield from _begins(statement.body, statement.lineno)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            ends = [statement.lineno, *(inner.end_lineno or 0 for inner in statement.body)]
            inside = zip(statement.body, ends, strict=False)
            # After a semicolon no line begins.
            yield from ((inner.lineno, end) for inner, end in inside if inner.lineno > end)
        after = statement.end_lineno or after


def _with_comments(lines: Sequence[str], index: int, after: int) -> int:
    """Return where a step begins whose code begins at `index`: with the comments right above it."""
    while index > after and _COMMENT.match(lines[index - 1]):
        index -= 1
    return index


# --- an intervention ---------------------------------------------------------------------------


def placed_statement(content: str, steps: Sequence[str], index: int) -> str:
    """Return an intervention as it stands in the place of the step at a 0-based index.

    In code it is as deep as the statement that it replaces, and ends in a new line; elsewhere it
    ends in a blank line.
    """
    if not open_block(join_steps(steps[:index])):
        return content.rstrip() + STEP_SEPARATOR
    code = content.strip("\r\n").rstrip()
    replaced = steps[index] if index < len(steps) else ""
    if replaced.strip() and not _FENCE.match(replaced):
        margin = replaced[: len(replaced) - len(replaced.lstrip())].rpartition("\n")[2]
        code = textwrap.indent(textwrap.dedent(code), margin)
    return code + "\n"
