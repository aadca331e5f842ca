"""One conformance suite for every engine."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_server import FakeServer, Listener, script
from midcourse.config import (
    EngineConfig,
    ModelConfig,
    OpenAIConfig,
    RayConfig,
    ScriptedConfig,
    TransformersConfig,
    VllmConfig,
)
from midcourse.engines import (
    check_context,
    check_model,
    engine_identity,
    model_fingerprint,
    model_folder,
    open_engine,
    open_renderer,
)
from midcourse.engines.base import Completion, Engine, Request, Scorer, ScoreRequest
from midcourse.engines.bundled import base_folder
from midcourse.engines.models import context_length, hub_commit
from midcourse.engines.openai_engine import Connection, OpenAIEngine
from midcourse.engines.scripted_engine import ByteTokenizer, ScriptedEngine
from midcourse.engines.vllm_engine import VllmEngine, server_command
from midcourse.errors import ConfigError, EngineError
from midcourse.records import FinishReason, Sampling
from midcourse.rendering import Renderer

GREEDY = Sampling(
    temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=60
)
WARM = Sampling(
    temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=60
)
PROMPT = "Mia has 12 nuts, then finds a pair, loses 4, buys a week, wins 9. How many nuts now?"


@pytest.fixture
def server() -> Iterator[str]:
    FakeServer.faults.clear()
    FakeServer.seen.clear()
    with Listener(("127.0.0.1", 0), FakeServer) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/v1"
        httpd.shutdown()
        thread.join()


def openai(
    url: str, renderer: Renderer | None = None, served_model: str = "m", **changes: Any
) -> OpenAIEngine:
    settings = {"max_context_tokens": 400, "served_model": served_model} | changes
    config = OpenAIConfig(urls=(url,), **settings)
    return OpenAIEngine(config, renderer, max_retries=2, backoff_seconds=0.01)


@pytest.fixture(params=["scripted", "openai", "transformers", "plain", "vllm"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "scripted":
        return ScriptedEngine(script, max_context_tokens=400)
    if request.param == "openai":
        return openai(request.getfixturevalue("server"))
    if request.param == "vllm":
        shared: VllmEngine = request.getfixturevalue("shared_vllm")
        return shared
    from midcourse.engines.transformers_engine import TransformersEngine

    plain = request.param == "plain"
    folder = request.getfixturevalue("random_gemma2") if plain else base_folder()
    engine = TransformersEngine(folder, max_batch_rows=8, max_context_tokens=400)
    assert engine.is_fast != plain
    return engine


def context(engine: Engine, text: str = PROMPT) -> tuple[int, ...]:
    renderer = getattr(engine, "renderer", None) or Renderer(ByteTokenizer())
    return tuple(renderer.prompt_ids([{"role": "user", "content": text}]))


def ask(engine: Engine, number: int, sampling: Sampling, **changes: Any) -> Request:
    fields: dict[str, Any] = {
        "request_id": f"r{number}", "prompt_token_ids": context(engine), "sampling": sampling,
        "seed": number, "group": "p",
    }  # fmt: skip
    return Request(**(fields | changes))


def complete(engine: Engine, requests: list[Request]) -> dict[str, Completion]:
    with engine.session() as session:
        session.submit(requests)
        completions = list(session.completions())
    assert sorted(c.request_id for c in completions) == sorted(r.request_id for r in requests)
    assert all(c.error is None for c in completions)
    return {c.request_id: c for c in completions}


@pytest.mark.slow
def test_every_request_is_answered_once(engine: Engine) -> None:
    done = complete(engine, [ask(engine, n, WARM) for n in range(20)])
    assert len(done) == 20
    assert complete(engine, []) == {}


def test_the_reply_is_what_was_sampled(engine: Engine) -> None:
    (completion,) = complete(engine, [ask(engine, 1, GREEDY)]).values()
    renderer = getattr(engine, "renderer", None) or Renderer(ByteTokenizer())
    assert renderer.decode(completion.token_ids) == completion.text
    assert "How many" not in completion.text
    assert completion.finish_reason is FinishReason.STOP
    assert completion.token_ids[-1] == renderer.end_of_turn_ids[-1]


def test_the_budget_ends_a_reply(engine: Engine) -> None:
    (completion,) = complete(engine, [ask(engine, 1, replace(GREEDY, max_tokens=3))]).values()
    assert (len(completion.token_ids), completion.finish_reason) == (3, FinishReason.LENGTH)


def test_same_seed_same_text_whatever_shares_the_batch(engine: Engine) -> None:
    alone = complete(engine, [ask(engine, 3, WARM)])["r3"]
    others = [ask(engine, n, WARM) for n in range(12)]
    longer = context(engine, PROMPT + " Say it twice.")
    others += [ask(engine, n, WARM, prompt_token_ids=longer, group="q") for n in range(12, 20)]
    assert complete(engine, others)["r3"] == alone


@pytest.mark.slow
def test_more_prompts_at_once_than_one_step_of_a_server_holds(engine: Engine) -> None:
    short = replace(WARM, max_tokens=4)
    prompts = [context(engine, f"{n} " + "?" * 280) for n in range(40)]
    done = complete(
        engine,
        [
            ask(engine, n, short, prompt_token_ids=ids, group=str(n))
            for n, ids in enumerate(prompts)
        ],
    )
    assert all(completion.token_ids for completion in done.values())


def test_other_seeds_say_other_things(engine: Engine) -> None:
    hot = replace(WARM, temperature=2.0)  # the most that the protocol allows
    texts = {c.text for c in complete(engine, [ask(engine, n, hot) for n in range(8)]).values()}
    assert len(texts) > 1


def test_a_context_without_room_is_an_outcome(engine: Engine) -> None:
    huge = context(engine) * 40
    done = complete(engine, [ask(engine, 1, WARM, prompt_token_ids=huge), ask(engine, 2, WARM)])
    assert done["r1"].finish_reason is FinishReason.PROMPT_TOO_LONG
    assert done["r1"].token_ids == ()
    assert done["r2"].token_ids


def test_a_later_request_may_depend_on_an_earlier_reply(engine: Engine) -> None:
    seen = []
    with engine.session() as session:
        session.submit([ask(engine, 1, WARM), ask(engine, 2, WARM)])
        for completion in session.completions():
            if completion.request_id in ("r1", "r2"):
                session.submit([ask(engine, 10 + int(completion.request_id[1]), WARM)])
            seen.append(completion.request_id)
    assert sorted(seen) == ["r1", "r11", "r12", "r2"]


def test_what_is_cancelled_is_not_owed(engine: Engine) -> None:
    with engine.session() as session:
        session.submit([ask(engine, n, WARM) for n in range(4)])
        session.cancel(["r1", "r3"])
        assert sorted(c.request_id for c in session.completions()) == ["r0", "r2"]


def test_scores_cover_what_was_asked(engine: Engine) -> None:
    if not isinstance(engine, Scorer):
        pytest.skip("this engine scores nothing")
    ids = context(engine)
    requests = [
        ScoreRequest(request_id=str(n), token_ids=ids[: n + 5], num_context=n + 1) for n in range(3)
    ]
    found = list(engine.score(requests))
    assert {scores.request_id for scores in found} == {"0", "1", "2"}
    for scores in found:
        assert len(scores.logprobs) == len(scores.entropies) == 4
        assert all(value <= 0 for value in scores.logprobs)
        assert all(value >= 0 for value in scores.entropies)


def test_the_server_is_told_everything(server: str) -> None:
    engine = openai(server)
    complete(engine, [ask(engine, 5, WARM)])
    (body,) = FakeServer.seen
    assert body["prompt"] == list(context(engine))
    given = {name: body[name] for name in ("temperature", "top_p", "top_k", "min_p", "seed", "n")}
    assert given == {
        "temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "seed": 5, "n": 1
    }  # fmt: skip


@pytest.mark.slow
def test_a_reply_may_take_longer_than_the_limit_while_it_goes_on(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "pause", 0.05)
    engine = openai(server, timeout_seconds=1.0)
    (completion,) = complete(engine, [ask(engine, 1, WARM)]).values()
    assert len(completion.token_ids) * 0.05 > 1.5
    assert len(FakeServer.seen) == 1


@pytest.mark.slow
def test_a_request_may_wait_in_a_queue_for_as_long_as_others_are_answered(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "pause", 0.02)
    monkeypatch.setattr(FakeServer, "turn", threading.Lock())
    engine = openai(server, timeout_seconds=1.0)
    complete(engine, [ask(engine, n, WARM) for n in range(4)])
    assert len(FakeServer.seen) == 4


@pytest.mark.slow
def test_a_server_that_says_nothing_is_given_up(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "pause", 30.0)
    with pytest.raises(EngineError, match=r"no whole reply, and 0\.3 s of silence"):
        complete(openai(server, timeout_seconds=0.3), [ask(openai(server), 1, WARM)])


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["text", "nothing"])
def test_a_server_that_does_not_stream_ids_has_the_time_to_decode_them_all(
    server: str, monkeypatch: pytest.MonkeyPatch, streams: str
) -> None:
    monkeypatch.setattr(FakeServer, "streams", streams)
    monkeypatch.setattr(FakeServer, "pause", 1.0)
    engine = openai(server, timeout_seconds=0.2)
    complete(engine, [ask(engine, 1, WARM)])
    assert [body["stream"] for body in FakeServer.seen] == [False]


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: str, status: int) -> None:
    FakeServer.faults += [(status, b"busy"), (status, b"busy")]
    assert complete(openai(server), [ask(openai(server), 1, WARM)])["r1"].token_ids


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        (400, b"no"),
        (200, b"<html>"),
        (200, b'{"choices": []}'),
        (200, b'{"choices": [{"text": null, "token_ids": [1], "finish_reason": "stop"}]}'),
        (200, b'{"choices": [{"text": "x", "finish_reason": "stop"}]}'),
        (200, b'{"choices": [{"text": "x", "token_ids": [1], "finish_reason": "odd"}]}'),
    ],
)
def test_garbage_is_asked_again_and_touches_no_other_request(
    server: str, fault: tuple[int, bytes]
) -> None:
    engine = openai(server, concurrency=1)
    FakeServer.faults.append(fault)
    done = complete(engine, [ask(engine, 1, WARM), ask(engine, 2, WARM)])
    assert done["r1"].text.startswith("1: ")
    assert done["r2"].text.startswith("2: ")


def test_a_dead_or_wrong_server_stops_the_run(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with openai(server, Renderer(ByteTokenizer())).session():
        pass
    monkeypatch.setattr(FakeServer, "misbehaviour", "other-tokenizer")
    with pytest.raises(EngineError, match=r"another tokenizer than the policy: set model\.path"):
        openai(server, Renderer(ByteTokenizer())).session().__enter__()
    with pytest.raises(EngineError, match="does not serve 'other'"):
        openai(server, served_model="other").session().__enter__()
    with pytest.raises(EngineError, match=r"http://127\.0\.0\.1:9/v1 does not answer"):
        openai("http://me:secret@127.0.0.1:9/v1").session().__enter__()


def test_closing_amid_connecting_leaves_nothing_behind(server: str) -> None:
    engine = openai(server)
    for turns_of_the_loop in range(12):
        with closing(Connection(engine, [server])) as connection:
            for n in range(8):
                connection.ask(ask(engine, n, WARM))
            for _ in range(turns_of_the_loop):
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), connection._loop).result()
    gc.collect()  # a coroutine that was never awaited warns here, and warnings are errors


COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache of ``me/model``, offline: two commits, of which ``main`` names the first."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repo = tmp_path / "models--me--model"
    (repo / "snapshots").mkdir(parents=True)
    (repo / "refs").mkdir()
    for commit in COMMITS:
        (repo / "snapshots" / commit).symlink_to(base_folder())
    (repo / "refs" / "main").write_text(COMMITS[0])
    hub_commit.cache_clear()
    yield repo
    hub_commit.cache_clear()


def test_a_model_of_the_hub_is_known_by_its_commit(hub_cache: Path) -> None:
    first = model_fingerprint("me/model")
    assert first == {"name": "me/model", "commit": COMMITS[0]}
    assert model_fingerprint("me/model", "main") == first
    assert model_fingerprint("me/model", COMMITS[1])["commit"] == COMMITS[1]
    (hub_cache / "refs" / "main").write_text(COMMITS[1])
    assert model_fingerprint("me/model") == first  # an upload during a run changes nothing
    hub_commit.cache_clear()
    assert model_fingerprint("me/model") != first


def test_a_model_of_the_hub_is_opened_at_its_revision(hub_cache: Path, tmp_path: Path) -> None:
    model = ModelConfig(path="me/model", revision=COMMITS[1])
    assert model_folder("me/model", COMMITS[1]).name == COMMITS[1]
    assert model_folder("me/model").name == COMMITS[0]
    engine = open_engine(TransformersConfig(), model, model.path)
    assert engine.capabilities.max_context_tokens == 1024
    assert open_renderer(TransformersConfig(), model, model.path).end_of_turn_ids
    assert model_folder("lab", "abc") == base_folder()
    assert model_folder(str(tmp_path)) == tmp_path
    words = "cannot get 'me/model' at revision 'gone' from the hub: Cannot find"
    with pytest.raises(EngineError, match=words):
        model_folder("me/model", "gone")


def test_a_script_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps([["nuts", "a", "b"], [".", "c"]]))
    engine = open_engine(ScriptedConfig(script=str(path)), ModelConfig(path="lab"), "lab")
    done = complete(engine, [ask(engine, n, WARM) for n in range(2)])
    assert [done["r0"].text, done["r1"].text] == ["a", "b"]
    path.write_text("[[1]]")
    with pytest.raises(ConfigError, match="is not a list of"):
        open_engine(ScriptedConfig(script=str(path)), ModelConfig(path="lab"), "lab")


def test_an_engine_is_what_decides_its_replies(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text("[]")
    scripted = ScriptedConfig(script=str(path))
    assert engine_identity(scripted) == {"kind": "scripted", "script": "[]"}
    assert engine_identity(RayConfig(inner=scripted, num_actors=4)) == engine_identity(scripted)
    vllm = VllmConfig(devices=("0", "1"), max_context_tokens=99)
    assert engine_identity(vllm) == {"kind": "vllm", "max_context_tokens": 99}
    path.unlink()
    with pytest.raises(ConfigError, match=r"engine\.script: cannot read .*script\.json"):
        engine_identity(scripted)


@pytest.mark.parametrize(
    ("config", "loads", "needs", "scorer"),
    [
        (TransformersConfig(device="cpu"), True, True, TransformersConfig(device="cpu")),
        (VllmConfig(devices=("0",)), True, True, TransformersConfig()),
        (RayConfig(inner=VllmConfig()), True, True, TransformersConfig()),
        (RayConfig(inner=ScriptedConfig(script="s")), True, False, ScriptedConfig(script="s")),
        (ScriptedConfig(script="s"), True, False, ScriptedConfig(script="s")),
        (OpenAIConfig(), False, False, None),
    ],
)
def test_what_an_engine_can_do_is_known_before_it_opens(
    config: EngineConfig, loads: bool, needs: bool, scorer: EngineConfig | None
) -> None:
    assert (config.loads_models, config.scoring) == (loads, scorer)
    with (
        pytest.raises(ConfigError, match=r"no model at '/gone': .* a hub name such as Qwen")
        if needs
        else nullcontext()
    ):
        check_model(config, "/gone")


def test_a_folder_without_a_tokenizer_is_told_which_files_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    model = ModelConfig(path=str(tmp_path))
    with pytest.raises(EngineError, match=r"copy tokenizer\.json and tokenizer_config") as told:
        open_renderer(TransformersConfig(), model, model.path)
    assert "\n" not in str(told.value)
    assert not str(told.value).endswith(": ")


def test_a_renderer_is_that_of_the_engine_inside() -> None:
    model = ModelConfig(path="lab")
    own = open_renderer(RayConfig(inner=TransformersConfig()), model, "lab")
    scripted = open_renderer(RayConfig(inner=ScriptedConfig()), model, "lab")
    assert isinstance(scripted.tokenizer, ByteTokenizer)
    assert not isinstance(own.tokenizer, ByteTokenizer)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 40_960}, 40_960),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": 32_768, "rope_scaling": {"type": "linear"}}, 32_768),
        (
            {
                "max_position_embeddings": 32_768,
                "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32_768},
            },
            131_072,
        ),
        ({"max_position_embeddings": 40_960, "rope_parameters": {"rope_theta": 1e6}}, 40_960),
        ({}, None),
    ],
)
def test_a_model_states_its_positions(
    tmp_path: Path, config: dict[str, Any], length: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(str(tmp_path)) == length


@pytest.mark.parametrize("kind", [TransformersConfig, VllmConfig])
def test_a_policy_is_not_given_more_context_than_it_has(
    kind: type[TransformersConfig | VllmConfig], hub_cache: Path
) -> None:
    for engine in (kind(), kind(max_context_tokens=1024)):
        check_context(engine, ModelConfig(path="me/model"))
    with pytest.raises(ConfigError, match="is 1,025, but me/model has 1,024 positions: set it to"):
        check_context(kind(max_context_tokens=1025), ModelConfig(path="me/model"))


def test_a_server_gets_no_more_context_than_its_model_has() -> None:
    def length(**given: Any) -> str:
        command = server_command(VllmConfig(**given), str(base_folder()), 1)
        return command[command.index("--max-model-len") + 1]

    assert length(max_context_tokens=49_152) == "1024"
    assert length(max_context_tokens=400) == "400"
    assert "--max-model-len" not in server_command(VllmConfig(), str(base_folder()), 1)
