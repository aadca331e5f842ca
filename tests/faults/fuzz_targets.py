"""What outsiders write, thrown at what reads it: each target takes bytes and checks a promise.

A reader may refuse its input, in its own words; it may not raise anything else, and what it
accepts must be sound. The same targets run over the kept corpus (`make test`), under Hypothesis
and under a coverage-guided fuzzer (`make test-faults`, through ``fuzz.py``).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from midcourse.checkers.base import Pair
from midcourse.checkers.math.extract import boxed_answers, extract_answer, open_box_tail
from midcourse.checkers.registry import checker_named
from midcourse.data.problems import load_problems
from midcourse.errors import MidcourseError
from midcourse.prompts.parse import parse_proposal
from midcourse.records import DEFAULT_CHECKER, Gold, ProposalOutcome
from midcourse.steps import join_steps, split_steps

CORPUS = Path(__file__).parent / "corpus"


def extractor(data: bytes) -> None:
    """An answer is part of its response; what is left open is its end."""
    text = data.decode("utf-8", "replace")
    answer = extract_answer(text)
    assert answer is None or answer in text
    assert all(found in text for found in boxed_answers(text))
    assert text.endswith(open_box_tail(text))


def quick_comparison(data: bytes) -> None:
    """What runs in the calling process never raises, and nothing differs from itself."""
    gold, _, answer = data.decode("utf-8", "replace").partition("\n")
    math = checker_named(DEFAULT_CHECKER)
    math.compare_quickly(Pair(answer, Gold(DEFAULT_CHECKER, gold)), by_text=True)
    same = math.compare_quickly(Pair(gold, Gold(DEFAULT_CHECKER, gold)), by_text=True)
    assert same is None or same != "different"
    math.same(answer)


def parser(data: bytes) -> None:
    """An accepted proposal names a step that there is, and says something in valid Unicode."""
    found = parse_proposal(data.decode("utf-8", "replace"), num_steps=9)
    if found.outcome is ProposalOutcome.ACCEPTED:
        assert found.location is not None
        assert 1 <= found.location <= 9
        assert found.intervention
        assert found.intervention.strip()
        found.intervention.encode("utf-8")


def steps(data: bytes) -> None:
    """Steps join to the text they were split from."""
    text = data.decode("utf-8", "replace")
    assert join_steps(split_steps(text)) == text


def problem_reader(data: bytes) -> None:
    """A problem file is read or refused in one line."""
    with _file("problems.jsonl", data) as path, _refusals_allowed():
        for problem in load_problems(path):
            assert problem.text
            assert problem.problem_id
            json.dumps(problem.answer).encode("utf-8")


_ALL = (extractor, quick_comparison, parser, steps, problem_reader)
TARGETS: dict[str, Callable[[bytes], None]] = {target.__name__: target for target in _ALL}


def corpus_of(name: str) -> Iterator[bytes]:
    """Yield the kept inputs of a target."""
    for file in sorted((CORPUS / name).glob("*")):
        yield file.read_bytes()


@contextmanager
def _refusals_allowed() -> Iterator[None]:
    with suppress(MidcourseError):
        try:
            yield
        except MidcourseError as error:
            assert "\n" not in str(error)
            raise


@contextmanager
def _file(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path
