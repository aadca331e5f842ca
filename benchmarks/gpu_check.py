"""What only a GPU can show, in one run of at most 25 minutes: ``make gpu-check``.

1. Sampling in bfloat16, ours against `generate` and `generate_batch` (``bench.py sampling``).
2. RL of SmolLM2-135M with each sampler: ours on the live weights, TRL's `generate`, vLLM colocated,
   and a vLLM server of ours whose weights are refreshed; seconds and sampler-trainer gap.
3. Memory predicted by `midcourse plan` against memory used (``bench_memory.py``).

A step that fails or takes too long is said, and the others go on. vLLM must be installed next to
midcourse for 2's last two. Nothing here has run on a GPU yet.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench_sampling import REAL_MODEL

from midcourse.table import Table

HERE = Path(__file__).parent
#: Seconds that a step may take: 25 minutes in all.
_SAMPLING, _RL, _MEMORY = 480, 180, 300
_RECIPE = """
name = "gpu-check"
[problems]
path = "{problems}"
[model]
path = "{model}"
[train_rl]
num_iterations = 4
prompts_per_iteration = 16
num_generations = 8
micro_batch_size = 16
sampling = {{ max_tokens = 256 }}
vllm_gpu_share = 0.3
[train_rl.servers]
devices = ["0"]
server_arguments = ["--gpu-memory-utilization", "0.3"]
[evaluate]
models = ["base", "base + RL"]
"""


def main() -> None:
    """Do every step and print its table."""
    with tempfile.TemporaryDirectory() as folder:
        _step(["bench.py", "sampling", "--json", f"{folder}/sampling.json"], _SAMPLING)
        rows = [_rl(sampler, Path(folder)) for sampler in ("engine", "generate", "vllm", "servers")]
        columns = ("sampler", "seconds an iteration", "gap, nats a token", "reward")
        print("\n".join(Table("RL", columns, tuple(rows)).markdown()))
        _step(["bench_memory.py", "--layers", "30", "--tokens", "2048"], _MEMORY)


def _rl(sampler: str, folder: Path) -> tuple[str, str, str, str]:
    """Train for four iterations; return what the last three took, and how well they agreed."""
    recipe, run = folder / "recipe.toml", folder / sampler
    recipe.write_text(_RECIPE.format(problems=_problems(folder), model=REAL_MODEL.absolute()))
    command = ["-m", "midcourse", "train", "rl", str(recipe), "--run-dir", str(run)]
    if not _step([*command, "--set", f"train_rl.sampler={sampler}"], _RL):
        return sampler, "failed", "", ""
    (log,) = run.glob("checkpoints/*/metrics.jsonl")
    entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    seconds = (steps[-1]["seconds"] - steps[0]["seconds"]) / (len(steps) - 1)
    gap = steps[-1].get("sampler/logprob_gap")
    shown = "not told" if gap is None else f"{gap:.1e}"
    return sampler, f"{seconds:.2f}", shown, f"{steps[-1]['reward']:.2f}"


def _problems(folder: Path) -> Path:
    """Write 64 sums of two numbers."""
    rng, file = random.Random(0), folder / "problems.jsonl"
    pairs = [(rng.randint(2, 60), rng.randint(2, 60)) for _ in range(64)]
    lines = [{"problem": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in pairs]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


def _step(arguments: Sequence[str], limit: float) -> bool:
    """Run a script or a module here; say how it ended, and return whether it did well."""
    first = str(HERE / arguments[0]) if arguments[0].endswith(".py") else arguments[0]
    began, paths = time.monotonic(), os.environ.get("PYTHONPATH", "")
    told = os.environ | {"PYTHONPATH": f"{HERE.parent / 'src'}{os.pathsep}{paths}"}
    try:
        code = subprocess.run(
            [sys.executable, first, *arguments[1:]], env=told, timeout=limit, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        code = -1
    how = {0: "done", -1: "took too long"}.get(code, f"failed ({code})")
    print(f"{' '.join(arguments[:4])}: {how}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return code == 0


if __name__ == "__main__":
    main()
