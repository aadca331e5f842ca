"""What this machine has: versions, extras, devices, memory, disk. Loads no heavy library."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files, requires, version
from pathlib import Path

from midcourse.start.checks import Check, ok, problem, warning

#: What each extra is for, and the package that tells that it is there.
_EXTRAS = {
    "train": ("trl", "models in this process, SFT, GRPO, data sets of the Hub"),
    "report": ("matplotlib", "PNG figures of midcourse reproduce"),
    "watch": ("textual", "midcourse watch"),
    "ray": ("ray", "engines over a Ray cluster"),
    "reasoning-gym": ("reasoning-gym", "generated tasks"),
}
_SHOWN = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "math-verify")
_GIB = 2**30


def installed(name: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def machine_checks(*, needs_training: bool) -> Iterator[Check]:
    """Check versions, extras, devices and memory; without its libraries training is a problem."""
    yield ok("python", f"{platform.python_version()}, midcourse {installed('midcourse')}")
    there = [f"{name} {found}" for name in _SHOWN if (found := installed(name))]
    yield ok("packages", ", ".join(there))
    yield from _unmet()
    for extra, (package, purpose) in _EXTRAS.items():
        if installed(package) is None:
            is_needed = extra == "train" and needs_training
            fix = f"pip install 'midcourse[{extra}]'"
            fact = f"extra {extra} is not installed: {purpose}"
            yield problem("extra", fact, fix) if is_needed else warning("extra", fact, fix)
    yield _vllm()
    yield from _devices()


def _unmet() -> Iterator[Check]:
    """Yield what is installed in a version that midcourse does not take."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # it comes with the extras
        return
    for line in requires("midcourse") or ():
        wanted = Requirement(line)
        found = installed(wanted.name)
        if found is not None and not wanted.specifier.contains(found, prereleases=True):
            fix = f"pip install '{wanted.name}{wanted.specifier}'"
            yield problem("packages", f"{wanted.name} {found} is not {wanted.specifier}", fix)


def vllm_window() -> tuple[str, str] | None:
    """Return the first and last vLLM that the installed TRL can sample with in its own process."""
    names = files("trl") if installed("trl") else None
    module = next((f for f in names or () if f.as_posix() == "trl/import_utils.py"), None)
    text = module.read_text("utf-8") if module else ""
    found = re.search(r'Version\("([\d.]+)"\) <= \w*vllm\w* <= Version\("([\d.]+)"\)', text)
    return (found[1], found[2]) if found else None


def _vllm() -> Check:
    found, window = installed("vllm"), vllm_window()
    takes = f"TRL takes {window[0]} to {window[1]} for train_rl.sampler = 'vllm'" if window else ""
    if found is None:
        return ok("vllm", f"not here; engine.server_python may name an environment; {takes}")
    if window and not _numbers(window[0]) <= _numbers(found) <= _numbers(window[1]):
        return warning("vllm", f"{found}, but {takes}", "keep to train_rl.sampler = 'engine'")
    return ok("vllm", f"{found}; {takes}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _devices() -> Iterator[Check]:
    for name, total, free in gpus():
        yield ok("gpu", f"{name}, {total / 1024:.0f} GiB, {free / 1024:.0f} free")
    if not gpus():
        yield ok("gpu", "none: models run on the CPU, which is for small ones")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
        yield ok("cpu", f"{cores} cores, {memory:.0f} GiB of memory")
    except (ValueError, OSError, AttributeError):
        yield ok("cpu", f"{cores} cores")


def gpus() -> list[tuple[str, float, float]]:
    """Return name, memory and free memory in MiB of each NVIDIA GPU, as nvidia-smi says."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free"]
    try:
        said = subprocess.run(
            [*query, "--format=csv,noheader,nounits"],
            capture_output=True, text=True, check=True, timeout=20,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rsplit(",", 2) for line in said.splitlines() if line.count(",") >= 2]
    return [(name.strip(), _mib(total), _mib(free)) for name, total, free in rows]


def _mib(text: str) -> float:
    return float(text) if re.fullmatch(r"\s*[\d.]+\s*", text) else 0.0


def disk_check(directory: Path, needed_bytes: float | None) -> Check:
    """Compare what is free where a run will lie with what its plan wants."""
    place = next(p for p in (directory.resolve(), *directory.resolve().parents) if p.exists())
    free = shutil.disk_usage(place).free
    fact = f"{free / 1e9:.1f} GB are free at {place}"
    if needed_bytes is None:
        return ok("disk", fact)
    fact = f"{fact}; the run takes about {max(needed_bytes / 1e9, 0.1):.1f} GB"
    if free < needed_bytes:
        return problem("disk", fact, "make room, or give another --run-dir")
    return ok("disk", fact)
