"""Preferences: a verified intervention against the step it replaces, after the same prefix.

TRL reads ids in the columns of its own collator; LLaMA-Factory reads texts, with the template that
leaves the turn open. Its two replies begin with the same prefix, which cancels in DPO's loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from midcourse.errors import ArtifactError
from midcourse.export.evidence import Case, Evidence
from midcourse.export.files import write_json, write_parquet
from midcourse.export.handover import Part, conversation
from midcourse.export.llama_factory import ROLE_TAGS, TEMPLATE, write_config, write_template
from midcourse.export.settings import llama_factory_settings
from midcourse.pipeline.interventions import INTERVENTION
from midcourse.records import Condition, RowOutcome
from midcourse.rendering import Renderer
from midcourse.stages.contexts import Context
from midcourse.stages.pairs import StepPair

_COLUMNS = {
    "prompt_ids": "ids of the prompt and of the prefix as it was sampled",
    "chosen_ids": "ids of the intervention as they were verified; nothing closes the turn",
    "rejected_ids": "ids of the step that it replaces, as they were sampled",
    "prompt": "the user message",
    "prefix": "what stands before both in the assistant's turn",
    "chosen": "the intervention",
    "rejected": "the step that it replaces",
    "problem_id": "names the problem",
    "proposal_id": "names the proposal",
    "num_correct": "correct continuations from the intervention",
    "num_graded": "of how many that could be judged",
    "in_rows": "whether the proposal is one of the rows that the run patches with",
}


def write(evidence: Evidence, out: Path) -> list[Part]:
    """Write ``dpo.parquet`` for TRL, and a data set with its config for LLaMA-Factory.

    Raises ArtifactError if no intervention is verified.
    """
    renderer = evidence.finished.renderer
    users = evidence.finished.method.evaluation.sources.questions().items
    rows = [
        _row(case, pair, users[case.problem.problem_id], renderer)
        for case, pair in verified_pairs(evidence)
    ]
    if not rows:
        raise ArtifactError("export dpo: no intervention is verified: look at 'midcourse status'")
    write_parquet(out / "dpo.parquet", rows)
    _write_llama_factory(evidence, rows, renderer, out)
    number = f"{len(rows)} preferences"
    texts = "texts, encoded again; leaves the turn open with `open_turn.py`"
    return [
        Part(
            path="dpo.parquet",
            what=f"{number} as ids, and as texts to be read",
            fidelity="the ids that were verified and those that were sampled, nothing after them",
            columns=_COLUMNS,
        ),
        Part(path="midcourse_dpo.json", what=f"{number} for LLaMA-Factory", fidelity=texts),
        Part(path="dataset_info.json", what="what LLaMA-Factory must know of them"),
        Part(path="open_turn.py, template.json", what="its template that leaves the turn open"),
        Part(path="dpo.yaml", what="its config"),
    ]


def verified_pairs(evidence: Evidence) -> Iterator[tuple[Case, StepPair]]:
    """Yield every verified proposal with its pair of ids."""
    chosen = evidence.contexts(INTERVENTION)
    rejected = evidence.contexts(Condition.PREFIX_ERROR)
    for case in evidence.cases:
        name = case.proposal.proposal_id
        if case.is_verified:
            pair = pair_of(name, chosen[name], rejected[name])
            if pair.rejected_ids:  # nothing stands where a recovery step is added at the end
                yield case, pair


def pair_of(name: str, chosen: Context, rejected: Context) -> StepPair:
    """Cut two contexts of a proposal where its prefix ends.

    Raises ArtifactError if they do not share it.
    """
    start = len(chosen.prompt_ids) + len(chosen.response.prefix)
    if chosen.token_ids[:start] != rejected.token_ids[:start]:
        raise ArtifactError(f"proposal {name}: its two sides do not share their prefix")
    return StepPair(
        row_id=name,
        prompt_ids=chosen.token_ids[:start],
        chosen_ids=chosen.token_ids[start:],
        rejected_ids=rejected.token_ids[start:],
    )


def _row(case: Case, pair: StepPair, user: str, renderer: Renderer) -> dict[str, object]:
    tally, start = case.tallies[INTERVENTION], len(renderer.prompt_ids(conversation(user)))
    before, reply = pair.prompt_ids[:start], pair.prompt_ids[start:]
    _, prefix, chosen = renderer.decode_parts(before, reply, pair.chosen_ids)
    rejected = renderer.decode_parts(pair.prompt_ids, pair.rejected_ids)[1]
    return {
        "prompt_ids": list(pair.prompt_ids),
        "chosen_ids": list(pair.chosen_ids),
        "rejected_ids": list(pair.rejected_ids),
        "prompt": user,
        "prefix": prefix,
        "chosen": chosen,
        "rejected": rejected,
        "problem_id": case.problem.problem_id,
        "proposal_id": case.proposal.proposal_id,
        "num_correct": tally.num_correct,
        "num_graded": tally.num_graded,
        "in_rows": case.row is RowOutcome.READY,
    }


def _write_llama_factory(
    evidence: Evidence, rows: Sequence[dict[str, object]], renderer: Renderer, out: Path
) -> None:
    sides = ("chosen", "rejected")
    given = [
        {
            "messages": conversation(str(row["prompt"])),
            **{s: {"role": "assistant", "content": f"{row['prefix']}{row[s]}"} for s in sides},
        }
        for row in rows
    ]
    write_json(out / "midcourse_dpo.json", given)
    columns = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
    info = {"file_name": "midcourse_dpo.json", "ranking": True, "formatting": "sharegpt"}
    write_json(
        out / "dataset_info.json",
        {"midcourse_dpo": {**info, "columns": columns, "tags": ROLE_TAGS}},
    )
    write_template(renderer, out)
    recipe = evidence.finished.run.recipe
    longest = max(_length(row, side) for row in rows for side in ("chosen_ids", "rejected_ids"))
    write_config(
        out / "dpo.yaml",
        {
            "stage": "dpo",
            "pref_beta": recipe.train_sft.dpo_beta,
            "model_name_or_path": evidence.model,
            "dataset": "midcourse_dpo",
            "template": TEMPLATE,
            "cutoff_len": longest + 1,
            **llama_factory_settings(recipe.train_sft, len(rows), recipe.seed),
        },
    )


def _length(row: dict[str, object], side: str) -> int:
    return sum(len(ids) for ids in (row["prompt_ids"], row[side]) if isinstance(ids, list))
