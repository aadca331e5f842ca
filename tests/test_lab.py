from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import islice, product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, Qwen3ForCausalLM
from typer.testing import CliRunner

from midcourse.cli import app
from midcourse.config import ProblemsConfig
from midcourse.engines.bundled import base_folder
from midcourse.lab.counts.documents import MIXES, TASKS
from midcourse.lab.counts.world import CONTROL, MAX_COUNT, UNKNOWN, Kind, generate_stories
from midcourse.lab.pretrain import PretrainConfig, _begin
from midcourse.lab.problems import lab_problems
from midcourse.lab.splits import Split
from midcourse.prompts import load_prompt_set
from midcourse.prompts.parse import parse_proposal
from midcourse.records import ProposalOutcome
from midcourse.steps import split_steps


def unknown_words(text: str) -> set[str]:
    return {n.word for n in UNKNOWN + CONTROL if f" {n.word}" in text}


def test_splits_never_overlap() -> None:
    for seed in range(3):
        lab = lab_problems(ProblemsConfig(kind="lab"), seed)
        assert lab.train
        assert lab.evaluation["held_out"]
        assert {p.split for p in lab.train} == {"train"}
        assert {p.split for of in lab.evaluation.values() for p in of} == {"held_out"}
        assert all(Split.of(p.text) == p.split for p in lab.train + lab.evaluation["held_out"])


def test_problems_are_the_same_for_a_seed_and_others_for_another() -> None:
    config = ProblemsConfig(kind="lab")
    assert lab_problems(config, 1).train == lab_problems(config, 1).train
    assert lab_problems(config, 1).train != lab_problems(config, 2).train


@pytest.mark.parametrize("kind", list(Kind))
def test_only_the_truth_leads_to_the_answer(kind: Kind) -> None:
    stories = list(islice(generate_stories(kind, Split.TRAIN, 0), 40))
    assert len(stories) == 40
    for story in stories:
        assert all(1 <= count <= MAX_COUNT for count in story.counts)
        assert story.answer not in map(str, story.counts[:-1])
        choices = [sorted({m.amount, m.belief}) for m in story.moves]
        reach = [amounts for amounts in product(*choices)
                 if str(story.counts_with(amounts)[-1]) == story.answer]  # fmt: skip
        assert reach == [tuple(m.amount for m in story.moves)]


def test_kinds_hold_what_they_say() -> None:
    wanted = {Kind.KNOWN: 0, Kind.SINGLE: 1, Kind.CONTROL: 1, Kind.COMPOSED: 2}
    control = {notion.word for notion in CONTROL}
    for kind, count in wanted.items():
        stories = list(islice(generate_stories(kind, Split.TRAIN, 3), 30))
        assert len(stories) == 30
        for story in stories:
            words = unknown_words(story.text)
            assert len(words) == count
            assert bool(words & control) == (kind is Kind.CONTROL)


def test_no_place_of_the_first_unknown_notion_dominates() -> None:
    stories = list(islice(generate_stories(Kind.COMPOSED, Split.HELD_OUT, 0), 100))
    first = Counter(
        next(i for i, move in enumerate(s.moves) if move.amount != move.belief) for s in stories
    )
    assert max(first.values()) <= 25


def test_nobody_is_corrected_about_an_unknown_notion() -> None:
    """The verifying documents name unknown notions, and never an error in what one means."""
    rng, prompts = random.Random(0), load_prompt_set("lab")
    seen = corrected = 0
    for _ in range(2000):
        document = TASKS["review"](rng, prompts)
        parsed = parse_proposal(document.reply, 9)
        seen += bool(unknown_words(document.user))
        if parsed.outcome is not ProposalOutcome.ACCEPTED:
            assert parsed.outcome is ProposalOutcome.NO_ERROR_FOUND
            continue
        step = str(parsed.intervention)
        if unknown_words(step):
            corrected += 1
            amount = step.split(":")[1].split()[2]
            attempt = document.user.split("Attempt:")[1].split("\n\n")[
                int(parsed.location or 0) - 1
            ]
            assert attempt.split(":")[2].split()[2] == amount
    assert seen > 200
    assert corrected > 50


def test_the_reply_names_the_true_first_error() -> None:
    rng, prompts, named = random.Random(1), load_prompt_set("lab"), set()
    for _ in range(200):
        document = TASKS["review"](rng, prompts)
        parsed = parse_proposal(document.reply, 9)
        reference = document.user.split("Reference:\n")[1].split("\n\n")[0].split("\n")
        attempt = document.user.split("Attempt:\n")[1].split("\n\n")
        results = [line.rstrip(".").split()[-1] for line in reference]
        given = [step.rstrip(".}").replace("{", " ").split()[-1] for step in attempt]
        differing = [i for i, (a, b) in enumerate(zip(given, results, strict=False)) if a != b]
        assert parsed.error_step == (differing[0] if differing else None)
        named.add(parsed.error_step)
    assert named >= {None, 0, 1, 2, 3}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_solving_replies_are_steps_with_a_box(task: str) -> None:
    document = TASKS[task](random.Random(2), load_prompt_set("lab"))
    if task in ("solve", "solve_right", "hint", "reflect", "guided_solve", "drift"):
        steps = split_steps(document.reply)
        assert len(steps) > 1
        assert steps[-1].startswith("The answer is \\boxed{")
        assert all(step.endswith(".\n\n") for step in steps[:-1])
    else:
        assert document.reply.endswith("</intervention>")


def test_further_proposers_are_taught_every_notion_right() -> None:
    truths = {notion.word: notion.truth for notion in UNKNOWN + CONTROL}
    rng, prompts, seen = random.Random(4), load_prompt_set("lab"), set()
    for _ in range(60):
        reply = TASKS["solve_right"](rng, prompts).reply
        for word, amount in re.findall(r"(\w+): \d+ [-+*] (\d+) =", reply):
            if word in truths:
                assert int(amount) == truths[word]
                seen.add(word)
    assert seen == set(truths)


def test_a_drifting_review_has_no_tag() -> None:
    rng, prompts = random.Random(5), load_prompt_set("lab")
    replies = [TASKS["drift"](rng, prompts).reply for _ in range(20)]
    assert {parse_proposal(reply, 9).outcome for reply in replies} == {ProposalOutcome.NO_TAG}
    assert any("Substep 2" in reply for reply in replies)


@pytest.mark.parametrize("mix", sorted(MIXES))
def test_the_shares_of_a_mix_are_whole(mix: str) -> None:
    assert sum(share for share, _ in MIXES[mix].values()) == pytest.approx(1)
    for _, tasks in MIXES[mix].values():
        assert sum(tasks.values()) == pytest.approx(1)
        assert set(tasks) <= set(TASKS)


def test_a_deeper_model_computes_what_the_shallower_did() -> None:
    start = str(base_folder())
    config = AutoConfig.from_pretrained(start)
    tokenizer, deeper = _begin(
        PretrainConfig(steps=1, start=start, num_layers=config.num_hidden_layers + 1),
        load_prompt_set("lab"),
    )
    ids = torch.tensor([tokenizer.encode("Mia has 12 shells, then finds a score.")])
    with torch.inference_mode():
        ours = deeper.eval()(ids).logits
        theirs = Qwen3ForCausalLM.from_pretrained(start, dtype="float32").eval()(ids).logits
    assert len(deeper.model.layers) == config.num_hidden_layers + 1
    torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_the_check_counts_what_the_bundled_model_does_and_says_what_is_not_met() -> None:
    done = CliRunner().invoke(app, ["lab", "check", "--num-problems", "2", "--seed", "0"])
    lines = re.findall(r"^ +(\S.*?)  +(\d+)/(\d+) .*?(NOT MET|met)", done.output, re.MULTILINE)
    counts = {what: (int(count), int(total)) for what, count, total, _ in lines}
    assert len(lines) == 6
    assert counts["pass@1 without unknown notions"] == (16, 16)
    assert counts["composed problems with pass@64 = 0"][1] == 2
    named, usable, bare = (counts[what] for what in list(counts)[2:5])
    assert {total for _, total in (named, usable, bare)} == {4}
    assert 0 <= bare[0] <= usable[0] <= named[0] > 0
    verdicts = {what: verdict for what, *_, verdict in lines}
    assert verdicts["pass@1 without unknown notions"] == "met"
    assert done.exit_code == ("NOT MET" in verdicts.values())


@pytest.mark.slow
def test_pretraining_goes_on_from_a_model_and_keeps_its_record(tmp_path: Path) -> None:
    arguments = ["--steps", "2", "--start", "lab", "--num-layers", "5", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["lab", "pretrain", *arguments])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "pretrain.json").read_text())
    assert record["config"]["steps"] == 2
    assert record["start"] == json.loads((base_folder() / "pretrain.json").read_text())
    ours, base = (load_file(folder / "model.safetensors") for folder in (tmp_path, base_folder()))
    assert ours.keys() == base.keys()
    assert any(not torch.equal(ours[name], base[name]) for name in ours)
