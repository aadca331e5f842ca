"""Hands a finished run over to other projects: one module per format, one README per folder.

Ids go over where a project takes ids. Where it takes texts only, its README and the command say
what is lost; a format that closes the turn is labelled "not faithful: adds end-of-turn".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from midcourse.errors import ArtifactError, ConfigError
from midcourse.export import jsonl, llama_factory, pipelinerl, trl, verifiers, verl
from midcourse.export.files import template
from midcourse.export.handover import Handover, Part, gather
from midcourse.records import RowSource

__all__ = ["FORMATS", "export_run", "write_format"]

#: By name: writes its files into a folder and says what they are. How to use them is said by the
#: template of that name.
FORMATS: dict[str, Callable[[Handover, Path], list[Part]]] = {
    "trl": trl.write,
    "llama-factory": llama_factory.write,
    "verl": verl.write,
    "verifiers": verifiers.write,
    "pipelinerl": pipelinerl.write,
    "jsonl": jsonl.write,
}


def export_run(run_dir: Path, format_name: str, out: Path) -> list[Part]:
    """Write one format of a finished run to `out`, an empty or new folder.

    Raises MidcourseError: an unknown format, a run without rows, a folder that is not empty.
    """
    if format_name not in FORMATS:
        raise ConfigError(f"no format {format_name!r}: there are {', '.join(FORMATS)}")
    return write_format(gather(run_dir), format_name, out)


def write_format(handover: Handover, format_name: str, out: Path) -> list[Part]:
    """Write one format and its README. Raises ArtifactError if there is nothing to write."""
    if not handover.rows:
        raise ArtifactError("export: no row is ready: look at 'midcourse status'")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(f"{out} is there and not empty: give another --out")
    out.mkdir(parents=True, exist_ok=True)
    parts = FORMATS[format_name](handover, out)
    usage = template(f"{format_name}.md").replace("{name}", handover.name)
    (out / "README.md").write_text(_readme(handover, format_name, parts, usage), "utf-8")
    return parts


def _readme(handover: Handover, format_name: str, parts: Sequence[Part], usage: str) -> str:
    lines = [
        f"# {handover.name}, for {format_name}",
        "",
        "Made by `midcourse export`. " + _what_a_row_is(handover),
        "",
        "| file | holds | |",
        "|---|---|---|",
        *(f"| `{part.path}` | {part.what} | {part.fidelity} |" for part in parts),
        "",
        usage.strip(),
    ]
    return "\n".join(lines) + "\n"


def _what_a_row_is(handover: Handover) -> str:
    rows = [row.row for row in handover.rows]
    closed = sum(row.closes_turn for row in rows)
    if closed or rows[0].source is not RowSource.INTERVENTION:
        return (
            f"The {len(rows)} rows are of source `{rows[0].source}`; {closed} of them end with an "
            "end-of-turn that is trained."
        )
    return (
        "A row is a prompt, a sampled prefix and the intervention that was verified to lead on "
        "from it; training stops there, and nothing closes the turn."
    )
