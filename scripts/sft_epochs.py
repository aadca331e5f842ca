"""Finds by the loss alone how many epochs a source of SFT rows takes until it is learned.

    python scripts/sft_epochs.py RECIPE... --scale scale/lab2 --seed 0 [--learning-rate 3e-4]

Every fourth row is left out. Epochs are doubled from the paper's four until a doubling lowers the
loss on the rows left out by less than 1 %; each number of epochs is a training of its own, with its
whole schedule. Prints nats per trained token. No problem is solved, no held-out problem is read.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PrinterCallback

from midcourse.experiments.runner import ExperimentRunner
from midcourse.pipeline import Method, Session
from midcourse.pipeline.contexts import ready_rows
from midcourse.progress import ConsoleProgress, open_console
from midcourse.recipes import find_recipe
from midcourse.records import SftRow
from midcourse.stages.build_sft import IGNORED
from midcourse.training.common import Setting
from midcourse.training.sft import make_sft_trainer

Say = Callable[[str], None]

FEWEST, MOST = 4, 256
#: A doubling that lowers the loss by less is not worth it.
LEAST_GAIN = 0.01


def loss_on(model: PreTrainedModel, rows: Sequence[SftRow]) -> float:
    """Return nats per trained token, over all tokens of all rows."""
    total = count = 0.0
    with torch.no_grad():
        for row in rows:
            labels = torch.tensor([row.labels])
            num = int((labels != IGNORED).sum())
            total += num * float(model(input_ids=torch.tensor([row.input_ids]), labels=labels).loss)
            count += num
    return total / count


def show(session: Session, method: Method, say: Say, learning_rate: float | None) -> None:
    """Say the losses of each number of epochs, up to the one that the rule chooses."""
    recipe, every = session.setup.recipe, ready_rows(session, method.models.rows)
    held_out, rows = every[::4], [row for at, row in enumerate(every) if at % 4]
    rate = learning_rate or recipe.train_sft.learning_rate
    say(f"{recipe.name}: {len(rows)} rows, {len(held_out)} left out, learning rate {rate:g}")
    epochs, before = FEWEST, 0.0
    while epochs <= MOST:
        config = recipe.train_sft.model_copy(update={"num_epochs": epochs, "learning_rate": rate})
        with tempfile.TemporaryDirectory() as out:
            setting = Setting.of(recipe.model, Path(out), recipe.seed, lambda entry: None)
            trainer = make_sft_trainer(config, rows, setting)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        model = trainer.model.eval()
        now = loss_on(model, held_out)
        say(f"  {epochs:>4} epochs: {loss_on(model, rows):.4f}, left out {now:.4f}")
        if before and now > (1 - LEAST_GAIN) * before:
            say(f"  flat at {epochs // 2}")
            return
        epochs, before = 2 * epochs, now


def main() -> None:
    """Show the losses of each recipe that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--scale", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, help="default: the scale's")
    asked = parser.parse_args()
    reporter, rate = ConsoleProgress(open_console()), asked.learning_rate
    runner = ExperimentRunner(
        scale=find_recipe(asked.scale), seeds=(asked.seed,), reporter=reporter
    )
    for name in asked.recipes:
        runner.read(name, lambda session, method, _: show(session, method, reporter.say, rate))


if __name__ == "__main__":
    main()
