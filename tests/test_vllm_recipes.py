"""The paper's recipes and real vLLM on a CPU: run by `make test-vllm`.

Every command that a recipe of the paper would start is handed to vLLM's own parser and model
configuration. Every recipe then runs at tiny sizes, its sampling done by a real server: our engine
starts what it takes for a server per model, and one real server per architecture takes over the
weights of each (`vllm_relay`). Only sizes are changed, and that a script proposes: random models
propose nothing. Nor do they solve anything: the baselines, which train on as many problems as InT
has verified rows, run up to their rows and say that there are none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import write_problems
from midcourse.config import EngineConfig, ModelConfig, OpenAIConfig, Recipe, VllmConfig
from midcourse.engines import check_context, open_engine
from midcourse.engines.base import Engine, Request
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.engines.vllm_engine import VllmEngine, server_command
from midcourse.errors import DataError
from midcourse.experiments.runner import ExperimentRunner
from midcourse.pipeline import Session, method, open_session
from midcourse.progress import SilentProgress
from midcourse.recipes import find_recipe, list_recipes, recipe_text
from midcourse.records import Sampling
from midcourse.run import Step
from test_paper_recipes import PROPOSAL, TINY
from tiny import make_tiny

PYTHON = os.environ.get("MIDCOURSE_VLLM_PYTHON", "")
if not PYTHON:
    pytest.skip("needs vLLM: make test-vllm", allow_module_level=True)

HERE = Path(__file__).parent
RECIPES = [i.name.removeprefix("paper/") for i in list_recipes() if i.name.startswith("paper/")]
RECIPES.remove("true-interventions")  # only the lab knows the truth
#: The architectures that the paper's recipes name: Qwen3-4B and e3-1.7B, Qwen3-30B-A3B.
ARCHITECTURES = ("qwen3", "qwen3_moe")

_QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128}
_SMALL = {"hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16}
_4B = {"hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32}
#: What the recipes' models state of themselves, as published.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-4B-Instruct-2507": {**_QWEN3, **_4B, "max_position_embeddings": 262_144},
    "Qwen/Qwen3-4B": {**_QWEN3, **_4B, "max_position_embeddings": 40_960},
    "CMU-AIRe/e3-1.7B": {**_QWEN3, **_SMALL, "max_position_embeddings": 40_960},
    "Qwen/Qwen3-30B-A3B-Instruct-2507": {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": 128,
        "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "moe_intermediate_size": 768, "max_position_embeddings": 262_144,
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random model of each architecture."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ARCHITECTURES}
    for name, folder in folders.items():
        make_tiny(folder, name, std=0.3)
    return folders


@pytest.fixture(scope="session")
def server_of(models: dict[str, Path]) -> Iterator[Callable[[str], VllmEngine]]:
    """Start a real server of an architecture, once; it can be told to load other weights."""
    started: dict[str, VllmEngine] = {}

    def start(architecture: str) -> VllmEngine:
        if architecture not in started:
            config = VllmConfig(
                server_python=PYTHON, server_arguments=("--enforce-eager",), kv_cache_gib=1,
                max_context_tokens=8192,
            )  # fmt: skip
            source = ModelConfig(path=str(models[architecture]), dtype="float32")
            engine = open_engine(config, source, source.path)
            assert isinstance(engine, VllmEngine)
            started[architecture] = engine
            _ = engine.capabilities
        return started[architecture]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        yield start
    for engine in started.values():
        engine.close()


# --- commands ----------------------------------------------------------------------------------


def at_scale(machine: str, **changes: Any) -> ExperimentRunner:
    """Return the runner of the paper's recipes on a machine."""
    return ExperimentRunner(
        scale=find_recipe("scale/paper"), seeds=(0,), reporter=SilentProgress(),
        overlays=(find_recipe(f"scale/{machine}"),), **changes,
    )  # fmt: skip


def opened(recipe: Recipe) -> Iterator[tuple[ModelConfig, EngineConfig]]:
    """Yield every model that a recipe samples, and how."""
    yield recipe.model, recipe.engine
    helpers = (
        (recipe.proposer_model, recipe.proposer_engine),
        (recipe.build_sft.teacher, recipe.teacher_engine),
        (recipe.reference.model, recipe.reference_engine),
    )
    for named, engine in helpers:
        source = ModelConfig(path=named) if isinstance(named, str) and named else named
        if isinstance(source, ModelConfig):
            yield source, engine or recipe.engine


def arguments(config: VllmConfig, model: ModelConfig) -> tuple[str, ...]:
    """Return the arguments of the server that a recipe starts."""
    engine = open_engine(config.model_copy(update={"server_python": PYTHON}), model, model.path)
    assert isinstance(engine, VllmEngine)
    return tuple(server_command(engine.config, engine.model, 8000)[3:])


def settled(commands: list[tuple[str, ...]]) -> list[int | str]:
    """Return the context lengths that vLLM settles on, or what it says."""
    answer = subprocess.run(
        [PYTHON, HERE / "vllm_arguments.py"],
        input=json.dumps(commands), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    lengths: list[int | str] = json.loads(answer.stdout)
    return lengths


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> dict[str, Path]:
    """Folders that state what the recipes' models state, without weights."""
    folders = {}
    for name, config in PUBLISHED.items():
        folder = tmp_path_factory.mktemp("published")
        for file in models["qwen3"].iterdir():
            if file.name not in ("config.json", "model.safetensors"):
                (folder / file.name).write_bytes(file.read_bytes())
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 151_936}))
        folders[name] = folder
    return folders


@pytest.mark.timeout(900)
def test_vllm_takes_the_command_of_every_model_of_every_paper_recipe(
    published: dict[str, Path],
) -> None:
    commands: dict[tuple[str, ...], int] = {}
    others = set[str]()
    for machine in ("paper-1gpu", "paper-8gpu"):
        for name in RECIPES:
            recipe = at_scale(machine).recipe(name, 0)
            for model, engine in opened(recipe):
                if isinstance(engine, OpenAIConfig):
                    others.add(engine.served_model)
                    continue
                assert isinstance(engine, VllmConfig)
                here = model.model_copy(update={"path": str(published[model.path])})
                own = PUBLISHED[model.path]["max_position_embeddings"]
                commands[arguments(engine, here)] = min(engine.max_context_tokens or own, own)
                if model is recipe.model:
                    check_context(engine, here)
    assert others == {"deepseek-ai/DeepSeek-R1", "gemini-2.5-pro"}
    assert set(commands.values()) == {40_960, 49_152}
    assert settled(list(commands)) == list(commands.values())


def test_vllm_refuses_what_no_server_could_do(published: dict[str, Path]) -> None:
    model = ("--model", str(published["Qwen/Qwen3-4B"]))
    long, unknown = settled([(*model, "--max-model-len", "49152"), (*model, "--no-such-argument")])
    assert "max_position_embeddings=40960" in str(long)
    assert "SystemExit" in str(unknown)


# --- sampling ----------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_vllm_samples_a_model_of_the_architecture_as_transformers_does(
    architecture: str, models: dict[str, Path], server_of: Callable[[str], VllmEngine]
) -> None:
    def greedy(engine: Engine) -> dict[str, tuple[int, ...]]:
        with engine.session() as session:
            session.submit(asked)
            return {done.request_id: done.token_ids for done in session.completions()}

    sampling = Sampling(
        temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=16
    )
    renderer = server_of(architecture).renderer
    texts = ("Solve it.", "What is 2 + 2?", "Find x.", "Hence?", "Let x = 2. Find 3 x.", "x")
    prompts = [renderer.prompt_ids([{"role": "user", "content": text}]) for text in texts]
    asked = [
        Request(
            request_id=str(n), prompt_token_ids=tuple(ids), sampling=sampling, seed=n, group=str(n)
        )
        for n, ids in enumerate(prompts)
    ]
    ours = greedy(TransformersEngine(models[architecture], dtype="float32"))
    assert len(set(ours.values())) > 3
    assert greedy(server_of(architecture)) == ours


# --- recipes -----------------------------------------------------------------------------------

SERVED = """
[engine]
kind = "vllm"
server_python = "{python}"
server_arguments = []
devices = []
concurrency = 16
max_context_tokens = 8192
"""


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
    models: dict[str, Path],
    server_of: Callable[[str], VllmEngine],
) -> Iterator[ExperimentRunner]:
    """The paper's recipes on one GPU at tiny sizes, which share a run and the real servers."""
    folder = tmp_path_factory.mktemp("paper")
    script, python = folder / "proposals.json", folder / "python-with-vllm"
    script.write_text(json.dumps([[".", PROPOSAL]]))
    program = f'test "$1" = -c && exec {sys.executable} "$@"\nshift 2'
    python.write_text(f'#!/bin/sh\n{program}\nexec {sys.executable} {HERE}/vllm_relay.py "$@"\n')
    python.chmod(0o755)
    files = {"problems": write_problems(folder), "held_out": write_problems(folder, "held", 3)}
    tiny, served = folder / "tiny.toml", folder / "served.toml"
    tiny.write_text(TINY.format(**files, model=models["qwen3"], script=script))
    served.write_text(SERVED.format(python=python))
    urls = {"Qwen3ForCausalLM": server_of("qwen3"), "Qwen3MoeForCausalLM": server_of("qwen3_moe")}
    names = {name: engine.client().config.urls[0][: -len("/v1")] for name, engine in urls.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIDCOURSE_VLLM_SHARED", json.dumps(names))
        runner = at_scale("paper-1gpu", runs=folder / "runs")
        yield replace(runner, overlays=(*runner.overlays, tiny, served))


def tiny_recipe(
    name: str, runner: ExperimentRunner, models: dict[str, Path], teacher: VllmEngine
) -> Recipe:
    """Return a recipe whose helpers are tiny models on real servers too."""
    text, settings = recipe_text(f"paper/{name}"), list[str]()
    if "RL" not in text and name != "int":
        settings.append('evaluate.models=["base","patched"]')
    whole = runner.recipe(name, 0)
    if whole.proposer_model is not None:
        settings.append(f"proposer_model.path={models['qwen3']}")
    if whole.teacher_engine is not None:
        settings += [
            f"build_sft.teacher={models['qwen3_moe']}",
            f"teacher_engine.urls={json.dumps(teacher.client().config.urls)}",
            "teacher_engine.served_model=policy",
        ]
    return replace(runner, settings=tuple(settings)).recipe(name, 0)


def complete_each(session: Session, steps: Iterable[Step]) -> None:
    for step in steps:
        session.complete(step)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RECIPES)
def test_a_paper_recipe_runs_whole_with_its_sampling_by_real_servers(
    name: str,
    shared: ExperimentRunner,
    models: dict[str, Path],
    server_of: Callable[[str], VllmEngine],
) -> None:
    recipe = tiny_recipe(name, shared, models, server_of("qwen3_moe"))
    assert isinstance(recipe.engine, VllmConfig)
    with open_session(recipe, shared.run_directory(0), SilentProgress(), shared=True) as session:
        steps = [step for together in method(session.setup).steps() for step in together]
        session.check(steps)
        if recipe.build_sft.is_baseline:
            with pytest.raises(DataError, match=r"no row of \w+ is ready"):
                complete_each(session, steps)
            return
        complete_each(session, steps)
        assert all(session.run.is_complete(step) for step in steps)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "architecture"), [("proposer-weak", "qwen3"), ("proposer-capable", "qwen3_moe")]
)
def test_a_proposer_of_its_own_architecture_is_asked(
    name: str, architecture: str, shared: ExperimentRunner, models: dict[str, Path], tmp_path: Path
) -> None:
    path = json.dumps(str(models[architecture]))
    settings = ("proposer_engine=null", f'proposer_model={{"path": {path}, "dtype": "float32"}}')
    recipe = replace(shared, settings=(*settings, "propose.sampling.max_tokens=64")).recipe(name, 0)
    with open_session(recipe, tmp_path / "run", SilentProgress()) as session:
        made = list(session.read(method(session.setup).proposals))
    assert len(made) == 3
