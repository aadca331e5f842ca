"""The one place that turns messages, prefixes and interventions into token ids.

What was verified must be what is trained, to the id: so every prompt, every verification
context and every SFT row is built here, and stages pass ids on instead of text. Four rules:

* Text inside a message never becomes a control token (`midcourse.encoding`). A problem that
  contains ``<|im_end|>`` is encoded letter by letter, not as the end of a turn.
* A sampled prefix keeps its sampled ids up to the last token that ends at or before the cut;
  only what follows is encoded. Encoding the whole text again could give other ids than those the
  model sampled, and training would then be on a prefix it never produced.
* Nothing here appends an end-of-turn by itself; `Renderer.end_of_turn_ids` is asked for.
* A template that writes the date writes that of the recipe, not today's: the ids are the same at
  every resume and on every machine.

The renderer is given a tokenizer (anything with the Hugging Face methods of
`midcourse.encoding.Tokenizer`); it never loads one, so importing this module loads no heavy
library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from functools import cache, cached_property

from midcourse.config import TEMPLATE_DATE
from midcourse.encoding import Encoder, Hidden, Tokenizer
from midcourse.errors import ConfigError, EngineError

Message = Mapping[str, str]
"""One chat message, ``{"role": "user", "content": "…"}``."""


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
    template_date: date = TEMPLATE_DATE
    """What the template is told for today's date."""
    template_arguments: Mapping[str, bool | int | str] = field(default_factory=dict, hash=False)
    """What else it is told, e.g. ``{"enable_thinking": False}``."""

    @property
    def num_tokens(self) -> int:
        """How many token ids there are: every id is below it."""
        return len(self.tokenizer)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of `messages` followed by the start of an assistant turn."""
        hidden = self._encoder.hidden(message["content"] for message in messages)
        shown = [{**message, "content": hidden.hide(message["content"])} for message in messages]
        return self._encoder.encode_template(self._template(shown), hidden)

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain `text`; control tokens in it are encoded letter by letter."""
        return self._encoder.encode(text)

    def reply_ids(self, text: str) -> list[int]:
        """Return the ids of a reply's `text`, or its beginning, right after the prompt."""
        return self.encode(text) if self._reply_has_blank else self._encoder.encode_after(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of `token_ids` without control tokens, spaces untouched."""
        return self._encoder.decode(token_ids)

    def decode_parts(self, *parts: Sequence[int]) -> list[str]:
        """Return the texts of parts of one text: joined, they are the text of the joined ids."""
        ids, text, texts = list[int](), "", list[str]()
        for part in parts:
            ids += part
            whole = self.decode(ids)
            texts.append(whole[len(text) :])
            text = whole
        return texts

    @cached_property
    def end_of_turn_ids(self) -> list[int]:
        """The ids that close an assistant turn: what the template puts after a reply's text.

        The last of them is a control token, the one that a model samples to end its turn. Some
        templates write none after the last turn (GLM's): then the next turn's first one ends it.
        """
        reply = "midcourse-end-of-turn"
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": reply}]
        rendered = self._template(messages, add_generation_prompt=False)
        last = self._encoder.encode_template(rendered.rsplit(reply, 1)[1], self._none, goes_on=True)
        if ended := self._split_after_control(last).prefix:
            return ended
        if followed := self._following("x").prefix:
            return followed
        if self.tokenizer.eos_token_id is None:
            raise EngineError("chat template and tokenizer do not end a turn: give it an eos_token")
        return [self.tokenizer.eos_token_id]

    def cut(self, token_ids: Sequence[int], prefix: str, addition: str = "") -> SplitIds:
        """Keep the sampled ids that lie wholly within `prefix`; encode the rest and `addition`.

        `token_ids` must decode to a text that starts with `prefix`, but for the blank with which
        SentencePiece begins a reply: some servers show it.
        """
        shows_blank = self._encoder.adds_blank and prefix.startswith(" ")
        if shows_blank and not self.decode(token_ids).startswith(" "):
            prefix = prefix[1:]
        kept = list(token_ids[: self._num_tokens_within(token_ids, prefix)])
        rest = prefix[len(self.decode(kept)) :] + addition
        encode = self._encoder.encode_after if kept else self.reply_ids
        return SplitIds(kept, encode(rest) if rest else [])

    def next_turn_ids(self, text: str, role: str = "user") -> list[int]:
        """Return the ids that open the next turn after a reply and its `end_of_turn_ids`."""
        return self._following(text, role).addition

    def second_turn_ids(self, first: Message, reply_ids: Sequence[int], text: str) -> list[int]:
        """Return the ids of a first message, its sampled reply and a second message.

        They are those that the template writes for the whole conversation. A reply that it leaves
        as it is keeps its sampled ids; one of which it drops the thinking is encoded again.
        """
        prompt, sampled = self.prompt_ids([first]), self._without_end(reply_ids)
        said = self.decode_parts(prompt, sampled)[1]
        hidden = self._encoder.hidden([first["content"], said, text])
        question, following = hidden.hide(first["content"]), hidden.hide(text)
        before, after = self._around_reply(question, following, hidden)
        opening = before.removeprefix(self._template([{"role": "user", "content": question}]))
        opening_ids = self._encoder.encode_template(opening, hidden, goes_on=True)
        if self._encoder.controls(opening_ids):  # as gpt-oss opens its last channel
            sampled, opening = _after_last(opening_ids, sampled), ""
        elif not said.startswith(opening):
            opening = ""
        # Read alone, a reply is without SentencePiece's blank, which some templates write.
        reply = self._as_template_sees(prompt if opening else [], sampled, hidden)
        reply = reply.removeprefix(opening)
        whole = self._template(_dialogue(question, reply, following))
        encoded = self._encoder.encode_template(whole, hidden)
        kept = whole[len(before) : len(whole) - len(after)]
        if before + kept + after != whole or not reply.startswith(kept):
            return encoded
        said = self.decode(sampled)
        num_dropped = len(hidden.restore(reply[len(kept) :]))
        ids = [
            *self._encoder.encode_template(before.removesuffix(opening), hidden),
            *self.cut(sampled, said[: len(said) - num_dropped]).all,
            *self._encoder.encode_template(after, hidden, goes_on=True),
        ]
        says_the_same = self.decode(ids) == self.decode(encoded)
        opens_the_same = self._encoder.controls(ids) == self._encoder.controls(encoded)
        return ids if says_the_same and opens_the_same else encoded

    def check_second_turn(self) -> None:
        """Raise ConfigError unless the template takes a user message after a reply."""
        first, second = "midcourse-first", "midcourse-second"
        before, after = self._around_reply(first, second, self._none)
        if first not in before or second not in after:
            raise _no_second_turn("it drops a message")

    def check_turn_of(self, role: str) -> None:
        """Raise ConfigError unless the template takes a message of `role` after a reply."""
        said, why = "midcourse-said", "it drops the message"
        try:
            if said in self._around_reply("midcourse-first", said, self._none, role)[1]:
                return
        except ConfigError as error:
            why = str(error.__cause__ or error)
        raise ConfigError(
            f"the model's chat template has no turn of role {role!r} after a reply ({why}): choose "
            "a model that has, or an environment that speaks in another role"
        )

    def check_arguments(self) -> None:
        """Raise ConfigError unless the template reads each of `template_arguments`.

        It does if it writes something else where the argument is missing or has another value.
        """
        for name, value in self.template_arguments.items():
            rest = {k: v for k, v in self.template_arguments.items() if k != name}
            others = (rest, *({**rest, name: other} for other in _others(value)))
            if all(replace(self, template_arguments=o)._shown() == self._shown() for o in others):
                raise ConfigError(
                    f"template_arguments: the model's chat template does not read {name!r}, so "
                    "that it would change nothing: leave it out, or name what the template reads"
                )

    def around_user(self) -> tuple[str, str]:
        """Return what the template writes before a single user message, and after it."""
        mark = "\ue000user\ue001"
        before, after = self._template([{"role": "user", "content": mark}]).split(mark)
        return before, after

    def _shown(self) -> list[str]:
        """Return what the template writes of conversations, or says where it refuses one."""
        thought = "<think>\nmidcourse\n</think>\n\nmidcourse"
        found: list[str] = []
        for messages in ([{"role": "user", "content": "x"}], _dialogue("x", thought, "y")):
            try:
                found.append(self._template(messages))
            except ConfigError as refusal:
                found.append(str(refusal))
        return found

    # --- turns ----------------------------------------------------------------------------------

    def _following(self, text: str, role: str = "user") -> SplitIds:
        """Return what the template writes after a reply: its end, and the next turn of `text`."""
        hidden = self._encoder.hidden([text])
        _, after = self._around_reply("x", hidden.hide(text), hidden, role)
        return self._split_after_control(self._encoder.encode_template(after, hidden, goes_on=True))

    def _split_after_control(self, ids: Sequence[int]) -> SplitIds:
        """Split after the first control token; before everything if there is none."""
        controls = self._encoder.controls(ids)
        end = ids.index(controls[0]) + 1 if controls else 0
        return SplitIds(list(ids[:end]), list(ids[end:]))

    def _around_reply(
        self, first: str, second: str, hidden: Hidden, role: str = "user"
    ) -> tuple[str, str]:
        """Return what the template writes before and after a reply between two messages."""
        reply = f"{hidden.mark}reply{hidden.mark}"
        try:
            rendered = self._template(_dialogue(first, reply, second, role))
        except ConfigError as error:
            raise _no_second_turn(str(error)) from error
        before, found, after = rendered.partition(reply)
        if not found or reply in after:
            raise _no_second_turn("it does not write a reply once")
        return before, after

    def _without_end(self, reply_ids: Sequence[int]) -> list[int]:
        """Return a reply without the tokens that ended it: the template writes its own."""
        ids = list(reply_ids)
        while ids and (
            ids[-1] in self._encoder.silent_ids or ids[-1] == self.tokenizer.eos_token_id
        ):
            ids.pop()
        return ids

    def _as_template_sees(
        self, prompt: Sequence[int], reply_ids: Sequence[int], hidden: Hidden
    ) -> str:
        """Return a reply's text: tags that the model wrote as tags are tags, others are hidden."""
        text, shown, done = self.decode_parts(prompt, reply_ids)[1], "", 0
        for index, token in enumerate(reply_ids):
            if tag := self._encoder.tags.get(token):
                start = len(self.decode_parts(prompt, reply_ids[:index])[1])
                shown += hidden.hide(text[done:start]) + tag
                done = start + len(tag)
        return shown + hidden.hide(text[done:])

    @cached_property
    def _reply_has_blank(self) -> bool:
        """Whether a reply begins as a text that is encoded alone, with SentencePiece's blank."""
        if not self._encoder.adds_blank:
            return False
        messages = [{"role": "user", "content": "y"}, {"role": "assistant", "content": "x"}]
        rendered = self._template(messages, add_generation_prompt=False)
        whole = self._encoder.encode_template(rendered, self._none)
        return _after_last(self.encode("x"), whole) != whole

    # --- parts ----------------------------------------------------------------------------------

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.tokenizer)

    @cached_property
    def _none(self) -> Hidden:
        """What hides the control tokens of texts without any."""
        return self._encoder.hidden([])

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
        while low and token_ids[low - 1] in self._encoder.silent_ids:
            low -= 1
        return low

    def _template(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        try:
            rendered = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                strftime_now=self._strftime,
                **self.template_arguments,
            )
        except _template_error() as error:
            raise ConfigError(
                f"the model's chat template refuses a conversation: {error}"
            ) from error
        return str(rendered)

    def _strftime(self, form: str) -> str:
        return datetime.combine(self.template_date, time(), UTC).strftime(form)


def _dialogue(first: str, reply: str, second: str, role: str = "user") -> list[Message]:
    return [
        {"role": "user", "content": first},
        {"role": "assistant", "content": reply},
        {"role": role, "content": second},
    ]


def _others(value: bool | int | str) -> list[bool | int | str]:
    """Return other values of an argument of a chat template."""
    if isinstance(value, bool):
        return [not value]
    return [value + 1, 0] if isinstance(value, int) else [f"not {value}", ""]


def _after_last(part: Sequence[int], ids: list[int]) -> list[int]:
    """Return what follows the last occurrence of `part` in `ids`; without one, all of them."""
    for end in range(len(ids), len(part) - 1, -1):
        if ids[end - len(part) : end] == part:
            return ids[end:]
    return ids


def _no_second_turn(why: str) -> ConfigError:
    return ConfigError(
        f"the proposer's chat template has no second turn ({why}): set propose.turns = 'single'"
    )


@cache
def _template_error() -> type[Exception]:
    """What a template raises; jinja2 comes with transformers, which the core does without."""
    try:
        from jinja2 import TemplateError
    except ImportError:
        return ValueError
    return TemplateError
