"""Tokens of a finished training: what it sampled, and what its optimiser saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from midcourse.records import SftRow
from midcourse.stages.pairs import step_pairs
from midcourse.store.stage import column_sums, read_stage
from midcourse.tokens import Asked, TokenCount, plain_tokens
from midcourse.training.jobs import Job, RlJob, SdftJob, SftJob, logged_steps

#: Where the rollouts of RL lie: its groups, and what verified interventions of online InT.
_SAMPLED = ("rollouts", "online/rollouts")


def training_tokens(job: Job, summary: Mapping[str, float]) -> dict[str, object]:
    """Return what a manifest says: ``tokens`` sampled, by who was asked, and ``trained_tokens``.

    The latter counts what the optimiser saw, without padding: of SFT whole rows, once per epoch; of
    RL completions. It has the total, and how many there are per epoch or iteration; with
    self-distillation also what its teacher read, solutions and completions.
    """
    match job.content:
        case SftJob() as sft:
            epoch = sum(_lengths(sft))
            seen = _epochs(sft, summary) * epoch
            return {"tokens": {}, "trained_tokens": {"total": round(seen), "per_epoch": epoch}}
        case RlJob() | SdftJob():
            return _of_rl(job.out)


def _lengths(job: SftJob) -> Iterable[int]:
    """Yield the tokens of each row, or pair of rows with their prompts."""
    wanted = set(job.rows.row_ids)
    rows = [row for row in read_stage(job.rows.path, SftRow) if row.row_id in wanted]
    if job.rejected_rows is None:
        return (len(row.input_ids) for row in rows)
    pairs = step_pairs(rows, read_stage(job.rejected_rows, SftRow))
    return (2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in pairs)


def _epochs(job: SftJob, summary: Mapping[str, float]) -> float:
    if not job.config.max_steps:
        return job.config.num_epochs
    return summary["num_steps"] * job.config.batch_size / max(summary["num_rows"], 1.0)


def _of_rl(out: Path) -> dict[str, object]:
    entries = logged_steps(out)

    def total(name: str) -> int:
        return round(sum(entry.get(name, 0.0) for entry in entries))

    sampled = TokenCount()
    for name in _SAMPLED:
        parts = sorted((out / name).glob("iteration-*.parquet"))
        count, sums = column_sums(parts, ("prompt_tokens", "num_tokens"))
        sampled += TokenCount(count, sums["prompt_tokens"], sums["num_tokens"])
    proposed = TokenCount(*(total(f"online/proposer_{name}") for name in ("requests", "in", "out")))
    trained = total("groups/trained_tokens")
    return {
        "tokens": plain_tokens({Asked.POLICY: sampled, Asked.PROPOSER: proposed}),
        "trained_tokens": {
            "total": trained,
            "per_iteration": round(trained / max(len(entries), 1)),
            **({"read_by_teacher": read} if (read := total("groups/teacher_tokens")) else {}),
        },
    }
