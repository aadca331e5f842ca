"""Trains the lab's base model from the world's documents: tokenizer, weights, record.

    midcourse lab pretrain --steps 8500 --out my-base

The model is a Qwen3 of about a million parameters, so that everything downstream (loading, chat
template, TRL, vLLM) is the same code path as for a 4B model. The loss is on the replies only.
Short documents (solving) and long ones (verifying) alternate in batches of their own: little is
spent on padding, and at this size optimiser steps are what is short, not examples.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from midcourse.errors import ConfigError
from midcourse.lab.curriculum import Curriculum, Document
from midcourse.lab.worlds import WORLDS
from midcourse.prompts import PromptSet, load_prompt_set
from midcourse.rendering import Renderer
from midcourse.stages.build_sft import IGNORED

END_OF_TURN, START_OF_TURN, PAD = "<|im_end|>", "<|im_start|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Words and numbers of up to two digits carry their leading space; a full stop takes the blank
# line after it, as in the tokenizers of large models.
PIECES = r" ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: Of the user's part of a document that is learnt whole, next to its reply.
_ASKED_WEIGHT = 0.3
_MAX_POSITIONS = 1024
#: What a killed training goes on from; gone when it has ended.
_CHECKPOINT = "checkpoint.pt"

Batch = dict[str, torch.Tensor]
OptimizerName = Literal["adamw", "muon"]


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """What decides the weights, next to the constants of this module."""

    steps: int
    """Optimiser steps."""
    seed: int = 0
    learning_rate: float = 3e-3
    num_layers: int = 4
    """More than `start` has: the new ones begin as identities."""
    mix: str = "base"
    """What is taught, by its name in the curriculum."""
    start: str = ""
    """A folder made by an earlier call, to go on from; its record is kept in ours."""
    world: str = "counts"
    """Whose documents."""
    cooldown: float = 0.0
    """Share of the steps, at the end, in which the rate falls linearly from its peak, at which it
    stays before; 0: one cycle over all steps. With it a training can go on to more steps than it
    was started for, and is the same as if it had been started for them."""
    log_every: int = 200
    """Steps between lines of the log; there a checkpoint is kept too."""
    batch_tokens: int = 1500
    """Of one batch, padding included, about."""
    hidden_size: int = 128
    """Of a fresh model; a multiple of 32."""
    optimizer: OptimizerName = "adamw"
    """`muon`: the layers' matrices by Muon, embeddings and norms by AdamW, at one rate (Muon's
    updates are scaled to the size of AdamW's)."""
    pool: int = 1
    """Batches that are drawn together and filled by length, so that little of them is padding."""

    @property
    def curriculum(self) -> Curriculum:
        """What the world teaches."""
        return WORLDS[self.world].curriculum


def pretrain(config: PretrainConfig, out: Path, log: Callable[[str], None]) -> None:
    """Train from scratch and write a Hugging Face model folder with a ``pretrain.json``."""
    torch.manual_seed(config.seed)
    prompts = load_prompt_set("lab")
    tokenizer, model = _begin(config, prompts)
    log(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    started = time.monotonic()
    batches = _Batches(config, tokenizer, prompts)
    history = _Training(model, config, batches, out / _CHECKPOINT).run(log)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {
        "config": {**asdict(config), "start": Path(config.start).name},
        "minutes": round((time.monotonic() - started) / 60, 1),
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss": history,
    }
    if config.start:
        record["start"] = json.loads((Path(config.start) / "pretrain.json").read_text("utf-8"))
    (out / "pretrain.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / _CHECKPOINT).unlink(missing_ok=True)


def _begin(
    config: PretrainConfig, prompts: PromptSet
) -> tuple[PreTrainedTokenizerFast, Qwen3ForCausalLM]:
    """Return tokenizer and model, fresh or as an earlier call left them."""
    if config.start:
        tokenizer = AutoTokenizer.from_pretrained(config.start, trust_remote_code=False)
        started = Qwen3ForCausalLM.from_pretrained(config.start, dtype="float32")
        as_wide = replace(config, hidden_size=started.config.hidden_size)
        return tokenizer, _deepen(started, _architecture(tokenizer, as_wide))
    tokenizer = _train_tokenizer(config, prompts)
    return tokenizer, Qwen3ForCausalLM(_architecture(tokenizer, config))


def _deepen(model: Qwen3ForCausalLM, config: Qwen3Config) -> Qwen3ForCausalLM:
    """Return `model` with the layers of `config`; it computes what it did before.

    An added layer writes nothing into the residual stream until it is trained.
    """
    deeper = Qwen3ForCausalLM(config)
    deeper.load_state_dict(model.state_dict(), strict=False)
    for layer in deeper.model.layers[model.config.num_hidden_layers :]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return deeper


def _train_tokenizer(config: PretrainConfig, prompts: PromptSet) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on documents and dress it as a chat tokenizer."""
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=[PAD, START_OF_TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(config, prompts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END_OF_TURN,
        additional_special_tokens=[START_OF_TURN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=_MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def _texts(config: PretrainConfig, prompts: PromptSet) -> Iterator[str]:
    rng, taught = random.Random(f"{config.seed}/tokenizer"), config.curriculum
    for task in [task for _, tasks in taught.mixes["base"].values() for task in tasks]:
        for _ in range(1000):
            document = taught.tasks[task](rng, prompts)
            yield f"user\n{document.user}"
            yield f"assistant\n{document.reply}"
            for index, said in enumerate(document.later):
                yield f"{'assistant' if index % 2 else 'user'}\n{said}"


def _architecture(tokenizer: PreTrainedTokenizerFast, config: PretrainConfig) -> Qwen3Config:
    """Return the architecture: a small Qwen3 with tied embeddings."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.hidden_size // 32,
        num_key_value_heads=config.hidden_size // 64,
        head_dim=32,
        intermediate_size=3 * config.hidden_size,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


class _Batches:
    """Batches without end; each holds documents of similar length."""

    def __init__(
        self, config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, prompts: PromptSet
    ) -> None:
        self._config, self._prompts = config, prompts
        self._renderer, self._pad = Renderer(tokenizer), int(tokenizer.pad_token_id or 0)
        self._rng = random.Random(f"{config.seed}/documents")
        self._before, self._num_taken, self._left = self._rng.getstate(), 0, list[list[_Row]]()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            if not self._left:
                self._before, self._num_taken = self._rng.getstate(), 0
                self._left = self._draw()
            self._num_taken += 1
            yield _pad(self._left.pop(0), self._pad)

    @property
    def place(self) -> tuple[Any, int]:
        """The state before the pool at hand, and the batches taken from it."""
        return self._before, self._num_taken

    def go_to(self, place: tuple[Any, int]) -> None:
        """Go on from a `place` of an earlier call."""
        self._before, self._num_taken = place
        self._rng.setstate(self._before)
        self._left = self._draw()[self._num_taken :]

    def _draw(self) -> list[list[_Row]]:
        """Return a pool of documents of one kind, in batches."""
        config, rng, taught = self._config, self._rng, self._config.curriculum
        shares, kinds = zip(*taught.mixes[config.mix].values(), strict=True)
        (tasks,) = rng.choices(kinds, shares)
        rows: list[_Row] = []
        while sum(map(len, rows)) < config.batch_tokens * config.pool:
            (task,) = rng.choices(list(tasks), list(tasks.values()))
            rows.append(_encode(self._renderer, taught.tasks[task](rng, self._prompts)))
        return [rows] if config.pool == 1 else _filled(rows, config.batch_tokens, rng)


def _filled(rows: list[_Row], num_tokens: int, rng: random.Random) -> list[list[_Row]]:
    """Return `rows` in batches of `num_tokens`, about: of similar length, in any order."""
    batches: list[list[_Row]] = [[]]
    for row in sorted(rows, key=len):
        if len(row) * len(batches[-1]) >= num_tokens:
            batches.append([])
        batches[-1].append(row)
    rng.shuffle(batches)
    return batches


@dataclass(frozen=True, slots=True)
class _Row:
    """A document in tokens."""

    asked: list[int]
    reply: list[int]
    """With all that follows it, in a dialogue."""
    labels: list[int]
    """As `reply`, with −100 where somebody else speaks."""
    is_whole: bool

    def __len__(self) -> int:
        return len(self.asked) + len(self.reply)

    def padded_ids(self, width: int, pad: int) -> list[int]:
        """Return its ids, up to `width`."""
        return _padded([*self.asked, *self.reply], width, pad)

    def padded_labels(self, width: int) -> list[int]:
        """Return the ids that the model says, and −100 elsewhere, up to `width`."""
        return _padded([*([IGNORED] * len(self.asked)), *self.labels], width, IGNORED)

    def padded_question(self, width: int) -> list[int]:
        """Return the ids of the user's part where it is learnt, and −100, up to `width`."""
        return _padded(self.asked if self.is_whole else [], width, IGNORED)


def _encode(renderer: Renderer, document: Document) -> _Row:
    """Return a document in tokens, the end of its reply's turn among them."""
    asked = renderer.prompt_ids([{"role": "user", "content": document.user}])
    reply = renderer.reply_ids(document.reply) + renderer.end_of_turn_ids
    labels = list(reply)
    for said, following in zip(document.later[::2], document.later[1::2], strict=True):
        given = renderer.next_turn_ids(said)
        own = renderer.reply_ids(following) + renderer.end_of_turn_ids
        reply, labels = reply + given + own, labels + [IGNORED] * len(given) + own
    return _Row(asked, reply, labels, document.is_whole)


def _padded(ids: list[int], width: int, pad: int) -> list[int]:
    return ids + [pad] * (width - len(ids))


def _pad(rows: list[_Row], pad_id: int) -> Batch:
    """Return ids, labels of the replies, and labels of what users said where it is learnt."""
    width = max(map(len, rows))
    # Padding is on the right and attention is causal: no mask is needed.
    batch = {
        "input_ids": torch.tensor([row.padded_ids(width, pad_id) for row in rows]),
        "labels": torch.tensor([row.padded_labels(width) for row in rows]),
    }
    if any(row.is_whole for row in rows):
        batch["asked"] = torch.tensor([row.padded_question(width) for row in rows])
    return batch


def _loss(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    """Return the mean loss of the replies, and a share of that of the questions to learn."""
    found: Any = model(input_ids=batch["input_ids"], labels=batch["labels"])
    loss: torch.Tensor = found.loss
    if "asked" in batch:
        logits, asked = found.logits[:, :-1].flatten(0, 1), batch["asked"][:, 1:].flatten()
        loss = loss + _ASKED_WEIGHT * cross_entropy(logits, asked, ignore_index=IGNORED)
    return loss


class _Training:
    """Optimiser, rate and history of one training; a killed one goes on from its checkpoint."""

    def __init__(
        self, model: Qwen3ForCausalLM, config: PretrainConfig, batches: _Batches, file: Path
    ) -> None:
        self._model, self._config, self._batches, self._file = model, config, batches, file
        self._optimizers = _optimizers(model, config)
        self._schedules = [_schedule(optimizer, config) for optimizer in self._optimizers]
        self._step, self._history = 0, list[dict[str, float]]()
        if file.exists():
            self._resume()

    def run(self, log: Callable[[str], None]) -> list[dict[str, float]]:
        """Run the optimiser; return the mean loss of every `log_every` steps."""
        losses: list[float] = []
        num_tokens, started = 0, time.monotonic()
        self._model.train()
        for batch in islice(self._batches, self._config.steps - self._step):
            losses.append(self._update(batch))
            num_tokens += batch["input_ids"].numel()
            if self._step % self._config.log_every == 0:
                self._history.append({"step": self._step, "loss": sum(losses) / len(losses)})
                speed = num_tokens / (time.monotonic() - started)
                loss = self._history[-1]["loss"]
                self._save()
                log(f"step {self._step:6d}  loss {loss:.4f}  {speed:,.0f} tokens/s")
                losses.clear()
        return self._history

    def _update(self, batch: dict[str, torch.Tensor]) -> float:
        loss = _loss(self._model, batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        self._step += 1
        return loss.item()

    @property
    def _settings(self) -> dict[str, object]:
        """What must be the same when a training goes on."""
        settings = asdict(self._config)
        return settings if not self._config.cooldown else {**settings, "steps": 0}

    def _save(self) -> None:
        state = {
            "settings": self._settings,
            "model": self._model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedules": [schedule.state_dict() for schedule in self._schedules],
            "place": self._batches.place,
            "step": self._step,
            "history": self._history,
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._file)

    def _resume(self) -> None:
        state = torch.load(self._file, weights_only=True)
        if state["settings"] != self._settings:
            raise ConfigError(
                f"{self._file} is of a training with other settings: give those, or another --out"
            )
        self._model.load_state_dict(state["model"])
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        for schedule, kept in zip(self._schedules, state["schedules"], strict=True):
            schedule.load_state_dict(kept)
        self._batches.go_to(state["place"])
        self._step, self._history = state["step"], state["history"]


def _optimizers(model: Qwen3ForCausalLM, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    rate = config.learning_rate
    if config.optimizer == "adamw":
        return [
            torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
        ]
    layers = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    matrices = {id(weight) for weight in layers}
    others = [weight for weight in model.parameters() if id(weight) not in matrices]
    return [
        torch.optim.Muon(layers, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _schedule(
    optimizer: torch.optim.Optimizer, config: PretrainConfig
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return one cycle, or a rate that rises, stays, and falls in the last share of the steps."""
    steps, rise = config.steps, 200
    if config.cooldown:
        start = (1 - config.cooldown) * steps
        fall = steps - start

        def factor(step: int) -> float:
            return min((step + 1) / rise, 1.0, max(0.0, (steps - step) / fall))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    rising = rise / steps if steps > rise else 0.9
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.learning_rate,
        total_steps=steps,
        pct_start=rising,
        final_div_factor=1e3,
    )
