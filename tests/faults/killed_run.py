"""Disturbs a tiny run at one place after another, and completes it each time.

``python killed_run.py FOLDER FIRST STRIDE HOW`` prints a JSON object for each disturbance: what the
command said, and how the directory differs from that of a run that was never disturbed. HOW is

- ``before``: killed before the n-th operation on files;
- ``torn``: killed in the n-th write, of which half arrives;
- ``full``: FOLDER is a file system of its own, with n KiB free for the run;
- ``limit``: no file may be longer than n hundred bytes.

Each run is a fork of this process, which holds no threads.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, setrlimit
from typing import Any

import pyarrow as pa

import midcourse.report.write
import midcourse.run
from conftest import scripted_recipe, write_problems, write_script
from midcourse.config import Recipe
from midcourse.errors import MidcourseError
from midcourse.pipeline import method, open_session
from midcourse.report.page import Drawing, Topic
from midcourse.report.write import is_reported, write_report
from midcourse.run import code_revision
from midcourse.store.files import make_folder, write_durably

#: What a manifest says of when and where, and of how often it was begun.
_TIMES = {
    "started", "finished", "cpu_seconds", "loading_seconds", "num_resumed", "tokens", "checksum"
}  # fmt: skip
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir"}


def write_inputs(folder: Path) -> None:
    """Write what the recipe of `complete` reads."""
    write_problems(folder)
    write_script(folder)
    held_out = {"id": "h", "problem": "What is 2 + 2, 7?", "answer": "4"}
    (folder / "held_out.jsonl").write_text(json.dumps(held_out) + "\n")


def complete(folder: Path, run_dir: Path) -> bool:
    """Do what ``midcourse run`` does; return whether there was something to do."""
    data = scripted_recipe(folder / "problems.jsonl", folder / "script.json")
    data["evaluate"] = {"models": ["base"], "num_rollouts": 4, "ks": [1, 2]}
    data["problems"]["held_out_path"] = str(folder / "held_out.jsonl")
    with open_session(Recipe.model_validate(data), run_dir) as session:
        made = method(session.setup)
        session.run.announce([step for steps in made.steps() for step in steps])
        if is_reported(run_dir):
            return False
        for steps in made.steps():
            session.complete(*steps)
        write_report(session, made)
    return True


def small_view(run_dir: Path, file: Path) -> None:
    """Half a megabyte of typesetting would be most of what a small run writes."""
    make_folder(file.parent)
    write_durably(file, b"<!doctype html>")


def quick_report() -> dict[str, object]:
    """Stand-ins for what of a report takes time, and for what says when it was made."""
    drawing = Drawing(topic=Topic.RL, name="reward", title="", caption="", svg="<svg/>")
    return {
        "draw_figures": lambda data: {"reward": drawing},
        "read_costs": lambda run_dir: [],
        "write_view": small_view,
    }


def do_once_what_takes_time() -> None:
    """Forks inherit it. Nothing is synced: a kill is no power cut."""
    pa.Table.from_pylist([{"x": 1}]).to_pylist()
    vars(midcourse.run)["package_versions"] = cache(midcourse.run.package_versions)
    vars(midcourse.report.write).update(quick_report())
    code_revision()
    vars(os)["fsync"] = lambda handle: None


def in_a_fork(job: Callable[[], object]) -> tuple[int, str]:
    """Run a job in a child; return its exit status and what went wrong in one line.

    The status is 1 for a line that is meant for a user, 3 for anything else.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            job()
        except MidcourseError as error:
            os.write(write, str(error).encode())
            os._exit(1)
        except BaseException as error:  # noqa: BLE001  # a child must not go on as its parent
            os.write(write, repr(error).encode())
            os._exit(3)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        line = said.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), line


class Killer:
    """Ends this process at the n-th operation on files."""

    def __init__(self, number: int, torn: bool) -> None:
        self.number, self.torn, self.seen = number, torn, 0

    def strikes(self) -> bool:
        self.seen += 1
        return self.seen == self.number

    def before(self) -> None:
        if not self.torn and self.strikes():
            os._exit(137)

    def write(self, write: Callable[[Any], int], data: Any) -> int:
        self.before()
        if self.torn and self.strikes():
            write(bytes(data)[: len(data) // 2])
            os._exit(137)
        return write(data)

    def install(self) -> None:
        """Watch every change of a file; there is no way back."""
        write_bytes, path_open = Path.write_bytes, Path.open

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            changes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
            if changes or event in _CHANGES:
                self.before()

        def audited_open(path: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
            if mode != "ab":
                return path_open(path, mode, *arguments, **keywords)
            return KilledFile(path, mode, self)

        def audited_write(path: Path, data: bytes) -> int:
            return self.write(lambda part: write_bytes(path, part), data)

        sys.addaudithook(audit)
        vars(os)["fsync"] = lambda handle: self.before()
        setattr(Path, "open", audited_open)  # noqa: B010
        setattr(Path, "write_bytes", audited_write)  # noqa: B010


class KilledFile(io.FileIO):
    """A journal whose writer may be killed."""

    def __init__(self, path: Path, mode: str, killer: Killer) -> None:
        super().__init__(path, mode)
        self.killer = killer

    def write(self, data: Any) -> int:
        return self.killer.write(super().write, data)


def content_of(run_dir: Path) -> dict[str, str]:
    """Return every file under a run directory by name, without times."""
    files = (path for path in run_dir.rglob("*") if path.is_file())
    return {str(path.relative_to(run_dir)): _digest(path) for path in files}


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.name in ("manifest.json", "tables.json"):
        data = {name: said for name, said in json.loads(content).items() if name not in _TIMES}
        content = json.dumps(data, sort_keys=True).encode()
    return sha256(content).hexdigest()


def differing(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return the files that are not as expected, missing or too many."""
    return sorted(n for n in expected.keys() | found if expected.get(n) != found.get(n))


def disturbed(folder: Path, run_dir: Path, number: int, how: str) -> tuple[int, str]:
    """Run once as HOW says."""
    if how == "full":
        room = os.statvfs(folder)
        kept = max(0, room.f_bavail * room.f_frsize - number * 1024)
        (folder / "ballast").write_bytes(bytes(kept))
        result = in_a_fork(lambda: complete(folder, run_dir))
        (folder / "ballast").unlink()
        return result

    def killed() -> None:
        if how == "limit":
            setrlimit(RLIMIT_FSIZE, (100 * number, RLIM_INFINITY))
            complete(folder, run_dir)
            return
        Killer(number, torn=how == "torn").install()
        complete(folder, run_dir)

    return in_a_fork(killed)


def main() -> None:
    folder, first, stride, how = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    write_inputs(folder)
    do_once_what_takes_time()
    run_dir = folder / "run"
    assert in_a_fork(lambda: complete(folder, run_dir)) == (0, "")
    expected, number, status = content_of(run_dir), first, 137
    while status != 0:
        for path in sorted(run_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        status, said = disturbed(folder, run_dir, number, how)
        is_locked = (run_dir / ".lock").exists()
        again = in_a_fork(lambda: complete(folder, run_dir))
        differs = differing(content_of(run_dir), expected)
        found = {"point": number, "status": status, "said": said, "is_locked": is_locked}
        sys.stdout.write(json.dumps({**found, "again": again, "differs": differs}) + "\n")
        number += stride


if __name__ == "__main__":
    main()
