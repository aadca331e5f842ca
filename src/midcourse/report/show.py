"""``midcourse show``: what the viewer's page holds, in the terminal: lists, and one trace whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from midcourse.errors import ArtifactError
from midcourse.printable import printable
from midcourse.report.rl import rl_folders
from midcourse.table import Table
from midcourse.training.rl.store import GroupSummary, read_group_summaries
from midcourse.viewer.chunks import Body
from midcourse.viewer.collect import collect_view
from midcourse.viewer.data import Item, Kind, ProposalBody, RolloutBody, View
from midcourse.viewer.room import Room, Shown

_VERDICTS = {"correct": "green", "incorrect": "red", "no_answer": "red", "ungraded": "yellow"}
#: Continuations shown whole: the telling ones come first.
_MOST_CONTINUATIONS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which traces to list; what is empty or null does not choose."""

    kind: Kind = Kind.PROPOSAL
    outcome: str = ""
    verified: bool | None = None
    problem_id: str = ""
    words: str = ""
    """In the problem, the intervention, the reply or the text, in any case."""


def read_view(run_dir: Path, *, with_rollouts: bool) -> View:
    """Read all traces of a run directory, or its proposals alone."""
    return collect_view(run_dir, Room(Shown.ALL if with_rollouts else Shown.NONE))


def choose(view: View, wanted: Wanted) -> list[Item]:
    """Return the items that are wanted. Raises ArtifactError if there is none, saying what is."""
    of_kind = [item for item in view.items if item.kind is wanted.kind]
    found = [item for item in of_kind if _is_wanted(view, item, wanted)]
    if wanted.words:
        bodies = bodies_of(view, found)
        words = wanted.words.lower()
        found = [i for i in found if words in _text(view, i, bodies[i.id]).lower()]
    if not found:
        there = ", ".join(f"{name} {n}" for name, n in Counter(i.outcome for i in of_kind).items())
        raise ArtifactError(
            f"{view.name} has no {wanted.kind} like that; there are: {there or 'none at all'}"
        )
    return found


def _is_wanted(view: View, item: Item, wanted: Wanted) -> bool:
    return (
        wanted.outcome in ("", item.outcome)
        and wanted.verified in (None, item.verified)
        and wanted.problem_id in ("", view.problems[item.problem].problem_id)
    )


def find(view: View, record_id: str) -> list[Item]:
    """Return the items of an id, of a problem's id, or of the beginning of one id alone.

    Raises ArtifactError if there is none, or if several begin so.
    """
    problems = [problem.problem_id for problem in view.problems]
    bodies = dict[str, Body]()
    found = [i for i in view.items if record_id in (i.id, problems[i.problem])]
    if not found:
        begun = [item for item in view.items if item.id.startswith(record_id)]
        if len(begun) > 1:
            some = ", ".join(item.id for item in begun[:5])
            raise ArtifactError(f"{len(begun)} ids begin with {record_id!r}: {some} …")
        found = begun
    if not found:  # proposals about a rollout that is not shown by itself
        bodies = bodies_of(view, [item for item in view.items if item.kind is Kind.PROPOSAL])
        found = [i for i in view.items if i.id in bodies and _rollout(bodies[i.id]) == record_id]
    if not found:
        raise ArtifactError(
            f"{view.name} has no proposal and no rollout for {record_id!r}: list proposals with "
            "'midcourse show', rollouts with --kind rollout or --kind rl, without an id"
        )
    return found


def _rollout(body: Body) -> str:
    return body.rollout_id if isinstance(body, ProposalBody) else ""


def bodies_of(view: View, items: Sequence[Item]) -> dict[str, Body]:
    """Return the texts of items, by id."""
    places = {(item.chunk, item.position): item.id for item in items}
    wanted = {chunk for chunk, _ in places}
    return {
        places[number, position]: body
        for number, chunk in enumerate(view.chunks)
        if number in wanted
        for position, body in enumerate(chunk)
        if (number, position) in places
    }


def _text(view: View, item: Item, body: Body) -> str:
    texts = [view.problems[item.problem].text, *body.steps]
    if isinstance(body, ProposalBody):
        texts += [body.intervention, *(reply for _, reply in body.turns)]
    return "\n".join(texts)


# --- a list ------------------------------------------------------------------------------------


def item_table(view: View, items: Sequence[Item], most: int) -> Table:
    """Return a line per item: what became of it, and its first words."""
    kind = items[0].kind
    rows = tuple(
        (
            item.id,
            view.problems[item.problem].problem_id,
            item.outcome,
            *_cells(item),
            item.title[:60],
        )
        for item in items[:most]
    )
    left = len(items) - len(rows)
    note = f"{left:,} more: choose with --outcome, --problem or --search, or give --limit"
    columns = ("id", "problem", "outcome", *_COLUMNS[kind], "begins")
    return Table(f"{len(items):,} of kind {kind}", columns, rows, note if left else "")


_COLUMNS = {
    Kind.PROPOSAL: ("step", "correct"),
    Kind.ROLLOUT: ("model", "set"),
    Kind.RL: ("arm", "group", "advantage"),
}


def _cells(item: Item) -> tuple[str, ...]:
    """Return the cells of the columns that a kind of item has for itself."""
    if item.kind is Kind.PROPOSAL:
        tried = f"{item.num_correct} of {item.num_continuations}" if item.num_continuations else "–"
        return str(item.location or "–"), tried
    if item.kind is Kind.ROLLOUT:
        return item.model, item.eval_set
    return item.arm, f"{item.iteration}/{item.group}", f"{item.advantage or 0:+.2f}"


# --- one trace ---------------------------------------------------------------------------------


def panels(view: View, items: Sequence[Item]) -> Group:
    """Return items whole, each problem with its reference before them."""
    bodies, parts, shown = bodies_of(view, items), list[Panel](), set[int]()
    for item in items:
        if item.problem not in shown:
            shown.add(item.problem)
            parts.append(_problem_panel(view, item.problem))
        body = bodies[item.id]
        text = _proposal(item, body) if isinstance(body, ProposalBody) else _attempt(item, body)
        parts.append(Panel(text, title=_title(item), title_align="left"))
    return Group(*parts)


def _problem_panel(view: View, number: int) -> Panel:
    problem = view.problems[number]
    text = Text(printable(problem.text))
    text.append(f"\n\nanswer: {printable(problem.answer)}", "bold")
    if problem.num_rollouts:
        status = f"{problem.num_correct} of {problem.num_rollouts} rollouts correct"
        text.append(f"\n{' · '.join(part for part in (problem.status, status) if part)}", "dim")
    text.append(f"\n\nreference: {printable(problem.reference or 'none')}", "dim")
    title = Text(f"problem {printable(problem.problem_id, keep='')}")
    return Panel(text, title=title, title_align="left")


def _title(item: Item) -> Text:
    parts = [item.id, item.outcome, item.model]
    parts += [item.eval_set, item.condition] if item.kind is Kind.ROLLOUT else []
    parts += [_place_in_rl(item)] if item.kind is Kind.RL else []
    return Text(printable(": ".join(part for part in parts if part), keep=""))


def _place_in_rl(item: Item) -> str:
    place = f"iteration {item.iteration}, group {item.group}, {item.condition}"
    state = "" if item.trained else ", replaced"
    return f"{place}{state}, advantage {item.advantage or 0:+.3f}"


def _attempt(item: Item, body: RolloutBody) -> Text:
    text = Text(printable(body.context), "dim")
    for number, step in enumerate(body.steps, start=1):
        text.append(f"{number:3d}  {printable(step.strip())}\n")
    said = [f"answer: {body.answer or 'none'}", *([body.detail] if body.detail else [])]
    return text.append(f"\n{printable(chr(10).join(said))}", _VERDICTS.get(item.outcome))


def _proposal(item: Item, body: ProposalBody) -> Text:
    """Return the attempt with the step that is replaced named in words, and what was tried."""
    text, at = (
        Text(f"rollout {body.rollout_id}, answer {printable(body.answer or 'none')}\n\n"),
        item.location,
    )
    for number, step in enumerate(body.steps, start=1):
        if number == at and body.intervention:
            text.append(f"  →  {printable(body.intervention.strip())}   [intervention]\n", "green")
        said = "   [first error]" if number == at else ""
        style = "red" if number == at else "dim" if at and number > at else ""
        text.append(f"{number:3d}  {printable(step.strip())}{said}\n", style)
    if body.intervention and not (at and at <= len(body.steps)):
        text.append(f"  →  {printable(body.intervention.strip())}   [intervention]\n", "green")
    if body.detail:
        text.append(f"\n{item.outcome}: {printable(body.detail)}\n", "yellow")
    for part in _continuations(body):
        text.append_text(part)
    return text


def _continuations(body: ProposalBody) -> Iterator[Text]:
    """Yield how often each condition was right, and the telling continuations of each."""
    by_condition: dict[str, list[tuple[str, str]]] = {}
    for one in body.continuations:
        by_condition.setdefault(one.condition, []).append((one.verdict, one.text))
    for condition, found in by_condition.items():
        counts = Counter(verdict for verdict, _ in found)
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        yield Text(f"\n{condition}: {said}\n", "bold")
        if condition != "prefix_intervention":
            continue
        first = sorted(Counter(found).items(), key=lambda pair: pair[0][0] != "correct")
        for (verdict, text), times in islice(first, _MOST_CONTINUATIONS):
            joined = " / ".join(step.strip() for step in text.split("\n\n"))
            yield Text(
                f"  [{verdict}, {times} ×] {printable(joined)}\n", _VERDICTS.get(verdict, "")
            )


# --- for programs, and groups of RL ------------------------------------------------------------


def as_objects(view: View, items: Sequence[Item]) -> list[dict[str, object]]:
    """Return items with their texts as JSON holds them."""
    bodies = bodies_of(view, items)
    dropped = {"problem", "chunk", "position"}
    return [
        {
            **{name: value for name, value in asdict(item).items() if name not in dropped},
            "problem_id": view.problems[item.problem].problem_id,
            **asdict(bodies[item.id]),
        }
        for item in items
    ]


def groups_of(
    run_dir: Path, problem_id: str, iteration: int | None
) -> dict[str, list[GroupSummary]]:
    """Return the groups of each RL training, of one problem or iteration where one is given.

    Raises ArtifactError if there is none.
    """
    found = dict[str, list[GroupSummary]]()
    for folder, name in rl_folders(run_dir).items():
        groups = [
            group
            for group in read_group_summaries(folder)
            if problem_id in ("", group.count.problem_id)
            and iteration in (None, group.count.iteration)
        ]
        if groups:
            found[name] = groups
    if not found:
        of = f" of problem {problem_id!r}" if problem_id else ""
        at = f" in iteration {iteration}; they count from 0" if iteration is not None else ""
        raise ArtifactError(f"{run_dir} has no group of RL{of}{at}")
    return found


def groups_as_objects(found: Mapping[str, Sequence[GroupSummary]]) -> list[dict[str, object]]:
    """Return groups as JSON holds them."""
    return [
        {"training": name, **{k: v for k, v in asdict(one).items() if k != "count"}}
        | asdict(one.count)
        for name, groups in found.items()
        for one in groups
    ]


def group_tables(found: Mapping[str, Sequence[GroupSummary]]) -> Group:
    """Return a table of groups per RL training."""
    tables = (_group_table(f"Groups of {name}", groups) for name, groups in found.items())
    return Group(*(table.rich() for table in tables))


def _group_table(title: str, groups: Sequence[GroupSummary]) -> Table:
    rows = tuple(
        (
            f"{group.count.iteration}/{group.index}",
            group.count.problem_id,
            str(group.count.condition),
            str(group.count.num_correct),
            str(group.count.num_incorrect),
            str(group.count.num_ungraded),
            f"{group.least_advantage:+.2f}…{group.greatest_advantage:+.2f}",
            f"{group.num_tokens:,}",
            "trained" if group.is_trained else "replaced",
        )
        for group in groups
    )
    counts = ("correct", "incorrect", "ungraded", "advantages", "tokens", "batch")
    note = "A group is named by iteration and place in it, both from 0."
    return Table(title, ("group", "problem", "condition", *counts), rows, note)
