"""localize: where does an attempt first go wrong? Asked neutrally, of solutions people marked.

It measures a proposer on its own, before any intervention: the propose prompts presume an error,
these do not. Every question becomes a `Localization` with an outcome; what was not answered in
the form asked for is a wrong answer, never a missing one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

from midcourse.config import SamplingConfig
from midcourse.engines.base import Completion, Request
from midcourse.localize.cases import ErrorCase
from midcourse.pipeline.values import Model
from midcourse.prompts import Prompt
from midcourse.prompts.location import read_location
from midcourse.prompts.parse import last_block, parse_proposal
from midcourse.records import content_id, derive_seed
from midcourse.rendering import Message, Renderer
from midcourse.run import Keyed, Work, stage
from midcourse.stages.flow import run_requests
from midcourse.stages.propose import OUTCOMES_OF_UNFINISHED
from midcourse.steps import BLANK_LINES, error_step_from_location
from midcourse.tokens import Asked


class LocalizationOutcome(StrEnum):
    """What became of one question for the first error. Only the first two are answers."""

    NAMED = "named"
    """A step of the attempt was named."""
    NO_ERROR = "no_error"
    """The tag is there and empty: the attempt is right."""
    NO_TAG = "no_tag"
    MALFORMED = "malformed"
    OUT_OF_RANGE = "out_of_range"
    """The number is not that of a step."""
    TRUNCATED = "truncated"
    PROMPT_TOO_LONG = "prompt_too_long"
    REQUEST_FAILED = "request_failed"
    """The server gave no usable reply: a failure of ours, counted nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Localization:
    """One answer to where an attempt first goes wrong, next to what people marked."""

    localization_id: str
    case_id: str
    source: str
    locator: str
    """Who was asked: a model folder's or a served model's name."""
    shows_reference: bool
    num_steps: int
    error_step: int | None
    """As marked: 0-based, null if there is no error."""
    outcome: LocalizationOutcome
    named_step: int | None
    """As answered: 0-based; set where, and only where, the outcome is `named`."""
    reply: str
    prompt_name: str
    prompt_sha: str


@dataclass(frozen=True, slots=True)
class Cases:
    """Solutions with a known first error, known by what they hold."""

    items: tuple[ErrorCase, ...]

    def identity(self) -> object:
        """Return a hash of what a question and its score depend on: the answer is not shown."""
        return content_id([_shown(case) for case in self.items])


def _shown(case: ErrorCase) -> dict[str, object]:
    return {name: value for name, value in asdict(case).items() if name != "answer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalizeSettings:
    """What decides the answers to one question."""

    cases: Cases
    prompt: Prompt
    """The reference is shown if, and only if, this names it; then every case has one."""
    sampling: SamplingConfig
    model: Model
    seed: int

    @property
    def shows_reference(self) -> bool:
        """Whether the question holds the reference solution."""
        return "reference" in self.prompt.fields


@stage(
    "localize",
    Localization,
    total=lambda settings, reader: len(settings.cases.items),
    asked=Asked.PROPOSER,
)
def localization(
    settings: LocalizeSettings, work: Work[Localization]
) -> Iterator[Keyed[Localization]]:
    """*localize*: where each case first goes wrong, as a model answers one prompt."""
    engine = work.tools.engine(settings.model)
    renderer = work.tools.renderer_for(settings.model)
    prompt, model = settings.prompt, settings.model
    named = (
        (content_id(case.source, case.case_id, model.name, prompt.name, prompt.sha), case)
        for case in settings.cases.items
    )
    requests = (
        (_request(*pair, settings, renderer), pair) for pair in named if pair[0] not in work.done
    )
    for (localization_id, case), completion in run_requests(engine, requests, work.failures):
        yield localization_id, [_record(localization_id, case, completion, settings)]


def _request(
    localization_id: str, case: ErrorCase, settings: LocalizeSettings, renderer: Renderer | None
) -> Request:
    shown = {"reference": str(case.reference)} if settings.shows_reference else {}
    attempt = BLANK_LINES.number(case.steps)
    text = settings.prompt.render(problem=case.problem, attempt=attempt, **shown)
    message: Message = {"role": "user", "content": text}
    return Request(
        request_id=localization_id,
        prompt_token_ids=tuple(renderer.prompt_ids([message])) if renderer else (),
        sampling=settings.sampling.record(),
        seed=derive_seed(settings.seed, "localize", localization_id),
        group=localization_id,
        messages=(message,),
    )


def _record(
    localization_id: str, case: ErrorCase, completion: Completion, settings: LocalizeSettings
) -> Localization:
    """Read the reply; one that did not finish is never read."""
    num_steps, named = len(case.steps), None
    unfinished = OUTCOMES_OF_UNFINISHED.get(completion.finish_reason)
    if unfinished is None:
        outcome, named = parse_first_error(completion.text, num_steps)
    else:
        outcome = LocalizationOutcome(unfinished.value)
    return Localization(
        localization_id=localization_id,
        case_id=case.case_id,
        source=case.source,
        locator=settings.model.label,
        shows_reference=settings.shows_reference,
        num_steps=num_steps,
        error_step=case.error_step,
        outcome=outcome,
        named_step=named,
        reply=completion.text,
        prompt_name=settings.prompt.name,
        prompt_sha=settings.prompt.sha,
    )


def parse_first_error(raw: str, num_steps: int) -> tuple[LocalizationOutcome, int | None]:
    """Read ``<first_error>4</first_error>``: the outcome, and the 0-based step if one is named.

    Only a closed tag with nothing in it says that there is no error. Without that tag a proposer's
    own ``<intervention>`` block is read for its location, so that a model trained to intervene
    need not learn another form.
    """
    block = last_block(raw, "first_error")
    if block is not None:
        location = read_location(block, num_steps)
    else:
        block, location = last_block(raw), parse_proposal(raw, num_steps).location
    if block is None:
        return LocalizationOutcome.NO_TAG, None
    if not block.strip():
        return LocalizationOutcome.NO_ERROR, None
    if location is None:
        return LocalizationOutcome.MALFORMED, None
    if not 1 <= location <= num_steps:
        return LocalizationOutcome.OUT_OF_RANGE, None
    return LocalizationOutcome.NAMED, error_step_from_location(location)
