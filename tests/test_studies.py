"""Studies: what is missing is made in order and resumes; pages come from data alone."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from midcourse.cli import app
from midcourse.errors import ArtifactError, ConfigError
from midcourse.experiments import build
from midcourse.experiments.catalogue import Row, experiments
from midcourse.experiments.claims import all_restated, claims_restated_in, primary_claims
from midcourse.experiments.data import Reading, RunData, SeedData, TimeIsUpError
from midcourse.experiments.evidence import Evidence, prune
from midcourse.experiments.index import NOT_RUN, findings, read_statements, write_index
from midcourse.experiments.outcomes import outcomes
from midcourse.experiments.readings import counts_on
from midcourse.experiments.runner import ExperimentRunner
from midcourse.experiments.studies import Study, choose_studies, studies
from midcourse.pipeline import Method, Session
from midcourse.progress import SilentProgress
from test_experiments import runner as runner

RESULTS = Path(__file__).parent.parent / "docs" / "results"
LAB = Study(
    name="small", page="small", title="A small study", scale="scale/lab", experiments={"lab": 4}
)
#: Correct of 32 rollouts of every problem, by model and evaluation set.
SHARES = {"base": 4, "patched": 5, "base + RL": 6, "patched + RL": 20}


def made_up(results: Path, seeds: range, lacking: str = "", study: Study = LAB) -> Evidence:
    """Return a study with readings made up of the seeds; one of them may be lacking."""
    evidence = Evidence(study, results)
    for seed in seeds:
        kept = evidence.kept.of(evidence.runner((seed,), evidence.kept).recipe("int", seed))
        kept.made = [{"code": "cafe", "machine": "ours", "torch": "2", "seconds": {}}]
        for row in experiments()["lab"].rows:
            correct = SHARES[str(row.role)] + seed % (2 if row.name == "base" else 3)
            of = {f"{seed}-{i}": [{"num_samples": 32, "num_correct": correct}] for i in "abc"}
            for key in (counts_on(name).key(row) for name in ("known", "control")):
                if key != lacking:
                    kept.readings[key], kept.made[0]["seconds"][key] = of, 60.0
        kept.keep("another", 0, 0.0)
    return evidence


def texts(folder: Path) -> dict[str, str]:
    """Return the files of pages that are the same whatever draws the figures."""
    files = (f for f in folder.rglob("*") if f.suffix in (".md", ".csv", ".json"))
    return {str(f.relative_to(folder)): f.read_text("utf-8") for f in files}


def test_a_page_is_built_from_data_alone_and_always_the_same(tmp_path: Path) -> None:
    evidence = made_up(tmp_path, range(1, 5))
    assert build.build(evidence)
    text = (tmp_path / "small.md").read_text()
    assert "4 runs an arm, seeds 1, 2, 3, 4." in text
    line = next(x for x in text.splitlines() if "| InT + RL gains at most 3 points" in x)
    assert "| does not hold | 65.6 against 14.1 %; difference +51.6 [+45.1, +58.0]" in line
    assert "InT + RL costs at most 3 points on known notions | holds" in text
    assert evidence.standing().there == 4
    assert evidence.line() == "small: all 4 runs are there"
    before = texts(tmp_path)
    assert build.build(evidence)
    assert texts(tmp_path) == before


def test_planned_runs_that_are_missing_are_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    evidence = made_up(tmp_path, range(1, 4))
    build.build(evidence)
    text = (tmp_path / "small.md").read_text()
    assert "**Not yet: 3 of 4 runs.** Figures are of those; verdicts wait for all." in text
    assert "| [lab](#lab) | Notions that are not taught | 3 of 4 | 0 | 0 | 0 |" in text
    line = next(x for x in text.splitlines() if "| InT + RL gains at most 3 points" in x)
    assert "| not yet | " in line and " against " in line
    of_json = json.loads((tmp_path / "small" / "lab.json").read_text())["claims"]
    assert {(claim["holds"], claim["verdict"]) for claim in of_json} == {(None, "not yet")}
    assert evidence.standing().there == 3
    assert evidence.line() == "small: 3 of 4 runs; about 8 minutes left"  # 8 readings of a minute
    assert [seed for _, seed in evidence.missing()] == [4]


def test_a_result_that_was_not_built_from_data_says_nothing_about_it(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "lab.json").write_text('{"state": {"seeds": [0, 1, 2]}}')
    evidence = Evidence(LAB, tmp_path)
    assert (evidence.standing().there, evidence.standing().missing) == (0, 4)
    assert len(list(evidence.missing())) == 4


def test_a_run_that_lacks_a_reading_is_not_there(tmp_path: Path) -> None:
    lacking = counts_on("control").key(experiments()["lab"].rows[1])
    evidence = made_up(tmp_path, range(1, 4))
    made_up(tmp_path, range(4, 5), lacking)
    build.build(evidence)
    assert evidence.standing().there == 3
    assert evidence.line() == "small: 3 of 4 runs; about 1 minutes left"
    assert "3 of 4 runs" in (tmp_path / "small.md").read_text()


def test_what_another_experiment_read_does_not_make_a_run_whole(tmp_path: Path) -> None:
    made_up(tmp_path, range(1, 5))
    evidence = Evidence(replace(LAB, experiments={"fig2": 2}), tmp_path)
    assert evidence.line() == "small: 0 of 2 runs; no run tells how long the rest takes"
    assert len(list(evidence.missing())) == 2
    both = Evidence(replace(LAB, experiments={"lab": 4, "fig4": 2}), tmp_path)
    build.build(both)
    assert both.line() == "small: 4 of 6 runs; more than 16 minutes left"


def test_a_recipe_that_changed_makes_its_data_stale(tmp_path: Path) -> None:
    build.build(made_up(tmp_path, range(1, 5)))
    changed = Evidence(replace(LAB, overlays=()), tmp_path)
    path = changed.kept.path("int", 2)
    path.write_text(path.read_text().replace('"recipe": "', '"recipe": "0'))
    standing = changed.standing()
    assert (standing.there, standing.stale, standing.missing) == (3, 1, 0)
    assert "3 of 4 runs, 1 more stale: their recipe has changed since" in changed.line()
    build.build(changed)
    assert "Not yet: 3 of 4" in (tmp_path / "small.md").read_text()


def test_a_study_without_data_keeps_its_page(tmp_path: Path) -> None:
    (tmp_path / "small.md").write_text("# As it was\n")
    assert not build.build(Evidence(LAB, tmp_path))
    assert (tmp_path / "small.md").read_text() == "# As it was\n"
    assert Evidence(LAB, tmp_path).line() == (
        "small: 0 of 4 runs; no run tells how long the rest takes"
    )


def test_the_page_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    evidence, page = made_up(tmp_path, range(1, 5)), tmp_path / "small.md"
    build.build(evidence)
    written = page.read_text().replace("Not written yet.", "Seed 3: chance.")
    page.write_text(written)
    build.build(evidence)
    assert page.read_text() == written


def test_all_arms_of_a_seed_come_before_the_next_and_more_runs_first() -> None:
    study = Study(title="", experiments={"fig2": 1, "lab": 2, "table1": 2})
    order = [("lab", 1), ("table1", 1), ("lab", 2), ("table1", 2), ("fig2", 1)]
    assert [(of.name, seed) for of, seed in study.units()] == order
    assert [(of.name, seed) for of, seed in study.units([2])] == order[2:4]


def test_what_is_needed_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    study = replace(LAB, needs={str(tmp_path / "teacher"): "make teacher"})
    with pytest.raises(ConfigError, match=r"small needs .*teacher: run make teacher"):
        Evidence(study, tmp_path).make((), math.inf)


def test_nothing_is_started_after_the_deadline(tmp_path: Path) -> None:
    evidence = Evidence(LAB, tmp_path, tmp_path / "runs")
    assert evidence.make((), time.monotonic() - 1)
    assert not (tmp_path / "runs").exists()
    assert not evidence.kept.folder.exists()


@pytest.mark.slow
def test_what_is_missing_is_made_once_and_then_needs_no_run(
    runner: ExperimentRunner, tmp_path: Path
) -> None:
    study = replace(LAB, scale=str(runner.scale), experiments={"fig4": 2})
    evidence = Evidence(study, tmp_path / "results", runner.runs)
    assert evidence.make([2], math.inf)
    build.build(evidence)
    assert evidence.line().startswith("small: 1 of 2 runs; about ")
    assert evidence.make((), math.inf)
    build.build(evidence)
    assert evidence.line() == "small: all 2 runs are there"
    assert sorted(path.name[-5:] for path in runner.runs.iterdir()) == ["seed1", "seed2"]
    page = texts(tmp_path / "results")
    prune([evidence])
    assert evidence.make((), math.inf)
    build.build(evidence)
    assert list(runner.runs.iterdir()) == []
    assert texts(tmp_path / "results") == page


def seed_of(session: Session, method: Method, row: Row) -> int:
    return session.recipe.seed


def num_rollouts(session: Session, method: Method, row: Row) -> int:
    session.complete(method.train.rollouts)
    return len(list(session.read(method.train.rollouts)))


def test_each_reading_names_what_made_it(runner: ExperimentRunner, tmp_path: Path) -> None:
    live, row = replace(runner, data=RunData(tmp_path)), Row(name="a")
    live.read_rows([row], Reading(seed_of))
    kept = SeedData.load(tmp_path / "int" / "seed0.json")
    kept.made[0]["code"] = "an older one"
    kept.keep("another", 1, 2.0)
    made = {by["code"]: list(by["seconds"]) for by in SeedData.load(kept.path).made}
    assert made.pop("an older one") == ["seed_of, base"]
    assert list(made.values()) == [["another"]]
    kept.keep("seed_of, base", 0, 1.5)  # read again: by one of them alone
    (by,) = SeedData.load(kept.path).made
    assert by["seconds"] == {"another": 2.0, "seed_of, base": 1.5}
    assert kept.seconds == 3.5


def test_time_that_is_up_keeps_what_was_read(runner: ExperimentRunner, tmp_path: Path) -> None:
    live = replace(runner, data=RunData(tmp_path))
    live.read_rows([Row(name="a")], Reading(seed_of))
    late = replace(live, data=RunData(tmp_path, deadline=time.monotonic() - 1))
    assert late.read_rows([Row(name="a")], Reading(seed_of)) == {"a": {0: 0}}
    with pytest.raises(TimeIsUpError, match="int, seed 0: no time left"):
        late.read_rows([Row(name="a", text="other")], Reading(seed_of))


def test_a_recipe_that_changed_has_another_run_directory(
    runner: ExperimentRunner, tmp_path: Path
) -> None:
    live, rows = replace(runner, data=RunData(tmp_path)), [Row(name="a")]
    assert live.read_rows(rows, Reading(num_rollouts)) == {"a": {0: 12}}
    changed = replace(live, settings=("sample.num_rollouts=2",))
    assert changed.read_rows(rows, Reading(num_rollouts)) == {"a": {0: 6}}
    folders = sorted(path.name for path in runner.runs.iterdir())
    assert len(folders) == 2
    assert folders[1].startswith(f"{folders[0]}-int-")


def test_only_run_directories_of_finished_seeds_are_pruned(tmp_path: Path) -> None:
    made = made_up(tmp_path, range(1, 4))
    build.build(made)
    evidence = replace(made, runs=tmp_path / "runs")
    places = [evidence.runner((s,), evidence.kept).run_directory(s) for s in range(1, 5)]
    for place in (*places, places[0].with_name(f"{places[0].name}-int-0123")):
        place.mkdir(parents=True)
    prune([evidence])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [places[3].name]


def test_the_index_says_what_holds_and_what_is_not_run(tmp_path: Path) -> None:
    build.build(made_up(tmp_path, range(1, 4), study=studies()["lab"]))
    write_index(tmp_path)
    text = (tmp_path / "index.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| lab |")]
    assert sum(f"| {NOT_RUN} | – | – |" in line for line in lines) > 10
    assert any("| 3 of 3 | run | [lab](lab.md#lab) |" in line for line in lines)
    assert any("| 0 of 3 | run | controls |" in line for line in lines)


def test_no_two_lines_of_the_committed_index_read_alike() -> None:
    lines = (RESULTS / "index.md").read_text("utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line.endswith(") |") and "](#" not in line]
    said = Counter((where, words) for where, words, *_ in rows)
    assert len(said) > 50
    assert [line for line, number in said.items() if number > 1] == []


def test_findings_name_statements_that_experiments_make() -> None:
    for evidence in (of for finding in findings() for of in finding.evidence):
        study = studies()[evidence.study]
        assert bool(study.command) != bool(evidence.experiment)
        if evidence.experiment:
            assert evidence.experiment in study.experiments
            words = [claim.words for claim in experiments()[evidence.experiment].claims]
            fixed = [text.partition("{")[0] for text in words]
            start = evidence.statement
            assert any(of.startswith(start) or start.startswith(of) for of in fixed if of), start


def committed_statements() -> Iterator[tuple[str, str, str]]:
    """Yield study, experiment and words of every statement of the committed results."""
    for study in studies().values():
        for experiment in study.experiments:
            file = RESULTS / study.page / f"{experiment}.json"
            claims = json.loads(file.read_text("utf-8"))["claims"] if file.is_file() else []
            yield from ((study.name, experiment, claim["claim"]) for claim in claims)
        if study.data.endswith("statements.json"):
            yield from ((study.name, "", c["claim"]) for c in read_statements(RESULTS / study.data))


def test_every_statement_that_was_made_belongs_to_one_finding() -> None:
    every = list(committed_statements())
    assert len(every) > 200
    about = [of for finding in findings() for of in finding.evidence]
    for study, experiment, words in every:
        own = [of for of in about if (of.study, of.experiment) == (study, experiment)]
        assert sum(of.are_about(words) for of in own) == 1, (study, experiment, words)


def test_what_a_primary_claim_judges_has_no_other_verdict() -> None:
    every = set(committed_statements())
    restated = [(r.study, r.experiment, words) for r in all_restated() for words in r.statements]
    assert len(restated) == len(set(restated)) > 10
    assert set(restated) <= every
    for study, experiment, words in restated:
        page = studies()[study].page
        claims = json.loads((RESULTS / page / f"{experiment}.json").read_text("utf-8"))["claims"]
        (made,) = [claim for claim in claims if claim["claim"] == words]
        place = claims_restated_in(study, experiment)[words]
        assert (made["holds"], made["verdict"], made["primary"]) == (None, f"claim {place}", place)
        lines = (RESULTS / f"{page}.md").read_text("utf-8").splitlines()
        assert any(f"| {words} | [claim {place}](claims.md#claim-{place}) |" in x for x in lines)


@pytest.mark.slow
def test_a_restated_claim_asks_what_its_statement_asks() -> None:
    found = [of for of, _ in outcomes(primary_claims(), RESULTS)]
    compared = 0
    for of in all_restated():
        file = RESULTS / studies()[of.study].page / f"{of.experiment}.json"
        figures = {c["claim"]: c["figures"] for c in json.loads(file.read_text("utf-8"))["claims"]}
        arms = found[of.claim - 1].comparisons
        for words in of.statements:
            said = figures[words].partition("by seed ")[2].split(" / ")
            of_runs = next(a for name, a in arms.items() if name in words or len(arms) == 1)
            if said != [""]:  # of problems pooled over seeds no run's own number is said
                first = [100 * value for value in of_runs.differences[: len(said)]]
                assert [float(value) for value in said] == pytest.approx(first, abs=0.06), words
                compared += 1
    assert compared > 10


@pytest.mark.parametrize("name", [n for n, study in studies().items() if not study.command])
def test_a_study_names_every_model_that_its_runs_need(name: str) -> None:
    study, data = studies()[name], RunData(Path("none"), may_run=False)
    runner = study.runner((1,), SilentProgress(), data)
    recipes = [runner.recipe(r, 1) for e, _ in study.planned for r in e.recipes if runner.has(r)]
    models = [recipe.proposer_model or recipe.model for recipe in recipes]
    asked = {model.path for model in models} | {recipe.model.path for recipe in recipes}
    asked |= {recipe.build_sft.teacher for recipe in recipes}
    made = {path for path in asked if path and path.startswith(".cache/")}
    assert made == {need.removesuffix("/pretrain.json") for need in study.needs}


def test_every_experiment_belongs_to_a_study_and_needs_ten_runs_where_it_matters() -> None:
    planned = [name for study in studies().values() for name in study.experiments]
    assert set(planned) == set(experiments())
    assert studies()["paper"].experiments["claims"] >= 10
    with pytest.raises(ConfigError, match="no study 'labs': choose from all, lab"):
        choose_studies("labs")


def test_a_study_may_read_some_rows_of_an_experiment() -> None:
    study = Study(
        title="", scale="scale/programs", experiments={"table1": 2}, recipes=("conditions",)
    )
    ((of_some, seeds),) = study.planned
    assert [row.name for row in of_some.rows] == ["1", "2", "3", "4"]
    assert (of_some.recipes, list(seeds)) == (("conditions",), [1, 2])
    assert len(experiments()["table1"].rows) > 4


def test_the_command_says_how_things_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(app, ["evidence"])
    assert refused.exit_code == 1
    (tmp_path / "docs" / "results").mkdir(parents=True)
    said = CliRunner().invoke(app, ["evidence"])
    assert said.exit_code == 0, said.output
    assert "k1024: 0 of 3 runs" in said.output
    assert not (tmp_path / "docs" / "results" / "index.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, study in studies().items() if not study.command])
def test_committed_pages_are_what_the_committed_data_gives(name: str, tmp_path: Path) -> None:
    study = studies()[name]
    if not any(study.data_folder(RESULTS).glob("*/seed*.json")):
        pytest.skip(f"no run of {name} is committed yet")
    shutil.copytree(RESULTS, tmp_path / "results")
    build.build(Evidence(study, tmp_path / "results"))
    of_study = (f"{study.page}.md", f"{study.page}/")
    built, committed = (
        {file: text for file, text in texts(folder).items() if file.startswith(of_study)}
        for folder in (tmp_path / "results", RESULTS)
    )
    assert built == committed, "run: midcourse evidence --pages"


def test_the_committed_index_and_claims_are_what_the_committed_data_gives(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.png"))
    build.build_pages((), tmp_path)
    for name in ("index.md", "claims.md"):
        built = (tmp_path / name).read_text("utf-8")
        assert built == (RESULTS / name).read_text("utf-8"), "run: midcourse evidence --pages"


def test_what_another_command_makes_names_it_and_its_statements(tmp_path: Path) -> None:
    study = Study(name="league", title="", command="make league", data="data/league.json")
    file = tmp_path / "data" / "league.json"
    assert Evidence(study, tmp_path).line() == f"league: made by `make league`; {file} is missing"
    file.parent.mkdir()
    file.write_text("{}")
    assert Evidence(study, tmp_path).line().endswith("is there")


def test_a_result_names_the_code_of_its_data_not_of_its_page(tmp_path: Path) -> None:
    evidence = made_up(tmp_path, range(1, 5))
    build.build(evidence)
    state: dict[str, Any] = json.loads((tmp_path / "small" / "lab.json").read_text())["state"]
    assert state["code"] == "cafe"
    assert set(state["reads"]) == {"int"}


@pytest.mark.parametrize("content", ["", '{"claims": [', "[]", "{}", '{"claims": {}}'])
def test_damaged_statements_are_refused_not_left_out(tmp_path: Path, content: str) -> None:
    file = tmp_path / "statements.json"
    assert read_statements(file) == [], "a study that has not run has none"
    file.write_text(content, "utf-8")
    with pytest.raises(ArtifactError, match=r"statements\.json .*: restore it"):
        read_statements(file)
