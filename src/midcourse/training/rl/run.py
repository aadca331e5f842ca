"""One RL run, from its job to its model.

An iteration samples ``prompts_per_iteration × num_generations`` rollouts and makes `num_updates`
optimiser steps on them. What is sampled and graded is kept. Checkpoints count only with a marker
that is written last, because transformers would resume from an unfinished one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel

from midcourse.checkers import Grader
from midcourse.config import TrainRlConfig
from midcourse.engines.models import stop_token_ids
from midcourse.errors import ConfigError
from midcourse.progress import Failures
from midcourse.rendering import Renderer
from midcourse.stages.dialogue import Talk
from midcourse.training.callbacks import callbacks
from midcourse.training.checkpoints import checkpoints, newest_complete, optimiser_step
from midcourse.training.common import (
    Setting,
    check_fits,
    computed_dtype,
    in_one_line,
    load_base,
    load_model,
    load_tokenizer,
    lora_config,
    merge_adapter,
    processes,
    quiet_libraries,
    save,
    without_casts,
)
from midcourse.training.jobs import Log, Reviews, RlJob, RlProblem, Teaching, conclude
from midcourse.training.rl.agreement import AgreementAlarm
from midcourse.training.rl.collect import Collector, Grades, Processes, context_of, slot_name
from midcourse.training.rl.distill import Distillation, TeacherWeights
from midcourse.training.rl.groups import Group
from midcourse.training.rl.lessons import Lessons
from midcourse.training.rl.live import LiveEngine
from midcourse.training.rl.online import OnlineInT
from midcourse.training.rl.samplers import EngineSampler, Sampler, TrlSampler
from midcourse.training.rl.schedule import Schedule, Slot
from midcourse.training.rl.servers import FOLDER, ServerSampler, open_servers
from midcourse.training.rl.store import drop_groups, write_groups
from midcourse.training.rl.trainer import Guidance, RlTrainer, rl_arguments

#: How long processes wait for the one that samples, proposes or writes; torch's own limit is ten
#: minutes on GPUs.
PATIENCE = timedelta(days=1)


def run(job: RlJob, out: Path, on_log: Log) -> dict[str, float]:
    """Do a job: the `Trainer` of `midcourse.training.worker`."""
    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    setting = Setting.of(job.model, out, job.seed, on_log)
    with Grader(**job.grade.model_dump()) as grader:
        return train_rl(
            job.config,
            job.problems,
            setting,
            job.policy,
            grader,
            job.reviews,
            teaching=job.teaching,
            talk=job.talk,
        )


def train_rl(
    config: TrainRlConfig,
    problems: Sequence[RlProblem],
    setting: Setting,
    policy: str,
    grader: Grades,
    reviews: Reviews | None = None,
    *,
    teaching: Teaching | None = None,
    talk: Talk | None = None,
    rate: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train, or go on from the newest complete checkpoint; write the model to ``out/final``.

    `policy` names the run in the rollouts that are kept; `reviews` are of online InT, `teaching` of
    self-distillation, `talk` is of dialogues; `rate` is as `rl_arguments` has it, where this is a
    patch rather than RL.
    Raises ConfigError before the first step if the numbers do not fit together, DataError if
    student or teacher would have more to read than the model takes.
    """
    quiet_libraries()
    out = setting.out
    checkpoint = newest_complete(out)
    if processes().is_main_process:
        shutil.rmtree(out / FOLDER, ignore_errors=True)
        drop_groups(out, optimiser_step(checkpoint) // config.num_updates if checkpoint else 0)
    with in_one_line(_section(rate)):
        trainer = make_rl_trainer(
            config, problems, setting, policy, grader, reviews,
            teaching=teaching, talk=talk, rate=rate,
        )  # fmt: skip
        sampler = trainer.rollout_func.sampler
        closed = closing(sampler) if isinstance(sampler, ServerSampler) else nullcontext()
        with closed, without_casts(trainer, needed=config.sampler == "generate"):
            result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        save(trainer, out)
    summary = {"num_problems": float(len(problems)), "num_steps": float(result.global_step)}
    if processes().is_main_process:
        for folder in checkpoints(out) if config.keep_checkpoints else ():
            _keep(folder, setting.model_path, config)
        conclude(out, summary)
    return summary


def make_rl_trainer(
    config: TrainRlConfig,
    problems: Sequence[RlProblem],
    setting: Setting,
    policy: str,
    grader: Grades,
    reviews: Reviews | None = None,
    *,
    teaching: Teaching | None = None,
    talk: Talk | None = None,
    rate: Mapping[str, Any] | None = None,
) -> RlTrainer:
    """Put schedule, sampler, grader and TRL together; apart, so that a test can see a batch."""
    state = processes()
    tokenizer = setting.tokenizer(padding_side="left")
    renderer = setting.renderer(setting.tokenizer())
    model = load_base(setting.model_path, config)
    lessons = _lessons(config, teaching, renderer)
    longest = _longest(problems, renderer, model, config.sampling.max_tokens, lessons)
    collector = Collector(
        schedule=Schedule(problems, config, setting.seed),
        config=config,
        grader=grader,
        renderer=renderer,
        policy=policy,
        seed=setting.seed,
        keep=_keeping(setting.out),
        processes=Processes(
            index=state.process_index, number=state.num_processes, gather=gather_object
        ),
        lessons=lessons,
    )
    distillation = _distillation(config) if lessons else None
    weights = [distillation.weights] if distillation and distillation.weights else []
    trainer = RlTrainer(
        _guidance(config, collector, distillation),
        model=model,
        reward_funcs=[correct],
        args=rl_arguments(config, len(problems), longest, setting, state.num_processes, rate),
        train_dataset=_dataset(collector.schedule),
        processing_class=tokenizer,
        callbacks=[*weights, *callbacks(setting, _section(rate))],  # the marker comes last
        peft_config=lora_config(config.lora_rank),
        rollout_func=collector,
    )
    collector.sampler = _sampler(config, trainer, setting, renderer, longest, talk)
    if reviews is not None:
        collector.online = _online(reviews, collector, setting, talk)
    return trainer


def _section(rate: Mapping[str, Any] | None) -> str:
    """Return the recipe's section that errors are about."""
    return "train_rl" if rate is None else "train_sft"


def _lessons(
    config: TrainRlConfig, teaching: Teaching | None, renderer: Renderer
) -> Lessons | None:
    if teaching is None:
        return None
    return Lessons(teaching=teaching, shown=config.distill_from, renderer=renderer)


def _distillation(config: TrainRlConfig) -> Distillation:
    """Return the term of the loss; with adapters, what training began with is below them."""
    teacher = config.distill.teacher
    moves = teacher == "ema"
    stays = teacher == "base" and not config.lora_rank
    rate = config.distill.ema_rate if moves else 0.0
    return Distillation(
        config=config.distill,
        weight=config.distill_weight,
        max_ratio=config.max_importance_weight if config.importance != "off" else None,
        temperature=config.sampling.temperature,
        weights=TeacherWeights(rate) if moves or stays else None,
    )


def _keeping(out: Path) -> Callable[[int, Sequence[Group]], None]:
    """Return what writes the groups of an iteration, in the first of the processes."""

    def keep(iteration: int, groups: Sequence[Group]) -> None:
        if processes().is_main_process:
            write_groups(out, iteration, groups)

    return keep


def _guidance(
    config: TrainRlConfig, collector: Collector, distillation: Distillation | None
) -> Guidance:
    weighs = config.importance == "token_truncate"
    return Guidance(
        batch=lambda: collector.batch,
        check=AgreementAlarm(config.max_logprob_gap).check,
        max_weight=config.max_importance_weight if weighs else None,
        distillation=distillation,
    )


def _online(
    reviews: Reviews, collector: Collector, setting: Setting, talk: Talk | None
) -> OnlineInT:
    """Return what proposes through the sampler's engine. Raises ConfigError if it cannot ask."""
    if reviews.guided:
        collector.renderer.check_second_turn()
    return OnlineInT(
        config=collector.config,
        reviews=reviews,
        problems=collector.schedule.problems,
        engine=cast("EngineSampler | ServerSampler", collector.sampler).engine,
        grader=cast(Grader, collector.grader),
        renderer=collector.renderer,
        policy=collector.policy,
        seed=collector.seed,
        out=setting.out,
        talk=talk,
    )


def _sampler(
    config: TrainRlConfig,
    trainer: RlTrainer,
    setting: Setting,
    renderer: Renderer,
    longest: int,
    talk: Talk | None = None,
) -> Sampler:
    """Return who draws. TRL's ways and ours need the trainer that they serve."""
    stop_ids = frozenset([*stop_token_ids(setting.model_path), *trainer.eos_token_ids])
    if config.sampler in ("generate", "vllm"):
        return TrlSampler(trainer=trainer, renderer=renderer, stop_ids=stop_ids)
    dtype = computed_dtype(config.dtype)
    model = trainer.accelerator.unwrap_model(trainer.model)
    converse = partial(talk.through, renderer=renderer) if talk else None
    if config.sampler == "servers":
        # A question of online InT is longer than any context, by nobody knows how much.
        most = None if config.online.share else longest + config.sampling.max_tokens
        servers = open_servers(config, model, renderer, sorted(stop_ids), most)
        return ServerSampler(
            engine=servers,
            inner=EngineSampler(engine=servers, failures=Failures, converse=converse),
            model=model,
            tokenizer=renderer.tokenizer,
            folder=setting.out / FOLDER,
            dtype=dtype,
        )
    if trainer.is_fsdp_enabled:
        raise ConfigError(
            "train_rl.sampler 'engine' needs the whole model in every process, and "
            f"{config.accelerate} shards it: set train_rl.sampler = 'servers', with devices of "
            "their own under [train_rl.servers], or 'vllm'"
        )
    # The model below adapters: they are in its layers.
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    engine = LiveEngine(inner, renderer=renderer, stop_ids=stop_ids, dtype=dtype)
    return EngineSampler(engine=engine, failures=Failures, converse=converse)


def correct(reward: Sequence[float | None], **_: Any) -> list[float | None]:
    """Return what `Collector` graded: TRL shows it, and counts with our advantages."""
    return list(reward)


def _longest(
    problems: Sequence[RlProblem],
    renderer: Renderer,
    model: Any,
    max_tokens: int,
    lessons: Lessons | None,
) -> int:
    """Return the tokens of the longest context and completion that may occur.

    Raises DataError unless every one of them fits the model, as the teacher has it too.
    """
    longest = 0
    for problem in problems:
        for given in problem.contexts:
            slot = Slot(iteration=0, index=0, problem=problem, context=given, occurrence=0)
            context = context_of(slot, renderer)
            room = max(max_tokens - context.response_tokens, 0)
            named = f"train rl: problem {problem.problem_id}"
            check_fits(named, context.token_ids, model, room)
            longest = max(longest, len(context.token_ids) + room)
            for ids in lessons.longest(context, room) if lessons else ():
                check_fits(f"{named}, as the teacher reads it,", ids, model, room)
    return longest


def _dataset(schedule: Schedule) -> Dataset:
    """Return the names of all slots, as TRL's prompts."""
    slots = (slot for i in range(schedule.config.num_iterations) for slot in schedule.slots(i))
    return Dataset.from_dict(
        {"prompt": [[{"role": "user", "content": slot_name(slot)}] for slot in slots]}
    )


def _keep(checkpoint: Path, model_path: str, config: TrainRlConfig) -> None:
    """Write the model of a checkpoint to ``step-<iteration>`` next to it; adapters are merged."""
    iteration = optimiser_step(checkpoint) // config.num_updates
    kept = checkpoint.parent / f"step-{iteration:06d}"
    if config.lora_rank:
        merge_adapter(model_path, checkpoint, kept)
        return
    source = str(checkpoint)
    load_model(source).save_pretrained(kept)
    load_tokenizer(source).save_pretrained(kept)
