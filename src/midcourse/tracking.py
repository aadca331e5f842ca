"""Experiment trackers: TensorBoard, Weights & Biases, Trackio. Off by default.

Every number is in the run directory first, in manifests and ``metrics.jsonl``; a tracker is told
what was written there, by this process alone. One that fails later is left out with one line: it
never stops a run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from midcourse.config import Recipe
from midcourse.errors import ConfigError
from midcourse.progress import Reporter
from midcourse.records import content_id


class Tracker(Protocol):
    """Where numbers go, e.g. a W&B run."""

    def log(self, group: str, numbers: Mapping[str, float], step: int | None) -> None:
        """Take numbers of a group, such as ``train/patched``, at an optimiser step or at none."""

    def close(self) -> None:
        """Send what is not sent."""


Opener = Callable[[Recipe, Path], Tracker]


class Trackers:
    """All trackers of a recipe, opened with the first number."""

    def __init__(
        self,
        recipe: Recipe,
        directory: Path,
        reporter: Reporter,
        openers: Mapping[str, Opener] | None = None,
    ) -> None:
        self._recipe, self._directory, self._reporter = recipe, directory, reporter
        self._openers = OPENERS if openers is None else openers
        self._open: dict[str, Tracker] | None = None

    def check(self) -> None:
        """Raise ConfigError, before work starts, if a tracker is not installed."""
        for name in self._recipe.report_to:
            _imported(name)

    def stage(self, manifest: Mapping[str, Any]) -> None:
        """Pass on the counts, seconds and tokens of a stage that was just completed."""
        group = "/".join(part for part in (manifest["stage"], manifest["label"]) if part)
        self._log(group.replace(" ", "_"), numbers_of(manifest), None)

    def training(self, label: str, entry: Mapping[str, float]) -> None:
        """Pass on one entry of a training's ``metrics.jsonl``, with its optimiser step."""
        numbers = {name: value for name, value in entry.items() if name != "step"}
        self._log(label.replace(" ", "_"), numbers, int(entry["step"]))

    def close(self) -> None:
        """Close what is open."""
        for name in list(self._open or ()):
            self._attempt(name, lambda tracker: tracker.close())
        self._open = None

    def _log(self, group: str, numbers: Mapping[str, float], step: int | None) -> None:
        if self._open is None:
            self._open = {}
            for name in self._recipe.report_to:
                self._start(name, self._open)
        for opened in list(self._open):
            self._attempt(opened, lambda tracker: tracker.log(group, numbers, step))

    def _start(self, name: str, opened: dict[str, Tracker]) -> None:
        """Open a tracker; one that its user has to set up stops the run, once, with what to do."""
        try:
            opened[name] = self._openers[name](self._recipe, self._directory)
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001 - as below
            self._leave_out(name, error)

    def _attempt(self, name: str, act: Callable[[Tracker], None]) -> None:
        """Call a tracker; leave it out from its first failure on."""
        assert self._open is not None
        try:
            act(self._open[name])
        except Exception as error:  # noqa: BLE001 - of any kind: it is not what the run is about
            del self._open[name]
            self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        self._reporter.say(
            f"  report_to: {name} failed and is left out ({error}); "
            f"all numbers are in {self._directory}"
        )


def numbers_of(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a number of a manifest: counts, their shares, times, tokens by role."""
    counts = {k: v for k, v in manifest["counts"].items() if _is_number(v)}
    total = manifest.get("num_records")
    found = {f"count/{name}": float(count) for name, count in counts.items()}
    if total:
        found |= {f"share/{name}": count / total for name, count in counts.items()}
    found |= {k: float(v) for k, v in manifest.items() if k.endswith("_seconds")}
    for role, tokens in manifest.get("tokens", {}).items():
        found |= {f"tokens/{role}/{way}": float(count) for way, count in tokens.items()}
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(_MODULES[name])
    except ImportError as error:
        raise ConfigError(
            f"report_to: {name} cannot be imported ({error}): run  pip install {name}"
        ) from error


def _named(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """Return what W&B and Trackio call a run: its recipe, and a name that outlives a resume."""
    return {
        "project": recipe.report_project,
        "name": recipe.name,
        "id": content_id(str(directory.resolve()), recipe.name)[:10],
        "config": recipe.model_dump(mode="json"),
    }


class _TensorBoard:
    def __init__(self, recipe: Recipe, directory: Path) -> None:
        self._writer = _imported("tensorboard").SummaryWriter(directory / "tensorboard")

    def log(self, group: str, numbers: Mapping[str, float], step: int | None) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"{group}/{name}", value, step or 0)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, recipe: Recipe, directory: Path) -> None:
        self._wandb = _imported("wandb")
        named = _named(recipe, directory)
        try:
            self._run = self._wandb.init(
                **named,
                resume="allow",
                dir=str(directory),
                settings=self._wandb.Settings(console="off"),  # our progress is not for it
            )
        except self._wandb.Error as error:
            raise ConfigError(
                f"report_to: wandb does not start ({error}): log in, set WANDB_MODE=offline, or "
                "leave it out"
            ) from error
        self._groups = set[str]()

    def log(self, group: str, numbers: Mapping[str, float], step: int | None) -> None:
        if step is not None and group not in self._groups:
            self._groups.add(group)
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
        at = {} if step is None else {"step": float(step)}
        self._run.log({f"{group}/{name}": value for name, value in {**numbers, **at}.items()})

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, recipe: Recipe, directory: Path) -> None:
        named = _named(recipe, directory)
        named["name"] = f"{named['name']}-{named.pop('id')}"  # it has no ids: runs go by name
        self._run = _imported("trackio").init(**named, resume="allow")

    def log(self, group: str, numbers: Mapping[str, float], step: int | None) -> None:
        at = {} if step is None else {f"{group}/step": float(step)}
        self._run.log({**{f"{group}/{name}": value for name, value in numbers.items()}, **at})

    def close(self) -> None:
        self._run.finish()


_MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "trackio": "trackio"}
OPENERS: Mapping[str, Opener] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "trackio": _Trackio,
}
