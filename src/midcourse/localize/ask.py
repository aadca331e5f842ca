"""localize: where does an attempt first go wrong? Asked neutrally, of solutions people marked.

It measures a proposer on its own, before any intervention: the propose prompts presume an error,
these do not. Every question becomes a `Localization` with an outcome; what was not answered in
the form asked for is a wrong answer, never a missing one.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from midcourse.engines.base import Completion, Engine, Request
from midcourse.localize.records import ErrorCase, Localization, LocalizationOutcome
from midcourse.progress import Failures
from midcourse.prompts import Prompt
from midcourse.prompts.parse import last_block, parse_proposal
from midcourse.records import Sampling, content_id, derive_seed
from midcourse.rendering import Message, Renderer
from midcourse.stages.flow import run_requests
from midcourse.stages.propose import OUTCOMES_OF_UNFINISHED
from midcourse.steps import error_step_from_location, number_steps

#: A step as a model writes it: its first whole number.
_NUMBER = re.compile(r"-?\d{1,6}")


@dataclass(frozen=True, slots=True)
class Locator:
    """Who is asked, and how."""

    engine: Engine
    renderer: Renderer | None
    """Null for engines that take messages only."""
    prompt: Prompt
    """The reference is shown if, and only if, this names it."""
    sampling: Sampling
    name: str
    run_seed: int

    @property
    def shows_reference(self) -> bool:
        """Whether the question holds the reference solution."""
        return "reference" in self.prompt.fields


def localize(
    cases: Iterable[ErrorCase], locator: Locator, done: Container[str], failures: Failures
) -> Iterator[Localization]:
    """Yield one record per case whose id is not in `done`, as answers arrive.

    With a prompt that shows the reference, every case must have one.
    """
    prompt = locator.prompt
    named = (
        (content_id(case.source, case.case_id, locator.name, prompt.name, prompt.sha), case)
        for case in cases
    )
    requests = ((_request(*pair, locator), pair) for pair in named if pair[0] not in done)
    for (localization_id, case), completion in run_requests(locator.engine, requests, failures):
        yield _record(localization_id, case, completion, locator)


def _request(localization_id: str, case: ErrorCase, locator: Locator) -> Request:
    values = {"problem": case.problem, "attempt": number_steps(case.steps)}
    if locator.shows_reference:
        if case.reference is None:
            raise ValueError(f"{case.source} {case.case_id} has no reference to show")
        values["reference"] = case.reference
    message: Message = {"role": "user", "content": locator.prompt.render(**values)}
    ids = () if locator.renderer is None else tuple(locator.renderer.prompt_ids([message]))
    return Request(
        request_id=localization_id,
        prompt_token_ids=ids,
        sampling=locator.sampling,
        seed=derive_seed(locator.run_seed, "localize", localization_id),
        group=localization_id,
        messages=(message,),
    )


def _record(
    localization_id: str, case: ErrorCase, completion: Completion, locator: Locator
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
        locator=locator.name,
        shows_reference=locator.shows_reference,
        num_steps=num_steps,
        error_step=case.error_step,
        outcome=outcome,
        named_step=named,
        reply=completion.text,
        prompt_name=locator.prompt.name,
        prompt_sha=locator.prompt.sha,
    )


def parse_first_error(raw: str, num_steps: int) -> tuple[LocalizationOutcome, int | None]:
    """Read ``<first_error>4</first_error>``: the outcome, and the 0-based step if one is named.

    Only a closed tag with nothing in it says that there is no error. Without that tag a proposer's
    own ``<intervention>`` block is read for its location, so that a model trained to intervene
    need not learn another form.
    """
    block = last_block(raw, "first_error")
    if block is not None:
        number = _NUMBER.search(block[:200])
        location = int(number[0]) if number else None
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
