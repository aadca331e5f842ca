"""The page of all results: what of the paper holds, what does not, and what cannot be told.

Each finding of ``findings.toml`` names the statements that speak about it; their verdicts and
figures are those of the studies' pages. One that no study has made yet is "not run".
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from midcourse.errors import ArtifactError
from midcourse.experiments.catalogue import experiments
from midcourse.experiments.claims import primary_claims
from midcourse.experiments.claims_page import claims_table
from midcourse.experiments.outcomes import outcomes
from midcourse.experiments.page import BEGIN, END, by_hand, verdict_cell
from midcourse.experiments.studies import Study, studies
from midcourse.store.files import load_object
from midcourse.table import Table

NOT_RUN = "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Statements of one experiment, those whose words begin with `statement`."""

    study: str
    experiment: str = ""
    """Left out: of the file that the study's command leaves."""
    statement: str = ""
    but: tuple[str, ...] = ()
    """Beginnings of those that are another finding's."""

    def are_about(self, words: str) -> bool:
        """Whether a statement is one of them."""
        return words.startswith(self.statement) and not words.startswith(self.but)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the paper says."""

    words: str
    paper: str
    """Where it says so; of what is asked beyond it, "ours"."""
    note: str = ""
    """What to know before reading its lines."""
    evidence: tuple[Statements, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One statement of a study."""

    study: Study
    experiment: str
    words: str
    verdict: str
    figures: str
    runs: str
    unit: str
    primary: int = 0
    """The place of the primary claim that judges it, if one does."""

    def cells(self) -> tuple[str, ...]:
        """Return its row in the table of a finding."""
        anchor = f"#{self.experiment}" if self.experiment else ""
        name = self.experiment or self.study.name
        page = name if self.verdict == NOT_RUN else f"[{name}]({self.study.page}.md{anchor})"
        verdict = verdict_cell(self.verdict, self.primary)
        return (self.study.where, self.words, verdict, self.figures, self.runs, self.unit, page)


COLUMNS = ("where", "statement", "verdict", "figures", "runs", "unit", "page")


@cache
def findings() -> tuple[Finding, ...]:
    """Return every finding, in order."""
    text = (resources.files("midcourse.experiments") / "findings.toml").read_text("utf-8")
    adapter = TypeAdapter(dict[str, tuple[Finding, ...]], config=ConfigDict(extra="forbid"))
    return adapter.validate_python(tomllib.loads(text))["finding"]


def write_index(results: Path) -> None:
    """Write ``index.md`` from the results of the studies' pages in `results`, and the claims."""
    page = results / "index.md"
    lines = {finding: list(_lines(finding, results)) for finding in findings()}
    text = [
        "# What of the paper holds, what does not, and what cannot be told",
        "",
        "Every statement of every study stands here, and every verdict is computed. A primary "
        "claim holds, or does not, by an exact test over ten runs, corrected for the number of "
        "claims. Any other statement does if the 95 % interval of its difference lies on one side "
        "of zero, or of the margin that it names; that is uncorrected, so some statements that are "
        "false will seem to hold. Else the data cannot tell, which shows no equality. Until all "
        "runs that were planned are there, nothing is judged: not yet. The lab is a model of a "
        "million parameters in a world of our own: it shows mechanism, and says nothing about "
        "large models.",
        "",
        BEGIN,
        by_hand(page, ""),
        END,
        "",
        "## Primary claims",
        "",
        "Named before they were judged, on ten runs an arm, and corrected together; [what had been "
        "seen by then, and each run's numbers](claims.md).",
        "",
        *claims_table(outcomes(primary_claims(), results), "claims.md").markdown(),
        "",
        "## Everything else, exploratory",
        "",
        "For each finding, how many statements got each verdict. The unit of an interval is a "
        "training run, or a problem where one model is asked and nothing is trained. A question "
        "that a primary claim also asks, on more runs, is judged there and not counted here.",
        "",
        *_summary(lines.items()),
    ]
    for number, (finding, of) in enumerate(lines.items(), start=1):
        table = Table(finding.words, COLUMNS, tuple(line.cells() for line in of))
        text += ["", f'<a id="finding-{number}"></a>', "", f"## {table.title}"]
        text += ["", " ".join(filter(None, (f"Paper: {finding.paper}.", finding.note)))]
        text += ["", *table.markdown()]
    page.write_text("\n".join(text) + "\n", "utf-8")


def _summary(lines: Iterable[tuple[Finding, Sequence[Line]]]) -> list[str]:
    """Return the findings by world, with the number of statements of each verdict."""
    worlds = list(dict.fromkeys(study.world for study in studies().values()))
    rows = []
    for number, (finding, of) in enumerate(lines, start=1):
        own = [line for line in of if not line.primary]
        cells = (_verdicts(line.verdict for line in own if line.study.world == w) for w in worlds)
        rows.append((f"[{finding.words}](#finding-{number})", finding.paper, *cells))
    return Table("", ("the paper", "there", *worlds), tuple(rows)).markdown()


def _verdicts(verdicts: Iterable[str]) -> str:
    """Return one verdict where all agree, else how often each was given; a dash without any."""
    counts = Counter(verdicts)
    if len(counts) == 1:
        return f"**{next(iter(counts))}**"
    return ", ".join(f"{verdict}: {number}" for verdict, number in counts.most_common()) or "–"


def _lines(finding: Finding, results: Path) -> Iterator[Line]:
    for evidence in finding.evidence:
        study = studies()[evidence.study]
        result = _result(study, evidence.experiment, results)
        claims = [c for c in result.get("claims", ()) if evidence.are_about(c["claim"])]
        words = evidence.statement or "all statements"
        for claim in claims or [{"claim": words, "verdict": NOT_RUN, "figures": "–"}]:
            yield Line(
                study=study,
                experiment=evidence.experiment,
                words=claim["claim"],
                verdict=claim["verdict"],
                figures=claim["figures"],
                runs=claim.get("runs") or _runs(result),
                unit=_unit(evidence, claim),
                primary=claim.get("primary", 0),
            )


def _unit(evidence: Statements, claim: Mapping[str, Any]) -> str:
    """Return what is resampled, or counted, for the interval of a statement."""
    known = experiments()[evidence.experiment].unit if evidence.experiment else "–"
    return claim.get("unit") or str(known)


def _result(study: Study, experiment: str, results: Path) -> dict[str, Any]:
    """Return the result that holds the statements; an empty one if it is not there.

    One that was not built from data, but from runs of one's own, is not there.
    """
    if not experiment:
        return {"claims": read_statements(results / study.data)}
    result = load_object(results / study.page / f"{experiment}.json")[0]
    return result if "reads" in result.get("state", {}) else {}


def read_statements(file: Path) -> list[dict[str, str]]:
    """Return the statements that a study's command left; none if the file is not there.

    Raises ArtifactError if it is damaged: statements must not be missing without a word.
    """
    if not file.exists():
        return []
    data, problem = load_object(file)
    if problem or not isinstance(data.get("claims"), list):
        raise ArtifactError(
            f"{file} {problem or 'holds no statements'}: restore it, or remove it and run all "
            "parts of its study again (with --page-only no model runs)"
        )
    claims: list[dict[str, str]] = data["claims"]
    return claims


def _runs(result: dict[str, Any]) -> str:
    """Say how many runs an arm has, e.g. ``4 of 10``."""
    state = result.get("state", {})
    if "seeds" not in state:
        return "–"
    planned = len(state.get("planned", state["seeds"]))
    return f"{len(state['seeds'])} of {planned}"
