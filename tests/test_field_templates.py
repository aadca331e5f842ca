"""The collected field cases of chat templates and tokenizers, on the families' tiny tokenizers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import transformers.utils.chat_template_utils as templates
from transformers import AutoTokenizer

from families import FAMILIES, tokenizer_of
from field import field_cases, needs_field_cases
from midcourse.engines.bundled import base_folder
from midcourse.rendering import Message, Renderer
from midcourse.training.sft import check_rows
from test_families import DAYS, clock_at, controls, row

pytestmark = needs_field_cases


def second_turn(case: dict[str, Any], _: pytest.MonkeyPatch) -> None:
    """The end of a first turn and the second one, as the template writes them."""
    name = case["input"]["template"]
    renderer, tokenizer = Renderer(tokenizer_of(name)), tokenizer_of(name)
    first: Message = {"role": "user", "content": "First?"}
    reply = renderer.encode("Reply.")
    by_parts = [*renderer.prompt_ids([first]), *reply, *renderer.end_of_turn_ids]
    by_parts += renderer.next_turn_ids("Second?")
    whole = renderer.second_turn_ids(first, [*reply, *renderer.end_of_turn_ids], "Second?")
    wanted = case["expected"].strip("…")
    if FAMILIES[name].takes_spaces:  # Phi-3's own tokenizer takes the newlines after a marker
        wanted = wanted.replace("\n", "")
    for ids in (by_parts, whole):
        text = tokenizer.decode(ids)
        text = text.replace("|> ", "|>") if FAMILIES[name].takes_spaces else text
        assert text.endswith(wanted) or (case["expected"].endswith("…") and wanted in text)


def row_with_newlines(case: dict[str, Any], _: pytest.MonkeyPatch) -> None:
    """An intervention row whose prefix has the newline that the template writes after a turn."""
    name = case["input"]["template"]
    made = row(name, "We have:\nx = 2.\n\n", "Then x + 1 = 3.\n\n")
    check_rows([made], Renderer(tokenizer_of(name)).end_of_turn_ids)


def two_days(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ids on two days: what was verified on the first is built on the second."""
    name, prompts = case["input"]["template"], []
    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    first_line = "Today Date: {{ strftime_now('%d %b %Y') }}\n"
    tokenizer.chat_template = f"{first_line}{tokenizer.chat_template}"
    for day in DAYS:
        monkeypatch.setattr(templates, "datetime", clock_at(day))
        renderer = Renderer(tokenizer_of(name) if name in FAMILIES else tokenizer)
        prompt = renderer.prompt_ids([{"role": "user", "content": "x"}])
        prompts.append(prompt + renderer.cut(renderer.encode("So.\n\nx"), "So.\n\n", "y").all)
    assert prompts[0] == prompts[1]


def joined(case: dict[str, Any], _: pytest.MonkeyPatch) -> None:
    """Texts that SentencePiece encodes anew, read back."""
    name = "mistral_v0_3" if "Metaspace" in case["input"]["tokenizer"] else "mistral_v0_1"
    renderer = Renderer(tokenizer_of(name))
    texts = re.findall(r'"((?:[^"\\]|\\.)*)"', case["input"]["call"])
    texts = [text.replace("\\n", "\n") for text in texts]
    if "next_turn_ids" in case["input"]["call"]:
        wanted = f"[INST] {texts[0]}{renderer.around_user()[1]}"
        assert renderer.decode(renderer.next_turn_ids(texts[0])).strip() == wanted
        return
    prefix, addition = (texts[0], texts[1]) if len(texts) > 1 else ("", texts[0])
    cut = renderer.cut(renderer.encode(f"{prefix}The F."), prefix, addition)
    assert renderer.decode(cut.all) == prefix + addition


def tags_in_a_problem(case: dict[str, Any], _: pytest.MonkeyPatch) -> None:
    """A problem that contains a control token."""
    name = case["input"]["template"]
    found = re.search(r'"(.*)"', case["input"]["call"])
    assert found
    renderer = Renderer(tokenizer_of(name))
    asked = renderer.prompt_ids([{"role": "user", "content": found.group(1)}])
    plain = renderer.prompt_ids([{"role": "user", "content": "Count the tags in it."}])
    assert controls(name, asked) == controls(name, plain)
    assert found.group(1) in tokenizer_of(name).decode(asked)


KINDS: dict[str, Callable[[dict[str, Any], pytest.MonkeyPatch], None]] = {
    "second turn of the proposer malformed": second_turn,
    "SFT refuses every row with a single newline": row_with_newlines,
    "date in the chat template": two_days,
    "SentencePiece: a blank before every piece that is encoded anew": joined,
    "control tokens outside all_special_tokens": tags_in_a_problem,
}


@pytest.mark.parametrize("case", field_cases("template"), ids=lambda case: case["id"])
def test_a_collected_case_comes_out_as_expected(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    KINDS[case["kind"]](case, monkeypatch)
