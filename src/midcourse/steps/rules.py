r"""Rules by which a response is cut into steps, by the name that a recipe gives (``steps.rule``).

Every rule is lossless: its steps, joined, are the text. What an intervention ends in, and how a
step is shown to a proposer, follow from the rule, so that prompts, verification, rows, exports and
the viewer speak of the same steps.

    >>> rule_named("lines").split("a = 1\nb = 2\n")
    ['a = 1\n', 'b = 2\n']
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import FunctionType

from midcourse.errors import ConfigError
from midcourse.plugins import is_path, load_path
from midcourse.records import Rollout
from midcourse.steps.cutting import (
    STEP_SEPARATOR,
    error_step_from_location,
    join_steps,
    location_from_error_step,
    split_steps,
)
from midcourse.steps.program import placed_statement, split_statements
from midcourse.steps.turns import NO_ANSWERS, answers_of

Cut = Callable[[str], Sequence[str]]

#: White space that keeps no two words or numbers apart.
_LOOSE_SPACE = re.compile(r"(?<!\w)\s+|\s+(?!\w)")
#: A full stop with what closes after it, or a new line.
_STOP = re.compile(r"(?P<stop>[.!?…。！？])[\"'’”)\]}*_]*\s+|\n+")
#: Words whose full stop ends no sentence, in lower case; nor does that of an initial or a number.
_SHORT = {*"al approx cf dr eq eqs etc fig figs mr mrs ms no prof resp sec st thm vs".split()}  # noqa: SIM905 - a table of words
_LAST_WORD = re.compile(r"(?:^|\n)\s*\d+$|(?<!\w)(?:[A-Za-z]\.)*[A-Za-z]+$")
_THOUGHT_END = "</think>"


@dataclass(frozen=True, slots=True)
class StepRule:
    """How a response is cut into steps; `rule_named` returns one."""

    name: str
    """As a recipe writes it."""
    cut: Cut
    ending: str
    """What an intervention ends in where nothing else is asked for."""
    of_program: bool = False
    """Whether steps may be statements, whose indentation means something."""
    version: str = ""
    """Of a user's own function, the hash of its module."""

    def identity(self) -> object:
        """Return what tells this rule from others: it is in the key of all that depends on it."""
        return [self.name, self.version] if self.version else self.name

    def split(self, text: str) -> list[str]:
        """Return the steps of a text, none of them empty.

        Raises ConfigError if they do not join to the text: a rule of a user's own may be wrong.
        """
        try:
            steps = list(self.cut(text))
            is_lossless = join_steps(steps) == text and all(steps)
        except Exception as error:  # a user's own function may raise anything
            what = f"{type(error).__name__}: {error}"
            raise ConfigError(
                f"steps.rule {self.name!r} fails on {_shown(text)}: {what}"
            ) from error
        if not is_lossless:
            raise ConfigError(
                f"steps.rule {self.name!r} loses or adds something in {_shown(text)}: its steps "
                "must not be empty, and joined they must be the text, byte for byte"
            )
        return steps

    def of(self, rollout: Rollout) -> list[str]:
        """Return the steps of a rollout: none reaches over the end of a turn."""
        return [step for turn in rollout.turns for step in self.split(turn)]

    def prefix_before(self, text: str, error_step: int) -> str:
        """Return the steps before `error_step` (0-based), joined: y_<t* of Algorithm 1."""
        return join_steps(self.split(text)[:error_step])

    def number(self, steps: Sequence[str], answers: Mapping[int, str] = NO_ANSWERS) -> str:
        """Return the attempt as the proposer reads it: ``Substep 1: …``, numbered from 1.

        Surrounding blank space of a step is not shown, but for a statement's indentation; this text
        is for reading, never for training. `answers` are what an environment said, by the 0-based
        step before it (`answers_of`).
        """
        answered = {index: f"Environment: {text}" for index, text in answers.items()}
        shown = [answered.get(-1, "")]
        for index, step in enumerate(steps):
            shown.append(f"Substep {location_from_error_step(index)}:{self._shown(step)}")
            shown.append(answered.get(index, ""))
        return STEP_SEPARATOR.join(filter(None, shown))

    def shown(self, rollout: Rollout) -> str:
        """Return a rollout as the proposer reads it, with what an environment said in between."""
        steps = self.of(rollout)
        return self.number(steps, answers_of(rollout, steps))

    def _shown(self, step: str) -> str:
        if self.of_program and step[:1] in (" ", "\t"):
            return "\n" + step.rstrip()
        return " " + step.strip()

    def placed(
        self, content: str, steps: Sequence[str], location: int, terminator: str = STEP_SEPARATOR
    ) -> str:
        """Return an intervention as it stands at its 1-based `location`: with the end of a step.

        `terminator` is ``propose.terminator``: its default stands for the rule's own ending. A
        statement is indented as the one that it replaces.
        """
        if terminator != STEP_SEPARATOR:
            return content.rstrip() + terminator
        if self.of_program:
            return placed_statement(content, steps, error_step_from_location(location))
        return content.rstrip() + self.ending

    def placed_in(
        self, content: str, rollout: Rollout, location: int, terminator: str = STEP_SEPARATOR
    ) -> str:
        """Return an intervention as it stands at its 1-based `location` of a rollout.

        In place of the last step of a turn that was answered it ends in nothing, as that step did:
        what comes next is the model's end-of-turn.
        """
        steps = self.of(rollout)
        end = sum(map(len, steps[:location]))
        if any(turn.at == end for turn in rollout.given):
            return content.rstrip()
        return self.placed(content, steps, location, terminator)

    def repeats(self, content: str, steps: Sequence[str], location: int) -> bool:
        """Whether an intervention is what stands at its 1-based `location`, up to white space.

        One of several steps is compared with as many. Composed and decomposed characters are the
        same.
        """
        start = error_step_from_location(location)
        num_steps = len(self.split(content.strip()))
        return _compact(content) == _compact(join_steps(steps[start : start + num_steps]))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _compact(text: str) -> str:
    return re.sub(r"\s+", " ", _LOOSE_SPACE.sub("", unicodedata.normalize("NFC", text)))


# --- the rules ---------------------------------------------------------------------------------


def _pieces(text: str, ends: Sequence[int]) -> list[str]:
    """Return the text cut at these offsets."""
    borders = [0, *(end for end in ends if 0 < end < len(text)), len(text)]
    return [text[a:b] for a, b in pairwise(borders) if a < b]


def cut_lines(text: str) -> list[str]:
    r"""Return the lines with what is in them; blank lines belong to the line before.

    A line ends in ``\n`` alone: a form feed or U+2028 is a character like others.
    """
    return _pieces(text, [found.end() for found in re.finditer(r"\n\s*\n|\n", text)])


def cut_sentences(text: str) -> list[str]:
    """Return the sentences with the space after them; a new line begins one as well."""
    return _pieces(text, [m.end() for m in _STOP.finditer(text) if not _is_short(text, m)])


def _is_short(text: str, stop: re.Match[str]) -> bool:
    """Whether a full stop ends an abbreviation, an initial or the number of a list."""
    if stop["stop"] != ".":
        return False
    word = _LAST_WORD.search(text[max(0, stop.start() - 20) : stop.start()])
    return word is not None and (
        not word[0].isalpha() or len(word[0]) == 1 or word[0].lower() in _SHORT
    )


def cut_thoughts(text: str) -> list[str]:
    r"""Return the steps of a thought, cut at blank lines, and what follows ``</think>`` as one.

    A reply without the tag is all thought.
    """
    end = text.find(_THOUGHT_END)
    if end < 0:
        return split_steps(text)
    end += len(_THOUGHT_END)
    end += len(text[end:]) - len(text[end:].lstrip())
    return [*split_steps(text[:end]), text[end:]] if text[end:] else split_steps(text[:end])


BLANK_LINES = StepRule("blank_lines", split_steps, STEP_SEPARATOR)
RULES = {
    rule.name: rule
    for rule in (
        BLANK_LINES,
        StepRule("lines", cut_lines, "\n"),
        StepRule("sentences", cut_sentences, " "),
        StepRule("statements", split_statements, STEP_SEPARATOR, of_program=True),
        StepRule("thoughts", cut_thoughts, STEP_SEPARATOR),
    )
}
#: Texts that a rule of a user's own is tried on before any work.
_TRIALS = (
    "", "\n", "\n\n", " ", "a", "a\n\nb", "a\n\n\n\nb\n", "a\r\n\r\nb", "First. Second?\nThird!",
    "```python\ndef f(x):\n    return x\n```\n", "é\u2028ü\x0c\t", "<think>\na\n\nb\n</think>\n\nc",
)  # fmt: skip


def rule_named(name: str) -> StepRule:
    """Return a rule by its name, or a function of the user's own, ``package.module:function``.

    Raises ConfigError for a name that is not known, a function that cannot be imported, and one
    that loses a byte of any of a dozen texts.
    """
    if name in RULES:
        return RULES[name]
    if not is_path(name):
        raise ConfigError(
            f"steps.rule {name!r}: choose one of {', '.join(RULES)}, or write a function of your "
            "own as package.module:function"
        )
    plugin = load_path(name, "steps.rule")
    if not isinstance(plugin.value, FunctionType):
        raise ConfigError(f"steps.rule {name!r} is no function from a text to its steps")
    ending = getattr(plugin.value, "ending", STEP_SEPARATOR)
    rule = StepRule(name, plugin.value, ending, version=plugin.version)
    for text in _TRIALS:
        rule.split(text)
    return rule
