"""Logs of inspect-ai, which ``inspect view`` opens: scored rollouts.

Written without inspect-ai, as the ``.eval`` files of its log format 2: a zip with a header, a
summary of each sample, and a file per sample. A sample is a problem, or in verification a proposal;
its epochs are the rollouts.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from midcourse.export.evidence import Case, Evidence, RolloutSet
from midcourse.export.handover import Part, conversation
from midcourse.records import FinishReason, Grade, Rollout, Verdict, content_id
from midcourse.rendering import Renderer
from midcourse.steps import whole_text
from midcourse.training.rl.advantages import reward_of

_LOG_VERSION = 2
_SCORER = "midcourse"
#: inspect's letters. What could not be graded is NaN, which its metrics leave out.
_VALUES = {Verdict.CORRECT: "C", Verdict.INCORRECT: "I", Verdict.NO_ANSWER: "N"}
_STOP_REASONS = {FinishReason.STOP: "stop", FinishReason.LENGTH: "max_tokens"}

Json = dict[str, Any]


def write(evidence: Evidence, out: Path) -> list[Part]:
    """Write one log per model and evaluation set, and per condition that was verified."""
    renderer = evidence.finished.renderer
    known = evidence.cases if evidence.has_proposals else []
    cases = {case.proposal.proposal_id: case for case in known}
    parts = list[Part]()
    for found in evidence.rollout_sets():
        name = f"{found.name}-{found.model}".replace(" ", "-").replace("+", "and")
        when = evidence.finished_at(found.drawn.grades).partition(".")[0].replace(":", "-")
        path = f"{when}_{name}_{_log_id(evidence, found)}.eval"
        number = _write_log(out / path, evidence, found, _samples(evidence, found, renderer, cases))
        parts.append(Part(path=path, what=f"{number} rollouts of {found.model}, {found.name}"))
    return parts


def _log_id(evidence: Evidence, found: RolloutSet) -> str:
    return content_id(evidence.name, found.name, found.model, found.drawn.grades.key)


def _samples(
    evidence: Evidence, found: RolloutSet, renderer: Renderer, cases: Mapping[str, Case]
) -> Iterator[Json]:
    for rollout, grade in evidence.graded(found.drawn):
        problem = found.problems[rollout.problem_id]
        name = rollout.parent_id or rollout.problem_id
        context = found.contexts.get(name)
        before = renderer.decode(context.response.all) if context else ""
        asked = conversation(found.users[name], *([before] if before else []))
        said = whole_text(rollout.text, rollout.given)
        reply = {"role": "assistant", "content": said, "source": "generate"}
        usage = {"input_tokens": rollout.prompt_tokens, "output_tokens": rollout.num_tokens}
        usage["total_tokens"] = sum(usage.values())
        reason = _STOP_REASONS.get(rollout.finish_reason, "unknown")
        choice = {"message": {**reply, "model": found.model}, "stop_reason": reason}
        yield {
            "id": name,
            "epoch": rollout.index + 1,
            "input": asked,
            "target": problem.answer,
            "messages": [*asked, reply],
            "output": {
                "model": found.model, "choices": [choice], "completion": said,
                "usage": usage,
            },
            "scores": {_SCORER: _score(grade)},
            "metadata": _metadata(rollout, grade, problem.source, cases.get(name)),
            "model_usage": {found.model: usage},
            "uuid": rollout.rollout_id,
        }  # fmt: skip


def _score(grade: Grade) -> Json:
    said = str(grade.verdict) + (f": {grade.cause}" if grade.cause else "")
    return {
        "value": _VALUES.get(grade.verdict, math.nan),
        "answer": grade.extracted_answer,
        "explanation": said + (" (out of tokens)" if grade.truncated else ""),
        "metadata": {"verdict": str(grade.verdict), "grader": grade.grader},
    }


def _metadata(rollout: Rollout, grade: Grade, source: str, case: Case | None) -> Json:
    known = {
        "problem_id": rollout.problem_id,
        "source": source,
        "condition": str(rollout.condition),
        "verdict": str(grade.verdict),
        "seed": rollout.seed,
    }
    if case is None:
        return known
    proposal = case.proposal
    verdicts = {str(c): {str(v): n for v, n in t.verdicts.items()} for c, t in case.tallies.items()}
    return known | {
        "proposal_id": proposal.proposal_id,
        "rollout_id": proposal.rollout_id,
        "location": proposal.location,
        "intervention": proposal.intervention,
        "is_verified": case.is_verified,
        "row": str(case.row) if case.row else None,
        "verdicts": verdicts,
    }


def _header(evidence: Evidence, found: RolloutSet, samples: Sequence[Json]) -> Json:
    run = evidence.finished.run
    manifest = run.artifact(found.drawn.rollouts).manifest
    name = _log_id(evidence, found)
    ids = list(dict.fromkeys(sample["id"] for sample in samples))
    created = evidence.finished_at(found.drawn.grades)
    sampled = evidence.finished_at(found.drawn.rollouts)
    epochs = max((sample["epoch"] for sample in samples), default=1)
    return {
        "version": _LOG_VERSION,
        "status": "success",
        "eval": {
            "eval_id": name,
            "run_id": content_id(evidence.name, run.recipe.seed),
            "created": created,
            "task": found.name,
            "task_id": name,
            "task_args": {"recipe": evidence.name, "seed": run.recipe.seed},
            "dataset": {"name": found.name, "samples": len(ids), "sample_ids": ids},
            "model": found.model,
            "config": {"epochs": epochs, "epochs_reducer": ["mean"]},
            "packages": {"midcourse": str(manifest["versions"].get("midcourse"))},
            "metadata": {"code_revision": manifest["code_revision"]},
            "scorers": [{"name": _SCORER}],
        },
        "plan": {"name": "midcourse", "steps": [{"solver": "generate"}]},
        "results": _results(samples, found),
        "stats": {"started_at": manifest["started"], "completed_at": max(created, sampled)},
    }


def _results(samples: Sequence[Json], found: RolloutSet) -> Json:
    """Return the mean over samples of the mean over epochs, and its standard error, as inspect's.

    None for a search, which stopped at correct rollouts.
    """
    values, num_scored = defaultdict[str, list[float]](list), 0
    for sample in samples:
        reward = reward_of(Verdict(sample["metadata"]["verdict"]))
        if reward is not None:
            values[sample["id"]].append(reward)
            num_scored += 1
    means, number = [statistics.fmean(one) for one in values.values()], len(samples)
    score = {"name": _SCORER, "scorer": _SCORER, "reducer": "mean", "scored_samples": num_scored}
    if means and found.has_rates:
        error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0
        metrics = {"accuracy": statistics.fmean(means), "stderr": error}
        score["metrics"] = {n: {"name": n, "value": value} for n, value in metrics.items()}
    scores = [{**score, "unscored_samples": number - num_scored}]
    return {"total_samples": number, "completed_samples": number, "scores": scores}


def _write_log(path: Path, evidence: Evidence, found: RolloutSet, samples: Iterator[Json]) -> int:
    """Write one log, sample by sample; return how many there are."""
    summaries = list[Json]()
    with ZipFile(path, "w", ZIP_DEFLATED) as log:
        for sample in samples:
            _add(log, f"samples/{sample['id']}_epoch_{sample['epoch']}.json", sample)
            summaries.append(_summary(sample))
        header = _header(evidence, found, summaries)
        start = {name: header[name] for name in ("version", "eval", "plan")}
        _add(log, "_journal/start.json", start)
        _add(log, "summaries.json", summaries)
        _add(log, "header.json", header)
    return len(summaries)


def _add(log: ZipFile, name: str, content: object) -> None:
    # A fixed time: the same run gives the same file.
    entry = ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = ZIP_DEFLATED
    log.writestr(entry, json.dumps(content, ensure_ascii=False))


def _summary(sample: Json) -> Json:
    names = ("id", "epoch", "input", "target", "scores", "metadata", "model_usage", "uuid")
    kept = {name: sample[name] for name in names}
    return {**kept, "completed": True, "message_count": len(sample["messages"])}
