"""Prompts are files. A *prompt set* is a folder of ``.md`` files, one per purpose.

Five sets ship with the package: ``default`` (for instruction-tuned models; in our words, with
the structure of the paper's Appendix A), ``bare`` (the same, but a problem is put without a word
of ours), ``programs`` (problems with unit tests), ``short`` and ``lab`` (for small models). A user
points ``prompts`` in a recipe to a folder of their own. Every record that a prompt produced carries
the prompt's name and hash, so two wordings can never be mixed up.

A file holds plain text with placeholders in braces, ``{problem}``: those of `PURPOSES`, which are
checked when a set is loaded. They are filled in one pass and only where the name is known: braces
of LaTeX, of JSON or inside a filled-in text stay as they are.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from midcourse.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a prompt of one purpose shows, e.g. ``Purpose(("problem",), ("answer",))``."""

    needs: tuple[str, ...]
    may_hold: tuple[str, ...] = ()

    def complaint_about(self, template: str) -> str:
        r"""Return what is wrong with the placeholders of a template, in one line; empty if nothing.

        A word in braces is LaTeX where it follows a command or a script, as in ``\text{if}``.
        """
        names = {name for _, name in _BRACES.findall(template)}
        words = {name for before, name in _BRACES.findall(template) if not before}
        unknown = sorted((names & FIELDS | words) - {*self.needs, *self.may_hold})
        if unknown:
            allowed = _listed((*self.needs, *self.may_hold))
            return f"unknown placeholder {{{unknown[0]}}}: the file may hold {allowed}"
        missing = [name for name in self.needs if name not in names]
        if missing:
            also = f", and may hold {_listed(self.may_hold)}" if self.may_hold else ""
            return f"no placeholder {{{missing[0]}}}: the file needs {_listed(self.needs)}{also}"
        return ""


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


_WHOLE = ("problem", "reference", "attempt")
#: Of a problem with unit tests: all of them, and the one that the attempt fails.
_TESTED = ("tests", "failing_test")
#: Every file of a set, and the placeholders that it must and may hold.
PURPOSES = {
    "solve": Purpose(("problem",)),
    "hint": Purpose(("problem", "hint")),
    "reference": Purpose(("problem",), ("answer",)),
    "reflect": Purpose(_WHOLE, ("answer", "tests")),
    "guided_solve": Purpose(("problem", "reference"), ("answer", "tests")),
    "review": Purpose(("attempt",), ("problem", "reference", "answer", *_TESTED)),
    "review_list": Purpose(("attempt",), ("problem", "reference", "answer", *_TESTED)),
    "single_turn": Purpose(_WHOLE, ("answer", *_TESTED)),
    "no_reference": Purpose(("problem", "attempt"), _TESTED),
    "localize": Purpose(_WHOLE),
    "localize_no_reference": Purpose(("problem", "attempt")),
    "mark": Purpose(("problem", "reference"), ("attempt",)),
    "mark_no_reference": Purpose(("problem",), ("attempt",)),
}
FIELDS = frozenset(name for p in PURPOSES.values() for name in (*p.needs, *p.may_hold))
_FIELD = re.compile(r"\{(" + "|".join(sorted(FIELDS)) + r")\}")
#: A word in braces, and what of LaTeX stands right before it.
_BRACES = re.compile(r"([A-Za-z\\_^}\]$])?\{([A-Za-z][A-Za-z_ ]{2,40})\}")


_SETS = resources.files("midcourse.prompts") / "sets"
_NAMES = "'default', 'bare', 'programs', 'short', 'lab'"
#: Packaged sets that only hold what differs from another one.
_BASES = {"bare": "default"}


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
    base: Traversable | None = None
    """The folder that holds what `root` lacks."""

    def __contains__(self, purpose: str) -> bool:
        return self._text(purpose) is not None

    def __getitem__(self, purpose: str) -> Prompt:
        if (text := self._text(purpose)) is None:
            raise ConfigError(f"prompt set {self.name!r} has no {purpose}.md")
        ours_first = sorted(_SETS.iterdir(), key=lambda f: (f.name != self.name, f.name))
        origins = (folder.name for folder in ours_first if _text(folder, purpose) == text)
        return Prompt(f"{next(origins, 'custom')}/{purpose}", text)

    def _text(self, purpose: str) -> str | None:
        text = _text(self.root, purpose)
        return _text(self.base, purpose) if text is None and self.base else text


def _text(folder: Traversable, purpose: str) -> str | None:
    file = folder / f"{purpose}.md"
    if not file.is_file():
        return None
    try:
        return file.read_text("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not text in UTF-8 ({error}): save it as UTF-8") from error


def load_prompt_set(name: str) -> PromptSet:
    """Return the packaged set `name`, or the folder of that path.

    Raises ConfigError if there is none, or if a file's placeholders are not those of its purpose.
    """
    packaged = _SETS / name
    if "/" not in name and packaged.is_dir():
        base = _BASES.get(name)
        found = PromptSet(name, packaged, _SETS / base if base else None)
    elif (folder := Path(name)).is_dir():
        found = PromptSet(folder.name, folder)
    else:
        raise ConfigError(f"no prompt set {name!r}: give {_NAMES} or a folder of .md files")
    for purpose, form in PURPOSES.items():
        text = _text(found.root, purpose)
        if text is not None and (complaint := form.complaint_about(text)):
            raise ConfigError(f"{found.root / f'{purpose}.md'}: {complaint}")
    return found
