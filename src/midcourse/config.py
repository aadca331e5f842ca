"""Recipes: what a person writes in TOML, checked before any work starts.

    name = "lab"
    seed = 0
    [model]
    path = "lab"

Every section is a small strict model: an unknown key is an error that names the nearest known
one, units are in the names, and each default is a choice of ours, never a library's. ``--set
sample.num_rollouts=8`` overrides one value. The resolved recipe is written next to the run.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from midcourse.errors import ConfigError
from midcourse.records import Condition, Sampling

Part = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]
ModelRole = Literal["base", "patched", "base + RL", "patched + RL"]


class Section(BaseModel):
    """Base of every section: strict, frozen, documented fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SamplingConfig(Section):
    """All sampling parameters. Nothing is left to a server's generation_config.json."""

    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    """0 switches it off."""
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    max_tokens: int = Field(16_384, ge=1)
    """New tokens per completion."""

    def record(self, **changes: int) -> Sampling:
        """Return the record that travels with every request."""
        return Sampling(**{**self.model_dump(), **changes})


def _check_rounds(rounds: Sequence[int], name: str, total: int) -> None:
    """Raise ValueError unless rounds, if there are any, are positive and sum to `total`."""
    if rounds and (min(rounds) < 1 or sum(rounds) != total):
        raise ValueError(f"rounds {list(rounds)} must be positive and sum to {name}={total}")


class ProblemsConfig(Section):
    """Where problems come from."""

    kind: Literal["jsonl", "lab"] = "jsonl"
    path: str = ""
    """``jsonl``: the training problems: a file, ``hub:OWNER/NAME``, a known SOURCE, ``SOURCE:FILE``
    or ``reasoning-gym:TASK``. ``$MIDCOURSE_DATA`` at a path's start is filled in."""
    held_out_path: str = ""
    """``jsonl``: the problems to evaluate on, written likewise."""
    columns: dict[str, str] = {}
    """``jsonl``: our fields in a file of no known source, e.g. ``{problem = "question"}``."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many training problems."""
    part: Part = (0.0, 1.0)
    """``jsonl``: only training problems whose text hashes into this part of 0 … 1: parts that do
    not overlap share no problem."""
    held_out_limit: int | None = Field(None, ge=1)
    """``jsonl``: only the first so many problems to evaluate on."""
    num_composed: int = Field(48, ge=0)
    """``lab``: training problems with two unknown notions."""
    num_single: int = Field(20, ge=0)
    """``lab``: training problems with one unknown notion."""
    num_known: int = Field(4, ge=0)
    """``lab``: training problems without unknown notions."""
    num_held_out: int = Field(32, ge=1)
    """``lab``: held-out composed and single problems, half each."""
    num_probe: int = Field(32, ge=1)
    """``lab``: held-out problems of known notions, and as many of the control notions."""


class ModelConfig(Section):
    """The base model: policy and proposer unless another engine proposes."""

    path: str = "lab"
    """``lab`` for the bundled model, else a folder or a hub name."""
    revision: str | None = None
    """Commit of a hub model."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on a GPU, float32 on a CPU."""


class EngineConfig(Section):
    """How completions are made."""

    kind: Literal["transformers", "vllm", "openai", "ray", "scripted"] = "transformers"
    urls: tuple[str, ...] = ()
    """``openai``: one or more base URLs, e.g. ``http://127.0.0.1:8000/v1``."""
    served_model: str = ""
    """``openai``: the model's name at the server."""
    chat: bool = False
    """``openai``: the server speaks messages only; it may propose, never sample the policy."""
    api_key_env: str | None = None
    """``openai``: name of the environment variable that holds the key."""
    script: str = ""
    """``scripted``: a JSON file from prompt text to reply."""
    device: str = "auto"
    max_batch_rows: int = Field(256, ge=1)
    """Rows decoded at once (``transformers``)."""
    max_context_tokens: int | None = Field(None, ge=2)
    """Prompt and completion together; default: the model's own length."""
    concurrency: int = Field(32, ge=1)
    """Requests in flight per session (servers)."""
    server_python: str = ""
    """``vllm``: the interpreter of the environment that holds vLLM; default: ours."""
    devices: tuple[str, ...] = ()
    """``vllm``: one server per entry, which becomes its ``CUDA_VISIBLE_DEVICES``."""
    server_arguments: tuple[str, ...] = ()
    """``vllm``: further arguments of the server."""
    kv_cache_gib: float | None = Field(None, gt=0)
    """Memory of the key-value cache (``transformers``, and ``vllm`` on a CPU); default: 4, or
    half of what is free on a GPU."""
    inner: Literal["transformers", "vllm", "scripted"] = "transformers"
    """``ray``: the engine that each actor holds; its settings are the keys above."""
    ray_address: str = ""
    """``ray``: an address, or ``auto``; default: a cluster of this machine alone."""
    num_actors: int = Field(1, ge=1)
    """``ray``: copies of the model."""
    actor_cpus: float = Field(1.0, ge=0)
    """``ray``: CPUs of each actor."""
    actor_gpus: float = Field(0.0, ge=0)
    """``ray``: GPUs of each actor."""
    timeout_seconds: float = Field(600.0, gt=0)
    """Per request (servers)."""


class SampleConfig(Section):
    """Rollouts per problem (§5.1)."""

    num_rollouts: int = Field(64, ge=1)
    rounds: tuple[int, ...] = ()
    """Search: draw in rounds of these sizes, say 4, 12, 48, and stop a problem at its first
    correct rollout. The hard set is the same, at a fraction of the tokens; no pass@k."""
    sampling: SamplingConfig = SamplingConfig()
    max_duplicate_share: float = Field(0.9, gt=0, le=1)
    """Alarm: above this share of problems whose rollouts are all the same text, stop."""

    @model_validator(mode="after")
    def _rounds_fit(self) -> SampleConfig:
        _check_rounds(self.rounds, "num_rollouts", self.num_rollouts)
        return self


class GradeConfig(Section):
    """The grader's limits."""

    timeout_seconds: float = Field(5.0, gt=0)
    """Wall time per answer; over it the worker is killed and the verdict is ``ungraded``."""
    num_workers: int = Field(2, ge=1)
    memory_mib: int = Field(2048, ge=256)
    """Address space of one worker."""


class SelectConfig(Section):
    """Which problems are hard."""

    truncated_is_incorrect: bool = True
    """Whether a rollout that ran out of tokens counts as incorrect; else as ungraded."""
    condition: Literal["problem", "hint"] = "problem"
    """``hint``: of the hard problems only those that stay unsolved with a hint (Table 1, rows
    8-10)."""
    num_rollouts: int = Field(16, ge=1)
    """Hinted rollouts per hard problem, where `condition` is ``hint``."""


class HintsConfig(Section):
    """Hints: the beginning of the reference solution, in the user's turn (Table 1, rows 8-10)."""

    length: Literal["third", "intervention"] = "third"
    """``third``: uniform in (0, 1/3] of the reference's steps; ``intervention``: as many tokens as
    the intervention it is compared with."""


class ReferenceConfig(Section):
    """Reference solutions that are missing (§5.1) are written by a model, and graded."""

    write: Literal["none", "missing", "all"] = "none"
    """For which hard problems. Where no attempt is correct the problem is left out (App. G)."""
    num_attempts: int = Field(1, ge=1)
    """Solutions asked for per problem; the first correct one is kept."""
    model: str = ""
    """Model folder or hub name of the writer; default: the base. See also `reference_engine`."""
    sampling: SamplingConfig = SamplingConfig()


class ProposeConfig(Section):
    """Questions to the proposer (§3.1)."""

    turns: Literal["two", "single"] = "two"
    """Box 1 is two turns in one chat; ``single`` asks everything at once."""
    variant: Literal["one", "list"] = "one"
    """``list`` asks for several replacement steps (Box 2)."""
    reference: Literal["given", "none", "shuffled"] = "given"
    """``none`` is Table 1 row 7; ``shuffled`` shows another problem's reference: a control."""
    truth: bool = False
    """``lab``: take the first error and the right step from the world; no model is asked."""
    num_rollouts: int = Field(4, ge=1)
    """Incorrect rollouts per hard problem."""
    num_proposals: int = Field(4, ge=1)
    """Questions per rollout; the first accepted one is verified."""
    stop_at_first_accepted: bool = False
    """Ask one question after the other, and none after an accepted answer."""
    max_intervention_tokens: int = Field(1024, ge=1)
    leak_rule: Literal["assertion", "substring"] = "assertion"
    """``substring`` is the authors' rule, for parity."""
    terminator: str = "\n\n"
    """What an intervention ends in, in verification and in the SFT row alike."""
    sampling: SamplingConfig = SamplingConfig()


class VerifyConfig(Section):
    """Continuations from prefix + intervention (§3.2), and the other rows of Table 1."""

    num_continuations: int = Field(32, ge=1)
    rounds: tuple[int, ...] = ()
    """Search, as `sample.rounds`: which interventions succeed at all; coverage, no accuracy."""
    budget: Literal["total", "new"] = "total"
    """``total``: prefix and continuation share the sampling budget; ``new``: it is all new."""
    conditions: tuple[Condition, ...] = (Condition.PREFIX_INTERVENTION,)
    """Rows of Table 1 to run; ``prefix_intervention`` is what the filter uses."""
    shift: int = 0
    """Put each intervention so many steps after (before, if negative) the place it was made for;
    its content stays. Where there is no such step the outcome is ``location_out_of_range``."""
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _known_conditions(self) -> VerifyConfig:
        _check_rounds(self.rounds, "num_continuations", self.num_continuations)
        whole = {Condition.REFLECTION, Condition.REFERENCE} & set(self.conditions)
        if whole:
            raise ValueError(f"condition {min(whole).value!r} is no row of Table 1")
        return self


class BuildSftConfig(Section):
    """Rows to fine-tune on: prefix + intervention (§4.1, Table 2), or a baseline's."""

    source: Literal[
        "intervention", "original_step", "reference", "self_reflection", "distillation"
    ] = "intervention"
    """``original_step`` trains on the wrong step itself: a control that must gain nothing. The
    last three are baselines: whole solutions for the problems of InT's rows, as many rows."""
    filter: bool = True
    """Keep only interventions with a correct continuation; of a baseline, correct solutions."""
    rows_per_problem: Literal["one", "all"] = "one"
    prefix: Literal["trained", "masked", "dropped"] = "trained"
    """``masked``: in the context without loss (Table 2's "no prefix"); ``dropped``: not there."""
    suffix: bool = False
    """Append a correct continuation, end-of-turn included if it finished (Table 2)."""
    after_error: bool = False
    """Also use Box 2's recovery steps, located after the error."""
    max_tokens: int = Field(16_384, ge=1)
    """A longer row is refused, never cut."""
    num_solutions: int = Field(4, ge=1)
    """Rewrites per rollout (``self_reflection``), rollouts per problem (``distillation``)."""
    teacher: str = ""
    """``distillation``: model folder or hub name of the teacher. See also `teacher_engine`."""
    trace: Literal["whole", "thinking", "summary"] = "whole"
    """``distillation``: all of the teacher's reply, or what stands within or after its
    ``<think>`` tags (Fig. 9)."""
    sampling: SamplingConfig = SamplingConfig()
    """Of rewrites and of the teacher."""

    @property
    def is_baseline(self) -> bool:
        """Whether rows are whole solutions."""
        return self.source not in ("intervention", "original_step")


class TrainSftConfig(Section):
    """Patching (Table 6)."""

    method: Literal["sft", "dpo"] = "sft"
    """``dpo``: Step-DPO on (intervention, original step) after the same prefix: a baseline."""
    dpo_beta: float = Field(0.1, gt=0)
    """``dpo``: how strongly it is held to the base."""
    num_epochs: float = Field(4.0, gt=0)
    batch_size: int = Field(64, ge=1)
    """Rows per optimiser step."""
    micro_batch_size: int = Field(4, ge=1)
    """Rows per forward pass."""
    learning_rate: float = Field(1e-6, gt=0)
    min_lr_rate: float = Field(0.1, ge=0, le=1)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    gradient_checkpointing: bool = False
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimiser steps."""
    save_every: int | None = Field(None, ge=1)
    """Optimiser steps between checkpoints that a killed training goes on from; default: none, it
    starts over."""
    lora_rank: int = Field(0, ge=0)
    """Train adapters of this rank instead of all weights; they are merged at the end. 0: off."""
    accelerate: str = ""
    """A config of ``accelerate launch`` for several processes, e.g. recipes/accelerate/ddp.yaml."""


class TrainRlConfig(Section):
    """Outcome-reward GRPO (§4.2, Table 5)."""

    num_iterations: int = Field(400, ge=1)
    """Iterations of sampling; each is `num_updates` optimiser steps."""
    prompts_per_iteration: int = Field(32, ge=1)
    num_generations: int = Field(8, ge=2)
    """Rollouts per prompt: one group."""
    num_updates: int = Field(2, ge=1)
    """Optimiser steps per iteration: the paper's mini-batch of 16 prompts out of 32."""
    micro_batch_size: int = Field(8, ge=1)
    """Rollouts per forward pass."""
    learning_rate: float = Field(1e-6, gt=0)
    clip: float = Field(0.2, gt=0)
    scale_rewards: bool = False
    """Divide by the group's standard deviation; the paper does not."""
    problems: Literal["all", "hard", "verified"] = "all"
    """``verified``: hard problems with a kept intervention, the paper's D_train."""
    hints: bool = False
    """Hint-guided RL: every prompt carries a hint."""
    sampling: SamplingConfig = SamplingConfig()
    save_every: int = Field(100, ge=1)
    """Iterations between checkpoints."""
    keep_checkpoints: bool = False
    """Keep the model of each checkpoint, to be evaluated along RL (Fig. 12)."""
    gradient_checkpointing: bool = False
    lora_rank: int = Field(0, ge=0)
    """As `train_sft.lora_rank`."""
    accelerate: str = ""
    """As `train_sft.accelerate`."""
    vllm: Literal["off", "colocate"] = "off"
    """``colocate``: TRL samples with vLLM on the training GPUs; needs ``vllm`` installed here."""
    vllm_gpu_share: float = Field(0.3, gt=0, lt=1)
    """Share of each GPU's memory for vLLM."""

    @property
    def takes_all_devices(self) -> bool:
        """Whether a training leaves no room beside it: the two arms then run in turn."""
        return bool(self.accelerate) or self.vllm != "off"


class EvaluateConfig(Section):
    """pass@k on problems that were not trained on (§5.4-5.5)."""

    models: tuple[ModelRole, ...] = ("base", "patched", "base + RL", "patched + RL")
    """Which models to compare; what none of them needs is not trained by ``run``. ``patched`` is
    whatever `build_sft.source` and `train_sft.method` make."""
    num_rollouts: int = Field(128, ge=1)
    num_probe_rollouts: int = Field(8, ge=1)
    """Per problem of a probe set: known and control notions of the lab."""
    ks: tuple[int, ...] = (1, 8)
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.8, top_k=20)

    @model_validator(mode="after")
    def _enough_samples(self) -> EvaluateConfig:
        if max(self.ks) > self.num_rollouts:
            raise ValueError(f"ks has {max(self.ks)}, more than num_rollouts={self.num_rollouts}")
        return self


class LikelihoodConfig(Section):
    """NLL, entropy and intervention-token probability (Figs 7-9)."""

    max_items: int = Field(64, ge=1)
    """Sequences scored per kind and model."""


class LocalizeConfig(Section):
    """The first-error benchmark, ``midcourse localize``."""

    reference: Literal["both", "given", "none"] = "both"
    """Whether the reference solution is shown; ``both`` asks twice."""
    limit_per_source: int | None = Field(None, ge=1)
    """Only the first so many solutions of each source."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.0, max_tokens=4096)


class WorkedConfig(Section):
    """Warm-up, first half: worked solutions in our answer form."""

    part: Part = (0.0, 0.2)
    """As `problems.part`, of the same file."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many problems."""
    train: TrainSftConfig = TrainSftConfig()


class VerificationConfig(Section):
    """Warm-up, second half: the first error of attempts that were spoiled on purpose."""

    part: Part = (0.2, 0.5)
    """As `problems.part`, of the same file."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many problems."""
    num_attempts: int = Field(2, ge=1)
    """Attempts per problem; every other one is shown without the reference."""
    num_worked: int = Field(0, ge=0)
    """Worked solutions mixed in, so that solving is not forgotten."""
    train: TrainSftConfig = TrainSftConfig()


class WarmupConfig(Section):
    """What ``midcourse warmup`` teaches a small model before the method begins."""

    worked: WorkedConfig = WorkedConfig()
    verification: VerificationConfig = VerificationConfig()
    max_tokens: int = Field(1024, ge=1)
    """A longer row is refused, never cut."""
    num_checks: int = Field(100, ge=1)
    """Attempts at problems of `problems.part` on which the verifier is measured."""
    check_sampling: SamplingConfig = SamplingConfig(temperature=0.0, max_tokens=512)

    def check_parts(self, others: Part) -> None:
        """Raise ConfigError if two of the three parts of the problems overlap."""
        parts = sorted([self.worked.part, self.verification.part, others])
        if any(before[1] > after[0] for before, after in pairwise(parts)):
            raise ConfigError(
                f"warmup: the parts {parts} overlap: a problem must be in one of "
                "warmup.worked.part, warmup.verification.part and problems.part"
            )


class Recipe(Section):
    """One run, whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run directory is ``runs/<name>`` unless ``--run-dir`` says otherwise."""
    seed: int = Field(0, ge=0)
    prompts: str = "default"
    """A packaged prompt set, or a folder of .md files."""
    problems: ProblemsConfig = ProblemsConfig()
    model: ModelConfig = ModelConfig()
    engine: EngineConfig = EngineConfig()
    proposer_model: ModelConfig | None = None
    """Another model as the proposer; default: the base model itself."""
    proposer_engine: EngineConfig | None = None
    teacher_engine: EngineConfig | None = None
    """How `build_sft.teacher` is asked; default: as the base."""
    reference_engine: EngineConfig | None = None
    """How `reference.model` is asked; default: as the base."""
    sample: SampleConfig = SampleConfig()
    grade: GradeConfig = GradeConfig()
    select: SelectConfig = SelectConfig()
    hints: HintsConfig = HintsConfig()
    reference: ReferenceConfig = ReferenceConfig()
    propose: ProposeConfig = ProposeConfig()
    verify: VerifyConfig = VerifyConfig()
    build_sft: BuildSftConfig = BuildSftConfig()
    train_sft: TrainSftConfig = TrainSftConfig()
    train_rl: TrainRlConfig = TrainRlConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    likelihood: LikelihoodConfig = LikelihoodConfig()
    localize: LocalizeConfig = LocalizeConfig()
    warmup: WarmupConfig = WarmupConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        complaint = next(_contradictions(self), "")
        if complaint:
            raise ValueError(complaint)
        return self


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield what sections say against each other."""
    rows = recipe.build_sft
    if recipe.hints.length == "intervention":
        if recipe.select.condition == "hint":
            yield "select.condition 'hint' has no intervention yet: set hints.length = 'third'"
        if recipe.train_rl.hints:
            yield "train_rl.hints has no intervention: set hints.length = 'third'"
    is_plain = rows.source == "intervention" and rows.prefix == "trained" and not rows.suffix
    if recipe.train_sft.method == "dpo" and not is_plain:
        yield (
            "train_sft.method 'dpo' compares an intervention with the original step: leave "
            "build_sft.source, prefix and suffix at their defaults"
        )
    if rows.source == "distillation" and not rows.teacher and recipe.teacher_engine is None:
        yield "build_sft.source 'distillation' needs build_sft.teacher or teacher_engine"
    if recipe.propose.truth and recipe.problems.kind != "lab":
        yield "propose.truth: only the lab (problems.kind = 'lab') knows the first error"


def load_recipe(path: Path, overrides: Sequence[str] = (), overlays: Sequence[Path] = ()) -> Recipe:
    """Read a recipe, lay `overlays` over it in order, then ``key.sub=value`` overrides.

    Tables merge key by key; any other value replaces what was there. Raises ConfigError, one line.
    """
    data: dict[str, Any] = {}
    for file in (path, *overlays):
        _lay_over(data, _read_toml(file))
    return make_recipe(data, overrides, " with ".join(map(str, (path, *overlays))))


def make_recipe(data: dict[str, Any], overrides: Sequence[str], where: str) -> Recipe:
    """Check a recipe given as nested tables; `where` is what an error blames."""
    for override in overrides:
        _apply_override(data, override)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Recipe)}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"no recipe at {path}: give a .toml file, e.g. recipes/lab.toml")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _lay_over(data: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Merge `layer` into `data`: tables key by key, everything else replaces."""
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            _lay_over(data[key], value)
        else:
            data[key] = value


def _apply_override(data: dict[str, Any], override: str) -> None:
    """Set one dotted key; the value is read as JSON if it is JSON, else as text."""
    name, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override!r}: write key=value, e.g. sample.num_rollouts=8")
    *sections, key = name.strip().split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override!r}: {section} is a value, not a section")
    try:
        data[key] = json.loads(text)
    except json.JSONDecodeError:
        data[key] = text


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first complaint of pydantic in one line, with the nearest known key."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']} (given: {first['input']!r})"
    known = _known_keys(model, first["loc"][:-1])
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the section at `location`."""
    section: Any = model
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(section.model_fields)


def describe_keys(
    section: type[BaseModel] = Recipe, prefix: str = "", given: BaseModel | None = None
) -> list[tuple[str, str, str]]:
    """Return ``(key, default, meaning)`` of every key; `given` holds a section's own defaults."""
    lines: list[tuple[str, str, str]] = []
    for name, field in section.model_fields.items():
        default = getattr(given, name) if given is not None else field.default
        if isinstance(default, BaseModel):
            lines += describe_keys(type(default), f"{prefix}{name}.", default)
            continue
        shown = "required" if field.is_required() else json.dumps(default, default=str)
        lines.append((f"{prefix}{name}", shown, " ".join((field.description or "").split())))
    return lines
