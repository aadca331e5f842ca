"""The one place that turns messages, prefixes and interventions into token ids.

What was verified must be what is trained, to the id: so every prompt, every verification
context and every SFT row is built here, and stages pass ids on instead of text. Three rules:

* Text inside a message never becomes a control token. A problem that contains ``<|im_end|>``
  is encoded letter by letter, not as the end of a turn.
* A sampled prefix keeps its sampled ids up to the last token that ends at or before the cut;
  only what follows is encoded. Encoding the whole text again could give other ids than those the
  model sampled, and training would then be on a prefix it never produced.
* Nothing here appends an end-of-turn by itself; `Renderer.end_of_turn_ids` is asked for.

The renderer is given a tokenizer (anything with the Hugging Face methods used below); it never
loads one, so importing this module loads no heavy library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

Message = Mapping[str, str]
"""One chat message, ``{"role": "user", "content": "…"}``."""


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that the renderer uses."""

    all_special_tokens: list[str]
    eos_token_id: int | None

    def __len__(self) -> int:
        """Return how many ids there are."""

    def __call__(self, text: str, **kwargs: Any) -> Any:
        """Encode; ``["input_ids"]`` of the result are the ids."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Return the conversation as the template writes it."""

    def decode(self, token_ids: Any, **kwargs: Any) -> Any:
        """Return the text of ids."""


@dataclass(frozen=True, slots=True)
class SplitIds:
    """A context cut in two, e.g. the ids of a prefix and of the intervention after it."""

    prefix: list[int]
    addition: list[int]

    @property
    def all(self) -> list[int]:
        """Prefix and addition, joined."""
        return self.prefix + self.addition


@dataclass(frozen=True)
class Renderer:
    """Encodes for one tokenizer and its chat template."""

    tokenizer: Tokenizer

    @property
    def num_tokens(self) -> int:
        """How many token ids there are: every id is below it."""
        return len(self.tokenizer)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of `messages` followed by the start of an assistant turn."""
        contents = [message["content"] for message in messages]
        if not any(token in text for text in contents for token in self._control_texts):
            return self._encode_control(self._template(messages))
        return self._literal_prompt_ids(messages)

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain `text`; control tokens in it are encoded letter by letter."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(ids["input_ids"])

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of `token_ids` without control tokens, spaces untouched."""
        text = self.tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    @cached_property
    def end_of_turn_ids(self) -> list[int]:
        """The ids that close an assistant turn: what the template puts after a reply's text."""
        marker = "midcourse-end-of-turn"
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": marker}]
        rendered = self._template(messages, add_generation_prompt=False)
        ids = self._encode_control(rendered.rsplit(marker, 1)[1])
        eos = self.tokenizer.eos_token_id
        # Templates put a newline after the end-of-turn token; a model never has to sample it.
        return ids[: ids.index(eos) + 1] if eos in ids else ids

    def cut(self, token_ids: Sequence[int], prefix: str, addition: str = "") -> SplitIds:
        """Keep the sampled ids that lie wholly within `prefix`; encode the rest and `addition`.

        `token_ids` must decode to a text that starts with `prefix`.
        """
        kept = self._num_tokens_within(token_ids, prefix)
        rest = prefix[len(self.decode(token_ids[:kept])) :] + addition
        return SplitIds(list(token_ids[:kept]), self.encode(rest) if rest else [])

    def next_turn_ids(self, text: str) -> list[int]:
        """Return the ids that, after a first turn's context and reply, open the next turn."""
        reply, mark = "\ue000reply\ue001", "\ue000text\ue001"
        rendered = self._template(
            [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": reply},
                {"role": "user", "content": mark},
            ]
        )
        before, after = rendered.split(reply, 1)[1].split(mark, 1)
        opening = self._encode_control(before)[len(self.end_of_turn_ids) :]
        return opening + self.encode(text) + self._encode_control(after)

    def around_user(self) -> tuple[str, str]:
        """Return what the template writes before a single user message, and after it."""
        mark = "\ue000user\ue001"
        before, after = self._template([{"role": "user", "content": mark}]).split(mark)
        return before, after

    def _num_tokens_within(self, token_ids: Sequence[int], prefix: str) -> int:
        """Return the largest n for which the first n tokens decode to a start of `prefix`."""
        low, high = 0, len(token_ids)
        while low < high:
            middle = (low + high + 1) // 2
            if len(self.decode(token_ids[:middle])) <= len(prefix):
                low = middle
            else:
                high = middle - 1
        while low and not prefix.startswith(self.decode(token_ids[:low])):
            low -= 1
        # A sampled end-of-turn adds no text: kept, it would close the turn that is to go on.
        while low and not self.decode(token_ids[low - 1 : low]):
            low -= 1
        return low

    @cached_property
    def _control_texts(self) -> list[str]:
        return [token for token in self.tokenizer.all_special_tokens if token]

    def _template(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        rendered = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        return str(rendered)

    def _encode_control(self, text: str) -> list[int]:
        """Encode text of the *template*: here control tokens are control tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _literal_prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Encode the template's own text and the messages' contents apart, then join."""
        marks = [f"\ue000{index}\ue001" for index in range(len(messages))]
        marked = [
            {**message, "content": mark} for message, mark in zip(messages, marks, strict=True)
        ]
        rest, ids = self._template(marked), []
        for mark, message in zip(marks, messages, strict=True):
            before, rest = rest.split(mark, 1)
            ids += self._encode_control(before) + self.encode(message["content"])
        return ids + self._encode_control(rest)
