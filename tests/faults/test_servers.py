"""What a server may do to us: nothing that ends, blocks or falsifies a run."""

from __future__ import annotations

import base64
import json
import resource
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hostile_server as hostile
from hostile_server import Asked, Behaviour, Hostile, honest, in_turn, replies, says, serving
from midcourse.config import OpenAIConfig, make_recipe
from midcourse.engines.base import Completion, Request
from midcourse.engines.exchange import MAX_WAIT_SECONDS, Reply, Secrets
from midcourse.engines.openai_engine import OpenAIEngine
from midcourse.engines.replies import read_finish, refused_lengths, stated_length
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.errors import ConfigError, EngineError
from midcourse.records import FinishReason, Sampling
from midcourse.rendering import Renderer

SAMPLING = Sampling(
    temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=60
)


def engine_of(server: Hostile, *, chat: bool = False, **changes: Any) -> OpenAIEngine:
    settings = {"urls": (server.url,), "served_model": "m", "chat": chat} | changes
    renderer = None if chat else Renderer(ByteTokenizer())
    config = OpenAIConfig(**settings)
    return OpenAIEngine(
        config, renderer, (), max_retries=3, backoff_seconds=0.01, seconds_per_token=0.0,
        trust_env=False,
    )  # fmt: skip


def requests(count: int, **changes: Any) -> list[Request]:
    fields: dict[str, Any] = {
        "prompt_token_ids": (65, 66, 67),
        "sampling": SAMPLING,
        "group": "g",
        "messages": ({"role": "user", "content": "What is 6 × 7?"},),
    }
    return [Request(request_id=f"r{n}", seed=n, **(fields | changes)) for n in range(count)]


def answers(engine: OpenAIEngine, asked: Iterable[Request]) -> dict[str, Completion]:
    with engine.session() as session:
        session.submit(list(asked))
        return {completion.request_id: completion for completion in session.completions()}


BROKEN: dict[str, Behaviour] = {
    "HTML": replies("<html>busy</html>"),
    "nothing": replies(""),
    "half of it": replies('{"choices": [{"te'),
    "status 204": replies("", 204),
    "an error object": replies('{"error": {"message": "out of memory"}}'),
    "a list": replies("[]"),
    "a number": replies("17"),
    "no choices": replies('{"choices": []}'),
    "null choices": replies('{"choices": null}'),
    "numeric choices": replies('{"choices": [1]}'),
    "nested beyond reading": replies("[" * 100_000),
    "a number of 5,000 digits": replies('{"choices": [' + "1" * 5_000 + "]}"),
    "no text": says(text=None),
    "text that is a number": says(text=42),
    "no ids": says(token_ids=None),
    "ids that are a text": says(token_ids="abc"),
    "ids of texts": says(token_ids=["70"]),
    "ids that are floats": says(token_ids=[70.0, 105.0]),
    "ids that are booleans": says(token_ids=[True, False]),
    "ids that are NaN": says(token_ids=[float("nan")]),
    "nested ids": says(token_ids=[[70]]),
    "ids that are an object": says(token_ids={"0": 70}),
    "a negative id": says(token_ids=[70, -1]),
    "an id beyond the vocabulary": says(token_ids=[*b"Fine.", 259]),
    "an id beyond 64 bits": says(token_ids=[*b"Fine.", 2**70]),
    "ids of another text": says(token_ids=[*b"Fine, but not here."]),
    "text without ids": says(token_ids=[]),
    "more tokens than asked": says(text="x" * 61, token_ids=[120] * 61),
    "an unknown finish": says(finish_reason="odd"),
    "an aborted reply": says(finish_reason="abort"),
    "a filtered reply": says(finish_reason="content_filter"),
    "another index": says(index=3),
    "another model": lambda asked: asked.send(
        json.dumps({"model": "n", "choices": [hostile.choice(asked)]}).encode()
    ),
    "a stream of nothing": hostile.streams(),
    "a stream that breaks off": hostile.streams('data: {"choices": [{"text": "Fi"}]}'),
    "a stream that ends in an error": hostile.streams(
        'data: {"choices": [{"text": "Fi", "token_ids": [70, 105]}]}',
        'data: {"error": {"message": "EngineCore encountered an issue."}}',
        "data: [DONE]",
    ),
    "a stream without JSON": hostile.streams("data: busy", "data: [DONE]"),
    "a stream of numbers": hostile.streams("data: 17", "data: [DONE]"),
    "a stream nested beyond reading": hostile.streams("data: " + "[" * 100_000),
    "a stream of other ids": hostile.streams(
        'data: {"choices": [{"text": "Fine.", "token_ids": [70], "finish_reason": "stop"}]}'
    ),
    "a packing that was not asked for": replies("x", Content_Encoding="br"),
    "a packing that it is not": replies("x", Content_Encoding="gzip"),
    "hanging up": hostile.reset,
    "no HTTP": lambda asked: asked.connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_answer_is_asked_again(broken: Behaviour) -> None:
    with serving(*in_turn(honest, broken)) as server:
        done = answers(engine_of(server, concurrency=1), requests(3))
    assert [completion.error for completion in done.values()] == [None] * 3
    assert {completion.text for completion in done.values()} == {"Fine."}
    assert len(server.asked) == 4


def only_for(seed: int, broken: Behaviour) -> Behaviour:
    """Do it for one request, however often; answer all others."""
    return lambda asked: (broken if asked.body["seed"] == seed else honest)(asked)


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_request_that_always_fails_fails_alone(broken: Behaviour) -> None:
    with serving(only_for(1, broken)) as server:
        done = answers(engine_of(server, concurrency=2), requests(6))
    assert [name for name, completion in done.items() if completion.error] == ["r1"]
    assert done["r1"].finish_reason is FinishReason.REQUEST_FAILED
    assert (done["r1"].text, done["r1"].token_ids) == ("", ())
    assert Counter(asked.body["seed"] for asked in server.asked)[1] <= 2 * 4 + 2


@pytest.mark.parametrize("broken", [*BROKEN.values()][::6], ids=[*BROKEN][::6])
def test_what_is_left_of_a_run_may_be_nothing_but_failures(broken: Behaviour) -> None:
    """The short question is answered, so the server is well: each request fails alone."""

    def behave(asked: Asked) -> None:
        (honest if len(asked.body["prompt"]) < 10 else broken)(asked)

    with serving(behave) as server:
        long = requests(3, prompt_token_ids=(65,) * 40)
        done = answers(engine_of(server), long)
    assert [bool(completion.error) for completion in done.values()] == [True] * 3


def test_the_short_question_may_get_a_long_answer() -> None:
    def behave(asked: Asked) -> None:
        is_short = asked.body["max_tokens"] == 16
        (says(text="y" * 40, token_ids=[121] * 40) if is_short else replies("", 400))(asked)

    with serving(behave) as server:
        done = answers(engine_of(server), requests(2))
    assert [bool(completion.error) for completion in done.values()] == [True] * 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_server_that_refuses_everything_is_noticed_at_once(status: int) -> None:
    with serving(replies('{"error": {"message": "no"}}', status)) as server:
        engine = engine_of(server, concurrency=4)
        with pytest.raises(EngineError, match=f"status {status}: no.*engine.*same command again"):
            answers(engine, requests(900))
    assert len(server.asked) <= 4 + 1


@pytest.mark.parametrize("broken", [hostile.reset, replies("<html>"), replies("busy", 503)])
def test_a_server_that_answers_nothing_is_given_up(broken: Behaviour) -> None:
    with serving(broken) as server:
        with pytest.raises(EngineError, match="nothing is lost"):
            answers(engine_of(server, concurrency=4), requests(100))
        assert len(server.asked) <= 4 * 4 + 4


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_status_that_passes_is_waited_for(status: int) -> None:
    busy = replies("busy", status)
    with serving(*in_turn(busy, busy, busy)) as server:
        assert answers(engine_of(server), requests(1))["r0"].text == "Fine."
    assert len(server.asked) == 4


def test_a_limit_of_the_rate_is_waited_for_as_long_as_others_are_answered() -> None:
    turns = iter(range(10**6))
    busy = replies("", 429)
    with serving(lambda asked: (busy if next(turns) % 4 else honest)(asked)) as server:
        engine = engine_of(server, concurrency=8)
        engine.max_retries, engine.backoff_seconds = 5, 0.05
        done = answers(engine, requests(40))
    assert [completion.error for completion in done.values()] == [None] * 40


@pytest.mark.parametrize("in_flight", [64, 128])
def test_a_burst_of_resets_does_not_stop_a_server_that_is_well(in_flight: int) -> None:
    with serving(hostile.one_reset_each(in_flight)) as server:
        done = answers(engine_of(server, concurrency=in_flight), requests(2 * in_flight))
    assert [completion.error for completion in done.values()] == [None] * 2 * in_flight
    assert len(server.asked) == 3 * in_flight


@pytest.mark.parametrize("slow", [hostile.slow_headers, hostile.slow_body])
def test_a_reply_that_drips_is_silence(slow: Behaviour) -> None:
    with serving(only_for(1, slow)) as server:
        done = answers(engine_of(server, timeout_seconds=0.5), requests(3))
    assert "no whole reply, and 0.5 s of silence" in str(done["r1"].error)
    assert done["r2"].error is None


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        ("2", 2.0), ("0.5", 0.5), ("86400", MAX_WAIT_SECONDS), ("inf", MAX_WAIT_SECONDS),
        ("1e308", MAX_WAIT_SECONDS), ("1e999", MAX_WAIT_SECONDS), ("nan", 0.0), ("-5", 0.0),
        ("-inf", 0.0), ("", 0.0), ("soon", 0.0), ("2,5", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_WAIT_SECONDS),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("Fri, 99 Dec 99999 23:59:59 GMT", 0.0),
    ],
)  # fmt: skip
def test_how_long_a_server_makes_us_wait_is_bounded(asked: str, waited: float) -> None:
    assert Reply(429, b"", {"Retry-After": asked}).wait_seconds == waited


@pytest.mark.parametrize("huge", [hostile.bomb(100), hostile.endless], ids=["bomb", "endless"])
def test_a_reply_that_swells_takes_little_memory(huge: Behaviour) -> None:
    with serving(only_for(1, huge)) as server:
        engine = engine_of(server, concurrency=1)
        tracemalloc.start()
        done = answers(engine, requests(3))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert "more than" in str(done["r1"].error)
    assert done["r2"].error is None
    assert peak < 16 * 2**20


@pytest.mark.parametrize("slow", [hostile.slow_headers, hostile.slow_body])
def test_a_server_that_drips_from_the_start_is_noticed(slow: Behaviour) -> None:
    with serving(honest) as server:
        server.at_models = slow
        with pytest.raises(EngineError, match=r"0\.5 s of silence.*nothing is lost"):
            answers(engine_of(server, timeout_seconds=0.5), requests(1))
    assert server.asked == []


@pytest.mark.parametrize(
    "broken", [replies("<html>"), replies("[]"), replies('{"data": [{}]}'), replies("x", 503)]
)
def test_a_list_of_models_that_is_none_is_one_line(broken: Behaviour) -> None:
    with serving(honest) as server:
        server.at_models = broken
        with pytest.raises(EngineError, match="does not answer as expected"):
            answers(engine_of(server), requests(1))


def test_a_reply_that_is_packed_is_read() -> None:
    import gzip

    def packed(asked: Asked) -> None:
        content = json.dumps({"choices": [hostile.choice(asked)]}).encode()
        asked.send(gzip.compress(content), Content_Encoding="gzip")

    with serving(packed) as server:
        assert answers(engine_of(server), requests(1))["r0"].text == "Fine."


def test_half_an_emoji_is_a_character_that_cannot_be_read() -> None:
    text = "So \U0001f600".encode()[:-1]
    with serving(says(text="So \ud83d", token_ids=[*text], finish_reason="length")) as server:
        done = answers(engine_of(server), requests(1))["r0"]
    assert (done.text, done.finish_reason) == ("So �", FinishReason.LENGTH)
    with serving(says(message={"content": "\ud83d\ude00 and \ude00"})) as server:
        assert answers(engine_of(server, chat=True), requests(1))["r0"].text == "\U0001f600 and �"


STREAM = (
    ": keep alive",
    'data: {"model": "m", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}',
    'data: {"choices": [{"index": 1, "delta": {"content": "Not mine."}}]}',
    'data: {"choices": [{"index": 0, "delta": {"content": null, "reasoning": "Let me"}}]}',
    'data:{"choices": [{"delta": {"content": "Fi"}, "finish_reason": ""}]}\r',
    'data: {"choices": [{"delta": {"content": "ne."}, "finish_reason": "stop"}]}',
    'data: {"choices": [], "usage": {"completion_tokens": 3}}',
)


def test_a_streamed_chat_is_put_together() -> None:
    with serving(hostile.streams(*STREAM, "data: [DONE]")) as server:
        done = answers(engine_of(server, chat=True), requests(2))
    assert {completion.text for completion in done.values()} == {"Fine."}
    assert {completion.finish_reason for completion in done.values()} == {FinishReason.STOP}
    assert [asked.body["stream"] for asked in server.asked] == [True, True]


def test_a_stream_may_end_with_its_finish_reason() -> None:
    with serving(hostile.streams(*STREAM)) as server:
        assert answers(engine_of(server, chat=True), requests(1))["r0"].text == "Fine."


def test_a_chat_server_that_refuses_streams_is_asked_without() -> None:
    refuse = hostile.unless(lambda body: "streaming is not supported" if body["stream"] else "")
    with serving(refuse) as server:
        done = answers(engine_of(server, chat=True, concurrency=1), requests(3))
    assert [completion.error for completion in done.values()] == [None] * 3
    assert [asked.body["stream"] for asked in server.asked] == [True, False, False, False]


def test_the_first_choice_is_the_one_with_index_0() -> None:
    def two(asked: Asked) -> None:
        choices = [hostile.choice(asked, "Second.", index=1), hostile.choice(asked, "First.")]
        asked.send(json.dumps({"choices": choices}).encode())

    with serving(two) as server:
        assert answers(engine_of(server), requests(1))["r0"].text == "First."


# --- what servers say in their own words -------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        *((name, FinishReason.STOP) for name in (
            "stop", "STOP", "eos", "eos_token", "EOS", "stop_sequence", "stop_str", "stop_token",
            "end", "end_turn", "EndTurn", "end_of_text", "complete", "COMPLETE", "completed",
            "finished", "done", "word", "eot", "eot_id", "endoftext", "eosFound",
            "tool_calls", "tool_use", "function_call",
            {"type": "stop", "matched": 151645}, None, "",
        )),
        *((name, FinishReason.LENGTH) for name in (
            "length", "max_tokens", "MAX_TOKENS", "max_length", "max_new_tokens", "limit",
            "max_output_tokens", "model_length", "model_context_window_exceeded", "truncated",
            "incomplete", "maxPredictedTokensReached", "contextLengthReached", "budget_exceeded",
            {"type": "length", "length": 60},
        )),
    ],
    ids=str,
)  # fmt: skip
def test_finish_reasons_of_all_servers_are_known(reason: object, end: FinishReason) -> None:
    assert read_finish(reason, 5, 60) is end


@pytest.mark.parametrize("reason", [None, ""])
def test_an_end_without_a_reason_is_told_by_its_length(reason: object) -> None:
    assert read_finish(reason, 60, 60) is FinishReason.LENGTH
    assert read_finish(reason, None, 60) is FinishReason.STOP


@pytest.mark.parametrize(
    "reason",
    ["abort", "aborted", "error", "content_filter", "SAFETY", "cancelled", "refusal", "timeout",
     "network_error", "insufficient_system_resource", "odd", "rate_limit_exceeded",
     "quota_limit", "userStopped", "error_limit", "null", False, 7,
     ["stop"][:0], {"type": "abort"}],
    ids=str,
)  # fmt: skip
def test_a_reply_that_was_broken_off_is_no_answer(reason: object) -> None:
    with pytest.raises(ValueError, match="finish reason"):
        read_finish(reason, 5, 60)


CUT_OFF = [
    {"content": None, "reasoning_content": "I check substep 1 …"},
    {"content": None},
    {"content": ""},
    {"role": "assistant", "reasoning": "Let me see"},
    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Let me"}]}]},
]


@pytest.mark.parametrize("message", CUT_OFF, ids=str)
@pytest.mark.parametrize("reason", ["length", "max_tokens", "limit"])
def test_thinking_that_was_cut_off_is_truncated(message: dict[str, Any], reason: str) -> None:
    with serving(says(message=message, finish_reason=reason)) as server:
        done = answers(engine_of(server, chat=True), requests(1))["r0"]
    assert (done.error, done.text, done.finish_reason) == (None, "", FinishReason.LENGTH)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "one "}, {"text": "two"}]}, "one two"),
        ({"content": ["one ", {"text": "two"}]}, "one two"),
        ({"content": {"type": "text", "text": "one"}}, "one"),
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}, {"text": "x"}]}, "x"),
        ({"content": [{"type": "thinking", "thinking": "h"}, {"type": "text", "text": "y"}]}, "y"),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": None, "tool_calls": [{"id": "1"}]}, ""),
        ({"content": None, "reasoning": "I have thought."}, ""),
        ({"content": None, "thinking": "I have thought."}, ""),
        ({"content": None, "reasoning_details": [{"text": "I have thought."}]}, ""),
        ({"content": [{"type": "reasoning", "text": "h"}, {"type": "text", "text": "y"}]}, "y"),
        ({"content": [{"type": "thinking", "text": None}, {"type": "text", "text": "y"}]}, "y"),
    ],
    ids=str,
)  # fmt: skip
def test_content_of_parts_is_text(message: dict[str, Any], text: str) -> None:
    with serving(says(message=message)) as server:
        done = answers(engine_of(server, chat=True), requests(1))["r0"]
    assert (done.error, done.text, done.finish_reason) == (None, text, FinishReason.STOP)


@pytest.mark.parametrize(
    "message",
    [None, "text", {"content": None}, {}, {"content": [7]}, {"content": [{"text": 7}]},
     {"content": 7}],
    ids=str,
)  # fmt: skip
def test_a_message_without_content_is_no_answer(message: object) -> None:
    with serving(*in_turn(says(message=message))) as server:
        assert answers(engine_of(server, chat=True), requests(1))["r0"].text == "Fine."
    assert len(server.asked) == 2


def test_another_name_of_the_model_is_fine_as_long_as_it_stays() -> None:
    def named(name: str) -> Behaviour:
        return lambda asked: asked.send(
            json.dumps({"model": name, "choices": [hostile.choice(asked)]}).encode()
        )

    with serving(named("m-2026-01-01")) as server:
        assert answers(engine_of(server, chat=True), requests(2))["r1"].error is None
    swapped = pytest.raises(EngineError, match="model 'b' answered, where 'a' did before")
    with serving(named("a"), named("b")) as server, swapped:
        answers(engine_of(server, chat=True, concurrency=1), requests(2))


# --- lengths and parameters --------------------------------------------------------------------

REFUSALS = {
    "vLLM": "This model's maximum context length is 40 tokens. However, you requested 63 tokens "
    "(3 in the messages, 60 in the completion). Please reduce the length.",
    "vLLM, newer": "'max_tokens' or 'max_completion_tokens' is too large: 60. This model's maximum "
    "context length is 40 tokens and your request has 3 input tokens (60 > 40 - 3).",
    "vLLM, newest": "This model's maximum context length is 40 tokens. However, you requested 60 "
    "output tokens and your prompt contains at least 3 input tokens, for a total of at least 63.",
    "SGLang": "Requested token count exceeds the model's maximum context length of 40 tokens. You "
    "requested a total of 63 tokens: 3 tokens from the input messages and 60 tokens for the "
    "completion.",
    "OpenAI": "This model supports at most 37 completion tokens, whereas you provided 60.",
    "TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 40. Given: 3 "
    "`inputs` tokens and 60 `max_new_tokens`",
    "Groq": "`max_tokens` must be less than or equal to `37`, the maximum value for `max_tokens` "
    "is less than the `context_window` for this model",
    "Anthropic": "max_tokens: 60 > 37, which is the maximum allowed number of output tokens",
    "Anthropic, both": "input length and `max_tokens` exceed context limit: 3 + 60 > 40, decrease "
    "input length or `max_tokens` and try again",
    "in brackets": "prompt tokens (3) + max_tokens (60) exceeds 40 context window",
    "a total alone": "maximum context length is 40 tokens, you requested about 63 tokens",
}


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("words", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_says_how_many_tokens_to_ask_for(words: str, chat: bool) -> None:
    with serving(hostile.unless(lambda body: words if body["max_tokens"] > 37 else "")) as server:
        done = answers(engine_of(server, chat=chat), requests(1))["r0"]
    assert (done.error, done.text) == (None, "Fine.")
    assert [asked.body["max_tokens"] for asked in server.asked] == [60, 37]


def test_a_refusal_that_contradicts_itself_is_no_long_prompt() -> None:
    words = "maximum context length is 100000 tokens. However, your messages resulted in 3 tokens."
    with serving(replies(words, 400)) as server, pytest.raises(EngineError, match="100000"):
        answers(engine_of(server), requests(3))


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 40 tokens. However, your prompt has 50 tokens.",
        "The input (50 tokens) is longer than the model's context length (40 tokens).",
        '{"code": 400, "message": "the request exceeds the available context size", '
        '"type": "exceed_context_size_error", "n_prompt_tokens": 50, "n_ctx": 40}',
        "request (50 tokens) exceeds the available context size (40 tokens), try increasing it",
        "the model is loaded with context length of only 40 tokens, which is not enough",
        "`inputs` must have less than 40 tokens. Given: 50",
        "prompt is too long: 50 tokens > 40 maximum",
        "Prompt contains 50 tokens, too large for model with 40 maximum context length",
        "Requested tokens (50) exceed context window of 40",
        "maximum context length is 40 tokens. However, your messages resulted in 50 tokens.",
        "The decoder prompt (length 50) is longer than the maximum model length of 40.",
        "The input token count (50) exceeds the maximum number of tokens allowed (40).",
        "tokens to keep is greater than the context length (n_keep: 50>= n_ctx: 40)",
    ],
)
def test_a_prompt_that_a_server_cannot_take_is_an_outcome(words: str) -> None:
    refuse = hostile.unless(lambda body: words if body["seed"] == 1 else "")
    with serving(refuse) as server:
        done = answers(engine_of(server, chat=True, concurrency=1), requests(3))
    assert [completion.error for completion in done.values()] == [None] * 3
    reasons = {name: completion.finish_reason for name, completion in done.items()}
    assert reasons["r1"] is FinishReason.PROMPT_TOO_LONG
    assert reasons["r2"] is FinishReason.STOP


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "Rate limit reached: limit 6000, requested 7000 tokens per minute",
        "temperature must be 1", "no such model", "", "the context is missing", "length 5",
    ],
)  # fmt: skip
def test_a_refusal_about_something_else_says_nothing_of_lengths(words: str) -> None:
    said = refused_lengths(words, 60)
    assert (said.context, said.most) == (None, None)


def test_a_server_that_always_wants_less_is_given_up() -> None:
    def less(body: dict[str, Any]) -> str:
        return f"at most {body['max_tokens'] - 1} completion tokens" if body["seed"] == 1 else ""

    with serving(hostile.unless(less)) as server:
        done = answers(engine_of(server), requests(2))
    assert done["r1"].error
    assert len(server.asked) < 20


@pytest.mark.parametrize(
    ("description", "length"),
    [
        ({"id": "m", "max_model_len": 4096}, 4096),
        ({"id": "m", "context_length": 8192}, 8192),
        ({"id": "m", "max_context_length": 9, "loaded_context_length": 7}, 7),
        ({"default_generation_settings": {"n_ctx": 2048}}, 2048),
        ({"max_total_tokens": 1024}, 1024),
        ({"meta": {"n_ctx_train": 131072}}, None),
        ({"max_model_len": None}, None), ({"max_model_len": "9"}, None), ({"n_ctx": 0}, None),
        ({"n_ctx": True}, None), ([], None), (None, None),
    ],
)  # fmt: skip
def test_servers_state_their_length_in_their_own_fields(description: object, length: int) -> None:
    assert stated_length(description) == length


@pytest.mark.parametrize("chat", [False, True])
def test_no_more_is_asked_for_than_the_server_takes(chat: bool) -> None:
    with serving(honest, max_model_len=40) as server:
        engine = engine_of(server, chat=chat)
        done = answers(engine, requests(1, **({"prompt_token_ids": ()} if chat else {})))
        assert done["r0"].error is None
        assert server.asked[0].body["max_tokens"] == (40 if chat else 37)
        if not chat:
            long = requests(1, prompt_token_ids=(65,) * 40)
            assert answers(engine, long)["r0"].finish_reason is FinishReason.PROMPT_TOO_LONG
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "seed", "top_p", "n"])
def test_a_parameter_that_a_server_refuses_is_dropped_or_renamed_by_a_setting(name: str) -> None:
    refuse = hostile.unless(lambda body: f"Unsupported parameter: '{name}'" if name in body else "")
    with serving(refuse) as server:
        with pytest.raises(EngineError, match=f"'{name}'.*engine.parameters"):
            answers(engine_of(server, chat=True), requests(3))
        dropped = engine_of(server, chat=True, parameters={name: ""})
        assert answers(dropped, requests(1))["r0"].error is None
        renamed = engine_of(server, chat=True, parameters={name: "x"})
        assert answers(renamed, requests(1))["r0"].error is None
        assert "x" in server.asked[-1].body


def test_a_parameter_that_is_never_sent_cannot_be_renamed() -> None:
    data: dict[str, Any] = {"name": "x", "model": {"path": "lab"}}
    data["proposer_engine"] = {"kind": "openai", "parameters": {"max_token": ""}}
    with pytest.raises(ConfigError, match="max_token"):
        make_recipe(data, [], "test")


def test_dropped_parameters_are_part_of_what_an_engine_is() -> None:
    plain, other = OpenAIConfig(), OpenAIConfig(parameters={"seed": ""})
    assert plain.identity() == {"kind": "openai"}
    assert other.identity() == {"kind": "openai", "parameters": {"seed": ""}}


# --- secrets and foreign text ------------------------------------------------------------------

KEY, PASSWORD = "sk-canary-0123456789", "pass/word-canary"


def test_no_secret_comes_back_in_what_a_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", KEY)

    def echo(asked: Asked) -> None:
        said = f"\x1b[31mwrong: {asked.headers['authorization']} {KEY} {PASSWORD} me:{PASSWORD}\a"
        asked.send(json.dumps({"error": {"message": said}}).encode(), 401)

    with serving(echo) as server:
        url = server.url.replace("//", "//me:pass%2Fword-canary@")
        engine = engine_of(server, urls=(url,), api_key_env="CANARY")
        with pytest.raises(EngineError, match="api_key_env") as caught:
            answers(engine, requests(1))
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    told = str(caught.value)
    assert not [s for s in (KEY, PASSWORD, "pass%2Fword", basic, "\x1b", "\a", "me:") if s in told]


def test_secrets_are_hidden_in_every_form() -> None:
    secrets = Secrets.of(["http://me:p%40ss@h/v1", "http://plain/v1", "::"], "key")
    basic = base64.b64encode(b"me:p@ss").decode()
    said = secrets.hide(f"key p@ss me:p%40ss me:p@ss {basic} p%40ss\r\n\x1b]0;title\a fine")
    assert "fine" in said
    assert not [s for s in ("key", "p@ss", "p%40ss", basic, "\x1b", "\n") if s in said]


def test_no_password_is_in_a_resolved_recipe() -> None:
    urls = ["http://me:canary@127.0.0.1:8/v1", "http://127.0.0.1:9/v1"]
    data: dict[str, Any] = {"name": "x", "model": {"path": "lab"}}
    data["proposer_engine"] = {"kind": "openai", "urls": urls}
    recipe = make_recipe(data, [], "test")
    engine = recipe.proposer_engine
    assert isinstance(engine, OpenAIConfig)
    assert engine.urls == tuple(urls)
    for written in (recipe.model_dump_json(), json.dumps(recipe.model_dump(mode="json"))):
        assert "canary" not in written
        assert "http://127.0.0.1:8/v1" in written
    data["proposer_engine"] = {"kind": "openai", "urls": urls[0]}
    with pytest.raises(ConfigError, match=r"engine\.urls: .*//127") as caught:
        make_recipe(data, [], "test")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_told_and_not_followed(status: int) -> None:
    with serving(honest) as other, serving(replies("", status, Location=other.url)) as server:
        with pytest.raises(EngineError, match="redirects to"):
            answers(engine_of(server), requests(2))
        assert other.asked == []


@pytest.mark.parametrize("delay", [0, 0.02])
def test_a_late_reply_is_nobodys(delay: float) -> None:
    """Two replies on one connection, which stays open: the second one answers nothing."""

    def twice(asked: Asked) -> None:
        content = json.dumps({"choices": [hostile.choice(asked, f"{asked.body['seed']}")]}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        asked.connection.sendall(head + content)
        time.sleep(delay)
        asked.connection.sendall(head + content)
        asked.connection.recv(1)  # open until the client hangs up, or asks again

    with serving(twice) as server:
        done = answers(engine_of(server, concurrency=1), requests(4))
    assert {name: c.text for name, c in done.items()} == {f"r{n}": str(n) for n in range(4)}


# --- long --------------------------------------------------------------------------------------


@pytest.mark.faults
def test_many_requests_among_all_faults_are_all_answered(tmp_path: Path) -> None:
    behaviours = [b for broken in BROKEN.values() for b in (broken, *[honest] * 20)] * 3
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving(*in_turn(*behaviours)) as server:
        done = answers(engine_of(server, concurrency=16), requests(2_000))
    assert len(done) == 2_000
    assert not [completion for completion in done.values() if completion.error]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000


@pytest.mark.faults
def test_many_huge_replies_at_once_take_little_memory() -> None:
    huge = replace(SAMPLING, max_tokens=16_384)
    with serving(honest, hostile.bomb(300)) as server:
        engine = engine_of(server, concurrency=32)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(EngineError, match="more than"):
            answers(engine, requests(64, sampling=huge))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000
