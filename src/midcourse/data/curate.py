r"""Curation: which problems of a source can be trained on, and why the others cannot.

Every row gets exactly one outcome, the first that applies in the order of `CurationOutcome`, so
the funnel adds up. Overlap with a benchmark is that of the text: the normalised words of a problem
are those of a benchmark's, or more than half of its runs of 13 words stand in one. Answers and
references are not compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from midcourse.checkers import Grader
from midcourse.data.problems import Row, json_line, read_problems, unsound_golds
from midcourse.records import DEFAULT_CHECKER, Problem

#: As in the contamination checks of GPT-3's paper; shorter runs are common phrases.
NGRAM_WORDS = 13
OVERLAP_SHARE = 0.5


class CurationOutcome(StrEnum):
    """What became of one row."""

    KEPT = "kept"
    BROKEN = "broken"
    """The row cannot be read as a problem."""
    NO_ANSWER = "no answer"
    """It is missing, empty, or what stands for that: "not found", "see solution"."""
    NO_REFERENCE = "no reference"
    PROOF_STYLE = "proof-style"
    DUPLICATE = "duplicate"
    OVERLAP = "overlap with a benchmark"
    GOLD_UNREADABLE = "gold does not grade itself"
    """Last, because it takes the grader."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """One row that is not kept."""

    outcome: CurationOutcome
    where: str
    """File and row, e.g. ``p.csv:row 3``."""
    why: str
    """What is wrong with it, in words."""
    given: Mapping[str, Any]
    """The row as it stands in the file."""

    def line(self) -> str:
        """Return it as a line of JSON."""
        found = {"outcome": self.outcome.value, "where": self.where, "why": self.why}
        return json_line({**found, "row": self.given})


@dataclass(frozen=True, slots=True)
class Curation:
    """The problems that are kept, and the rows by outcome, e.g. ``{KEPT: 3, DUPLICATE: 1}``."""

    kept: list[Problem]
    outcomes: dict[CurationOutcome, int]
    dropped: list[Dropped]
    """The rows that are not kept, by outcome."""
    others: dict[str, Mapping[str, Any]]
    """What the file says of the kept problems beyond our fields, by problem id."""

    @property
    def examples(self) -> dict[CurationOutcome, str]:
        """The first dropped row of each outcome, in words."""
        return {row.outcome: row.why for row in reversed(self.dropped)}

    @property
    def num_rows(self) -> int:
        """How many rows were read: the outcomes add up to it."""
        return sum(self.outcomes.values())


def curate(
    place: str | Path,
    grader: Grader,
    *,
    require_reference: bool = True,
    against: Sequence[str | Path] = (),
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    checker: str = DEFAULT_CHECKER,
) -> Curation:
    """Sort the rows of a place. Raises DataError if it, or a benchmark, cannot be opened.

    `against` are the places of benchmarks. `limit` counts rows, not problems kept. `checker` is
    that of rows that name none.
    """
    others = (row.problem for other in against for row in read_problems(other))
    overlap = Overlap(problem.text for problem in others if problem is not None)
    dropped: list[Dropped] = []
    candidates: list[tuple[Problem, Row]] = []
    seen: set[str] = set()

    def drop(row: Row, outcome: CurationOutcome, why: str) -> None:
        dropped.append(Dropped(outcome, row.where, why, row.given))

    rows = read_problems(place, columns=columns or {}, limit=limit, checker=checker)
    for row in islice(rows, limit):
        outcome = _outcome(row, require_reference, seen, overlap)
        if outcome is CurationOutcome.KEPT and row.problem is not None:
            candidates.append((row.problem, row))
        else:
            drop(row, outcome, row.complaints[0] if row.complaints else row.where)
    kept: list[tuple[Problem, Row]] = []
    unsound = {p.problem_id for p, _ in unsound_golds([p for p, _ in candidates], grader)}
    for problem, row in candidates:
        if problem.problem_id not in unsound:
            kept.append((problem, row))
        else:
            example = f"{problem.problem_id}: {problem.answer[:80]}"
            drop(row, CurationOutcome.GOLD_UNREADABLE, example)
    counts = Counter([row.outcome for row in dropped] + [CurationOutcome.KEPT] * len(kept))
    return Curation(
        [problem for problem, _ in kept],
        {outcome: counts[outcome] for outcome in CurationOutcome},
        dropped,
        {problem.problem_id: row.others for problem, row in kept if row.others},
    )


def _outcome(
    row: Row, require_reference: bool, seen: set[str], overlap: Overlap
) -> CurationOutcome:
    """Return the outcome of one row but for its gold; remembers its text."""
    if row.problem is None:
        if row.lacks_answer:
            return CurationOutcome.NO_ANSWER
        return CurationOutcome.DUPLICATE if row.is_repeated else CurationOutcome.BROKEN
    problem = row.problem
    if require_reference and not problem.reference_solution:
        return CurationOutcome.NO_REFERENCE
    if is_proof_style(problem):
        return CurationOutcome.PROOF_STYLE
    words = " ".join(_words(problem.text))
    if words in seen:
        return CurationOutcome.DUPLICATE
    seen.add(words)
    return CurationOutcome.OVERLAP if overlap.holds(problem.text) else CurationOutcome.KEPT


# --- proofs ------------------------------------------------------------------------------------

_PROOF = re.compile(
    r"(?:^|[.;:,?]\s+|\)\s*|\bthen\s+|\band\s+)(?:please\s+)?"
    r"(?:prove|show that|show the|demonstrate that|verify that|disprove)\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\b(?:find|determine|compute|calculate|evaluate|how many|what|which|how much|how long)\b",
    re.IGNORECASE,
)


def is_proof_style(problem: Problem) -> bool:
    """Whether a problem asks for a proof and for no value."""
    return bool(_PROOF.search(problem.text)) and not _ASKS.search(problem.text)


# --- overlap -----------------------------------------------------------------------------------

_WORD = re.compile(r"[a-z]+|[0-9]+")
_COMMAND = re.compile(
    r"\\(?:text|mathrm|left|right|displaystyle|begin|end|quad|dfrac|tfrac|frac)(?![A-Za-z])"
)


class Overlap:
    """The texts of benchmarks, as runs of words; holds hashes, not texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._whole: set[int] = set()
        self._runs: set[int] = set()
        for text in texts:
            words = _words(text)
            self._whole.add(hash(tuple(words)))
            self._runs.update(_runs(words))

    def holds(self, text: str) -> bool:
        """Whether a text is one of them, or shares more than half of its runs of words."""
        if not self._whole:
            return False
        words = _words(text)
        if hash(tuple(words)) in self._whole:
            return True
        runs = list(_runs(words))
        shared = sum(run in self._runs for run in runs)
        return bool(runs) and shared > OVERLAP_SHARE * len(runs)


def _words(text: str) -> list[str]:
    """Return the words and numbers of a text, without case, marks and what LaTeX only lays out."""
    return _WORD.findall(_COMMAND.sub(" ", text).lower())


def _runs(words: Sequence[str]) -> Iterator[int]:
    for start in range(len(words) - NGRAM_WORDS + 1):
        yield hash(tuple(words[start : start + NGRAM_WORDS]))
