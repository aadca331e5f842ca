"""Tokens of a finished training: what it sampled, and what its optimiser saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from midcourse.records import SftRow
from midcourse.stages.pairs import step_pairs
from midcourse.store.stage import column_sums, read_stage
from midcourse.tokens import Asked, TokenCount, plain_tokens
from midcourse.training.jobs import Job, RlJob, SdftJob, SftJob, logged_steps
from midcourse.training.rl.store import RlMember, read_rl

#: Where the rollouts of RL lie: its groups, and what verified interventions of online InT.
_SAMPLED = ("rollouts", "online/rollouts")
_COUNTED = ("prompt_tokens", "num_tokens")


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
    entries, sampled = logged_steps(out), TokenCount()
    for name in _SAMPLED:
        sampled += _count(column_sums(sorted((out / name).glob("iteration-*.parquet")), _COUNTED))
    trained, read = (_logged(entries, f"groups/{n}_tokens") for n in ("trained", "teacher"))
    return {
        "tokens": plain_tokens({Asked.POLICY: sampled, Asked.PROPOSER: _proposed(entries)}),
        "trained_tokens": {
            "total": trained,
            "per_iteration": round(trained / max(len(entries), 1)),
            **({"read_by_teacher": read} if read else {}),
        },
    }


def _logged(entries: Sequence[Mapping[str, float]], name: str) -> int:
    return round(sum(entry.get(name, 0.0) for entry in entries))


def _proposed(entries: Sequence[Mapping[str, float]]) -> TokenCount:
    names = ("requests", "in", "out")
    return TokenCount(*(_logged(entries, f"online/proposer_{name}") for name in names))


def _count(sums: tuple[int, Mapping[str, int]]) -> TokenCount:
    number, of = sums
    return TokenCount(number, of["prompt_tokens"], of["num_tokens"])


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationTokens:
    """What one iteration of RL took."""

    sampled: TokenCount
    """Of its groups."""
    proposed: TokenCount
    """Of online InT, as are the continuations that `verified` counts."""
    verified: TokenCount
    completions: int
    """Sampled tokens that the optimiser saw: what a manifest calls ``trained_tokens``."""
    sequences: int
    """The same with their contexts, which go through the model with them."""
    taught: int
    """What the teacher of self-distillation read: solutions and completions."""


def tokens_by_iteration(out: Path, num_updates: int) -> list[IterationTokens]:
    """Return what each iteration of a finished RL training took; `out` is its folder."""
    logged = {round(entry["step"]) // num_updates - 1: entry for entry in logged_steps(out)}
    members = groupby(read_rl(out, ("token_ids",)), key=lambda member: member[2].iteration)
    return [
        _of_iteration(
            list(drawn),
            column_sums(
                (out / "online" / "rollouts").glob(f"iteration-{number:06d}.parquet"), _COUNTED
            ),
            logged.get(number, {}),
        )
        for number, drawn in members
    ]


def _of_iteration(
    drawn: Sequence[RlMember],
    continuations: tuple[int, Mapping[str, int]],
    entry: Mapping[str, float],
) -> IterationTokens:
    trained = [rollout for rollout, _, sample in drawn if sample.is_trained]
    completions = sum(rollout.num_tokens for rollout in trained)
    return IterationTokens(
        sampled=TokenCount(
            len(drawn),
            sum(rollout.prompt_tokens for rollout, *_ in drawn),
            sum(rollout.num_tokens for rollout, *_ in drawn),
        ),
        proposed=_proposed([entry]),
        verified=_count(continuations),
        completions=completions,
        sequences=completions + sum(rollout.prompt_tokens for rollout in trained),
        taught=_logged([entry], "groups/teacher_tokens"),
    )
