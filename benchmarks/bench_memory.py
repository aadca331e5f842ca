"""What a training really takes, part by part of its plan: predicted against measured.

Each case is a process of its own that builds a random model of SmolLM2's widths, trains it for two
steps through our own trainers, and reads its peak: resident memory on a CPU, allocated memory on a
GPU (``torch.cuda.max_memory_allocated``). `midcourse plan` predicts the same case.

    PYTHONPATH=src python benchmarks/bench_memory.py            # 8 layers, minutes on a CPU
    PYTHONPATH=src python benchmarks/bench_memory.py --layers 30 --tokens 4096
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from coin import CoinGrader

from midcourse.config import ModelConfig, TrainRlConfig, TrainSftConfig, TransformersConfig
from midcourse.engines.bundled import base_folder
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import data_sheets
from midcourse.plan.memory import Memory, Placed
from midcourse.plan.shapes import load_shape
from midcourse.plan.training import reinforcing, sampler_of, tuning
from midcourse.records import Condition, Gold, RowOutcome, RowSource, SftRow
from midcourse.table import Table
from midcourse.training.jobs import RlContext, RlProblem

#: By name, what differs from full SFT on rows of one length.
CASES: dict[str, dict[str, Any]] = {
    "sft": {},
    "sft, checkpointing": {"gradient_checkpointing": True},
    "sft, LoRA": {"lora_rank": 16},
    "sft, LoRA, checkpointing": {"lora_rank": 16, "gradient_checkpointing": True},
    "sft, 4 rows": {"micro_batch_size": 4, "batch_size": 4},
    "rl": {"rl": True},
    "rl, checkpointing": {"rl": True, "gradient_checkpointing": True},
    "rl, LoRA": {"rl": True, "lora_rank": 16},
}
_PROMPT = "Mia has 12 nuts."


def main() -> None:
    """Run every case in a process of its own; print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512, help="of a row, or of a rollout")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(measure(CASES[asked.case], asked.layers, asked.tokens)))
        return
    rows = []
    for name in CASES:
        command = [sys.executable, __file__, "--case", name]
        command += ["--layers", str(asked.layers), "--tokens", str(asked.tokens)]
        # Large tensors go back to the system when they are freed: the peak is that of live ones.
        told = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}
        done = subprocess.run(command, env=told, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        parts = {part: f"{size / 1e6:,.0f}" for part, size in found["parts"].items() if size >= 1e6}
        said = ", ".join(f"{part} {size}" for part, size in parts.items())
        predicted, measured = (found[key] / 1e6 for key in ("predicted", "measured"))
        off = f"{predicted / measured - 1:+.0%}"
        rows.append((name, said, f"{predicted:,.0f}", f"{measured:,.0f}", off))
        print(*rows[-1], sep=" | ", file=sys.stderr)
    columns = ("training", "parts of the plan, MB", "predicted", "measured", "error")
    print("\n".join(Table("Memory", columns, tuple(rows)).markdown()))


def measure(case: dict[str, Any], layers: int, tokens: int) -> dict[str, Any]:
    """Return what the plan says of a case and what it took, in bytes."""
    changes = {key: value for key, value in case.items() if key != "rl"}
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder, "model"), Path(folder, "out")
        _write_model(model, layers)
        # Libraries load what they need as they go: that is not what is measured.
        _train(case, changes, str(base_folder()), out / "first", 64)
        peak = Peak()
        rows = _train(case, changes, str(model), out / "second", tokens)
        measured = peak.bytes()
        memory = _predict(case, changes, str(model), rows)
    return {
        "parts": memory.parts.by_name(),
        "predicted": memory.parts.total,
        "measured": measured,
    }


def _write_model(folder: Path, layers: int) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    tokenizer.save_pretrained(folder)
    widths = {"hidden_size": 576, "intermediate_size": 1536, "vocab_size": 49_152}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "bos_token_id": 1}
    config = LlamaConfig(
        **widths, **heads, **ends, num_hidden_layers=layers, max_position_embeddings=8192,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def _sft(changes: dict[str, Any]) -> TrainSftConfig:
    # Two steps: the moments are made at the end of the first.
    plain = {"batch_size": 2, "micro_batch_size": 1, "max_steps": 2, "num_epochs": 9}
    return TrainSftConfig.model_validate(plain | changes)


def _rl(changes: dict[str, Any], tokens: int) -> TrainRlConfig:
    plain = {"num_iterations": 2, "prompts_per_iteration": 2, "num_generations": 2}
    plain |= {"num_updates": 2, "micro_batch_size": 1, "save_every": 9}
    return TrainRlConfig.model_validate(plain | {"sampling": {"max_tokens": tokens}} | changes)


def _train(
    case: dict[str, Any], changes: dict[str, Any], path: str, out: Path, tokens: int
) -> float:
    """Train for two steps and return the tokens of a row."""
    from midcourse.rendering import Renderer
    from midcourse.training.common import Setting, load_tokenizer, quiet_libraries
    from midcourse.training.rl.run import make_rl_trainer
    from midcourse.training.sft import make_sft_trainer

    quiet_libraries()
    setting = Setting(path, out, 0, lambda _: None)
    prompt = Renderer(load_tokenizer(path)).prompt_ids([{"role": "user", "content": _PROMPT}])
    if case.get("rl"):
        asked = RlContext(condition=Condition.PROBLEM, message=_PROMPT)
        problems = [
            RlProblem(problem_id=f"p{i}", gold=Gold("math", "5"), contexts=(asked,))
            for i in range(4)
        ]
        make_rl_trainer(_rl(changes, tokens), problems, setting, "rl:m", CoinGrader()).train()
        return float(len(prompt) + tokens)
    rows = [_row(tuple(prompt), tokens, number) for number in range(4)]
    make_sft_trainer(_sft(changes), rows, setting).train()
    return float(tokens)


def _row(prompt: tuple[int, ...], tokens: int, number: int) -> SftRow:
    """Return a row of `tokens` ids, the odd ones a little shorter so that batches are padded."""
    said = tuple(range(5, 5 + 100)) * (tokens // 100 + 1)
    said = said[: tokens - len(prompt) - number % 2]
    return SftRow(
        row_id=f"row{number}", source=RowSource.REFERENCE, outcome=RowOutcome.READY,
        problem_id="p", proposal_id="", input_ids=(*prompt, *said),
        labels=(*(-100 for _ in prompt), *said), closes_turn=False, prompt_tokens=len(prompt),
        prefix_tokens=0, intervention_tokens=len(said), num_correct=1, num_continuations=1,
    )  # fmt: skip


def _predict(case: dict[str, Any], changes: dict[str, Any], path: str, row: float) -> Memory:
    import torch

    device = data_sheets()["h100" if torch.cuda.is_available() else "cpu"]
    placed = Placed(ModelConfig(path=path), load_shape(path), device, Assumptions())
    if not case.get("rl"):
        return tuning(placed, _sft(changes), row)
    config = _rl(changes, int(row))
    phases = reinforcing(placed, config, TransformersConfig(), row, sampler_of(config))
    return max(phases, key=lambda phase: phase.parts.total)


class Peak:
    """The most memory since it was made, beyond what there was."""

    def __init__(self) -> None:
        import torch

        self.on_gpu = torch.cuda.is_available()
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins now
            self.before = _status("VmRSS")

    def bytes(self) -> int:
        """Return it."""
        import torch

        peak = torch.cuda.max_memory_allocated() if self.on_gpu else _status("VmHWM")
        return int(peak - self.before)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
