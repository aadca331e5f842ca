"""Text to token ids and back for one tokenizer, so that no text becomes a control token.

A control token opens or closes a turn, a role, a channel or a thought: every special token, and
every added token that is written as a tag (``<think>``, ``<tool_call>``, ``[INST]``), which many
tokenizers do not list among their special ones. Only a chat template and a model write them. In
texts of problems, references and replies they are letters.

SentencePiece tokenizers put a blank before whatever they encode. Text that goes on after other text
is encoded with a left context, so that the join says what the two texts say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from midcourse.errors import DataError


class AddedToken(Protocol):
    """A token that a tokenizer finds in text before it encodes the rest."""

    @property
    def content(self) -> str:
        """How it is written."""

    @property
    def special(self) -> bool:
        """Whether decoding may leave it out."""

    @property
    def lstrip(self) -> bool:
        """Whether it takes the white space before it."""

    @property
    def rstrip(self) -> bool:
        """Whether it takes the white space after it."""


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that is used here."""

    eos_token_id: int | None
    unk_token_id: int | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]:
        """The added tokens by id."""

    def __len__(self) -> int:
        """Return how many ids there are."""

    def __call__(self, text: str, **kwargs: Any) -> Any:
        """Encode; ``["input_ids"]`` of the result are the ids."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Return the conversation as the template writes it."""

    def decode(self, token_ids: Any, **kwargs: Any) -> Any:
        """Return the text of ids."""


#: An added token that is not special and yet no ordinary text, as Gemma's runs of newlines are.
_TAG = re.compile(r"<.+>|\[.+\]", re.DOTALL)
#: Left contexts that are tried in turn: one that the text does not merge with.
_LEFT_CONTEXTS = ("\n", ".", "1", "a")


@dataclass(frozen=True, slots=True)
class Hidden:
    """Replaces control tokens written in messages by marks, which templates leave as they are."""

    mark: str
    """A character that none of the messages has."""
    pattern: re.Pattern[str]
    """Finds control tokens."""

    def hide(self, text: str) -> str:
        """Return `text` with marks for control tokens."""
        return self.pattern.sub(lambda found: self._coded(found.group()), text)

    def restore(self, text: str) -> str:
        """Return `text` with control tokens, as letters, for marks."""
        coded = f"{self.mark}([0-9.]+){self.mark}"
        return re.sub(coded, lambda found: _letters(found.group(1)), text)

    def _coded(self, text: str) -> str:
        return f"{self.mark}{'.'.join(str(ord(letter)) for letter in text)}{self.mark}"


def _letters(codes: str) -> str:
    return "".join(chr(int(code)) for code in codes.split("."))


@dataclass(frozen=True)
class Encoder:
    """Encodes and decodes with one tokenizer."""

    tokenizer: Tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` where nothing stands before it; control tokens are letters."""
        ids = self._ids(text, split_special_tokens=True)
        if len(text) < 2 or not self._has_control(ids, text):
            return ids
        # It was no special token, so the tokenizer still found it: the text is cut within it.
        cuts = [found.start() + 1 for found in self._pattern.finditer(text)] or [len(text) // 2]
        ids = self.encode(text[: cuts[0]])
        for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
            ids += self.encode_after(text[start:end])
        return ids

    def encode_after(self, text: str) -> list[int]:
        """Return the ids of `text` where other text stands before it."""
        if not self.adds_blank:
            return self.encode(text)
        for left in _LEFT_CONTEXTS:
            context, ids = self.encode(left), self.encode(left + text)
            if ids[: len(context)] == context:
                return ids[len(context) :]
        raise DataError(f"the tokenizer cannot go on with {text[:40]!r}: it merges with any text")

    def encode_template(self, text: str, hidden: Hidden, *, goes_on: bool = False) -> list[int]:
        """Encode what a template wrote: its control tokens are such, hidden ones are letters.

        With `goes_on` other text stands before it.
        """
        if not goes_on and hidden.mark not in text:
            ids = self._ids(text)
            if len(self.controls(ids)) == len(self._pattern.findall(text)):
                return ids
        ids, end = [], 0
        for found in self._stretches.finditer(text):
            ids += self._stretch(hidden.restore(text[end : found.start()]), ids, goes_on)
            ids.append(self._control[found[found.lastindex or 0]])
            end = found.end()
        return ids + self._stretch(hidden.restore(text[end:]), ids, goes_on)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of `token_ids` without special tokens, spaces untouched."""
        text = self.tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def hidden(self, texts: Iterable[str]) -> Hidden:
        """Return what hides the control tokens in `texts`."""
        used = "".join(texts)
        mark = next(letter for letter in map(chr, range(0xE000, 0x110000)) if letter not in used)
        return Hidden(mark, self._pattern)

    def controls(self, ids: Iterable[int]) -> list[int]:
        """Return the control tokens among `ids`."""
        return list(filter(self._control_ids.__contains__, ids))

    @cached_property
    def silent_ids(self) -> frozenset[int]:
        """The control tokens that decoding leaves out."""
        return frozenset(token for token, added in self._added if added.special)

    @cached_property
    def tags(self) -> Mapping[int, str]:
        """The control tokens that stand in a decoded text, e.g. ``<think>``."""
        return {token: added.content for token, added in self._added if not added.special}

    @cached_property
    def _added(self) -> list[tuple[int, AddedToken]]:
        added = self.tokenizer.added_tokens_decoder.items()
        return [(i, token) for i, token in added if token.special or _TAG.fullmatch(token.content)]

    @cached_property
    def _control(self) -> dict[str, int]:
        return {added.content: token for token, added in self._added}

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        # Unknown letters get the unknown token: it is not a sign of a control token in the text.
        return frozenset(self._control.values()) - {self.tokenizer.unk_token_id}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _any_of(re.escape(added.content) for added in self._longest_first)

    @cached_property
    def _stretches(self) -> re.Pattern[str]:
        """Finds control tokens together with the white space that they take."""
        return _any_of(
            (r"\s*" if added.lstrip else "")
            + f"({re.escape(added.content)})"
            + (r"\s*" if added.rstrip else "")
            for added in self._longest_first
        )

    @property
    def _longest_first(self) -> list[AddedToken]:
        tokens = [added for _, added in self._added if len(added.content) > 1]
        return sorted(tokens, key=lambda added: -len(added.content))

    @cached_property
    def adds_blank(self) -> bool:
        """Whether something stands before a text that is encoded alone."""
        return self._ids("\nx") != self._ids("\n") + self._ids("x")

    @cached_property
    def _blank_after_control(self) -> bool:
        """Whether text after a control token is encoded as text that stands alone."""
        token = next(iter(self._control), "")
        return self._ids(f"{token}x") == self._ids(token) + self._ids("x")

    def _stretch(self, text: str, before: Sequence[int], goes_on: bool) -> list[int]:
        """Encode what stands between two control tokens, or before the first one."""
        alone = self._blank_after_control if before else not goes_on
        return self.encode(text) if alone else self.encode_after(text)

    def _has_control(self, ids: Sequence[int], text: str) -> bool:
        if not self._control_ids.isdisjoint(ids):
            return True
        unknown = self.tokenizer.unk_token_id
        written = (name for name, token in self._control.items() if token == unknown)
        return any(name in text and unknown in set(ids) for name in written)

    def _ids(self, text: str, **options: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, **options)["input_ids"])


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern of alternatives; of none, one that is never found."""
    return re.compile("|".join(patterns) or "(?!)")
