"""Rollouts that a stage sampled: of training problems, and in evaluation."""

from __future__ import annotations

from midcourse.records import FinishReason, Grade, Rollout
from midcourse.viewer.builder import PageBuilder, answer_of, title_of, verdict_of
from midcourse.viewer.data import Item, Kind, RolloutBody
from midcourse.viewer.files import Step
from midcourse.viewer.proposals import Proposals
from midcourse.viewer.room import Shown, first_of_each

_TRAIN = "train"


def add_sampled(builder: PageBuilder, step: Step, proposals: Proposals, number: int | None) -> None:
    """Add the rollouts of a stage, so many of them; None is all. Proposals get their attempts."""
    grades, num_kept = builder.files.grades_of(step), 0
    proposals.note(grades)
    eval_set, model = builder.names.split(step.label)
    chosen = _chosen(builder, step, number)
    if chosen != set() or not proposals.has_all_texts:
        for rollout in builder.files.rollouts(step):
            proposals.take(rollout)
            if chosen is None or rollout.rollout_id in chosen:
                grade = grades.get(rollout.rollout_id)
                item = rollout_item(
                    builder,
                    rollout,
                    grade,
                    model=model or builder.names.label(rollout.model),
                    eval_set=eval_set if model else _TRAIN,
                )
                add_rollout(builder, item, rollout, grade)
                num_kept += 1
    total = builder.files.size(step).num_rollouts
    builder.room.count("rollouts", total, num_kept)


def rollout_item(
    builder: PageBuilder, rollout: Rollout, grade: Grade | None, *, model: str, eval_set: str
) -> Item:
    """Return a rollout as lists show it."""
    return Item(
        kind=Kind.ROLLOUT,
        id=rollout.rollout_id,
        problem=builder.problems.place(rollout.problem_id),
        outcome=verdict_of(grade),
        title=title_of(rollout.text),
        chunk=0,
        position=0,
        model=model,
        eval_set=eval_set,
        condition=str(rollout.condition),
        num_tokens=rollout.num_tokens,
        truncated=rollout.finish_reason is FinishReason.LENGTH,
    )


def add_rollout(
    builder: PageBuilder, item: Item, rollout: Rollout, grade: Grade | None, context: str = ""
) -> None:
    """Add a rollout; `context` stands before it in the assistant's turn."""
    steps = builder.steps_of(rollout)
    body = RolloutBody(
        context=context,
        steps=steps,
        answer=answer_of(grade),
        detail=grade.detail if grade else "",
    )
    builder.add(item, body, len(context) + len(rollout.text))


def _chosen(builder: PageBuilder, step: Step, number: int | None) -> set[str] | None:
    """Return which rollouts are in the page; None is all of them."""
    hard_only = builder.room.shown is Shown.HARD
    if number is None and not hard_only:
        return None
    if number == 0:
        return set()
    problems, rollouts = builder.problems, builder.files.rollouts(step)
    if hard_only:
        rollouts = (one for one in rollouts if problems.is_hard(one.problem_id))
    if number is None:
        return {rollout.rollout_id for rollout in rollouts}
    return first_of_each(
        rollouts, number, lambda name: (not problems.is_hard(name), problems.place(name))
    )
