"""Devices by their data sheets, and the processes that train."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from midcourse.config import Recipe, Section, explain, single_engine
from midcourse.engines.bundled import BUNDLED
from midcourse.errors import ConfigError
from midcourse.recipes import find_accelerate

Dtype = Literal["bfloat16", "float32"]

_SHEETS = Path(__file__).with_name("devices.toml")


class Device(Section):
    """One accelerator, e.g. an H100: 80 GB, 3,350 GB/s, 989 dense bfloat16 TFLOP/s."""

    name: str
    memory_gb: float = Field(gt=0)
    """Gigabytes of 10⁹ bytes."""
    bandwidth_gb_per_second: float = Field(gt=0)
    """Of its memory."""
    tflops: dict[Dtype, Annotated[float, Field(gt=0)]] = Field(min_length=1)
    """10¹² floating-point operations a second, dense, by dtype; the slower one stands for another
    that is not named."""
    is_gpu: bool = True
    """Where ``dtype = "auto"`` is bfloat16: elsewhere it is float32."""

    @property
    def memory_bytes(self) -> float:
        """Bytes of its memory."""
        return self.memory_gb * 1e9

    @property
    def bandwidth(self) -> float:
        """Bytes a second from its memory."""
        return self.bandwidth_gb_per_second * 1e9

    def operations(self, dtype: Dtype) -> float:
        """Return the floating-point operations a second in `dtype`."""
        return self.tflops.get(dtype, min(self.tflops.values())) * 1e12


@cache
def data_sheets() -> dict[str, Device]:
    """Return the devices that are known, by name."""
    sheets = tomllib.loads(_SHEETS.read_text("utf-8"))
    return {name: Device(name=name, **sheet) for name, sheet in sheets.items()}


def choose_device(name: str | None, recipe: Recipe) -> Device:
    """Return the device of a name or of a data sheet's file.

    By default it is a CPU where the recipe says so, else an H100. Raises ConfigError.
    """
    if name is None:
        on_cpu = single_engine(recipe.engine).on_cpu or recipe.model.path in BUNDLED
        name = "cpu" if on_cpu else "h100"
    if name.endswith(".toml"):
        return _read_sheet(Path(name))
    if name not in data_sheets():
        known = ", ".join(data_sheets())
        raise ConfigError(f"--device {name!r}: known are {known}, or a data sheet's FILE.toml")
    return data_sheets()[name]


def _read_sheet(file: Path) -> Device:
    try:
        return Device.model_validate({"name": file.stem, **tomllib.loads(file.read_text("utf-8"))})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--device {file}: cannot read the data sheet: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"--device {file}: {explain(error, Device)}") from error


@dataclass(frozen=True, slots=True)
class TrainingProcesses:
    """What a config of ``accelerate launch`` says, e.g. 8 processes that shard the model."""

    number: int = 1
    sharded: bool = False

    @classmethod
    def of(cls, accelerate: str) -> TrainingProcesses:
        """Read a config; its two lines that matter are flat. Raises ConfigError if it is gone."""
        text = find_accelerate(accelerate).read_text("utf-8") if accelerate else ""
        found = dict(re.findall(r"^(\w+): *\"?(\w+)", text, re.MULTILINE))
        sharded = found.get("distributed_type") in {"FSDP", "DEEPSPEED"}
        return cls(int(found.get("num_processes", 1)), sharded)
