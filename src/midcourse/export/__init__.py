"""Hands a finished run over to other projects: one module per format, one README per folder.

Ids go over where a project takes ids. Where it takes texts only, its README and the command say
what is lost; a format that closes the turn is labelled "not faithful: adds end-of-turn".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from midcourse.errors import ArtifactError, ConfigError
from midcourse.export import (
    credit,
    dpo,
    inspect_logs,
    jsonl,
    llama_factory,
    pipelinerl,
    proposals,
    traces,
    trl,
    verifiers,
    verl,
)
from midcourse.export.evidence import Evidence
from midcourse.export.handover import Handover, Part, gather
from midcourse.export.readme import about_cases, about_problems, about_rows, data_card
from midcourse.pipeline import open_run

__all__ = ["FORMATS", "ROW_FORMATS", "RUN_FORMATS", "export_run", "write_format"]

#: Of rows and problems, by name: writes its files into a folder and says what they are. How to use
#: them is said by the template of that name.
ROW_FORMATS: dict[str, Callable[[Handover, Path], list[Part]]] = {
    "trl": trl.write,
    "llama-factory": llama_factory.write,
    "verl": verl.write,
    "verifiers": verifiers.write,
    "pipelinerl": pipelinerl.write,
    "jsonl": jsonl.write,
}
#: Of those the ones that hand over problems alone.
_PROBLEMS_ALONE = {"verifiers", "pipelinerl"}
#: Of whatever is complete, rows or no rows.
RUN_FORMATS: dict[str, Callable[[Evidence, Path], list[Part]]] = {
    "proposals": proposals.write,
    "dpo": dpo.write,
    "credit": credit.write,
    "inspect": inspect_logs.write,
    "traces": traces.write,
}
FORMATS = (*ROW_FORMATS, *RUN_FORMATS)


def export_run(run_dir: Path, format_name: str, out: Path) -> list[Part]:
    """Write one format of a run to `out`, an empty or new folder.

    Raises MidcourseError: an unknown format, a run that lacks what it needs, a folder in use.
    """
    if format_name not in FORMATS:
        raise ConfigError(f"no format {format_name!r}: there are {', '.join(FORMATS)}")
    finished = open_run(run_dir)
    if format_name in ROW_FORMATS:
        return write_format(gather(finished), format_name, out)
    evidence = Evidence(finished)
    _begin(out)
    parts = RUN_FORMATS[format_name](evidence, out)
    card = data_card(evidence.name, format_name, parts, about_cases(evidence), evidence.values())
    (out / "README.md").write_text(card, "utf-8")
    return parts


def write_format(handover: Handover, format_name: str, out: Path) -> list[Part]:
    """Write one format of rows, and its README. Raises ArtifactError if there is no row."""
    if not handover.rows:
        raise ArtifactError("export: no row is ready: look at 'midcourse status'")
    _begin(out)
    parts = ROW_FORMATS[format_name](handover, out)
    about = about_problems(handover) if format_name in _PROBLEMS_ALONE else about_rows(handover)
    card = data_card(handover.name, format_name, parts, about, handover.values())
    (out / "README.md").write_text(card, "utf-8")
    return parts


def _begin(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(f"{out} is there and not empty: give another --out")
    out.mkdir(parents=True, exist_ok=True)
