"""RL over servers of ours: they get the weights, tell log-probabilities, are caught if stale."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32

from midcourse.config import OpenAIConfig, TrainRlConfig, VllmConfig
from midcourse.engines.base import Request
from midcourse.engines.bundled import base_folder
from midcourse.engines.openai_engine import OpenAIEngine
from midcourse.engines.replies import read_logprobs
from midcourse.engines.streamed import StreamedReply
from midcourse.engines.vllm_engine import _OF_LAUNCHERS, VllmEngine
from midcourse.errors import ConfigError, MidcourseError
from midcourse.progress import Failures
from midcourse.records import Sampling
from midcourse.rendering import Renderer
from midcourse.training.common import Setting, load_model, load_tokenizer, lora_config
from midcourse.training.jobs import Log
from midcourse.training.rl.agreement import Agreement, AgreementAlarm
from midcourse.training.rl.live import LiveEngine
from midcourse.training.rl.run import _sampler, make_rl_trainer, train_rl
from midcourse.training.rl.samplers import EngineSampler
from midcourse.training.rl.servers import write_policy
from midcourse.training.rl.store import read_rl_rollouts
from test_training import PROBLEMS, RL, CoinGrader, setting
from tiny import random_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
BASE = str(base_folder())
PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
#: The lab's own rate of learning, and a temperature at which it errs.
LAB = RL.model_copy(update={"learning_rate": 5e-5, "num_iterations": 6})

Serve = Callable[[str], VllmConfig]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Return the settings of servers that are stand-ins with a model, misbehaving as told."""
    program = Path(__file__).parent / "model_server.py"
    path = tmp_path / "python-with-vllm"
    path.write_text(
        f'#!/bin/sh\ntest "$1" = -c && exec {sys.executable} "$@"\n'
        f'exec {sys.executable} {program} "$@"\n'
    )
    path.chmod(0o755)

    def start(misbehaviour: str) -> VllmConfig:
        monkeypatch.setenv("FAKE_VLLM", misbehaviour)
        return VllmConfig(server_python=str(path), concurrency=4)

    return start


def over(servers: VllmConfig, config: TrainRlConfig, **changes: Any) -> TrainRlConfig:
    return config.model_copy(update={"sampler": "servers", "servers": servers, **changes})


def ask(number: int, temperature: float = 1.5) -> Request:
    sampling = Sampling(temperature=temperature, max_tokens=8, **PLAIN)  # type: ignore[arg-type]
    return Request(
        request_id=str(number), prompt_token_ids=tuple(range(60, 90)), sampling=sampling,
        seed=number, group="p", logprobs=True,
    )  # fmt: skip


def logprobs(model: Any, request: Request, sampled: tuple[int, ...]) -> torch.Tensor:
    """What a trainer computes."""
    with torch.no_grad():
        logits = model(torch.tensor([[*request.prompt_token_ids, *sampled]])).logits[0]
    scaled = logits[len(request.prompt_token_ids) - 1 : -1] / request.sampling.temperature
    found: torch.Tensor = scaled.log_softmax(-1).gather(1, torch.tensor(sampled)[:, None])
    return found[:, 0]


# --- log-probabilities -------------------------------------------------------------------------


def reply(told: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": "ab", "token_ids": [97, 98], "logprobs": told}]}


def test_log_probabilities_are_read_or_refused() -> None:
    assert read_logprobs(reply({"token_logprobs": [-0.5, 0]}), 2) == (-0.5, 0.0)
    assert read_logprobs(reply(None), 0) == ()
    for told, said in (
        (None, "no log-probabilities"),
        ({"token_logprobs": [-0.5]}, "1 log-probabilities for 2 tokens"),
        ({"token_logprobs": [-0.5, None]}, "is none"),
        ({"token_logprobs": [-0.5, 0.7]}, "is none"),
        ({"token_logprobs": [-0.5, float("-inf")]}, "is none"),
    ):
        with pytest.raises(ValueError, match=said):
            read_logprobs(reply(told), 2)


def test_log_probabilities_that_come_in_pieces_are_joined() -> None:
    whole = StreamedReply()
    for text, ids, told in (("a", [97], [-1.0]), ("b", [98], [-2.0])):
        piece = {"index": 0, "text": text, "token_ids": ids, "logprobs": {"token_logprobs": told}}
        whole._add_piece(piece)
    whole._add_piece({"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"})
    assert read_logprobs({"choices": [whole.choice]}, 2) == (-1.0, -2.0)


def test_servers_that_do_not_say_what_they_tell_are_not_asked() -> None:
    config = OpenAIConfig(urls=("http://127.0.0.1:1",), served_model="m")
    mute, telling = OpenAIEngine(config), OpenAIEngine(config, tells_logprobs=True)
    told = reply({"token_logprobs": [-0.5, -0.25]})
    assert "logprobs" not in mute.body(ask(1), 8, streams=False)
    assert mute.parse(ask(1), told, 8).logprobs == ()
    assert telling.body(ask(1), 8, streams=False)["logprobs"] == 0
    assert telling.parse(ask(1), told, 8).logprobs == (-0.5, -0.25)
    assert "logprobs" not in telling.body(replace(ask(1), logprobs=False), 8, streams=False)


@pytest.mark.parametrize(
    "sampling", [{"top_p": 0.9, "temperature": 0.7}, {"repetition_penalty": 2}]
)
def test_sampling_that_vllm_tells_no_log_probabilities_of_is_refused(
    sampling: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match="switch these off in"):
        TrainRlConfig.model_validate({"sampler": "servers", "sampling": sampling})
    assert TrainRlConfig.model_validate({"sampling": sampling}), "other samplers can tell"


def test_servers_are_part_of_what_a_run_is_only_where_they_sample() -> None:
    cut = VllmConfig(max_context_tokens=99)
    assert TrainRlConfig(servers=cut).identity() == TrainRlConfig().identity() == {}
    found = TrainRlConfig(servers=cut, sampler="servers").identity()
    assert found == {"sampler": "servers", "servers": {"kind": "vllm", "max_context_tokens": 99}}


def test_a_server_takes_no_part_in_the_training_that_starts_it() -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "FSDP_X")
    assert all(_OF_LAUNCHERS.match(name) for name in names)
    assert not any(_OF_LAUNCHERS.match(name) for name in ("HOME", "CUDA_VISIBLE_DEVICES", "RANKS"))


# --- agreement ---------------------------------------------------------------------------------


def test_the_alarm_knows_what_is_usual() -> None:
    alarm = AgreementAlarm(0.1)

    def says(mean: float, *earlier: float) -> str:
        try:
            alarm.check(7, Agreement(mean=mean, largest=1.0, divergence=0.0), earlier)
        except MidcourseError as error:
            return str(error)
        return ""

    assert says(0.05) == "", "rounding of bfloat16"
    assert "more than train_rl.max_logprob_gap" in says(0.2)
    assert "more than train_rl.max_logprob_gap" in says(float("nan"))
    assert says(9e-4, 1e-7) == "", "rounding of float32"
    assert "iteration 7" in says(2e-3, 1e-7)
    assert "stale" in says(0.09, 0.01, 0.004, 0.005, 0.006)
    assert says(0.04, 0.01, 0.004, 0.005, 0.006) == ""
    # A sampler that drifts off does not become usual.
    assert "stale" in says(0.02, 1e-6, 0.01, 0.012, 0.014, 0.016)


def train(out: Path, config: TrainRlConfig, stale_from: int | None) -> list[float]:
    """Train in process; from an iteration on the sampler keeps the weights of that iteration."""
    out.mkdir(exist_ok=True)
    trainer = make_rl_trainer(config, PROBLEMS, setting(out), "rl:k", CoinGrader())
    collector = trainer.rollout_func
    live = collector.sampler
    stops = live.engine.stop_ids

    class GoesStale:
        inner = live

        def refresh(self, iteration: int) -> None:
            if iteration == stale_from:
                kept = load_model(BASE)
                kept.load_state_dict(trainer.accelerator.unwrap_model(trainer.model).state_dict())
                engine = LiveEngine(kept, renderer=collector.renderer, stop_ids=stops)
                self.inner = EngineSampler(engine=engine, failures=Failures)

        def sample(self, asks: Any) -> Any:
            return self.inner.sample(asks)

    collector.sampler = GoesStale()
    trainer.train()
    return [e["sampler/logprob_gap"] for e in trainer.state.log_history if "reward" in e]


@pytest.mark.slow
def test_a_sampler_that_is_never_refreshed_stops_the_training(tmp_path: Path) -> None:
    assert max(train(tmp_path / "right", LAB, stale_from=None)) < 1e-4
    with pytest.raises(MidcourseError, match=r"^iteration [1-4]: .*stale") as caught:
        train(tmp_path / "wrong", LAB, stale_from=0)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_alarm_remembers_across_a_resume(tmp_path: Path) -> None:
    first = LAB.model_copy(update={"num_iterations": 2})
    train(tmp_path / "rl", first, stale_from=None)
    # A sampler with other weights from its first iteration on: alone it would look usual.
    further = first.model_copy(update={"num_iterations": 4})
    trainer = make_rl_trainer(further, PROBLEMS, setting(tmp_path / "rl"), "rl:k", CoinGrader())
    collector = trainer.rollout_func
    base = LiveEngine(
        load_model(BASE), renderer=collector.renderer, stop_ids=collector.sampler.engine.stop_ids
    )
    collector.sampler = EngineSampler(engine=base, failures=Failures)
    with pytest.raises(MidcourseError, match=r"^iteration 2: .* times what it was before"):
        trainer.train(resume_from_checkpoint=True)


# --- mixed precision ---------------------------------------------------------------------------


def test_a_model_that_trains_in_mixed_precision_is_sampled_fast_as_it_computes() -> None:
    model: Any = load_model(BASE)
    renderer = Renderer(load_tokenizer(BASE))
    mixed = torch.autocast("cpu", torch.bfloat16)(model.forward.__func__)  # as accelerate does
    model.forward = MethodType(convert_outputs_to_fp32(mixed), model)
    context = tuple(renderer.encode("Mia has 12 nuts, then finds a score. How many nuts now?"))
    sampling = Sampling(
        temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=24
    )
    requests = [
        Request(
            request_id=str(n),
            prompt_token_ids=context,
            sampling=sampling,
            seed=n,
            group="",
            logprobs=True,
        )
        for n in range(4)
    ]
    with LiveEngine(model, renderer=renderer, stop_ids=()).session() as session:
        assert model.config._attn_implementation == "midcourse"
        session.submit(requests)
        found = list(session.completions())
    assert model.config._attn_implementation != "midcourse"
    gaps = []
    for completion in found:
        ids = torch.tensor([*context, *completion.token_ids])
        with torch.no_grad():
            logits = model(ids[None]).logits[0, len(context) - 1 : -1]
        own = logits.log_softmax(-1).gather(-1, ids[len(context) :, None])[:, 0]
        gaps.append((own - torch.tensor(completion.logprobs)).abs().mean().item())
    assert max(gaps) < 0.05, gaps


# --- weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 4])
def test_the_policy_is_written_whole_with_adapters_merged_and_is_not_changed(
    tmp_path: Path, rank: int
) -> None:
    from peft import get_peft_model
    from safetensors.torch import load_file

    torch.manual_seed(0)
    model: Any = load_model(BASE, torch.bfloat16 if rank else torch.float32)
    if rank:
        model = get_peft_model(model, lora_config(rank))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    write_policy(model, load_tokenizer(BASE), tmp_path / "policy", torch.float32)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    merged = copy.deepcopy(model).float().merge_and_unload() if rank else model
    merged.save_pretrained(tmp_path / "expected")
    ours = load_file(tmp_path / "policy" / "model.safetensors")
    theirs = load_file(tmp_path / "expected" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    assert load_tokenizer(str(tmp_path / "policy"))
    assert (tmp_path / "policy" / "config.json").is_file()


@pytest.fixture
def two_models(tmp_path: Path) -> list[Path]:
    """Two random models of one shape, whose embeddings are not tied."""
    folders = [tmp_path / name for name in ("one", "other")]
    model = random_model("qwen3", use_cache=True, head_dim=32)
    for folder in folders:
        model.save_pretrained(folder)
        load_tokenizer(BASE).save_pretrained(folder)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.1)
    return folders


def check_serving(engine: VllmEngine, folders: list[Path], atol: float) -> None:
    """Serve one folder after the other; what is told must be of its weights."""
    for folder in folders:
        engine.serve(str(folder))
        with engine.session() as session:
            session.submit([ask(n) for n in range(4)])
            done = {int(one.request_id): one for one in session.completions()}
        model = load_model(str(folder)).eval()
        for number, completion in done.items():
            expected = logprobs(model, ask(number), completion.token_ids)
            told = torch.tensor(completion.logprobs)
            assert torch.allclose(told, expected, atol=atol), folder.name
        assert not model.config.tie_word_embeddings


@pytest.mark.slow
@pytest.mark.parametrize("misbehaviour", ["", "no-reload"])
def test_servers_take_over_the_weights_or_start_again(
    two_models: list[Path], serve: Serve, misbehaviour: str
) -> None:
    renderer = Renderer(load_tokenizer(str(two_models[0])))
    engine = VllmEngine(serve(misbehaviour), "", renderer, tells_logprobs=True, reloads=True)
    try:
        check_serving(engine, two_models[:1], atol=1e-5)
        url = engine._servers[0].url
        assert engine.reloads == (not misbehaviour)
        if engine.reloads:
            check_serving(engine, two_models[1:], atol=1e-5)
            assert engine._servers[0].url == url, "it goes on, with other weights"
    finally:
        engine.close()


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("MIDCOURSE_VLLM_PYTHON"), reason="make test-vllm")
def test_vllm_itself_takes_over_the_weights(two_models: list[Path]) -> None:
    arguments = ("--dtype", "float32", "--enforce-eager", "--logprobs-mode", "processed_logprobs")
    config = VllmConfig(
        server_python=os.environ["MIDCOURSE_VLLM_PYTHON"],
        server_arguments=arguments, kv_cache_gib=1, max_context_tokens=200,
    )  # fmt: skip
    renderer = Renderer(load_tokenizer(str(two_models[0])))
    engine = VllmEngine(config, "", renderer, tells_logprobs=True, reloads=True)
    try:
        check_serving(engine, two_models, atol=1e-4)
        assert engine.reloads, "in place"
    finally:
        engine.close()


# --- RL ----------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.slow
def test_rl_over_servers_that_die_and_is_killed_draws_what_rl_in_process_draws(
    tmp_path: Path, serve: Serve, two_models: list[Path]
) -> None:
    sampling = RL.sampling.model_copy(update={"max_tokens": 16})
    here = RL.model_copy(update={"num_iterations": 2, "sampling": sampling})
    config = over(serve(f"leaves:{tmp_path / 'left'}"), here)

    def run(config: TrainRlConfig, out: Path, on_log: Log) -> None:
        out.mkdir(exist_ok=True)
        setting = Setting(str(two_models[0]), out, 0, on_log)
        train_rl(config, PROBLEMS, setting, "rl:k", CoinGrader())

    def rollouts(out: Path) -> list[tuple[Any, ...]]:
        return [(r.rollout_id, r.token_ids, r.seed) for r in read_rl_rollouts(out)]

    def die_after_the_first(entry: Mapping[str, float]) -> None:
        if entry["step"] == RL.num_updates * 2:
            raise Killed

    out, gaps = tmp_path / "rl", list[float]()
    with pytest.raises(Killed):
        run(config, out, die_after_the_first)
    assert (tmp_path / "left").exists(), "a server died"
    assert not (out / "served").exists()

    def note(entry: Mapping[str, float]) -> None:
        gaps.extend([entry["sampler/logprob_gap_max"]] if "reward" in entry else [])

    run(config, out, note)
    assert len(gaps) == 1, "the first iteration is not done again"
    assert max(gaps) < 1e-4
    run(here, tmp_path / "in-process", lambda _: None)
    assert rollouts(out) == rollouts(tmp_path / "in-process")
    assert not (out / "served").exists()


@pytest.mark.slow
def test_a_server_that_keeps_its_weights_stops_the_training(
    tmp_path: Path, serve: Serve, two_models: list[Path]
) -> None:
    config = over(serve(f"stale:{two_models[0]}"), RL)
    (tmp_path / "rl").mkdir()
    base = Setting(str(two_models[0]), tmp_path / "rl", 0, lambda _: None)
    with pytest.raises(MidcourseError, match=r"^iteration 1: .*has other weights") as caught:
        train_rl(config, PROBLEMS, base, "rl:k", CoinGrader())
    assert "\n" not in str(caught.value)


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("MIDCOURSE_VLLM_PYTHON"), reason="make test-vllm")
def test_rl_over_vllm_itself_agrees_with_the_trainer(tmp_path: Path) -> None:
    servers = VllmConfig(
        server_python=os.environ["MIDCOURSE_VLLM_PYTHON"],
        server_arguments=("--enforce-eager",), kv_cache_gib=1,
    )  # fmt: skip
    config, gaps = over(servers, LAB, num_iterations=2), list[float]()

    def note(entry: Mapping[str, float]) -> None:
        gaps.extend([entry["sampler/logprob_gap"]] if "reward" in entry else [])

    (tmp_path / "rl").mkdir()
    train_rl(config, PROBLEMS, setting(tmp_path / "rl", note), "rl:k", CoinGrader())
    (tmp_path / "gaps.txt").write_text(f"mean gap of each iteration, in nats: {gaps}\n")
    assert len(gaps) == 2
    assert max(gaps) < 1e-4


def test_a_model_that_is_sharded_is_not_sampled_in_process(tmp_path: Path) -> None:
    config = RL.model_copy(update={"accelerate": "accelerate/fsdp2"})
    trainer = make_rl_trainer(config, PROBLEMS, setting(tmp_path), "rl:k", CoinGrader())
    trainer.is_fsdp_enabled = True
    renderer = trainer.rollout_func.renderer
    with pytest.raises(ConfigError, match="accelerate/fsdp2 shards it: set"):
        _sampler(config, trainer, setting(tmp_path), renderer, 100)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 8])
def test_rl_in_bfloat16_on_a_cpu_samples_as_it_trains(tmp_path: Path, rank: int) -> None:
    config = LAB.model_copy(update={"num_iterations": 2, "dtype": "bfloat16", "lora_rank": rank})
    trainer = make_rl_trainer(config, PROBLEMS, setting(tmp_path), "rl:k", CoinGrader())
    weights = dict(trainer.model.named_parameters())
    assert {w.dtype for w in weights.values() if w.requires_grad} == {torch.float32}
    frozen = {w.dtype for w in weights.values() if not w.requires_grad}
    assert frozen == ({torch.bfloat16} if rank else set())
    entries: list[Mapping[str, float]] = []
    logged = setting(tmp_path / "rl", entries.append)
    train_rl(config, PROBLEMS, logged, "rl:k", CoinGrader())
    gaps = [entry["sampler/logprob_gap"] for entry in entries if "reward" in entry]
    assert len(gaps) == 2
    assert 1e-4 < max(gaps) < 0.02, gaps  # float32 differs by 1e-6; see the test of a stale sampler
    assert not torch.is_autocast_enabled("cpu")
