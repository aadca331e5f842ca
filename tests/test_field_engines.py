"""The collected field cases of servers: each is played by a server of our own."""

from __future__ import annotations

import re
from typing import Any

import pytest

from field import field_cases, needs_field_cases
from hostile_server import Behaviour, honest, in_turn, replies, says, serving, unless
from midcourse.records import FinishReason, Sampling
from test_servers import answers, engine_of, requests


def behaviours_of(given: dict[str, Any]) -> tuple[Behaviour, ...]:
    """Return what the server of a case does."""
    told = str(given.get("server", ""))
    if "message" in given:
        return (says(message=given["message"], finish_reason=given["finish_reason"]),)
    if found := re.search(r"unsupported parameter (\w+)", told):
        words, name = found[0], found[1]
        return (unless(lambda body: words if name in body else ""),)
    if "error body" in told or "choices[0].error" in told:
        return in_turn(says(error={"message": "overloaded"}, finish_reason="error"))
    if found := re.match(r"(\d{3})", told):
        return in_turn(replies('{"error": {"message": "later"}}', int(found[1])))
    return (honest,)


@needs_field_cases
@pytest.mark.parametrize("case", field_cases("engine"), ids=lambda case: case["id"])
def test_servers_of_the_field_are_understood(case: dict[str, Any]) -> None:
    given, expected = case["input"], case["expected"]
    if "prompt_tokens" in given:
        check_clamp(given)
        return
    refused = re.search(r"unsupported parameter (\w+)", str(given.get("server", "")))
    parameters = {refused[1]: ""} if refused else {}
    with serving(*behaviours_of(given)) as server:
        engine = engine_of(server, chat="chat=True" in given["engine"], parameters=parameters)
        done = answers(engine, requests(1))["r0"]
    assert done.error is None
    is_length = "finish reason length" in expected or "truncated" in expected
    assert done.finish_reason is (FinishReason.LENGTH if is_length else FinishReason.STOP)
    if quoted := re.search(r'text "(.*)"', expected):
        assert done.text == quoted[1]
    if "asked again" in expected:
        assert len(server.asked) == 2


def check_clamp(given: dict[str, Any]) -> None:
    context = given["max_context_tokens"]
    sampling = Sampling(
        temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0,
        max_tokens=given["max_tokens"],
    )  # fmt: skip

    def refuse(body: dict[str, Any]) -> str:
        return "too long" if len(body["prompt"]) + body["max_tokens"] > context else ""

    asked = requests(1, prompt_token_ids=(65,) * given["prompt_tokens"], sampling=sampling)
    with serving(unless(refuse), max_model_len=context) as server:
        assert answers(engine_of(server), asked)["r0"].error is None
    assert server.asked[0].body["max_tokens"] == context - given["prompt_tokens"]
