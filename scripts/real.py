"""`make real`: the stages with SmolLM2-135M-Instruct on GSM8K, then once more with a script.

First pass: the model proposes itself, up to build-sft. Second pass: the proposals come from a
script, and verify, build-sft, two SFT steps and one GRPO step run with the real tokenizer,
template and weights.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

from smollm2 import convert

from midcourse.config import load_recipe
from midcourse.errors import MidcourseError
from midcourse.pipeline import method, open_session
from midcourse.progress import ConsoleProgress, open_console
from midcourse.report.collect import funnel_counts
from midcourse.report.tables import funnel_table

RECIPE = "real"
SCRIPT = [
    [
        ".",
        '<intervention>{"content": "Before adding anything up, I list each quantity of the problem '
        'and what it depends on.", "location": 1}</intervention>',
    ]
]


def run_pass(name: str, overrides: list[str], train: bool) -> None:
    """Run the stages of one pass and print its funnel."""
    recipe = load_recipe(RECIPE, overrides)
    console = open_console()
    with open_session(recipe, Path("runs") / name, ConsoleProgress(console)) as session:
        made = method(session.setup)
        session.complete(made.models.rows)
        console.print(funnel_table(funnel_counts(session.run, made)).rich())
        if not train:
            return
        session.complete(*made.models.rl_trainings())
        for model in made.models.compared:
            console.print(f"{model.label}: {session.tools.path(model)}")


def main() -> None:
    """Run both passes."""
    overrides = [part for flag, part in pairwise(sys.argv[1:]) if flag == "--set"]
    folder = Path(load_recipe(RECIPE, overrides).model.path)
    convert(folder)
    run_pass("real-model", overrides, train=False)
    script = folder / "proposals.json"
    script.write_text(json.dumps(SCRIPT))
    # A script's intervention may help nothing; without the filter there are rows to train on.
    scripted = [
        f'proposer_engine={{"kind": "scripted", "script": "{script}"}}',
        "propose.turns=single",
        "build_sft.filter=false",
    ]
    run_pass("real-script", [*overrides, *scripted], train=True)


if __name__ == "__main__":
    try:
        main()
    except MidcourseError as error:
        sys.exit(f"real: {error}")
    except KeyboardInterrupt:
        sys.exit("real: interrupted; run  make real  again to go on")
