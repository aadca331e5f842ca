"""Rows of whole solutions, for the problems of InT's rows and as many (§5.2, Table 4).

One row for each of InT's rows, so that a comparison differs in what is taught and in nothing
else: the same problems, the same number of rows and of updates. A whole solution ends, so its row
closes the turn and trains the end-of-turn.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from midcourse.config import BuildSftConfig
from midcourse.records import RowOutcome, RowSource, SftRow, Verdict, content_id
from midcourse.rendering import Renderer
from midcourse.stages.build_sft import IGNORED
from midcourse.stages.solutions import Solution


def solution_rows(
    wanted: Sequence[SftRow],
    solutions: Mapping[str, Sequence[Solution]],
    config: BuildSftConfig,
    renderer: Renderer,
    seed: int,
) -> Iterator[SftRow]:
    """Yield one row for each of `wanted`, InT's ready rows; `solutions` are by proposal or problem.

    Several rows of one problem take different solutions while there are any, in a seeded order.
    """
    taken: Counter[str] = Counter()
    for row in sorted(wanted, key=lambda row: row.row_id):
        key = str(row.proposal_id) if config.source == "self_reflection" else row.problem_id
        offered = solutions.get(key, ())
        usable = [solution for solution in offered if solution.is_whole]
        if config.filter:
            usable = [solution for solution in usable if solution.verdict is Verdict.CORRECT]
        random.Random(f"{seed}/{config.source}/{key}").shuffle(usable)
        chosen = usable[taken[key] % len(usable)] if usable else None
        taken[key] += 1
        outcome = RowOutcome.READY if chosen else _why_none(offered)
        yield _row(row, chosen, outcome, offered, config, renderer)


def _why_none(offered: Sequence[Solution]) -> RowOutcome:
    whole = [solution for solution in offered if solution.is_whole]
    if not whole:
        return RowOutcome.NO_SOLUTION
    if any(solution.verdict is Verdict.UNGRADED for solution in whole):
        return RowOutcome.UNDECIDED
    return RowOutcome.NOT_VERIFIED


def _row(
    row: SftRow,
    chosen: Solution | None,
    outcome: RowOutcome,
    offered: Sequence[Solution],
    config: BuildSftConfig,
    renderer: Renderer,
) -> SftRow:
    prompt = row.input_ids[: row.prompt_tokens]
    ids = [*renderer.reply_ids(chosen.text), *renderer.end_of_turn_ids] if chosen else []
    if len(prompt) + len(ids) > config.max_tokens:
        outcome = RowOutcome.TOO_LONG
    ready = outcome is RowOutcome.READY
    return SftRow(
        row_id=content_id(config.source, row.row_id, config.filter, config.trace),
        source=RowSource(config.source),
        outcome=outcome,
        problem_id=row.problem_id,
        proposal_id=row.proposal_id,
        input_ids=(*prompt, *ids) if ready else (),
        labels=(*(IGNORED for _ in prompt), *ids) if ready else (),
        closes_turn=True,
        prompt_tokens=len(prompt),
        prefix_tokens=0,
        intervention_tokens=len(ids),
        num_correct=sum(solution.verdict is Verdict.CORRECT for solution in offered),
        num_continuations=sum(solution.verdict is not Verdict.UNGRADED for solution in offered),
        rollout_id=chosen.rollout_id if chosen else None,
    )
