from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midcourse.prompts.location import read_location
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
        (tag('{"content": "a\x01b", "location": 1}'), Outcome.CONTROL_CHARACTER),
        (tag(r'{"content": "a\f b", "location": 1}'), Outcome.CONTROL_CHARACTER),
        (tag(r'{"content": "a\u0000b", "location": 1}'), Outcome.CONTROL_CHARACTER),
        (tag(r'{"content": "a\rB", "location": 1}'), Outcome.CONTROL_CHARACTER),
        (tag(r'{"content": "half \ud83d", "location": 1}'), Outcome.CONTROL_CHARACTER),
        (tag('{"content": "half \ud83d", "location": 1}'), Outcome.CONTROL_CHARACTER),
        (tag('{"content": "3\times 4", "location": 1}'), Outcome.CONTROL_CHARACTER),
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


MATRIX = r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}"


@pytest.mark.parametrize(
    "meant",
    [
        MATRIX,
        r"\left\{\begin{array}{l} x+y=3 \\[2pt] x-y=1 \end{array}\right.",
        r"Rows: \begin{vmatrix}1&0\\0&1\end{vmatrix}=1, so $\det A=1$.",
        r"\begin{cases}2x+y=1\\xy=2\end{cases}",
        r"\begin{aligned}a&=b\\&=\frac{1}{2}\end{aligned}",
        "\\begin{aligned}\na &= b \\\\\n&= c\n\\end{aligned}",
        r"\begin{matrix}\frac12 \\\hline \frac13\end{matrix}",
        r"$\nabla f \neq 0$, $\not\in$, $x\notin A$, $\nLeftarrow$ and \noindent",
        r"$A \nleq B$, $\nsubseteqq$, $\nVdash$, $\ntrianglelefteq$, $\ngtr$, $\nsucceq$, $\nsim$",
        r"\tan\theta \to \tfrac12 \times \text{two} \textnormal{x} \textsc{y} \triangledown",
        r"\beta \binom{n}{2} \bigstar \backsim \bbox{a} \blacktriangle \boxminus",
        r"\frac12 \forall \footnotesize \fallingdotseq \flat \fcolorbox{red}{x}",
        r"\right) \rho \rangle \rlap{x} \rVert \rtimes \raisebox{1pt}{y}",
        r"\underline{u} \uparrow \upsilon \unrhd \u{a}",
        r"5\% of \$3, \{1\}, \(x\), a\,b\;c\ d, \|v\|, \#1",
        r"Caf\'e is \`a la mode",
        'the word "even" and {"a", "b"} of it',
        r'$\text{he said "yes"}$ to $\{"a"\}$',
        r'\boxed{\text{"no"}}, then',
        'see "location": here',
        "Müller, 数 and 𝒮",
    ],
)
def test_a_text_comes_out_whole_however_it_was_escaped(meant: str) -> None:
    for written in (
        json.dumps(meant),
        json.dumps(meant, ensure_ascii=False),
        '"' + meant.replace('"', r"\"") + '"',
        f'"{meant}"',
        f"“{meant}”",
    ):
        if written == f'"{meant}"' and '"location"' in meant:
            continue  # nobody can tell this from a member
        for block in (
            f'{{"content": {written}, "location": 3}}',
            f'{{"location": 3, "content": {written}}}',
            f'[{{"location": 3, "content": {written}, "why": "a slip"}}]',
        ):
            parsed = parse_proposal(tag(block), 5)
            assert (parsed.outcome, parsed.intervention) == (Outcome.ACCEPTED, meant), block


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"Then:\n\tx = 2\n\ty = 3", "Then:\n\tx = 2\n\ty = 3"),
        (r"One.\r\nTwo.", "One.\nTwo."),
        ("One.\r\nTwo.", "One.\nTwo."),
        (r"First,\nthe sum\nof all", "First,\nthe sum\nof all"),
        (r"\ud835\udcae and \u00e9", "𝒮 and é"),
        (r"Substitute:\nu = 2x", "Substitute:\nu = 2x"),
        (r"$a\nu$ and $b \nu$", r"$a\nu$ and $b \nu$"),
        (r"\\[\nu^2 = 4\n\\]", "\\[\nu^2 = 4\n\\]"),
        (r"x \\ne y and \nu", r"x \ne y and \nu"),
        (r"4 \\\\ 9 in \begin{pmatrix}", r"4 \\ 9 in \begin{pmatrix}"),
        (r"\\begin{pmatrix} 4 \\ 9 \\end{pmatrix}", r"\begin{pmatrix} 4 \\ 9 \end{pmatrix}"),
        (r"\\text{if}\\ x \\\\ y", r"\text{if}\ x \\ y"),
        (r"5\\ cm", r"5\ cm"),
        (r"\\frac12 with \alpha and \\{1\\}", r"\frac12 with \alpha and \{1\}"),
        (r"a\textra word", "a\textra word"),
        (r"Bob\'s half, so we don\'t", "Bob's half, so we don't"),
        (r"f\'(x) and g\'\'(x)", "f'(x) and g''(x)"),
        (r"Poincar\'e, Ren\'{e}", r"Poincar\'e, Ren\'{e}"),
    ],
)
def test_an_escape_of_json_is_told_from_a_command(written: str, meant: str) -> None:
    parsed = parse_proposal(tag(f'{{"content": "{written}", "location": 3}}'), 5)
    assert (parsed.outcome, parsed.intervention) == (Outcome.ACCEPTED, meant)


def test_the_quote_that_was_used_may_be_escaped() -> None:
    for written, meant in ((r"Ann\'s", "Ann's"), (r"Ann\'s \"x\" and \\pi", 'Ann\'s "x" and \\pi')):
        parsed = parse_proposal(tag(f"{{'content': '{written}', 'location': 2}}"), 5)
        assert (parsed.outcome, parsed.intervention) == (Outcome.ACCEPTED, meant)


CONTENT = '"content": "Add 3 to both sides."'


@pytest.mark.parametrize(
    "block",
    [
        f'{{{CONTENT}, "location": 2, "reason": "He wrote \\"4\\", which is wrong."}}',
        f'{{{CONTENT}, "reason": "He wrote "4", which is wrong.", "location": 2}}',
        f'{{"severity": 3, {CONTENT}, "location": 2}}',
        f'{{"severity": null, "is final": false, {CONTENT}, "quoted": ["a", "b"], "location": 2}}',
        f'{{"student_step": "location: 4", {CONTENT}, "location": 2}}',
        f'{{{CONTENT}, "details": {{"kind": "sign", "location": 4}}, "location": 2}}',
        f'{{"intervention": {{{CONTENT}, "location": 2}}, "note": "done"}}',
        f'{{"critical_errors": [{{"step": 4}}], "steps": [{{{CONTENT}, "location": 2}}]}}',
        f'{{{CONTENT},\n "location": 2,\n "why": "sign" // as above\n}}',
        f'{{{CONTENT}\n "location": 2}}',
        f'{{{CONTENT}, why: "sign", location: 2}}',
        f'{{"Location": 2, "CONTENT": {CONTENT[11:]}, "ok": yes}}',
        f'```json\n{{{CONTENT}, "location": 2, "why": "x"}}\n```',
        f'{{"location": 2, {CONTENT}}} Note: "checked".',
        f'{{{CONTENT}, "разбор": "знак", "location": 2}}',
        f'{{"original_step": "so x = \\frac{{1}}{{2}}", {CONTENT}, "location": 2}}',
        f'{{{CONTENT}, "replaces": "\\nabla f = 0", "location": 2}}',
        f'{{"id": 3, "location": 2, {CONTENT}, "impact": 5e-1, "tags": ["sign", "sum"]}}',
    ],
)
def test_other_members_are_passed_over(block: str) -> None:
    parsed = parse_proposal(tag(block), 9)
    assert (parsed.outcome, parsed.location) == (Outcome.ACCEPTED, 2)
    assert parsed.intervention == "Add 3 to both sides."


@pytest.mark.parametrize(
    "block",
    [
        '{"content": "Add 3., "location": 2, "why": "sign"}',
        '{"location": 2, "content": "Add 3., "why": "sign"}',
        '{"location": 2, "content": "Add 3.}',
        '{"location": 2, "contents": "Add 3."}',
        '{"location": 2, "content": Add 3.}',
        '{"location": 2, "content": 3}',
        '{"location": 2, "content": }',
        '{"content": "Add 3.", "locations": 2}',
        '{"content": "Add 3.", "why": "location: 2"}',
        '"content": "Add 3.", "location": 2',
    ],
)
def test_what_is_not_whole_is_malformed(block: str) -> None:
    assert parse_proposal(tag(block), 9).outcome is Outcome.MALFORMED


@pytest.mark.parametrize(
    "raw",
    [
        "<INTERVENTION>{}</INTERVENTION>",
        "<intervention >{}</ intervention>",
        "< intervention>{}</intervention\n>",
        '<Intervention id="1" kind="replace">{}</intervention>',
        "<intervention>[]</intervention><InterVention>{}</intervention>",
        "<intervention>{}</intervention> Without an error: `<intervention></intervention>`.",
        '<intervention>{}</intervention> (else "<intervention>[]</intervention>")',
        "`<intervention>{}</intervention>`",
        "<intervention>{}</intervention> and </intervention>",
    ],
)
def test_a_tag_is_found_in_every_spelling(raw: str) -> None:
    parsed = parse_proposal(raw.replace("{}", '{"content": "x", "location": 2}', 1), 5)
    assert (parsed.outcome, parsed.intervention) == (Outcome.ACCEPTED, "x")


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (tag('{"content": "x", "location": 2}') + " No: <intervention></intervention>", "no_error"),
        ('<interventions>{"content": "x", "location": 2}</interventions>', "no_tag"),
        ('<my intervention>{"content": "x", "location": 2}</my intervention>', "no_tag"),
        ('&lt;intervention&gt;{"content": "x", "location": 2}&lt;/intervention&gt;', "no_tag"),
        ('</intervention>{"content": "x", "location": 2}<intervention>', "no_tag"),
    ],
)
def test_what_is_not_the_tag_or_not_the_last_is_not_read(raw: str, outcome: str) -> None:
    assert parse_proposal(raw, 5).outcome.value.startswith(outcome)


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("3", 3),
        (" 14. ", 14),
        ("3.0", 3),
        ("-1", -1),
        ("0", 0),
        ("#7", 7),
        ("(7)", 7),
        ("[7]", 7),
        ("14-16", 14),
        ("14–16", 14),
        ("14 to 16", 14),
        ("14, 15", 14),
        ("3/20", 3),
        ("3 of 20", 3),
        ("Substep 14", 14),
        ("substep #14", 14),
        ("Substep No. 4", 4),
        ("sub-step 4", 4),
        ("Sub step: 4", 4),
        ("Substep-4", 4),
        ("substep (4)", 4),
        ("Substeps 4-6", 4),
        ("step 3", 3),
        ("substep 4 of step 2", 4),
        ("Step 2, Substep 14", 14),
        ("step 2 / substep 14", 14),
        ("part (b) of 3: Substep 5", 5),
        ("Case 2, Substep 11", 11),
        ("Section 3 Substep 11", 11),
        ("2 of Substep 5", 5),
        ("the 2nd line of Substep 5", 5),
        ("Substep 12 of 20", 12),
        ("the third step", 3),
        ("the fourteenth substep", 14),
        ("Substep fourteen", 14),
        ("twenty-first substep", 21),
        ("the 3rd substep", 3),
        ("step five", 5),
        ("seven", 7),
        ("the first error is in Substep 6", 6),
        ("first wrong substep is 4", 4),
        ("Substep 14 ('so x = 3 and y = 2')", 14),
        ("14: 'so x = 3.5 in step 2'", 14),
        ("Substep 6 (Step 2)", 6),
        ('{"step": 2, "substep": 9}', 9),
        ("line 8", 8),
        ("the last substep", 20),
        ("Final step", 20),
        ("second to last substep", 19),
        ("the second-to-last step", 19),
        ("next to last sub-step", 19),
        ("The penultimate substep.", 19),
        ("substep_7", 7),
        ("Part 2 of substep_5", 5),
        ("Lemma 2, substep 15", 15),
        ("Equation (5) in Substep 10", 10),
        ("step 5 (substep 7)", 7),
        ("after the factorisation, Substep 12, line 2", 12),
        ("99", 99),
        ("before Substep 5", 5),
        ("S14", 14),
        ("S14-S16", 14),
        ("Substep14", 14),
        ("14b", 14),
        ("lines 3-4 of Substep 7", 7),
    ],
)
def test_a_location_in_words_is_that_of_the_substep(text: str, location: int) -> None:
    assert read_location(text, 20) == location


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "none",
        "N/A",
        "unknown",
        "NUMBER",
        "3.7",
        "Substep 3.7",
        "1e1",
        "x = 3.5",
        "Case 1: 9 or 10",
        "part 2 and 3, 7",
        "after Substep 4",
        "between substeps 4 and 5",
        "3: see Substep 5",
        "the second to last",
        "last but one",
        "someone",
        "done",
        "12345678",
    ],
)
def test_a_location_that_is_left_open_is_not_guessed(text: str) -> None:
    assert read_location(text, 20) is None


@pytest.mark.parametrize(
    "block",
    [
        "none",
        "None.",
        "NONE",
        "null",
        "nil",
        "N/A",
        "n.a.",
        "Not applicable",
        "{ }",
        "[ ]",
        "-",
        "—",
        "No error",
        "No errors found.",
        "no critical error",
        "There is no critical error.",
        "There are no mistakes in the attempt.",
        "No intervention needed",
        "Nothing found",
        "No intervention is required.",
        "The solution is correct.",
        "NO_ERROR",
        "All substeps are correct.",
        "all of the steps are right",
        "Everything is correct.",
        "Every step is correct.",
        "Not needed.",
        "Keine Fehler gefunden",
        "Kein Fehler.",
        "Aucune erreur",
        "No hay errores.",
        "没有错误",
        "无错误",
        "Ошибок нет.",
        '"None"',
        "[{}]",
        "[null]",
        "N/A (no error)",
        "None - the attempt is correct.",
        "No error found; the solution is right!",
        '{"content": "", "location": -1}',
        '{"content": null, "location": null}',
        '{"content": "None", "location": "None"}',
        '{"content": "N/A", "location": 0}',
        '{"content": "No error found.", "location": null}',
        '{"location": null}',
        '{"content": null}',
        '{"intervention": null}',
        '{"content": [], "location": []}',
        '{"location": "-", "content": "-"}',
        '{"content": "", "location": "none", "why": "All steps are right."}',
    ],
)
def test_nothing_is_proposed_in_many_words(block: str) -> None:
    parsed = parse_proposal(tag(block), 20)
    assert parsed.outcome is Outcome.NO_ERROR_FOUND
    assert (parsed.location, parsed.intervention, parsed.error_step) == (None, None, None)


@pytest.mark.parametrize(
    ("block", "outcome"),
    [
        ('{"content": null, "location": 3}', Outcome.EMPTY),
        ('{"content": "None", "location": 3}', Outcome.EMPTY),
        ('{"content": " ", "location": 3}', Outcome.EMPTY),
        ('{"content": "x", "location": 3.7}', Outcome.MALFORMED),
        ('{"content": "x", "location": null}', Outcome.MALFORMED),
        ('{"content": "x", "location": "none"}', Outcome.MALFORMED),
        ('{"content": "x", "location": 0}', Outcome.LOCATION_OUT_OF_RANGE),
        ('{"content": "x", "location": "Substep 21"}', Outcome.LOCATION_OUT_OF_RANGE),
        ("No error in 4, but one in 5", Outcome.MALFORMED),
        ("There is an error.", Outcome.MALFORMED),
        ("Not all steps are correct.", Outcome.MALFORMED),
        ("All steps but one are correct.", Outcome.MALFORMED),
        ("Ein Fehler gefunden", Outcome.MALFORMED),
        ("有错误", Outcome.MALFORMED),
        ('{"error_found": true}', Outcome.MALFORMED),
        ("No, there is an error.", Outcome.MALFORMED),
        ("...", Outcome.MALFORMED),
        ('{"why": "a slip"}', Outcome.MALFORMED),
        ('{"content": "No real solutions exist.", "location": 3}', Outcome.ACCEPTED),
        ('{"content": "No, x is 3.", "location": 3}', Outcome.ACCEPTED),
        ('{"content": "nothing changes", "location": 3}', Outcome.ACCEPTED),
    ],
)
def test_a_half_proposal_is_neither_nothing_nor_accepted(block: str, outcome: Outcome) -> None:
    assert parse_proposal(tag(block), 20).outcome is outcome


PIECES = st.sampled_from(
    [
        *"{}[]\"'“”\\,:\n \t\x00`xé",
        *("\\\\", "\\u", "\\ud83d", "\ud83d", "\\neq", "null", "content", '"content": "'),
        *('"location": ', '"why": ', "Substep ", "14", "3.7", "<intervention>", "</intervention>"),
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join), st.integers(0, 20))
def test_what_is_accepted_has_a_place_and_a_text(text: str, num_steps: int) -> None:
    for parsed in (parse_proposal(tag(text), num_steps), *parse_proposals(tag(text), num_steps)):
        assert parsed.outcome is Outcome.ACCEPTED or parsed.detail
        if parsed.outcome is Outcome.ACCEPTED:
            assert parsed.location is not None and parsed.intervention is not None
            assert 1 <= parsed.location <= num_steps
            assert parsed.intervention.strip()
            assert parsed.intervention.encode()


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1).map(str.strip))
def test_what_json_wrote_is_read_as_json_reads_it(text: str) -> None:
    parsed = parse_proposal(tag(json.dumps({"content": f"{text} = 1", "location": 1})), 3)
    assert (parsed.outcome, parsed.intervention) == (Outcome.ACCEPTED, f"{text} = 1")


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
