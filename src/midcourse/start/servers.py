"""Whether what samples a role is there: servers of others, vLLM of our own, a model in process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from midcourse.config import EngineConfig, OpenAIConfig, VllmConfig, single_engine
from midcourse.engines.base import Request
from midcourse.engines.openai_engine import OpenAIEngine, key_of
from midcourse.errors import EngineError, MidcourseError
from midcourse.records import Sampling
from midcourse.start.checks import Check, ok, problem, tried, warning

#: As many as some servers want at least.
_FEW_TOKENS = 16


def engine_checks(role: str, config: EngineConfig, sampling: Sampling) -> Iterator[Check]:
    """Check the engine of a role; `sampling` is what it will be asked for, but for the length."""
    single = single_engine(config)
    if isinstance(single, OpenAIConfig):
        yield from _server_checks(f"{role} server", single, sampling)
    elif isinstance(single, VllmConfig):
        yield _vllm(f"{role} engine", single)


def _server_checks(name: str, config: OpenAIConfig, sampling: Sampling) -> Iterator[Check]:
    try:
        key_of(config)
    except MidcourseError as error:
        yield problem(name, str(error))
        return
    if variable := config.api_key_env:
        yield ok(name, f"its key is set: {variable} ({len(os.environ[variable])} characters)")
    engine = OpenAIEngine(config, max_retries=0)
    try:
        length = engine.check()
    except MidcourseError as error:
        yield problem(name, str(error))
        return
    states = f"{length:,} tokens of context" if length else "a context length it does not state"
    speaks = "messages" if config.chat else "token ids"
    yield ok(name, f"{', '.join(config.urls)} serves {config.served_model}: {speaks}, {states}")
    if length and length < sampling.max_tokens:
        yield warning(name, f"max_tokens = {sampling.max_tokens:,} is more than its context")
    if config.chat:
        yield tried(name, lambda: _answer(engine, sampling))


def _answer(engine: OpenAIEngine, sampling: Sampling) -> str:
    """Have one short question answered, with the parameters of the recipe."""
    few = Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        max_tokens=_FEW_TOKENS,
    )
    asked = {"role": "user", "content": "Say OK."}
    request = Request(
        request_id="doctor", prompt_token_ids=(), sampling=few, seed=1, group="", messages=(asked,)
    )
    with engine.session() as session:
        session.submit([request])
        done = next(session.completions())
    if done.error is not None:
        raise EngineError(f"does not answer: {done.error}")
    return "answers a short question with the recipe's parameters"


def _vllm(name: str, config: VllmConfig) -> Check:
    python = config.server_python or sys.executable
    if shutil.which(python) is None:
        return problem(name, f"no interpreter at {python}", "set engine.server_python")
    try:
        said = subprocess.run(
            [python, "-c", "import importlib.metadata as m; print(m.version('vllm'))"],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        fix = "install vLLM there, or set engine.server_python to an environment that has it"
        return problem(name, f"{python} has no vLLM", fix)
    return ok(name, f"vLLM {said.strip()} of {python}")
