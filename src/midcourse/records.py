r"""The nouns of the method: frozen records that every stage reads and writes.

Three facts are kept apart. A `Rollout` is what was *sampled*: immutable and expensive. A `Grade`
is what a *grader* thought of it: cheap, versioned, redone at will. Everything else
(`ProblemStatus`, `SftRow`) is *decided* from those two and from `Proposal`s, by pure functions.

Ids are hashes of what made the record, never positions, so a patched model's rollouts can never
be taken for the base's and a resumed stage knows what is not done yet. Step indices are 0-based in
every record (`error_step`); only text for a model is 1-based (`midcourse.steps`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

#: The checker of a problem that names none.
DEFAULT_CHECKER = "math"


def content_id(*parts: object) -> str:
    """Return 16 hex digits that name `parts` (strings, numbers, enums or lists of them)."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def derive_seed(run_seed: int, stage: str, item_id: str) -> int:
    """Return the seed of one sample, in 0 … 2³¹ − 1, from (run seed, stage, id)."""
    return int(content_id(run_seed, stage, item_id), 16) % 2**31


def token_ids_sha(token_ids: list[int] | tuple[int, ...]) -> str:
    """Return the hash under which a context of token ids is compared and stored."""
    return content_id(list(token_ids))


class Condition(StrEnum):
    """What a rollout was conditioned on: the rows of Table 1, and two that write solutions."""

    PROBLEM = "problem"
    PREFIX = "prefix"
    PREFIX_ERROR = "prefix_error"
    PREFIX_INTERVENTION = "prefix_intervention"
    HINT = "hint"
    HINT_PREFIX = "hint_prefix"
    HINT_PREFIX_INTERVENTION = "hint_prefix_intervention"
    REFLECTION = "reflection"
    """Reference and wrong attempt are shown; the attempt is rewritten (App. E)."""
    REFERENCE = "reference"
    """A reference solution is asked for (§5.1)."""

    @property
    def has_hint(self) -> bool:
        """Whether the user's turn carries a hint."""
        return self.value.startswith("hint")

    @property
    def continues(self) -> Condition:
        """What stands in the assistant's turn: the same condition without the hint."""
        if self is Condition.HINT:
            return Condition.PROBLEM
        return Condition(self.removeprefix("hint_"))


#: The conditions that are verified: the rows of Table 1.
TABLE_1 = tuple(c for c in Condition if c not in (Condition.REFLECTION, Condition.REFERENCE))


class Start(StrEnum):
    """Where a model comes from."""

    BASE = "base"
    PATCHED = "patched"
    """Fine-tuned on rows: by InT, or by a baseline."""


@dataclass(frozen=True, slots=True)
class Role:
    """Which model of the comparison: where it starts, and whether RL followed.

    ``str(Role(Start.PATCHED, rl=True))`` is ``patched + RL``, as a recipe writes it.
    """

    start: Start = Start.BASE
    rl: bool = False
    iteration: int | None = None
    """Of a model that was kept along RL; none for its end."""

    @classmethod
    def parse(cls, text: str) -> Role:
        """Read what a recipe writes."""
        start, _, rl = text.partition(" + ")
        return cls(Start(start), bool(rl))

    def __str__(self) -> str:
        at = f" @ {self.iteration}" if self.iteration is not None else ""
        return f"{self.start}{' + RL' if self.rl else ''}{at}"


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """The model closed its turn."""
    LENGTH = "length"
    """The token budget was used up: a truncated rollout."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """Nothing was sampled: the context leaves no room within the model's length."""
    REQUEST_FAILED = "request_failed"
    """The server gave no usable reply, however often it was asked: a failure of ours."""

    @property
    def has_reply(self) -> bool:
        """Whether there is a reply of the model to look at."""
        return self in (FinishReason.STOP, FinishReason.LENGTH)


class Verdict(StrEnum):
    """What the grader says of a response. Only `correct` and `incorrect` compare answers."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NO_ANSWER = "no_answer"
    """No final answer was given: counts as incorrect."""
    UNGRADED = "ungraded"
    """We failed, not the model: counts as nothing, and is shown."""


class UngradedCause(StrEnum):
    """Why a response is `ungraded`."""

    TIMEOUT = "timeout"
    GRADER_ERROR = "grader_error"
    GOLD_UNPARSEABLE = "gold_unparseable"
    NOT_SAMPLED = "not_sampled"
    """The prompt did not fit, or the server gave no reply: there is no response to grade."""


class Solvability(StrEnum):
    """What the graded rollouts say of a problem. Ungraded ones count for neither side."""

    SOLVED = "solved"
    """At least one correct rollout."""
    HARD = "hard"
    """The full number of graded rollouts, none correct: pass@k = 0."""
    UNDECIDED = "undecided"
    """None correct, but some rollouts are missing or ungraded."""


class ProposalOutcome(StrEnum):
    """What became of one question to the proposer. Every question gets exactly one."""

    ACCEPTED = "accepted"
    NO_TAG = "no_tag"
    MALFORMED = "malformed"
    NO_ERROR_FOUND = "no_error_found"
    EMPTY = "empty"
    LOCATION_OUT_OF_RANGE = "location_out_of_range"
    LEAKS_ANSWER = "leaks_answer"
    TOO_LONG = "too_long"
    PROMPT_TOO_LONG = "prompt_too_long"
    REQUEST_FAILED = "request_failed"
    TRUNCATED = "truncated"
    DUPLICATE = "duplicate"
    UNCHANGED = "unchanged"
    """The intervention is the step that it replaces, up to white space: it changes nothing."""
    CONTROL_CHARACTER = "control_character"


class RowSource(StrEnum):
    """What an SFT row teaches."""

    INTERVENTION = "intervention"
    REFERENCE = "reference"
    SELF_REFLECTION = "self_reflection"
    DISTILLATION = "distillation"
    ORIGINAL_STEP = "original_step"
    """A control: the prefix and the wrong step itself."""
    WORKED_SOLUTION = "worked_solution"
    """Warm-up: a whole solution in our answer form."""
    VERIFICATION = "verification"
    """Warm-up: the log and the intervention for an attempt whose first error is known."""
    PROPOSAL = "proposal"
    """The proposer's own reply about an attempt, with an intervention that was verified."""


class RowOutcome(StrEnum):
    """What became of a verified proposal when rows were built."""

    READY = "ready"
    NOT_VERIFIED = "not_verified"
    """No continuation was correct; of a proposer's row, fewer than were asked for."""
    UNDECIDED = "undecided"
    """No continuation was correct, but some could not be graded."""
    NOT_CHOSEN = "not_chosen"
    """Another proposal stands for this problem; of a proposer's row, or for this rollout."""
    TOO_LONG = "too_long"
    """The row is over the token limit: refused, never cut."""
    AFTER_ERROR = "after_error"
    """Box 2's recovery steps located after the error stay out by default."""
    NO_SOLUTION = "no_solution"
    """A baseline's row: there is no whole solution, none was written or none was finished."""
    NOT_ACCEPTED = "not_accepted"
    """A proposer's row: its reply was refused, or did not finish."""


class ReferenceOutcome(StrEnum):
    """Where a hard problem's reference solution comes from."""

    GIVEN = "given"
    """It came with the problem."""
    WRITTEN = "written"
    """A model wrote it, and its answer is correct."""
    NOT_SOLVED = "not_solved"
    """No attempt's answer is correct: the problem is left out."""
    UNDECIDED = "undecided"
    """No attempt is correct, but some could not be graded: left out as well."""
    MISSING = "missing"
    """There is none, and none was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """All sampling parameters, always explicit: a server fills in what is left out.

    ``Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0,
    max_tokens=512)``
    """

    temperature: float
    """0 means greedy."""
    top_p: float
    top_k: int
    """0 means off."""
    min_p: float
    repetition_penalty: float
    max_tokens: int
    """New tokens at most."""


@dataclass(frozen=True, slots=True)
class Gold:
    """What an answer is compared with, and by which checker: ``Gold("math", "42")``."""

    checker: str
    """Name of a checker (`midcourse.checkers`)."""
    value: str
    """The gold answer; for a checker that needs more than an answer, its data as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem: ``Problem(problem_id="p1", text="What is 6 × 7?", answer="42", …)``."""

    problem_id: str
    """As given, or a hash of source and text."""
    text: str
    answer: str
    """The gold answer: one right answer, as a checker reads it."""
    reference_solution: str | None
    source: str
    """Data set or lab kind, e.g. ``gsm8k`` or ``lab/composed``."""
    split: str
    """``train``, ``held_out`` or as the source names it."""
    checker: str = DEFAULT_CHECKER
    """Name of the checker that says whether an answer is right (`midcourse.checkers`)."""
    entry: str = ""
    """What the checker needs beyond the answer, as JSON; empty if it needs nothing."""

    @property
    def gold(self) -> Gold:
        """What an answer is compared with."""
        return Gold(self.checker, self.entry or self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentTurn:
    """What an environment said between two turns of the model, e.g. ``"32"`` at character 27."""

    text: str
    at: int
    """How many characters of the rollout's text, which is the model's own, stand before it."""
    start: int
    """Where it begins among the rollout's `token_ids`, 0-based: at the first id after the model's
    end-of-turn."""
    num_tokens: int
    """With what opens the model's next turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    r"""One sampled response, e.g. text ``"Then 2x = 4.\n\nThe answer is \\boxed{4}."``."""

    rollout_id: str
    problem_id: str
    index: int
    """0-based, among the rollouts of the same problem, condition and parent."""
    condition: Condition
    parent_id: str | None
    """The proposal whose prefix this continues, or whose rollout it rewrites; else null."""
    prompt_sha: str
    """`token_ids_sha` of the whole context: prompt, prefix and intervention."""
    prompt_tokens: int
    text: str
    """What was sampled, without the context; the model's turns, joined, if there are several."""
    token_ids: tuple[int, ...]
    """What was sampled, the end-of-turn included if the model wrote it, and what an environment
    said in between."""
    num_tokens: int
    """How many ids were sampled: known where the ids themselves are not read."""
    finish_reason: FinishReason
    model: str
    """``base:<hash>``, ``sft:<key>``, ``dpo:<key>``, ``rl:<key>@<step>`` or a helper's name."""
    sampling: Sampling
    seed: int
    open_box: str = ""
    r"""The tail of the context from an answer left open there, as ``\boxed{4``; else empty."""
    given: tuple[EnvironmentTurn, ...] = ()
    """What an environment said, in order; empty for a rollout of one turn."""

    @property
    def turns(self) -> list[str]:
        """What the model said, turn by turn."""
        return turns_of(self.text, self.given)

    @property
    def sampled(self) -> list[bool]:
        """Of each token id, whether the model sampled it: what an environment said is not."""
        return sampled_mask(len(self.token_ids), self.given)


def sampled_mask(num_tokens: int, given: Sequence[EnvironmentTurn]) -> list[bool]:
    """Return, of `num_tokens` ids, which ones an environment did not say."""
    mask = [True] * num_tokens
    for turn in given:
        mask[turn.start : turn.start + turn.num_tokens] = [False] * turn.num_tokens
    return mask


def turns_of(text: str, given: Sequence[EnvironmentTurn]) -> list[str]:
    """Return the model's turns of a text that an environment interrupted; one more than `given`."""
    borders = [0, *(turn.at for turn in given), len(text)]
    return [text[start:end] for start, end in pairwise(borders)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """A grader's view of one rollout, e.g. verdict ``correct``, extracted answer ``"4"``."""

    rollout_id: str
    problem_id: str
    parent_id: str | None
    condition: Condition
    verdict: Verdict
    extracted_answer: str | None
    cause: UngradedCause | None
    """Set where, and only where, the verdict is `ungraded`."""
    truncated: bool
    """Whether the rollout ended by its token budget."""
    grader: str
    """The checker's version, ``math-verify/0.9.0+midcourse/2``."""
    detail: str = ""
    """What became of a program, in one line: ``failed: test 2: AssertionError``; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemStatus:
    """What `select` decided about one problem, e.g. hard with 64 rollouts and none correct."""

    problem_id: str
    status: Solvability
    num_rollouts: int
    """Rollouts asked for: the k of pass@k = 0."""
    num_correct: int
    num_incorrect: int
    """Incorrect and no-answer verdicts, truncated ones included."""
    num_ungraded: int
    num_truncated: int
    num_skipped: int
    """Not drawn, because a search stopped at a correct rollout."""
    num_no_answer: int = 0
    """Incorrect ones that ended, not truncated, without an answer."""

    @property
    def pass_rate(self) -> float | None:
        """Share of correct rollouts; none where all are ungraded. A search overstates it."""
        counted = self.num_correct + self.num_incorrect
        return self.num_correct / counted if counted else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The reference solution of one hard problem, e.g. outcome ``written``, source ``qwen3``."""

    problem_id: str
    outcome: ReferenceOutcome
    text: str | None
    """Null where there is none."""
    source: str
    """Who wrote it: the data set, or the model's name."""
    rollout_id: str | None
    """The attempt that is kept, where a model wrote it."""
    num_attempts: int
    num_correct: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One exchange with the proposer."""

    prompt: str
    """The user message."""
    reply: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One answer of the proposer, accepted or not, e.g. error_step 2, location 3."""

    proposal_id: str
    problem_id: str
    rollout_id: str
    index: int
    """0-based, among the questions about the same rollout."""
    item: int
    """0-based, among the entries of a list reply (Box 2); else 0."""
    proposer: str
    outcome: ProposalOutcome
    detail: str
    """Why, in a few words, where the outcome is not `accepted`."""
    error_step: int | None
    """0-based step of the first error as the model named it; null if it did not."""
    location: int | None
    """1-based substep at which the intervention stands, as the model wrote it."""
    intervention: str | None
    """The step as it enters the context, terminator included."""
    after_error: bool
    """Whether `location` lies after the error (list variant only)."""
    leaks_substring: bool | None
    """The authors' rule (the answer is a substring), for parity; null if there is no text."""
    turns: tuple[Turn, ...]
    prompt_name: str
    prompt_sha: str
    guided_verdict: Verdict | None = None
    """What the grader says of the solution in the first of two turns; null if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SftRow:
    """One row to train on, or the reason why there is none."""

    row_id: str
    source: RowSource
    outcome: RowOutcome
    problem_id: str
    proposal_id: str | None
    input_ids: tuple[int, ...]
    """Prompt, prefix, intervention; empty unless the outcome is `ready`."""
    labels: tuple[int, ...]
    """As `input_ids`, with −100 where nothing is learned."""
    closes_turn: bool
    """Whether the end-of-turn is trained: never for an intervention row, but after a whole
    solution or a finished suffix."""
    prompt_tokens: int
    prefix_tokens: int
    intervention_tokens: int
    """Tokens after the prefix; of a baseline's row the whole solution and its end-of-turn."""
    num_correct: int
    """Correct continuations in verification; of a baseline's row correct solutions."""
    num_continuations: int
    """Of how many."""
    rollout_id: str | None = None
    """The rewrite or the teacher's rollout that the row is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """Log-probabilities of one sequence's scored tokens under one model."""

    item_id: str
    problem_id: str
    model: str
    what: str
    """What was scored: ``own_rollout``, ``intervention``, ``intervention_row``, ``reference``."""
    num_tokens: int
    nll: float
    """Mean negative log-probability per token, nats."""
    entropy: float
    """Mean full-softmax entropy at temperature 1 per token, nats."""
    mean_probability: float
    """Arithmetic mean of the tokens' probabilities (Fig. 7)."""
    last_logprobs: tuple[float, ...] = ()
    """Of a row that is trained on: log-probability of each of its last tokens, at most 200, nats.
    Empty for other texts, and in what earlier releases wrote."""

    @property
    def exp_mean_logprob(self) -> float:
        """The geometric mean of the tokens' probabilities, exp(−nll)."""
        return math.exp(-self.nll)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCount:
    """What the reward saw of one GRPO group: 8 rollouts of one problem in one iteration."""

    iteration: int
    """0-based."""
    problem_id: str
    num_correct: int
    num_incorrect: int
    num_ungraded: int
    """No reward was given for these: never 0."""
    condition: Condition = Condition.PROBLEM
    """What its rollouts were conditioned on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlSample:
    """Where in RL a rollout was drawn, and what it was worth, e.g. iteration 3, advantage 0.625."""

    rollout_id: str
    iteration: int
    """0-based."""
    group: int
    """0-based, within the iteration."""
    advantage: float
    """What it is worth, before importance weights and what ``zero_gradient = "drop"`` scales; 0
    where it is ungraded."""
    is_trained: bool
    """False where another group took its place (``zero_gradient = "refill"``)."""
    taught_by: str = ""
    """Self-distillation: the correct rollout that the teacher was shown, or ``reference``; empty
    where there was nothing to show, so that the rollout has no such signal."""
