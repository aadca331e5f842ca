"""What chat templates are told, role by role: checked, in the identity, and in every prompt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import ModelConfig, OpenAIConfig, Recipe, TransformersConfig, make_recipe
from midcourse.engines import open_renderer
from midcourse.engines.base import Request
from midcourse.engines.bundled import base_folder
from midcourse.engines.openai_engine import OpenAIEngine, from_config
from midcourse.errors import ConfigError, EngineError
from midcourse.pipeline import Method, ProblemSets, Session, Setup, method
from midcourse.pipeline.values import Model
from midcourse.records import content_id
from runs import run_to

THINKS = {"enable_thinking": False}


def setup(**sections: Any) -> Setup:
    data = {"name": "n", "model": {"path": "policy"}, **sections}
    recipe = make_recipe(json.loads(json.dumps(data)), [], "test")
    return Setup.with_problems(
        recipe, ProblemSets([], {}), lambda source: content_id(source.path)[:10]
    )


def proposer(**sections: Any) -> Model:
    found = method(setup(**sections)).proposals.settings.proposer
    assert isinstance(found, Model)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        {"enable_thinking": 0.5},
        {"enable_thinking": None},
        {"tools": "x"},
        {"enable thinking": True},
        {"add_generation_prompt": False},
        {"depth": {"a": 1}},
    ],
)
def test_an_argument_is_a_boolean_an_integer_or_a_text(arguments: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"test: model\.template_arguments: .*(leave it out|give a)"
    ) as refused:
        setup(model={"path": "m", "template_arguments": arguments})
    assert "\n" not in str(refused.value)


def test_values_keep_their_kind() -> None:
    given = {"enable_thinking": True, "budget": 1, "reasoning_effort": "1"}
    told = ModelConfig.model_validate({"path": "m", "template_arguments": given}).template_arguments
    assert [(name, type(value)) for name, value in told.items()] == [
        ("enable_thinking", bool),
        ("budget", int),
        ("reasoning_effort", str),
    ]


def test_what_a_model_is_told_is_part_of_what_it_is() -> None:
    plain, told = setup(), setup(model={"path": "policy", "template_arguments": THINKS})
    assert plain.base.identity() != told.base.identity()
    assert "template_arguments" not in str(plain.base.identity())
    keys = [method(made).train.rollouts.key for made in (plain, told)]
    assert keys[0] != keys[1]


def test_each_role_is_told_its_own() -> None:
    thinking = {"enable_thinking": True}
    made = method(
        setup(
            model={"path": "policy", "template_arguments": THINKS},
            proposer_model={"path": "policy", "template_arguments": thinking},
            reference={"write": "missing", "template_arguments": {"effort": "high"}},
            build_sft={
                "source": "distillation",
                "teacher": "policy",
                "teacher_template_arguments": {"effort": "low"},
            },
        )
    )
    assert made.models.solutions is not None
    models = [
        made.setup.base,
        made.proposals.settings.proposer,
        made.references.settings.attempts.rollouts.settings.model,
        made.models.solutions.rollouts.settings.model,
    ]
    told = [model.source.template_arguments for model in models]
    assert told == [THINKS, thinking, {"effort": "high"}, {"effort": "low"}]
    assert len({model.name for model in models}) == 4


def test_another_model_is_not_told_what_the_base_is() -> None:
    told = {"model": {"path": "policy", "template_arguments": THINKS}}
    assert proposer(**told).source.template_arguments == THINKS
    assert proposer(**told, proposer_model={"path": "p"}).source.template_arguments == {}
    again = proposer(**told, proposer_engine={"kind": "transformers", "max_context_tokens": 9})
    assert again.source.template_arguments == THINKS
    chat = {"kind": "openai", "served_model": "s", "chat": True}
    assert proposer(**told, proposer_engine=chat).source.template_arguments == {}
    asked = proposer(**told, proposer_engine=chat, proposer_model=told["model"])
    assert asked.source.template_arguments == THINKS
    assert asked.name != "s"


def test_a_server_of_messages_is_told_in_its_request() -> None:
    request = Request(
        request_id="r",
        prompt_token_ids=(),
        sampling=Recipe.model_validate(
            {"name": "n", "model": {"path": "m"}}
        ).propose.sampling.record(),
        seed=1,
        group="g",
        messages=({"role": "user", "content": "x"},),
    )

    def engine(arguments: dict[str, bool | int | str], **changes: Any) -> OpenAIEngine:
        config = OpenAIConfig(urls=("http://h/v1",), served_model="s", chat=True, **changes)
        return from_config(config, ModelConfig(path="m", template_arguments=arguments), "m")

    assert engine(dict(THINKS)).body(request, 9, streams=False)["chat_template_kwargs"] == THINKS
    assert "chat_template_kwargs" not in engine({}).body(request, 9, streams=False)
    renamed = engine(dict(THINKS), parameters={"chat_template_kwargs": "template"})
    assert renamed.body(request, 9, streams=False)["template"] == THINKS


def thinking_model(folder: Path) -> Path:
    """The lab's tokenizer, with a template that reads ``enable_thinking``."""
    shutil.copytree(base_folder(), folder)
    template = next(folder.glob("chat_template.jinja"), None)
    settings = folder / "tokenizer_config.json"
    text = template.read_text() if template else json.loads(settings.read_text())["chat_template"]
    opened = "{% if add_generation_prompt and enable_thinking is false %}No thought. {% endif %}"
    (folder / "chat_template.jinja").write_text(text + opened)
    return folder


@pytest.mark.slow
def test_every_prompt_is_written_as_the_template_is_told(tmp_path: Path) -> None:
    folder = thinking_model(tmp_path / "model")
    engine = Recipe.model_validate({"name": "n", "model": {"path": "m"}}).engine
    told = ModelConfig(path=str(folder), template_arguments=dict(THINKS))
    renderers = [
        open_renderer(engine, source, source.path)
        for source in (ModelConfig(path=str(folder)), told)
    ]
    plain, opened = (r.prompt_ids([{"role": "user", "content": "x"}]) for r in renderers)
    assert opened[: len(plain)] == plain
    assert renderers[1].decode(opened[len(plain) :]) == "No thought. "
    with pytest.raises(ConfigError, match="does not read 'enable_thinking'"):
        open_renderer(engine, ModelConfig(path="lab", template_arguments=dict(THINKS)), "lab")


def test_a_template_that_does_not_listen_is_found_before_work_starts(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    """The scripted engine's template reads nothing."""

    def check(session: Session, m: Method) -> None:
        for steps in ([m.train.rollouts], [m.proposals]):
            with pytest.raises(ConfigError, match="does not read 'enable_thinking'"):
                session.check(steps)

    model = {"path": "lab", "template_arguments": THINKS}
    run_to(tmp_path / "a", Recipe.model_validate({**recipe_data, "model": model}), check)

    def check_helper(session: Session, m: Method) -> None:
        session.check([m.train.rollouts])
        with pytest.raises(ConfigError, match="does not read 'enable_thinking'"):
            session.check([m.proposals])

    recipe = Recipe.model_validate({**recipe_data, "proposer_model": model})
    run_to(tmp_path / "b", recipe, check_helper)


# --- a chat template of one's own --------------------------------------------------------------

OWN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def base_model(tmp_path: Path) -> Path:
    """The lab's base model without a chat template."""
    folder = tmp_path / "base"
    shutil.copytree(base_folder(), folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = folder / "tokenizer_config.json"
    told = json.loads(config.read_text())
    told.pop("chat_template", None)
    config.write_text(json.dumps(told))
    return folder


def test_a_base_model_takes_a_template_of_the_recipe_s(base_model: Path, tmp_path: Path) -> None:
    plain = ModelConfig(path=str(base_model))
    with pytest.raises(EngineError, match=r"has no chat template: .*set model\.chat_template to a"):
        open_renderer(TransformersConfig(), plain, plain.path)
    own = tmp_path / "own.jinja"
    own.write_text(OWN)
    model = plain.model_copy(update={"chat_template": str(own)})
    renderer = open_renderer(TransformersConfig(), model, model.path)
    assert renderer.around_user()[1].endswith("<assistant>")
    own.write_text("{% for m in %}")
    with pytest.raises(ConfigError, match="chat template refuses a conversation"):
        open_renderer(TransformersConfig(), model, model.path)
    own.unlink()
    with pytest.raises(ConfigError, match=r"model\.chat_template: cannot read .*own\.jinja"):
        open_renderer(TransformersConfig(), model, model.path)


def test_a_template_is_known_by_its_text_and_not_by_its_place(tmp_path: Path) -> None:
    def keys(name: str, text: str) -> list[str]:
        (tmp_path / name).write_text(text)
        model = {"path": "policy", "chat_template": str(tmp_path / name)}
        made = method(setup(model=model))
        return [step.key for steps in made.steps() for step in steps]

    first = keys("a.jinja", OWN)
    assert keys("b.jinja", OWN) == first
    assert not set(keys("a.jinja", OWN + " ")) & set(first)


def test_a_model_is_trained_and_saved_with_the_template(base_model: Path, tmp_path: Path) -> None:
    from midcourse.training.common import Setting

    own = tmp_path / "own.jinja"
    own.write_text(OWN)
    model = ModelConfig(path=str(base_model), chat_template=str(own))
    tokenizer = Setting.of(model, tmp_path, 0, lambda entry: None).tokenizer()
    tokenizer.save_pretrained(tmp_path / "trained")
    trained = ModelConfig(path=str(tmp_path / "trained"))
    renderer = open_renderer(TransformersConfig(), trained, trained.path)
    assert renderer.around_user()[1].endswith("<assistant>")
