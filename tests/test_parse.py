from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midcourse.prompts.parse import parse_proposal, parse_proposals
from midcourse.records import ProposalOutcome as Outcome


def tag(block: str) -> str:
    return f"log <intervention>{block}</intervention>"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"Use \frac{1}{2} and \beta.", r"Use \frac{1}{2} and \beta."),
        (r"x \neq 2, \nu, \nabla f", r"x \neq 2, \nu, \nabla f"),
        (r"First.\nThen \times", "First.\nThen \\times"),
        (r"a\nb", "a\nb"),
        (r"\\frac and \\\\", r"\frac and \\"),
        (r"say \"hi\" \/ done", 'say "hi" / done'),
        (r"\right) \rho \rangle", r"\right) \rho \rangle"),
        (r"\uparrow \u0041", r"\uparrow A"),
        (r"\binom{n}{k} \boxed{x}", r"\binom{n}{k} \boxed{x}"),
        (r"\alpha \{ \} \, \%", r"\alpha \{ \} \, \%"),
        ("raw\nnewline", "raw\nnewline"),
        ('he said "so" to x', 'he said "so" to x'),
    ],
)
def test_content_is_byte_exact(written: str, meant: str) -> None:
    for block in (
        f'{{"content": "{written}", "location": 3}}',
        f'{{"location": 3, "content": "{written}"}}',
    ):
        parsed = parse_proposal(tag(block), 5)
        assert (parsed.outcome, parsed.intervention) == (Outcome.ACCEPTED, meant)
        assert (parsed.location, parsed.error_step) == (3, 2)


@pytest.mark.parametrize(
    "location", ["14", '"14"', '"Substep 14"', "Substep 14", "14.", '"14-16"', "14–16"]
)
def test_location_is_read_in_every_form(location: str) -> None:
    parsed = parse_proposal(tag(f'{{"content": "x", "location": {location}}}'), 20)
    assert (parsed.outcome, parsed.location) == (Outcome.ACCEPTED, 14)


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        ("no tag at all", Outcome.NO_TAG),
        ('<intervention>{"content": "x", "location": 1}', Outcome.NO_TAG),
        (tag("gibberish"), Outcome.MALFORMED),
        (tag('{"content": "x"}'), Outcome.MALFORMED),
        (tag('{"location": 1}'), Outcome.MALFORMED),
        (tag('{"content": "", "location": 2}'), Outcome.EMPTY),
        (tag(""), Outcome.NO_ERROR_FOUND),
        (tag("[]"), Outcome.NO_ERROR_FOUND),
        (tag('{"content": "", "location": 0}'), Outcome.NO_ERROR_FOUND),
        (tag('{"content": "x", "location": 0}'), Outcome.LOCATION_OUT_OF_RANGE),
        (tag('{"content": "x", "location": -1}'), Outcome.LOCATION_OUT_OF_RANGE),
        (tag('{"content": "x", "location": 6}'), Outcome.LOCATION_OUT_OF_RANGE),
        (tag('{"content": "a\tb", "location": 1}'), Outcome.CONTROL_CHARACTER),
        (tag(r'{"content": "a\tb", "location": 1}'), Outcome.CONTROL_CHARACTER),
        (tag("“”"), Outcome.MALFORMED),
    ],
)
def test_every_failure_has_its_outcome(raw: str, outcome: Outcome) -> None:
    parsed = parse_proposal(raw, 5)
    assert parsed.outcome is outcome
    assert parsed.detail


def test_the_last_closed_tag_wins() -> None:
    raw = tag('{"content": "old", "location": 1}') + tag('{"content": "new", "location": 2}')
    assert parse_proposal(raw + " <intervention>{", 5).intervention == "new"


def test_curly_quotes_fences_and_trailing_commas() -> None:
    for block in (
        "{“content”: “x “y” z”, “location”: 2}",
        '```json\n{"content": "x “y” z", "location": 2,}\n```',
        "{'content': 'x “y” z', 'location': 2}",
    ):
        parsed = parse_proposal(tag(block), 5)
        assert (parsed.outcome, parsed.intervention) == (Outcome.ACCEPTED, "x “y” z")


def test_a_content_that_speaks_of_a_location_is_kept() -> None:
    parsed = parse_proposal(tag('{"content": "see location: here", "location": 5}'), 5)
    assert (parsed.intervention, parsed.location) == ("see location: here", 5)


def test_a_list_gives_one_item_per_entry() -> None:
    entries = (
        '[{"location": 2, "error_step": 3, "content": "before"}, '
        '{"location": 5, "error_step": 3, "content": "after"}]'
    )
    before, after = parse_proposals(tag(entries), 6)
    assert (before.error_step, before.after_error) == (2, False)
    assert (after.error_step, after.after_error) == (2, True)
    (unstated,) = parse_proposals(tag('[{"location": 2, "content": "x"}]'), 6)
    assert (unstated.outcome, unstated.error_step) == (Outcome.ACCEPTED, None)
    assert [p.outcome for p in parse_proposals(tag("[]"), 6)] == [Outcome.NO_ERROR_FOUND]


@given(st.text(max_size=200))
def test_it_never_raises(text: str) -> None:
    parse_proposal(text, 3)
    parse_proposals(tag(text), 3)


plain = st.text(st.sampled_from("abcxyz 019+=.,(){}$^_é∀\n"), min_size=1, max_size=60)


@given(plain.filter(lambda text: text.strip() not in ("", "null")))
def test_ordinary_text_comes_out_as_it_went_in(text: str) -> None:
    parsed = parse_proposal(tag(f'{{"content": "{text}", "location": 1}}'), 3)
    assert (parsed.outcome, parsed.intervention) == (Outcome.ACCEPTED, text)


def test_a_huge_reply_is_read_quickly() -> None:
    started = time.process_time()
    parse_proposal(tag('{"content": "' + '"' * 10_000_000 + '", "location": 1}'), 3)
    parse_proposal(tag('{"content": "' + '\\"' * 40_000 + '", "location": 1}'), 3)
    assert time.process_time() - started < 5
