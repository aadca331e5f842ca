"""Experiments on the scripted engine, and verdicts on counts made up to have them."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from midcourse.cli import app
from midcourse.config import Recipe
from midcourse.errors import ArtifactError, ConfigError
from midcourse.experiments.catalogue import Claim, Experiment, Measure, Row, Unit, experiments
from midcourse.experiments.data import MissingDataError, Reading, RunData
from midcourse.experiments.interventions import Located
from midcourse.experiments.league import NoSuccess
from midcourse.experiments.ledger import NOTHING, Ledger
from midcourse.experiments.mechanism import judge_slope, judge_transfer, slope
from midcourse.experiments.patches import Example, Round, quarters, quarters_differ, similarity
from midcourse.experiments.readings import (
    BASE,
    BASE_RL,
    TextScore,
    area,
    condition_counts,
    final_reward,
    group_counts,
    plateau,
)
from midcourse.experiments.reproduce import MAKERS, choose, default_folder, reproduce
from midcourse.experiments.results import judge, judge_runs
from midcourse.experiments.runner import ExperimentRunner
from midcourse.experiments.studies import studies
from midcourse.metrics import Count, Interval, accuracy, mean
from midcourse.pipeline import Drawn, Method, Session
from midcourse.progress import SilentProgress
from midcourse.recipes import find_recipe, list_recipes
from midcourse.records import Condition, GroupCount, Proposal, Role, Start, Verdict, content_id
from midcourse.report.estimates import (
    Counts,
    covered,
    estimate,
    flat,
    more,
    more_accurate,
    passes,
    pool,
)
from midcourse.report.plots import Figure, Panel, Point, Series, csv_text, draw, figure_csv
from midcourse.report.proposer import Judged
from midcourse.steps import insert_step
from test_cli import toml

ROOT = Path(__file__).parent.parent
SCALES = [find_recipe(f"scale/{name}") for name in ("lab", "gpu-small", "paper")]
VARIANTS = [i.name.removeprefix("paper/") for i in list_recipes() if i.name.startswith("paper/")]


@pytest.fixture
def runner(tmp_path: Path, recipe_data: dict[str, Any]) -> ExperimentRunner:
    """The paper's recipes at a scale without torch."""
    scale = tmp_path / "scripted.toml"
    del recipe_data["name"], recipe_data["verify"]["conditions"]
    scale.write_text(toml(recipe_data))
    (tmp_path / "scripted").mkdir()
    extra = {"proposer_engine": recipe_data["engine"]}
    (tmp_path / "scripted" / "proposer-capable.toml").write_text(toml(extra))
    return ExperimentRunner(
        scale=scale, seeds=(0,), reporter=SilentProgress(), runs=tmp_path / "runs"
    )


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> ExperimentRunner:
    """The lab in miniature, one run for all experiments; the base stands in for its helpers."""
    runs = tmp_path_factory.mktemp("lab")
    scale = ROOT / "tests" / "scales" / "tiny.toml"
    return ExperimentRunner(scale=scale, seeds=(0,), reporter=SilentProgress(), runs=runs)


def result_of(name: str, runner: ExperimentRunner) -> dict[str, Any]:
    """Return an experiment's result, made if it is not there."""
    folder = default_folder(runner)
    reproduce(choose([name]), runner, folder)
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


def clusters(*counts: tuple[int, int]) -> dict[str, list[Count]]:
    """Return a problem for each (samples, correct)."""
    return {f"p{i}": [Count(*count)] for i, count in enumerate(counts)}


@pytest.mark.parametrize("scale", SCALES, ids=lambda p: p.stem)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_recipe_of_the_paper_loads_at_every_scale(name: str, scale: Path) -> None:
    runner = ExperimentRunner(scale=scale, seeds=(3,), reporter=SilentProgress())
    named = (scale.with_suffix("") / f"{name}.toml").is_file()
    if not named and not runner.has(name) and not name.startswith("proposer-"):
        with pytest.raises(ConfigError, match=r"needs build_sft\.teacher"):
            runner.recipe(name, 3)
        return
    recipe = runner.recipe(name, 3)
    assert (recipe.name, recipe.seed) == (name, 3)
    if scale.stem == "lab" and name not in ("int", "iterated"):
        whole = runner.recipe("int", 3).model_dump(exclude={"name"})
        assert recipe.model_dump(exclude={"name"}) != whole


@pytest.mark.parametrize("machine", ["paper-1gpu", "paper-8gpu"])
def test_every_paper_recipe_is_a_recipe_on_every_machine(machine: str) -> None:
    scale, overlays = find_recipe("scale/paper"), (find_recipe(f"scale/{machine}"),)
    runner = ExperimentRunner(scale=scale, seeds=(0,), reporter=SilentProgress(), overlays=overlays)
    names = [i.name.removeprefix("paper/") for i in list_recipes() if i.name.startswith("paper/")]
    samplers = {name: runner.recipe(name, 0).train_rl.sampler for name in names}
    # Online InT asks the policy, which TRL's own vLLM does not answer.
    assert samplers == dict.fromkeys(names, "vllm") | {"online": "servers"}


def test_a_model_that_a_scale_does_not_name_is_left_out_by_name(runner: ExperimentRunner) -> None:
    names = ("int", "distillation-thinking", "distillation-summary", "written-reference")
    assert [name for name in names if runner.has(name)] == ["int"]
    assert runner.identity(names) == runner.identity(("int",))
    paper = replace(runner, scale=find_recipe("scale/paper"))
    assert [name for name in names if paper.has(name)] == ["int"]  # nobody serves its teachers
    served = replace(paper, settings=('teacher_engine.urls=["http://a/v1"]',))
    assert all(served.has(name) for name in names[1:])
    assert served.identity(names[1:]) != served.identity(names[2:])


def test_a_row_whose_model_is_not_here_is_left_out(runner: ExperimentRunner) -> None:
    extra = runner.scale.with_suffix("") / "proposer-weak.toml"
    extra.write_text('proposer_model.path = "./nowhere"\n')
    assert not runner.has("proposer-weak")
    extra.write_text('proposer_model.path = "owner/name"\n')
    assert replace(runner).has("proposer-weak")  # a runner reads its files once


def test_the_command_makes_a_figure(
    runner: ExperimentRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["reproduce", "fig4", "--scale", str(runner.scale), "--out", "made"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "made" / "fig4.json").read_text())
    assert (result["claims"], result["stated_in"]) == ([], ["table1"])
    assert (tmp_path / "made" / "fig4.csv").read_text().count("\n") > 4


def test_every_experiment_is_documented_and_names_recipes_that_exist() -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text()
    assert not [name for name in experiments() if f"`{name}`" not in page]
    named = {name for experiment in experiments().values() for name in experiment.recipes}
    assert MAKERS.keys() == experiments().keys()
    folders = [find_recipe(f"scale/{name}").with_suffix("") for name in ("lab", "lab2")]
    of_scales = {file.stem for folder in folders for file in folder.glob("*.toml")}
    assert named <= {*VARIANTS, *of_scales}


def test_results_are_written_once_and_table_1_has_its_rows(runner: ExperimentRunner) -> None:
    chosen, out = choose(["table1", "fig4"]), default_folder(runner)
    reproduce(chosen, runner, out)
    assert out == runner.run_directory(0) / "report"
    assert {p.name for p in out.iterdir()} >= {
        "table1.md", "table1.json", "table1.csv", "fig4.svg", "fig4.png", "fig4.csv", "fig4.md"
    }  # fmt: skip
    files = {f: f.stat().st_mtime_ns for f in runner.runs.rglob("*") if f.is_file()}
    reproduce(chosen, runner, out)
    assert files == {f: f.stat().st_mtime_ns for f in runner.runs.rglob("*") if f.is_file()}
    result = json.loads((out / "table1.json").read_text())
    rows = {row[0]: row for row in result["tables"][0]["rows"]}
    assert rows["4"][4:6] == ["3/3", "24/24"]
    assert rows["3"][4:6] == ["0/3", "0/24"]
    verdicts = {claim["claim"]: claim["verdict"] for claim in result["claims"]}
    assert verdicts["intervention above prefix alone (rows 4, 2)"] == "holds"
    assert verdicts["a more capable proposer above the base itself (rows 6, 4)"] == "cannot tell"
    assert result["state"]["seeds"] == [0]
    assert "5" not in rows
    assert "Row 5 is left out: the scale names no proposer for it" in result["tables"][0]["note"]
    text = (out / "table1.md").read_text()
    assert "| 1 | – | problem | 40/334, 0.0984 % |" in text


#: For these at most the models of one recipe are trained; for the others those of many.
SMALL = {"lab", "table1", "table3", "table7", "fig2", "fig4", "fig7", "fig10", "appendix-f",
         "shift", "localisation", "equal-hints", "zero-advantage"}  # fmt: skip
OF_LAB_2 = ("distance", "equal-tokens")  # their recipes are of that scale alone
EVERY = [
    pytest.param(name, marks=pytest.mark.slow if name in SMALL else pytest.mark.nightly)
    for name in experiments()
    if name not in OF_LAB_2
]


@pytest.mark.parametrize("name", EVERY)
def test_every_experiment_comes_to_rows_claims_and_points(name: str, lab: ExperimentRunner) -> None:
    result = result_of(name, lab)
    assert result["claims"] or result["stated_in"]
    assert all(claim["figures"] for claim in result["claims"])
    tables = [table for table in result["tables"] if table["title"] != "Side by side"]
    assert all(table["rows"] for table in tables)
    for table in tables:
        assert {len(row) for row in table["rows"]} == {len(table["columns"])}
    figures = [result["figure"]] if result["figure"] else []
    assert bool(figures) == name.startswith(("fig", "shift", "league", "distance"))
    assert tables or figures
    for panel in (panel for figure in figures for panel in figure["panels"]):
        assert panel["series"]
        for series in panel["series"]:
            ys = [point["y"]["estimate"] for point in series["points"]]
            assert any(not math.isnan(y) for y in ys), (panel["title"], series["label"])


@dataclass(frozen=True)
class MadeUp:
    """A runner whose readings are made up: every experiment from kept numbers, without a run."""

    real: ExperimentRunner
    seeds: tuple[int, ...] = (1, 2, 3, 4)
    settings: tuple[str, ...] = ()
    is_lab = True

    def has(self, name: str) -> bool:
        return True

    def recipe(self, name: str, seed: int) -> Recipe:
        return self.real.recipe(name, seed)

    def run_directory(self, seed: int) -> Path:
        return self.real.run_directory(seed)

    def read_rows(self, rows: Iterable[Row], reading: Reading[Any]) -> dict[str, dict[int, Any]]:
        return {
            row.name: {seed: made_up(reading.take.__name__, row, seed) for seed in self.seeds}
            for row in rows
        }

    def read(self, name: str, take: Any) -> dict[int, Any]:
        return self.read_rows([Row(name=name, recipe=name)], Reading(take))[name]

    def pooled(self, rows: Iterable[Row], reading: Reading[Any]) -> dict[str, dict[str, list[Any]]]:
        return {name: pool(of.values()) for name, of in self.read_rows(rows, reading).items()}


def made_up(take: str, row: Row, seed: int) -> Any:
    """Return a reading in which what is patched does better, more so with RL, and seeds differ."""
    level = 2 + 4 * (row.role.start is Start.PATCHED) + 6 * row.role.rl + seed
    counts = {f"p{i}": [Count(32, min(32, level + i))] for i in range(8)}
    if row.name == "the base, often":
        counts = {f"p{i}": [Count(256, max(0, i - 3))] for i in range(8)}
    score = TextScore(1 / level + len(row.recipe) / 100, 0.1 / level, 0.5)
    place = Located(2, 6, 11.0, 70.0)
    spent = {i: replace(NOTHING, sampled=9 * i) for i in (0, 10, 25)}
    return {
        "ledger": Ledger(shared=NOTHING, choice=NOTHING, start=NOTHING, course=spent),
        "hard_course_counts": {0: counts, 10: counts, 25: counts},
        "no_success": NoSuccess(0.9, 0.5),
        "counts": counts,
        "continuations": counts,
        "_shifted": counts,
        "late_counts": {20: counts, 25: counts} if row.role.rl else {0: counts},
        "course_counts": {0: counts, 10: counts, 25: counts} if row.role.rl else {0: counts},
        "likelihoods": {p: [score, score] for p in counts},
        "_tuning": {"num_steps": 20.0},
        "_similarities": {p: i / 8 for i, p in enumerate(counts)},
        "_examples": [Example("p0", "before", "after")],
        "_round": Round("train-sft/abc/final", 30 - seed, ["p0", "p1"], counts),
        "reward_groups": {i: [(8, 0), (8, level % 8)] for i in range(25)},
        "training_reward": level / 32,
        "_num_rl_problems": 72,
        "_drops": {p: [(i < 4, 0.9, 0.3 + seed / 10)] for i, p in enumerate(counts)},
        "_located": {p: [place] for p in counts},
        "answers": {
            p: [Judged(i < level, True, 16, max(0, level - i))] for i, p in enumerate(counts)
        },
        "_offsets": {p: [(i % 3 - 1, Count(32, i))] for i, p in enumerate(counts)},
    }[take]


#: Tested in a file of its own: it reads what claims.toml names.
ELSEWHERE = ("claims",)


@pytest.mark.parametrize("name", [name for name in experiments() if name not in ELSEWHERE])
def test_every_experiment_is_made_from_its_readings_alone(name: str) -> None:
    scale = find_recipe("scale/lab2" if name == "transfer" else "scale/lab")  # it has `unseen`
    real = ExperimentRunner(scale=scale, seeds=(1,), reporter=SilentProgress())
    experiment = experiments()[name]
    result = MAKERS[name](cast(ExperimentRunner, MadeUp(real)), experiment)
    for table in result.tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
    of_benchmarks = "InT + RL above {other}, pass@{k} on {on}"  # of which the lab has none
    for claim in experiment.claims:
        begins = claim.words.partition("{")[0]
        stated = [line for line in result.claims if line.claim.startswith(begins)]
        assert stated or claim.words.startswith(of_benchmarks)
    if experiment.unit is Unit.RUN:
        figures = [line.figures for line in result.claims]
        assert all("; by seed " in said and "needs" not in said for said in figures)
        by_seed = [i for i, c in enumerate(result.tables[0].columns) if c.endswith("by seed")]
        assert by_seed
        assert all(result.tables[0].rows[-1][i].count("/") in (0, 3) for i in by_seed)


def test_a_note_about_a_row_stands_under_tables_that_have_it() -> None:
    whole = experiments()["table1"]
    scale = find_recipe("scale/lab")
    real = ExperimentRunner(scale=scale, seeds=(1,), reporter=SilentProgress())

    def note(of: Experiment) -> str:
        return MAKERS["table1"](cast(ExperimentRunner, MadeUp(real)), of).tables[0].note

    assert whole.row_notes.keys() <= {row.name for row in whole.rows}
    assert all(text in note(whole) for text in whole.row_notes.values())
    assert not any(
        text in note(whole.of_recipes(["conditions"])) for text in whole.row_notes.values()
    )
    assert whole.row_notes["8"] in note(whole.of_recipes(["hints"]))


def correct_of(name: str, lab: ExperimentRunner, drawn: Callable[[Method], Drawn]) -> list[bool]:
    """Return who is correct among the grades of a recipe, without the code of experiments."""
    grades = lab.read(name, lambda session, method, _: list(session.read(drawn(method).grades)))[0]
    return [grade.verdict is Verdict.CORRECT for grade in grades]


def continuations(method: Method, condition: Condition) -> Drawn:
    return method.interventions.verified[condition]


@pytest.mark.slow
def test_table_1_counts_what_the_grades_say(lab: ExperimentRunner) -> None:
    rows = {row[0]: row for row in result_of("table1", lab)["tables"][0]["rows"]}
    numbers = {"1", "2", "3", "4", "7", "8", "8'", "9", "10", "11"}
    assert rows.keys() == numbers | {"kept", "kept, fresh samples"}
    for number, condition in (("1", Condition.PROBLEM), ("4", Condition.PREFIX_INTERVENTION)):
        found = correct_of("conditions", lab, partial(continuations, condition=condition))
        assert len(found) > sum(found) > 0
        assert rows[number][5] == f"{sum(found)}/{len(found)}"
    assert rows["11"][4:] == rows["4"][4:]  # without a subset, all candidates are row 4's
    assert rows["kept"][3] == "–"


@pytest.mark.slow
def test_figure_2_and_shift_count_the_candidates(lab: ExperimentRunner) -> None:
    def candidates(session: Session, method: Method, _: Row) -> list[Proposal]:
        return method.interventions.candidates().read(session)

    proposed, true = (lab.read(name, candidates)[0] for name in ("int", "true-interventions"))
    assert proposed
    late = sum(insert_step(p) >= 1 for p in proposed) / len(proposed)
    row = result_of("fig2", lab)["tables"][0]["rows"][0]
    assert row[1] == str(len(proposed))
    assert row[2].startswith(f"{100 * late:.1f} [")
    rows = {row[0]: row for row in result_of("shift", lab)["tables"][0]["rows"]}
    assert rows["0"][1] == str(len(true))
    assert 0 < int(rows["+1"][1]) <= len(true)


@pytest.mark.nightly
def test_table_4_counts_what_the_grades_say(lab: ExperimentRunner) -> None:
    table = result_of("table4", lab)["tables"][0]
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    for column, eval_set in (
        ("held out pass@1 %", "held_out"),
        ("plateau pass@1 %", "held_out"),
        ("known notions pass@1 %", "known"),
    ):
        found = correct_of("int", lab, partial(rollouts_of_the_base, eval_set=eval_set))
        assert found
        assert rows["base"][column] == f"{100 * sum(found) / len(found):.1f}"
    groups = lab.read("int", lambda s, method, _: group_counts(s, method, BASE_RL))[0]
    first = [group for group in groups if group.iteration == 0]
    reward = (
        100
        * sum(g.num_correct for g in first)
        / sum(g.num_correct + g.num_incorrect for g in first)
    )
    assert rows["base"]["training reward %"] == f"{reward:.1f}"
    averaged = ("held out pass@1 %", "held out pass@8 %", "training reward %")
    for row in rows.values():  # one kind of average: two benchmarks' columns and the reward
        parts = [float(row[column]) for column in averaged]
        assert float(row["the paper's average"]) == pytest.approx(mean(parts), abs=0.11)


@pytest.mark.slow
def test_a_named_set_is_a_column_of_table_4(lab: ExperimentRunner) -> None:
    place = {"path": str(ROOT / "tests" / "data" / "worked.jsonl"), "ks": [8], "subset": 3}
    named = ("name=int-sets", f"evaluate.sets.worked={json.dumps(place)}")
    table4 = experiments()["table4"]
    rows = tuple(row for row in table4.rows if row.name in ("base", "RL"))
    claims = tuple(replace(claim, ours="RL") for claim in table4.claims if not claim.only)
    result = MAKERS["table4"](
        replace(lab, settings=named), replace(table4, rows=rows, claims=claims)
    )
    (table,) = result.tables
    assert table.columns[2:5] == ("held out pass@1 %", "held out pass@8 %", "worked pass@8 %")
    shown = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    for row in shown:  # one kind of average: every benchmark, and the training reward
        parts = [float(row[column]) for column in (*table.columns[2:5], "training reward %")]
        assert float(row["the paper's average"]) == pytest.approx(mean(parts), abs=0.11)
    assert [line.claim for line in result.claims] == [
        "InT + RL above base, pass@1 at the plateau",
        "InT + RL above base, pass@8 on worked",
    ]
    assert {line.verdict for line in result.claims} == {"cannot tell"}
    assert all(line.figures.endswith("needs 3 runs") for line in result.claims)


def rollouts_of_the_base(method: Method, eval_set: str) -> Drawn:
    return method.evaluation.evaluate(method.models.in_role(BASE), eval_set)


@pytest.mark.nightly
def test_a_result_that_is_there_is_not_made_again(lab: ExperimentRunner) -> None:
    result_of("table3", lab)
    before = {f: f.stat().st_mtime_ns for f in lab.runs.rglob("*") if f.is_file()}
    assert before
    result_of("table3", lab)
    assert before == {f: f.stat().st_mtime_ns for f in lab.runs.rglob("*") if f.is_file()}


def test_recipes_of_one_seed_share_their_sampling(runner: ExperimentRunner) -> None:
    for name in ("int", "no-filter", "suffix"):
        runner.read(name, lambda session, method, _: session.complete(method.models.rows))
    folders = {path.name: len(list(path.iterdir())) for path in runner.run_directory(0).iterdir()
               if path.is_dir()}  # fmt: skip
    assert folders["propose"] == folders["select"] == 1
    assert folders["build-sft"] == 3
    assert folders["recipes"] == 3


def test_a_recipe_may_not_change_under_its_name(runner: ExperimentRunner) -> None:
    runner.read("int", lambda session, method, _: session.complete(method.train.rollouts))
    runner.scale.write_text(
        runner.scale.read_text().replace("num_rollouts = 4", "num_rollouts = 5")
    )
    later = replace(runner)  # a runner reads its files once
    with pytest.raises(ArtifactError, match=r"recipes/int.json .*sample\.num_rollouts: 4 → 5"):
        later.read("int", lambda session, method, _: method)


def test_a_run_of_one_recipe_is_not_shared(runner: ExperimentRunner) -> None:
    folder = runner.run_directory(0)
    folder.mkdir(parents=True)
    (folder / "config.resolved.json").write_text("{}")
    with pytest.raises(ArtifactError, match="belongs to one recipe"):
        runner.read("int", lambda session, method, _: method)


def interventions(session: Session, method: Method, _: Row) -> Counts:
    return condition_counts(session, method, Condition.PREFIX_INTERVENTION)


def test_seeds_are_pooled_by_problem(runner: ExperimentRunner) -> None:
    two = ExperimentRunner(
        scale=runner.scale, seeds=(0, 1), reporter=runner.reporter, runs=runner.runs
    )
    counts = pool(two.read("int", interventions).values())
    assert {len(runs) for runs in counts.values()} == {2}
    assert sum(count.num_samples for count in flat(counts)) == 48
    assert default_folder(two).name == "reproduce-scripted-seeds-0-1"
    larger = replace(two, overlays=(find_recipe("scale/k1024"),))
    assert default_folder(larger).name == "reproduce-scripted-k1024-seeds-0-1"
    assert larger.run_directory(0) != two.run_directory(0)
    assert larger.recipe("pass-at-k", 0).evaluate.ks[-1] == 1024


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="no experiment 'table9': choose from all, table1"):
        choose(["table1", "table9"])
    assert [e.name for e in choose(["fig2", "fig2"])] == ["fig2"]


def test_more_accurate_holds_fails_and_cannot_tell() -> None:
    good, bad = clusters(*[(32, 16)] * 20), clusters(*[(32, 1)] * 20)
    assert more_accurate("x", good, bad).holds is True
    assert more_accurate("x", bad, good).holds is False
    assert more_accurate("x", bad, bad).verdict == "cannot tell"
    assert more_accurate("x", good, bad, factor=15).holds is True
    assert more_accurate("x", good, bad, factor=17).holds is False


def test_nothing_of_a_few_samples_is_not_proof_of_zero() -> None:
    some, few, many = clusters((50, 5), (50, 5)), clusters((4, 0), (4, 0)), clusters((500, 0))
    assert more_accurate("x", some, few).holds is None
    assert more_accurate("x", some, many).holds is True
    assert more_accurate("x", few, some).holds is None


def test_the_same_problems_are_compared_together() -> None:
    spread = [(100, share) for share in range(5, 95, 5)]
    ours = clusters(*[(n, c + 3) for n, c in spread])
    assert more("x", ours, clusters(*spread), accuracy).holds is True
    strangers = {f"q{p}": counts for p, counts in clusters(*spread).items()}
    assert more("x", ours, strangers, accuracy).holds is None


def test_close_needs_the_whole_interval_within_the_tolerance() -> None:
    left = {f"p{i}": [1.0 + 0.01 * (i % 2)] for i in range(40)}
    right = {p: [values[0] + 0.001] for p, values in left.items()}
    assert more("x", left, right, mean, tolerance=0.01).holds is True
    assert more("x", left, right, mean, tolerance=0.0005).holds is False
    noisy = {f"q{i}": [1.0 + (-1) ** i] for i in range(10)}
    assert more("x", left, noisy, mean, tolerance=0.01).holds is None


def test_resamples_without_one_side_do_not_spoil_the_interval() -> None:
    ours = clusters(*[(8, 4)] * 6)
    lone = {"p0": [Count(8, 1)]}
    line = more_accurate("x", ours, lone)
    assert line.holds is True
    assert "nan" not in line.figures


def test_a_side_without_items_is_said_in_words() -> None:
    ours = clusters(*[(8, 4)] * 6)
    for left, right, n in ((ours, {}, "48 and 0"), ({}, ours, "0 and 48"), ({}, {}, "0 and 0")):
        line = more_accurate("x", left, right)
        assert line.holds is None
        assert line.figures == f"nothing to compare: one side has no items; n = {n}"
    assert more("x", {}, {}, mean, tolerance=0.1).holds is None


def test_statistics_of_clusters() -> None:
    counts = {"a": [Count(4, 0), Count(4, 2)], "b": [Count(8, 8)]}
    assert accuracy(flat(covered(counts))) == pytest.approx(2 / 3)
    assert passes(counts, 4) == {"a": [0.0, 1.0], "b": [1.0]}
    assert estimate(counts, accuracy).estimate == pytest.approx(10 / 16)


def test_the_final_reward_is_smoothed() -> None:
    def group(iteration: int, correct: int) -> GroupCount:
        return GroupCount(
            iteration=iteration, problem_id="p", num_correct=correct,
            num_incorrect=8 - correct, num_ungraded=0,
        )  # fmt: skip

    assert final_reward([group(0, 0), group(1, 8), group(1, 0)]) == pytest.approx(0.05)


def test_no_csv_cell_starts_a_formula() -> None:
    text = csv_text(("=x", "y"), [("+1", -2.5), ("@cmd", "-3"), ("fine", "a=b")])
    assert list(csv.reader(text.splitlines())) == [
        ["'=x", "y"], ["'+1", "-2.5"], ["'@cmd", "'-3"], ["fine", "a=b"]
    ]  # fmt: skip


def test_the_plateau_is_what_a_run_reaches_after_three_fifths() -> None:
    course = {0: 0.0, 20: 0.2, 40: 0.4, 60: 0.6, 80: 0.7, 100: 0.9}
    assert plateau(course) == pytest.approx(0.8)
    assert plateau({0: 0.1, 10: 0.2, 20: 0.3, 25: 0.5}) == pytest.approx(0.4)
    assert plateau({0: 0.3}) == 0.3


def test_the_area_weighs_values_by_the_iterations_between_them() -> None:
    assert area({0: 0.0, 10: 1.0}) == pytest.approx(0.5)
    assert area({0: 0.0, 10: 1.0, 40: 1.0}) == pytest.approx(0.875)
    assert area({0: 0.3}) == 0.3


def runs(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def verdicts(claim: Claim, **arms: dict[int, float]) -> list[str]:
    return [line.verdict for line in judge_runs([claim], {claim.measure: arms})]


def test_a_claim_about_training_counts_runs_and_needs_three_of_them() -> None:
    claim = Claim(words="ours above {other}", ours="ours")
    high, low = runs(0.5, 0.52, 0.49, 0.51), runs(0.1, 0.09, 0.12, 0.1)
    assert verdicts(claim, ours=high, theirs=low) == ["holds"]
    assert verdicts(claim, ours=low, theirs=high) == ["does not hold"]
    assert verdicts(claim, ours=runs(0.1, 0.5, 0.3), theirs=runs(0.2, 0.3, 0.35)) == ["cannot tell"]
    (line,) = judge_runs([claim], {claim.measure: {"ours": runs(0.5, 0.5), "theirs": runs(0.1, 0)}})
    assert line.verdict == "cannot tell"
    assert line.figures == "50 against 5 %; difference 45; by seed 40 / 50: needs 3 runs"
    # However many problems a run has: only the seeds that both arms have are compared.
    assert verdicts(claim, ours=high, theirs={7: 0.1, 8: 0.1, 0: 0.1}) == ["cannot tell"]


def test_a_claim_about_nearness_of_runs_can_hold_fail_and_stay_open() -> None:
    claim = Claim(words="near", ours="ours", theirs=("base",), within=0.25, of="base", unit="")
    base = runs(1.0, 1.01, 0.99, 1.0)
    assert verdicts(claim, ours=runs(1.1, 1.12, 1.09, 1.1), base=base) == ["holds"]
    assert verdicts(claim, ours=runs(2.0, 2.1, 1.9, 2.0), base=base) == ["does not hold"]
    assert verdicts(claim, ours=runs(1.0, 1.6, 0.9, 1.3), base=base) == ["cannot tell"]


def test_a_claim_that_its_row_is_lower_is_judged_the_other_way_round() -> None:
    claim = Claim(words="{other} above ours", ours="ours", lower=True)
    high, low = runs(0.5, 0.52, 0.49, 0.51), runs(0.1, 0.09, 0.12, 0.1)
    assert verdicts(claim, ours=low, theirs=high) == ["holds"]
    assert verdicts(claim, ours=high, theirs=low) == ["does not hold"]
    asked = {"ours": clusters(*[(32, 1)] * 20), "theirs": clusters(*[(32, 16)] * 20)}
    (line,) = judge([claim], asked)
    assert line.holds is True
    assert line.figures.startswith("50 against 3.12 %; difference 46.9 ")


def test_two_rows_without_a_success_are_near_only_with_enough_samples() -> None:
    claim = Claim(words="near", ours="a", theirs=("b",), within=0.1, of="c")
    right = clusters(*[(32, 16)] * 20)
    few, many = clusters(*[(2, 0)] * 20), clusters(*[(64, 0)] * 20)
    for nothing, verdict in ((few, "cannot tell"), (many, "holds")):
        (line,) = judge([claim], {"a": nothing, "b": nothing, "c": right})
        assert line.verdict == verdict
        assert "[0, 0]" not in line.figures


def test_words_and_verdicts_agree_on_which_side_is_larger() -> None:
    claims = [claim for experiment in experiments().values() for claim in experiment.claims]
    checked = 0
    for claim in claims:
        named = re.fullmatch("(.+?) (above|below) (.+)", claim.words)
        if named and "{other}" in claim.words:
            other_is_larger = ("{other}" in named[1]) == (named[2] == "above")
            assert claim.lower == other_is_larger, claim.words
            checked += 1
    assert checked >= 10
    rates = [claim for claim in claims if claim.measure is Measure.ZERO_ADVANTAGE]
    assert rates
    assert all(claim.lower for claim in rates)


#: Its sections decide nothing of what is compared.
_APART = {"name", "evaluate", "likelihood"}
_OF_PATCHES = {"build_sft", "train_sft", "propose", "verify", "proposer_model", "select"}


def arm_of(experiment: Experiment, name: str, runner: ExperimentRunner) -> str:
    """Return what tells a row from others: the settings that make it, and what is read of it."""
    row = next((row for row in experiment.rows if row.name == name.removeprefix("start: ")), None)
    if row is not None and name.startswith("start: "):
        row = replace(row, role=Role(row.role.start))
    if row is None:
        return f"{experiment.name}: {name}"
    settings = runner.recipe(row.recipe, 0).identity()
    apart = set(_APART)
    if row.role.start is Start.BASE and row.condition is None and not row.text:
        apart |= _OF_PATCHES
    if not row.role.rl:
        apart |= {"train_rl"}
    made = {key: value for key, value in settings.items() if key not in apart}
    return content_id(made, row.key)


Comparison = tuple[frozenset[str], str, str]


def comparisons(
    named: Iterable[Experiment], runner: ExperimentRunner
) -> dict[Comparison, list[str]]:
    """Return the statements by (arms, measure, evaluation set), either way round."""
    found: dict[Comparison, list[str]] = {}
    for experiment in named:
        for claim in experiment.claims:
            rows = [row.name for row in experiment.rows]
            for other in claim.theirs or [name for name in rows if name != claim.ours]:
                arms = frozenset(arm_of(experiment, n, runner) for n in (claim.ours, other))
                measure = f"{claim.measure} {claim.k}".replace("pass@k 1", "accuracy 0")
                for eval_set in [claim.only] if claim.only else ["train", "held_out"]:
                    words = f"{experiment.name}: {claim.words}"
                    found.setdefault((arms, measure, eval_set), []).append(words)
    return found


def repeated(found: dict[Comparison, list[str]]) -> list[list[str]]:
    return [words for words in found.values() if len(words) > 1]


def test_no_two_experiments_make_the_same_comparison() -> None:
    lab = ExperimentRunner(scale=find_recipe("scale/lab2"), seeds=(0,), reporter=SilentProgress())
    every = list(experiments().values())
    for study in studies().values():
        at = replace(lab, scale=find_recipe(study.scale)) if study.scale else lab
        assert repeated(comparisons([chosen for chosen, _ in study.planned], at)) == []
    of_variants = ("arms", "equal-tokens")  # of Table 4's rows, where Table 4 is not made
    left_out = (*of_variants, "verification")  # its recipes are of scale/lab alone
    assert repeated(comparisons([e for e in every if e.name not in left_out], lab)) == []
    again = replace(experiments()["table1"].claims[0], ours="3", theirs=("4",))  # the other way
    fig4 = replace(experiments()["fig4"], claims=(again,))
    assert len(repeated(comparisons([experiments()["table1"], fig4], lab))) == 2  # of two sets
    for experiment in every:
        assert experiment.claims or experiment.stated_in or experiment.name == "claims"
        assert all(experiments()[name].claims for name in experiment.stated_in)


def test_table_2_says_of_all_rows_what_it_says_of_one() -> None:
    claims = experiments()["table2"].claims
    found: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {"one": [], "all": []}
    for claim in claims:
        kind = "all" if claim.ours.startswith("all rows: ") else "one"
        theirs = tuple(name.removeprefix("all rows: ") for name in claim.theirs)
        found[kind].append((claim.measure, claim.only, theirs))
    assert found["one"] == found["all"]
    assert len(found["all"]) == 3
    assert any(not only for _, only, theirs in found["all"] if len(theirs) == 3)  # on both sets


@pytest.mark.parametrize("scale", SCALES, ids=lambda p: p.stem)
def test_one_round_of_equal_budget_has_the_same_hard_problems(scale: Path) -> None:
    runner = ExperimentRunner(scale=scale, seeds=(0,), reporter=SilentProgress())
    whole, single = (runner.recipe(name, 0) for name in ("int", "equal-budget"))
    assert (single.sample, single.select) == (whole.sample, whole.select)
    assert single.propose.num_rollouts == 3 * whole.propose.num_rollouts
    assert single.verify == whole.verify


def test_likeness_is_the_share_of_the_nearest_intervention() -> None:
    interventions = ["Loses a dicker: 20 - 10 = 10.", "Wins a pair!"]
    assert similarity("Mia wins A PAIR, then loses 4.", interventions) == 1.0
    assert similarity("She loses a dozen; 20 - 10 is 10", interventions) == pytest.approx(2 / 5)
    assert similarity("Nothing of it", interventions) == 0.0
    assert similarity("Nothing of it", []) == 0.0
    assert similarity("", ["one"]) == 0.0


def test_a_slope_over_teachers_has_three_answers() -> None:
    assert slope([(0.5, 0.1), (1.0, 0.2), (1.5, 0.3)]) == pytest.approx(0.2)
    assert slope([(0.5, 0.3), (1.0, 0.0), (1.5, 0.3)]) == pytest.approx(0.0)
    assert math.isnan(slope([(1.0, 0.1), (1.0, 0.4)]))
    runs = {"rises": [0.2, 0.25, 0.3], "falls": [-0.2, -0.25, -0.3], "varies": [0.5, -0.4, 0.1],
            "is small": [0.01, 0.0, -0.01], "one run": [0.3]}  # fmt: skip
    answers = [judge_slope("x", dict(enumerate(found))).holds for found in runs.values()]
    assert answers == [True, False, None, False, None]


@pytest.mark.parametrize(
    ("gains", "holds"),
    [((9, 10, 11), True), ((-9, -10, -11), False), ((0, 1, 0), False), ((12, -12, 2), None)],
)
def test_a_gain_on_unseen_combinations_within_two_points_is_none(
    gains: tuple[int, ...], holds: bool | None
) -> None:
    before = {0: 0.50, 1: 0.52, 2: 0.54}
    after = {seed: before[seed] + gain / 100 for seed, gain in enumerate(gains)}
    base = dict.fromkeys(before, 0.2)
    patched = {0: 0.2, 1: 0.205, 2: 0.195}
    models = {"base": base, "InT": patched, "RL": before, "InT + RL": after}
    lines = judge_transfer(
        experiments()["transfer"],
        dict.fromkeys(("unseen pass@8 %", "held out pass@1 %", "control pass@1 %"), models),
    )
    assert [line.holds for line in lines[:2]] == [holds, None]  # on control it gains as much
    # There InT gains about nothing, InT + RL 20 points or more.
    assert [line.holds for line in lines[2:]] == [True, False]


def test_quarters_are_of_equal_size_the_least_similar_first() -> None:
    shares = {"a": 0.9, "b": 0.1, "c": 0.1, "d": 0.5, "e": 0.3, "f": 1.0, "g": 0.0, "h": 0.3}
    assert quarters(shares) == [["g", "b"], ["c", "e"], ["h", "d"], ["a", "f"]]


def test_quarters_that_share_a_likeness_tell_nothing() -> None:
    assert quarters_differ({"a": 0.1, "b": 0.2, "c": 0.2, "d": 0.3})
    assert not quarters_differ({"a": 0.2, "b": 0.2, "c": 0.2, "d": 0.2})
    shared = {"a": 0.1, "b": 0.2} | dict.fromkeys("cdefgh", 0.2)
    assert not quarters_differ(shared), "the cut between equal ones is that of their names"


def figure(kind: Any) -> Figure:
    xs: tuple[float | str, ...] = ("a", "b") if kind == "bar" else (1, 2)
    points = tuple(Point(x, Interval(1.0, 0.5, 2.0), 7) for x in xs)
    series = (Series("one", points), Series("=two", points))
    panel = Panel(title="t", x_label="k", y_label="pass@k, %", series=series, kind=kind,
                  log_x=kind == "line")  # fmt: skip
    return Figure("f", (panel, panel))


@pytest.mark.parametrize("kind", ["line", "bar"])
def test_a_figure_is_drawn_the_same_twice_and_lies_beside_its_data(kind: str) -> None:
    drawn = draw(figure(kind), "svg")
    assert drawn == draw(figure(kind), "svg")
    assert b"pass@k, %" in drawn
    assert draw(figure(kind), "png").startswith(b"\x89PNG")
    rows = list(csv.DictReader(figure_csv(figure(kind)).splitlines()))
    assert len(rows) == 8
    assert (rows[0]["y"], rows[0]["low_95"], rows[0]["units"]) == ("1.0", "0.5", "7")
    assert rows[2]["series"] == "'=two"


def test_what_was_read_is_kept_and_needs_no_run(runner: ExperimentRunner, tmp_path: Path) -> None:
    live = replace(runner, data=RunData(tmp_path / "data"))
    read = live.read("int", interventions)
    assert (tmp_path / "data" / "int" / "seed0.json").is_file()
    kept = replace(live, runs=tmp_path / "nowhere", data=RunData(tmp_path / "data", may_run=False))
    assert kept.read("int", interventions) == read
    assert not kept.runs.exists()
    with pytest.raises(MissingDataError, match=r"seed1\.json: interventions, base is missing"):
        replace(kept, seeds=(1,)).read("int", interventions)
    other = replace(kept, settings=("verify.num_continuations=3",))
    with pytest.raises(MissingDataError, match="stale: the recipe has changed since"):
        other.read("int", interventions)


def test_a_damaged_file_of_readings_is_named(runner: ExperimentRunner, tmp_path: Path) -> None:
    path = tmp_path / "data" / "int" / "seed0.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ArtifactError, match=r"seed0\.json is damaged \(not JSON\): remove it"):
        replace(runner, data=RunData(tmp_path / "data")).read("int", interventions)
