"""The public surface of the package: what ``import midcourse`` gives."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import midcourse
from midcourse import records

NAMES = midcourse.__all__


def test_the_public_names_are_sorted_and_all_there() -> None:
    assert sorted(NAMES) == NAMES
    assert len(set(NAMES)) == len(NAMES)
    assert set(NAMES) <= set(dir(midcourse))
    for name in NAMES:
        assert getattr(midcourse, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'grade_response'"):
        midcourse.grade_response  # type: ignore[attr-defined] # noqa: B018


def test_every_record_is_public() -> None:
    classes = {
        name
        for name, found in vars(records).items()
        if inspect.isclass(found) and found.__module__ == records.__name__
    }
    assert len(classes) >= 20
    assert classes <= set(NAMES)


def test_what_is_loaded_lazily_is_what_a_type_checker_sees() -> None:
    tree = ast.parse(Path(midcourse.__file__).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    (seen,) = [node for node in blocks if isinstance(node.test, ast.Name)]
    imported = {
        alias.name: node.module
        for node in seen.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == midcourse._LAZY
    for name, module in midcourse._LAZY.items():
        found = getattr(midcourse, name)
        assert found.__module__.startswith(module)


def test_importing_the_package_loads_little() -> None:
    code = (
        "import sys; before = set(sys.modules); import midcourse; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name for name in loaded if name not in sys.stdlib_module_names}
    assert ours == {"midcourse"}
