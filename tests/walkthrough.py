"""Runs the commands of docs/tutorial.md in one shell, in order, and compares what they say.

``python tests/walkthrough.py`` runs them and writes their output into the page. A page marks a
block to be written as a file by ``<!-- file: NAME -->``, and what the commands before it say by
``<!-- output -->`` or ``<!-- output: from "FIRST" to "LAST" -->``: these words are in its lines.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from documented import ROOT

PAGE = ROOT / "docs" / "tutorial.md"
PORT = "8000"
_BLOCK = re.compile(r"(?:^<!-- ([^>]+) -->\n\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CUT = re.compile(r'output: from "([^"]+)" to "([^"]+)"')
_NEXT = "@@ next block"


@dataclass(frozen=True)
class Block:
    """A fenced block and the mark before it."""

    mark: str
    language: str
    text: str


def blocks() -> list[Block]:
    """Return the fenced blocks of the tutorial."""
    found = _BLOCK.finditer(PAGE.read_text("utf-8"))
    return [Block(mark=one[1] or "", language=one[2], text=one[3]) for one in found]


def run(folder: Path) -> list[str]:
    """Run the page in `folder`; return what it should say, one text for each ``output`` block."""
    for name in ("docs", "src"):
        (folder / name).symlink_to(ROOT / name)
    _write_program(folder / "bin" / "python", "")
    _write_program(folder / "bin" / "midcourse", "-m midcourse")
    port = _free_port()
    script = "\n".join(_script(port))
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    changes = {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"}
    environment = {**os.environ, **changes}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    said = done.stdout.replace(f":{port}", f":{PORT}").replace(str(folder), "/home/me")
    return _outputs(said.split(f"{_NEXT}\n")[1:])


def masked(text: str) -> list[str]:
    """Return the words, sorted, without figures: another machine rounds and wraps otherwise.

    It may also be faster, so that 1 min 5 s are 59 s, 9,800/s is 12.0 k/s, and 9,800 tokens a
    second are 12.0 k, which a narrow column breaks before its k.
    """
    words = re.sub(r"[0-9a-f]{10,}|\d[\d,.]*", "#", re.sub("─+", "─", text))
    words = re.sub(r"# (?:h|min) # (?:min|s)", "# s", words)
    words = re.sub(r"# [kMG]\b", "#", words)
    return sorted(word for word in words.split() if word not in ("k", "kB", "MB", "B"))


def _write_program(file: Path, arguments: str) -> None:
    """Write a program that becomes this Python, so that a signal to it ends what it runs."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
    file.chmod(0o755)


def _script(port: str) -> list[str]:
    """Return one shell script: files are written, commands run, Python is run as a program."""
    lines = [
        "set -e -o pipefail",
        "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT",
    ]
    for block in blocks():
        text = block.text.replace(PORT, port)
        if block.mark.startswith("file: "):
            lines += [f"cat > {block.mark.removeprefix('file: ')} <<'END'", f"{text}END"]
        elif block.language == "sh":
            commands = text.replace("\\\n", " ").splitlines()
            lines += [f"echo '{_NEXT}'", *commands]
        elif block.language == "python":
            lines += ["python - > python.txt <<'END'", f"{text}END"]
    return lines


def _outputs(said: list[str]) -> list[str]:
    """Return what stands in each ``output`` block, given what each ``sh`` block said."""
    outputs, before = [], -1
    for block in blocks():
        if block.language == "sh":
            before += 1
        elif block.mark.startswith("output"):
            outputs.append(_part(said[before], block.mark))
    return outputs


def _part(said: str, mark: str) -> str:
    """Return the lines that a mark asks for."""
    lines = [line.rstrip() for line in said.splitlines()]
    if cut := _CUT.fullmatch(mark):
        first = next(at for at, line in enumerate(lines) if cut[1] in line)
        last = next(at for at, line in enumerate(lines) if at >= first and cut[2] in line)
        lines = lines[first : last + 1]
    return "\n".join(line for line in lines if line)


def _free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def main() -> None:
    """Write the page's outputs."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = iter(run(Path(folder)))

    def fill(found: re.Match[str]) -> str:
        if not (found[1] or "").startswith("output"):
            return found[0]
        return f"<!-- {found[1]} -->\n\n```{found[2]}\n{next(outputs)}\n```"

    PAGE.write_text(_BLOCK.sub(fill, PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
