"""What training takes of a device's memory, part by part, as our trainers and TRL do it.

Weights that are trained are float32, and Adam keeps two float32 moments of each. In bfloat16, as
on a GPU, autocast computes. A base that only carries adapters is loaded in bfloat16 then, except
where vLLM samples on the training GPUs (`midcourse.training.common.base_dtype`). Logits are never
whole: TRL scores in tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from math import inf

from midcourse import config as c
from midcourse.plan.devices import TrainingProcesses
from midcourse.plan.memory import SERVER_BYTES, Longest, Memory, Parts, Placed, cache_bytes
from midcourse.plan.shapes import ModelShape

TrainConfig = c.TrainSftConfig | c.TrainRlConfig

#: A tile of logits in TRL's `ChunkedLogProbFunction`: tokens, and entries of the vocabulary.
_TILE_TOKENS, _TILE_VOCABULARY = 4096, 32_768
#: How many float32 tiles its backward pass holds at once without Triton.
_TILES_IN_TORCH = 8.25
#: Of a token of an iteration until its last update: ids, masks, log-probabilities.
_BATCH_BYTES = 40


class Sampler(StrEnum):
    """What samples the rollouts of RL."""

    ENGINE = "engine"
    """Our engine in the training process, on the weights in training."""
    GENERATE = "generate"
    """transformers' `generate`, on the same."""
    VLLM = "vllm"
    """vLLM with a copy of the weights on each training device."""
    SERVERS = "servers"
    """vLLM servers on other devices."""


def sampler_of(config: c.TrainRlConfig) -> Sampler:
    """Return what samples."""
    return Sampler(config.sampler)


class Precision(Enum):
    """Bytes of a number: of the residual stream, and of what is computed in between."""

    FLOAT32 = (4, 4)
    MIXED = (4, 2)
    """float32 weights under autocast."""
    BFLOAT16 = (2, 2)

    @property
    def residual(self) -> int:
        """Of the residual stream."""
        return self.value[0]

    @property
    def computed(self) -> int:
        """Of what linear maps and attention make."""
        return self.value[1]


#: Bytes that a layer keeps of a token for its backward pass, per unit of hidden size, of the
#: heads' joint width, of the key-value heads' and of the feed-forward width; by whether the layer's
#: own weights are frozen. Counted from autograd, for a Qwen3 layer; tests count again.
KEPT = {
    (Precision.FLOAT32, False): (24.0, 16.5, 16.25, 16.0),
    (Precision.FLOAT32, True): (16.0, 12.5, 12.25, 16.0),
    (Precision.MIXED, False): (26.0, 10.5, 10.25, 8.0),
    (Precision.MIXED, True): (18.0, 10.5, 8.25, 8.0),
    (Precision.BFLOAT16, False): (16.0, 10.5, 10.25, 8.0),
    (Precision.BFLOAT16, True): (18.0, 10.5, 8.25, 8.0),
}


def layer_bytes(shape: ModelShape, precision: Precision, lora_rank: int) -> float:
    """Return what one layer keeps of one token, without an attention mask."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    widths = (shape.hidden, queries, keys, shape.intermediate)
    kept = zip(KEPT[precision, bool(lora_rank)], widths, strict=True)
    return sum(each * width for each, width in kept) + 7 * lora_rank * precision.computed


def mask_bytes(shape: ModelShape, precision: Precision, row: float) -> float:
    """Return what a layer keeps of one row more where rows are padded.

    Attention makes its own copy of the mask, and repeats keys and values for every head.
    """
    repeated = 2 * (shape.heads - shape.kv_heads) * shape.head_dim
    return row * (row + repeated) * precision.computed


@dataclass(frozen=True, slots=True)
class Trained:
    """A model in training, on each device."""

    placed: Placed
    config: TrainConfig
    row: float
    """Tokens of the longest row; the longest one decides."""

    @property
    def processes(self) -> TrainingProcesses:
        """Who trains."""
        return TrainingProcesses.of(self.config.accelerate)

    @property
    def precision(self) -> Precision:
        """How it is computed."""
        config = self.config
        if not c.is_bfloat16(config.dtype, on_gpu=self.placed.device.is_gpu):
            return Precision.FLOAT32
        is_half = config.keeps_base or self.processes.sharded
        return Precision.BFLOAT16 if is_half else Precision.MIXED

    @property
    def rows(self) -> int:
        """Rows of a forward pass; DPO's pairs are two."""
        is_dpo = isinstance(self.config, c.TrainSftConfig) and self.config.method == "dpo"
        return self.config.micro_batch_size * (2 if is_dpo else 1)

    def held(self) -> Parts:
        """Return what is there all the time: weights, adapters, moments."""
        shape, rank, processes = self.placed.shape, self.config.lora_rank, self.processes
        spread = processes.number if processes.sharded else 1
        size = 2 if self.precision is Precision.BFLOAT16 and not processes.sharded else 4
        weights = float(size * shape.parameters) / spread
        if self.rows != self.config.micro_batch_size and not rank:  # the base, DPO's reference
            weights *= 2
        distill = self._distilled()
        if (
            distill and distill.teacher != "live"
        ):  # of what is trained, so that it can change places
            weights += 4.0 * shape.trained(rank) / spread
        return Parts(
            weights=weights + 2.0 * self._copied(),
            adapters=4.0 * shape.adapters(rank) / spread,
            optimiser=8.0 * shape.trained(rank) / spread,
        )

    def _distilled(self) -> c.DistillConfig | None:
        """Return how the model teaches itself, where it does."""
        config = self.config
        is_on = isinstance(config, c.TrainRlConfig) and config.distill_weight
        return config.distill if is_on else None

    def _copied(self) -> float:
        """Return how many weights exist in bfloat16 besides.

        FSDP gathers two layers and the embeddings; autocast makes copies that autograd keeps.
        """
        shape, config = self.placed.shape, self.config
        layer = shape.layer_parameters / shape.layers
        if self.processes.sharded and self.precision is Precision.BFLOAT16:
            return 2 * layer + shape.embeddings * shape.vocabulary * shape.hidden
        if self.precision is not Precision.MIXED:
            return 0.0
        return layer if config.lora_rank and config.gradient_checkpointing else shape.parameters

    def updating(self) -> Parts:
        """Return what an update takes."""
        shape, config, processes = self.placed.shape, self.config, self.processes
        trained = shape.trained(config.lora_rank)
        # Spread under FSDP; DDP keeps another copy in the buckets that it sends.
        copies = 1 / processes.number if processes.sharded else 2 if processes.number > 1 else 1
        gradients = 4.0 * trained * copies
        if processes.sharded and not config.lora_rank:
            gradients += 2.0 * self._copied()
        activations, head = self._activations(), self._head()
        return replace(self.held(), gradients=gradients, activations=activations, head=head)

    def _activations(self) -> float:
        """Return what is kept for the backward pass.

        With checkpointing that is one layer, and what each other one was given. The final norm and
        the gradients in flight come on top.
        """
        shape, config, precision, row = self.placed.shape, self.config, self.precision, self.row
        kept = layer_bytes(shape, precision, config.lora_rank) * row
        padded = self.rows > 1 or isinstance(config, c.TrainRlConfig)
        if padded:
            kept += mask_bytes(shape, precision, row)
        given = precision.residual * shape.hidden * shape.layers * row
        kept = kept + given if config.gradient_checkpointing else kept * shape.layers
        in_flight = 3 * shape.intermediate * precision.computed + 11 * shape.hidden * 4
        mask = row * row if padded else 0.0
        return self.rows * (kept + in_flight * row + mask) + _BATCH_BYTES * self._batch_tokens()

    def _batch_tokens(self) -> float:
        if not isinstance(self.config, c.TrainRlConfig):
            return 0.0
        return self.row * rollouts_each(self.config)

    def _head(self) -> float:
        """Return what TRL's fused head takes for tiles, for gradients, and for its weights."""
        shape, precision, tokens = self.placed.shape, self.precision, self.rows * self.row
        wide = min(shape.vocabulary, _TILE_VOCABULARY)
        if self.placed.device.is_gpu:  # the buffer has its full width for any vocabulary
            tiles = 2.0 * min(tokens, _TILE_TOKENS) * _TILE_VOCABULARY + 2.0 * wide * shape.hidden
        else:
            tiles = 4.0 * _TILES_IN_TORCH * min(tokens, _TILE_TOKENS) * wide
        gradient = 0 if self.config.lora_rank else 4 * shape.vocabulary * shape.hidden
        kept = tiles + gradient + tokens * shape.hidden * (precision.residual + 4)
        distill = self._distilled()
        if distill is None:
            return kept
        # Logits of student and teacher and a gradient, and over the vocabulary the logarithms of
        # both: counted, not measured.
        number = 5 if distill.support == "vocabulary" else 3
        return kept + 4.0 * number * tokens * shape.vocabulary


def tuning(placed: Placed, config: c.TrainSftConfig, row: float) -> Memory:
    """Return what SFT or DPO on rows of `row` tokens takes."""
    parts = Trained(placed, config, row).updating()
    return Memory(name=f"train {config.method}", one=parts)


def reinforcing(
    placed: Placed,
    config: c.TrainRlConfig,
    engine: c.EngineConfig,
    row: float,
    sampler: Sampler,
    copies: int = 1,
) -> list[Memory]:
    """Return what RL takes while it samples, and while it updates: never both at once.

    The model is sampled as it is trained; vLLM keeps what it was given all the time.
    """
    trained = Trained(placed, config, row)
    sampled, longest = _sampled(trained, config, engine, sampler)
    share = _vllm_share(config, sampler) * placed.device.memory_bytes
    phases = {"samples": (sampled, longest), "updates": (trained.updating(), None)}
    return [
        Memory(
            name=f"train rl ({sampler}) {phase}",
            one=replace(parts, vllm=share),
            longest=must_hold,
            copies=copies,
        )
        for phase, (parts, must_hold) in phases.items()
    ]


def _sampled(
    trained: Trained, config: c.TrainRlConfig, engine: c.EngineConfig, sampler: Sampler
) -> tuple[Parts, Longest | None]:
    """Return what sampling takes on a training device, and what its cache must hold."""
    placed, shape, row, held = trained.placed, trained.placed.shape, trained.row, trained.held()
    share = _vllm_share(config, sampler) * placed.device.memory_bytes
    if sampler is Sampler.SERVERS and not share:
        return held, None
    if share:  # its own copy of the weights, as it would serve them
        weights = float(shape.parameters * placed.element_bytes)
        cache = max(0.0, share - weights - SERVER_BYTES)
        # It is told the longest prompt and completion as the model's length.
        return held, Longest(row, shape.kv_bytes(placed.element_bytes), cache)
    token = shape.kv_bytes(2 if trained.precision is Precision.BFLOAT16 else 4)
    rows, allowed = rollouts_each(config), inf
    if sampler is Sampler.ENGINE:
        one = c.single_engine(engine)
        rows = min(rows, one.rows_at_once)
        allowed = cache_bytes(placed, one, held.total) if one.in_process else inf
    cache = min(rows * row * token, allowed)
    sampled = replace(held, cache=cache, activations=16.0 * rows * shape.vocabulary)
    return sampled, Longest(row, token, cache)


def _vllm_share(config: c.TrainRlConfig, sampler: Sampler) -> float:
    """Return how much of a training device vLLM has: TRL's, or a server that stands there."""
    if sampler is Sampler.VLLM:
        return config.vllm_gpu_share
    ours = map(str, range(TrainingProcesses.of(config.accelerate).number))
    shares_device = sampler is Sampler.SERVERS and not set(ours).isdisjoint(config.servers.devices)
    return config.servers.gpu_share if shares_device else 0.0


def rollouts_each(config: c.TrainRlConfig) -> int:
    """Return the rollouts of an iteration on each device."""
    rollouts = config.prompts_per_iteration * config.num_generations
    return -(-rollouts // TrainingProcesses.of(config.accelerate).number)
