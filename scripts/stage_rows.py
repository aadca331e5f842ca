"""Writes real rows of a lab run into docs/stages: ``python scripts/stage_rows.py runs/lab``.

A page marks the place with ``<!-- row: NAME -->``; the JSON block after it is replaced. Texts and
lists are shortened, and say by how much. The run must hold the stage *reference* too:
``midcourse reference lab``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from midcourse import Start, Verdict, open_run
from midcourse.pipeline import FinishedRun
from midcourse.records import Condition, RowOutcome

PAGES = Path(__file__).parent.parent / "docs" / "stages"
PLACE = re.compile(r"<!-- row: (\w+) -->\n\n```json\n.*?^```", re.MULTILINE | re.DOTALL)
#: Longer texts and lists are cut.
TEXT, ITEMS = 180, 6


def shortened(value: Any) -> Any:
    """Return a value of a record as a page shows it."""
    if isinstance(value, str) and len(value) > TEXT:
        return f"{value[:TEXT]} … ({len(value)} characters)"
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        shown = [shortened(item) for item in value[:ITEMS]]
        return [*shown, f"… ({len(value)} in all)"] if len(value) > ITEMS else shown
    return round(value, 6) if isinstance(value, float) else value


def rows(run: FinishedRun) -> dict[str, Callable[[], Any]]:
    """Return what each mark stands for: one case, followed from stage to stage."""
    method = run.method
    row = next(r for r in run.read(method.models.rows) if r.outcome is RowOutcome.READY)
    proposal = next(p for p in run.read(method.proposals) if p.proposal_id == row.proposal_id)
    verified = method.interventions.verified[Condition.PREFIX_INTERVENTION]
    right = next(
        g
        for g in run.read(verified.grades)
        if g.parent_id == row.proposal_id and g.verdict is Verdict.CORRECT
    )
    return {
        "problem": lambda: next(
            p for p in method.setup.problems.train if p.problem_id == row.problem_id
        ),
        "rollout": lambda: _with(run.read(method.train.rollouts), rollout_id=proposal.rollout_id),
        "grade": lambda: _with(run.read(method.train.grades), rollout_id=proposal.rollout_id),
        "status": lambda: _with(run.read(method.statuses), problem_id=row.problem_id),
        "reference": lambda: _with(run.read(method.references), problem_id=row.problem_id),
        "proposal": lambda: proposal,
        "continuation": lambda: _with(run.read(verified.rollouts), rollout_id=right.rollout_id),
        "continuation_grade": lambda: right,
        "sft_row": lambda: row,
        "rl_sample": lambda: next(
            sample for _, _, sample in run.rl_rollouts(Start.PATCHED) if sample.advantage > 0
        ),
        "likelihood": lambda: next(
            one for one in run.read(method.evaluation.likelihoods[0]) if one.last_logprobs
        ),
        "sft_metrics": lambda: _metrics(run, Start.PATCHED, rl=False),
        "rl_metrics": lambda: _metrics(run, Start.PATCHED, rl=True),
    }


def _with(records: Any, **fields: str | None) -> Any:
    return next(r for r in records if all(getattr(r, k) == v for k, v in fields.items()))


def _metrics(run: FinishedRun, start: Start, rl: bool) -> dict[str, float]:
    """Return the first entry of a training's log."""
    models = run.method.models
    trained = models.patched.trained if not rl else models.rl_trainings()[-1]
    assert trained is not None
    lines = (run.run.path(trained) / "metrics.jsonl").read_text("utf-8").splitlines()
    entry: dict[str, float] = json.loads(lines[0])
    return entry


def _written(fields: dict[str, Any]) -> str:
    """Return JSON with a field a line; lists of numbers take one line, not one for each number."""
    text = json.dumps(fields, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text)


def main(directory: str) -> None:
    """Replace the rows of every page."""
    made = rows(open_run(directory))
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text("utf-8")

        def block(found: re.Match[str]) -> str:
            record = made[found[1]]()
            fields = record if isinstance(record, dict) else asdict(record)
            shown = _written(shortened(fields))
            return f"<!-- row: {found[1]} -->\n\n```json\n{shown}\n```"

        page.write_text(PLACE.sub(block, text), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
