"""The credit map: values by continuation, scores of steps, signals, rankings, the command."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from made_runs import graded, made_rollout
from midcourse.checkers import checker_named
from midcourse.cli import app
from midcourse.config import ScriptedConfig, load_recipe, make_recipe
from midcourse.credit.attempts import Attempt
from midcourse.credit.measures import (
    LabMarks,
    Measure,
    Plan,
    StepLikelihood,
    StepMarks,
    StepNumbers,
    StepScores,
    distinct,
    first_error_scores,
)
from midcourse.credit.run import map_cases, map_run, stages_of_cases, write_map
from midcourse.credit.scores import (
    drop_scores,
    expected_place,
    place,
    score_tables,
    scored,
)
from midcourse.credit.scores import first_error_scores as scores_of_first_errors
from midcourse.credit.signals import GAP, PROPOSER, Mapped, Named, mapped
from midcourse.credit.values import Values, values_of
from midcourse.engines.bundled import base_folder
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.errors import ConfigError
from midcourse.localize.cases import ErrorCase
from midcourse.localize.run import locator
from midcourse.pipeline import method, open_session
from midcourse.pipeline.session import Tools
from midcourse.progress import SilentProgress
from midcourse.prompts import Prompt, load_prompt_set
from midcourse.records import Problem, Verdict
from midcourse.rendering import Renderer
from midcourse.run import Run

SOLVE = Prompt("custom/solve", "{problem}")
GUIDED = Prompt("custom/guided_solve", "{problem} {reference}")


def attempt(
    name: str = "a", steps: tuple[str, ...] = ("Two.\n\n", "So 2 + 2 = 5."), error_step: int = 1
) -> Attempt:
    problem = Problem(
        problem_id=f"problem {name}", text="2 + 2?", answer="4", reference_solution="It is 4.",
        source="s", split="train",
    )  # fmt: skip
    return Attempt(attempt_id=name, problem=problem, steps=steps, error_step=error_step)


def marked(number: int, steps: tuple[str, ...] = ("Two.", "Five.")) -> ErrorCase:
    return ErrorCase(
        case_id=f"{number}", source="s", problem=f"{number}: 2 + 2?", reference="It is 4.",
        steps=steps, error_step=1, answer="4",
    )  # fmt: skip


@pytest.fixture(scope="module")
def base() -> TransformersEngine:
    return TransformersEngine(base_folder(), device="cpu")


def settled(plan: Plan, engine: TransformersEngine) -> tuple[float, ...]:
    return plan.settle({scores.request_id: scores for scores in engine.score(plan.requests)})


# --- likelihoods -------------------------------------------------------------------------------


@torch.inference_mode()
def direct(engine: TransformersEngine, context: list[int], ids: list[int]) -> list[float]:
    """Return the log-probability of each of `ids` by one plain forward pass."""
    logits = engine.model(torch.tensor([context + ids])).logits[0].log_softmax(-1)
    return [logits[len(context) + i - 1, token].item() for i, token in enumerate(ids)]


def test_the_gap_is_the_difference_of_two_plain_forward_passes(base: TransformersEngine) -> None:
    one = attempt(steps=("Finds 7: 5 + 7 = 12.\n\n", "Loses 4: 12 - 4 = 9.\n\n", "The answer."))
    measures = {Measure.POLICY: SOLVE, Measure.PRIVILEGED: GUIDED}
    scores = []
    for measure, prompt in measures.items():
        plan = StepLikelihood(measure=measure, prompt=prompt).plan(one, base.renderer)
        scores.append(score(measure, settled(plan, base), plan.num_tokens))
    (found,) = mapped([one], scores, {}, {})

    ids = base.renderer.reply_ids("".join(one.steps))
    policy, privileged = (
        direct(base, base.renderer.prompt_ids([{"role": "user", "content": text}]), ids)
        for text in ("2 + 2?", "2 + 2? It is 4.")
    )
    lengths = scores[0].num_tokens
    first = sum(policy[: lengths[0]]) - sum(privileged[: lengths[0]])
    assert found.curves[GAP][0] == pytest.approx(first, abs=1e-3)
    assert sum(found.curves[GAP]) == pytest.approx(sum(policy) - sum(privileged), abs=1e-3)
    per_token = found.curves["privileged gap per token"]
    assert per_token[0] == pytest.approx(first / lengths[0], abs=1e-3)
    assert sum(lengths) == len(ids)
    assert base.renderer.decode(ids[: lengths[0]]) == one.steps[0]


def score(
    measure: Measure, scores: tuple[float, ...], num_tokens: tuple[int, ...] = (), of: str = "a"
) -> StepScores:
    return StepScores(
        score_id=f"{measure} {of}", attempt_id=of, problem_id=f"problem {of}", measure=measure,
        model="m", scores=scores, num_tokens=num_tokens, cost_tokens=10,
    )  # fmt: skip


def test_sampled_ids_are_scored_as_they_were_sampled() -> None:
    renderer = Renderer(ByteTokenizer())
    ids = (*b"ab\n\ncd", 257)
    one = Attempt(attempt_id="a", problem=attempt().problem, steps=("ab\n\n", "cd"), token_ids=ids)
    assert one.ids(renderer) == list(ids)
    assert one.step_ends(renderer) == [4, 7]  # the end of the turn belongs to the last step


# --- numbers and marks -------------------------------------------------------------------------


def test_a_number_is_read_as_far_as_it_takes_to_tell_it_from_the_others() -> None:
    assert distinct([(1, 9), (2, 9), (3, 9)]) == [(1,), (2,), (3,)]
    assert distinct([(1, 9), (2, 9), (1, 0, 9)]) == [(1, 9), (2,), (1, 0)]


def test_numbers_have_the_probabilities_of_their_texts(base: TransformersEngine) -> None:
    steps = tuple(f"Finds {i}: 5 + {i} = {5 + i}.\n\n" for i in range(12))
    question = StepNumbers(measure=Measure.NUMBERS, prompt=SOLVE, closing="<")
    found = settled(question.plan(attempt(steps=steps), base.renderer), base)
    renderer = base.renderer
    context = [*renderer.prompt_ids([{"role": "user", "content": "2 + 2?"}]),
               *renderer.reply_ids("<first_error>")]  # fmt: skip
    for index in (0, 9, 11):
        ids = renderer.encode(f"{index + 1}")
        needed = direct(base, context, ids)
        assert found[index] == pytest.approx(sum(needed), abs=1e-3)


def test_the_score_of_marks_is_that_of_the_paper() -> None:
    """S(j) = log p-(j) + sum over t < j of log p+(t), over two marks that sum to 1."""
    found = first_error_scores([(log(0.4), log(0.1)), (log(0.3), log(0.3))])
    assert [exp(x) for x in found] == pytest.approx([0.2, 0.8 * 0.5])


@dataclass(frozen=True)
class Letters:
    """Marks that are one byte each."""

    right: str = "+"
    wrong: str = "-"
    tail: str = "\n"

    def line(self, index: int, step: str, attempt: Attempt) -> str:
        return step.strip()


def test_marks_are_scored_after_every_step_with_all_earlier_ones_right() -> None:
    question = StepMarks(measure=Measure.MARKS, prompt=SOLVE, marking=Letters())
    (request,) = question.plan(attempt(), Renderer(ByteTokenizer())).requests
    reply = ByteTokenizer().decode(request.token_ids[request.num_context - 4 :])
    assert reply == "Two.+\nSo 2 + 2 = 5.+"
    assert request.alternatives == (ord("+"), ord("-"))


def test_marks_are_compared_where_their_tokens_first_differ() -> None:
    question = StepMarks(measure=Measure.MARKS, prompt=SOLVE, marking=Letters("ok", "oh"))
    (request,) = question.plan(attempt(), Renderer(ByteTokenizer())).requests
    assert ByteTokenizer().decode(request.token_ids[: request.num_context]).endswith("Two.o")
    assert request.alternatives == (ord("k"), ord("h"))


def test_a_mark_that_begins_with_the_other_is_refused_in_one_line() -> None:
    question = StepMarks(measure=Measure.MARKS, prompt=SOLVE, marking=Letters("ok", "o"))
    with pytest.raises(ConfigError, match="begins with the other") as error:
        question.plan(attempt(), Renderer(ByteTokenizer()))
    assert "\n" not in str(error.value)


def test_the_labs_base_marks_the_wrong_line_of_its_own_review(base: TransformersEngine) -> None:
    problem = Problem(
        problem_id="p", text="Mia has 12 shells, then finds 7, loses 4. How many shells now?",
        answer="15", split="train", source="s",
        reference_solution="First, 12 plus 7 makes 19.\nSecond, 19 minus 4 makes 15.\n"
        "The result is 15.",
    )  # fmt: skip
    steps = ("Finds 7: 12 + 7 = 19.\n\n", "Loses 4: 19 - 4 = 17.\n\n", "The answer is \\boxed{17}.")
    one = Attempt(attempt_id="a", problem=problem, steps=steps)
    prompt = load_prompt_set("lab")["mark"]
    question = StepMarks(measure=Measure.MARKS_REFERENCE, prompt=prompt, marking=LabMarks())
    found = settled(question.plan(one, base.renderer), base)
    assert max(range(3), key=found.__getitem__) == 1
    assert sum(map(exp, found)) <= 1.0


# --- values ------------------------------------------------------------------------------------


def scripted(folder: Path, rules: list[list[str]]) -> ScriptedConfig:
    file = folder / "script.json"
    file.write_text(json.dumps(rules))
    return ScriptedConfig(script=str(file))


#: Right half of the time from the problem alone, a quarter after one step, never after two.
RULES = [
    ["Five", r"\boxed{5}"],
    ["assistant\nTwo", r"\boxed{4}", r"\boxed{5}", r"\boxed{5}", r"\boxed{5}"],
    ["2 \\+ 2", r"\boxed{4}", r"\boxed{5}"],
]


def settings(folder: Path, *overrides: str) -> list[str]:
    engine = scripted(folder, RULES)
    return ["engine.kind=scripted", f"engine.script={engine.script}", "model.path=lab", *overrides]


def test_values_are_the_success_probabilities_of_a_scripted_policy(tmp_path: Path) -> None:
    given = settings(tmp_path, "credit.num_continuations=200", 'credit.measures=["values"]')
    recipe = make_recipe({"name": "credit"}, given, "test")
    steps = ("Two.", "Five.", "So \\boxed{5}.")
    with Run(tmp_path / "run", recipe, SilentProgress()) as run:
        (found,) = map_cases(run, [marked(0, steps)])
    assert found.values is not None
    assert found.values.before == pytest.approx([0.5, 0.25, 0.0], abs=0.1)
    assert found.values.after[-1] == 0
    assert sum(found.values.drops) == pytest.approx(found.values.before[0])
    assert set(found.drop_steps) <= {0, 1}
    assert found.costs["largest value drop"] > 3 * 200


def test_a_marked_solution_may_be_longer_than_a_continuation(tmp_path: Path) -> None:
    """A prefix of a solution that others wrote takes nothing from the budget."""
    # A token is a byte: the last prefix has more than fifty, a reply nine.
    given = settings(tmp_path, "sample.sampling.max_tokens=10", 'credit.measures=["values"]')
    recipe = make_recipe({"name": "credit"}, given, "test")
    steps = ("Two and two are to be added.", "Two.", "Two and two are four.", "So \\boxed{4}.")
    with Run(tmp_path / "run", recipe, SilentProgress()) as run:
        (found,) = map_cases(run, [marked(0, steps)])
    assert found.values is not None
    assert min(found.values.before[1:]) > 0


def test_marked_solutions_are_graded_by_the_recipe_s_checker(tmp_path: Path) -> None:
    """Nothing is boxed here; by this checker the last number is the answer."""
    given = settings(
        tmp_path, 'credit.measures=["values"]', "credit.num_continuations=20",
        "problems.checker=scripts.last_number:LAST_NUMBER",
    )  # fmt: skip
    engine = scripted(tmp_path, [["Five", "It is 5, or 4"], ["2 \\+ 2", "Who knows"]])
    recipe = make_recipe({"name": "credit"}, [*given, f"engine.script={engine.script}"], "test")
    with Run(tmp_path / "run", recipe, SilentProgress()) as run:
        (found,) = map_cases(run, [marked(0, ("Two.", "Five.", "So 5."))])
    assert found.values is not None
    assert found.values.before == [0, 0, 1]
    assert found.values.num_unanswered == 40
    assert "66.7" in score_tables([found], {})[0].rows[0]


@pytest.mark.parametrize(
    ("text", "number"),
    [("It is $1,200.50.", "1200.50"), ("9-8", "8"), ("x = -3", "-3"), ("none", None)],
)
def test_the_last_number_of_a_response(text: str, number: str | None) -> None:
    assert checker_named("scripts.last_number:LAST_NUMBER").extract(text) == number


@pytest.mark.parametrize(
    ("last", "known"),
    [(Verdict.UNGRADED, []), (Verdict.CORRECT, [((True, False), (True,))])],
)
def test_the_value_of_a_prefix_that_nobody_could_continue_is_not_known(
    last: Verdict, known: list[object]
) -> None:
    """It is not 0: that the context was too long is no mistake of the model."""
    one = attempt("a", ("a", "b"))
    rollouts = [
        made_rollout(f"{step}{index}", "problem a", index=index, parent_id=f"a:{step}")
        for step in (0, 1)
        for index in (0, 1)
    ]
    verdicts = [Verdict.CORRECT, Verdict.INCORRECT, last, Verdict.UNGRADED]
    grades = [graded(r, verdict) for r, verdict in zip(rollouts, verdicts, strict=True)]
    found = values_of([one], rollouts, grades)
    assert [v.outcomes for v in found.values()] == known
    whole = Mapped(attempt=one, values=found.get("a"), curves={}, costs={})
    assert not [s for s in drop_scores([whole]) if s.name == "the other half's drop"]


def test_drops_that_are_all_alike_have_no_interval() -> None:
    """Resampled, they would have one of no width, as if they were known exactly."""
    found = [Mapped(attempt=attempt(n), values=values(9, 1), curves={}, costs={}) for n in "abc"]
    assert score_tables(found, {})[0].rows[0][-2:] == ("80.0", "10.0")
    none = [Mapped(attempt=attempt("a"), values=values(0, 0), curves={}, costs={})]
    assert score_tables(none, {})[0].rows[0][-2:] == ("–", "–")


def test_attempts_without_values_are_counted() -> None:
    measured = (values(9, 1), None)
    found = [Mapped(attempt=attempt("a"), values=v, curves={}, costs={}) for v in measured]
    assert "Left out: 1 of 2 attempts" in score_tables(found, {})[0].note
    assert "Left out" not in score_tables(found[:1], {})[0].note


def values(*correct: int, of: int = 10) -> Values:
    return Values(tuple((True,) * n + (False,) * (of - n) for n in correct))


def test_where_no_continuation_is_correct_no_step_drops() -> None:
    one = Mapped(attempt=attempt(), values=values(0, 0), curves={}, costs={})
    assert one.drop_steps == ()
    assert not [s for s in drop_scores([one]) if s.num_attempts]


def test_the_drop_is_at_the_step_after_which_the_value_is_gone() -> None:
    assert Mapped(attempt=attempt(), values=values(9, 8), curves={}, costs={}).drop_steps == (1,)
    assert Mapped(attempt=attempt(), values=values(9, 1), curves={}, costs={}).drop_steps == (0,)


def test_equal_drops_share_the_target() -> None:
    """Three drops of 0.3, which differ in their last bits as floats; each is the target alike."""
    one = Mapped(attempt=attempt("a", ("a", "b", "c")), values=values(9, 6, 3), curves={}, costs={})
    assert one.drop_steps == (0, 1, 2)
    scores = {s.name: s for s in drop_scores([one])}
    assert scores["first error"].top_1.estimate == pytest.approx(1 / 3)
    assert scores["uniform guess"].top_1.estimate == pytest.approx(1 / 3)


# --- rankings ----------------------------------------------------------------------------------


def test_the_place_of_a_target() -> None:
    assert place((0.1, 0.9, 0.5), 1).top_1 == 1
    second = place((0.1, 0.9, 0.5), 2)
    assert (second.top_1, second.reciprocal_rank, second.auc) == (0, 0.5, 0.5)
    assert place((0.1, 0.9, 0.5), 0).auc == 0


def test_equal_steps_score_as_a_uniform_guess() -> None:
    flat = place((0.0,) * 4, 2)
    assert flat.top_1 == 0.25
    assert flat.reciprocal_rank == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert flat.auc == 0.5


def test_the_place_of_equal_targets_is_the_mean_of_theirs() -> None:
    both = expected_place((0.1, 0.9, 0.5), (1, 2))
    assert (both.top_1, both.reciprocal_rank, both.auc) == (0.5, 0.75, 0.75)


def hand_made() -> list[Mapped]:
    """Ten problems: the first error is step 1; the gap finds it in eight of them."""
    return [
        Mapped(
            attempt=attempt(f"{n}", ("a", "b", "c")),
            values=values(9, 8, 0),
            curves={GAP: (0.0, 1.0, 0.5) if n < 8 else (0.0, 0.5, 1.0)},
            costs={GAP: 100},
        )
        for n in range(10)
    ]


def test_signals_are_scored_next_to_guesses() -> None:
    scores = {s.name: s for s in scores_of_first_errors(hand_made())}
    assert scores[GAP].top_1.estimate == 0.8
    assert scores[GAP].mrr.estimate == pytest.approx(0.9)
    assert scores[GAP].tokens == 100
    assert scores["uniform guess"].top_1.estimate == pytest.approx(1 / 3)
    assert scores["most common position"].top_1.estimate == 1
    assert scores["longest step"].top_1.estimate == pytest.approx(1 / 3)  # all are of one length
    over = scores[GAP].over_position
    assert over is not None
    assert over.estimate == pytest.approx(-0.2)
    assert scores["largest value drop"].top_1.estimate == 1


def test_a_position_is_learnt_from_other_problems() -> None:
    """Each of two problems has its own position: what is learnt from the other one is wrong."""
    found = [
        Mapped(attempt=attempt(f"{n}", ("a", "b"), n), values=None, curves={}, costs={})
        for n in (0, 1)
    ]
    scores = {s.name: s for s in scored(found, lambda one: (one.attempt.error_step or 0,), {})}
    assert scores["most common position"].top_1.estimate == 0


def test_a_proposer_that_names_no_step_is_a_uniform_guess() -> None:
    found = mapped([attempt("a"), attempt("b")], [], {}, {"a": Named(1, 7), "b": Named(None, 7)})
    scores = {s.name: s for s in scores_of_first_errors(found)}
    assert scores[PROPOSER].top_1.estimate == 0.75
    assert scores[PROPOSER].tokens == 7


# --- the whole ---------------------------------------------------------------------------------


def test_measures_are_kept_by_themselves_and_go_on_in_the_same_run(tmp_path: Path) -> None:
    cases = [marked(0), marked(1)]
    first = make_recipe({"name": "credit"}, settings(tmp_path, 'credit.measures=["policy"]'), "t")
    with Run(tmp_path / "run", first, SilentProgress()) as run:
        assert GAP not in map_cases(run, cases)[0].curves
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "credit").rglob("manifest.json")}
    assert kept
    both = make_recipe(
        {"name": "credit"}, settings(tmp_path, 'credit.measures=["policy","privileged"]'), "t"
    )
    with Run(tmp_path / "run", both, SilentProgress()) as run:
        assert map_cases(run, cases)[0].curves[GAP] == (0.0, 0.0)  # every token is equally likely
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_an_interrupted_measure_asks_only_what_is_missing(tmp_path: Path) -> None:
    asked: list[str] = []

    @dataclass(frozen=True)
    class Counting:
        measure: Measure = Measure.POLICY
        prompt: Prompt = SOLVE

        def plan(self, attempt: Attempt, renderer: Renderer) -> Plan:
            asked.append(attempt.attempt_id)
            if len(asked) == 2:
                raise KeyboardInterrupt
            return Plan((), lambda scores: (0.0, 0.0))

    given = make_recipe({"name": "credit"}, settings(tmp_path, 'credit.measures=["policy"]'), "t")
    cases = [marked(n) for n in range(3)]
    model = locator(given)
    (stage,) = stages_of_cases(given, model, cases).scores
    stage = replace(stage, settings=replace(stage.settings, question=Counting()))
    for _ in range(2):
        with Run(tmp_path / "run", given, SilentProgress()) as run:
            try:
                run.complete(stage, Tools(run, model, given.grade))
            except KeyboardInterrupt:
                continue
            assert len(list(run.read(stage))) == 3
    assert len(asked) == 4  # one done, one interrupted and asked again, one more
    assert len(set(asked)) == 3


def test_the_command_writes_tables_rows_and_drawings(tmp_path: Path) -> None:
    file = tmp_path / "marked.jsonl"
    rows = [
        {"problem": f"{n}: 2 + 2?", "steps": ["Two.", "Five.", "Six."], "first_error_step": 1,
         "reference_solution": "It is 4.", "answer": "4"}
        for n in range(2)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        part for s in settings(tmp_path, "credit.num_continuations=4") for part in ("--set", s)
    ]
    out = tmp_path / "out"
    where = ["--run-dir", str(tmp_path / "run"), "--out", str(out)]
    result = CliRunner().invoke(app, ["credit", "--sources", str(file), *given, *where])
    assert result.exit_code == 0, result.output
    made = {path.name for path in out.iterdir()}
    drawn = {f"credit-{name}.svg" for name in ("first-error", "value-drop", "attempts")}
    assert made == {"credit.md", "credit.json", "credit.csv", *drawn}
    document = json.loads((out / "credit.json").read_text())
    assert [len(one["signals"][GAP]) for one in document["attempts"]] == [3, 3]
    lines = (out / "credit.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3
    assert lines[0].startswith("attempt_id,problem_id,source,step,is_first_error,value_before")
    assert "Finding the first error" in (out / "credit.md").read_text()


def test_an_engine_without_log_probabilities_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "marked.jsonl"
    row = {"problem": "2 + 2?", "steps": ["Two.", "Five."], "first_error_step": 1}
    file.write_text(json.dumps(row) + "\n")
    server = ["--set", 'engine.urls=["http://127.0.0.1:9/v1"]', "--set", 'evaluate.models=["base"]']
    result = CliRunner().invoke(
        app,
        ["credit", "--sources", str(file), "--engine", "openai", "--model", "lab", *server,
         "--set", "engine.served_model=m", "--run-dir", str(tmp_path / "run")],
    )  # fmt: skip
    assert result.exit_code == 1
    assert "log-probability" in str(result.exception)


@pytest.mark.slow
def test_a_run_of_the_lab_is_mapped_with_its_true_first_errors(tmp_path: Path) -> None:
    overrides = [
        "problems.num_composed=2", "problems.num_single=2", "problems.num_known=0",
        "sample.num_rollouts=4", "credit.num_continuations=2", "propose.num_proposals=1",
    ]  # fmt: skip
    recipe = load_recipe("lab", overrides)
    with open_session(recipe, tmp_path / "run") as session:
        found = map_run(session, method(session.setup))
        tables = write_map(found, session.run, tmp_path / "out")
    assert {one.attempt.problem.source for one in found} == {"lab/composed", "lab/single"}
    assert all(one.attempt.error_step is not None for one in found)
    assert {PROPOSER, GAP, "marks, with reference"} <= set(found[0].curves)
    assert tables[0].title == "Value by continuation"
