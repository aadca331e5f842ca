"""How far adapters get at the learning rate of full fine-tuning, and at multiples of it.

``python benchmarks/bench_lora.py``: the lab's model is trained on stories with an unknown notion,
some steps of the whole set, with all weights at one rate and with adapters at multiples of it. What
counts is how much of the fall of the loss they reach.

A step of AdamW moves a weight by about the rate, and an adapted one by 2 x sqrt(rank / (3 x width))
of that: of the adapter's two factors one begins at zero and the other is uniform up to
1 / sqrt(width). That is 0.2 for rank 4 here (width 128), as it is for rank 64 in Qwen3-4B (width
2,560), and 0.8 for rank 64 here.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

from midcourse.config import TrainSftConfig
from midcourse.engines.bundled import base_folder
from midcourse.lab.counts.world import Kind, generate_stories
from midcourse.lab.splits import Split
from midcourse.records import RowOutcome, RowSource, SftRow
from midcourse.rendering import Renderer
from midcourse.training.common import Setting, load_tokenizer
from midcourse.training.sft import train_sft

STEPS, NUM_ROWS, RATE = 20, 8, 1e-5
RANKS, FACTORS = (4, 64), (1, 10, 20, 100)


def main() -> None:
    """Train each case once and print what became of the loss."""
    rows = make_rows()
    full, first = last_loss(rows, RATE, 0)
    print(f"| trained | learning rate | first loss | last loss | of the fall |\n{'|---' * 5}|")
    print(f"| all weights | {RATE:g} | {first:.4f} | {full:.4f} | 100 % |")
    for rank in RANKS:
        for factor in FACTORS:
            last, first = last_loss(rows, RATE * factor, rank)
            share = (first - last) / (first - full)
            print(
                f"| rank {rank} | {RATE * factor:g} | {first:.4f} | {last:.4f} | {share:.0%} |",
                flush=True,
            )


def make_rows() -> list[SftRow]:
    """Return the solutions of stories of a kind that the lab's model does not know."""
    renderer = Renderer(load_tokenizer(str(base_folder())))
    stories = islice(generate_stories(Kind.SINGLE, Split.TRAIN, seed=0), NUM_ROWS)
    return [make_row(renderer, n, s.text, "\n\n".join(s.steps)) for n, s in enumerate(stories)]


def make_row(renderer: Renderer, number: int, problem: str, solution: str) -> SftRow:
    """Return a row whose loss is on all of the solution."""
    prompt = renderer.prompt_ids([{"role": "user", "content": problem}])
    ids = renderer.encode(solution)
    return SftRow(
        row_id=str(number),
        source=RowSource.REFERENCE,
        outcome=RowOutcome.READY,
        problem_id=str(number),
        proposal_id=str(number),
        input_ids=(*prompt, *ids),
        labels=(*(-100 for _ in prompt), *ids),
        closes_turn=False,
        prompt_tokens=len(prompt),
        prefix_tokens=0,
        intervention_tokens=len(ids),
        num_correct=1,
        num_continuations=1,
    )


def last_loss(rows: list[SftRow], rate: float, rank: int) -> tuple[float, float]:
    """Return the loss of the last step and of the first; a step is on all rows."""
    config = TrainSftConfig(
        batch_size=len(rows), micro_batch_size=len(rows), num_epochs=STEPS, learning_rate=rate,
        lora_rank=rank,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(str(base_folder()), Path(folder), 0, lambda numbers: None)
        summary = train_sft(config, rows, setting)
    return summary["last_loss"], summary["first_loss"]


if __name__ == "__main__":
    main()
