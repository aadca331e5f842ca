r"""Benchmarks of programs as published: their rows become problems of the checker ``unit-tests``.

* HumanEval: ``prompt``, ``canonical_solution``, ``test``, ``entry_point``.
* MBPP: ``text`` or ``prompt``, ``code``, ``test_list``, ``test_setup_code`` or ``test_imports``.
* LiveCodeBench: ``question_content``, ``starter_code``, ``public_test_cases``,
  ``private_test_cases``, ``metadata``. It has no reference programs. Its private tests are a pickle
  of one text, which is read and not unpickled.

A row whose tests cannot be read keeps an entry without tests, which is a complaint.
"""

from __future__ import annotations

import ast
import base64
import json
import pickletools
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from midcourse.checkers.unit_tests import NAME

Fields = Mapping[str, Any]
#: The most that compressed tests may come to.
_MAX_TEST_BYTES = 500_000_000
_TEXTS = {"BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"}
_HARMLESS = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"}


def human_eval(fields: dict[str, Any], row: Fields) -> dict[str, Any]:
    """HumanEval: the head of a function, and a ``check`` of what completes it."""
    head, name = str(row.get("prompt", "")), str(row.get("entry_point", ""))
    body = row.get("canonical_solution")
    code = f"{row.get('test')}\n\ncheck({name})"
    tests = [{"code": code, "names": [name]}] if row.get("test") and name else []
    asked = f"Write the function `{name}`:\n\n{_block(head)}"
    return _problem(fields, asked, head + str(body) if body else "", tests)


def mbpp(fields: dict[str, Any], row: Fields) -> dict[str, Any]:
    """MBPP: a sentence, and assertions that say how the function is called."""
    said, asserts = row.get("text") or row.get("prompt") or "", _texts(row.get("test_list"))
    before = [*_texts(row.get("test_imports")), str(row.get("test_setup_code") or "")]
    setup = "".join(f"{line}\n" for line in before if line.strip())
    lines = (*asserts, *_texts(row.get("challenge_test_list")))
    names = _defined(str(row.get("code") or ""))
    tests = [{"code": setup + line, **({"names": names} if names else {})} for line in lines]
    asked = f"{said}\n\nIt is called like this:\n\n{_block(asserts[0])}" if asserts else str(said)
    return _problem(fields, asked, str(row.get("code") or ""), tests)


def live_code_bench(fields: dict[str, Any], row: Fields) -> dict[str, Any]:
    """LiveCodeBench: a script that reads its input, or a method of ``Solution``."""
    asked, starter = str(row.get("question_content", "")), str(row.get("starter_code") or "")
    if starter.strip():
        asked += f"\n\nComplete this:\n\n{_block(starter)}"
    else:
        asked += "\n\nThe program reads its input from standard input and prints its output."
    try:
        name = json.loads(row.get("metadata") or "{}").get("func_name", "")
        cases = [*_cases(row.get("public_test_cases")), *_cases(row.get("private_test_cases"))]
        tests = [_live_test(case, f"Solution.{name}") for case in cases]
    except (ValueError, KeyError, TypeError, AttributeError):
        tests = []
    return _problem(fields, asked, "", tests)


def _defined(program: str) -> list[str]:
    """Return the names that a program gives to functions and classes: its tests are about those."""
    try:
        body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def _problem(
    fields: Fields, asked: str, program: str, tests: list[dict[str, Any]]
) -> dict[str, Any]:
    found: dict[str, Any] = {"problem": asked, "checker": NAME, "entry": {"tests": tests}}
    if program:
        found |= {"answer": program, "reference_solution": _block(program)}
    return found | ({"id": fields["id"]} if "id" in fields else {})


def _block(program: str) -> str:
    return f"```python\n{program.strip(chr(10)).rstrip()}\n```"


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _live_test(case: Fields, call: str) -> dict[str, Any]:
    if case["testtype"] == "stdin":
        return {"stdin": str(case["input"]), "stdout": str(case["output"])}
    args = [json.loads(line) for line in str(case["input"]).splitlines() if line.strip()]
    return {"call": call, "args": args, "expected": json.loads(case["output"])}


def _cases(told: Any) -> Iterator[Fields]:
    """Yield the cases of a list, of its JSON, or of that pickled, compressed and in base 64."""
    if isinstance(told, str):
        told = json.loads(told if told.lstrip()[:1] in ("[", "") else _unpacked(told))
    yield from told or ()


def _unpacked(told: str) -> str:
    """Return the text of a compressed pickle. Raises ValueError if there is more in it."""
    expand = zlib.decompressobj()
    try:
        pickled = expand.decompress(base64.b64decode(told, validate=True), _MAX_TEST_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    found = []
    for code, value, _ in pickletools.genops(pickled):
        if code.name in _TEXTS:
            found.append(str(value))
        elif code.name not in _HARMLESS:
            raise ValueError(f"a pickle that is more than a text: {code.name}")
    if len(found) != 1:
        raise ValueError("a pickle of one text is expected")
    return found[0]
