"""What a shell may complete; ``midcourse --install-completion`` makes it ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def recipe_names(incomplete: str) -> list[tuple[str, str]]:
    """Return packaged recipes and ``.toml`` files, each with what it is."""
    from midcourse.recipes import list_recipes

    known = [(info.name, info.summary) for info in list_recipes()]
    files = [(name, "a file or folder") for name in _toml_files(incomplete)]
    return [*files, *_beginning(known, incomplete)]


def _toml_files(incomplete: str) -> list[str]:
    above = incomplete[: incomplete.rfind("/") + 1]
    folder = Path(above or ".")
    found = folder.iterdir() if folder.is_dir() else ()
    names = [f"{above}{file.name}{'/' if file.is_dir() else ''}" for file in found]
    return sorted(n for n in names if n.startswith(incomplete) and n.endswith((".toml", "/")))


def packaged_names(incomplete: str) -> list[tuple[str, str]]:
    """Return packaged recipes."""
    from midcourse.recipes import list_recipes

    return list(_beginning([(i.name, i.summary) for i in list_recipes()], incomplete))


def settings(incomplete: str) -> list[tuple[str, str]]:
    """Return keys, as ``--set`` takes them, and after the ``=`` an enumeration's values."""
    from midcourse.config import describe_keys

    name, has_value, _ = incomplete.partition("=")
    keys = describe_keys()
    if has_value:
        allowed = [value for key in keys if key.name == name for value in key.allowed]
        return [
            (text, "") for value in allowed if (text := f"{name}={value}").startswith(incomplete)
        ]
    return list(_beginning([(f"{key.name}=", key.meaning) for key in keys], incomplete))


def key_prefixes(incomplete: str) -> list[str]:
    """Return keys, and sections as far as they are typed."""
    from midcourse.config import describe_keys

    names = {key.name for key in describe_keys()}
    sections = {name.rpartition(".")[0] for name in names} - {""}
    return sorted(name for name in names | sections if name.startswith(incomplete))


def one_of(values: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a completion among values that are asked for when a shell does."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete


def _beginning(known: Iterable[tuple[str, str]], start: str) -> Iterator[tuple[str, str]]:
    return ((name, what) for name, what in known if name.startswith(start))
