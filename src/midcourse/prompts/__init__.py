"""Prompts are files. A *prompt set* is a folder of ``.md`` files, one per purpose.

Two sets ship with the package: ``default`` (for instruction-tuned models; in our words, with
the structure of the paper's Appendix A) and ``lab`` (short, for the bundled lab model). A user
points ``prompts`` in a recipe to a folder of their own. Every record that a prompt produced
carries the prompt's name and hash, so two wordings can never be mixed up.

A file holds plain text with named fields in braces, ``{problem}``. Fields are filled in one
pass and only where the name is known: braces of LaTeX, of JSON or inside a filled-in text
stay as they are.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from midcourse.errors import ConfigError

#: Every field a prompt file may name.
FIELDS = frozenset({"problem", "reference", "attempt", "answer", "hint"})
_FIELD = re.compile(r"\{(" + "|".join(sorted(FIELDS)) + r")\}")


_SETS = resources.files("midcourse.prompts") / "sets"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt file, e.g. ``Prompt("lab/solve", "{problem}")``."""

    name: str
    """Set and purpose, ``default/review``; of a set that is not packaged, ``custom/review``."""
    template: str
    """The file's text without its final newline."""

    @property
    def sha(self) -> str:
        """First 12 hex digits of the template's SHA-256."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:12]

    def identity(self) -> str:
        """Return what tells this wording from another one."""
        return self.sha

    @property
    def fields(self) -> frozenset[str]:
        """The fields the template names."""
        return frozenset(_FIELD.findall(self.template))

    def render(self, **values: str) -> str:
        """Fill the fields in one pass. Raises ConfigError if the template names a missing one."""
        missing = sorted(self.fields - values.keys())
        if missing:
            raise ConfigError(f"prompt {self.name} needs {{{missing[0]}}}, which is not given here")
        return _FIELD.sub(lambda match: values[match.group(1)], self.template)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """A folder of prompts; ``prompt_set["review"]`` reads ``review.md``.

    A prompt's name follows from its text, because ids hold it: a copy of a packaged set asks with
    the packaged prompts, wherever it lies.
    """

    name: str
    root: Traversable

    def __contains__(self, purpose: str) -> bool:
        return _text(self.root, purpose) is not None

    def __getitem__(self, purpose: str) -> Prompt:
        if (text := _text(self.root, purpose)) is None:
            raise ConfigError(f"prompt set {self.name!r} has no {purpose}.md")
        ours_first = sorted(_SETS.iterdir(), key=lambda folder: folder.name != self.name)
        origins = (folder.name for folder in ours_first if _text(folder, purpose) == text)
        return Prompt(f"{next(origins, 'custom')}/{purpose}", text)


def _text(folder: Traversable, purpose: str) -> str | None:
    file = folder / f"{purpose}.md"
    return file.read_text("utf-8").removesuffix("\n") if file.is_file() else None


def load_prompt_set(name: str) -> PromptSet:
    """Return the packaged set `name`, or the folder of that path. Raises ConfigError."""
    packaged = _SETS / name
    if "/" not in name and packaged.is_dir():
        return PromptSet(name, packaged)
    folder = Path(name)
    if folder.is_dir():
        return PromptSet(folder.name, folder)
    raise ConfigError(f"no prompt set {name!r}: give 'default', 'lab' or a folder of .md files")
