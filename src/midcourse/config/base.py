"""What every section of a recipe is made of: strict fields, identity, sampling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
)
from pydantic.fields import FieldInfo

from midcourse.records import Sampling

T = TypeVar("T")
#: Part of every artifact's key. Raise it when a default of a key that decides results changes.
KEYS_VERSION = 1


@dataclass(frozen=True, slots=True)
class Complaint:
    """What the keys of a section say against each other, in one line."""

    text: str
    keys: tuple[str, ...]
    """Those that it is about, dotted, seen from the section that complains."""


class Contradictions(ValueError):
    """Every complaint of one section; pydantic keeps it as the cause of an error."""

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        super().__init__("; ".join(complaint.text for complaint in complaints))
        self.complaints = tuple(complaints)


def refuse(complaints: Iterable[Complaint]) -> None:
    """Raise Contradictions if there is any complaint: what a section's validator ends with."""
    if found := tuple(complaints):
        raise Contradictions(found)


def _in_order(part: tuple[float, float]) -> tuple[float, float]:
    if part[0] >= part[1]:
        raise ValueError(f"{list(part)} is empty: write the smaller number first")
    return part


def without_credentials(text: str) -> str:
    """Return `text` without the user and password of any URL in it: they are written nowhere."""
    return re.sub(r"(?<=://)[^/\s\"'?#]*@", "", text)


#: What the renderer itself tells a chat template, or the method that fills it in.
_NOT_OF_TEMPLATES = re.compile(
    "add_generation_prompt|chat_template|continue_final_message|conversation|documents|max_length"
    "|messages|padding|return_assistant_tokens_mask|return_dict|return_tensors|strftime_now"
    "|tokenize|tokenizer_kwargs|tools|truncation"
)


def _of_templates(arguments: Any) -> Any:
    for name, value in arguments.items() if isinstance(arguments, dict) else ():
        if _NOT_OF_TEMPLATES.fullmatch(name) or not name.isidentifier():
            raise ValueError(f"{name!r} is no argument of a chat template: leave it out")
        if type(value) not in (bool, int, str):
            raise ValueError(f"{name} = {value!r}: give a boolean, an integer or a text")
    return arguments


TemplateArguments = dict[str, StrictBool | StrictInt | StrictStr]
CheckedTemplateArguments = Annotated[TemplateArguments, BeforeValidator(_of_templates)]
Dtype = Literal["auto", "float32", "bfloat16"]
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[tuple[Share, Share], AfterValidator(_in_order)]


def is_bfloat16(dtype: Dtype, *, on_gpu: bool) -> bool:
    """Whether a recipe's dtype is bfloat16 on a device; ``auto`` is on a GPU alone."""
    return dtype == "bfloat16" or (dtype == "auto" and on_gpu)


def tunable(default: T, **constraints: Any) -> T:
    """Declare a key that may change at a resume; `constraints` are those of pydantic's Field."""
    made: T = Field(default, json_schema_extra={"tunable": True}, **constraints)
    return made


def is_tunable(field: FieldInfo) -> bool:
    """Whether a key may change at a resume."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("tunable"))


class Section(BaseModel):
    """Base of every section: strict, frozen, documented fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def identity(self, *, with_defaults: bool = False) -> dict[str, object]:
        """Return the values that decide results, as JSON holds them, without tunable keys.

        Values at their default are left out, so that a key which a later release adds renames
        nothing that exists; a default never changes without `KEYS_VERSION`. What an engine is
        (`kind`) always counts.
        """
        found: dict[str, object] = {}
        plain = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if is_tunable(field):
                continue
            if isinstance(value, Section):
                nested = value.identity(with_defaults=with_defaults)
                found |= {name: nested} if nested or with_defaults else {}
            elif with_defaults or value != field.default or name == "kind":
                found[name] = plain[name]
        return found


class SamplingConfig(Section):
    """All sampling parameters. Nothing is left to a server's generation_config.json."""

    temperature: float = Field(1.0, ge=0)
    """Divides the logits; 0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Keep the likeliest tokens up to this total probability; 1 switches it off."""
    top_k: int = Field(0, ge=0)
    """Keep so many of the likeliest tokens; 0 switches it off."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Drop tokens below this share of the likeliest one's probability; 0 switches it off."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Divides the logits of tokens that were used; 1 switches it off."""
    max_tokens: int = Field(16_384, ge=1)
    """New tokens per completion."""

    @property
    def is_cut(self) -> bool:
        """Whether probabilities are changed beyond the temperature."""
        cuts = self.top_p < 1 or self.top_k or self.min_p
        return bool(cuts or self.repetition_penalty != 1)

    def record(self, **changes: int) -> Sampling:
        """Return the record that travels with every request."""
        return Sampling(**{**self.model_dump(), **changes})


def check_rounds(rounds: Sequence[int], name: str, total: int) -> Iterator[Complaint]:
    """Complain unless rounds, if there are any, are positive and sum to `total`."""
    if rounds and (min(rounds) < 1 or sum(rounds) != total):
        text = f"rounds {list(rounds)} must be positive and sum to {name}={total}"
        yield Complaint(text, ("rounds", name))
