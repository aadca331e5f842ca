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
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

from midcourse.checkers.base import Pair
from midcourse.checkers.math.extract import boxed_answers, extract_answer, open_box_tail
from midcourse.checkers.registry import checker_named
from midcourse.config import load_recipe
from midcourse.data.problems import load_problems
from midcourse.engines.exchange import Reply
from midcourse.engines.replies import (
    Answer,
    read_chat,
    read_completion,
    refused_lengths,
    stated_length,
)
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.errors import MidcourseError
from midcourse.localize.ask import LocalizationOutcome, parse_first_error
from midcourse.localize.cases import load_error_cases
from midcourse.prompts.parse import parse_proposal
from midcourse.records import DEFAULT_CHECKER, Gold, ProposalOutcome, Turn, content_id
from midcourse.rendering import Renderer
from midcourse.report.status import status_table
from midcourse.run import read_recipe
from midcourse.steps import join_steps, split_steps
from midcourse.store.files import load_object, write_checked_json, write_json_atomic
from midcourse.store.index import read_index, write_index
from midcourse.store.repair import check_run, failed_requests
from midcourse.store.stage import StageStore, inspect, read_records, read_stage

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


def leak(data: bytes) -> None:
    """Whether an intervention gives an answer away is found out without raising."""
    answer, _, text = data.decode("utf-8", "replace").partition("\n")
    math = checker_named(DEFAULT_CHECKER)
    math.leaks(text, answer, lambda pair: False)
    assert math.leaks(math.state(answer), answer, lambda pair: pair.answer == answer) or (
        math.extract(math.state(answer)) != answer
    )


def locator(data: bytes) -> None:
    """A first error is named by a step that there is, or not at all."""
    outcome, step = parse_first_error(data.decode("utf-8", "replace"), num_steps=9)
    assert (step is not None) == (outcome is LocalizationOutcome.NAMED)
    assert step is None or 0 <= step < 9


def error_case_reader(data: bytes) -> None:
    """Marked solutions are read or refused in one line."""
    with _file("cases.jsonl", data) as path, _refusals_allowed():
        for case in load_error_cases(path):
            assert case.error_step is None or 0 <= case.error_step < len(case.steps)
            json.dumps([case.problem, *case.steps]).encode("utf-8")


def recipe(data: bytes) -> None:
    """A recipe is checked, and refused in a line each; what is accepted can be written and read."""
    with _file("r.toml", data) as path, _refusals_allowed(most=None):
        found = load_recipe(path)
        resolved = path.with_name("config.resolved.json")
        write_checked_json(resolved, found.model_dump(mode="json"))
        assert read_recipe(resolved) == found


@dataclass(frozen=True)
class Said:
    """A record with a field of every kind that records have."""

    name: str
    number: int
    share: float
    is_right: bool
    cause: str | None
    token_ids: tuple[int, ...]
    turns: tuple[Turn, ...]


def journal(data: bytes) -> None:
    """Lines that are what was written are records, the others are left out; nothing else."""
    bodies = (line for line in data.split(b"\n") if line)
    sound = b"".join(b'{"crc":"%08x",%b}\n' % (crc32(body), body) for body in bodies)
    for content in (data, sound):
        with _file("journal.jsonl", content) as path, _refusals_allowed():
            if not inspect(path.parent).entries:
                continue
            with StageStore(path.parent, Said) as store:
                assert all(isinstance(record, Said) for record in store.read())
                store.seal({})
            assert all(isinstance(record, Said) for record in read_stage(path.parent, Said))


def part(data: bytes) -> None:
    """A Parquet file holds the records that its schema names, or is refused."""
    name = f"part-00000-{sha256(data).hexdigest()[:16]}.parquet"
    with _file(name, data) as path:
        with _refusals_allowed():
            assert all(isinstance(record, Said) for record in read_records([path], Said))
        with _refusals_allowed(), StageStore(path.parent, Said) as store:
            assert all(isinstance(record, Said) for record in store.read())


def manifest(data: bytes) -> None:
    """A manifest is what was written, or the run is damaged: never a file outside, nor a crash."""
    with _file("run/sample/0123456789/manifest.json", data) as path:
        _look_at(path.parent)
        content, problem = load_object(path)
        if not problem:
            write_checked_json(path, content)
            _look_at(path.parent)


def _look_at(folder: Path) -> None:
    run_dir = folder.parents[1]
    write_json_atomic(run_dir / "stages.json", {})
    for look in (check_run, failed_requests, status_table):
        with _refusals_allowed():
            look(run_dir)
    with _refusals_allowed():
        assert not list(read_stage(folder, Said))


def index(data: bytes) -> None:
    """What ``stages.json`` says is believed entry by entry, and written again as it is believed."""
    with _file("stages.json", data) as path, _refusals_allowed():
        content, _ = load_object(path)
        for said in (content, {name: _sealed(name, one) for name, one in content.items()}):
            write_json_atomic(path, said)
            found = read_index(path.parent)
            assert not any(".." in Path(name).parts for name in found.entries)
            write_index(path.parent, found.entries)
            assert read_index(path.parent).entries == found.entries
            assert not read_index(path.parent).problem


def _sealed(name: str, entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    with suppress(UnicodeEncodeError):
        checksum = content_id(name, str(entry.get("stage")), str(entry.get("label")))[:10]
        return {**entry, "checksum": checksum}
    return entry


RENDERER = Renderer(ByteTokenizer())


def reply(data: bytes) -> None:
    """A server's reply is an answer in valid Unicode, within what was asked for, or refused."""
    said = Reply(200, data, {"Retry-After": data[:20].decode("latin-1")})
    assert 0 <= said.wait_seconds <= 30
    said.words.encode("utf-8", "surrogatepass")
    refused_lengths(said.words, 16)
    with suppress(ValueError):
        stated_length(said.json)
    readers: list[Callable[[Any], Answer]] = [
        lambda content: read_chat(content, 16),
        lambda content: read_completion(content, 16, None),
        lambda content: read_completion(content, 16, RENDERER),
    ]
    for read in readers:
        with suppress(ValueError):
            answer = read(said.json)
            answer.text.encode("utf-8")
            assert len(answer.token_ids) <= 16
            assert answer.finish_reason.has_reply


_TEXTS = (extractor, quick_comparison, parser, steps, leak, locator, reply)
_FILES = (problem_reader, error_case_reader, recipe, journal, part, manifest, index)
TARGETS: dict[str, Callable[[bytes], None]] = {t.__name__: t for t in (*_TEXTS, *_FILES)}
#: Targets that write files: slow.
SLOW = {target.__name__ for target in _FILES}


def corpus_of(name: str) -> Iterator[bytes]:
    """Yield the kept inputs of a target."""
    for file in sorted((CORPUS / name).glob("*")):
        yield file.read_bytes()


@contextmanager
def _refusals_allowed(most: int | None = 1) -> Iterator[None]:
    """Let errors of ours pass that have so many lines, none of them empty."""
    with suppress(MidcourseError):
        try:
            yield
        except MidcourseError as error:
            lines = str(error).split("\n")
            assert all(line.strip() for line in lines)
            assert most is None or len(lines) <= most
            raise


@contextmanager
def _file(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        yield path
