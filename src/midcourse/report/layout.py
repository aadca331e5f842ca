"""What stands where in a report: the sections of its page, from what was counted and found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from midcourse.report.collect import ReportData
from midcourse.report.estimates import MARGIN, MIN_PROBLEMS, ShapeLine, grouped
from midcourse.report.findings import Finding, summary
from midcourse.report.page import Block, Drawing, Facts, Page, Section, Sentences, Topic
from midcourse.report.rl import agreement_table, group_table
from midcourse.report.shape import SHAPE_NOTE, SHAPE_TITLE
from midcourse.report.tables import (
    condition_table,
    funnel_table,
    guided_table,
    likelihood_table,
    pass_at_k_table,
    rl_table,
)
from midcourse.table import Table

_HOW = (
    "A sentence rests on a 95 % interval, with whole problems resampled on both sides. “cannot "
    f"tell”: it holds zero and reaches beyond {100 * MARGIN:g} points; “the same”: it lies within "
    f"them. With fewer than {MIN_PROBLEMS} problems nothing is said. The intervals are not "
    "corrected for their number."
)
#: The viewer, written next to the report.
_VIEWER = ("view.html", "Read every proposal and rollout")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report says."""

    data: ReportData
    facts: Mapping[str, str]
    findings: Sequence[Finding]
    missing: Sequence[str]
    """What could not be measured, and why."""
    shape: Sequence[ShapeLine]
    """Empty for runs that the paper's expectations are not about."""
    costs: Table
    drawings: Mapping[str, Drawing]

    @cached_property
    def by_topic(self) -> dict[Topic, list[Table]]:
        """The tables of each section."""
        data = self.data
        rl = [rl_table(data.arms), group_table(data.courses), agreement_table(data.courses)]
        likelihoods = [likelihood_table(data.likelihoods, data.model_labels)]
        guided = [guided_table(data.guided)] if data.guided else []
        return {
            Topic.FUNNEL: [funnel_table(data.funnel), *guided],
            Topic.INTERVENTIONS: [condition_table(data.conditions, data.searches)],
            Topic.EVALUATION: pass_at_k_table(data.evaluations, data.ks),
            Topic.RL: rl if data.arms else [],
            Topic.LIKELIHOOD: likelihoods if data.likelihoods else [],
        }

    @property
    def tables(self) -> list[Table]:
        """All tables, in the order of the page."""
        return [table for tables in self.by_topic.values() for table in tables]


def report_page(report: Report) -> Page:
    """Return the page of a report."""
    before: dict[Topic, list[Block]] = {
        Topic.RUN: [Facts(list(report.facts.items()))],
        Topic.FINDINGS: _found(report),
        Topic.COSTS: [report.costs],
    }
    return Page(
        title=f"midcourse: {report.data.name}",
        summary=summary(report.data, report.findings),
        sections=[
            Section(topic, [*before.get(topic, []), *_drawn(report, topic)]) for topic in Topic
        ],
        link=_VIEWER,
    )


def _found(report: Report) -> list[Block]:
    by_heading = grouped((f.about, (str(f.verdict), f.sentence)) for f in report.findings)
    blocks: list[Block] = [Sentences(title, said) for title, said in by_heading.items()]
    blocks += [_HOW] if blocks else []
    if report.missing:
        why = [("not measured", reason) for reason in report.missing]
        blocks.append(Sentences("What could not be measured", why))
    if report.shape:
        rows = tuple((line.verdict, line.claim, line.figures) for line in report.shape)
        note = f"{SHAPE_NOTE}."
        columns = ("verdict", "expectation", "figures")
        blocks.append(Table(SHAPE_TITLE, columns, rows, note))
    return blocks


def _drawn(report: Report, topic: Topic) -> list[Block]:
    """Return the drawings of a section, and its tables below them."""
    drawings = [drawing for drawing in report.drawings.values() if drawing.topic is topic]
    return [*drawings, *report.by_topic.get(topic, [])]
