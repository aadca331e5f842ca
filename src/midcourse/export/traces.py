"""``traces.jsonl`` of verifiers 0.4: one episode of one trace per rollout, with its ids and reward.

Read by ``verifiers.v1.utils.trace_store.read_episodes``, and by what is built on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from midcourse.export.evidence import Evidence, RolloutSet
from midcourse.export.files import write_jsonl
from midcourse.export.handover import Part, conversation
from midcourse.records import FinishReason, Grade, Rollout
from midcourse.rendering import Renderer
from midcourse.steps import whole_text
from midcourse.training.rl.advantages import reward_of

_FILE = "traces.jsonl"
#: The schema's version, and the release whose schema it is.
_VERSION, _RELEASE = 1, "0.4.0"


def write(evidence: Evidence, out: Path) -> list[Part]:
    """Write a folder per set of rollouts, each with a ``traces.jsonl``."""
    renderer, parts = evidence.finished.renderer, list[Part]()
    for found in evidence.rollout_sets():
        folder = out / f"{found.name} {found.model}".replace(" ", "-").replace("+", "and")
        folder.mkdir()
        at = datetime.fromisoformat(evidence.finished_at(found.drawn.grades)).timestamp()
        write_jsonl(folder / _FILE, _episodes(evidence, found, renderer, at))
        number = evidence.finished.run.num_records(found.drawn.rollouts)
        path = f"{folder.name}/{_FILE}"
        parts.append(Part(path=path, what=f"{number} rollouts of {found.model}, {found.name}"))
    return parts


def _episodes(
    evidence: Evidence, found: RolloutSet, renderer: Renderer, at: float
) -> Iterator[dict[str, object]]:
    for rollout, grade in evidence.graded(found.drawn):
        problem = found.problems[rollout.problem_id]
        user = found.users[rollout.parent_id or rollout.problem_id]
        data = {"id": problem.problem_id, "prompt": user, "answer": problem.answer}
        task = {"type": "ProblemTask", "data": {**data, "gold": asdict(problem.gold)}}
        ok = rollout.finish_reason.has_reply
        yield {
            "id": rollout.rollout_id,
            "env": {"id": "midcourse-problems", "name": found.name},
            "task": task,
            "group": {"id": rollout.parent_id or rollout.problem_id},
            "run": {"type": "eval", "id": evidence.name, "name": found.model},
            "ok": ok,
            "errors": [],
            "traces": [
                {
                    "version": _VERSION,
                    "id": rollout.rollout_id,
                    "verifiers": {"version": _RELEASE},
                    "task": task,
                    "agent": {"config": {"model": rollout.model}, "name": found.model},
                    **_graph(found, rollout, user, renderer, at),
                    **_outcome(rollout, grade),
                    "ok": ok,
                    "timing": {"start": at},
                }
            ],
        }


def _graph(
    found: RolloutSet, rollout: Rollout, user: str, renderer: Renderer, at: float
) -> dict[str, object]:
    """Return the message graph: the user's message, then what stands in the assistant's turn.

    The prompt's ids, with what opens the assistant's turn, are the user's; of the assistant's the
    sampled ones alone are trainable, not the prefix and intervention that they continue.
    """
    context = found.contexts.get(rollout.parent_id or "")
    prompt = context.prompt_ids if context else renderer.prompt_ids(conversation(user))
    before = tuple(context.response.all) if context else ()
    said = renderer.decode(before) + whole_text(rollout.text, rollout.given)
    asked, replied = conversation(user, said)
    mask = [False] * len(before) + rollout.sampled
    length = rollout.finish_reason is FinishReason.LENGTH
    return {
        "nodes": [
            {
                "message": asked, "timestamp": at,
                "token_ids": list(prompt), "mask": [False] * len(prompt),
            },
            {
                "parent": 0, "message": replied, "sampled": True, "timestamp": at,
                "token_ids": [*before, *rollout.token_ids], "mask": mask,
            },
        ],
        "calls": [
            {
                "node": 1,
                "model": rollout.model,
                "finish_reason": "length" if length else "stop",
                "usage": {
                    "prompt_tokens": rollout.prompt_tokens,
                    "completion_tokens": rollout.num_tokens,
                },
            }
        ],
    }  # fmt: skip


def _outcome(rollout: Rollout, grade: Grade) -> dict[str, object]:
    """Return what a trace says of its end; an answer that was not judged has no reward."""
    reward = reward_of(grade.verdict)
    return {
        "rewards": {"correct": None if reward is None else {"score": reward}},
        "metrics": {"truncated": float(grade.truncated)},
        "info": {
            "verdict": str(grade.verdict),
            "extracted_answer": grade.extracted_answer,
            "condition": str(rollout.condition),
            "proposal_id": rollout.parent_id,
            "index": rollout.index,
            "seed": rollout.seed,
            "grader": grade.grader,
        },
        "is_completed": rollout.finish_reason.has_reply,
        "stop_condition": "agent_completed",
    }
