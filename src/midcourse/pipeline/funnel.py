"""Where a funnel runs dry: what comes next would have nothing to work on, and which keys to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from midcourse.progress import outcomes
from midcourse.records import Condition
from midcourse.run import Stage, Step

#: What to look at where most proposals came to this.
_OF_PROPOSALS = {
    "truncated": "raise propose.sampling.max_tokens",
    "too_long": "raise propose.max_intervention_tokens",
    "prompt_too_long": "use a proposer with a longer context",
    "leaks_answer": "see propose.leak_rule",
    "no_error_found": "see propose.reference, or use another [proposer_model]",
}
#: What to look at where most rows came to this.
_OF_ROWS = {
    "not_verified": "raise verify.num_continuations or propose.num_proposals",
    "undecided": "see the grades: 'midcourse grade RECIPE --audit'",
    "too_long": "raise build_sft.max_tokens",
    "after_error": "see build_sft.after_error",
    "no_solution": "raise build_sft.num_solutions or build_sft.sampling.max_tokens",
}


def dryness(step: Step, manifest: Mapping[str, Any], logged: Sequence[Mapping[str, float]]) -> str:
    """Return why nothing can come after a complete step, and what to change; empty if all is well.

    `logged` are the steps of a training.
    """
    counts = {str(name): int(count) for name, count in manifest["counts"].items()}
    if isinstance(step, Stage) and step.name != "select" and not counts:
        return ""  # it had nothing to work on, as an earlier step has said
    match step.name:
        case "select" if not counts.get("hard"):
            said = (
                f"no problem is hard ({outcomes(counts) or 'there is none'}): there is nothing to "
                "intervene in; use harder problems (problems.path) or fewer rollouts "
                "(sample.num_rollouts)"
            )
            more = "; for undecided ones see 'midcourse grade RECIPE --audit'"
            return said + more * bool(counts.get("undecided"))
        case "propose" if not counts.get("accepted"):
            other = "see the replies with 'midcourse show RUN', then prompts and [proposer_model]"
            advice = _advice(_OF_PROPOSALS, counts, other)
            return f"no proposal was accepted ({_most(counts)}): {advice}"
        case "grade" if step.label.startswith(Condition.PREFIX_INTERVENTION) and not counts.get(
            "correct"
        ):
            return (
                f"no continuation of an intervention is correct ({_most(counts)}): no row will be "
                "verified; raise verify.num_continuations, propose.num_proposals or "
                "verify.sampling.max_tokens, or use a stronger [proposer_model]"
            )
        case "build-sft" if not counts.get("ready"):
            other = "see what was verified with 'midcourse show RUN'"
            return f"no row to train on ({_most(counts)}): {_advice(_OF_ROWS, counts, other)}"
        case "checkpoints" if logged and all(_is_idle(entry) for entry in logged):
            return (
                "no group of RL had a gradient: all rollouts of each got the same reward; use "
                "easier problems (train_rl.problems, train_rl.contexts) or more rollouts of each "
                "(train_rl.num_generations)"
            )
    return ""


def _is_idle(entry: Mapping[str, float]) -> bool:
    """Whether a step of RL had no advantage; never true of a step that has no groups."""
    return entry.get("frac_reward_zero_std", 0.0) >= 1.0


def _most(counts: Mapping[str, int]) -> str:
    return outcomes(dict(sorted(counts.items(), key=lambda one: -one[1]))) or "there was none"


def _advice(known: Mapping[str, str], counts: Mapping[str, int], other: str) -> str:
    """Return what to do about the most frequent outcome."""
    most = max(counts, key=lambda name: counts[name], default="")
    return known.get(most, other)
