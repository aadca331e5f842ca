"""What the words of the method mean, in a sentence each, for a page that has to explain itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from midcourse.records import Condition, ProposalOutcome, Verdict

OUTCOMES: Mapping[str, str] = MappingProxyType(
    {
        ProposalOutcome.ACCEPTED: "The intervention changes a step: it can be verified.",
        ProposalOutcome.NO_TAG: "The reply holds no intervention in the form that was asked for.",
        ProposalOutcome.MALFORMED: "The reply's intervention cannot be read, or names no step.",
        ProposalOutcome.NO_ERROR_FOUND: "The proposer found no error in the rollout.",
        ProposalOutcome.EMPTY: "The intervention has no text.",
        ProposalOutcome.LOCATION_OUT_OF_RANGE: "The rollout has no step of that number.",
        ProposalOutcome.LEAKS_ANSWER: "The intervention gives the answer away.",
        ProposalOutcome.TOO_LONG: "The intervention is longer than allowed.",
        ProposalOutcome.PROMPT_TOO_LONG: "The question did not fit into the proposer's context.",
        ProposalOutcome.REQUEST_FAILED: "The proposer's server gave no reply.",
        ProposalOutcome.TRUNCATED: "The reply ran out of tokens.",
        ProposalOutcome.DUPLICATE: "An earlier proposal for this rollout says the same.",
        ProposalOutcome.UNCHANGED: "The intervention is the step it replaces: nothing changes.",
        ProposalOutcome.CONTROL_CHARACTER: "The intervention holds a control character.",
    }
)
VERDICTS: Mapping[str, str] = MappingProxyType(
    {
        Verdict.CORRECT: "The answer equals the gold answer.",
        Verdict.INCORRECT: "The answer differs from the gold answer.",
        Verdict.NO_ANSWER: "No final answer was given: counts as incorrect.",
        Verdict.UNGRADED: "It could not be graded: counts as nothing.",
    }
)
CONDITIONS: Mapping[str, str] = MappingProxyType(
    {
        Condition.PROBLEM: "Sampled from the problem alone.",
        Condition.PREFIX: "Sampled after the steps before the first error.",
        Condition.PREFIX_ERROR: "Sampled after those steps and the original, wrong step.",
        Condition.PREFIX_INTERVENTION: "Sampled after those steps and the intervention.",
        Condition.HINT: "Sampled from the problem and a hint.",
        Condition.HINT_PREFIX: "Sampled from a hint, after the steps before the first error.",
        Condition.HINT_PREFIX_INTERVENTION: (
            "Sampled from a hint, after those steps and the intervention."
        ),
        Condition.REFLECTION: "The wrong attempt, written again with the reference in sight.",
        Condition.REFERENCE: "A reference solution that was asked for.",
    }
)


def all_meanings() -> dict[str, str]:
    """Return every word's sentence; no word is in two of the tables."""
    return {**OUTCOMES, **VERDICTS, **CONDITIONS}
