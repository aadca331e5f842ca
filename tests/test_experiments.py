"""Experiments on the scripted engine, and verdicts on counts made up to have them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midcourse.errors import ArtifactError, ConfigError
from midcourse.experiments.bench import Bench
from midcourse.experiments.estimates import (
    close,
    covered,
    estimate,
    flat,
    mean,
    more,
    more_accurate,
    passes,
    pool,
)
from midcourse.experiments.page import write_page
from midcourse.experiments.readings import condition_counts, final_reward
from midcourse.experiments.reproduce import EXPERIMENTS, choose, default_folder, reproduce
from midcourse.metrics import Count, Interval, accuracy
from midcourse.progress import SilentProgress
from midcourse.records import Condition, GroupCount
from midcourse.report.plots import Figure, Panel, Point, Series, csv_text, draw, figure_csv
from test_cli import toml

ROOT = Path(__file__).parent.parent
SCALES = [ROOT / "recipes" / "scale" / f"{name}.toml" for name in ("lab", "gpu-small", "paper")]
VARIANTS = sorted(path.stem for path in (ROOT / "recipes" / "paper").glob("*.toml"))


@pytest.fixture
def bench(tmp_path: Path, recipe_data: dict[str, Any]) -> Bench:
    """The paper's recipes at a scale without torch."""
    scale = tmp_path / "scripted.toml"
    del recipe_data["name"], recipe_data["verify"]["conditions"]
    scale.write_text(toml(recipe_data))
    (tmp_path / "scripted").mkdir()
    extra = {"proposer_engine": recipe_data["engine"]}
    (tmp_path / "scripted" / "proposer-capable.toml").write_text(toml(extra))
    return Bench(
        scale=scale, seeds=(0,), reporter=SilentProgress(), recipes=ROOT / "recipes" / "paper",
        runs=tmp_path / "runs",
    )  # fmt: skip


def clusters(*counts: tuple[int, int]) -> dict[str, list[Count]]:
    """Return a problem for each (samples, correct)."""
    return {f"p{i}": [Count(*count)] for i, count in enumerate(counts)}


@pytest.mark.parametrize("scale", SCALES, ids=lambda p: p.stem)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_recipe_of_the_paper_loads_at_every_scale(name: str, scale: Path) -> None:
    if name == "true-interventions" and scale.stem != "lab":
        pytest.skip("only the lab knows the truth")
    bench = Bench(
        scale=scale, seeds=(3,), reporter=SilentProgress(), recipes=ROOT / "recipes" / "paper"
    )
    if not bench.has(name) and not name.startswith("proposer-"):
        with pytest.raises(ConfigError, match=r"needs build_sft\.teacher"):
            bench.recipe(name, 3)
        return
    recipe = bench.recipe(name, 3)
    assert (recipe.name, recipe.seed) == (name, 3)
    if scale.stem == "lab" and name not in ("int", "iterated"):
        whole = bench.recipe("int", 3).model_dump(exclude={"name"})
        assert recipe.model_dump(exclude={"name"}) != whole


def test_a_model_that_a_scale_does_not_name_is_left_out_by_name(bench: Bench) -> None:
    names = ("int", "distillation-thinking", "distillation-summary", "written-reference")
    assert [name for name in names if bench.has(name)] == ["int"]
    assert bench.identity(names) == bench.identity(("int",))
    paper = replace(bench, scale=ROOT / "recipes" / "scale" / "paper.toml")
    assert all(paper.has(name) for name in names)
    assert paper.identity(names) != paper.identity(("int",))


def test_every_experiment_is_documented_and_names_recipes_that_exist() -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text()
    assert not [name for name in EXPERIMENTS if f"`{name}`" not in page]
    named = {name for experiment in EXPERIMENTS.values() for name in experiment.recipes}
    assert named <= set(VARIANTS)


def test_results_are_written_once_and_table_1_has_its_rows(bench: Bench) -> None:
    chosen, out = choose(["table1", "fig2", "fig4", "fig10"]), default_folder(bench)
    reproduce(chosen, bench, out)
    assert out == bench.run_directory(0) / "report"
    assert {p.name for p in out.iterdir()} >= {
        "table1.md", "table1.json", "table1.csv", "fig4.svg", "fig4.png", "fig4.csv", "fig2.md"
    }  # fmt: skip
    files = {f: f.stat().st_mtime_ns for f in bench.runs.rglob("*") if f.is_file()}
    reproduce(chosen, bench, out)
    assert files == {f: f.stat().st_mtime_ns for f in bench.runs.rglob("*") if f.is_file()}
    result = json.loads((out / "table1.json").read_text())
    rows = {row[0]: row for row in result["tables"][0]["rows"]}
    assert rows["4"][4:6] == ["3/3", "24/24"]
    assert rows["3"][4:6] == ["0/3", "0/24"]
    verdicts = {claim["claim"]: claim["verdict"] for claim in result["claims"]}
    assert verdicts["intervention above prefix alone (rows 4, 2)"] == "holds"
    assert verdicts["a more capable proposer above the base itself (rows 6, 4)"] == "cannot tell"
    assert result["state"]["seeds"] == [0]
    assert "5" not in rows
    assert "names no proposer for row 5" in result["tables"][0]["note"]
    text = (out / "table1.md").read_text()
    assert "| 1 | – | problem | 40/334, 0.0984 % |" in text


def test_the_page_keeps_what_was_written_by_hand(bench: Bench, tmp_path: Path) -> None:
    chosen, page = choose(["fig4", "fig10", "table7"]), tmp_path / "docs" / "paper.md"
    reproduce(chosen[:2], bench, tmp_path / "out")
    write_page(chosen, tmp_path / "out", page)
    text = page.read_text()
    assert "Not written yet." in text
    assert "| [fig4](#fig4) | Figure 4: prefix, original step, intervention | 3 | 0 | 1 |" in text
    assert "table7" not in text
    assert (page.with_suffix("") / "fig4.svg").is_file()
    assert "(paper/fig4.svg)" in text
    page.write_text(text.replace("Not written yet.", "Row 3: chance."))
    write_page(chosen, tmp_path / "out", page)
    assert page.read_text() == text.replace("Not written yet.", "Row 3: chance.")


def test_recipes_of_one_seed_share_their_sampling(bench: Bench) -> None:
    for name in ("int", "no-filter", "suffix"):
        bench.read(name, lambda p: list(p.rows.path.iterdir()))
    folders = {path.name: len(list(path.iterdir())) for path in bench.run_directory(0).iterdir()
               if path.is_dir()}  # fmt: skip
    assert folders["propose"] == folders["select"] == 1
    assert folders["build-sft"] == 3
    assert folders["recipes"] == 3


def test_a_recipe_may_not_change_under_its_name(bench: Bench) -> None:
    bench.read("int", lambda p: p.train_rollouts)
    bench.scale.write_text(bench.scale.read_text().replace("num_rollouts = 4", "num_rollouts = 5"))
    with pytest.raises(ArtifactError, match=r"recipes/int.json .*sample\.num_rollouts: 4 → 5"):
        bench.read("int", lambda p: p.problems)


def test_a_run_of_one_recipe_is_not_shared(bench: Bench) -> None:
    folder = bench.run_directory(0)
    folder.mkdir(parents=True)
    (folder / "config.resolved.json").write_text("{}")
    with pytest.raises(ArtifactError, match="belongs to one recipe"):
        bench.read("int", lambda p: p.problems)


def test_seeds_are_pooled_by_problem(bench: Bench) -> None:
    two = Bench(
        scale=bench.scale, seeds=(0, 1), reporter=bench.reporter, recipes=bench.recipes,
        runs=bench.runs,
    )  # fmt: skip
    counts = pool(two.read("int", lambda p: condition_counts(p, Condition.PREFIX_INTERVENTION)))
    assert {len(runs) for runs in counts.values()} == {2}
    assert sum(count.num_samples for count in flat(counts)) == 48
    assert default_folder(two).name == "reproduce-scripted-seeds-0-1"
    larger = replace(two, overlays=(ROOT / "recipes" / "scale" / "k1024.toml",))
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
    assert close("x", left, right, mean, 0.01).holds is True
    assert close("x", left, right, mean, 0.0005).holds is False
    noisy = {f"q{i}": [1.0 + (-1) ** i] for i in range(10)}
    assert close("x", left, noisy, mean, 0.01).holds is None


def test_resamples_without_one_side_do_not_spoil_the_interval() -> None:
    ours = clusters(*[(8, 4)] * 6)
    lone = {"p0": [Count(8, 1)]}
    line = more_accurate("x", ours, lone)
    assert line.holds is True
    assert "nan" not in line.figures
    assert more_accurate("x", ours, {}).holds is None


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
