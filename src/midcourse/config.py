"""Recipes: what a person writes in TOML, checked before any work starts.

    name = "mine"
    seed = 0
    [model]
    path = "my-model"

Every section is a small strict model: an unknown key is an error that names the nearest known
one, units are in the names, and each default is a choice of ours, never a library's. ``--set
sample.num_rollouts=8`` overrides one value. The resolved recipe is written next to the run.

A key that is `tunable` makes a run faster or puts it elsewhere. It is in no artifact's key and may
change when a run is resumed. Every other key is part of what it changes (`Section.identity`).
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from midcourse.errors import ConfigError
from midcourse.recipes import find_recipe
from midcourse.records import TABLE_1, Condition, Role, Sampling

T = TypeVar("T")

#: What a chat template is told for today's date.
TEMPLATE_DATE = date(2024, 7, 26)
#: Part of every artifact's key. Raise it when a default of a key that decides results changes.
KEYS_VERSION = 1


def _in_order(part: tuple[float, float]) -> tuple[float, float]:
    if part[0] >= part[1]:
        raise ValueError(f"{list(part)} is empty: write the smaller number first")
    return part


def without_credentials(text: str) -> str:
    """Return `text` without the user and password of any URL in it: they are written nowhere."""
    return re.sub(r"(?<=://)[^/\s\"'?#]*@", "", text)


#: What a request tells a server about sampling.
_PARAMETERS = (
    "n", "seed", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens",
    "add_special_tokens", "stop_token_ids", "chat_template_kwargs", "stream",
)  # fmt: skip


def _of_requests(names: dict[str, str]) -> dict[str, str]:
    unknown = next((name for name in names if name not in _PARAMETERS), None)
    if unknown is not None:
        raise ValueError(f"no request has {unknown!r}, but {', '.join(_PARAMETERS)}")
    return names


def _whole(shares: dict[Condition, float]) -> dict[Condition, float]:
    other = next((condition for condition in shares if condition not in TABLE_1), None)
    if other is not None:
        raise ValueError(f"condition {other.value!r} is not a row of Table 1")
    if shares and abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"the shares sum to {sum(shares.values()):g}: let them sum to 1")
    return shares


#: What the renderer itself tells a chat template, or the method that fills it in.
_NOT_OF_TEMPLATES = re.compile(
    "add_generation_prompt|chat_template|continue_final_message|conversation|documents|max_length"
    "|messages|padding|return_assistant_tokens_mask|return_dict|return_tensors|strftime_now"
    "|tokenize|tokenizer_kwargs|tools|truncation"
)


def _of_templates(arguments: Any) -> Any:
    for name, value in arguments.items() if isinstance(arguments, dict) else ():
        if _NOT_OF_TEMPLATES.fullmatch(name) or not name.isidentifier():
            raise ValueError(f"{name!r} is no argument of a chat template: leave it out")
        if type(value) not in (bool, int, str):
            raise ValueError(f"{name} = {value!r}: give a boolean, an integer or a text")
    return arguments


TemplateArguments = dict[str, StrictBool | StrictInt | StrictStr]
_TemplateArguments = Annotated[TemplateArguments, BeforeValidator(_of_templates)]
_Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[dict[Condition, _Share], AfterValidator(_whole)]
Part = Annotated[tuple[_Share, _Share], AfterValidator(_in_order)]
_Url = Annotated[str, PlainSerializer(without_credentials)]
Loss = Literal["sequence_mean", "token_mean", "constant_length", "token_sum"]
ZeroGradient = Literal["keep", "drop", "refill"]
Advantage = Literal["mean", "mean_std", "reward_by_mean"]
ModelRole = Literal["base", "patched", "base + RL", "patched + RL"]


def tunable(default: T, **constraints: Any) -> T:
    """Declare a key that may change at a resume; `constraints` are those of pydantic's Field."""
    made: T = Field(default, json_schema_extra={"tunable": True}, **constraints)
    return made


def is_tunable(field: FieldInfo) -> bool:
    """Whether a key may change at a resume."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("tunable"))


class Section(BaseModel):
    """Base of every section: strict, frozen, documented fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def identity(self, *, with_defaults: bool = False) -> dict[str, object]:
        """Return the values that decide results, as JSON holds them, without tunable keys.

        Values at their default are left out, so that a key which a later release adds renames
        nothing that exists; a default never changes without `KEYS_VERSION`. What an engine is
        (`kind`) always counts.
        """
        found: dict[str, object] = {}
        plain = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if is_tunable(field):
                continue
            if isinstance(value, Section):
                nested = value.identity(with_defaults=with_defaults)
                found |= {name: nested} if nested or with_defaults else {}
            elif with_defaults or value != field.default or name == "kind":
                found[name] = plain[name]
        return found


class SamplingConfig(Section):
    """All sampling parameters. Nothing is left to a server's generation_config.json."""

    temperature: float = Field(1.0, ge=0)
    """Divides the logits; 0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Keep the likeliest tokens up to this total probability; 1 switches it off."""
    top_k: int = Field(0, ge=0)
    """Keep so many of the likeliest tokens; 0 switches it off."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Drop tokens below this share of the likeliest one's probability; 0 switches it off."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Divides the logits of tokens that were used; 1 switches it off."""
    max_tokens: int = Field(16_384, ge=1)
    """New tokens per completion."""

    @property
    def is_cut(self) -> bool:
        """Whether probabilities are changed beyond the temperature."""
        cuts = self.top_p < 1 or self.top_k or self.min_p
        return bool(cuts or self.repetition_penalty != 1)

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
    """``jsonl``: problems of your own or of a known source; ``lab``: the generated world."""
    path: str = ""
    """``jsonl``: the training problems: a file, ``hub:OWNER/NAME``, a known SOURCE, ``SOURCE:FILE``
    or ``reasoning-gym:TASK``. ``$MIDCOURSE_DATA`` at a path's start is filled in."""
    held_out_path: str = ""
    """``jsonl``: the set ``held_out`` to evaluate on, written likewise; none may be a training
    problem. Figures are about it; `evaluate.sets` names further sets."""
    columns: dict[str, str] = {}
    """``jsonl``: our fields in a file of no known source, e.g. ``{problem = "question"}``."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many training problems."""
    part: Part = (0.0, 1.0)
    """``jsonl``: only training problems whose text hashes into this part of 0 … 1: parts that do
    not overlap share no problem."""
    held_out_limit: int | None = Field(None, ge=1)
    """``jsonl``: only the first so many problems of the set ``held_out``."""
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

    @property
    def has_held_out(self) -> bool:
        """Whether there is a set ``held_out``."""
        return self.kind == "lab" or bool(self.held_out_path)


class ModelConfig(Section):
    """The base model: policy and proposer unless another engine proposes."""

    path: str
    """A folder, a hub name, or ``lab`` for the bundled model."""
    revision: str | None = None
    """Commit, branch or tag of a hub model; it is resolved to a commit before work starts."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on a GPU, float32 on a CPU."""
    template_date: date = TEMPLATE_DATE
    """What a chat template that writes today's date is told, so that prompts stay the same."""
    template_arguments: _TemplateArguments = {}
    """What else the chat template is told, e.g. ``{enable_thinking = false}``: booleans, integers
    and texts. One that the template does not read is an error."""


class TransformersConfig(Section):
    """In this process, with transformers."""

    kind: Literal["transformers"] = "transformers"
    """Which engine makes completions."""
    device: str = tunable("auto")
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``."""
    max_batch_rows: int = tunable(256, ge=1)
    """Rows decoded at once."""
    max_context_tokens: int | None = Field(None, ge=2)
    """Prompt and completion together; default: the model's own length."""
    kv_cache_gib: float | None = tunable(None, gt=0)
    """Memory of the key-value cache; default: 4, or half of what is free on a GPU."""
    num_threads: int | None = tunable(None, ge=1)
    """CPU threads of one matrix product; default: 1 below 20 million parameters, else all.
    Threads that are left over decode batches of their own."""

    loads_models: ClassVar[bool] = True
    model_name: ClassVar[str] = ""
    in_process: ClassVar[bool] = True
    gpu_share: ClassVar[float] = 1.0
    num_devices: ClassVar[int] = 1

    @property
    def scoring(self) -> EngineConfig | None:
        """Itself."""
        return self

    @property
    def on_cpu(self) -> bool:
        """Whether a CPU is asked for."""
        return self.device == "cpu"

    @property
    def rows_at_once(self) -> int:
        """Its batch."""
        return self.max_batch_rows


class VllmConfig(Section):
    """vLLM servers of our own, one per device, outside this process."""

    kind: Literal["vllm"] = "vllm"
    """Which engine makes completions."""
    server_python: str = tunable("")
    """The interpreter of the environment that holds vLLM; default: ours."""
    devices: tuple[str, ...] = tunable(())
    """One server per entry, which becomes its ``CUDA_VISIBLE_DEVICES``."""
    server_arguments: tuple[str, ...] = ()
    """Further arguments of the server."""
    kv_cache_gib: float | None = tunable(None, gt=0)
    """Memory of the key-value cache of a server on a CPU; default: 4."""
    max_context_tokens: int | None = Field(None, ge=2)
    """Prompt and completion together; default: the model's own length."""
    concurrency: int = tunable(32, ge=1)
    """Requests in flight per server."""
    timeout_seconds: float = tunable(600.0, gt=0)
    """Of silence: an attempt ends when its server has sent nothing, to any request, for so long."""

    loads_models: ClassVar[bool] = True
    in_process: ClassVar[bool] = False
    on_cpu: ClassVar[bool] = False
    model_name: ClassVar[str] = ""

    @property
    def scoring(self) -> EngineConfig | None:
        """Scores are computed in this process."""
        return TransformersConfig()

    @property
    def gpu_share(self) -> float:
        """Of a GPU's memory, as the servers are told; vLLM's own default is 0.9."""
        arguments = " ".join(self.server_arguments)
        found = re.search(r"--gpu-memory-utilization[= ]([\d.]+)", arguments)
        return float(found[1]) if found else 0.9

    @property
    def num_devices(self) -> int:
        """One server each."""
        return max(1, len(self.devices))

    @property
    def rows_at_once(self) -> int:
        """Requests in flight per server."""
        return self.concurrency


class OpenAIConfig(Section):
    """OpenAI-compatible servers that somebody else runs."""

    kind: Literal["openai"] = "openai"
    """Which engine makes completions."""
    urls: tuple[_Url, ...] = tunable(())
    """One or more base URLs of the same model, e.g. ``http://127.0.0.1:8000/v1``."""
    served_model: str = ""
    """The model's name at the server."""
    chat: bool = False
    """The server speaks messages only; it may propose, never sample the policy."""
    api_key_env: str | None = tunable(None)
    """Name of the environment variable that holds the key."""
    max_context_tokens: int | None = Field(None, ge=2)
    """Prompt and completion together, if the server takes as much; default: what it says, else
    32,768."""
    parameters: Annotated[dict[str, str], AfterValidator(_of_requests)] = {}
    """Parameters that the server calls otherwise, or, with an empty name, does not take, e.g.
    ``{max_tokens = "max_completion_tokens", seed = ""}``."""
    concurrency: int = tunable(32, ge=1)
    """Requests in flight, all servers together."""
    timeout_seconds: float = tunable(600.0, gt=0)
    """Of silence: an attempt ends when its server has sent nothing, to any request, for so long."""

    loads_models: ClassVar[bool] = False
    in_process: ClassVar[bool] = False
    on_cpu: ClassVar[bool] = False
    gpu_share: ClassVar[float] = 0.9
    kv_cache_gib: ClassVar[None] = None
    scoring: ClassVar[None] = None

    @property
    def model_name(self) -> str:
        """What the server calls it."""
        return self.served_model

    @property
    def num_devices(self) -> int:
        """One per server, as far as we can know."""
        return max(1, len(self.urls))

    @property
    def rows_at_once(self) -> int:
        """Requests in flight per server."""
        return max(1, self.concurrency // self.num_devices)


class ScriptedConfig(Section):
    """Replies that a person wrote: no model."""

    kind: Literal["scripted"] = "scripted"
    """Which engine makes completions."""
    script: str = tunable("")
    """A JSON file, a list of ``[pattern, reply, …]``; its text is part of every key."""

    loads_models: ClassVar[bool] = True
    in_process: ClassVar[bool] = False
    on_cpu: ClassVar[bool] = False
    gpu_share: ClassVar[float] = 0.9
    kv_cache_gib: ClassVar[None] = None
    num_devices: ClassVar[int] = 1
    rows_at_once: ClassVar[int] = 64
    max_context_tokens: ClassVar[None] = None

    @property
    def model_name(self) -> str:
        """The script's file."""
        return Path(self.script).name

    @property
    def scoring(self) -> EngineConfig | None:
        """Itself."""
        return self


def _engine_kind(value: Any) -> str:
    """Return the kind of an engine section; a section that names none is transformers'."""
    kind = value.get("kind", "transformers") if isinstance(value, dict) else value.kind
    return str(kind)


InnerEngineConfig = Annotated[
    Annotated[TransformersConfig, Tag("transformers")]
    | Annotated[VllmConfig, Tag("vllm")]
    | Annotated[ScriptedConfig, Tag("scripted")],
    Discriminator(_engine_kind),
]
"""What an actor of a Ray cluster may hold."""


class RayConfig(Section):
    """Copies of another engine over a Ray cluster."""

    kind: Literal["ray"] = "ray"
    """Which engine makes completions."""
    inner: InnerEngineConfig = TransformersConfig()
    """The engine that each actor holds, a section of its own."""
    address: str = tunable("")
    """An address, or ``auto``; default: a cluster of this machine alone."""
    num_actors: int = tunable(1, ge=1)
    """Copies of the model."""
    actor_cpus: float = tunable(1.0, ge=0)
    """CPUs of each actor."""
    actor_gpus: float = tunable(0.0, ge=0)
    """GPUs of each actor."""
    timeout_seconds: float = tunable(600.0, gt=0)
    """How long the cluster may take to place the first actor."""

    loads_models: ClassVar[bool] = True
    model_name: ClassVar[str] = ""

    @property
    def scoring(self) -> EngineConfig | None:
        """As the engine in its actors."""
        return self.inner.scoring

    @property
    def num_devices(self) -> int:
        """Those of all actors."""
        return self.num_actors * self.inner.num_devices

    @property
    def rows_at_once(self) -> int:
        """As the engine in its actors."""
        return self.inner.rows_at_once


SingleEngineConfig = TransformersConfig | VllmConfig | OpenAIConfig | ScriptedConfig
EngineConfig = SingleEngineConfig | RayConfig
EngineSection = Annotated[
    Annotated[TransformersConfig, Tag("transformers")]
    | Annotated[VllmConfig, Tag("vllm")]
    | Annotated[OpenAIConfig, Tag("openai")]
    | Annotated[RayConfig, Tag("ray")]
    | Annotated[ScriptedConfig, Tag("scripted")],
    Discriminator(_engine_kind),
]
"""An engine's settings: which keys there are depends on its ``kind``.

Every kind says what the rest of midcourse asks: `loads_models` (also a folder that was just
trained), `scoring` (the settings of what scores tokens under its model; none if the weights are
elsewhere), `model_name` (what it is called if not by the model's folder), `num_devices` (on how
many it samples), `rows_at_once` (on each). A kind that is not a cluster also says what it takes of
a device: `in_process` (else it is a server), `on_cpu`, `gpu_share` (of the memory, a server's
weights and cache), `kv_cache_gib`, `max_context_tokens`.
"""


def single_engine(config: EngineConfig) -> SingleEngineConfig:
    """Return the engine that samples: of a cluster, the one that its actors hold."""
    return config.inner if isinstance(config, RayConfig) else config


def speaks_messages(config: EngineConfig) -> bool:
    """Whether an engine takes messages alone: the chat template is its own."""
    single = single_engine(config)
    return isinstance(single, OpenAIConfig) and single.chat


def served_by(engine: EngineConfig, base: ModelConfig) -> ModelConfig:
    """Return the base as an engine of a helper has it: what takes messages has another template."""
    return base.model_copy(update={"template_arguments": {}}) if speaks_messages(engine) else base


class SampleConfig(Section):
    """Rollouts per problem (§5.1)."""

    num_rollouts: int = Field(64, ge=1)
    """Rollouts of each training problem: the k of pass@k = 0."""
    num_rollouts_by_source: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Another number for the problems of a source, e.g. ``{omni-math = 128}`` (§5.1)."""
    rounds: tuple[int, ...] = ()
    """Search: draw in rounds of these sizes, say 4, 12, 48, and stop a problem at its first
    correct rollout. The hard set is the same, at a fraction of the tokens; no pass@k. Where a
    source has more rollouts, the rest is a last round."""
    sampling: SamplingConfig = SamplingConfig()
    """Of rollouts."""
    max_duplicate_share: float = tunable(0.9, gt=0, le=1)
    """Alarm: above this share of problems whose rollouts are all the same text, stop."""

    @model_validator(mode="after")
    def _rounds_fit(self) -> SampleConfig:
        _check_rounds(self.rounds, "num_rollouts", self.num_rollouts)
        return self


class GradeConfig(Section):
    """The grader's limits."""

    timeout_seconds: float = tunable(5.0, gt=0)
    """Processor time per answer, and a tenth of the wall time; over it: ``ungraded``."""
    num_workers: int = tunable(2, ge=1)
    """Worker processes."""
    memory_mib: int = tunable(2048, ge=256)
    """Address space of one worker."""


class SelectConfig(Section):
    """Which problems are hard."""

    truncated_is_incorrect: bool = True
    """Whether a rollout that ran out of tokens counts as incorrect; else as ungraded."""
    condition: Literal["problem", "hint"] = "problem"
    """``problem``: all hard problems; ``hint``: of the hard problems only those that stay unsolved
    with a hint (Table 1, rows 8-10)."""
    num_rollouts: int = Field(16, ge=1)
    """Hinted rollouts per hard problem, where `condition` is ``hint``."""
    subset: int | None = Field(None, ge=1)
    """Go on with so many of the hard problems (Table 1: 334 of 4,500): a choice by seed and problem
    id alone, so that a larger one holds a smaller one."""


class HintsConfig(Section):
    """Hints: the beginning of the reference solution, in the user's turn (Table 1, rows 8-10)."""

    length: Literal["third", "intervention"] = "third"
    """``third``: uniform in (0, 1/3] of the reference's steps; ``intervention``: as many tokens as
    the intervention it is compared with."""


class ReferenceConfig(Section):
    """Reference solutions that are missing (§5.1) are written by a model, and graded."""

    write: Literal["none", "missing", "all"] = "none"
    """For which hard problems one is written. Where no attempt is correct the problem is left out
    (App. G)."""
    num_attempts: int = Field(1, ge=1)
    """Solutions asked for per problem; the first correct one is kept."""
    model: str = ""
    """Model folder or hub name of the writer; default: the base. See also `reference_engine`."""
    template_arguments: _TemplateArguments | None = None
    """As `model.template_arguments`, of the writer; default: none, unless the base writes."""
    sampling: SamplingConfig = SamplingConfig()
    """Of the writer."""


class ProposeConfig(Section):
    """Questions to the proposer (§3.1)."""

    turns: Literal["two", "single"] = "two"
    """``two``: Box 1, two turns in one chat; ``single`` asks everything at once."""
    guided: Literal["each", "shared"] = "each"
    """The solution of the first of two turns: ``each`` question has its own, or all questions about
    a rollout go on from one that is ``shared``, as in the authors' release: fewer tokens."""
    variant: Literal["one", "list"] = "one"
    """``one`` step (Box 1), or a ``list`` of several replacement steps (Box 2)."""
    reference: Literal["given", "none", "shuffled"] = "given"
    """``given``: the problem's own; ``none`` is Table 1 row 7; ``shuffled`` shows another problem's
    reference: a control."""
    truth: bool = False
    """``lab``: take the first error and the right step from the world; no model is asked."""
    num_rollouts: int = Field(4, ge=1)
    """Incorrect rollouts per hard problem."""
    num_proposals: int = Field(4, ge=1)
    """Questions per rollout; the first accepted one is verified."""
    stop_at_first_accepted: bool = False
    """Ask one question after the other, and none after an accepted answer."""
    max_intervention_tokens: int = Field(1024, ge=1)
    """A longer intervention is ``too_long``; in the policy's tokens."""
    leak_rule: Literal["assertion", "substring"] = "assertion"
    """``assertion``: an intervention leaks if it asserts the answer; ``substring``: if it holds it,
    the authors' rule, for parity."""
    terminator: str = "\n\n"
    """What an intervention ends in, in verification and in the SFT row alike."""
    sampling: SamplingConfig = SamplingConfig()
    """Of the proposer, each turn."""

    @property
    def num_turns(self) -> int:
        """The turns of one question: without a reference no solution comes first."""
        return 2 if self.turns == "two" and self.reference != "none" else 1

    @property
    def shares_solution(self) -> bool:
        """Whether the questions about a rollout go on from one guided solution."""
        return self.num_turns == 2 and self.guided == "shared"


class VerifyConfig(Section):
    """Continuations from prefix + intervention (§3.2), and the other rows of Table 1."""

    num_continuations: int = Field(32, ge=1)
    """Continuations of each intervention, and of each other context of Table 1."""
    rounds: tuple[int, ...] = ()
    """Search, as `sample.rounds`: which interventions succeed at all; coverage, no accuracy."""
    budget: Literal["total", "new"] = "total"
    """``total``: prefix and continuation share the sampling budget; ``new``: it is all new."""
    conditions: tuple[Condition, ...] = (Condition.PREFIX_INTERVENTION,)
    """Rows of Table 1 to run; ``prefix_intervention`` is what the filter uses."""
    shift: int = 0
    """Put each intervention so many steps after (before, if negative) the place it was made for;
    its content stays. Where there is no such step the outcome is ``location_out_of_range``, where
    it says the same ``unchanged``."""
    sampling: SamplingConfig = SamplingConfig()
    """Of continuations."""

    @model_validator(mode="after")
    def _known_conditions(self) -> VerifyConfig:
        _check_rounds(self.rounds, "num_continuations", self.num_continuations)
        others = set(self.conditions) - set(TABLE_1)
        if others:
            raise ValueError(f"condition {min(others).value!r} is not a row of Table 1")
        return self


class BuildSftConfig(Section):
    """Rows to fine-tune on: prefix + intervention (§4.1, Table 2), or a baseline's."""

    source: Literal[
        "intervention", "original_step", "reference", "self_reflection", "distillation"
    ] = "intervention"
    """``intervention`` is InT; ``original_step`` trains on the wrong step itself: a control that
    must gain nothing. The last three are baselines: whole solutions for the problems of InT's rows,
    as many rows."""
    filter: bool = True
    """Keep only interventions with a correct continuation; of a baseline, correct solutions."""
    rows_per_problem: Literal["one", "all"] = "one"
    """``one``: a seeded choice among the verified interventions of a problem; or ``all`` of
    them."""
    prefix: Literal["trained", "masked", "dropped"] = "trained"
    """``trained``: the loss is on prefix and intervention; ``masked``: in the context without loss
    (Table 2's "no prefix"); ``dropped``: not there."""
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
    teacher_template_arguments: _TemplateArguments | None = None
    """``distillation``: as `model.template_arguments`, of the teacher; default: none, unless the
    base teaches."""
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
    """``sft`` on the rows; ``dpo``: Step-DPO on (intervention, original step) after the same
    prefix: a baseline."""
    dpo_beta: float = Field(0.1, gt=0)
    """``dpo``: how strongly it is held to the base."""
    num_epochs: float = Field(4.0, gt=0)
    """Passes over the rows."""
    batch_size: int = Field(64, ge=1)
    """Rows per optimiser step."""
    micro_batch_size: int = tunable(4, ge=1)
    """Rows per forward pass."""
    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate; it falls as a cosine."""
    min_lr_rate: float = Field(0.1, ge=0, le=1)
    """Where the cosine ends, as a share of the peak."""
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's."""
    gradient_checkpointing: bool = tunable(False)
    """Compute activations twice instead of keeping them: slower, smaller."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimiser steps."""
    save_every: int | None = tunable(None, ge=1)
    """Optimiser steps between checkpoints that a killed training goes on from; default: none, it
    starts over."""
    lora_rank: int = Field(0, ge=0)
    """Train adapters of this rank instead of all weights; they are merged at the end. 0: off.
    Adapters take about ten times the learning rate of all weights."""
    accelerate: str = tunable("")
    """A config of ``accelerate launch`` for several processes: a file, or a packaged one such as
    ``accelerate/ddp`` or ``accelerate/fsdp2``."""


class OnlineConfig(Section):
    """Interventions that RL makes for itself (online InT): beyond the paper.

    Where all rollouts of a group are wrong, the policy as it is proposes, as `propose` says, and
    verifies.
    """

    share: float = Field(0.0, ge=0, le=1)
    """Share of an iteration's groups, rounded up, that begin from interventions of the iteration
    before, where so many were verified: they take the last groups' places. 0: off."""
    max_cases: int = Field(8, ge=1)
    """Groups of an iteration, at most, of which a rollout is asked about."""
    num_proposals: int = Field(1, ge=1)
    """Questions per rollout; the first accepted one is verified."""
    num_continuations: int = Field(8, ge=1)
    """Continuations that verify it: one has to be correct."""


def logprobs_mode(sampling: SamplingConfig) -> str:
    """Return the mode in which vLLM's log-probabilities are those of `Completion.logprobs`.

    Raises ValueError if there is none: raw ones are at temperature 1, processed ones of what is
    left after every cut.
    """
    if sampling.repetition_penalty != 1 or (sampling.is_cut and sampling.temperature != 1):
        raise ValueError(
            "sampler 'servers': vLLM tells no log-probabilities that suit a trainer where there is "
            "a repetition_penalty, or top_p, top_k or min_p at a temperature other than 1: switch "
            "these off in train_rl.sampling"
        )
    return "raw_logprobs" if sampling.temperature == 1 else "processed_logprobs"


class TrainRlConfig(Section):
    """Outcome-reward GRPO (§4.2, Table 5)."""

    num_iterations: int = Field(400, ge=1)
    """Iterations of sampling; each is `num_updates` optimiser steps."""
    prompts_per_iteration: int = Field(32, ge=1)
    """Problems of one iteration, a group of rollouts each."""
    num_generations: int = Field(8, ge=2)
    """Rollouts per prompt: one group."""
    num_updates: int = Field(2, ge=1)
    """Optimiser steps per iteration: the paper's mini-batch of 16 prompts out of 32."""
    micro_batch_size: int = tunable(8, ge=1)
    """Rollouts per forward pass."""
    learning_rate: float = Field(1e-6, gt=0)
    """Constant."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """How far a token's probability ratio may fall below 1."""
    clip_high: float = Field(0.2, gt=0)
    """How far it may rise above 1."""
    loss: Loss = "sequence_mean"
    """What a token's loss is divided by: its sequence's length and the number of sequences
    (``sequence_mean``), the tokens of the batch (``token_mean``), `sampling.max_tokens` and the
    number of sequences (``constant_length``), or the number of sequences alone (``token_sum``:
    as PipelineRL, which the paper used)."""
    advantage: Advantage = "mean"
    """A reward minus its group's mean; ``mean_std``: by the group's standard deviation (GRPO);
    ``reward_by_mean``: by the mean (MaxRL)."""
    importance: Literal["token_truncate", "off"] = "token_truncate"
    """Correction where sampler and trainer round differently: each token weighs its probability
    under the trainer by that under the sampler, at most `max_importance_weight`."""
    max_importance_weight: float = Field(2.0, ge=1)
    """Of ``token_truncate``."""
    max_logprob_gap: float = tunable(0.1, gt=0)
    """Alarm: above this mean difference per token between sampler and trainer, in nats, stop. It
    also stops at ten times the usual difference."""
    problems: Literal["all", "hard", "verified"] = "all"
    """``all`` training problems, the ``hard`` ones, or ``verified``: hard problems with a kept
    intervention, the paper's D_train."""
    contexts: Shares = {Condition.PROBLEM: 1.0}
    """What groups begin from, by share: ``{hint = 1}`` is hint-guided RL, ``{problem = 0.5,
    prefix_intervention = 0.5}`` mixes guided and unguided groups. Prefixes and interventions are
    the verified ones; a problem without one begins from its text."""
    contexts_end: Shares = {}
    """Where the shares of `contexts` go, linearly, e.g. ``{problem = 1}``; default: they stay."""
    anneal_share: float = Field(1.0, gt=0, le=1)
    """Share of the iterations in which they go there, and in which `hint_shares` come in turn."""
    hint_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """How much of the reference's steps a hint shows, one length after the other, each for as many
    iterations: ``[0.5, 0.25]`` is QuestA's. Default: one length for all, `hints.length`."""
    order: Literal["shuffled", "easy_first", "hard_first"] = "shuffled"
    """``shuffled``: one pass over the problems after another; ``easy_first``, ``hard_first``: a
    quarter of the problems after another, by their pass rate in `sample`."""
    zero_gradient: ZeroGradient = "keep"
    """Groups whose rollouts are all worth the same: ``keep`` them (the paper), ``drop`` them from
    what the loss is divided by, or ``refill`` the batch with groups of further problems."""
    max_refill: float = Field(2.0, gt=0)
    """``refill``: further groups of an iteration, at most, per `prompts_per_iteration`."""
    sampling: SamplingConfig = SamplingConfig()
    """Of rollouts in RL."""
    save_every: int = tunable(100, ge=1)
    """Iterations between checkpoints; with `keep_checkpoints` it may not change at a resume."""
    keep_checkpoints: bool = False
    """Keep the model of each checkpoint, to be evaluated along RL (Fig. 12)."""
    gradient_checkpointing: bool = tunable(False)
    """As `train_sft.gradient_checkpointing`."""
    lora_rank: int = Field(0, ge=0)
    """As `train_sft.lora_rank`."""
    accelerate: str = tunable("")
    """As `train_sft.accelerate`."""
    sampler: Literal["engine", "servers", "generate", "vllm"] = "engine"
    """Who draws rollouts: ``engine``: ours, in the training process, on the weights as they are;
    ``servers``: vLLM servers of ours (`servers`), which get the weights before each iteration;
    ``generate``: TRL with transformers; ``vllm``: TRL with vLLM on the training GPUs, which needs
    ``vllm`` installed here. Only the first two give each rollout a seed of its own."""
    servers: VllmConfig = VllmConfig()
    """Of ``sampler = "servers"``: as an engine of kind ``vllm``. Name `devices` that the training
    leaves free, or give the servers a share of its memory in `server_arguments`."""
    online: OnlineConfig = OnlineConfig()
    vllm_gpu_share: float = tunable(0.3, gt=0, lt=1)
    """Share of each GPU's memory for vLLM."""

    @model_validator(mode="after")
    def _moves_to_an_end(self) -> TrainRlConfig:
        if not self.contexts:
            raise ValueError("contexts is empty: leave it out, or name a condition")
        if self.anneal_share < 1 and not (self.contexts_end or self.hint_shares):
            raise ValueError("anneal_share says when contexts_end is reached: set contexts_end")
        if self.hint_shares and Condition.HINT not in self.conditions:
            raise ValueError("hint_shares are of hints: give hint a share in contexts")
        return self

    def shares(self, iteration: int) -> dict[Condition, float]:
        """Return the share of each condition among the groups of an iteration (0-based)."""
        end = self.contexts_end or self.contexts
        # The last iteration of the annealing is all at the end.
        last = max(self.anneal_share * self.num_iterations - 1, 1e-9)
        moved = min(iteration / last, 1.0)
        return {
            condition: (1 - moved) * self.contexts.get(condition, 0) + moved * end.get(condition, 0)
            for condition in self.conditions
        }

    def hint_number(self, iteration: int) -> int | None:
        """Return which of `hint_shares` an iteration (0-based) shows; none where there are none."""
        if not self.hint_shares:
            return None
        passed = iteration / (self.anneal_share * self.num_iterations)
        return min(int(passed * len(self.hint_shares)), len(self.hint_shares) - 1)

    def mean_shares(self) -> dict[Condition, float]:
        """Return the share of each condition among all groups."""
        every = [self.shares(iteration) for iteration in range(self.num_iterations)]
        return {c: sum(shares[c] for shares in every) / len(every) for c in self.conditions}

    @property
    def most_further(self) -> int:
        """Groups that an iteration may sample further."""
        return int(self.max_refill * self.prompts_per_iteration)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What any group is to begin from, in the order of Table 1."""
        used = {c for shares in (self.contexts, self.contexts_end) for c in shares if shares[c]}
        return tuple(condition for condition in TABLE_1 if condition in used)

    def identity(self, *, with_defaults: bool = False) -> dict[str, object]:
        """Return what decides results; of kept checkpoints also which iterations they are of."""
        found = super().identity(with_defaults=with_defaults)
        if self.sampler != "servers":
            del found["servers"]
        return found | ({"save_every": self.save_every} if self.keep_checkpoints else {})

    @model_validator(mode="after")
    def _sampler_suits(self) -> TrainRlConfig:
        if self.sampling.temperature == 0:
            raise ValueError(
                "sampling.temperature = 0 draws the same rollout again and again, and a trainer "
                "divides by it: set it above 0"
            )
        if self.sampler == "servers":
            logprobs_mode(self.sampling)
        if self.sampler == "vllm" and self.sampling.is_cut:
            raise ValueError(
                "sampler 'vllm': the log-probabilities that TRL asks vLLM for are of what top_p, "
                "top_k, min_p and repetition_penalty leave, which a trainer does not compute: "
                "switch these off in train_rl.sampling"
            )
        if self.online.share and self.sampler not in ("engine", "servers"):
            raise ValueError(
                f"online asks the policy, which sampler {self.sampler!r} cannot: set sampler = "
                "'servers' (as scale/paper/online does) or 'engine'"
            )
        return self

    @property
    def most_online(self) -> int:
        """Groups of an iteration, at most, that begin from interventions of its own."""
        return math.ceil(self.online.share * self.prompts_per_iteration)

    @property
    def takes_all_devices(self) -> bool:
        """Whether a training leaves no room for another: the two arms then run in turn."""
        return bool(self.accelerate) or self.sampler in ("vllm", "servers")


#: The sets whose problems are there without a path: ``train`` are the hard training problems.
TRAIN_SET, HELD_OUT_SET, PROBE_SETS = "train", "held_out", ("known", "control")
_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class EvalSetConfig(Section):
    """One set to evaluate on, by name: a benchmark, or what is special about a set of the run."""

    path: str = ""
    """Where the problems of a new set are, as `problems.path`. ``held_out``, ``train`` (the hard
    training problems, Table 2 and Fig. 6) and the lab's ``known`` and ``control`` have none."""
    columns: dict[str, str] = {}
    """As `problems.columns`, of this file."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many problems of the path."""
    subset: int | None = Field(None, ge=1)
    """Only so many problems (Fig. 6: 32), chosen as in `select.subset`, whatever their order."""
    ks: tuple[int, ...] = ()
    """The k of pass@k; default: those of `evaluate.ks` that there are rollouts for."""
    num_rollouts: int | None = Field(None, ge=1)
    """Rollouts of each problem and model; default: `evaluate.num_rollouts`, of a probe set
    `evaluate.num_probe_rollouts`."""


class EvaluateConfig(Section):
    """pass@k on problems that were not trained on (§5.4-5.5)."""

    models: tuple[ModelRole, ...] = ("base", "patched", "base + RL", "patched + RL")
    """Which models to compare; what none of them needs is not trained by ``run``. ``patched`` is
    whatever `build_sft.source` and `train_sft.method` make."""
    num_rollouts: int = Field(128, ge=1)
    """Rollouts of each problem and model."""
    num_probe_rollouts: int = Field(8, ge=1)
    """Per problem of a probe set: known and control notions of the lab."""
    ks: tuple[int, ...] = (1, 8)
    """The k of pass@k, at most `num_rollouts`."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.8, top_k=20)
    """Of rollouts in evaluation."""
    sets: dict[str, EvalSetConfig] = {}
    """Sets by name, each a section ``[evaluate.sets.NAME]``: a benchmark with its path, or what is
    special about a set that the run has already."""
    on: tuple[str, ...] = ()
    """The names of the sets to evaluate on; default: all there are."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """The models to compare, in order."""
        return tuple(Role.parse(model) for model in self.models)

    @property
    def benchmarks(self) -> dict[str, EvalSetConfig]:
        """The sets that have problems of their own and are evaluated on, in order."""
        return {name: of for name, of in self.sets.items() if of.path and self.includes(name)}

    def includes(self, eval_set: str) -> bool:
        """Whether a set is evaluated on."""
        return not self.on or eval_set in self.on

    def subset_of(self, eval_set: str) -> int | None:
        """Return to how many problems a set is cut down; None for all."""
        return self.sets.get(eval_set, EvalSetConfig()).subset

    def num_rollouts_of(self, eval_set: str) -> int:
        """Return the rollouts of each problem of a set."""
        usual = self.num_probe_rollouts if eval_set in PROBE_SETS else self.num_rollouts
        return self.sets.get(eval_set, EvalSetConfig()).num_rollouts or usual

    def ks_of(self, eval_set: str) -> tuple[int, ...]:
        """Return the k of pass@k on a set."""
        most = self.num_rollouts_of(eval_set)
        own = self.sets.get(eval_set, EvalSetConfig()).ks
        return own or tuple(k for k in self.ks if k <= most)

    @model_validator(mode="after")
    def _enough_samples(self) -> EvaluateConfig:
        if max(self.ks) > self.num_rollouts:
            raise ValueError(f"ks has {max(self.ks)}, more than num_rollouts={self.num_rollouts}")
        for name in self.sets:
            if not _SET_NAME.fullmatch(name):
                raise ValueError(f"sets: {name!r} is not a name: use letters, digits, - and _")
            ks, most = self.ks_of(name), self.num_rollouts_of(name)
            is_drawn = name == TRAIN_SET or self.includes(name)
            if is_drawn and max(ks, default=most + 1) > most:
                raise ValueError(
                    f"sets.{name}: pass@{max(ks or self.ks)} needs as many rollouts: raise its "
                    f"num_rollouts={most}, or give it ks of its own"
                )
        return self


class LikelihoodConfig(Section):
    """NLL, entropy and intervention-token probability (Figs 7-9)."""

    max_items: int = Field(64, ge=1)
    """Sequences scored per kind and model."""
    num_own_rollouts: int = Field(2, ge=1)
    """Rollouts of each held-out problem drawn for entropy, at temperature 1 with top_p 1 and top_k
    off, where `evaluate.sampling` is not that already."""


class LocalizeConfig(Section):
    """The first-error benchmark, ``midcourse localize``."""

    reference: Literal["both", "given", "none"] = "both"
    """Whether the reference solution is shown: ``given``, ``none``, or ``both``, asked twice."""
    limit_per_source: int | None = Field(None, ge=1)
    """Only the first so many solutions of each source."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.0, max_tokens=4096)
    """Of answers."""


class WorkedConfig(Section):
    """Warm-up, first half: worked solutions in our answer form."""

    part: Part = (0.0, 0.2)
    """As `problems.part`, of the same file."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many problems."""
    train: TrainSftConfig = TrainSftConfig()
    """As `train_sft`."""


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
    """As `train_sft`."""


class WarmupConfig(Section):
    """What ``midcourse warmup`` teaches a small model before the method begins."""

    worked: WorkedConfig = WorkedConfig()
    verification: VerificationConfig = VerificationConfig()
    max_tokens: int = Field(1024, ge=1)
    """A longer row is refused, never cut."""
    num_checks: int = Field(100, ge=1)
    """Attempts at problems of `problems.part` on which the verifier is measured."""
    check_sampling: SamplingConfig = SamplingConfig(temperature=0.0, max_tokens=512)
    """Of the verifier's answers."""

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

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200, json_schema_extra={"tunable": True}
    )
    """The run directory is ``runs/<name>`` unless ``--run-dir`` says otherwise."""
    seed: int = Field(0, ge=0)
    """Every sample's seed, shuffle and choice derives from it."""
    max_failed_share: float = tunable(0.01, ge=0, le=1)
    """Requests of a stage that a server may fail for good, rounded up: they become outcomes
    (``request_failed``), never a model's mistakes. With more the stage stops."""
    prompts: str = tunable("default")
    """A packaged prompt set, or a folder of .md files; the texts that are used are in the keys."""
    problems: ProblemsConfig = ProblemsConfig()
    model: ModelConfig
    """The base model."""
    engine: EngineSection = TransformersConfig()
    """How the policy is sampled."""
    proposer_model: ModelConfig | None = None
    """Another model as the proposer; default: the base model itself."""
    proposer_engine: EngineSection | None = None
    """How the proposer is asked; default: as the base."""
    teacher_engine: EngineSection | None = None
    """How `build_sft.teacher` is asked; default: as the base."""
    reference_engine: EngineSection | None = None
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
        if Condition.HINT in recipe.train_rl.conditions:
            yield "train_rl.contexts: a hint has no intervention: set hints.length = 'third'"
    if recipe.train_rl.order != "shuffled":
        if recipe.sample.rounds:
            yield "train_rl.order needs pass rates, and a search has none: leave out sample.rounds"
        if recipe.train_rl.problems != "all":
            yield "train_rl.order: hard problems have one pass rate: set train_rl.problems = 'all'"
    is_plain = rows.source == "intervention" and rows.prefix == "trained" and not rows.suffix
    if recipe.train_sft.method == "dpo" and not is_plain:
        yield (
            "train_sft.method 'dpo' compares an intervention with the original step: leave "
            "build_sft.source, prefix and suffix at their defaults"
        )
    if rows.source == "distillation" and not rows.teacher and recipe.teacher_engine is None:
        yield "build_sft.source 'distillation' needs build_sft.teacher or teacher_engine"
    yield from _engine_contradictions(recipe)
    yield from _set_contradictions(recipe)
    yield from _truth_contradictions(recipe)


def _truth_contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield where nobody knows the first error without asking a model."""
    if recipe.propose.truth and recipe.train_rl.online.share:
        yield "train_rl.online asks the policy: it cannot take propose.truth"
    if recipe.propose.truth and recipe.problems.kind != "lab":
        yield "propose.truth: only the lab (problems.kind = 'lab') knows the first error"


def _set_contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield what is said of sets to evaluate on that are not there."""
    is_lab, config = recipe.problems.kind == "lab", recipe.evaluate
    there = [HELD_OUT_SET] if recipe.problems.has_held_out else []
    there += PROBE_SETS if is_lab else ()
    for name, of in config.sets.items():
        if of.path and name in (TRAIN_SET, HELD_OUT_SET, *PROBE_SETS):
            source = "problems.held_out_path" if name == HELD_OUT_SET else "the run itself"
            yield f"evaluate.sets.{name}: takes no path: its problems come from {source}"
        if not of.path and name not in (TRAIN_SET, *there):
            known = _listed(TRAIN_SET, *there)
            yield f"evaluate.sets.{name}: give it a path; only {known} need none"
        if not of.path and (of.columns or of.limit):
            yield f"evaluate.sets.{name}: columns and limit are about a path: use subset"
    there += (name for name, of in config.sets.items() if of.path)
    for name in config.on:
        if name not in there:
            yield f"evaluate.on: there is no set {name!r}: known are {_listed(*there)}"


def _listed(*names: str) -> str:
    return ", ".join(names) or "none"


def _engine_contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield what a server that somebody else runs cannot do for this recipe."""
    engine = recipe.engine
    if isinstance(engine, OpenAIConfig) and engine.chat:
        yield (
            "engine.chat: a chat-only server may propose, never sample the policy; "
            "put it under [proposer_engine]"
        )
    if not engine.loads_models and any(role != Role() for role in recipe.evaluate.roles):
        yield (
            f"engine.kind {engine.kind!r} serves the base alone: set evaluate.models = ['base'], "
            "or use engine.kind = 'vllm' or 'transformers', which load what was trained"
        )


#: Ten times the rate that the paper, and our default, has for all weights.
LOWEST_ADAPTER_RATE = 1e-5


def slow_adapters(recipe: Recipe) -> Iterator[str]:
    """Yield a line about each training whose adapters would stay about where they begin."""
    for section, config in (("train_sft", recipe.train_sft), ("train_rl", recipe.train_rl)):
        if config.lora_rank and config.learning_rate < LOWEST_ADAPTER_RATE:
            yield (
                f"{section}.learning_rate = {config.learning_rate:g} hardly moves the adapters of "
                f"{section}.lora_rank = {config.lora_rank}: they begin at zero and take about ten "
                f"times the rate of all weights, {LOWEST_ADAPTER_RATE:g} or more"
            )


def load_recipe(
    recipe: str | Path, overrides: Sequence[str] = (), overlays: Sequence[str | Path] = ()
) -> Recipe:
    """Read a recipe, layer `overlays` on it in order, then ``key.sub=value`` overrides.

    Each is a file or the name of a packaged recipe; what it ``extends`` comes first, unless it is
    there already. Tables merge key by key; any other value replaces what was there. Raises
    ConfigError, one line.
    """
    data: dict[str, Any] = {}
    seen: set[Path] = set()
    for layer in (recipe, *overlays):
        for part in _layers(find_recipe(str(layer)), seen):
            _lay_over(data, part)
    return make_recipe(data, overrides, " with ".join(map(str, (recipe, *overlays))))


def make_recipe(data: dict[str, Any], overrides: Sequence[str], where: str) -> Recipe:
    """Check a recipe given as nested tables; `where` is what an error blames."""
    layer: dict[str, Any] = {}
    for override in overrides:
        _add_override(layer, override)
    _lay_over(data, layer)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Recipe)}") from error


def _layers(path: Path, seen: set[Path]) -> Iterator[dict[str, Any]]:
    """Yield a recipe's own keys after those of what it extends."""
    seen.add(path)
    data = _read_toml(path)
    below = data.pop("extends", None)
    if below is not None and (extended := find_recipe(str(below))) not in seen:
        yield from _layers(extended, seen)
    yield data


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _lay_over(data: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Merge `layer` into `data`: tables key by key, everything else replaces.

    Where a layer names another ``kind`` of engine, keys below it that this kind lacks are dropped.
    """
    for key, value in layer.items():
        below = data.get(key)
        if not isinstance(value, dict) or not isinstance(below, dict):
            data[key] = value
            continue
        kind = _ENGINES.get(str(value.get("kind")))
        if kind is not None and _engine_kind(below) != value["kind"]:
            data[key] = below = {k: v for k, v in below.items() if k in kind.model_fields}
        _lay_over(below, value)


_ENGINES: dict[str, type[Section]] = {
    kind.model_fields["kind"].default: kind for kind in get_args(EngineConfig)
}


def _add_override(layer: dict[str, Any], override: str) -> None:
    """Set one dotted key; the value is read as JSON if it is JSON, else as text."""
    name, separator, text = override.partition("=")
    shown = without_credentials(override)
    if not separator:
        raise ConfigError(f"--set {shown!r}: write key=value, e.g. sample.num_rollouts=8")
    *sections, key = name.strip().split(".")
    for section in sections:
        layer = layer.setdefault(section, {})
        if not isinstance(layer, dict):
            raise ConfigError(f"--set {shown!r}: {section} is a value, not a section")
    try:
        layer[key] = json.loads(text)
    except json.JSONDecodeError:
        layer[key] = text


def explain(error: ValidationError, model: type[Section]) -> str:
    """Say the first complaint of pydantic in one line, with the nearest known key."""
    first = error.errors()[0]
    path, _ = _located(model, first["loc"])
    where = ".".join(path)
    if first["type"] == "missing":
        hint = " a folder, a hub name, or 'lab'" if where.startswith("model") else ""
        return f"{where}: is missing: give it a value{':' if hint else ''}{hint}"
    if first["type"] == "union_tag_invalid":
        kinds = ", ".join(_ENGINES)
        return f"{where}.kind: there is no such engine ({first['ctx']['tag']!r}): choose {kinds}"
    if first["type"] == "value_error":  # a sentence of ours
        said = first["msg"].removeprefix("Value error, ")
        return f"{where}: {said}" if where else said
    if first["type"] != "extra_forbidden":
        given = without_credentials(repr(first["input"]))
        return f"{where}: {first['msg']} (given: {given})"
    *sections, key = path
    _, section = _located(model, first["loc"][:-1])
    known = list(section.model_fields)
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {'.'.join([*sections, near[0]])!r}?" if near else ""
    return f"unknown key {where!r}; {hint or 'known keys: ' + ', '.join(known)}"


def _located(
    model: type[Section], location: Sequence[int | str]
) -> tuple[list[str], type[Section]]:
    """Return the dotted path of an error, without the kinds of engines, and the section there."""
    path: list[str] = []
    sections, is_name = [model], False
    for part in map(str, location):
        if is_name:  # a name that the recipe gives, not a key
            path.append(part)
            is_name = False
            continue
        if len(sections) > 1 and part in _ENGINES:  # an engine's kind, not a key
            sections = [_ENGINES[part]]
            continue
        path.append(part)
        field = sections[0].model_fields.get(part) if sections else None
        sections = _sections_in(field.annotation) if field else []
        is_name = field is not None and _is_named(field.annotation)
    return path, sections[0] if sections else model


def _is_named(annotation: Any) -> bool:
    """Whether a key holds sections by names that the recipe gives."""
    return get_origin(annotation) is dict and bool(_sections_in(annotation))


def _sections_in(annotation: Any) -> list[type[Section]]:
    """Return the sections that a key's type may hold: one, or an engine's union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One line of the table of keys."""

    name: str
    default: str
    allowed: str
    """Of an enumeration its values; else empty."""
    tunable: bool
    meaning: str


def describe_keys(
    section: type[Section] | None = None, prefix: str = "", given: Section | None = None
) -> list[Key]:
    """Return a line for every key of a recipe; `given` holds a section's own defaults."""
    keys: list[Key] = []
    for name, field in (section or Recipe).model_fields.items():
        if name == "kind" and len(get_args(field.annotation)) == 1:
            continue  # nothing to choose
        default = getattr(given, name) if given is not None else field.default
        sections = _sections_in(field.annotation)
        if _is_named(field.annotation):
            keys += describe_keys(sections[0], f"{prefix}{name}.NAME.")
        elif len(sections) > 1 and default is not None:
            keys += _describe_engines(sections, f"{prefix}{name}.")
        elif sections and (isinstance(default, Section) or field.is_required()):
            nested = default if isinstance(default, Section) else None
            keys += describe_keys(sections[0], f"{prefix}{name}.", nested)
        else:
            keys.append(_describe(f"{prefix}{name}", field, default))
    return keys


def key_table() -> list[str]:
    """Return the lines of a Markdown table of every key."""
    head = "| key | default | allowed values | may change at a resume | meaning |"
    rows = [
        f"| `{key.name}` | `{key.default}` | {key.allowed} | {'yes' if key.tunable else ''} "
        f"| {key.meaning} |"
        for key in describe_keys()
    ]
    return [head, "|---|---|---|---|---|", *rows]


def _describe(name: str, field: FieldInfo, default: object, of: str = "") -> Key:
    meaning = " ".join((field.description or "").split())
    return Key(
        name=name,
        default="required" if field.is_required() else json.dumps(default, default=_plain),
        allowed=", ".join(f"`{value}`" for value in _allowed(field.annotation)),
        tunable=is_tunable(field),
        meaning=f"{of}{meaning}",
    )


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, Section) else str(value)


def _allowed(annotation: Any) -> list[str]:
    """Return the values of an enumeration, or of a list of them."""
    values = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Condition):
        return [str(condition) for condition in TABLE_1]
    if values and all(isinstance(value, str) for value in values):
        return list(values)
    return [found for value in values for found in _allowed(value)]


def _describe_engines(sections: Sequence[type[Section]], prefix: str) -> list[Key]:
    """Return the keys of an engine's union, each with the kinds that have it."""
    kinds = ", ".join(f"`{kind.model_fields['kind'].default}`" for kind in sections)
    keys = [
        Key(
            name=f"{prefix}kind",
            default='"transformers"',
            allowed=kinds,
            tunable=False,
            meaning="Which engine makes completions.",
        )
    ]
    for kind in sections:
        name_of_kind = kind.model_fields["kind"].default
        for name, field in kind.model_fields.items():
            if name != "kind":
                key = _describe(f"{prefix}{name}", field, field.default, f"``{name_of_kind}``: ")
                keys.append(key)
    return keys
