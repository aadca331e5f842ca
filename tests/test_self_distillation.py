"""Self-distillation: who is shown what, whether the loss is TRL's, and that no signal is none.

The student never has the solution in its context, the teacher always; both have the same ids after
it, and only those that were sampled are trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from midcourse.checkers import GradeResult
from midcourse.config import GradeConfig, ModelConfig, TrainRlConfig, TrainSftConfig, make_recipe
from midcourse.engines.bundled import base_folder
from midcourse.errors import ConfigError, DataError
from midcourse.pipeline import Method, Session
from midcourse.prompts import load_prompt_set
from midcourse.records import Condition, Gold, Problem
from midcourse.rendering import Renderer
from midcourse.training.common import Setting
from midcourse.training.jobs import Job, RlContext, RlProblem, SdftJob, Teaching
from midcourse.training.rl import sdft
from midcourse.training.rl.collect import Collector, Processes, slot_name
from midcourse.training.rl.groups import Batch, Group
from midcourse.training.rl.lessons import Lessons
from midcourse.training.rl.run import make_rl_trainer, train_rl
from midcourse.training.rl.schedule import Schedule
from midcourse.training.rl.store import read_rl_rollouts, read_rl_samples
from midcourse.training.tokens import training_tokens
from rl_problems import FakeSampler, PatternGrader, rl_problem
from runs import ready, run_to
from test_training import CoinGrader, FakeGrader

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
BASE = str(base_folder())
REFERENCE = "12 + 20 = 32\n\n\\boxed{32}"
#: By problem: mixed with one success, all wrong, all right.
VERDICTS = {"a": "0100", "b": "0000", "c": "1111"}
PREFIX = (41, 42, 43)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(AutoTokenizer.from_pretrained(BASE))


def problems(reference: str | None = REFERENCE) -> Teaching:
    made = (
        Problem(problem_id=name, text=f"Solve {name}.", answer="32", source="s", split="train",
                reference_solution=reference)
        for name in VERDICTS
    )  # fmt: skip
    prompt = load_prompt_set("lab")["guided_solve"]
    return Teaching(prompt=prompt, problems=tuple(made))


PROBLEMS = [rl_problem(name, f"Solve {name}.", Gold("math", v)) for name, v in VERDICTS.items()]


def config(**changes: Any) -> TrainRlConfig:
    small = {
        "num_iterations": 1, "prompts_per_iteration": 3, "num_generations": 4, "num_updates": 1,
        "micro_batch_size": 4, "learning_rate": 1e-3, "max_logprob_gap": 100, "distill_weight": 1,
        "sampling": {"max_tokens": 9, "temperature": 1.5},
    }  # fmt: skip
    return TrainRlConfig.model_validate({**small, **changes})


def collected(
    renderer: Renderer, settings: TrainRlConfig, given: list[RlProblem] = PROBLEMS
) -> tuple[dict[str, Group], Batch]:
    """Sample one iteration without a model; return its groups by problem, and the batch."""
    kept: list[Group] = []
    collector = Collector(
        schedule=Schedule(given, settings, 0),
        config=settings,
        grader=PatternGrader(),
        renderer=renderer,
        policy="rl:k",
        seed=0,
        keep=lambda _, groups: kept.extend(groups),
        processes=Processes(),
        lessons=Lessons(teaching=problems(), shown=settings.distill_from, renderer=renderer),
    )
    collector.sampler = FakeSampler()
    names = [slot_name(slot) for slot in collector.schedule.slots(0)]
    collector([[{"role": "user", "content": name}] for name in names for _ in range(4)], None)
    return {group.rollouts[0].problem_id: group for group in kept}, collector.batch


def taught_by(group: Group) -> list[str]:
    return [sample.taught_by for sample in group.samples]


# Who is shown what.


def test_a_correct_sibling_teaches_all_but_itself_and_nobody_where_there_is_none(
    renderer: Renderer,
) -> None:
    groups, batch = collected(renderer, config(distill_from="sibling"))
    first, second, *_ = (rollout.rollout_id for rollout in groups["c"].rollouts)
    only = groups["a"].rollouts[1].rollout_id
    assert taught_by(groups["a"]) == [only, "", only, only]
    assert taught_by(groups["b"]) == ["", "", "", ""]
    assert taught_by(groups["c"]) == [second, first, first, first]
    assert [batch.metrics[f"groups/{name}"] for name in ("taught", "not_taught")] == [2, 1]
    assert batch.metrics["groups/taught_rollouts"] == 7
    # A group that nothing is learned of has no gradient; one that is all right has, here.
    assert [groups[name].has_gradient for name in "abc"] == [True, False, True]


def test_the_teacher_reads_the_solution_and_the_student_does_not(renderer: Renderer) -> None:
    groups, batch = collected(renderer, config(distill_from="reference"))
    for name, group in groups.items():
        assert taught_by(group) == ["reference"] * 4
        assert "32" not in renderer.decode(group.context_ids)
        message = problems().message(name, REFERENCE)
        assert REFERENCE in message
        shown = renderer.prompt_ids([{"role": "user", "content": message}])
        for lesson in group.lessons:
            assert lesson
            assert list(lesson.context_ids) == shown
    read = sum(
        len(lesson.context_ids) + rollout.num_tokens
        for group in groups.values()
        for lesson, rollout in zip(group.lessons, group.rollouts, strict=True)
        if lesson
    )
    assert batch.metrics["groups/teacher_tokens"] == read


def test_the_reference_stands_in_where_no_sibling_is_correct(renderer: Renderer) -> None:
    groups, _ = collected(renderer, config(distill_from="sibling_or_reference"))
    assert taught_by(groups["a"])[1] == "reference"
    assert taught_by(groups["a"])[0] == groups["a"].rollouts[1].rollout_id
    assert taught_by(groups["b"]) == ["reference"] * 4


def test_a_prefix_stands_before_both_and_is_part_of_what_a_sibling_shows(
    renderer: Renderer,
) -> None:
    context = RlContext(
        condition=Condition.PREFIX, message="Solve a.", prefix_ids=PREFIX, parent_id="q"
    )
    given = [replace(one, contexts=(one.contexts[0], context)) for one in PROBLEMS]
    settings = config(contexts={"prefix": 1}, distill_from="sibling")
    groups, _ = collected(renderer, settings, given)
    lesson = groups["a"].lessons[0]
    assert lesson
    assert groups["a"].context_ids[-3:] == PREFIX == lesson.context_ids[-3:]
    shown = problems().message("a", renderer.decode(PREFIX) + "?")
    assert list(lesson.context_ids[:-3]) == renderer.prompt_ids(
        [{"role": "user", "content": shown}]
    )


def test_without_self_distillation_nothing_is_counted_or_noted(renderer: Renderer) -> None:
    settings = config(distill_weight=0)
    collector = Collector(
        schedule=Schedule(PROBLEMS, settings, 0), config=settings, grader=PatternGrader(),
        renderer=renderer, policy="rl:k", seed=0, keep=lambda *_: None,
    )  # fmt: skip
    collector.sampler = FakeSampler()
    names = [slot_name(slot) for slot in collector.schedule.slots(0)]
    collector([[{"role": "user", "content": name}] for name in names for _ in range(4)], None)
    assert not any("taught" in name for name in collector.batch.metrics)
    assert all(taught_by(group) == [""] * 4 for group in collector.batch.groups)
    assert not any(name.startswith("distill") for name in settings.identity())


# The loss.


def trainer_of(folder: Path, settings: TrainRlConfig, grader: Any = None) -> Any:
    folder.mkdir(exist_ok=True)
    trainer = make_rl_trainer(
        settings, PROBLEMS, Setting(BASE, folder, 0, lambda _: None), "rl:k",
        grader or PatternGrader(), teaching=problems(),
    )  # fmt: skip
    trainer.rollout_func.sampler = FakeSampler(nats=6.0)
    return trainer


def gradient(trainer: Any, inputs: dict[str, Any]) -> tuple[float, Tensor]:
    """Return a trainer's loss of one pass, and the gradient of the first layer's weights."""
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return float(loss), trainer.model.model.layers[0].mlp.up_proj.weight.grad.clone()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"divergence": "js"}, {"distillation_alpha": 0.5, "distillation_mode": "full_logits"}),
        (
            {"divergence": "forward_kl", "support": "top_k", "top_k": 7, "teacher": "live"},
            {"distillation_alpha": 0.0, "distillation_mode": "topk_logits", "distillation_topk": 7,
             "distillation_add_tail": True},
        ),
        (
            {"divergence": "reverse_kl", "support": "sampled_token"},
            {"distillation_alpha": 1.0, "distillation_mode": "sampled_token"},
        ),
    ],
    ids=["js", "forward-top-k", "reverse-sampled"],
)  # fmt: skip
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_loss_and_its_gradient_are_trl_s(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], weight: float
) -> None:
    settings = config(
        distill=ours, distill_weight=weight, importance="off", micro_batch_size=12, clip_high=0.2
    )
    trainer = trainer_of(tmp_path / "ours", settings)
    trainer.create_optimizer()
    trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)
    trainer.model.train()
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    assert not inputs["is_taught"].all()  # some rows are idle, and padding differs from row to row
    mine, my_gradient = gradient(trainer, inputs)
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer  # it warns, and has been told not to

    reference = SDPOTrainer(
        model=BASE,
        reward_funcs=[lambda **_: [0.0]],
        args=SDPOConfig(
            output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to=[],
            distillation_weight=weight, distillation_is_clip=None, loss_type="grpo",
            temperature=settings.sampling.temperature, per_device_train_batch_size=12,
            num_generations=4, gradient_checkpointing=False,
            teacher_model_kind=settings.distill.teacher, **theirs,
        ),
        train_dataset=trainer.train_dataset,
        processing_class=AutoTokenizer.from_pretrained(BASE, padding_side="left"),
    )  # fmt: skip
    taught = inputs["is_taught"].float()
    batch = {
        **inputs,
        "teacher_input_ids": torch.cat([inputs["teacher_ids"], inputs["completion_ids"]], 1),
        "teacher_attention_mask": torch.cat([inputs["teacher_mask"], inputs["completion_mask"]], 1),
        "self_distillation_mask": taught,
    }
    loss, its_gradient = gradient(reference, batch)
    assert mine == pytest.approx(loss, rel=1e-4, abs=1e-7)
    largest = its_gradient.abs().max()
    assert largest > 1e-7
    torch.testing.assert_close(my_gradient / largest, its_gradient / largest, atol=2e-3, rtol=0)


@pytest.mark.slow
def test_groups_without_a_signal_move_no_weight(tmp_path: Path) -> None:
    class AllWrong(FakeGrader):
        def is_right(self, text: str, gold: Gold) -> bool:
            return False

    before = torch.cat([p.detach().flatten() for p in _model(BASE).parameters()])
    trainer = trainer_of(tmp_path / "rl", config(), AllWrong())
    trainer.train()
    after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert torch.equal(before, after)
    logged = trainer.state.log_history[0]
    assert (logged["groups/taught"], logged["groups/not_taught"]) == (0, 3)
    assert "distill/divergence" not in logged
    assert {s.taught_by for s in read_rl_samples(tmp_path / "rl")} == {""}


def _model(path: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


# SDFT and OPSD.

NUTS = "Mia has 12 nuts, then finds a score. How many nuts now?"


def sdft_job(num_rows: int = 2, **changes: Any) -> SdftJob:
    plain = {
        "method": "sdft", "batch_size": 8, "micro_batch_size": 8, "max_steps": 6,
        "learning_rate": 1e-3, "student": {"num_generations": 4, "sampling": {"max_tokens": 24}},
    }  # fmt: skip
    teaching = problems()
    told = tuple(replace(p, text=NUTS.replace("12", n)) for p, n in zip(
        teaching.problems, ("12", "17", "25"), strict=True))  # fmt: skip
    return SdftJob(
        config=TrainSftConfig.model_validate({**plain, **changes}),
        model=ModelConfig(path=BASE),
        seed=0,
        policy="sdft:k",
        grade=GradeConfig(num_workers=1),
        problems=tuple(rl_problem(p.problem_id, p.text, p.gold) for p in told),
        teaching=replace(teaching, problems=told),
        num_rows=num_rows,
    )


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"distill": {"teacher": "base"}},
    {"distill": {"teacher": "ema", "ema_rate": 0.1}, "lora_rank": 8, "learning_rate": 0.01},
    {"distill": {"teacher": "base", "divergence": "forward_kl"}, "lora_rank": 8,
     "learning_rate": 0.01, "dtype": "bfloat16"},
], ids=["base", "ema of adapters", "base below adapters, in bfloat16"])  # fmt: skip
def test_the_student_comes_to_say_what_the_informed_model_says(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    entries: list[dict[str, float]] = []
    job = sdft_job(**changes)
    summary = sdft.run(job, tmp_path, lambda entry: entries.append(dict(entry)))
    seen = [entry["distill/divergence"] for entry in entries if "loss" in entry]
    assert len(seen) == job.num_steps == 6
    assert sum(seen[-2:]) < 0.8 * sum(seen[:2])
    assert (tmp_path / "final" / "model.safetensors").is_file()
    rates = [entry["learning_rate"] for entry in entries if "loss" in entry]
    assert max(rates) == pytest.approx(job.config.learning_rate)
    assert rates[-1] < rates[2]  # SFT's cosine, not RL's constant
    # What was sampled is kept; only that is trained, and said to be.
    rollouts = list(read_rl_rollouts(tmp_path))
    assert len(rollouts) == 6 * 8
    assert {s.taught_by for s in read_rl_samples(tmp_path)} == {"reference"}
    for entry in entries:
        (tmp_path / "metrics.jsonl").open("a").write(_line(entry))
    told: dict[str, Any] = training_tokens(Job("OPSD", tmp_path, job), summary)
    sampled = sum(rollout.num_tokens for rollout in rollouts)
    assert told["trained_tokens"]["total"] == sampled == told["tokens"]["policy"]["out"]
    assert told["trained_tokens"]["read_by_teacher"] > 2 * sampled


def _line(entry: dict[str, float]) -> str:
    import json

    return json.dumps(entry) + "\n"


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_teacher_that_it_had(tmp_path: Path) -> None:
    settings = config(
        num_iterations=3, num_updates=2, micro_batch_size=6, save_every=1, learning_rate=1e-2,
        distill_from="sibling_or_reference", distill={"teacher": "ema", "ema_rate": 0.3},
        sampling={"max_tokens": 12, "temperature": 1.5},
    )  # fmt: skip

    class Killed(Exception):
        pass

    class DyingGrader(CoinGrader):
        calls = 0

        def grade(self, pairs: Iterable[tuple[str, Gold]]) -> Iterator[GradeResult]:
            self.calls += 1
            if self.calls == 3:
                raise Killed
            return super().grade(pairs)

    def do(out: Path, grader: CoinGrader) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        out.mkdir(exist_ok=True)
        setting = Setting(BASE, out, 0, lambda _: None)
        train_rl(settings, PROBLEMS, setting, "rl:k", grader, teaching=problems())
        return load_file(out / "final" / "model.safetensors")

    whole = do(tmp_path / "whole", CoinGrader())
    with pytest.raises(Killed):
        do(tmp_path / "cut", DyingGrader())
    saved = list((tmp_path / "cut").glob("checkpoint-*/teacher-0.safetensors"))
    assert len(saved) == 2
    cut = do(tmp_path / "cut", CoinGrader())
    assert all(torch.allclose(whole[name], cut[name], atol=1e-5) for name in whole)
    kept = [list(read_rl_samples(tmp_path / run)) for run in ("whole", "cut")]
    assert kept[0] == kept[1]
    assert len({sample.taught_by for sample in kept[0]}) > 2


# What is refused.


def test_what_would_be_cut_is_refused_before_training(tmp_path: Path) -> None:
    long = problems("Take one. " * 2_000)
    with pytest.raises(DataError, match=r"problem \w, as the teacher reads it, has .* lower"):
        make_rl_trainer(
            config(distill_from="reference"), PROBLEMS, Setting(BASE, tmp_path, 0, print), "rl:k",
            PatternGrader(), teaching=long,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"train_sft": {"method": "sdft", "batch_size": 5}}, "no whole number of problems"),
        ({"train_sft": {"distill": {"support": "sampled_token"}}}, "reverse_kl"),
        ({"train_rl": {"distill_weight": 0.5, "zero_gradient": "drop"}}, "zero_gradient"),
        ({"train_sft": {"method": "sdft"}, "build_sft": {"source": "reference"}}, "own rollouts"),
        ({"train_sft": {"distill": {"teachr": "ema"}}}, "teacher"),
    ],
)
def test_keys_that_make_no_sense_are_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_recipe({"name": "n", "model": {"path": "m"}, **section}, (), "n.toml")


def test_self_distillation_is_part_of_what_a_patch_is_only_where_it_takes_part() -> None:
    student = {"sampling": {"max_tokens": 7}}
    plain = TrainSftConfig.model_validate({"student": student, "distill": {"teacher": "live"}})
    assert plain.identity() == TrainSftConfig().identity()
    own = TrainSftConfig.model_validate({"student": student, "method": "sdft"})
    assert own.identity()["student"] == {"sampling": {"max_tokens": 7}}


# From the pipeline.


@pytest.fixture
def recipe_of(recipe_data: dict[str, Any]) -> Any:
    def make(**sections: Any) -> Any:
        changed = {k: {**recipe_data.get(k, {}), **v} for k, v in sections.items()}
        return make_recipe({**recipe_data, **changed}, (), "n.toml")

    return make


@pytest.mark.slow
def test_it_trains_on_the_problems_that_int_s_rows_are_of(tmp_path: Path, recipe_of: Any) -> None:
    def check(session: Session, m: Method) -> None:
        training = m.models.patched.trained
        assert training
        assert (training.label, m.models.patched.name) == ("OPSD", f"sdft:{training.key}")
        session.complete(*training.inputs)
        job: SdftJob = training.job(training.settings, session, training.key)
        rows = ready(session, m)
        assert {p.problem_id for p in job.problems} == {row.problem_id for row in rows}
        assert job.num_rows == len(rows)
        texts = {p.problem_id: p for p in m.setup.problems.train}
        for problem in job.problems:
            reference = texts[problem.problem_id].reference_solution
            assert reference
            assert job.teaching.reference(problem.problem_id) == reference
            (context,) = problem.contexts
            assert reference not in context.message
            shown = job.teaching.message(problem.problem_id, reference)
            assert reference in shown

    run_to(tmp_path / "run", recipe_of(train_sft={"method": "sdft", "batch_size": 8}), check)
