"""What each stage of a recipe asks for: requests, tokens, bytes. Every number is an expectation.

The stages stand in the order in which `midcourse.pipeline` runs them, the grading of all of them
together at the end. A context that several
requests share (32 continuations of one prefix) is counted once as prefill: engines keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from midcourse.config import Recipe
from midcourse.engines import scoring_config
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.search import PassRates, rollouts_of_search
from midcourse.plan.shapes import ModelShape
from midcourse.records import Condition

Kind = Literal["sample", "grade", "propose", "verify", "sft", "rl", "evaluate", "likelihood"]

#: A verdict, a status or a row without its ids, compressed.
_RECORD_BYTES = 60
#: Weights are saved as they were trained, in float32.
_SAVED_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One stage, e.g. ``verify prefix``: 4,500 contexts × 32 continuations of 3,500 tokens."""

    name: str
    kind: Kind
    requests: float
    """Completions, answers to grade, texts to score, or rows trained on."""
    prefill_tokens: float = 0.0
    """Tokens of distinct contexts."""
    tokens: float = 0.0
    """Tokens sampled, trained on or scored."""
    context: float = 0.0
    """Mean number of tokens that one of them looks back on."""
    opens: int = 0
    """Engines opened, or training processes started, for it."""
    disk_bytes: float = 0.0
    passing_bytes: float = 0.0
    """Disk that is free again afterwards: checkpoints to resume from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many there are of everything, in expectation."""

    problems: float
    held_out: float
    probes: float
    """Problems of all probe sets together."""
    draws: float
    """Rollouts per training problem."""
    hard: float
    asked: float
    """Incorrect rollouts shown to the proposer."""
    candidates: float
    """Rollouts with an accepted intervention."""
    rows: float
    """SFT rows."""

    @classmethod
    def of(cls, recipe: Recipe, given: Assumptions, problems: float, held_out: float,
           probes: float, pass_rates: PassRates) -> Sizes:  # fmt: skip
        """Follow the problems through the funnel."""
        sample = recipe.sample
        rounds = sample.rounds or (sample.num_rollouts,)
        draws = given.rollouts_per_problem or rollouts_of_search(pass_rates, rounds).rollouts
        unsolved = sum(share * (1 - rate) ** sample.num_rollouts for rate, share in pass_rates)
        hard = problems * (unsolved if given.hard_share is None else given.hard_share)
        asked = hard * min(recipe.propose.num_rollouts, sample.num_rollouts)
        candidates = asked * given.candidate_share
        rows = hard if recipe.build_sft.rows_per_problem == "one" else candidates
        if recipe.build_sft.filter:
            rows *= given.verified_share
        return cls(
            problems=problems, held_out=held_out, probes=probes, draws=draws, hard=hard,
            asked=asked, candidates=candidates, rows=rows,
        )  # fmt: skip


def stages(recipe: Recipe, given: Assumptions, sizes: Sizes, shape: ModelShape) -> list[Work]:
    """Return the work of ``midcourse run``, stage by stage. `given` was filled in."""
    wanted = recipe.evaluate.models
    works = [
        _sampled("sample", "train", given, sizes.problems, sizes.draws, given.prompt_tokens,
                 given.rollout_tokens, opens=1),
        _propose("train", recipe, given, sizes.asked),
    ]  # fmt: skip
    conditions = dict.fromkeys((Condition.PREFIX_INTERVENTION, *recipe.verify.conditions))
    works += [_verify(condition, recipe, given, sizes) for condition in conditions]
    if any(role.startswith("patched") for role in wanted):
        works.append(_sft(recipe, given, sizes, shape))
    if rl_arms(recipe):
        works.append(_rl(recipe, given, shape))
    if sizes.held_out or sizes.probes:
        works += [_evaluate(label, recipe, given, sizes) for label in wanted]
    if sizes.held_out:
        works.append(_propose("held_out", recipe, given, sizes.held_out))
    scored = [label for label in wanted if "RL" not in label]
    works += [_likelihood(label, recipe, given, sizes) for label in scored]
    return [*works, _grade(works)]


def _sampled(kind: Kind, label: str, given: Assumptions, contexts: float, each: float,
             context: float, tokens: float, opens: int) -> Work:  # fmt: skip
    """Return the sampling of `each` completions from `contexts` contexts."""
    requests = contexts * each
    return Work(
        name=f"{kind} {label}", kind=kind, requests=requests, prefill_tokens=contexts * context,
        tokens=requests * tokens, context=context + tokens / 2, opens=opens,
        disk_bytes=requests * tokens * given.disk_bytes_per_token,
    )  # fmt: skip


def _grade(works: Sequence[Work]) -> Work:
    """Return the grading of everything that was sampled from the policy."""
    sampled = sum(w.requests for w in works if w.kind in ("sample", "verify", "evaluate"))
    return Work(name="grade", kind="grade", requests=sampled, disk_bytes=sampled * _RECORD_BYTES)


def _propose(name: str, recipe: Recipe, given: Assumptions, asked: float) -> Work:
    """Return the questions about `asked` rollouts, each of one or two turns."""
    config = recipe.propose
    questions = asked * config.num_proposals
    if config.stop_at_first_accepted:
        questions = asked * _questions(config.num_proposals, given)
    shown = given.prompt_tokens + given.rollout_tokens
    tokens = given.review_tokens
    if config.reference != "none":
        shown += given.reference_tokens
        if config.turns == "two":
            tokens += given.guided_tokens
    apart = recipe.proposer_model is not None or recipe.proposer_engine is not None
    return Work(
        name=f"propose {name}", kind="propose", requests=questions,
        prefill_tokens=questions * shown, tokens=questions * tokens,
        context=shown + tokens / 2, opens=int(apart or name == "held_out"),
        disk_bytes=questions * (shown + tokens) * given.disk_bytes_per_token,
    )  # fmt: skip


def _questions(most: int, given: Assumptions) -> float:
    """Return the expected questions about a rollout that end with the first accepted answer.

    If k questions leave a share of 1 − c without one, each succeeds with 1 − (1 − c)^(1/k).
    """
    once = 1 - (1 - given.candidate_share) ** (1 / most)
    return given.candidate_share / once if once else float(most)


def _verify(condition: Condition, recipe: Recipe, given: Assumptions, sizes: Sizes) -> Work:
    context, tokens = given.prompt_tokens, given.rollout_tokens
    if condition.continues is not Condition.PROBLEM:
        context += given.rollout_tokens * given.prefix_share
        tokens = given.continuation_tokens
    if condition.continues is Condition.PREFIX_INTERVENTION:
        context += given.intervention_tokens
    each = recipe.verify.num_continuations
    return _sampled(
        "verify", str(condition), given, sizes.candidates, each, context, tokens, opens=0
    )


def rl_arms(recipe: Recipe) -> int:
    """Return how many RL trainings a recipe compares: from the base, from the patched model."""
    return sum(role.endswith("+ RL") for role in recipe.evaluate.models)


def row_tokens(given: Assumptions) -> float:
    """Return the mean length of an SFT row: prompt, prefix, intervention."""
    prefix = given.rollout_tokens * given.prefix_share
    return given.prompt_tokens + prefix + given.intervention_tokens


def _sft(recipe: Recipe, given: Assumptions, sizes: Sizes, shape: ModelShape) -> Work:
    config, length = recipe.train_sft, row_tokens(given)
    rows = sizes.rows * config.num_epochs
    if config.max_steps:
        rows = min(rows, config.max_steps * config.batch_size)
    return Work(
        name="train sft", kind="sft", requests=rows, tokens=rows * length, context=length / 2,
        opens=1, disk_bytes=shape.parameters * _SAVED_BYTES,
    )  # fmt: skip


def _rl(recipe: Recipe, given: Assumptions, shape: ModelShape) -> Work:
    """Return all arms together: from the base and from the patched model."""
    config = recipe.train_rl
    arms, each = rl_arms(recipe), config.prompts_per_iteration * config.num_generations
    rollouts = float(arms * config.num_iterations * each)
    trained = shape.lora_parameters(config.lora_rank) if config.lora_rank else shape.parameters
    checkpoints = config.num_iterations // config.save_every
    return Work(
        name="train rl", kind="rl", requests=rollouts,
        prefill_tokens=rollouts / config.num_generations * given.prompt_tokens,
        tokens=rollouts * given.rl_tokens, context=given.prompt_tokens + given.rl_tokens / 2,
        opens=1, disk_bytes=arms * shape.parameters * _SAVED_BYTES,
        passing_bytes=arms * checkpoints * 3 * trained * _SAVED_BYTES,
    )  # fmt: skip


def _evaluate(label: str, recipe: Recipe, given: Assumptions, sizes: Sizes) -> Work:
    """Return the evaluation of one model: held-out problems and probes together."""
    config, problems = recipe.evaluate, sizes.held_out + sizes.probes
    rollouts = sizes.held_out * config.num_rollouts + sizes.probes * config.num_probe_rollouts
    tokens = min(given.rollout_tokens, config.sampling.max_tokens)
    return _sampled(
        "evaluate", label, given, problems, rollouts / problems,
        given.prompt_tokens, tokens, opens=1,
    )  # fmt: skip


def _likelihood(label: str, recipe: Recipe, given: Assumptions, sizes: Sizes) -> Work:
    """Return the scoring of interventions, rows, references and own rollouts by one model."""
    most = recipe.likelihood.max_items
    rows, references = min(most, sizes.rows), min(most, sizes.problems)
    own = min(most, sizes.held_out * recipe.evaluate.num_rollouts)
    unseen = min(most, sizes.held_out * given.candidate_share)
    prompt, prefix = given.prompt_tokens, given.rollout_tokens * given.prefix_share
    scored = (
        (2 * rows + unseen) * given.intervention_tokens + rows * prefix
        + references * given.reference_tokens + own * given.rollout_tokens
    )  # fmt: skip
    texts = 2 * rows + references + own + unseen
    # A server scores nothing: then another engine is opened.
    by_server = scoring_config(recipe.engine) not in (None, recipe.engine)
    return Work(
        name=f"likelihood {label}", kind="likelihood", requests=texts,
        prefill_tokens=texts * prompt + (rows + unseen) * prefix, tokens=scored,
        context=prompt + given.rollout_tokens / 2, opens=int(label != "base" or by_server),
        disk_bytes=texts * _RECORD_BYTES,
    )  # fmt: skip
