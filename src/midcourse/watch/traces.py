"""The latest traces of a run: what its stage under way wrote last, or RL's last iteration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midcourse.errors import ArtifactError
from midcourse.records import Verdict
from midcourse.store.index import read_index
from midcourse.store.journal import read_tail
from midcourse.store.stage import JOURNAL
from midcourse.training.rl.store import RlMember, read_last_iteration

#: Of a journal so much is read: some hundred short rollouts, or a few of 16k tokens.
_TAIL_BYTES = 2_000_000
_MOST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One record for people: e.g. title ``p3  incorrect  answer 7``, and its text."""

    id: str
    title: str
    text: str
    verdict: str = ""
    """What colours it: a verdict, or the outcome of a proposal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """The latest records of one place."""

    source: str
    """Of what they are, e.g. ``sample train``; empty if nothing was written yet."""
    traces: tuple[Trace, ...] = ()
    """The latest first."""


def latest_traces(run_dir: Path) -> Traces:
    """Return what was written last in a run directory that may be written at this moment."""
    places = [*run_dir.glob(f"*/*/{JOURNAL}"), *run_dir.glob("checkpoints/*/samples/*.parquet")]
    for place in sorted(places, key=_age):
        found = _of_journal(place) if place.name == JOURNAL else _of_rl(place.parents[1])
        if found:
            folder = place.parent if place.name == JOURNAL else place.parents[1]
            return Traces(source=_name(run_dir, folder), traces=tuple(found[:_MOST]))
    return Traces(source="")


def _age(path: Path) -> float:
    """Return what sorts the file that was written last first; one that is gone comes last."""
    with suppress(OSError):
        return -path.stat().st_mtime
    return 0.0


def _name(run_dir: Path, folder: Path) -> str:
    entry = read_index(run_dir).entries.get(str(folder.relative_to(run_dir)))
    return f"{entry.stage} {entry.label}" if entry else folder.parent.name


def _of_journal(path: Path) -> list[Trace]:
    rows = [row for entry in read_tail(path, _TAIL_BYTES) for row in entry.rows]
    return [trace_of(row) for row in reversed(rows)]


def _of_rl(folder: Path) -> list[Trace]:
    with suppress(ArtifactError, OSError):  # being written, or dropped, at this moment
        return list(map(_rewarded, read_last_iteration(folder)))
    return []


def _rewarded(member: RlMember) -> Trace:
    rollout, grade, sample = member
    place = f"iteration {sample.iteration} group {sample.group}"
    title = f"{grade.verdict}  advantage {sample.advantage:+.2f}  {place}  {rollout.problem_id}"
    return Trace(
        id=rollout.rollout_id, title=title, text=rollout.text, verdict=_verdict(grade.verdict)
    )


def trace_of(row: Mapping[str, Any]) -> Trace:
    """Return one record of a journal for people, whatever stage it is of."""
    problem = str(row.get("problem_id", ""))
    if "intervention" in row:
        parts = (row["outcome"], f"at {row['location']}" if row["location"] else "", problem)
        return Trace(
            id=row["proposal_id"], title=_joined(parts), text="\n\n".join(_said(row)),
            verdict=row["outcome"],
        )  # fmt: skip
    if "verdict" in row:
        answer = row.get("extracted_answer")
        parts = (row["verdict"], f"answer {answer}" if answer is not None else "", problem)
        return Trace(
            id=row["rollout_id"], title=_joined(parts),
            text="\n".join([f"answer: {answer}", *filter(None, [row.get("detail")])]),
            verdict=_verdict(row["verdict"]),
        )  # fmt: skip
    if "text" in row:
        parts = (f"{row.get('num_tokens', 0):,} tokens", row.get("finish_reason", ""), problem)
        return Trace(id=row.get("rollout_id") or problem, title=_joined(parts), text=row["text"])
    name, value = next(iter(row.items()))
    return Trace(id=str(value), title=_joined((row.get("outcome", ""), problem)), text=f"{name}")


def _said(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what stands in a proposal: the intervention, why not, the proposer's last words."""
    if row["intervention"]:
        yield f"intervention: {row['intervention'].strip()}"
    if row["detail"]:
        yield row["detail"]
    if row["turns"]:
        yield row["turns"][-1]["reply"]


def _joined(parts: tuple[str | None, ...]) -> str:
    return "  ".join(str(part) for part in parts if part)


def _verdict(verdict: Verdict | str) -> str:
    return str(Verdict(verdict))
