"""Devices by their data sheets, and the processes that train."""

from __future__ import annotations

import re
from dataclasses import dataclass

from midcourse.config import Recipe, single_engine
from midcourse.errors import ConfigError
from midcourse.recipes import find_accelerate


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator, e.g. an H100: 80 GB, 989 dense bfloat16 TFLOP/s, 3.35 TB/s."""

    name: str
    memory_bytes: float
    operations: float
    """Floating-point operations a second, dense, in the precision that is used."""
    bandwidth: float
    """Bytes a second from its memory."""
    is_gpu: bool = True

    @property
    def computed_bytes(self) -> int:
        """The bytes of one number in training."""
        return 2 if self.is_gpu else 4


#: Data sheets, by name.
DEVICES = {
    device.name: device
    for device in (
        Device("h200", 141e9, 989e12, 4.8e12),
        Device("h100", 80e9, 989e12, 3.35e12),
        Device("a100-80gb", 80e9, 312e12, 2.04e12),
        Device("a100-40gb", 40e9, 312e12, 1.56e12),
        Device("l40s", 48e9, 362e12, 0.86e12),
        Device("rtx-4090", 24e9, 165e12, 1.0e12),
        Device("cpu", 8e9, 5e10, 2e10, is_gpu=False),  # two ordinary cores
    )
}


def choose_device(name: str | None, recipe: Recipe) -> Device:
    """Return the named device; by default a CPU where the recipe says so, else an H100."""
    if name is None:
        on_cpu = single_engine(recipe.engine).on_cpu or recipe.model.path == "lab"
        name = "cpu" if on_cpu else "h100"
    if name not in DEVICES:
        raise ConfigError(f"--device {name!r}: known are {', '.join(DEVICES)}")
    return DEVICES[name]


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
