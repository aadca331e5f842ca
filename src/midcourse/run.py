"""Stages as values, and the run directory that completes them.

A `Stage` says what it is called, which records it makes, the settings it may see and the function
that makes the records. Its key hashes those settings, the stages among them included, so what the
function can read is what names the result: the same command finds what it made before, and another
setting can never be mixed into it. A `Training` is the same for a model.

A `Run` is one directory. What is there is kept, the rest is done, the manifest comes last. One
process writes to a run directory at a time.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache, cached_property, wraps
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from pathlib import Path
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from midcourse.config import KEYS_VERSION, Recipe, explain
from midcourse.engines import is_card
from midcourse.engines.metered import Meter
from midcourse.engines.served import Facts, differences
from midcourse.errors import ArtifactError, EngineError
from midcourse.processes import Interrupted, uninterrupted
from midcourse.progress import Failures, Reporter, Task
from midcourse.records import content_id
from midcourse.stages.filling import Filling
from midcourse.store.checksums import describe_files, sync_files
from midcourse.store.files import (
    make_folder,
    read_checked_json,
    write_checked_json,
    write_json_atomic,
)
from midcourse.store.index import IndexEntry, read_index, write_index
from midcourse.store.lock import RunLock
from midcourse.store.progress import read_progress, remove_progress
from midcourse.store.stage import (
    StageStore,
    missing_file,
    read_manifest,
    read_stage,
    write_manifest,
)
from midcourse.tokens import Asked, TokenCount

R = TypeVar("R")
S = TypeVar("S")

_LOG = logging.getLogger(__name__)
#: How often a server may show something else: busy ones round now and then to another token.
_SERVED_ATTEMPTS = 3
#: How a server says that it will never take a request; 408, 409, 425 and 429 may pass.
_REFUSAL = re.compile(r"^status 4(?!08|09|25|29)\d\d")

Keyed = tuple[str, Sequence[R]]
"""A key and its records: they are on disk whole or not at all."""


# --- stages ------------------------------------------------------------------------------------


class Reader(Protocol):
    """Where complete stages can be read."""

    def read(self, stage: Stage[R, Any], without: Collection[str] = ()) -> Iterator[R]:
        """Stream the records of a complete stage. Raises ArtifactError if it is not complete."""

    def path(self, step: Step) -> Path:
        """Return the folder of a stage or a training."""

    def num_records(self, stage: Stage[Any, Any]) -> int:
        """Return how many records a complete stage holds."""


@dataclass(frozen=True, slots=True)
class Work(Generic[R]):
    """What a stage's function is given in addition to its settings."""

    reader: Reader
    tools: Any
    """Engines and graders, opened on demand; they hold no settings of a stage."""
    done: Container[str]
    """The keys that are on disk."""
    kept: Callable[[], Iterator[R]]
    """Streams the records that are on disk."""
    failures: Failures


def unknown(settings: object, reader: Reader) -> int | None:
    """Give no total: the number of records is not known beforehand."""
    return None


def untold(record: object) -> TokenCount | None:
    """Give no count: a record does not say how many tokens it took."""
    return None


def _inputs(step: Step) -> tuple[Step, ...]:
    """The stages and trainings that it reads, each once."""
    return inputs_in(step.settings)


def _key(step: Step) -> str:
    """Ten hex digits that name the settings and the inputs."""
    return content_id(KEYS_VERSION, step.name, identity_of(step.settings))[:10]


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[R, S]):
    """One stage of the method, e.g. ``grade train``: rollouts in, one `Grade` each out."""

    name: str
    """Its folder in the run directory, and its verb."""
    label: str
    """Tells it from other stages of the same name, for people."""
    record: type[R]
    settings: S
    """All that `make` may see of the recipe, and the stages that it reads; hashed into the key."""
    make: Callable[[S, Work[R]], Iterator[Keyed[R]]]
    """Yields the records of every key that is not done."""
    outcome: Callable[[R], str]
    """What became of one record, for the counts."""
    total: Callable[[S, Reader], int | None] = unknown
    """How many keys there will be, once the inputs are complete."""
    summary: Callable[[S, Iterator[R]], Mapping[str, object]] | None = None
    """What the manifest says of all records together, given the settings."""
    check: Callable[[S, Any], None] | None = None
    """Given settings and tools, raises MidcourseError where it could not be made."""
    alarm: Callable[[Mapping[str, Any]], str] | None = None
    """Given the manifest, why the run must not go on; empty if it may."""
    asked: Asked | None = None
    """Who is asked, as whom its tokens are counted; none where nobody is."""
    usage: Callable[[R], TokenCount | None] = untold
    """The tokens that a record took, where it says so: what an earlier release made counts too."""
    remarks: Callable[[Mapping[str, Any]], Iterable[str]] | None = None
    """Given the manifest, what a user should know of it, a line each: the run goes on."""
    folder: str = ""
    """Where it lies if not under its name and key, because other recipes name the place."""

    inputs = cached_property(_inputs)
    key = cached_property(_key)


def stage(
    name: str,
    record: type[R],
    *,
    outcome: Callable[[R], str] = attrgetter("outcome"),
    total: Callable[[Any, Reader], int | None] = unknown,
    summary: Callable[[Any, Iterator[R]], Mapping[str, object]] | None = None,
    check: Callable[[Any, Any], None] | None = None,
    asked: Asked | None = None,
    usage: Callable[[R], TokenCount | None] = untold,
    remarks: Callable[[Mapping[str, Any]], Iterable[str]] | None = None,
) -> Callable[[Callable[[S, Work[R]], Iterator[Keyed[R]]]], Callable[[S, str], Stage[R, S]]]:
    """Make a stage of the function that makes its records.

    What takes the function's place runs nothing: given settings and a label, it returns the
    `Stage`, whose other fields are those that stand here.
    """

    def decorate(
        make: Callable[[S, Work[R]], Iterator[Keyed[R]]],
    ) -> Callable[[S, str], Stage[R, S]]:
        def compose(settings: S, label: str) -> Stage[R, S]:
            return Stage(
                name=name, label=label, record=record, settings=settings, make=make,
                outcome=outcome, total=total, summary=summary, check=check, asked=asked,
                usage=usage, remarks=remarks,
            )  # fmt: skip

        return wraps(make)(compose)

    return decorate


@dataclass(frozen=True, kw_only=True)
class Training(Generic[S]):
    """One model to be trained, e.g. ``checkpoints patched``: rows in, a model folder out."""

    label: str
    settings: S
    job: Callable[[S, Reader, str], Any]
    """Returns the job of `midcourse.training.jobs`, once the inputs are complete; given the key."""
    alone: bool = False
    """Whether it takes every device, so that no other training runs at the same time."""
    folder: str = ""
    name: str = "checkpoints"

    inputs = cached_property(_inputs)
    key = cached_property(_key)


Step = Stage[Any, Any] | Training[Any]


def in_order(asked: Iterable[tuple[Step, ...]]) -> list[Step]:
    """Return every step once, the inputs of a tuple first."""
    found: dict[tuple[str, str], Step] = {}

    def visit(steps: tuple[Step, ...]) -> None:
        for step in steps:
            if (step.name, step.key) not in found:
                visit(step.inputs)
        for step in steps:
            found.setdefault((step.name, step.key), step)

    for steps in asked:
        visit(steps)
    return list(found.values())


def trained_files(folder: Path) -> list[Path]:
    """Return what a training made, in its folder: models, and what it sampled and counted.

    Its checkpoints go, and its job and its logs may be tidied away: no result is read from them
    but the report's table of how sampler and trainer agree. A card is written again when more is
    known.
    """
    made = [path for path in folder.glob("*/**/*") if path.is_file() and not is_card(path)]
    return [p for p in made if not p.relative_to(folder).parts[0].startswith("checkpoint-")]


def identity_of(value: object) -> object:
    """Return what tells a setting from another one, as JSON holds it.

    A stage is its key. Fields of a dataclass at their default are left out, so that a field that a
    later release adds renames nothing. Raises TypeError for a value that has no identity.
    """
    if isinstance(value, Stage | Training):
        return value.key
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): identity_of(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [identity_of(item) for item in value]
    if hasattr(value, "identity"):
        return value.identity()
    if is_dataclass(value) and not isinstance(value, type):
        given = {f.name: getattr(value, f.name) for f in fields(value)}
        return {
            f.name: identity_of(given[f.name])
            for f in fields(value)
            if f.default is MISSING or given[f.name] != f.default
        }
    raise TypeError(f"a setting of type {type(value).__name__} has no identity")


def inputs_in(value: object) -> tuple[Step, ...]:
    """Return the stages and trainings within a setting, each once, in order."""
    found: dict[int, Step] = {}

    def walk(item: object) -> None:
        if isinstance(item, Stage | Training):
            found.setdefault(id(item), item)
        elif isinstance(item, Mapping):
            for nested in item.values():
                walk(nested)
        elif isinstance(item, tuple | list):
            for nested in item:
                walk(nested)
        elif is_dataclass(item) and not isinstance(item, type):
            for field in fields(item):
                walk(getattr(item, field.name))

    walk(value)
    return tuple(found.values())


# --- what is on disk ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Artifact:
    """One stage or training on disk, e.g. stage ``grade``, label ``train``."""

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


@dataclass(frozen=True, slots=True)
class WorkTimer:
    """When work on an artifact began, by the clock and in processor time."""

    started: datetime
    cpu_seconds: float

    @classmethod
    def begin(cls) -> WorkTimer:
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

    A run has one recipe. A *shared* one has many, told apart by name: what they have in common is
    made once, because artifacts are named by what made them. Reading needs no context.
    """

    def __init__(
        self, directory: Path, recipe: Recipe, reporter: Reporter, *, shared: bool = False
    ) -> None:
        self.directory, self.recipe, self.reporter = directory, recipe, reporter
        self._shared = shared
        self._held = ExitStack()
        self._loading_seconds = 0.0
        self._filling: Filling | None = None
        """The stage under way."""
        self._servers = dict[str, Callable[[], list[Facts]]]()
        """What tells, of each model that others serve in it, what answers."""

    def __enter__(self) -> Run:
        """Take the directory. Raises ArtifactError if it is taken or made by another recipe."""
        make_folder(self.directory)
        with ExitStack() as stack:
            stack.enter_context(RunLock(self.directory))
            self._check_recipe()
            self._clear()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    # Reading.

    def artifact(self, step: Step) -> Artifact:
        """Return where a step lies; nothing is written."""
        return Artifact(step.name, step.label, step.key, self.path(step))

    def path(self, step: Step) -> Path:
        """Return the folder of a stage or a training."""
        return self.directory / (step.folder or f"{step.name}/{step.key}")

    def read(self, stage: Stage[R, Any], without: Collection[str] = ()) -> Iterator[R]:
        """Stream the records of a complete stage.

        Fields named in `without` come back empty, at a fraction of the cost; they hold tuples.
        Raises ArtifactError if the stage is not complete.
        """
        self.require(stage)
        return read_stage(self.path(stage), stage.record, without)

    def num_records(self, stage: Stage[Any, Any]) -> int:
        """Return how many records a complete stage holds."""
        self.require(stage)
        return int(self.artifact(stage).manifest["num_records"])

    def is_complete(self, step: Step) -> bool:
        """Whether a step's manifest is there.

        Raises ArtifactError if it is that of another step, or if a file that it lists is gone.
        """
        artifact = self.artifact(step)
        if not artifact.is_complete:
            return False
        manifest = artifact.manifest
        if missing := missing_file(artifact.path, manifest):
            raise ArtifactError(missing)
        if manifest.get("key") != step.key:
            raise ArtifactError(
                f"{artifact.path} was made from other data, another model or other settings: "
                f"use another --run-dir, or delete {self.directory} to make it again"
            )
        return True

    def require(self, step: Step) -> None:
        """Raise ArtifactError unless a step is complete."""
        if not self.is_complete(step):
            raise ArtifactError(
                f"{self.directory}: {step.name} {step.label} is not complete: run it first"
            )

    # Writing.

    def announce(self, steps: Sequence[Step]) -> None:
        """Enter steps in ``stages.json``, which names every folder for people, in order."""
        before = read_index(self.directory)
        if before.problem:
            _LOG.warning("%s/stages.json %s: written again", self.directory, before.problem)
        entries = {
            str(self.path(step).relative_to(self.directory)): IndexEntry(step.name, step.label)
            for step in steps
        }
        if before.problem or not entries.items() <= before.entries.items():
            known = entries | before.entries if before.problem else before.entries
            write_index(self.directory, known | entries)

    @property
    def meter(self) -> Meter | None:
        """What counts the tokens of the stage under way; none between stages."""
        return self._filling.meter if self._filling else None

    @contextmanager
    def loading(self, name: str) -> Iterator[None]:
        """Time spent in here is told apart from the work of the stage under way."""
        started, filling = monotonic(), self._filling
        if filling:
            filling.doing = f"loading {name}"
        try:
            yield
        finally:
            self._loading_seconds += monotonic() - started
            if filling:
                filling.doing = ""

    def answered_by(self, model: str, served: Callable[[], list[Facts]]) -> None:
        """Note in the stage under way what serves a model, once; it is asked again at the end.

        Raises EngineError if something else under its name answered there before.
        """
        if self._filling is not None and model not in self._servers:
            self._servers[model] = served
            self._check_server(model, self._filling.folder / "served.json")

    def _check_server(self, model: str, path: Path) -> None:
        """Compare what serves a model with what is noted, or note it."""
        noted = _served_before(path)
        for _ in range(_SERVED_ATTEMPTS):
            now = self._servers[model]()
            changed = list(differences(noted.get(model, ()), now))
            if not changed:
                break
        else:
            raise EngineError(
                f"{model} is served otherwise than when {path.parent} was begun "
                f"({'; '.join(changed)}): have the same model served, or delete that folder, whose "
                f"records may be of both; if it is the same model, delete {path}"
            )
        if now and model not in noted:
            write_json_atomic(path, {**noted, model: now})

    def complete(self, stage: Stage[R, S], tools: Any) -> Artifact:
        """Complete a stage whose inputs are complete: resume, journal each result, seal.

        Raises EngineError if requests failed, or if the finished stage raises an alarm.
        """
        artifact = self.artifact(stage)
        is_complete = self.is_complete(stage)
        if not (is_complete and self._recipe_path.is_file()):
            self.claim()
        if not is_complete:
            with StageStore(artifact.path, stage.record) as store:
                self._fill(stage, store, tools)
            for remark in stage.remarks(artifact.manifest) if stage.remarks else ():
                self.reporter.say(f"  {stage.name} {stage.label}: {remark}")
        remove_progress(artifact.path)
        manifest = artifact.manifest
        complaint = stage.alarm(manifest) if stage.alarm else ""
        if complaint:
            raise EngineError(complaint)
        return artifact

    def _fill(self, stage: Stage[R, S], store: StageStore[R], tools: Any) -> None:
        """Do what is not done, then seal."""
        timer, self._loading_seconds = WorkTimer.begin(), 0.0
        failures = Failures(self.recipe.max_failed_share, len(store.done))
        name = f"{stage.name} {stage.label}".strip()
        filling = _begin(stage, store, stage.total(stage.settings, self))
        num_resumed = filling.counts.total()
        work = Work(reader=self, tools=tools, done=store.done, kept=store.read, failures=failures)
        with self._under_way(filling):
            with self.reporter.task(name, filling.total, filling.done, filling.words) as task:
                # Where there is nothing to ask about, nothing is loaded.
                results = iter(()) if filling.total == 0 else stage.make(stage.settings, work)
                _journal(name, stage, store, results, task, filling)
            self._settle(name, failures)
            for model in self._servers:
                self._check_server(model, self.path(stage) / "served.json")
        summary = stage.summary(stage.settings, store.read()) if stage.summary else {}
        store.seal(
            {
                **self._header(stage, timer, dict(sorted(filling.counts.items()))),
                **summary,
                **({} if filling.tokens is None else {"tokens": filling.tokens}),
                "num_resumed": num_resumed,
                "loading_seconds": round(self._loading_seconds, 3),
            }
        )

    @contextmanager
    def _under_way(self, filling: Filling) -> Iterator[None]:
        """Have this be the stage under way."""
        self._filling, self._servers = filling, {}
        try:
            with filling:
                yield
        finally:
            self._filling = None

    def _settle(self, name: str, failures: Failures) -> None:
        """Say which requests failed for good. Raises EngineError if that is too many."""
        said = failures.first_error
        if failures.num_failed:
            again = (
                "asking again will not help: change what is asked, or what engine.parameters sends"
                if _REFUSAL.search(said)
                else "run the same command again"
            )
            raise EngineError(
                f"{name}: {_requests(failures.num_failed)} failed ({said}); everything else is "
                f"kept: {again}, or count them as request_failed with a larger max_failed_share"
            )
        if failures.num_recorded:
            self.reporter.say(
                f"  {name}: {_requests(failures.num_recorded)} failed, kept as request_failed "
                f"({said})"
            )

    def finish(
        self,
        step: Step,
        timer: WorkTimer,
        summary: Mapping[str, object],
        tokens: Mapping[str, object] | None = None,
    ) -> None:
        """Write the manifest of a training that is done, once all that it lists is on disk.

        `tokens` says what it sampled and trained on, where that is known.
        """
        folder = self.path(step)
        sync_files(folder)
        header = self._header(step, timer, summary)
        files = describe_files(folder, trained_files(folder))
        write_manifest(folder, {**header, **(tokens or {}), "files": files})
        remove_progress(folder)

    def claim(self) -> None:
        """Write the resolved recipe, with the first work: a recipe refused before it leaves none.

        Tunable keys may have changed since: the recipe on disk is the latest.
        """
        make_folder(self._recipe_path.parent)
        write_checked_json(self._recipe_path, self.recipe.model_dump(mode="json"))

    def _clear(self) -> None:
        """Delete what a killed process left half written, where this can be written at all."""
        with suppress(OSError):
            for folder in (self.directory, self.directory / "recipes", self.directory / "report"):
                for leftover in folder.glob("*.tmp"):
                    leftover.unlink()

    @property
    def problems_path(self) -> Path:
        """The folder in which the recipe's problems are kept."""
        together = self.directory / "problems"
        return together / self.recipe.name if self._shared else together

    @property
    def _recipe_path(self) -> Path:
        alone, together = self.directory / "config.resolved.json", self.directory / "recipes"
        return together / f"{self.recipe.name}.json" if self._shared else alone

    def _check_recipe(self) -> None:
        """Raise ArtifactError if work was done here with another recipe.

        Keys that only make a run faster or put it elsewhere may differ, and keys that the
        directory's release did not have are at their defaults.
        """
        other = self.directory / ("config.resolved.json" if self._shared else "recipes")
        if other.exists():
            whose = "one recipe" if self._shared else "several recipes"
            raise ArtifactError(f"{self.directory} belongs to {whose}: use another --run-dir")
        if not self._recipe_path.is_file():
            return
        theirs = read_recipe(self._recipe_path)
        differing = _differences(
            theirs.identity(with_defaults=True), self.recipe.identity(with_defaults=True)
        )
        if differing:
            place = self._recipe_path if self._shared else self.directory
            raise ArtifactError(
                f"{place} was made with another recipe ({'; '.join(differing[:5])}): "
                "use another --run-dir, or the recipe it was made with"
            )
        if theirs.prices != self.recipe.prices:
            with suppress(ArtifactError):  # It may be read-only.
                self.claim()

    def _header(self, step: Step, timer: WorkTimer, counts: Mapping[str, object]) -> dict[str, Any]:
        """Return everything needed to make the artifact again."""
        return {
            "stage": step.name,
            "label": step.label,
            "key": step.key,
            "settings": identity_of(step.settings),
            "inputs": {f"{item.name} {item.label}".strip(): item.key for item in step.inputs},
            "counts": counts,
            "seed": self.recipe.seed,
            "code_revision": code_revision(),
            "versions": package_versions(),
            "machine": f"{platform.system()} {platform.machine()}",
            **timer.times(),
        }


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


def _begin(stage: Stage[R, Any], store: StageStore[R], total: int | None) -> Filling:
    """Return the stage under way, with what earlier sessions made and asked for."""
    counts, told, are_untold = Counter[str](), TokenCount(), False
    for record in store.read():
        counts[stage.outcome(record)] += 1
        if stage.asked:
            usage = stage.usage(record)
            told, are_untold = told + (usage or TokenCount()), are_untold or usage is None
    noted = read_progress(store.path)
    before: TokenCount | None = told
    if stage.asked and noted and noted.tokens is not None:
        before = TokenCount.of(noted.tokens.get(stage.asked, {})).at_least(told)
    elif are_untold:
        before = None
    return Filling(
        folder=store.path,
        asked=stage.asked,
        total=total,
        done=len(store.done),
        counts=counts,
        before=before,
    )


def _journal(
    name: str,
    stage: Stage[R, S],
    store: StageStore[R],
    results: Iterator[Keyed[R]],
    task: Task,
    filling: Filling,
) -> None:
    """Journal every result, and count it."""
    try:
        for key, records in results:
            with uninterrupted():
                store.append(key, records)
                filling.add(stage.outcome(record) for record in records)
            task.advance(tokens=filling.new_tokens())
    except Interrupted as interrupted:
        of = f" of {filling.total:,}" if filling.total else ""
        interrupted.add_note(f"{name}: {filling.done:,}{of} kept")
        raise


def _served_before(path: Path) -> dict[str, list[Facts]]:
    """Return what was noted of the servers of each model."""
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, list[Facts]]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ArtifactError(
            f"{path} cannot be read: delete it if the same models are served as before"
        ) from error


def read_recipe(path: Path) -> Recipe:
    """Return a resolved recipe as a run directory holds it. Raises ArtifactError in one line."""
    run_dir = path.parent.parent if path.parent.name == "recipes" else path.parent
    data = read_checked_json(path, f"run 'midcourse repair {run_dir}'")
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ArtifactError(
            f"{path} was written by a midcourse that is not compatible with this one "
            f"({explain(error, Recipe)}): use another --run-dir, or that midcourse"
        ) from error


def _differences(theirs: object, ours: object, where: str = "") -> list[str]:
    """List ``key: then → now`` for every value that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            line
            for key in sorted(theirs.keys() | ours.keys())
            for line in _differences(theirs.get(key), ours.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if theirs == ours else [f"{where}: {theirs!r} → {ours!r}"]


@cache
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
