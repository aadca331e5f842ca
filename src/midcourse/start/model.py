"""What a model is like, without loading its weights: size, context, chat template, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from math import prod
from pathlib import Path

from midcourse.config import EngineConfig, ModelConfig
from midcourse.engines import is_model, open_renderer, resolve_model
from midcourse.engines.models import context_length
from midcourse.errors import ConfigError, MidcourseError
from midcourse.rendering import Renderer
from midcourse.start.checks import Check, ok, problem, tried, warning

_SHOWN_CHARS = 70


def local_folder(model: ModelConfig) -> Path | None:
    """Return where a model lies: its folder, or the Hub's cache; None if it is yet to be fetched.

    Raises ConfigError if there is none.
    """
    folder = Path(resolve_model(model.path))
    if folder.is_dir():
        return folder
    if not is_model(model.path):
        raise ConfigError(
            f"there is no model at {model.path!r}: give a folder with a config.json, or OWNER/NAME"
        )
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    file = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
    return Path(file).parent if isinstance(file, str) else None


def as_it_lies(model: ModelConfig, folder: Path) -> ModelConfig:
    """Return a model under its folder's name, so that opening it asks the Hub for nothing."""
    return model.model_copy(update={"path": str(folder), "revision": None})


def is_whole(model: ModelConfig) -> bool:
    """Whether a model lies here with its weights and its tokenizer."""
    try:
        folder = local_folder(model)
    except MidcourseError:
        return False
    if folder is None or not any(folder.glob("token*")):
        return False
    return any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir())


def count_parameters(folder: Path) -> int | None:
    """Return the number of weights in a folder's safetensors, from their headers; None for none."""
    files = sorted(folder.glob("*.safetensors"))
    return sum(map(_weights_in, files)) or None


def _weights_in(file: Path) -> int:
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        header = json.loads(content.read(length))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def model_checks(role: str, engine: EngineConfig, model: ModelConfig) -> Iterator[Check]:
    """Check where a model is, how large, and how its text is written."""
    name = f"{role} model"
    try:
        folder = local_folder(model)
    except MidcourseError as error:
        yield problem(name, str(error))
        return
    if folder is None or not any(folder.glob("token*")):
        fix = f"it is fetched at the first run; to look at it now: hf download {model.path}"
        yield warning(name, f"{model.path} is not here, or not whole", fix)
        return
    yield ok(name, describe_model(model, folder))
    try:
        renderer = open_renderer(engine, as_it_lies(model, folder), str(folder))
    except MidcourseError as error:
        yield problem(f"{role} tokenizer", str(error))
        return
    yield from _template_checks(f"{role} template", renderer)
    yield from _tokenizer_checks(f"{role} tokenizer", renderer)


def describe_model(model: ModelConfig, folder: Path) -> str:
    """Return a model's size and context in words."""
    number, length = count_parameters(folder), context_length(str(folder))
    size = f"{_amount(number)} parameters" if number else "size not known"
    context = f"{length:,} tokens of context" if length else "context length not stated"
    return f"{model.path}: {size}, {context}"


def _amount(number: int) -> str:
    return f"{number / 1e6:,.1f} million" if number >= 1e6 else f"{number:,}"


def _template_checks(name: str, renderer: Renderer) -> Iterator[Check]:
    try:
        before, after = renderer.around_user()
    except MidcourseError as error:
        yield problem(name, str(error))
        return
    yield ok(name, f"writes {_short(before)} before the user's words, {_short(after)} after")
    if "system" in before.lower():
        yield ok(name, "writes a system prompt where the recipe has none")
    if _says_date(renderer):
        told = renderer.template_date
        yield ok(name, f"writes the date: it is told {told} (model.template_date)")
    if "enable_thinking" not in renderer.template_arguments and _reads_thinking(renderer):
        yield ok(name, "reads enable_thinking: set it by model.template_arguments")
    yield tried(name, lambda: _turns(renderer))


def _turns(renderer: Renderer) -> str:
    number = len(renderer.end_of_turn_ids)
    closing = "1 token" if number == 1 else f"{number} tokens"
    try:
        renderer.check_second_turn()
    except ConfigError as error:
        return f"a turn ends with {closing}; {error}"
    return f"a turn ends with {closing}; a second turn is possible"


def _says_date(renderer: Renderer) -> bool:
    other = replace(renderer, template_date=renderer.template_date + timedelta(days=400))
    return other.around_user() != renderer.around_user()


def _reads_thinking(renderer: Renderer) -> bool:
    told = {**renderer.template_arguments, "enable_thinking": True}
    try:
        replace(renderer, template_arguments=told).check_arguments()
    except MidcourseError:
        return False
    return True


def _tokenizer_checks(name: str, renderer: Renderer) -> Iterator[Check]:
    tokenizer = renderer.tokenizer
    begins = renderer.prompt_ids([{"role": "user", "content": "x"}])[:2]
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is not None and begins == [bos, bos]:
        fix = "take bos_token out of the template, or give one without it as model.chat_template"
        yield warning(name, "the template writes the token that begins a text twice", fix)
    if tokenizer.eos_token_id is None:
        yield warning(name, "there is no end token", "set eos_token in tokenizer_config.json")
    pad = getattr(tokenizer, "pad_token_id", None)
    padding = "without a padding token: training pads with the end token" if pad is None else "ok"
    yield ok(name, f"{renderer.num_tokens:,} token ids; {padding}")


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…"


def longest_prompt(renderer: Renderer, texts: list[str]) -> int:
    """Return the tokens of the longest prompt among `texts`, by characters the longest ten."""
    tried_ones = sorted(texts, key=len)[-10:]
    prompts = ([{"role": "user", "content": text}] for text in tried_ones)
    return max((len(renderer.prompt_ids(prompt)) for prompt in prompts), default=0)
