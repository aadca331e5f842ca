"""Which stages each recipe key renames, against a committed table.

``data/identity.json`` says for every key of a recipe which stages are made again when it changes:
the first ones, because a stage's key holds those of its inputs; none where the key is tunable.
After a deliberate change, ``python tests/test_identity.py`` writes the table again; read its
difference before you commit it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import midcourse.prompts
from midcourse.config import HELD_OUT_SET, Key, Recipe, describe_keys, make_recipe
from midcourse.config.stages import CreditConfig
from midcourse.credit.run import stages_of_run
from midcourse.data import load_problems
from midcourse.localize.run import load_cases, locator, questions
from midcourse.pipeline import ProblemSets, Session, Setup, method
from midcourse.pipeline.proposer import proposers
from midcourse.pipeline.session import load_problem_sets
from midcourse.progress import SilentProgress
from midcourse.records import content_id
from midcourse.run import Run, Step
from midcourse.tokens import Asked
from midcourse.warmup.check import checks
from midcourse.warmup.run import Warmup

TABLE = Path(__file__).parent / "data" / "identity.json"
SCRIPT = TABLE.with_name("script.json")
PROBLEMS = TABLE.with_name("problems.jsonl")
WORKED = TABLE.with_name("worked.jsonl")
FIRST_ERRORS = TABLE.with_name("first_errors.jsonl")
HELD_OUT = TABLE.with_name("held_out.jsonl")
PLAIN: dict[str, Any] = {
    "name": "plain",
    "model": {"path": "m"},
    "problems": {"path": str(PROBLEMS), "held_out_path": str(HELD_OUT)},
}

#: What must be set for a key to have a meaning, by how the key begins.
GIVEN: dict[str, dict[str, Any]] = {
    "model.chat_template": {"model": {"path": "m", "chat_template": str(SCRIPT)}},
    "hints.": {"verify": {"conditions": ["prefix_intervention", "hint_prefix_intervention"]}},
    "select.num_rollouts": {"select": {"condition": "hint"}},
    "reference.": {"reference": {"write": "missing", "model": "writer"}},
    "reference_engine": {"reference": {"write": "missing"}},
    "build_sft.teacher": {"build_sft": {"source": "distillation", "teacher": "t"}},
    "teacher_engine": {"build_sft": {"source": "distillation", "teacher": "t"}},
    "build_sft.num_solutions": {"build_sft": {"source": "self_reflection"}},
    "build_sft.sampling": {"build_sft": {"source": "self_reflection"}},
    "build_sft.trace": {"build_sft": {"source": "self_reflection"}},
    "build_sft.max_tokens": {"build_sft": {"source": "reference"}},
    "warmup.": {"problems": {"part": [0.5, 1.0]}, "prompts": "short"},
    "localize.": {"model": {"path": "lab"}},
    "evaluate.sets.": {"evaluate": {"sets": {"NAME": {"path": str(PROBLEMS)}}}},
    "evaluate.on": {"evaluate": {"sets": {"NAME": {"path": str(PROBLEMS)}}}},
    "select.subset": {"select": {"subset": 3}},
    "environment.max_turns": {"environment": {"name": "memory"}},
    "train_sft.dpo_beta": {"train_sft": {"method": "dpo"}},
    "train_sft.distill.": {"train_sft": {"method": "sdft"}},
    "train_sft.student.": {"train_sft": {"method": "sdft"}},
    "train_rl.distill.": {"train_rl": {"distill_weight": 1}},
    "train_rl.distill_from": {"train_rl": {"distill_weight": 1}},
    "train_rl.anneal_share": {"train_rl": {"contexts_end": {"hint": 1}}},
    "train_rl.hint_shares": {"train_rl": {"contexts": {"hint": 1}}},
    "train_rl.servers.": {"train_rl": {"sampler": "servers"}},
    "train_rl.online.": {"train_rl": {"online": {"share": 0.5}}},
    "prices.": {"prices": {who: {"input": 1.0, "output": 2.0} for who in Asked}},
    "train_rl.keep_checkpoints": {"train_rl": {"save_every": 10}},
    **{name: {"problems": {"kind": "lab"}}
       for name in ("problems.num_", "propose.truth", "evaluate.num_probe_rollouts")},
}  # fmt: skip

#: Trainings on rows alone.
ON_ROWS = ("warmup.worked", "warmup.verification", "train_proposer")

#: Another value, where it cannot be made from the default.
VALUES: dict[str, Any] = {
    "name": "other",
    "prompts": str(Path(midcourse.prompts.__file__).parent / "sets" / "default"),
    "problems.path": str(HELD_OUT),
    "problems.held_out_path": str(PROBLEMS),
    "problems.columns": {"problem": "question"},
    "problems.held_out_columns": {"problem": "question"},
    "problems.part": [0.0, 0.5],
    "problems.limit": 2,
    "problems.held_out_limit": 1,
    "model.path": "other",
    "model.revision": "v2",
    "model.chat_template": str(TABLE.parent / ".." / "data" / "script.json"),
    "model.template_date": "2025-01-31",
    "model.template_arguments": {"enable_thinking": False},
    "reference.template_arguments": {"enable_thinking": False},
    "build_sft.teacher_template_arguments": {"enable_thinking": False},
    "engine.script": str(TABLE.parent / ".." / "data" / "script.json"),
    "engine.api_key_env": "KEY",
    "engine.parameters": {"seed": ""},
    "engine.inner": {"kind": "transformers", "max_context_tokens": 100},
    "proposer_model": {"path": "other"},
    "proposer_engine": {"kind": "transformers", "max_context_tokens": 100},
    "teacher_engine": {"kind": "transformers", "max_context_tokens": 100},
    "reference_engine": {"kind": "transformers", "max_context_tokens": 100},
    "sample.rounds": [32, 32],
    "sample.sampling.min_p": 0.5,
    "verify.rounds": [16, 16],
    "verify.conditions": ["prefix_intervention", "prefix"],
    "evaluate.models": ["base"],
    "report_to": ["tensorboard"],
    "evaluate.ks": [1],
    "evaluate.on": ["held_out"],
    "evaluate.sets.NAME.path": str(WORKED),
    "evaluate.sets.NAME.columns": {"problem": "question"},
    "evaluate.sets.NAME.limit": 1,
    "evaluate.sets.NAME.subset": 1,
    "evaluate.sets.NAME.ks": [1],
    "evaluate.sets.NAME.num_rollouts": 16,
    "sample.num_rollouts_by_source": {"problems": 128},
    "steps.rule": "lines",
    "environment.name": "memory",
    "problems.checker": "runs:EXACT",
    "select.subset": 2,
    "build_sft.prefix": "masked",
    "reference.write": "all",
    "warmup.worked.part": [0.0, 0.1],
    "warmup.worked.limit": 1,
    "warmup.verification.part": [0.2, 0.4],
    "warmup.verification.limit": 1,
    "warmup.num_checks": 1,
    "localize.limit_per_source": 1,
    "credit.limit_per_source": 1,
    "credit.measures": [*reversed(CreditConfig().measures)],
    "hints.length": "intervention",
    "train_rl.servers.kind": "vllm",  # there is no other
    "train_sft.student.num_generations": 4,
    **{f"{of}.train.method": "sft" for of in ON_ROWS},  # nor here
    "train_rl.online.share": 0.25,
    "train_rl.contexts": {"prefix_intervention": 1},
    "train_rl.contexts_end": {"hint": 1},
    "train_rl.hint_shares": [0.5, 0.25],
}


def identify(source: Any) -> str:
    return content_id(source.path, source.revision)[:10]


def steps_of(data: Mapping[str, Any], command: str) -> dict[str, Step]:
    """Return every step of a command's recipe by key."""
    recipe = make_recipe(json.loads(json.dumps(data)), [], "test")
    makers = {
        "warmup": warmup_steps, "localize": localize_steps, "credit": credit_steps,
        "train_proposer": proposer_steps,
    }  # fmt: skip
    make = makers.get(command, method_steps)
    return {step.key: step for step in walk(make(recipe))}


def method_steps(recipe: Recipe) -> list[Step]:
    """Return the last steps of the method."""
    made = method(Setup.with_problems(recipe, load_problem_sets(recipe), identify))
    steps: list[Step] = [step for steps in made.steps() for step in steps]
    steps += [made.references, made.interventions.reestimated.grades]
    return steps + [drawn.grades for drawn in made.evaluation.along_rl().values()]


def warmup_steps(recipe: Recipe) -> list[Step]:
    """Return the last steps of a warm-up: what its models are asked."""
    problems = ProblemSets(load_problems(WORKED), {})
    setup = Setup.with_problems(recipe, problems, identify)
    session = Session(Run(Path("never"), recipe, SilentProgress()), setup)
    return list(checks(Warmup(session)).values())


def localize_steps(recipe: Recipe) -> list[Step]:
    """Return the questions of the first-error benchmark."""
    cases = load_cases([str(FIRST_ERRORS)], recipe.localize.limit_per_source)
    return list(questions(recipe, locator(recipe), cases))


def credit_steps(recipe: Recipe) -> list[Step]:
    """Return what maps the rollouts of a run."""
    setup = Setup.with_problems(recipe, load_problem_sets(recipe), identify)
    return [*stages_of_run(method(setup)).steps()]


def proposer_steps(recipe: Recipe) -> list[Step]:
    """Return what the proposer is asked after its training."""
    found = proposers(method(Setup.with_problems(recipe, load_problem_sets(recipe), identify)))
    return found.answers(found.trained, "none", HELD_OUT_SET).steps


def walk(waiting: list[Step]) -> Iterator[Step]:
    """Yield steps and what they read."""
    while waiting:
        step = waiting.pop()
        yield step
        waiting += step.inputs


def merged(base: Mapping[str, Any], name: str, value: object) -> dict[str, Any]:
    """Return a recipe with one dotted key set."""
    data: dict[str, Any] = json.loads(json.dumps(base))
    *sections, last = name.split(".")
    place = data
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return data


def place(key: Key) -> str:
    """Return the section in which an engine's key is tried: a server may propose only."""
    return "proposer_engine" if "``openai``" in key.meaning else "engine"


def given(key: Key) -> dict[str, Any]:
    """Return a recipe in which a key has a meaning."""
    kind = key.meaning.partition("``: ")[0].strip("`")
    if key.name.startswith("engine.") and key.name != "engine.kind":
        script = {"script": str(SCRIPT)} if kind == "scripted" else {}
        return {**PLAIN, place(key): {"kind": kind, **script}}
    found = next((GIVEN[start] for start in GIVEN if key.name.startswith(start)), {})
    return {**PLAIN, **found}


def another(key: Key) -> object:
    """Return another value of a key than its default."""
    if key.name in VALUES:
        return VALUES[key.name]
    if key.allowed:
        values = list(key.allowed)
        return next(value for value in values if json.dumps(value) != key.default)
    default = json.loads(key.default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2 or 0.5
    return {"null": 7, "[]": ["x"]}.get(key.default, "x")


def renamed(key: Key) -> list[str]:
    """Return the first stages that a recipe key renames; what reads them is renamed with them."""
    base = given(key)
    name = key.name.replace("engine.", f"{place(key)}.") if full_name(key) != key.name else key.name
    command = key.name.partition(".")[0]
    before, after = steps_of(base, command), steps_of(merged(base, name, another(key)), command)
    changed = before.keys() - after.keys()
    first = [before[k] for k in changed if not changed & {step.key for step in before[k].inputs}]
    return sorted({f"{step.name} {step.label}" for step in first})


def full_name(key: Key) -> str:
    """Return a key's name, with the engine's kind that has it."""
    kind, marked, _ = key.meaning.partition("``: ")
    is_of_kind = marked and key.name.startswith("engine.")
    return f"{key.name} of {kind.strip('`')}" if is_of_kind else key.name


def all_keys() -> dict[str, Key]:
    """Return the keys of a recipe by name."""
    return {full_name(key): key for key in describe_keys()}


@pytest.mark.parametrize("name", all_keys())
def test_a_key_renames_the_stages_that_the_table_says(name: str) -> None:
    key = all_keys()[name]
    assert renamed(key) == json.loads(TABLE.read_text("utf-8"))[name]
    if key.tunable:
        assert renamed(key) == []


def test_the_table_holds_every_key_and_no_other() -> None:
    assert list(json.loads(TABLE.read_text("utf-8"))) == list(all_keys())


if __name__ == "__main__":
    table = {name: renamed(key) for name, key in all_keys().items()}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
