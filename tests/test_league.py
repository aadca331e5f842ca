"""The league: ledgers add up to manifests, and runs are read where a budget puts them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import pytest

from conftest import scripted_recipe, write_problems, write_script
from midcourse.config import HELD_OUT_SET, TRAIN_SET, Recipe
from midcourse.errors import ArtifactError
from midcourse.experiments.catalogue import Row, experiments
from midcourse.experiments.data import Reading
from midcourse.experiments.league import (
    COSTS,
    MAKERS,
    ArmRun,
    NoSuccess,
    Place,
    budgets,
    gain_along,
    gains_at,
    place_at,
)
from midcourse.experiments.ledger import NOTHING, Ledger, Spending, ledger
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count, Interval
from midcourse.pipeline import Method, Session
from midcourse.pipeline.models import TuneSettings
from midcourse.records import Role, Start, Verdict
from midcourse.report.plots import Figure, Panel, Point, Series, draw, figure_csv
from midcourse.run import Training, WorkTimer
from midcourse.store.stage import read_manifest
from midcourse.training.jobs import Job
from midcourse.training.rl.store import Found, write_found
from midcourse.training.tokens import tokens_by_iteration, training_tokens
from runs import run_to
from test_rl_records import ITERATIONS, entry, grade_of, log, rollout_of, write
from test_tokens import RL_JOB

TOKENS = COSTS["tokens"]
PATCHED_RL, BASE_RL = Role(Start.PATCHED, rl=True), Role(rl=True)
LOGGED = {"groups/trained_tokens": 24.0, "online/proposer_requests": 2.0,
          "online/proposer_in": 30.0, "online/proposer_out": 5.0,
          "groups/teacher_tokens": 7.0}  # fmt: skip
#: Of the three iterations of `ITERATIONS`, tokens in groups that were trained on.
TRAINED = (24.0, 24.0, 24.0)


def finish(session: Session, training: Training[Any], told: Mapping[str, Any]) -> None:
    """Have a training be done, as the end of it would say."""
    folder = session.run.path(training)
    folder.mkdir(parents=True, exist_ok=True)
    session.run.finish(training, WorkTimer.begin(), {}, told)


def rl_folder(folder: Path) -> Path:
    """Write what RL of three iterations with online InT leaves."""
    write(folder)
    log(folder, *(entry(step, 0.0, **LOGGED) for step in (1, 2, 3)))
    continuation = replace(rollout_of(0, "p0", 7, "x"), parent_id="q")
    grades = (grade_of(continuation, Verdict.CORRECT),)
    write_found(folder, 1, Found(rollouts=(continuation,), grades=grades))
    return folder


def trained(session: Session, method: Method) -> None:
    """Have the trainings of a recipe be done: fine-tuning on 500 tokens, three iterations of RL."""
    session.complete(method.models.rows)
    for training in (method.models.patched.trained, *method.models.rl_trainings()):
        assert training is not None
        told: Mapping[str, Any] = {"tokens": {}, "trained_tokens": {"total": 500}}
        if not isinstance(training.settings, TuneSettings):
            folder = rl_folder(session.run.path(training))
            told = training_tokens(Job("RL", folder, RL_JOB), {})
        finish(session, training, told)


RL = {"num_iterations": 3, "num_updates": 1, "save_every": 2, "keep_checkpoints": True}


def of_league(data: dict[str, Any]) -> Recipe:
    """Return a recipe with RL from the base and from the patched model."""
    models = ["base", "base + RL", "patched + RL"]
    return Recipe.model_validate({**data, "train_rl": RL, "evaluate": {"models": models}})


@pytest.fixture
def recipe(recipe_data: dict[str, Any]) -> Recipe:
    return of_league(recipe_data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with everything done: only to be read."""
    place = tmp_path_factory.mktemp("league")
    data = scripted_recipe(write_problems(place), write_script(place))
    run_to(place / "run", of_league(data), trained)
    return place


@pytest.fixture(scope="module")
def ledgers(folder: Path) -> dict[Role, Ledger]:
    """What InT + RL and RL alone took in `folder`."""
    data = scripted_recipe(folder / "problems.jsonl", folder / "script.json")

    def take(session: Session, method: Method) -> dict[Role, Ledger]:
        return {r: ledger(session, method, Row(name="x", role=r)) for r in (PATCHED_RL, BASE_RL)}

    return run_to(folder / "run", of_league(data), take)


def read_ledger(folder: Path, recipe: Recipe, role: Role) -> Ledger:
    def take(session: Session, method: Method) -> Ledger:
        trained(session, method)
        return ledger(session, method, Row(name="x", role=role))

    return run_to(folder / "run", recipe, take)


def counted(run: Path, stage: str) -> Iterable[tuple[str, dict[str, int]]]:
    """Yield label and tokens of each stage of a name."""
    for path in run.glob(f"{stage}/*/manifest.json"):
        manifest = read_manifest(path.parent)
        for tokens in manifest["tokens"].values():
            yield manifest["label"], tokens


def test_a_ledger_adds_up_to_the_manifests(folder: Path, ledgers: dict[Role, Ledger]) -> None:
    found = ledgers[PATCHED_RL]
    ((_, proposed),) = counted(folder / "run", "propose")
    samples = dict(counted(folder / "run", "sample"))
    hard, verified = samples["train"], samples["prefix_intervention"]
    assert found.shared == replace(NOTHING, read=hard["in"], sampled=hard["out"])
    assert found.choice == NOTHING
    assert found.start == replace(
        NOTHING,
        read=proposed["in"] + verified["in"],
        proposed=proposed["out"],
        verified=verified["out"],
        trained=500,
    )


def test_rl_of_a_ledger_adds_up_to_its_manifest(folder: Path, ledgers: dict[Role, Ledger]) -> None:
    found = ledgers[PATCHED_RL]
    (manifest,) = [
        of
        for path in (folder / "run").glob("checkpoints/*/manifest.json")
        if (of := read_manifest(path.parent))["label"] == "patched + RL"
    ]
    tokens, whole = manifest["tokens"], found.course[3]
    assert list(found.course) == [0, 2, 3]
    assert found.course[0] == NOTHING
    assert whole.sampled + whole.verified == tokens["policy"]["out"]
    assert whole.verified == 3
    assert whole.proposed == tokens["proposer"]["out"] == 15
    assert whole.read == tokens["policy"]["in"] + tokens["proposer"]["in"]
    # Completions, and their prompts of three tokens each: here as many.
    assert whole.trained == 2 * manifest["trained_tokens"]["total"] == 2 * sum(TRAINED)


def test_what_an_arm_costs_grows_with_its_iterations(ledgers: dict[Role, Ledger]) -> None:
    found = ledgers[PATCHED_RL]
    for cost in COSTS.values():
        spent = [cost(found.through(iteration)) for iteration in sorted(found.course)]
        assert spent == sorted(set(spent))
        assert spent[0] == cost(found.start) > 0


def test_rl_alone_is_charged_for_rl_alone(ledgers: dict[Role, Ledger]) -> None:
    found = ledgers[BASE_RL]
    assert found.start == found.choice == NOTHING
    assert found.shared.sampled > 0


def test_a_baseline_is_not_charged_for_the_choice_of_its_problems(
    tmp_path: Path, recipe: Recipe, ledgers: dict[Role, Ledger]
) -> None:
    config = recipe.build_sft.model_copy(update={"source": "reference"})
    of_references = recipe.model_copy(update={"build_sft": config})
    found = read_ledger(tmp_path, of_references, PATCHED_RL)
    assert found.start == replace(NOTHING, trained=500)
    assert found.choice == replace(ledgers[PATCHED_RL].start, trained=0)


def test_a_teacher_and_a_reference_model_are_charged(tmp_path: Path, recipe: Recipe) -> None:
    teacher = {"source": "distillation", "teacher": "lab", "num_solutions": 4}
    ours, pairs = recipe.build_sft, recipe.train_sft
    taught = recipe.model_copy(update={"build_sft": ours.model_copy(update=teacher)})
    found = read_ledger(tmp_path, taught, PATCHED_RL)
    samples = dict(counted(tmp_path / "run", "sample"))
    assert found.start.teacher == samples["teacher"]["out"] > 0
    assert found.start.sampled == found.start.verified == 0
    dpo = recipe.model_copy(update={"train_sft": pairs.model_copy(update={"method": "dpo"})})
    assert read_ledger(tmp_path / "other", dpo, PATCHED_RL).start.scored == 500


def test_self_distillation_is_charged_for_its_rollouts_and_its_teacher(
    tmp_path: Path, recipe: Recipe, ledgers: dict[Role, Ledger]
) -> None:
    config = recipe.train_sft.model_copy(update={"method": "sdft"})
    found = read_ledger(tmp_path, recipe.model_copy(update={"train_sft": config}), PATCHED_RL)
    # Its folder is written as RL's are here, whatever its name.
    assert found.start == found.course[3]
    assert found.start.scored == found.start.trained + 3 * 7
    assert found.choice == replace(ledgers[PATCHED_RL].start, trained=0)


def test_a_missing_count_is_an_error(tmp_path: Path, recipe: Recipe) -> None:
    def take(session: Session, method: Method) -> None:
        session.complete(method.models.rows)
        tuned = method.models.patched.trained
        assert tuned is not None
        finish(session, tuned, {})
        with pytest.raises(ArtifactError, match="does not say its tokens"):
            ledger(session, method, Row(name="x", role=Role(Start.PATCHED)))

    run_to(tmp_path / "run", recipe, take)


def test_iterations_that_do_not_add_up_are_an_error(tmp_path: Path, recipe: Recipe) -> None:
    def take(session: Session, method: Method) -> None:
        trained(session, method)
        rl = method.models.in_role(BASE_RL).trained
        assert rl is not None
        (session.run.path(rl) / "metrics.jsonl").write_text("")  # its proposals are lost
        with pytest.raises(ArtifactError, match="do not add up to its manifest"):
            ledger(session, method, Row(name="x", role=BASE_RL))

    run_to(tmp_path / "run", recipe, take)


def test_a_ledger_without_a_part_is_not_read() -> None:
    adapter = Reading(ledger).adapter
    whole = Ledger(shared=NOTHING, choice=NOTHING, start=NOTHING, course={0: NOTHING})
    plain = adapter.dump_python(whole, mode="json")
    assert adapter.validate_json(json.dumps(plain)) == whole
    for part in fields(Spending):
        start = {name: n for name, n in plain["start"].items() if name != part.name}
        with pytest.raises(ValueError, match=part.name):
            adapter.validate_python({**plain, "start": start})


def test_sums_weigh_parts_as_they_say() -> None:
    spent = Spending(
        read=1, sampled=10, proposed=100, verified=1_000, teacher=10_000, trained=100_000,
        scored=1_000_000,
    )  # fmt: skip
    assert spent.tokens == 111_110
    assert spent.passes == 1 + 11_110 + 1_000_000 + 300_000
    assert spent + NOTHING == spent


def run_of(start: int, each: int, *passed: float) -> ArmRun:
    """A run whose start takes so many tokens, and each of its iterations so many.

    Finding its hard problems took five.
    """
    course = {i: replace(NOTHING, sampled=i * each) for i in range(len(passed))}
    spent, found = replace(NOTHING, trained=start), replace(NOTHING, sampled=5)
    return ArmRun(
        ledger=Ledger(shared=found, choice=NOTHING, start=spent, course=course),
        courses={name: dict(enumerate(passed)) for name in (HELD_OUT_SET, TRAIN_SET)},
        dead=NoSuccess(0.5, 0.25),
    )


@pytest.mark.parametrize(
    ("budget", "place"),
    [(99, None), (100, Place(0, False)), (149, Place(0, False)), (150, Place(1, False)),
     (200, Place(2, False)), (201, Place(2, True))],
)  # fmt: skip
def test_a_run_is_read_at_the_last_model_that_the_budget_pays(
    budget: float, place: Place | None
) -> None:
    assert place_at(run_of(100, 50, 0.0, 0.5, 0.9).ledger, budget, TOKENS) == place


def test_the_budget_is_what_rl_alone_has_spent_at_four_fifths() -> None:
    runs = {1: run_of(0, 10, *[0.0] * 11), 2: run_of(0, 7, *[0.0] * 4)}
    assert budgets(runs, TOKENS) == {1: 80, 2: 14}


def test_finding_hard_problems_is_charged_to_what_is_made_of_them() -> None:
    dear, free = (run_of(start, 10, 0.0, 0.0).ledger.with_search for start in (15, 0))
    assert [dear.through(i).tokens for i in (0, 1)] == [20, 30]
    assert [free.through(i).tokens for i in (0, 1)] == [0, 10]
    assert dear.shared == NOTHING
    assert free.shared.tokens == 5


def test_an_expensive_start_is_read_at_fewer_iterations() -> None:
    cheap, dear, beyond = (run_of(n, 10, 0.0, 0.25, 0.5) for n in (0, 10, 21))
    limits = {1: 20.0}
    gains = [
        gains_at({1: run}, limits, TOKENS, TRAIN_SET, {1: 0.0}) for run in (cheap, dear, beyond)
    ]
    assert gains == [{1: 0.5}, {1: 0.25}, {}]


def test_the_gain_along_a_budget_is_an_area() -> None:
    rising = run_of(0, 10, 0.1, 0.3)  # from the base's pass@1 to 20 points above
    along = [gain_along(rising, budget, TOKENS, TRAIN_SET, 0.1) for budget in (5, 10, 20)]
    assert along == pytest.approx([0.05, 0.1, 0.15])
    late = run_of(10, 10, 0.3, 0.3)
    assert gain_along(late, 20, TOKENS, TRAIN_SET, 0.1) == pytest.approx(0.1)
    assert gain_along(late, 5, TOKENS, TRAIN_SET, 0.1) == 0


@dataclass(frozen=True)
class MadeRunner:
    """Runs of every recipe: RL of four iterations, ten tokens each; data takes fifteen.

    References take more than RL's budget.
    """

    seeds: tuple[int, ...]

    def has(self, name: str) -> bool:
        return name != "sft-distillation"

    def read_rows(self, rows: Iterable[Row], reading: Reading[Any]) -> dict[str, dict[int, Any]]:
        return {row.name: {s: self._read(row, reading, s) for s in self.seeds} for row in rows}

    def _read(self, row: Row, reading: Reading[Any], seed: int) -> Any:
        is_patched = row.role.start is Start.PATCHED
        start = 35 if row.recipe == "sft-reference" else 15
        passed = [Count(100, 10 + 5 * i + 2 * seed + 4 * is_patched) for i in range(5)]
        made = {
            "ledger": run_of(start * is_patched, 10, *[0.0] * 5).ledger,
            "counts": {"p": [Count(100, 10 + 2 * seed)]},
            "no_success": NoSuccess(0.5, 0.25),
        }
        course = {i: {"p": [count]} for i, count in enumerate(passed)}
        return made.get(reading.take.__name__, course)


def test_the_league_names_every_arm_and_judges_runs() -> None:
    runner = cast(ExperimentRunner, MadeRunner((1, 2, 3, 4)))
    experiment = experiments()["league"]
    result = MAKERS["league"](runner, experiment)
    reach, tokens, passes, charged, counts = result.tables
    assert reach.rows[0][:2] == ("base", "1 / 1 / 1 / 1")
    assert reach.rows[0][4] == "12.0 / 14.0 / 16.0 / 18.0"
    arms = {row[0]: row for row in tokens.rows}
    assert arms.keys() == {row.name for row in experiment.rows[1:]}
    assert {row[0] for row in counts.rows} == {*arms, "all: finding the hard problems"}
    assert {name for name, row in arms.items() if row[1] == "not run"} == {
        row.name for row in experiment.rows if not runner.has(row.recipe)
    }
    # Of 30 tokens, a start of 15 leaves one iteration: 5 points where RL has 15, from 4 above.
    assert arms["RL"][1:4] == ("4", "3 / 3 / 3 / 3", "3e-05")
    assert arms["RL"][5] == "15.0 / 15.0 / 15.0 / 15.0"
    assert arms["InT + RL"][1:4] == ("4", "1 / 1 / 1 / 1", "2.5e-05")
    assert arms["InT + RL"][5] == "9.0 / 9.0 / 9.0 / 9.0"
    assert arms["Step-DPO + RL"][1] == "4"
    assert arms["SFT on references + RL"][4:] == ("–",) * 6
    assert not any("references + RL" in line.claim for line in result.claims)
    # Of all 40, a start of 15 that is charged five for its problems leaves two.
    dear = {row[0]: row for row in charged.rows}
    assert dear["RL"][2:4] == ("4 / 4 / 4 / 4", "4e-05")
    assert dear["InT + RL"][2:4] == ("2 / 2 / 2 / 2", "4e-05")
    assert dear["InT + RL"][5] == "14.0 / 14.0 / 14.0 / 14.0"
    for table in result.tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert passes.title == "At one budget of forward passes"
    said = [claim.claim for claim in result.claims]
    assert len(said) == len(set(said))
    assert "InT + RL gains more than RL at the budget, held-out problems" in said
    for panel in result.panels:
        for series in panel.series:
            places = [float(point.x) for point in series.points]
            assert places == sorted(set(places))
            assert len(series.dots) == 4 * len(places)


def test_tokens_by_iteration_leave_out_what_was_not_trained_on(tmp_path: Path) -> None:
    made = tokens_by_iteration(rl_folder(tmp_path), 1)
    assert [of.sampled.requests for of in made] == [
        sum(len(group.rollouts) for group in groups) for groups in ITERATIONS
    ]
    assert [of.completions for of in made] == list(TRAINED)
    assert [of.verified.requests for of in made] == [0, 1, 0]


def test_single_runs_are_drawn_and_are_in_the_data() -> None:
    runner = cast(ExperimentRunner, MadeRunner((1, 2, 3)))
    panel = MAKERS["league"](runner, experiments()["league"]).panels[0]
    figure = Figure("gain", (replace(panel, series=panel.series[:1]),))
    rows = figure_csv(figure).splitlines()[1:]
    assert len(rows) == 5 * (1 + 3)  # five kept models: their mean, and three runs
    bare = Figure("gain", (replace(panel, series=(replace(panel.series[0], dots=()),)),))
    assert draw(figure, "svg") != draw(bare, "svg")


def test_an_axis_reaches_down_to_a_loss() -> None:
    def drawn(low: float) -> bytes:
        points = (Point(0.0, Interval(1, 1, 1), 1), Point(1.0, Interval(low, low, low), 1))
        panel = Panel(title="", x_label="", y_label="", series=(Series("x", points),))
        return draw(Figure("loss", (panel,)), "svg")

    assert "−5".encode() in drawn(-5.0)
    assert "−".encode() not in drawn(0.5)
