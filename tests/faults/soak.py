"""Completes tiny runs one after another in this process, and says what each left behind.

``python soak.py FOLDER COUNT`` prints a JSON object after each run: resident memory in KiB, open
file handles, threads and children.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pyarrow as pa

from conftest import write_problems
from killed_run import complete
from midcourse.store.stage import read_manifest
from test_signals import children

#: Only a worker says whether these are the same.
REPLY = r"Two and two.\n\nSo it is more.\n\nThe answer is \boxed{\sin(x)^2 + \cos(x)^2 + %d}."


def write_inputs(folder: Path) -> None:
    """Write what the recipe of `complete` reads; its answers need real workers."""
    problems, held_out = write_problems(folder), folder / "held_out.jsonl"
    problems.write_text(problems.read_text().replace('"answer": "4"', '"answer": "y+y^2"'))
    row = {"id": "h", "problem": "What is 2 + 2, 7?", "answer": "y+y^2"}
    held_out.write_text(json.dumps(row) + "\n")
    fixed = r"The answer is \boxed{y(1+y)}."
    location = '{"content": "So 2 + 2 makes four.", "location": 2}'
    rules = [
        ["Compare and intervene", f"<intervention>{location}</intervention>"],
        [r"makes four\.\n\n$", fixed],
        [".", *(REPLY.replace(r"\n", "\n") % number for number in range(4))],
    ]
    (folder / "script.json").write_text(json.dumps(rules))


def left_behind() -> dict[str, int]:
    """Say what this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        "handles": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": sum(1 for _ in Path("/proc/self/task").iterdir()),
        "children": len(children(os.getpid())),
    }


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    write_inputs(folder)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    for _ in range(count):
        with redirect_stdout(StringIO()):  # reports are printed
            assert complete(folder, folder / "run")
        graded = [read_manifest(path) for path in (folder / "run" / "grade").iterdir()]
        assert any("correct" in manifest["counts"] for manifest in graded), "no worker worked"
        shutil.rmtree(folder / "run")
        sys.stdout.write(json.dumps(left_behind()) + "\n")


if __name__ == "__main__":
    main()
