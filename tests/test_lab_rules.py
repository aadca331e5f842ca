"""The lab's second world: verbs that act by rules in context."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise, product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from midcourse.config import ProblemsConfig
from midcourse.errors import ConfigError
from midcourse.lab.pretrain import PretrainConfig, pretrain
from midcourse.lab.problems import lab_problems
from midcourse.lab.rules.check import _bounded, check_rules, difference
from midcourse.lab.rules.documents import MIXES, TASKS, believe
from midcourse.lab.rules.style import BASE, DECISIONS, EQUALS, OPENINGS, TEACHERS, Decision, Style
from midcourse.lab.rules.world import (
    BY_VERB,
    CONTROL,
    HARD,
    KNOWN,
    MAX_COUNT,
    NUM_MOVES,
    RESERVED,
    RULES,
    STATUS,
    Familiarity,
    Kind,
    Move,
    State,
    Story,
    decide_right,
    generate_stories,
    read_action,
)
from midcourse.lab.splits import Split
from midcourse.lab.telling import final_step
from midcourse.lab.truth import first_error
from midcourse.metrics import Interval
from midcourse.prompts import load_prompt_set
from midcourse.prompts.parse import parse_proposal
from midcourse.records import ProposalOutcome
from midcourse.steps import split_steps

LAB = ProblemsConfig(
    kind="lab", world="rules", num_composed=6, num_single=4, num_soft=2, num_known=1,
    num_held_out=6, num_probe=3,
)  # fmt: skip


def stories(kind: Kind, count: int = 12, split: Split = Split.TRAIN) -> list[Story]:
    return list(islice(generate_stories(kind, split, 0), count))


def believed(story: Story) -> list[str]:
    """The steps of somebody who decides as the base is taught, soft rules aside."""
    actions = story.actions(
        lambda move, state: (
            decide_right(move, state)
            if move.rule.familiarity is Familiarity.KNOWN
            else Decision.PLAIN
        )
    )
    rng = random.Random(0)
    return [*(a.say(rng, BASE) for a in actions), final_step(actions[-1].result)]


def test_every_pair_of_context_and_effect_is_known_from_one_verb() -> None:
    assert len(RULES) == len(BY_VERB) >= 36
    assert set(Counter((rule.context, rule.effect) for rule in KNOWN).values()) == {1}
    assert {(rule.context, rule.effect) for rule in RULES} == {(r.context, r.effect) for r in KNOWN}
    assert {rule.gains for rule in HARD} == {True, False}


@pytest.mark.parametrize("kind", list(Kind))
def test_no_mix_of_wrong_decisions_leads_to_the_answer(kind: Kind) -> None:
    for story in stories(kind):
        slippery = [
            i for i, m in enumerate(story.moves) if m.rule.familiarity is not Familiarity.KNOWN
        ]
        right = 0
        for takes_effect in product((False, True), repeat=len(slippery)):
            state, has_erred = State(story.start), False
            chosen = dict(zip(slippery, takes_effect, strict=True))
            for place, move in enumerate(story.moves):
                decision = truth = decide_right(move, state)
                if place in chosen:
                    decision = move.rule.effect if chosen[place] else Decision.PLAIN
                has_erred |= decision is not truth
                state = move.act(state, decision).after
                assert 1 <= state.count <= MAX_COUNT
            assert (str(state.count) == story.answer) is not has_erred
            right += not has_erred
        assert right == 1


@pytest.mark.parametrize("kind", list(Kind))
def test_kinds_slip_where_they_say_and_the_base_goes_wrong_there_first(kind: Kind) -> None:
    wanted = {Kind.KNOWN: {0}, Kind.COMPOSED: {2, 3}, Kind.UNSEEN: {2}}.get(kind, {1})
    for story in stories(kind):
        assert len(story.moves) == NUM_MOVES
        assert len({move.rule.verb for move in story.moves}) == NUM_MOVES
        assert len(story.slips) in wanted
        verbs = {move.rule.verb for move in story.moves}
        assert any(pair <= verbs for pair in RESERVED) is (kind is Kind.UNSEEN)
        assert bool(verbs & {rule.verb for rule in CONTROL}) is (kind is Kind.CONTROL)
        assert first_error("\n\n".join(story.steps), story) is None
        error_step = first_error("\n\n".join(believed(story)), story)
        assert error_step == (story.slips[0] if story.slips else None)
        assert story.answer not in {str(action.at) for action in story.actions()}


def test_no_place_of_the_first_slip_dominates() -> None:
    for kind in (Kind.SINGLE, Kind.COMPOSED):
        first = Counter(story.slips[0] for story in stories(kind, 45, Split.HELD_OUT))
        assert len(first) >= NUM_MOVES - 3
        assert max(first.values()) <= 6


def test_hard_verbs_also_stand_where_they_are_plain() -> None:
    """So deciding by the verb alone is wrong: the context must be learnt."""
    plain = [
        move.rule.verb
        for story in stories(Kind.SINGLE, 30)
        for place, move in enumerate(story.moves)
        if move.rule in HARD and place not in story.slips
    ]
    assert len(plain) > 15


def test_sets_share_no_problem_and_unseen_pairs_are_nowhere_in_training() -> None:
    lab = lab_problems(LAB, 0)
    assert [len(lab.evaluation[name]) for name in ("held_out", "known", "control", "unseen")] == [
        6, 3, 3, 6,
    ]  # fmt: skip
    assert {p.source.rsplit("/")[-1] for p in lab.evaluation["held_out"]} == {"composed"}
    assert Counter(p.source.rsplit("/")[-1] for p in lab.train) == {
        "composed": 6, "single": 4, "soft": 2, "known": 1,
    }  # fmt: skip
    assert all(Split.of(p.text) is Split.TRAIN for p in lab.train)
    for problem in lab.train:
        assert not any(all(f" {verb} " in problem.text for verb in pair) for pair in RESERVED)
    assert lab_problems(LAB, 0).train == lab.train != lab_problems(LAB, 1).train


@pytest.mark.parametrize("style", [BASE, *TEACHERS], ids=[s.name for s in (BASE, *TEACHERS)])
def test_a_step_is_read_back_from_any_wording(style: Style) -> None:
    rng = random.Random(0)
    for story in stories(Kind.COMPOSED, 3):
        for place, action in enumerate(story.actions()):
            said = action.say(rng, style)
            assert read_action(said) == action
            assert story.is_step(place, said + "\n\n")
            assert not story.is_step(place + 1, said)


def test_what_is_not_a_right_step_is_told() -> None:
    story = stories(Kind.SINGLE, 1)[0]
    action = story.actions()[0]
    said = f"Then at {action.at} {action.verb} {action.amount} {action.status}, "
    assert story.is_step(0, action.say(random.Random(1), BASE))
    assert not story.is_step(0, said + "plain: 1 + 1 = 2.")
    assert read_action(said + "perhaps: 1 + 1 = 2.") is None
    assert read_action(story.reference.split("\n")[0]) is None


def test_styles_stand_at_growing_distances_and_a_step_has_many_wordings() -> None:
    distances = [BASE.cross_entropy(style) for style in (BASE, *TEACHERS)]
    assert distances == sorted(distances)
    assert 5 * distances[0] / 15 == pytest.approx(0.36, abs=0.05)  # nats per token of a step
    assert all(b - a > 0.3 for a, b in pairwise(distances))
    assert all(sum(style.weights) == pytest.approx(1) for style in (BASE, *TEACHERS))
    action = stories(Kind.KNOWN, 1)[0].actions()[0]
    assert len({action.say(random.Random(i), BASE) for i in range(100)}) > 20
    words = [*OPENINGS, *EQUALS, *(w for ws in DECISIONS.values() for w in ws)]
    assert len(words) == len(set(words))


def test_solving_documents_never_show_a_hard_rule_right() -> None:
    rng, prompts, shown = random.Random(0), load_prompt_set("lab"), Counter[tuple[str, bool]]()
    for _ in range(300):
        steps = split_steps(TASKS["solve"](rng, prompts).reply)[:-1]
        fell = False
        for step in steps:
            action = read_action(step)
            assert action is not None
            rule = BY_VERB[action.verb]
            if rule.holds(State(action.at, fell), action.amount):
                shown[rule.familiarity, action.decision is rule.effect] += 1
            else:
                assert action.decision is Decision.PLAIN
            fell = action.result < action.at
    assert shown[Familiarity.HARD, True] == shown[Familiarity.CONTROL, True] == 0
    assert shown[Familiarity.HARD, False] > 100
    assert shown[Familiarity.KNOWN, False] == 0
    soft = [shown[Familiarity.SOFT, right] for right in (True, False)]
    assert 0.04 < soft[0] / sum(soft) < 0.25


def test_reviews_name_the_first_difference_and_say_nothing_of_rules() -> None:
    rng, prompts = random.Random(1), load_prompt_set("lab")
    decided, named = Counter[tuple[bool, bool]](), set()
    for _ in range(300):
        document = TASKS["review"](rng, prompts)
        parsed = parse_proposal(document.reply, NUM_MOVES + 1)
        reference = document.user.split("Reference:\n")[1].split("\n\n")[0].split("\n")
        steps = document.user.split("Attempt:\n")[1].split("\n\nCompare")[0].split("\n\n")
        results = [line.rstrip(".").split()[-1] for line in reference]
        given = [step.rstrip(".}").replace("{", " ").split()[-1] for step in steps]
        differing = [i for i, (a, b) in enumerate(zip(given, results, strict=True)) if a != b]
        assert parsed.error_step == (differing[0] if differing else None)
        named.add(parsed.error_step)
        if parsed.outcome is ProposalOutcome.ACCEPTED:
            action = read_action(str(parsed.intervention))
            assert action is not None
            assert str(action.result) == results[differing[0]]
            rule = BY_VERB[action.verb]
            holds = rule.holds(State(action.at, action.status == "falling"), action.amount)
            assert action.status == STATUS[rule.context][not holds]
            decided[holds, action.decision is rule.effect] += 1
    assert named >= {None, *range(10)}
    shares = [
        decided[holds, True] / (decided[holds, True] + decided[holds, False])
        for holds in (True, False)
    ]
    assert shares[0] == pytest.approx(shares[1], abs=0.12)  # the context tells nothing


@pytest.mark.parametrize("mix", sorted(MIXES))
def test_the_shares_of_a_mix_are_whole(mix: str) -> None:
    assert sum(share for share, _ in MIXES[mix].values()) == pytest.approx(1)
    for _, tasks in MIXES[mix].values():
        assert sum(tasks.values()) == pytest.approx(1)
        assert set(tasks) <= set(TASKS)


def test_a_soft_rule_is_believed_at_times() -> None:
    soft = next(rule for rule in RULES if rule.familiarity is Familiarity.SOFT)
    states = [State(count, fell) for count in range(1, 99) for fell in (False, True)]
    holding = [state for state in states if soft.holds(state, 3)]
    decide = believe(random.Random(0))
    right = [decide(Move(soft, 3), state) is soft.effect for state in holding * 10]
    assert 0.06 < sum(right) / len(right) < 0.2


@pytest.mark.slow
def test_a_killed_pretraining_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    first = PretrainConfig(steps=1, world="rules", batch_tokens=300, hidden_size=64, num_layers=1)
    pretrain(first, tmp_path / "first", print)
    config = replace(
        first,
        steps=6,
        start=str(tmp_path / "first"),
        cooldown=0.5,
        log_every=3,
        seed=1,
        optimizer="muon",
        pool=4,
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pretrain(config, whole, print)

    def kill(line: str) -> None:
        if line.startswith("step"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        pretrain(config, killed, kill)
    with pytest.raises(ConfigError, match="other settings"):
        pretrain(replace(config, seed=2), killed, print)
    lines: list[str] = []
    pretrain(config, killed, lines.append)
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["6"]
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (killed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    records = [json.loads((folder / "pretrain.json").read_text()) for folder in (killed, whole)]
    assert records[0]["loss"] == records[1]["loss"]
    assert {file.name for file in killed.iterdir()} == {file.name for file in whole.iterdir()}

    tables, passed = check_rules(str(whole), num_problems=1, seed=0, far_k=1)
    assert not passed  # six steps teach nothing
    found = {row[0]: row for table in tables for row in table.rows}
    assert found["pass@1 without a slip"][-1] == "NOT MET"
    assert found["composed: problems solved in 1"][1] == "0/16"
    assert found["entropy of own rollouts at T = 1"][-1] == "NOT MET"
    assert "references − right traces in the style far" in found
    assert found["NLL of interventions alone (0)"][1] == "–"  # said, not left out
    assert found["own right rewrites − prefixes with exact interventions"][-1] == "cannot tell"


def test_the_check_has_three_answers() -> None:
    assert _bounded("", 99, 100, 0.9, is_least=True)[-1] == "met"
    assert _bounded("", 91, 100, 0.9, is_least=True)[-1] == "cannot tell"
    assert _bounded("", 10, 100, 0.9, is_least=True)[-1] == "NOT MET"
    assert _bounded("", 0, 16, 0.2, is_least=False)[-1] == "met"
    assert _bounded("", 0, 8, 0.2, is_least=False)[-1] == "cannot tell"
    gap = difference(Interval(1.0, 0.7, 1.3), Interval(0.6, 0.2, 1.0))
    assert (gap.low, gap.high) == pytest.approx((-0.1, 0.9))
