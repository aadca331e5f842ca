"""A GRPO iteration of the lab: ours against TRL's own, which samples with `generate`.

The same problems, sizes and rewards, on one thread, as each of the two arms of a run has it. They
take turns, so that what else the machine does meets both. TRL's is GRPOTrainer as anyone would call
it: it samples, pads and trains on every row. How much ours gains depends on how many groups have a
gradient: one row is the lab's base, where few have one, the other the worst case, where all have.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from coin import CoinGrader
from datasets import Dataset
from rows import Row
from trl import GRPOTrainer

from midcourse.checkers import Grader
from midcourse.config import TrainRlConfig, load_recipe
from midcourse.engines import resolve_model
from midcourse.lab.problems import lab_problems
from midcourse.prompts import load_prompt_set
from midcourse.records import Condition, Gold, Problem
from midcourse.training.callbacks import OnLog
from midcourse.training.common import Setting, load_model, load_tokenizer, quiet_libraries
from midcourse.training.jobs import RlContext, RlProblem
from midcourse.training.rl.advantages import reward_of
from midcourse.training.rl.collect import Grades
from midcourse.training.rl.run import make_rl_trainer
from midcourse.training.rl.trainer import rl_arguments

_ROUNDS, _ITERATIONS = 3, 5


def rows() -> Iterator[Row]:
    """Yield a row for the lab's rewards and one for rewards by chance."""
    quiet_libraries()
    torch.set_num_threads(1)
    with Grader() as grader:
        yield _compare("rewards of its base", grader, 2.0)
        yield _compare("a gradient in nearly every group", CoinGrader(), None)


def _compare(what: str, grader: Grades, target: float | None) -> Row:
    ours, theirs = list[float](), list[float]()
    for _ in range(_ROUNDS):
        ours += _iterations(lambda on_log: _ours(grader, on_log))
        theirs += _iterations(lambda on_log: _theirs(grader, on_log))
    return Row(
        what=f"lab, a GRPO iteration of 8 × 8 rollouts, {what}",
        ours=median(ours),
        theirs=median(theirs),
        unit="s",
        against="GRPOTrainer with generate",
        less_is_better=True,
        target=target,
    )


def _iterations(make: Callable[[Callable[[Any], None]], GRPOTrainer]) -> list[float]:
    """Train, and return the seconds of each iteration but the first, which warms up."""
    stamps = list[float]()
    trainer = make(lambda _: stamps.append(time.perf_counter()))
    trainer.train()
    # The last entry is TRL's summary.
    return [after - before for before, after in pairwise(stamps)][:-1]


def _ours(grader: Grades, on_log: Callable[[Any], None]) -> GRPOTrainer:
    config, problems, setting = _given(on_log)
    return make_rl_trainer(config, problems, setting, "rl:bench", grader)


def _theirs(grader: Grades, on_log: Callable[[Any], None]) -> GRPOTrainer:
    config, problems, setting = _given(on_log)
    config = config.model_copy(update={"sampler": "generate"})

    def correct(completions: Sequence[Any], gold: Sequence[str], **_: Any) -> list[float | None]:
        texts = [completion[0]["content"] for completion in completions]
        golds = [Gold("math", value) for value in gold]
        graded = grader.grade(zip(texts, golds, strict=True))
        return [reward_of(result.verdict) for result in graded]

    asked = [{"role": "user", "content": problem.contexts[0].message} for problem in problems]
    data = {"prompt": [[one] for one in asked], "gold": [p.gold.value for p in problems]}
    return GRPOTrainer(
        model=load_model(setting.model_path),
        reward_funcs=[correct],
        args=rl_arguments(config, len(problems), 0, setting, 1),
        train_dataset=Dataset.from_dict(data),
        processing_class=load_tokenizer(setting.model_path, padding_side="left"),
        callbacks=[OnLog(on_log)],
    )


def _given(
    on_log: Callable[[Any], None],
) -> tuple[TrainRlConfig, list[RlProblem], Setting]:
    """Return the lab's settings and problems, and a folder of its own to write to."""
    recipe = load_recipe("lab")
    config = recipe.train_rl.model_copy(update={"num_iterations": _ITERATIONS, "save_every": 100})
    problems = rl_problems(lab_problems(recipe.problems, recipe.seed).train, recipe.prompts)
    out = Path(tempfile.mkdtemp(prefix="midcourse-bench-"))
    return config, problems, Setting(resolve_model("lab"), out, recipe.seed, on_log)


def rl_problems(problems: Iterable[Problem], prompts: str) -> list[RlProblem]:
    """Return what RL asks where every group begins from the problem alone."""
    solve = load_prompt_set(prompts)["solve"]
    asked = [
        (one, RlContext(condition=Condition.PROBLEM, message=solve.render(problem=one.text)))
        for one in problems
    ]
    return [
        RlProblem(problem_id=one.problem_id, gold=one.gold, contexts=(context,))
        for one, context in asked
    ]
