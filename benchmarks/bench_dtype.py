"""RL in bfloat16 against float32 on this CPU: ``python benchmarks/bench_dtype.py MODEL``.

MODEL is an instruct model's folder; ``python scripts/smollm2.py convert`` makes one. Two iterations
of RL with adapters in each dtype, by turns, in the sizes of ``scale/real``; rewards are by chance,
so that nearly every group has a gradient. Processor seconds of one thread, for a machine is seldom
idle. On a CPU without bfloat16 instructions it says how much slower that is.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from bench_rl import rl_problems
from coin import CoinGrader

from midcourse.config import Dtype, TrainRlConfig, load_recipe
from midcourse.data import load_problems
from midcourse.training.common import Setting, quiet_libraries
from midcourse.training.jobs import RlProblem
from midcourse.training.rl.run import make_rl_trainer

_TURNS: tuple[Dtype, ...] = ("bfloat16", "float32") * 2


@dataclass(slots=True)
class Timing:
    """What one iteration took."""

    sampling: float = 0.0
    """Processor seconds."""
    tokens: int = 0
    whole: float = 0.0
    gaps: list[float] = field(default_factory=list)


def main() -> None:
    """Print a table: processor seconds, and how far sampler and trainer are apart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="a folder; python scripts/smollm2.py convert makes one")
    model = parser.parse_args().model
    quiet_libraries()
    torch.set_num_threads(1)
    config, problems = _given()
    lines = ["| dtype | iteration | of it sampling | sampled | mean gap |", "|---|---|---|---|---|"]
    for dtype in _TURNS:
        one = _iteration(config.model_copy(update={"dtype": dtype}), problems, model)
        lines.append(
            f"| {dtype} | {one.whole:.1f} s | {one.sampling:.1f} s | {one.tokens:,} tokens "
            f"| {max(one.gaps):.2g} nats |"
        )
    print("\n".join(lines))  # at the end: transformers prints its own log meanwhile


def _given() -> tuple[TrainRlConfig, list[RlProblem]]:
    recipe = load_recipe("paper/int", overlays=["scale/real"])
    config = recipe.train_rl.model_copy(update={"num_iterations": 1, "save_every": 100})
    problems = load_problems(str(recipe.problems.path), limit=100)
    return config, rl_problems(problems, recipe.prompts)


def _iteration(config: TrainRlConfig, problems: list[RlProblem], model: str) -> Timing:
    timing = Timing()

    def note(numbers: Mapping[str, float]) -> None:
        timing.gaps += [numbers[name] for name in numbers if name == "sampler/logprob_gap"]

    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(model, Path(folder), 0, note)
        trainer = make_rl_trainer(config, problems, setting, "rl:bench", CoinGrader())
        collector = trainer.rollout_func
        collector.sampler = _Timed(collector.sampler, timing)
        start = time.process_time()
        trainer.train()
        timing.whole = time.process_time() - start
    return timing


@dataclass(frozen=True, slots=True)
class _Timed:
    """A sampler that notes what it took."""

    inner: Any
    timing: Timing

    def refresh(self, iteration: int) -> None:
        self.inner.refresh(iteration)

    def sample(self, asks: Any) -> Any:
        start = time.process_time()
        drawn = self.inner.sample(asks)
        self.timing.sampling += time.process_time() - start
        self.timing.tokens += sum(len(one.token_ids) for one in drawn)
        return drawn


if __name__ == "__main__":
    main()
