"""Runs stages on disk: what is there is kept, the rest is done, the manifest comes last.

A stage's directory is named by a key: the hash of the stage's own settings, the model it used and
the keys of its inputs. The same command therefore finds what it made before, and another setting
can never be mixed into it. One process writes to a run directory at a time.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from midcourse.config import Recipe
from midcourse.errors import ArtifactError, EngineError
from midcourse.progress import Failures, Reporter, Task
from midcourse.records import content_id
from midcourse.store import RunLock, StageStore, read_manifest, read_stage, write_json_atomic

R = TypeVar("R")

Produce = Callable[["StageStore[R]", Failures], Iterator[tuple[str, Sequence[R]]]]
"""Yields ``(key, records)`` for what the store does not hold yet."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One complete stage or checkpoint on disk, e.g. stage ``grade``, label ``train``."""

    stage: str
    label: str
    key: str
    path: Path

    @property
    def is_complete(self) -> bool:
        """Whether its manifest is there."""
        return (self.path / "manifest.json").is_file()

    @property
    def manifest(self) -> dict[str, Any]:
        """What made it: settings, inputs, counts, versions, times in UTC."""
        return read_manifest(self.path)

    def read(self, record_type: type[R], without: Collection[str] = ()) -> Iterator[R]:
        """Stream its records; fields named in `without` come back empty, at a fraction of the cost.

        Only fields that hold tuples may be named.
        """
        return read_stage(self.path, record_type, without)


@dataclass(frozen=True, slots=True)
class Sitting:
    """When work on an artifact began, by the clock and in processor time."""

    started: datetime
    cpu_seconds: float

    @classmethod
    def begin(cls) -> Sitting:
        """Begin now."""
        return cls(datetime.now(UTC), _cpu_seconds())

    def times(self) -> dict[str, object]:
        """Return what a manifest says: both ends in UTC, and processor seconds in between.

        Processor time is ours and that of training processes, which have ended by now. On a
        machine that is shared, it says what the work took; the clock also says who else worked.
        """
        return {
            "started": self.started.isoformat(timespec="milliseconds"),
            "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "cpu_seconds": round(_cpu_seconds() - self.cpu_seconds, 3),
        }


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


class Run:
    """One run directory, held for writing while the context is open.

    A run has one recipe. A *shared* one has many, told apart by name, none of which may change:
    what they have in common is made once, because artifacts are named by what made them. With
    `read_only`, which needs no context, a stage that is not complete is an error.
    """

    def __init__(
        self,
        directory: Path,
        recipe: Recipe,
        reporter: Reporter,
        *,
        shared: bool = False,
        read_only: bool = False,
    ) -> None:
        self.directory, self.recipe, self.reporter = directory, recipe, reporter
        self._shared, self._read_only = shared, read_only
        self._held = ExitStack()
        self._loading_seconds = 0.0

    def __enter__(self) -> Run:
        """Take the directory. Raises ArtifactError if it is taken or made by another recipe."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(RunLock(self.directory))
            self._check_recipe()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    @property
    def _recipe_path(self) -> Path:
        alone, together = self.directory / "config.resolved.json", self.directory / "recipes"
        return together / f"{self.recipe.name}.json" if self._shared else alone

    def _check_recipe(self) -> None:
        """Raise ArtifactError if work was done here with another recipe."""
        other = self.directory / ("config.resolved.json" if self._shared else "recipes")
        if other.exists():
            whose = "one recipe" if self._shared else "several recipes"
            raise ArtifactError(f"{self.directory} belongs to {whose}: use another --run-dir")
        if not self._recipe_path.is_file():
            return
        theirs = json.loads(self._recipe_path.read_text("utf-8"))
        differing = _differences(theirs, self.recipe.model_dump(mode="json"))
        if differing:
            place = self._recipe_path if self._shared else self.directory
            raise ArtifactError(
                f"{place} was made with another recipe ({'; '.join(differing[:5])}): "
                "use another --run-dir, or the recipe it was made with"
            )

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Time spent in here is told apart from the work of the stage under way."""
        started = monotonic()
        try:
            yield
        finally:
            self._loading_seconds += monotonic() - started

    def artifact(
        self, stage: str, label: str, settings: Mapping[str, object], inputs: Sequence[Artifact]
    ) -> Artifact:
        """Name the directory of a stage by its settings and inputs; nothing is written."""
        key = content_id(stage, settings, [artifact.key for artifact in inputs])[:10]
        return Artifact(stage, label, key, self.directory / stage / key)

    def records(
        self,
        artifact: Artifact,
        record_type: type[R],
        settings: Mapping[str, object],
        inputs: Sequence[Artifact],
        total: int | None,
        produce: Produce[R],
        outcome: Callable[[R], str],
    ) -> Artifact:
        """Complete a record stage: resume, journal each result as it comes, seal."""
        if self._read_only:
            if not artifact.is_complete:
                raise ArtifactError(
                    f"{self.directory}: {artifact.stage} {artifact.label} is not complete: "
                    "run it first"
                )
            return artifact
        # Written with the first work, so that a recipe refused before it leaves nothing behind.
        if not self._recipe_path.is_file():
            self._recipe_path.parent.mkdir(exist_ok=True)
            write_json_atomic(self._recipe_path, self.recipe.model_dump(mode="json"))
        with StageStore(artifact.path, record_type) as store:
            if store.is_complete:
                return artifact
            sitting, failures, self._loading_seconds = Sitting.begin(), Failures(), 0.0
            name = f"{artifact.stage} {artifact.label}".strip()
            counts = Counter(outcome(record) for record in store.read())
            resumed = {"num_resumed": counts.total()}
            with self.reporter.task(name, total, len(store.done)) as task:
                counts += self._fill(store, produce(store, failures), task, outcome)
            if failures.num_failed:
                raise EngineError(
                    f"{name}: {failures.num_failed} requests failed ({failures.first_error}); "
                    "everything else is kept: run the same command again"
                )
            header = self._header(artifact, settings, inputs, sitting, dict(sorted(counts.items())))
            store.seal(header | resumed | {"loading_seconds": round(self._loading_seconds, 3)})
        self._enter_in_index(artifact)
        return artifact

    def _fill(
        self,
        store: StageStore[R],
        results: Iterator[tuple[str, Sequence[R]]],
        task: Task,
        outcome: Callable[[R], str],
    ) -> Counter[str]:
        """Journal every result; return the outcomes that came."""
        seen: Counter[str] = Counter()
        for key, records in results:
            store.append(key, records)
            seen.update(outcome(record) for record in records)
            note = "  ".join(f"{name} {count:,}" for name, count in seen.most_common(3))
            task.advance(note=note)
        return seen

    def complete(
        self,
        artifact: Artifact,
        settings: Mapping[str, object],
        inputs: Sequence[Artifact],
        sitting: Sitting,
        summary: Mapping[str, object],
    ) -> None:
        """Write the manifest of a training that is done."""
        header = self._header(artifact, settings, inputs, sitting, summary)
        write_json_atomic(artifact.path / "manifest.json", header)
        self._enter_in_index(artifact)

    def _header(
        self,
        artifact: Artifact,
        settings: Mapping[str, object],
        inputs: Sequence[Artifact],
        sitting: Sitting,
        counts: Mapping[str, object],
    ) -> dict[str, Any]:
        """Return everything needed to make the artifact again."""
        return {
            "stage": artifact.stage,
            "label": artifact.label,
            "key": artifact.key,
            "settings": settings,
            "inputs": {f"{item.stage} {item.label}".strip(): item.key for item in inputs},
            "counts": counts,
            "seed": self.recipe.seed,
            "code_revision": code_revision(),
            "versions": package_versions(),
            "machine": f"{platform.system()} {platform.machine()}",
            **sitting.times(),
        }

    def _enter_in_index(self, artifact: Artifact) -> None:
        """Add the artifact to ``stages.json``, which names each key for people."""
        path = self.directory / "stages.json"
        index = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        folder = str(artifact.path.relative_to(self.directory))
        index[folder] = {"stage": artifact.stage, "label": artifact.label}
        write_json_atomic(path, index)


def _differences(theirs: object, ours: object, where: str = "") -> list[str]:
    """List ``key: then → now`` for every value that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            line
            for key in sorted(theirs.keys() | ours.keys())
            for line in _differences(theirs.get(key), ours.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if theirs == ours else [f"{where}: {theirs!r} → {ours!r}"]


def code_revision() -> str:
    """Return the git revision of the source tree, ``+changes`` if it is not clean.

    An installed package, which git does not track, gives its version.
    """
    here = Path(__file__).parent
    commands = (
        ["ls-files", "--error-unmatch", Path(__file__).name],
        ["rev-parse", "--short=12", "HEAD"],
        ["status", "--porcelain", "."],
    )
    try:
        _, revision, status = (
            subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return f"midcourse {version('midcourse')}"
    return revision + ("+changes" if status else "")


def package_versions() -> dict[str, str]:
    """Return the versions of what decides results."""
    versions = {"python": platform.python_version()}
    for name in ("midcourse", "math-verify", "torch", "transformers", "trl"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
