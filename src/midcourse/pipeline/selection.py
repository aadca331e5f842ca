"""From problems to the hard ones, with a reference solution and a hint for each (§5.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from midcourse.pipeline.contexts import HardOnes, HintedQuestions, Population, Questions
from midcourse.pipeline.sources import GOLD, WHOLE, Sources
from midcourse.pipeline.stages import (
    ReferenceSettings,
    SampleSettings,
    SelectSettings,
    draw,
    reference,
    rounds_of,
    select,
)
from midcourse.pipeline.values import Drawn, PerSource, Selection, Texts
from midcourse.records import Condition, ProblemStatus, Reference
from midcourse.run import Stage
from midcourse.tokens import Asked


def train_rollouts(s: Sources) -> Drawn:
    """Return the base's rollouts of the training problems, graded."""
    config, problems = s.recipe.sample, s.problems(*GOLD)
    settings = SampleSettings(
        model=s.setup.base,
        contexts=Questions(texts=s.questions(), population=Population.TRAIN),
        num_rollouts=config.num_rollouts,
        sampling=config.sampling,
        stream="train",
        seed=s.recipe.seed,
        rounds=rounds_of(config.rounds, problems),
        per_source=per_source(s),
        dialogues=s.dialogues(),
    )
    return draw(settings, problems, max_duplicate_share=config.max_duplicate_share)


def per_source(s: Sources) -> PerSource | None:
    """Return which sources have another number of rollouts; none where none has."""
    numbers = s.recipe.sample.num_rollouts_by_source
    return PerSource(numbers=numbers, problems=s.problems("source")) if numbers else None


def hard_statuses(s: Sources, drawn: Drawn) -> Stage[ProblemStatus, Any]:
    """Return which problems are hard, by all their rollouts."""
    settings = SelectSettings(
        grades=drawn.grades,
        problems=s.problems(),
        num_rollouts=s.recipe.sample.num_rollouts,
        truncated_is_incorrect=s.recipe.select.truncated_is_incorrect,
        per_source=per_source(s),
    )
    return select(settings, "train")


def still_hard_statuses(s: Sources, hinted: Drawn, among: Selection) -> Stage[ProblemStatus, Any]:
    """Return which hard problems stay hard with a hint."""
    settings = SelectSettings(
        grades=hinted.grades,
        problems=s.problems(),
        num_rollouts=s.recipe.select.num_rollouts,
        truncated_is_incorrect=s.recipe.select.truncated_is_incorrect,
        among=among,
    )
    return select(settings, "train hint")


def references(s: Sources, unsolved: Selection) -> Stage[Reference, Any]:
    """Return where the reference of each hard problem comes from; missing ones are written."""
    write = s.recipe.reference.write
    attempts = None if write == "none" else _attempts_at_references(s, unsolved)
    hard = replace(unsolved, problems=s.problems(*WHOLE, "source"))
    settings = ReferenceSettings(hard=hard, write=write, attempts=attempts)
    return reference(settings, "train")


def _attempts_at_references(s: Sources, unsolved: Selection) -> Drawn:
    config, prompt = s.recipe.reference, s.setup.prompts["reference"]
    texts = {
        p.problem_id: prompt.render(problem=p.text, answer=p.answer) for p in s.setup.problems.train
    }
    settings = SampleSettings(
        model=s.setup.helper(
            config.model, None, s.recipe.reference_engine, config.template_arguments
        ),
        contexts=Questions(
            texts=Texts(texts),
            population=Population.HARD,
            among=HardOnes(unsolved, missing=config.write == "missing"),
            condition=Condition.REFERENCE,
        ),
        num_rollouts=config.num_attempts,
        sampling=config.sampling,
        stream="reference",
        seed=s.recipe.seed,
    )
    return draw(settings, s.problems(*GOLD), asked=Asked.REFERENCE)


def hinted_rollouts(s: Sources, referenced: Selection) -> Drawn:
    """Return the base's rollouts of the hard problems with a hint, graded (Table 1, rows 8-10)."""
    hard = replace(referenced, problems=s.problems("text", "reference_solution"))
    settings = SampleSettings(
        model=s.setup.base,
        contexts=HintedQuestions(hard=hard, hints=s.hints()),
        num_rollouts=s.recipe.select.num_rollouts,
        sampling=s.recipe.sample.sampling,
        stream="train hint",
        seed=s.recipe.seed,
        dialogues=s.dialogues(),
    )
    return draw(settings, s.problems(*GOLD))
