"""likelihood: NLL, entropy and token probability of given texts under a model (Figs 7-9)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from math import exp

from midcourse.engines.base import Scorer, ScoreRequest, TokenScores
from midcourse.records import Likelihood, SftRow, content_id

#: Tokens at the end of a row whose log-probabilities are kept: what a reader is shown of it.
KEPT_TOKENS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredText:
    """One text to score, e.g. the 12 tokens of an intervention after 61 of its context."""

    what: str
    """Kind of text, e.g. ``intervention``."""
    source_id: str
    """Id of the record it comes from."""
    problem_id: str
    token_ids: tuple[int, ...]
    num_context: int
    """Ids at the start that are given, not scored."""
    counts: tuple[bool, ...] = ()
    """Of each scored id, whether it counts: what an environment said does not. Empty: all do."""
    num_kept: int = 0
    """Of so many tokens at its end the record keeps each log-probability."""


def row_item_id(model: str, row: SftRow) -> str:
    """Return the id of the scores of a row's trained tokens, given its prompt, under a model."""
    return content_id(model, row_kind(row), row.row_id)


def row_kind(row: SftRow) -> str:
    """Return what the scores of a whole row are called, e.g. ``intervention_row``."""
    return f"{row.source}_row"


def likelihood(
    texts: Iterable[ScoredText], scorer: Scorer, model: str, done: Container[str]
) -> Iterator[Likelihood]:
    """Yield the scores of each text not in `done`; texts without scored tokens are refused."""
    by_id: dict[str, ScoredText] = {}
    for text in texts:
        if text.num_context >= len(text.token_ids):
            raise ValueError(f"{text.what} {text.source_id} has no token to score")
        item_id = content_id(model, text.what, text.source_id)
        if item_id not in done:
            by_id[item_id] = text
    requests = [
        ScoreRequest(request_id=i, token_ids=t.token_ids, num_context=t.num_context)
        for i, t in by_id.items()
    ]
    for scores in scorer.score(requests):
        yield _record(by_id[scores.request_id], scores, model)


def _record(text: ScoredText, scores: TokenScores, model: str) -> Likelihood:
    counts = text.counts or (True,) * len(scores.logprobs)
    logprobs = tuple(compress(scores.logprobs, counts))
    count = len(logprobs)
    return Likelihood(
        item_id=scores.request_id,
        problem_id=text.problem_id,
        model=model,
        what=text.what,
        num_tokens=count,
        nll=-sum(logprobs) / count,
        entropy=sum(compress(scores.entropies, counts)) / count,
        mean_probability=sum(exp(logprob) for logprob in logprobs) / count,
        last_logprobs=logprobs[-text.num_kept :] if text.num_kept else (),
    )
