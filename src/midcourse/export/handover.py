"""What a finished run has to hand over, whatever the format: rows to patch with, tasks for RL.

Ids are the truth: they were verified, and they are what is trained here. Texts are decoded from
them for formats that take nothing else; `text_losses` counts what such a format cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from midcourse.config import Recipe
from midcourse.engines import resolve_model
from midcourse.export.settings import snippet_values
from midcourse.pipeline import FinishedRun
from midcourse.pipeline.contexts import ready_rows
from midcourse.records import Problem, RowSource, SftRow
from midcourse.rendering import Renderer
from midcourse.stages.build_sft import IGNORED

FAITHFUL = "faithful: the ids that were verified, and nothing after them"
ADDS_END_OF_TURN = "not faithful: adds end-of-turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file that was written, e.g. ``sft.parquet`` with 76 rows."""

    path: str
    """Relative to the folder of the format."""
    what: str
    """What it holds, in a few words, with a count."""
    fidelity: str = ""
    """For what is trained on: how it relates to what was verified; else empty."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Of a table: what each column holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRow:
    """One row to patch with: its ids and labels, and the same as texts."""

    row: SftRow
    problem: Problem
    user: str
    """The user message."""
    prefix: str
    intervention: str
    suffix: str
    """Empty unless the run appends continuations (Table 2)."""

    @property
    def response(self) -> str:
        """What stands in the assistant's turn."""
        return self.prefix + self.intervention + self.suffix


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem for outcome-reward RL: the user message and the gold."""

    problem: Problem
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Everything that a format may draw on."""

    name: str
    """Of the run."""
    rows: Sequence[ExportRow]
    tasks: Sequence[Task]
    renderer: Renderer
    model: str
    """The base model: a folder or a hub name."""
    recipe: Recipe

    @property
    def ids_are(self) -> str:
        """How the rows' ids and labels relate to what was verified."""
        rows, config = [row.row for row in self.rows], self.recipe.build_sft
        if any(row.source is not RowSource.INTERVENTION for row in rows):
            return f"the ids that midcourse trains on; rows of source {rows[0].source}"
        if unverified := sum(not row.num_correct for row in rows):
            return f"the ids that midcourse trains on; {unverified} of {len(rows)} not verified"
        if config.prefix == "dropped":
            return "the ids that were verified, without the prefix that stood before them"
        if config.suffix:
            return "the ids that were verified, then those of a correct continuation"
        return FAITHFUL

    @property
    def max_tokens(self) -> int:
        """Length of the longest row."""
        return max((len(row.row.input_ids) for row in self.rows), default=0)

    def values(self) -> dict[str, str]:
        """Return what fills the placeholders of the snippets."""
        return snippet_values(self.name, self.model, self.recipe, len(self.rows))

    def text_losses(self) -> list[str]:
        """Say what is lost for how many rows where texts are handed over instead of ids."""
        other_ids = sum(not self._encodes_back(row) for row in self.rows)
        masked = sum(IGNORED in row.row.labels[row.row.prompt_tokens :] for row in self.rows)
        closed = sum(row.row.closes_turn for row in self.rows)
        counts = {
            "get other ids when their text is encoded again": other_ids,
            "mask more than the prompt": masked,
            "end with a sampled end-of-turn": closed,
        }
        total = len(self.rows)
        return [f"{count} of {total} rows {what}" for what, count in counts.items() if count]

    def _encodes_back(self, row: ExportRow) -> bool:
        prompt = self.renderer.prompt_ids([{"role": "user", "content": row.user}])
        return (*prompt, *self.renderer.reply_ids(row.response)) == row.row.input_ids


def conversation(*turns: str) -> list[dict[str, str]]:
    """Return messages, the user's first."""
    roles = ("user", "assistant")[: len(turns)]
    return [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]


def gather(finished: FinishedRun) -> Handover:
    """Read a run whose rows are built; nothing is sampled or written.

    Raises ArtifactError if a stage is missing.
    """
    run, method, renderer = finished.run, finished.method, finished.renderer
    problems = {problem.problem_id: problem for problem in method.setup.problems.train}
    solve = method.setup.prompts["solve"]
    users = {key: solve.render(problem=problem.text) for key, problem in problems.items()}
    has_prefix = run.recipe.build_sft.prefix != "dropped"
    return Handover(
        name=run.recipe.name,
        rows=[
            _export_row(row, problems[row.problem_id], users[row.problem_id], renderer, has_prefix)
            for row in ready_rows(run, method.models.rows)
        ],
        tasks=[
            Task(problem=problems[p.problem_id], user=users[p.problem_id])
            for p in method.models.rl_problems.read(run)
        ],
        renderer=renderer,
        model=resolve_model(run.recipe.model.path),
        recipe=run.recipe,
    )


def _export_row(
    row: SftRow, problem: Problem, user: str, renderer: Renderer, has_prefix: bool
) -> ExportRow:
    middle = row.prompt_tokens + (row.prefix_tokens if has_prefix else 0)
    end = middle + row.intervention_tokens
    ids = row.input_ids
    parts = (ids[row.prompt_tokens : middle], ids[middle:end], ids[end:])
    prefix, intervention, suffix = renderer.decode_parts(*parts)
    return ExportRow(
        row=row,
        problem=problem,
        user=user,
        prefix=prefix,
        intervention=intervention,
        suffix=suffix,
    )
