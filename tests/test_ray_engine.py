"""The Ray engine on a cluster of two local nodes, one of which is killed in mid-stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from midcourse.config import ModelConfig, RayConfig, ScriptedConfig
from midcourse.engines import open_engine
from midcourse.engines.ray_engine import RayEngine, _import_ray
from midcourse.errors import EngineError
from test_engines import WARM, ask

# Ray's own sockets and threads are not ours to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = _import_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def slow_script(tmp_path: Path) -> Path:
    path = tmp_path / "script.json"
    path.write_text('[[".", "one", "two", "three", "four"]]')
    return path


def engine(cluster: Any, script: Path, **changes: Any) -> RayEngine:
    settings = {"num_actors": 2, "timeout_seconds": 120} | changes
    inner = ScriptedConfig(script=str(script))
    config = RayConfig(inner=inner, address=cluster.address, **settings)
    opened = open_engine(config, ModelConfig(path="lab"), "lab")
    assert isinstance(opened, RayEngine)
    return opened


@pytest.mark.slow
def test_a_node_killed_in_mid_stage_loses_and_doubles_nothing(
    cluster: Any, slow_script: Path
) -> None:
    second = cluster.add_node(num_cpus=1)
    opened = engine(cluster, slow_script)
    try:
        requests = [ask(opened, n, WARM, prompt_token_ids=(65,) * 5) for n in range(2000)]
        done: list[str] = []
        with opened.session() as session:
            session.submit(requests)
            for completion in session.completions():
                done.append(completion.request_id)
                if len(done) == 200:
                    cluster.remove_node(second)
        assert sorted(done) == sorted(request.request_id for request in requests)
        assert opened.pool._num_started == 3  # the lost actor was replaced
    finally:
        opened.close()


@pytest.mark.slow
def test_replies_are_those_of_the_engine_inside(cluster: Any, slow_script: Path) -> None:
    opened = engine(cluster, slow_script, num_actors=1)
    try:
        with opened.session() as session:
            session.submit([ask(opened, n, WARM, prompt_token_ids=(65,)) for n in range(8)])
            session.cancel(["r3"])
            done = {c.request_id: c.text for c in session.completions()}
        assert done == {f"r{n}": ["one", "two", "three", "four"][n % 4] for n in range(8) if n != 3}
    finally:
        opened.close()


@pytest.mark.slow
def test_a_cluster_without_room_says_so(cluster: Any, slow_script: Path) -> None:
    opened = engine(cluster, slow_script, num_actors=1, actor_gpus=1.0)
    opened._config = opened._config.model_copy(update={"timeout_seconds": 3.0})
    with pytest.raises(EngineError, match="1 GPUs"):
        opened.session().__enter__()


@pytest.mark.slow
def test_what_an_actor_raises_is_ours_to_show(cluster: Any, tmp_path: Path) -> None:
    opened = engine(cluster, tmp_path / "no-such-script.json", num_actors=1)
    with pytest.raises(EngineError, match="no-such-script"):
        opened.session().__enter__()
    assert not _import_ray().is_initialized()
