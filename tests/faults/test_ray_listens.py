"""A Ray cluster of our own is nobody else's: it listens on loopback alone."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

#: Starts the engine, then prints where any process below this one listens: as the kernel writes
#: addresses, in hexadecimal, with IPv4 within IPv6.
PROGRAM = """
    import os
    from pathlib import Path

    from midcourse.config import ModelConfig, RayConfig, ScriptedConfig
    from midcourse.engines import open_engine

    def parent(process):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])

    def is_ours(process):
        number = int(process.name)
        while number > 1 and number != os.getpid():
            number = parent(Path(f"/proc/{number}"))
        return number == os.getpid()

    def sockets_of(process):
        return [os.readlink(handle) for handle in (process / "fd").iterdir() if handle.is_symlink()]

    inner = ScriptedConfig(script=SCRIPT)
    engine = open_engine(RayConfig(inner=inner, actor_cpus=0.5), ModelConfig(path="lab"), "lab")
    assert engine.capabilities.token_ids
    ours = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if is_ours(process):
                ours.update(sockets_of(process))
        except (OSError, ProcessLookupError):
            continue
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:
                print("listens", fields[1].partition(":")[0])
    engine.close()
"""
LOOPBACK = {
    "0100007F",  # 127.0.0.1
    "0000000000000000FFFF00000100007F",  # the same, within IPv6
    "00000000000000000000000001000000",  # ::1
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_private_cluster_listens_on_loopback_alone(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text("[]")
    program = textwrap.dedent(PROGRAM).replace("SCRIPT", repr(str(script)))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("listens")]
    assert len(found) >= 3
    assert set(found) <= LOOPBACK
