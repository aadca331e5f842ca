"""Who may import whom, and habits that a machine can check."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "midcourse"
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = {"torch", "transformers", "trl", "accelerate", "datasets", "ray", "vllm", "matplotlib"}
MAY_BE_HEAVY = (
    "engines/transformers_engine.py",
    "engines/_decoder.py",
    "engines/_head.py",
    "engines/_kv_buffer.py",
    "engines/_sampling.py",
    "engines/_session.py",
    "engines/_threads.py",
    "engines/fast_batch.py",
    "engines/plain_batch.py",
    "engines/weights.py",
    "training/",
    "lab/pretrain.py",
)
#: Package parts from the bottom up; a part imports itself and what stands before it.
LAYERS = [
    {"errors", "records", "processes", "metrics", "steps", "plugins", "printable", "tokens"},
    {"store", "recipes", "config", "progress", "table", "encoding"},
    {"prompts", "rendering", "sandbox"},
    {"checkers", "environments"},
    {"engines", "data"},
    {"stages"},
    {"run"},
    {"lab", "training", "tracking"},
    {"viewer"},
    {"pipeline"},
    {"report"},
    {"experiments", "plan", "export", "localize", "warmup", "watch"},
    {"credit"},
    {"start"},
    {"cli", "__main__", "__init__"},
]


def part_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path, top_level: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def layer(part: str) -> int:
    return next(i for i, parts in enumerate(LAYERS) if part in parts)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_downwards(path: Path) -> None:
    part = part_of(path)
    for name in imports(path, top_level=False):
        if name.startswith("midcourse."):
            other = name.split(".")[1]
            assert layer(other) <= layer(part), f"{part} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_heavy_libraries_stay_at_the_edge(path: Path) -> None:
    relative = str(path.relative_to(SOURCE))
    if not relative.startswith(MAY_BE_HEAVY):
        assert not {name.split(".")[0] for name in imports(path, top_level=True)} & HEAVY


def test_records_need_the_standard_library_alone() -> None:
    for name in imports(SOURCE / "records.py", top_level=False):
        assert name.split(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_habits(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 50, f"{node.name} has {length} lines"


def test_rooms_form_no_cycle() -> None:
    rooms: dict[str, set[str]] = {}
    for path in FILES:
        names = imports(path, top_level=False)
        others = {name.split(".")[1] for name in names if name.startswith("midcourse.")}
        rooms.setdefault(part_of(path), set()).update(others - {part_of(path)})
    assert list(TopologicalSorter(rooms).static_order())


#: Records of settings and of numbers, not objects that do something.
MANY_FIELDS = {"Recipe", "TrainRlConfig", "Assumptions", "Item"}


def members(node: ast.ClassDef) -> set[str]:
    """Return the public methods, properties and fields of a class."""
    names = {b.name for b in node.body if isinstance(b, ast.FunctionDef | ast.AsyncFunctionDef)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
            names.add(inner.target.id)
        elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            names |= {inner.attr} if ast.unparse(inner.value) == "self" else set()
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_object_has_more_than_twenty_public_members(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and node.name not in MANY_FIELDS:
            assert len(members(node)) <= 20, node.name


#: What a class of ours may extend: the standard library's, pydantic's, TRL's; and `Section`.
BASES = {"Section", "MidcourseError", "Protocol", "Generic", "StrEnum", "Exception", "BaseModel"}


def test_nothing_inherits_an_implementation_of_ours() -> None:
    nodes = [node for path in FILES for node in ast.walk(ast.parse(path.read_text()))]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    for name, node in classes.items():
        bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
        assert not bases & classes.keys() - BASES, f"{name} extends {bases}"
