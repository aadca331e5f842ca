"""Sets to evaluate on by name, subsets, and rollouts per source."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import write_problems
from midcourse.cli import app
from midcourse.config import Recipe, load_recipe
from midcourse.data.parts import require_disjoint, subset_ids
from midcourse.errors import ConfigError, DataError
from midcourse.experiments.rl import columns_of
from midcourse.pipeline import Method, Session, Setup, method, open_session
from midcourse.plan.tables import make_plan
from midcourse.progress import SilentProgress
from midcourse.records import Problem, Role, Solvability
from midcourse.report.status import status_table
from midcourse.report.write import write_report
from midcourse.stages.search import rounds_within
from runs import run_to
from test_planning import by_name

IDS = [f"p{i}" for i in range(50)]


@pytest.fixture
def with_sets(tmp_path: Path, recipe_data: dict[str, Any]) -> dict[str, Any]:
    """The scripted recipe with two benchmarks beside the held-out set, the base evaluated."""
    place = {name: str(write_problems(tmp_path, name, first))
             for name, first in (("held_out", 3), ("one", 6), ("two", 9))}  # fmt: skip
    recipe_data["problems"]["held_out_path"] = place["held_out"]
    recipe_data["evaluate"] = {
        "models": ["base"],
        "num_rollouts": 3,
        "ks": [1],
        "sets": {
            "one": {"path": place["one"], "subset": 2, "num_rollouts": 2},
            "two": {"path": place["two"], "ks": [1, 4], "num_rollouts": 4},
        },
    }
    return recipe_data


def evaluated(session: Session, made: Method) -> dict[str, Counter[str]]:
    """Return how many rollouts of each problem the base drew, by set."""
    return {
        name: Counter(r.problem_id for r in session.read(drawn.rollouts))
        for (_, name), drawn in made.evaluation.all.items()
    }


# --- by name -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_set_is_evaluated_with_its_own_k_and_rollouts(
    tmp_path: Path, with_sets: dict[str, Any]
) -> None:
    recipe, directory = Recipe.model_validate(with_sets), tmp_path / "run"
    with open_session(recipe, directory, SilentProgress()) as session:
        made = method(session.setup)
        for steps in made.steps():
            session.complete(*steps)
        found = evaluated(session, made)
        write_report(session, made)
    assert {name: sorted(counts.values()) for name, counts in found.items()} == {
        "held_out": [3, 3, 3], "one": [2, 2], "two": [4, 4, 4]
    }  # fmt: skip
    report = json.loads((directory / "report" / "tables.json").read_text())
    tables = {t["title"]: [row[0] for row in t["rows"]] for t in report["tables"]}
    assert tables["pass@k on one, %"] == ["1"]
    assert tables["pass@k on two, %"] == ["1", "4"]
    assert len(report["counts"]["evaluations"]["one"]["base"]) == 2
    labels = {row[1] for row in status_table(directory).rows}
    assert {"held_out base", "one base", "two base"} <= labels
    page = (directory / "report" / "report.html").read_text()
    assert "pass@k on two, %" in page
    plan = by_name(make_plan(recipe))
    assert plan["sample", "one base"].work.requests == 2 * 2
    assert plan["sample", "two base"].work.requests == 3 * 4


def test_only_the_named_sets_are_read_and_evaluated(with_sets: dict[str, Any]) -> None:
    with_sets["evaluate"]["on"] = ["two"]
    with_sets["evaluate"]["sets"]["one"]["path"] = "there/is/none.jsonl"
    made = method(Setup.of(Recipe.model_validate(with_sets)))
    assert [name for _, name in made.evaluation.all] == ["two"]
    with pytest.raises(ConfigError, match=r"no three problems .* set evaluate.sets.three.path"):
        made.evaluation.evaluate(made.models.in_role(Role()), "three")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({"a": {}}, "evaluate.sets.a: give it a path; only train need none"),
        ({"held_out": {"path": "p"}}, "its problems come from problems.held_out_path"),
        ({"held_out": {"subset": 3}}, "evaluate.sets.held_out: give it a path"),
        ({"train": {"limit": 3}}, "evaluate.sets.train: columns and limit are about a path"),
        ({"a b": {"path": "p"}}, "sets: 'a b' is not a name"),
        ({"a": {"path": "p", "ks": [4], "num_rollouts": 2}}, "sets.a: pass@4 needs as many"),
        ({"a": {"pathh": "p"}}, "did you mean 'evaluate.sets.a.path'"),
        ({"a": {"path": "p", "subset": 0}}, "evaluate.sets.a.subset: "),
    ],
)
def test_a_set_that_cannot_be_meant_is_one_line(
    tmp_path: Path, sets: dict[str, Any], said: str, recipe_data: dict[str, Any]
) -> None:
    recipe_data["evaluate"] = {"sets": sets}
    file = tmp_path / "r.toml"
    lines = [f'problems.path = "{recipe_data["problems"]["path"]}"', 'model.path = "lab"']
    file.write_text("\n".join(['name = "r"', *lines]))
    done = CliRunner().invoke(
        app, ["plan", str(file), "--set", f"evaluate={json.dumps({'sets': sets})}"]
    )
    assert done.exit_code == 1
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_an_unknown_name_lists_the_known(with_sets: dict[str, Any]) -> None:
    with_sets["evaluate"]["on"] = ["tow"]
    with pytest.raises(ValueError, match="there is no set 'tow': known are held_out, one, two"):
        Recipe.model_validate(with_sets)


def test_an_overlap_names_the_set(with_sets: dict[str, Any], tmp_path: Path) -> None:
    sets = with_sets["evaluate"]["sets"]
    sets["two"]["path"] = str(write_problems(tmp_path, "again", first=1))
    with pytest.raises(DataError, match="2 of 3 two problems are training problems too"):
        Setup.of(Recipe.model_validate(with_sets))
    sets["two"]["path"] = str(write_problems(tmp_path, "again", first=7))
    with pytest.raises(DataError, match=r"2 of 3 two problems have the id of a problem of one"):
        Setup.of(Recipe.model_validate(with_sets))


def test_the_same_problem_under_two_ids_may_be_in_two_sets() -> None:
    first, second = (
        Problem(problem_id=name, text="1 + 1?", answer="2", reference_solution=None, source="s",
                split="a") for name in ("a1", "b1")
    )  # fmt: skip
    require_disjoint([], {"a": [first], "b": [second]})


def test_the_paper_s_tables_have_its_benchmarks() -> None:
    four = columns_of(load_recipe("paper/int", (), ["scale/paper"]))
    assert [column.title for column in four] == [
        "held out pass@1 %", "hmmt-nov-2025 pass@1 %", "amo-bench pass@8 %",
        "apex-shortlist pass@8 %",
    ]  # fmt: skip
    overlays = ["scale/paper", "scale/paper/appendix-g"]
    eight = columns_of(load_recipe("paper/appendix-g", (), overlays))
    assert [column.k for column in eight] == [1] * 7 + [8]
    lab = columns_of(load_recipe("paper/int", (), ["scale/lab"]))
    assert [column.title for column in lab] == ["held out pass@1 %", "held out pass@8 %"]


# --- subsets -----------------------------------------------------------------------------------


def test_a_subset_knows_no_order_and_holds_the_smaller_ones() -> None:
    chosen = [subset_ids(IDS, size, seed=0) for size in range(1, 60)]
    assert chosen[7] == subset_ids(reversed(IDS), 8, seed=0)
    assert all(small < large for small, large in pairwise(chosen[:50]))
    assert [len(ids) for ids in chosen[48:]] == [49] + [50] * 10
    assert subset_ids(IDS, 8, seed=1) != chosen[7]
    # A problem that comes to the file takes at most one place.
    assert len(chosen[7] - subset_ids([*IDS, "new"], 8, seed=0)) <= 1


def test_other_keys_do_not_change_who_is_chosen(tmp_path: Path, with_sets: dict[str, Any]) -> None:
    def chosen(**keys: object) -> tuple[set[str], set[str]]:
        with_sets["evaluate"]["sets"]["one"] |= keys
        made = method(Setup.of(Recipe.model_validate(with_sets)))
        drawn = made.evaluation.evaluate(made.models.in_role(Role()), "one")
        contexts = drawn.rollouts.settings.contexts
        return set(contexts.texts.items), {
            p.problem_id for p in drawn.grades.settings.problems.items
        }

    before = chosen()
    assert before[0] == before[1]
    assert len(before[0]) == 2
    assert chosen(num_rollouts=5, ks=[1, 5]) == before
    rows = Path(with_sets["evaluate"]["sets"]["one"]["path"]).read_text().splitlines()
    reordered = tmp_path / "reordered.jsonl"
    reordered.write_text("\n".join(reversed(rows)))
    assert chosen(path=str(reordered)) == before


def test_a_subset_of_the_hard_problems_goes_on(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    recipe_data["select"] = {"subset": 2}
    recipe_data["evaluate"] = {"num_rollouts": 2, "ks": [1], "sets": {"train": {"subset": 1}}}
    recipe = Recipe.model_validate(recipe_data)

    def use(session: Session, made: Method) -> None:
        statuses = list(session.read(made.statuses))
        assert [s.status for s in statuses] == [Solvability.HARD] * 3
        kept = subset_ids(("p0", "p1", "p2"), 2, recipe.seed)
        assert {p.problem_id for p in made.hard.read(session)} == kept
        assert {rollout.problem_id for rollout in session.read(made.cases)} == kept
        drawn = made.evaluation.evaluate(made.models.in_role(Role()), "train")
        found = {rollout.problem_id for rollout in session.read(drawn.rollouts)}
        assert found == subset_ids(("p0", "p1", "p2"), 1, recipe.seed)
        problems = made.evaluation.problems(session, "train")
        assert {problem.problem_id for problem in problems} == found

    run_to(tmp_path / "run", recipe, use)


def test_the_paper_s_subsets_are_planned() -> None:
    overlays = ["scale/paper", "scale/paper/conditions"]
    plan = by_name(make_plan(load_recipe("paper/conditions", (), overlays)))
    assert plan["cases", "train"].work.requests == 334 * 4
    overlays = ["scale/paper", "scale/paper/pass-at-k"]
    plan = by_name(make_plan(load_recipe("paper/pass-at-k", (), overlays)))
    assert plan["sample", "held_out base"].work.requests == 32 * 1024
    assert ("sample", "amo-bench base") not in plan
    recipe = load_recipe("paper/pass-at-k", (), overlays)
    assert recipe.evaluate.subset_of("train") == 32


# --- rollouts per source -----------------------------------------------------------------------


@pytest.fixture
def two_sources(recipe_data: dict[str, Any], problem_file: Path) -> dict[str, Any]:
    """The scripted recipe where one of three problems is of a source that takes more rollouts."""
    rows = [json.loads(line) for line in problem_file.read_text().splitlines()]
    rows = [row | {"source": "olympiad" if row["id"] == "p1" else "easy"} for row in rows]
    problem_file.write_text("\n".join(map(json.dumps, rows)))
    recipe_data["sample"] |= {"num_rollouts_by_source": {"olympiad": 7}}
    return recipe_data


@pytest.mark.parametrize("rounds", [[], [1, 3]])
def test_a_source_has_its_own_number_of_rollouts(
    rounds: list[int], tmp_path: Path, two_sources: dict[str, Any]
) -> None:
    two_sources["sample"]["rounds"] = rounds

    def use(session: Session, made: Method) -> None:
        drawn = Counter(r.problem_id for r in session.read(made.train.rollouts))
        assert drawn == {"p0": 4, "p1": 7, "p2": 4}
        statuses = {s.problem_id: s for s in session.read(made.statuses)}
        assert {name: s.num_rollouts for name, s in statuses.items()} == drawn
        assert {s.status for s in statuses.values()} == {Solvability.HARD}

    run_to(tmp_path / "run", Recipe.model_validate(two_sources), use)
    plan = by_name(make_plan(Recipe.model_validate(two_sources), pass_rates="0:1"))
    assert plan["sample", "train"].work.requests == pytest.approx(15)


def test_a_problem_with_too_few_of_its_source_s_rollouts_is_undecided(
    tmp_path: Path, two_sources: dict[str, Any]
) -> None:
    """What counts as hard under the usual k does not under a larger one."""
    from midcourse.stages.select import select

    def use(session: Session, made: Method) -> None:
        grades = [g for g in session.read(made.train.grades) if g.problem_id == "p1"][:4]
        (problem,) = (p for p in session.setup.problems.train if p.problem_id == "p1")
        for number, status in ((4, Solvability.HARD), (7, Solvability.UNDECIDED)):
            (found,) = select(
                [problem], grades, num_rollouts=4, truncated_is_incorrect=True,
                by_problem={"p1": number},
            )  # fmt: skip
            assert found.status is status

    run_to(tmp_path / "run", Recipe.model_validate(two_sources), use)


def test_a_source_that_no_problem_has_is_one_line(two_sources: dict[str, Any]) -> None:
    two_sources["sample"]["num_rollouts_by_source"] = {"omni-math": 8}  # known, not in this file
    Setup.of(Recipe.model_validate(two_sources))
    two_sources["sample"]["num_rollouts_by_source"] = {"olympaid": 8}
    with pytest.raises(ConfigError, match="the source 'olympaid'; theirs are easy, olympiad"):
        Setup.of(Recipe.model_validate(two_sources))


@pytest.mark.parametrize(
    ("rounds", "number", "found"),
    [((4, 12, 48), 64, (4, 12, 48)), ((4, 12, 48), 128, (4, 12, 48, 64)),
     ((4, 12, 48), 10, (4, 6)), ((), 5, (5,))],
)  # fmt: skip
def test_rounds_fit_a_source_s_number(
    rounds: tuple[int, ...], number: int, found: tuple[int, ...]
) -> None:
    assert rounds_within(rounds, number) == found


def test_the_paper_s_sources_are_planned() -> None:
    def rollouts(*assume: str) -> float:
        recipe = load_recipe("paper/int", ("sample.rounds=[]",), ["scale/paper"])
        return by_name(make_plan(recipe, assume=assume))["sample", "train"].work.requests

    assert rollouts() == 107_760 * 64
    shares = 'source_shares={"omni-math": 0.25}'
    assert rollouts(shares) == pytest.approx(107_760 * (0.75 * 64 + 0.25 * 128))


# --- entropy -----------------------------------------------------------------------------------


def test_entropy_is_taken_on_rollouts_at_temperature_1(with_sets: dict[str, Any]) -> None:
    def own(sampling: dict[str, float]) -> tuple[Any, Any]:
        with_sets["evaluate"]["sampling"] = sampling
        made = method(Setup.of(Recipe.model_validate(with_sets)))
        base = made.models.in_role(Role())
        (scored,) = made.evaluation.likelihoods
        return scored.settings.own.rollouts, made.evaluation.evaluate(base, "held_out").rollouts

    drawn, evaluation = own({"temperature": 1.0, "top_p": 1.0, "top_k": 0})
    assert drawn.key == evaluation.key
    drawn, evaluation = own({"temperature": 0.7, "top_p": 0.8, "top_k": 20, "max_tokens": 99})
    assert drawn.key != evaluation.key
    assert drawn.settings.stream != evaluation.settings.stream
    sampling = drawn.settings.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1, 1, 0)
    assert sampling.max_tokens == 99
