"""Run by ``accelerate launch``: says what each process holds of a model, loaded and in training.

``shards.py MODEL OUT`` writes ``OUT/<process>.json``, all numbers in bytes.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from torch import distributed

from midcourse.config import TrainSftConfig
from midcourse.engines.weights import local
from midcourse.rendering import Renderer
from midcourse.training.common import Setting, load_model, load_tokenizer, processes
from midcourse.training.sft import make_sft_trainer
from test_training import BASE, row


def main() -> None:
    """Load MODEL, then train the lab's model for a step, and measure both."""
    model, out = sys.argv[1], Path(sys.argv[2])
    number = processes().process_index
    found = {**what_loading_takes(model), **what_training_holds(out / "trained")}
    (out / f"{number}.json").write_text(json.dumps(found))


def what_loading_takes(model: str) -> dict[str, int]:
    """The growth of the peak of resident memory, and the size of the weights."""
    before = peak()
    loaded = load_model(model)
    return {"loading": peak() - before, "weights": size(loaded)}


def what_training_holds(out: Path) -> dict[str, int]:
    """What is left of the weights on this process after a step, and the size of all of them."""
    renderer = Renderer(load_tokenizer(BASE))
    rows = [row(renderer, f"Finds {n} more.\n\n", n) for n in range(2)]
    config = TrainSftConfig(batch_size=2, micro_batch_size=1, max_steps=1)
    trainer = make_sft_trainer(config, rows, Setting(BASE, out, 0, lambda numbers: None))
    trainer.train()
    held = [local(one) for one in trainer.model.parameters()]
    return {"held": sum(one.nbytes for one in held), "trained": size(trainer.model)}


def size(model: Any) -> int:
    """The size of a model's weights, wherever they are."""
    return sum(one.numel() * one.element_size() for one in model.parameters())


def peak() -> int:
    """The most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
    # Threads of a group that is still open at exit can abort the process after its work is done.
    distributed.barrier()
    distributed.destroy_process_group()
