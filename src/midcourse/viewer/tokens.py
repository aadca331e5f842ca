"""The end of each training row as tokens, with their probabilities before and after training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import exp, isfinite
from pathlib import Path
from typing import Any

from midcourse.engines.models import resolve_model
from midcourse.records import Likelihood, RowOutcome, RowSource, SftRow
from midcourse.stages.build_sft import IGNORED
from midcourse.stages.likelihood import KEPT_TOKENS, row_item_id
from midcourse.viewer.data import Token
from midcourse.viewer.files import RunFiles

Spell = Callable[[Sequence[int]], list[str]]
"""Returns the text of each token; joined, they are the text of all."""


def read_strips(files: RunFiles) -> dict[str, Sequence[Token]]:
    """Return the last tokens of each row to train on, by proposal; of older runs without scores.

    A baseline is trained on other rows than these. Where nothing spells the tokens there are none,
    only the fact that there is a row.
    """
    scores, spell, sources = _Scores.read(files), _speller(files), _sources(files)
    strips: dict[str, Sequence[Token]] = {}
    for step in files.named("build-sft"):
        for row in files.records(step, SftRow):
            if row.source in sources and row.outcome is RowOutcome.READY and row.proposal_id:
                strips.setdefault(row.proposal_id, _strip(row, scores, spell) if spell else ())
    return strips


def _sources(files: RunFiles) -> set[str]:
    """Return which rows made of proposals are trained on; all if no recipe tells."""
    steps = {str(RowSource.INTERVENTION), str(RowSource.ORIGINAL_STEP)}
    told = {recipe.get("build_sft", {}).get("source") for recipe in files.recipes} - {None}
    return steps & (told or steps)


def _strip(row: SftRow, scores: _Scores, spell: Spell) -> Sequence[Token]:
    texts = spell(row.input_ids[-KEPT_TOKENS:])
    base, patched = (scores.probabilities(row, of, len(texts)) for of in scores.models)
    labels = row.labels[-KEPT_TOKENS:]
    return [
        Token(text=text, trained=label != IGNORED, base=before, patched=after)
        for text, label, before, after in zip(texts, labels, base, patched, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Scores:
    """Log-probabilities of the rows that were scored."""

    logprobs: Mapping[str, tuple[float, ...]]
    """By `row_item_id`."""
    models: tuple[Sequence[str], Sequence[str]]
    """Names of the base, and of what was fine-tuned."""

    @classmethod
    def read(cls, files: RunFiles) -> _Scores:
        logprobs, names = dict[str, tuple[float, ...]](), dict[str, None]()
        for step in files.named("likelihood"):
            for item in files.records(step, Likelihood):
                if item.last_logprobs:
                    logprobs[item.item_id] = item.last_logprobs
                    names[item.model] = None
        base = [name for name in names if name.startswith("base:")]
        return cls(logprobs, (base, [name for name in names if name not in base]))

    def probabilities(
        self, row: SftRow, models: Sequence[str], count: int
    ) -> Sequence[float | None]:
        """Return those of the last `count` tokens under the first of `models` that scored them."""
        ids = (row_item_id(model, row) for model in models)
        logprobs = next((self.logprobs[i] for i in ids if i in self.logprobs), ())
        known = [exp(one) if isfinite(one) else None for one in logprobs[-count:]]
        return [*[None] * (count - len(known)), *known]


def _speller(files: RunFiles) -> Spell | None:
    """Return what spells tokens of the policy, from a model in the run directory or the recipe's.

    None where there is no tokenizer file, or no package that reads it.
    """
    with suppress(ImportError):
        from tokenizers import Tokenizer

        for file in filter(Path.is_file, _tokenizer_files(files)):
            with suppress(Exception):  # what the package raises for a damaged file is bare
                return _spelled_by(Tokenizer.from_file(str(file)))
    return None


def _tokenizer_files(files: RunFiles) -> Iterator[Path]:
    yield from sorted(files.directory.glob("checkpoints/*/final/tokenizer.json"))
    for recipe in files.recipes:
        path, kind = (
            recipe.get(of, {}).get(key) for of, key in (("model", "path"), ("engine", "kind"))
        )
        # A script's tokens are bytes, whatever the model.
        if path and kind != "scripted":
            yield Path(resolve_model(path)) / "tokenizer.json"


def _spelled_by(tokenizer: Any) -> Spell:
    from tokenizers.decoders import DecodeStream

    def spell(ids: Sequence[int]) -> list[str]:
        with suppress(Exception):  # a bare one, where the ids begin within a character
            stream = DecodeStream(skip_special_tokens=False)
            # A token that ends within a character has no text: the one that ends it has it all.
            return [stream.step(tokenizer, token) or "" for token in ids]
        return [tokenizer.decode([token], skip_special_tokens=False) for token in ids]

    return spell
