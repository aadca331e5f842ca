"""The base model, and the engines that sample it: one section per kind."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Discriminator, Field, PlainSerializer, Tag

from midcourse.config.base import (
    CheckedTemplateArguments,
    Dtype,
    Section,
    tunable,
    without_credentials,
)

#: What a chat template is told for today's date.
TEMPLATE_DATE = date(2024, 7, 26)


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


_Url = Annotated[str, PlainSerializer(without_credentials)]


class ModelConfig(Section):
    """The base model: policy and proposer unless another engine proposes."""

    path: str
    """A folder, a hub name, or a bundled model: ``lab``, or ``lab2`` for the world of rules."""
    revision: str | None = None
    """Commit, branch or tag of a hub model; it is resolved to a commit before work starts."""
    dtype: Dtype = "auto"
    """Of sampling and scoring. ``auto``: bfloat16 on a GPU, float32 on a CPU."""
    chat_template: str = tunable("")
    """A file with a chat template of your own, Jinja as the Hub has it: for a base model, which has
    none. Its text is part of every key, and is saved with models trained from this one."""
    template_date: date = TEMPLATE_DATE
    """What a chat template that writes today's date is told, so that prompts stay the same."""
    template_arguments: CheckedTemplateArguments = {}
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


def engine_kind(value: Any) -> str | None:
    """Return the kind of an engine section; one that names none is transformers'.

    None of what is not a section.
    """
    if isinstance(value, dict):
        return str(value.get("kind", "transformers"))
    return getattr(value, "kind", None)


InnerEngineConfig = Annotated[
    Annotated[TransformersConfig, Tag("transformers")]
    | Annotated[VllmConfig, Tag("vllm")]
    | Annotated[ScriptedConfig, Tag("scripted")],
    Discriminator(engine_kind),
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
    Discriminator(engine_kind),
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
    servers = {"template_arguments": {}, "chat_template": ""}
    return base.model_copy(update=servers) if speaks_messages(engine) else base


ENGINES: dict[str, type[Section]] = {
    kind.model_fields["kind"].default: kind for kind in get_args(EngineConfig)
}
