r"""Our grader against plain math-verify on the hand-made pairs of tests/data/answer_pairs.jsonl.

    python benchmarks/grading_table.py

Prints the confusion of both, by form, and every pair that one of them gets wrong. Plain
math-verify is called as its own documentation shows: ``verify(parse("$gold$"), parse(response))``.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from midcourse.checkers import Grader, checker_named
from midcourse.records import Gold, Verdict

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "answer_pairs.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """One hand-made pair: ``Pair(form="sets", gold="1, 2", answer="2, 1", equal=True)``."""

    form: str
    gold: str
    answer: str
    equal: bool

    @property
    def response(self) -> str:
        """What a model would have written."""
        return f"So \\boxed{{{self.answer}}}."


def read_pairs() -> list[Pair]:
    """Return the hand-made pairs."""
    return [Pair(**json.loads(line)) for line in PAIRS.read_text(encoding="utf-8").splitlines()]


def ours(pairs: list[Pair]) -> list[Verdict]:
    """Return our verdicts."""
    with Grader(timeout_seconds=20) as grader:
        graded = grader.grade((pair.response, Gold("math", pair.gold)) for pair in pairs)
        return [result.verdict for result in graded]


def plain(pair: Pair) -> Verdict:
    """Return the verdict of math-verify alone; what it cannot parse it calls different."""
    from math_verify import parse, verify

    equal = verify(parse(f"${pair.gold}$"), parse(pair.response))
    return Verdict.CORRECT if equal else Verdict.INCORRECT


def main() -> None:
    """Print the table and the disagreements."""
    logging.disable(logging.CRITICAL)
    pairs = read_pairs()
    verdicts = {
        checker_named("math").version: ours(pairs),
        "math-verify alone": [plain(pair) for pair in pairs],
    }
    for name, given in verdicts.items():
        print(f"\n{name}\n")
        print_confusion(pairs, given)
    for name, given in verdicts.items():
        print(f"\nwrong by {name}:\n")
        for pair, verdict in zip(pairs, given, strict=True):
            if not is_right(pair, verdict):
                should = "equal" if pair.equal else "different"
                print(f"- {pair.form}: `{pair.gold}` and `{pair.answer}` are {should}: {verdict}")


def is_right(pair: Pair, verdict: Verdict) -> bool:
    """Whether a verdict is the right one; `ungraded` never is."""
    return verdict is (Verdict.CORRECT if pair.equal else Verdict.INCORRECT)


def print_confusion(pairs: list[Pair], verdicts: list[Verdict]) -> None:
    """Print the counts by form as Markdown."""
    counts: Counter[tuple[str, bool, Verdict]] = Counter()
    for pair, verdict in zip(pairs, verdicts, strict=True):
        for form in (pair.form, "all"):
            counts[form, pair.equal, verdict] += 1
    three = "credited | refused | ungraded"
    print(f"| form | equal: {three} | different: {three} |")
    print("|---|---|---|---|---|---|---|")
    columns = (Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNGRADED)
    for form in [*dict.fromkeys(pair.form for pair in pairs), "all"]:
        cells = [str(counts[form, equal, column]) for equal in (True, False) for column in columns]
        print(f"| {form} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
