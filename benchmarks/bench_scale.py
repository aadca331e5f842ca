"""What our own code costs, without a model: ``make bench-scale``.

The scripted engine answers at once, so time and memory are ours: problems × 8 rollouts of 2,000
characters, 5 % of the problems hard, one proposal per incorrect rollout, through sample → grade →
select → propose → verify → build-sft; then a kill, and how long it takes to know what is there.
Each size runs in a process of its own, whose peak memory the system reports. Seconds are those of
the processor, which a busy machine does not stretch; resuming is by the clock too.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from midcourse.config import Recipe
from midcourse.pipeline import method, open_session
from midcourse.progress import SilentProgress
from midcourse.records import Rollout
from midcourse.run import Step, code_revision
from midcourse.store.stage import StageStore

NUM_ROLLOUTS, NUM_CHARS = 8, 2000
FILLER = "Then we add two and two and look at what comes of it, as one does. "
PROPOSAL = '<intervention>{"content": "So 2 + 2 makes four.", "location": 2}</intervention>'


def main() -> None:
    """Run every size in a child process; print and write a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1_000, 10_000])
    parser.add_argument("--json", type=Path, default=Path("benchmarks/scale.json"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_measure(arguments.sizes[0], arguments.child)))
        return
    results = []
    for size in arguments.sizes:
        folder = Path("runs") / f"scale-{size}"
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, __file__, str(size), "--child", str(folder)]
        reply = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results.append(json.loads(reply.splitlines()[-1]))
        print(json.dumps(results[-1]), flush=True)
        shutil.rmtree(folder)
    content = {"code": code_revision(), "results": results}
    arguments.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _measure(size: int, folder: Path) -> dict[str, object]:
    folder.mkdir(parents=True)
    recipe = _recipe(size, folder)
    seconds: dict[str, float] = {}
    peaks: dict[str, int] = {"start": _peak_mib()}
    with open_session(recipe, folder / "run", SilentProgress()) as session:
        made = method(session.setup)
        stages: dict[str, list[Step]] = {
            "sample+grade": [made.train.rollouts, made.train.grades],
            "select": [made.statuses],
            "propose": [made.proposals],
            "verify": [drawn.grades for drawn in made.interventions.verified.values()],
            "build-sft": [made.models.rows],
        }
        for name, steps in stages.items():
            started = time.process_time()
            session.complete(*steps)
            seconds[name] = round(time.process_time() - started, 2)
            peaks[name] = _peak_mib()
        counts = {
            "rollouts": session.num_records(made.train.rollouts),
            "proposals": session.num_records(made.proposals),
            "rows": session.num_records(made.models.rows),
        }
        sampled = session.path(made.train.rollouts)
    (sampled / "manifest.json").unlink()  # as a kill before the last step leaves it
    started = time.perf_counter()
    with StageStore(sampled, Rollout) as store:
        assert len(store.done) == counts["rollouts"]
    return {
        "problems": size,
        "records": counts,
        "seconds": seconds,
        "ms_per_rollout": round(1000 * seconds["sample+grade"] / counts["rollouts"], 3),
        "ms_per_proposal": round(
            1000
            * (seconds["propose"] + seconds["verify"] + seconds["build-sft"])
            / counts["proposals"],
            3,
        ),
        "peak_mib": peaks,
        "resume_seconds": round(time.perf_counter() - started, 2),
    }


def _recipe(size: int, folder: Path) -> Recipe:
    """Write problems and a script; 1 in 20 problems says a word that the script gets wrong."""
    with (folder / "problems.jsonl").open("w") as file:
        for number in range(size):
            kind = "hard" if number % 20 == 0 else "easy"
            text = f"A {kind} problem, number {number}: what is 2 + 2? " + "Mind the details. " * 8
            row = {"id": f"p{number}", "problem": text, "answer": "4", "reference_solution": "4."}
            file.write(json.dumps(row) + "\n")
    body = (FILLER * (NUM_CHARS // len(FILLER) // 2)).strip()
    wrong = [f"{body}\n\nSo 2 + 2 = 5.\n\n{body} {n}\n\n\\boxed{{5}}" for n in range(5)]
    right = f"{body}\n\nSo 2 + 2 = 4.\n\n{body}\n\n\\boxed{{4}}"
    rules = [
        ["Compare and intervene", PROPOSAL],
        [r"makes four\.\n\n$", "The answer is \\boxed{4}."],
        ["A hard problem", *wrong],
        [".", right, right, wrong[0]],
    ]
    (folder / "script.json").write_text(json.dumps(rules))
    return Recipe.model_validate(
        {
            "name": "scale",
            "prompts": "lab",
            "model": {"path": "lab"},
            "problems": {"path": str(folder / "problems.jsonl")},
            "engine": {"kind": "scripted", "script": str(folder / "script.json")},
            "sample": {"num_rollouts": NUM_ROLLOUTS},
            "propose": {"turns": "single", "num_rollouts": NUM_ROLLOUTS, "num_proposals": 1},
            "verify": {"num_continuations": 4},
            "build_sft": {"rows_per_problem": "all"},
        }
    )


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
