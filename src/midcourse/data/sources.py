r"""The benchmarks that we know: where each is published, and which of its fields says what.

A source is one frozen description; what is special about a row (a worked answer that ends in
``####``, a prompt wrapped in instructions, an answer in a box) is a small function on its fields.
The fields are those of the data sets as published; `docs/data.md` lists them.

A problem's place is written ``SOURCE``, ``SOURCE:PLACE`` or ``PLACE`` (`midcourse.data.rows`):
``polaris``, ``gsm8k:train.jsonl``, ``mine.parquet``, ``hub:OWNER/NAME@test``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midcourse.checkers.math.extract import extract_answer
from midcourse.data.cells import as_object, asked_in, value_at
from midcourse.data.programs import human_eval, live_code_bench, mbpp
from midcourse.errors import DataError

#: The fields of our own files, and what a column map may name.
REQUIRED = ("problem", "answer")
OPTIONAL = ("id", "reference_solution", "source", "split", "checker")
FIELDS = (*REQUIRED, *OPTIONAL, "entry")
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One data set as published, e.g. ``Source(name="polaris", hub="hub:…/Polaris-Dataset-53K")``.

    A field's name may be given several times: the first one that a row has is taken.
    """

    name: str
    """What problems from it carry as their source."""
    hub: str = ""
    """Where it is published; empty where it is on no hub: give the file."""
    problem: tuple[str, ...] = ("problem",)
    answer: tuple[str, ...] = ("answer",)
    reference: tuple[str, ...] = ("solution",)
    identifier: tuple[str, ...] = ("problem_idx", "unique_id", "id")
    normalize: Callable[[dict[str, Any], Fields], dict[str, Any]] | None = None
    """Puts right what the names alone do not: given our fields and the row."""
    repeats: bool = False
    """Whether rows are published many times over: the first one stands."""

    def fields_of(self, row: Fields) -> dict[str, Any]:
        """Return our fields for one row; what it lacks stays out."""
        taken = {
            "problem": _first(row, self.problem),
            "answer": _first(row, self.answer),
            "reference_solution": _first(row, self.reference),
            "id": _first(row, self.identifier),
        }
        fields = {name: value for name, value in taken.items() if value is not None}
        fields = self.normalize(fields, row) if self.normalize else fields
        if "id" in fields:
            # Contests number their problems from 1: the source makes the ids unique.
            fields["id"] = f"{self.name}/{fields['id']}"
        return {"source": self.name, **fields}

    def others_of(self, row: Fields, columns: Mapping[str, str]) -> dict[str, Any]:
        """Return what a row says beyond our fields, e.g. tags and a difficulty."""
        ours = {*FIELDS, *columns.values()}
        if self is PLAIN:
            ours |= {"question"} if {"problem"}.isdisjoint([*row, *columns]) else set()
        else:
            ours |= {*self.problem, *self.answer, *self.reference, *self.identifier}
        return {name: value for name, value in row.items() if name not in ours}


def _first(row: Fields, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


# --- what is special ---------------------------------------------------------------------------

#: GSM8K's calculator marks, ``<<48/2=24>>``: written for a tool, not for a reader.
_CALCULATION = re.compile(r"<<[^<>]*>>")
_THOUSANDS = re.compile(r"[^\d,()\[\]{}]*\d{1,3}(?:,\d{3})+(?:\.\d+)?[^\d,()\[\]{}]*")
_DAPO = re.compile(
    r"Solve the following math problem step by step\.[^\n]*\n\n(?P<problem>.*?)"
    r"\n\nRemember to put your answer on its own line after \"Answer:\"\.?\s*",
    re.DOTALL,
)
#: Begins the instructions that AMO-Bench appends to every problem.
_AMO_TAIL = re.compile(r"\s*After solving the above problem, please .*", re.DOTALL)


def _worked(fields: dict[str, Any], row: Fields) -> dict[str, Any]:
    """GSM8K: the worked solution, then ``####`` and the final answer."""
    solution, mark, final = str(fields.get("answer", "")).rpartition("####")
    if not mark:
        return fields
    reference = _CALCULATION.sub("", solution).strip()
    answer = final.strip()
    if _THOUSANDS.fullmatch(answer):  # in a list, "2,3", a comma is no part of a number
        answer = answer.replace(",", "")
    return {**fields, "answer": answer, "reference_solution": reference}


def _boxed(fields: dict[str, Any], row: Fields) -> dict[str, Any]:
    """MATH: the answer is the last box of the solution, where no field gives it."""
    if "answer" in fields:
        return fields
    answer = extract_answer(str(fields.get("reference_solution", "")))
    return {**fields, "answer": answer} if answer is not None else fields


def _amo(fields: dict[str, Any], row: Fields) -> dict[str, Any]:
    """AMO-Bench: instructions after the problem, a box around the answer."""
    changed = dict(fields)
    if isinstance(fields.get("problem"), str):
        changed["problem"] = _AMO_TAIL.sub("", fields["problem"])
    if isinstance(fields.get("answer"), str):
        changed["answer"] = extract_answer(fields["answer"]) or fields["answer"]
    return changed


def _dapo(fields: dict[str, Any], row: Fields) -> dict[str, Any]:
    """DAPO: a conversation with one wrapped message, and verl's reward fields."""
    prompt = asked_in(fields.get("problem"))
    if isinstance(prompt, str) and (wrapped := _DAPO.fullmatch(prompt)):
        prompt = wrapped["problem"]
    reward, extra = as_object(row.get("reward_model")), as_object(row.get("extra_info"))
    given = {
        "problem": prompt,
        "answer": fields.get("answer") or reward.get("ground_truth"),
        "id": extra.get("index"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _svamp(fields: dict[str, Any], row: Fields) -> dict[str, Any]:
    """SVAMP: body and question apart, ``145.0`` for 145, the equation as the reference."""
    parts = [str(row[name]).strip() for name in ("Body", "Question") if row.get(name)]
    answer = re.sub(r"\.0+\Z", "", str(fields.get("answer", "")))
    changed = {**fields, "answer": answer}
    if parts and "problem" not in fields:
        changed["problem"] = " ".join(part if part[-1] in ".?!" else f"{part}." for part in parts)
    if fields.get("reference_solution"):
        changed["reference_solution"] = f"{fields['reference_solution']} = {answer}"
    return changed


# --- the benchmarks ----------------------------------------------------------------------------

PLAIN = Source(name="", reference=("reference_solution",))

SOURCES = {
    source.name: source
    for source in (
        Source(name="gsm8k", hub="hub:openai/gsm8k:main", problem=("question",), normalize=_worked),
        Source(name="math", hub="hub:HuggingFaceH4/MATH-500@test", normalize=_boxed),
        Source(name="omni-math", hub="hub:KbsdJames/Omni-MATH@test"),
        Source(name="deepscaler", hub="hub:agentica-org/DeepScaleR-Preview-Dataset"),
        Source(name="polaris", hub="hub:POLARIS-Project/Polaris-Dataset-53K"),
        Source(name="acereason-math", hub="hub:nvidia/AceReason-Math"),
        # Version 2 corrects statements and answers of version 1: never mix scores of the two.
        *(
            Source(
                name=name,
                problem=("Problem", "problem"),
                answer=("Short Answer", "answer"),
                identifier=("Problem ID", "id"),
            )
            for name in ("imo-answerbench", "imo-answerbench-v1")
        ),
        Source(
            name="amo-bench",
            hub="hub:meituan-longcat/AMO-Bench@test",
            problem=("prompt", "problem"),
            identifier=("question_id",),
            normalize=_amo,
        ),
        Source(name="hmmt-feb-2025", hub="hub:MathArena/hmmt_feb_2025"),
        Source(name="hmmt-nov-2025", hub="hub:MathArena/hmmt_nov_2025"),
        Source(name="apex-shortlist", hub="hub:MathArena/apex-shortlist"),
        Source(name="olymmath-easy", hub="hub:RUC-AIBOX/OlymMATH:en-easy@test"),
        Source(name="olymmath-hard", hub="hub:RUC-AIBOX/OlymMATH:en-hard@test"),
        Source(name="aime-2025", hub="hub:MathArena/aime_2025"),
        Source(name="beyond-aime", hub="hub:ByteDance-Seed/BeyondAIME@test"),
        Source(name="brumo-2025", hub="hub:MathArena/brumo_2025"),
        Source(name="cmimc-2025", hub="hub:MathArena/cmimc_2025"),
        Source(
            name="dapo",
            hub="hub:BytedTsinghua-SIA/DAPO-Math-17k",
            problem=("prompt",),
            answer=("solution",),
            reference=(),
            identifier=(),
            normalize=_dapo,
            repeats=True,
        ),
        Source(
            name="svamp",
            hub="hub:ChilleD/SVAMP",
            problem=("question_concat",),
            answer=("Answer",),
            reference=("Equation",),
            identifier=("ID",),
            normalize=_svamp,
        ),
    )
}

#: Benchmarks of programs, whose problems have tests for an answer.
PROGRAM_SOURCES = {
    source.name: source
    for source in (
        Source(
            name="humaneval",
            hub="hub:openai/openai_humaneval@test",
            problem=("prompt",),
            answer=("canonical_solution",),
            reference=(),
            identifier=("task_id",),
            normalize=human_eval,
        ),
        Source(
            name="mbpp",
            hub="hub:google-research-datasets/mbpp@test",
            problem=("text", "prompt"),
            answer=("code",),
            reference=(),
            identifier=("task_id",),
            normalize=mbpp,
        ),
        Source(
            name="livecodebench",
            problem=("question_content",),
            answer=(),
            reference=(),
            identifier=("question_id",),
            normalize=live_code_bench,
        ),
    )
}
ALL_SOURCES = {**SOURCES, **PROGRAM_SOURCES}


def find_source(spec: str) -> tuple[Source, str]:
    """Return the source that a place is of, and the place. Raises DataError for none.

    A place without a known source holds our own fields, or GSM8K's.
    """
    name, _, place = spec.partition(":")
    source = ALL_SOURCES.get(name)
    if source is None:
        _check_name(name, spec)
        return PLAIN, spec
    if not (place := place or source.hub):
        raise DataError(f"{name}: is on no hub: download it and write {name}:FILE")
    return source, place


def _check_name(name: str, spec: str) -> None:
    """Raise DataError for what is no file and nearly the name of a source."""
    near = difflib.get_close_matches(name, ALL_SOURCES, n=1)
    if near and re.fullmatch(r"[\w-]+", name) and not Path(spec).exists():
        raise DataError(f"{spec}: no such file and no such source: did you mean {near[0]!r}?")


def plain_fields(row: Fields, columns: Mapping[str, str]) -> dict[str, Any]:
    """Return our fields of a row that no source describes; `columns` says what is called what."""
    if "question" in row and not columns and "problem" not in row:
        kept = {name: row[name] for name in OPTIONAL if name in row}
        return {**SOURCES["gsm8k"].fields_of(row), **kept}
    found = {ours: value_at(row, columns.get(ours, ours)) for ours in FIELDS}
    fields = {ours: value for ours, value in found.items() if value is not None}
    if "question" in row and "problem" not in columns:
        fields.setdefault("problem", row["question"])
    return fields
