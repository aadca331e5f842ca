"""What all trainers share: the machine's arguments, loading and saving, errors in one line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, gather_object
from peft import LoraConfig, PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.utils import logging as transformers_logging

from midcourse.config import (
    TEMPLATE_DATE,
    Dtype,
    ModelConfig,
    TemplateArguments,
    TrainRlConfig,
    TrainSftConfig,
    is_bfloat16,
)
from midcourse.encoding import Tokenizer
from midcourse.engines import model_folder, own_template
from midcourse.engines.weights import first_not_finite, load_weights, without_weights
from midcourse.errors import ConfigError, DataError, MidcourseError
from midcourse.rendering import Renderer
from midcourse.training.jobs import Log


@dataclass(frozen=True, slots=True)
class Setting:
    """What a training starts from, where it writes, its seed, and whom it tells."""

    model_path: str
    out: Path
    seed: int
    on_log: Log
    template_date: date = TEMPLATE_DATE
    template_arguments: TemplateArguments = field(default_factory=dict)
    chat_template: str | None = None
    """The text of one that the recipe brings along."""

    @classmethod
    def of(cls, model: ModelConfig, out: Path, seed: int, on_log: Log) -> Setting:
        """Return the setting of a job, with the folder that its model is loaded from."""
        folder = str(model_folder(model.path, model.revision))
        date, arguments = model.template_date, model.template_arguments
        return cls(folder, out, seed, on_log, date, arguments, own_template(model))

    def tokenizer(self, **settings: Any) -> PreTrainedTokenizerBase:
        """Load the model's tokenizer; a chat template of the recipe's is saved with it."""
        tokenizer = load_tokenizer(self.model_path, **settings)
        tokenizer.chat_template = self.chat_template or tokenizer.chat_template
        return tokenizer

    def renderer(self, tokenizer: Tokenizer) -> Renderer:
        """Return what writes the prompts of the model, as for every other stage."""
        return Renderer(tokenizer, self.template_date, self.template_arguments)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a training runs on."""

    has_gpu: bool
    num_processes: int

    @classmethod
    def here(cls) -> Machine:
        """Return what this process is on, with all that were launched with it."""
        return cls(torch.cuda.is_available(), processes().num_processes)


def shared_arguments(
    setting: Setting, dtype: Dtype, machine: Machine | None = None
) -> dict[str, Any]:
    """Return what every trainer is told alike."""
    has_gpu = (machine or Machine.here()).has_gpu
    return {
        "output_dir": str(setting.out),
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "max_grad_norm": 1.0,
        "use_cpu": not has_gpu,
        "bf16": is_bfloat16(dtype, on_gpu=has_gpu),
        "fp16": False,
        "logging_nan_inf_filter": False,  # it would hide a NaN loss behind the mean of the others
        "trust_remote_code": False,
        "report_to": [],
        "disable_tqdm": True,
        "push_to_hub": False,
        "seed": setting.seed,
        "data_seed": setting.seed,
        "dataloader_num_workers": 0,
        # What `_shard_on_cpus` set up would be reset.
        "accelerator_config": {"use_configured_state": is_sharded() and not has_gpu},
    }


def processes() -> PartialState:
    """Return who else trains with us; alone, we are the main process."""
    if is_sharded():
        check_sharding(os.environ)
    state = PartialState(cpu=not torch.cuda.is_available())
    if is_sharded() and state.distributed_type is DistributedType.MULTI_CPU:
        _shard_on_cpus()
    return state


def is_sharded() -> bool:
    """Return whether ``accelerate launch`` was told to spread the model over the processes."""
    return os.environ.get("ACCELERATE_USE_FSDP", "") == "true"


def check_sharding(environ: Mapping[str, str]) -> None:
    """Raise ConfigError unless ``accelerate launch`` shards in the way that we load and save."""
    wanted = {
        "FSDP_VERSION": "2",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",  # sends the weights: see `load_model`
    }
    for key, value in wanted.items():
        if environ.get(key) != value:
            raise ConfigError(
                f"the accelerate config shards in a way that is not supported: set {key.lower()} "
                f"to {value} in its fsdp_config, as in the packaged accelerate/fsdp2"
            )


def _shard_on_cpus() -> None:
    """Have accelerate shard on CPUs, where it would fall back to data parallel without a word."""
    plugin = FullyShardedDataParallelPlugin()
    state = Accelerator(cpu=True, fsdp_plugin=plugin).state
    state.fsdp_plugin = plugin
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def without_casts(trainer: Trainer, *, needed: bool = False) -> AbstractContextManager[None]:
    """Train without PEFT's casts to the adapters' float32, which autocast would cast back.

    Numbers are the same to the bit. They are `needed` where the model also computes outside
    autocast, as TRL has it do in ``generate``.
    """
    active = trainer.args.bf16 and not needed
    casting: AbstractContextManager[None] = disable_input_dtype_casting(trainer.model, active)
    return casting


def lora_config(rank: int) -> LoraConfig | None:
    """Return adapters of `rank` on every linear layer, scaled by 2; None for rank 0."""
    if not rank:
        return None
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        bias="none",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def load_model(path: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load what is to be trained. Raises EngineError if it is damaged.

    Where the model will be sharded only the first process reads it, and sends the others their
    part when that is done: else each would hold all of it in the machine's memory. (transformers
    spares them the reading, not the memory.)
    """
    is_first = processes().is_main_process
    load = load_weights if is_first or not is_sharded() else without_weights
    model = load(path, dtype)
    model._is_fsdp_managed_module = is_sharded()  # has `generate` keep the processes in step
    return model


def computed_dtype(dtype: Dtype) -> torch.dtype:
    """Return what training computes in on this machine."""
    on_gpu = torch.cuda.is_available()
    return torch.bfloat16 if is_bfloat16(dtype, on_gpu=on_gpu) else torch.float32


def load_base(path: str, config: TrainSftConfig | TrainRlConfig) -> PreTrainedModel:
    """Load what is trained, or what adapters are put on. Raises EngineError."""
    on_gpu = torch.cuda.is_available()
    return load_model(path, base_dtype(config, on_gpu=on_gpu, sharded=is_sharded()))


def base_dtype(
    config: TrainSftConfig | TrainRlConfig, *, on_gpu: bool, sharded: bool
) -> torch.dtype:
    """Return how a model is loaded: bfloat16 where adapters on top of it are trained in that.

    What is trained stays float32, the adapters too. A frozen base is computed with in bfloat16 by
    autocast anyway, which casts it again in every pass; loaded so, it takes half the memory. Where
    adapters are added to the base and subtracted again, bfloat16 would not give back the same base.
    FSDP spreads the base over the GPUs, and wants one dtype.
    """
    is_half = config.keeps_base and is_bfloat16(config.dtype, on_gpu=on_gpu)
    return torch.bfloat16 if is_half and not sharded else torch.float32


def load_tokenizer(path: str, **settings: Any) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; code in its folder is not run."""
    return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **settings)


def check_fits(named: str, ids: Sequence[int], model: PreTrainedModel, to_sample: int = 0) -> None:
    """Raise DataError unless `ids`, and what is sampled after them, can be fed to a model."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    wrong = next((token for token in ids if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise DataError(
            f"{named} has the token id {wrong:,}, the model's vocabulary {vocabulary:,} tokens: it "
            "was made with another model's tokenizer"
        )
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context and len(ids) + to_sample > context:
        asked = f"{len(ids):,} tokens" + (f" and {to_sample:,} to sample" if to_sample else "")
        key = "train_rl.sampling.max_tokens" if to_sample else "build_sft.max_tokens"
        raise DataError(
            f"{named} has {asked}, the model takes {context:,}: lower {key}, or leave it out"
        )


def whole_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every weight by its name, whole, detached and on the device it is on; tied ones once.

    A sharded weight is gathered when it is asked for, one at a time: every process has to go
    through all of them. What is yielded may share memory with the model: copy what is kept.
    """
    seen = set[int]()
    for name, weight in model.state_dict(keep_vars=True).items():
        if id(weight) not in seen:
            seen.add(id(weight))
            whole = weight.detach()
            yield name, whole.full_tensor() if isinstance(whole, DTensor) else whole


def save(trainer: Trainer, out: Path) -> None:
    """Write an ordinary model folder to ``out/final``; adapters are merged, and kept next to it.

    Every process has to call it, the first one writes. Raises MidcourseError, and writes nothing,
    if a weight is not finite.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    _check_finite(gather_object([first_not_finite(model)]))
    adapts, is_first = isinstance(model, PeftModel), processes().is_main_process
    kept = {
        name: weight.cpu()
        for name, weight in whole_weights(model)
        if is_first and (not adapts or "lora_" in name)
    }
    if is_first:
        folder = out / ("adapter" if adapts else "final")
        model.save_pretrained(folder, state_dict=kept)
        trainer.processing_class.save_pretrained(folder)
        if adapts:
            merge_adapter(model.active_peft_config.base_model_name_or_path, folder, out / "final")


def merge_adapter(base: str, adapter: Path, out: Path) -> None:
    """Write an ordinary model folder: the model at `base`, with what its adapters learned added.

    Raises MidcourseError, and writes nothing, if a weight is not finite.
    """
    model = PeftModel.from_pretrained(load_model(base), str(adapter)).merge_and_unload()
    _check_finite([first_not_finite(model)])
    model.save_pretrained(out)
    load_tokenizer(str(adapter)).save_pretrained(out)


def _check_finite(names: Iterable[str]) -> None:
    name = next(filter(None, names), "")
    if name:
        raise MidcourseError(
            f"the trained model holds a NaN or an infinity in {name}, and was not saved: lower the "
            "learning rate"
        )


@contextmanager
def in_one_line(section: str) -> Iterator[None]:
    """Turn the errors of a training that a recipe's `section` can fix into one line each."""
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in said:
            raise MidcourseError(
                f"out of memory: lower {section}.micro_batch_size, set "
                f"{section}.gradient_checkpointing = true, or train adapters with "
                f"{section}.lora_rank = 16; the first two change nothing but speed"
            ) from error
        if "probability tensor contains" in said:
            raise MidcourseError(
                "the model's probabilities are not finite (NaN or infinite), so that nothing can "
                f"be sampled from it; lower {section}.learning_rate, or start from another model"
            ) from error
        raise


def quiet_libraries() -> None:
    """Send nothing anywhere and keep library chatter off the screen; ours is shown instead."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # A CPU has no memory to pin; torch says so once per data loader.
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
