"""The README of an export, which is its data card: what is true of the files, how to use them.

Everything that it claims is counted in the data that was written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from midcourse.export.evidence import Evidence
from midcourse.export.files import template
from midcourse.export.handover import Handover, Part
from midcourse.records import ProposalOutcome, RowSource, SftRow
from midcourse.stages.build_sft import IGNORED

_SUFFIXES = (".parquet", ".jsonl", ".json")


def data_card(
    name: str, format_name: str, parts: Sequence[Part], about: str, values: Mapping[str, str]
) -> str:
    """Return the card of a folder: metadata for a hub, what is true, the files, a snippet.

    `values` fill the snippet's placeholders, ``{model}``.
    """
    usage = template(f"{format_name}.md")
    for key, value in values.items():
        usage = usage.replace(f"{{{key}}}", value)
    lines = [
        *_metadata(name, format_name, parts),
        "",
        f"# {name}, for {format_name}",
        "",
        f"Made by `midcourse export --format {format_name}`. {about}",
        "",
        "| file | holds | |",
        "|---|---|---|",
        *(f"| `{part.path}` | {part.what} | {part.fidelity} |" for part in parts),
        "",
        *_columns(parts),
        "## Use",
        "",
        usage.strip(),
        "",
        "## Licence",
        "",
        "Problems, answers and reference solutions keep the licence of the data set that they come "
        "from; texts of a model keep what its licence says of its output. Set `license` above "
        "before you share this.",
    ]
    return "\n".join(lines) + "\n"


def about_problems(handover: Handover) -> str:
    """Say that these are problems, and that no row is among them."""
    return (
        f"{_number(len(handover.tasks), 'problem')} with gold answers, for RL. What was proposed, "
        f"verified and trained on is not in here.{_talk(handover)}"
    )


def about_rows(handover: Handover) -> str:
    """Say what the rows are, what was verified of them, and which tokens are trained."""
    rows = [row.row for row in handover.rows]
    problems = len({row.problem_id for row in rows})
    number = f"{_number(len(rows), 'row')} of {_number(problems, 'problem')}"
    source = rows[0].source
    if source is RowSource.INTERVENTION:
        kind = f"{number}: each is a prompt, a sampled prefix and an intervention"
        if handover.recipe.build_sft.prefix == "dropped":
            kind = f"{number}: each is a prompt and an intervention, without the prefix"
        kind = f"{kind}. {_verified(rows)}"
    elif source is RowSource.ORIGINAL_STEP:
        kind = (
            f"{number}: each is a prompt, a sampled prefix and the *wrong* step that the model "
            "wrote there. They are a control, not interventions"
        )
    else:
        kind = (
            f"{number}: each is a prompt and a whole solution (`build_sft.source = "
            f'"{source}"`). They are a baseline, not interventions'
        )
    return f"{kind}. {_trained(rows)}{_talk(handover)}"


def about_cases(evidence: Evidence) -> str:
    """Say how many proposals there are, and what was verified under which conditions."""
    if not evidence.has_proposals:
        return "The run has no proposals yet."
    cases = evidence.cases
    accepted = sum(case.proposal.outcome is ProposalOutcome.ACCEPTED for case in cases)
    continued = Counter(str(condition) for case in cases for condition in case.tallies)
    verified = sum(case.is_verified for case in cases)
    under = ", ".join(f"{name} ({count})" for name, count in continued.items()) or "none yet"
    return (
        f"The run has {_number(len(cases), 'proposal')}, {accepted} of them accepted; "
        f"{verified} are verified: at least one continuation from the intervention is correct. "
        f"Conditions that were continued from, with the number of proposals: {under}."
    )


def _verified(rows: Sequence[SftRow]) -> str:
    verified = [row for row in rows if row.num_correct]
    said = "Every intervention was verified: at least one of its continuations is correct"
    if len(verified) < len(rows):
        said = (
            f"**{len(rows) - len(verified)} of {len(rows)} interventions are not verified** (none "
            "of their continuations is correct; `build_sft.filter = false`)"
        )
    shares = sorted(row.num_correct / row.num_continuations for row in verified)
    if not shares:
        return said
    middle = shares[len(shares) // 2]
    return f"{said}. Share of correct continuations of a verified one: median {middle:.0%}"


def _talk(handover: Handover) -> str:
    """Say what a trainer has to bring where rollouts are dialogues."""
    name = handover.recipe.environment.name
    if not name:
        return ""
    return (
        f" Rollouts are dialogues with the environment `{name}`, which is not in here: rows mask "
        "what it said, and RL on the problems needs it."
    )


def _trained(rows: Sequence[SftRow]) -> str:
    """Say which tokens carry a loss, as the labels have it."""
    total = sum(len(row.labels) for row in rows)
    trained = sum(label != IGNORED for row in rows for label in row.labels)
    masked = sum(row.prefix_tokens > 0 and row.labels[row.prompt_tokens] == IGNORED for row in rows)
    closed = sum(row.closes_turn for row in rows)
    prefix = "all that follows the prompt"
    if masked == len(rows):
        prefix = "what follows the prefix"
    elif masked:
        prefix = f"what follows the prompt (in {masked} rows: the prefix)"
    ends = "nothing closes the turn"
    if closed:
        ends = f"{closed} of {len(rows)} rows end with an end-of-turn that is trained"
    return f"The run trains {prefix}, {trained:,} of {total:,} tokens; {ends}."


def _metadata(name: str, format_name: str, parts: Sequence[Part]) -> list[str]:
    tables = [part for part in parts if part.columns and part.path.endswith(_SUFFIXES)]
    return [
        "---",
        f"pretty_name: {json.dumps(f'{name}, for {format_name}')}",
        "license: unknown",
        "tags:",
        "- midcourse",
        "- intervention-training",
        *(["configs:"] if tables else []),
        *(line for part in tables for line in _config(part)),
        "---",
    ]


def _config(part: Part) -> Iterable[str]:
    stem = part.path.replace("/", "-").rpartition(".")[0]
    return f"- config_name: {json.dumps(stem)}", f"  data_files: {json.dumps(part.path)}"


def _columns(parts: Sequence[Part]) -> Iterable[str]:
    for part in parts:
        if part.columns:
            yield f"## Columns of `{part.path}`"
            yield ""
            yield "| column | holds |"
            yield "|---|---|"
            yield from (f"| `{name}` | {what} |" for name, what in part.columns.items())
            yield ""


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
