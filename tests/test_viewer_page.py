"""The viewer in a real browser: what it shows, how one moves, and that foreign text stays text."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import views
from browser import Opened, headless, needs_chromium, opened
from midcourse.records import Condition, ProposalOutcome, Verdict
from midcourse.viewer.data import Continuation, Kind, Token, View
from midcourse.viewer.meanings import all_meanings
from midcourse.viewer.page import SCRIPTS, json_island, write_page

ASSETS = resources.files("midcourse.viewer") / "assets"
Show = Callable[..., AbstractContextManager[Opened]]


def page_of(view: View) -> str:
    return b"".join(write_page(view)).decode()


def test_the_island_of_the_index_cannot_be_left() -> None:
    text = json_island(["</script><!-- & \u2028\u2029"])
    assert not set("<>&\u2028\u2029") & set(text)


def test_the_page_names_its_own_scripts_and_allows_no_others() -> None:
    page = page_of(views.small_view())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "trusted-types 'none'" in policy
    assert not re.findall(r'\b(?:src|href)="|url\((?!data:)|@import', page.split('id="index"')[0])
    assert page.count("<script>") == 2


def test_half_of_a_surrogate_pair_is_written_as_its_escape() -> None:
    body = views.rollout_body("half \ud835 of a letter")
    page = page_of(
        views.view([(views.rollout("r\udc00"), body)], [views.problem("p")], "run \ud800")
    )
    assert '"r\\udc00"' in page


def test_chunks_are_read_one_at_a_time_and_the_index_comes_first() -> None:
    pieces = write_page(views.large_view(12))
    before = [next(pieces) for _ in range(3)]
    assert b'id="index"' in before[1]
    assert [piece.split(b">")[0][-9:] for piece in pieces][:3] == [
        b'"chunk-0"',
        b'"chunk-1"',
        b'"chunk-2"',
    ]


def test_every_word_of_the_method_is_explained() -> None:
    assert set(all_meanings()) == {*ProposalOutcome, *Verdict, *Condition}


def test_no_part_of_the_script_is_left_out_or_asks_for_markup() -> None:
    names = {Path(str(part)).stem for part in (ASSETS / "js").iterdir()}
    assert names == set(SCRIPTS)
    for name in SCRIPTS:
        code = (ASSETS / "js" / f"{name}.js").read_text("utf-8")
        assert not re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(", code
        )
        assert "</script" not in code


@pytest.mark.skipif(not shutil.which("node"), reason="no node here")
def test_the_script_parses(tmp_path: Path) -> None:
    page = page_of(views.small_view())
    for number, code in enumerate(re.findall(r"<script>(.*?)</script>", page, re.DOTALL)):
        file = tmp_path / f"{number}.js"
        file.write_text(code, "utf-8")
        checked = subprocess.run(
            ["node", "--check", file], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr


# In a browser, from here on.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def show(folder: Path) -> Iterator[Show]:
    """Open a view in the module's one browser."""
    with headless() as browser:

        def open_view(
            view: View, fragment: str = "", **options: Any
        ) -> AbstractContextManager[Opened]:
            path = folder / "view.html"
            path.write_bytes(b"".join(write_page(view)))
            return opened(browser, path, fragment, **options)

        yield open_view


def wait_for_count(seen: Opened, words: str) -> None:
    """Wait until the list says that it holds so many."""
    seen.page.locator("#count", has_text=re.compile(f"^{words}")).wait_for()


slow = pytest.mark.slow


@slow
@needs_chromium
def test_a_proposal_says_where_the_error_is_what_replaces_it_and_what_that_is_worth(
    show: Show,
) -> None:
    with show(views.small_view(), "#p-0") as seen:
        page = seen.page
        assert seen.texts(".step.error .label") == ["✗ first error, step 2"]
        assert page.locator(".step.error del").count() == 1
        assert seen.texts(".step.intervention .label") == ["✎ intervention, in place of step 2"]
        assert page.locator(".step.after").count() == 2
        assert seen.texts("dl.answers dd") == ["3", "✗ 9"]
        verdicts = seen.texts(".condition:first-child .tag")
        assert verdicts == ["✓ correct", "✗ incorrect"]  # two copies of one text are one line
        assert "×2" in page.locator(".condition").first.inner_text()
        assert seen.texts(".condition h4") == ["After the intervention", "After the original step"]
        assert "1 of 3 correct" in page.locator(".condition").first.inner_text()
        seen.quiet()


@slow
@needs_chromium
def test_formulas_are_typeset_prices_are_not_and_r_shows_what_was_written(show: Show) -> None:
    with show(views.small_view(), "#p-0") as seen:
        problem = seen.page.locator(".side .card").first
        assert problem.locator("math").count() == 3
        assert "It costs $5 and $6." in problem.inner_text()
        assert seen.page.locator(".step.after menclose").count() == 1  # a box outside of dollars
        seen.page.keyboard.press("r")
        seen.page.wait_for_selector(".raw")
        assert seen.page.locator("main math").count() == 0
        assert r"\(x^2 = 9\) and $x > 0$" in problem.inner_text()
        seen.quiet()


@slow
@needs_chromium
def test_tokens_show_their_mask_and_both_probabilities(show: Show) -> None:
    with show(views.small_view(), "#p-0") as seen:
        strip = seen.page.locator(".tokens")
        assert strip.locator(".trained").all_inner_texts()[0].strip() == "factor"
        strip.focus()
        strip.press("ArrowRight")
        strip.press("ArrowRight")
        told = seen.page.locator(".readout").inner_text()
        assert "base 3.00 %, patched 62.0 %, +59.00 points" in told
        seen.page.get_by_role("button", name="Difference").click()
        shades = strip.locator("span").evaluate_all("all => all.map(one => one.dataset.shade)")
        assert shades == ["none", "+4", "-1"]


@slow
@needs_chromium
def test_filters_narrow_the_list_count_what_is_left_and_are_reset(show: Show) -> None:
    with show(views.small_view()) as seen:
        page = seen.page
        assert "3 of 14" in page.locator("#count").inner_text()  # proposals come first
        page.get_by_role("button", name="All").click()
        assert "14 of 14" in page.locator("#count").inner_text()
        page.get_by_role("button", name="Proposals 3").click()
        page.locator("#filters summary").click() if not page.locator(
            "#fields"
        ).is_visible() else None
        page.get_by_label("Outcome").select_option("leaks_answer")
        assert "1 of 14" in page.locator("#count").inner_text()
        assert page.evaluate("location.hash") == "#p-1?kind=proposal&outcome=leaks_answer"
        assert "refused: leaks answer" in page.locator("#trace").inner_text()
        page.get_by_role("button", name="Reset").click()
        assert "14 of 14" in page.locator("#count").inner_text()
        seen.quiet()


@slow
@needs_chromium
def test_search_reads_interventions_replies_and_continuations(show: Show) -> None:
    with show(views.small_view(), "#p-0") as seen:
        page, count = seen.page, seen.page.locator("#count")
        for words, left in [
            ("TELESCOPE", 1),
            ("c-right", 2),
            ("right 1", 1),
            ("omni-2", 12),
            ("zzz", 0),
        ]:
            page.keyboard.press("/")
            page.locator("#query").fill(words)
            wait_for_count(seen, f"{left} of")
        assert "Nothing passes the filters" in page.locator("#trace").inner_text()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Reset").click()
        assert "14 of 14" in count.inner_text()
        page.keyboard.press("j")  # Escape has left the search box
        assert page.locator("#query").input_value() == ""
        seen.quiet()


@slow
@needs_chromium
def test_keys_move_by_trace_and_problem_and_back_returns(show: Show) -> None:
    with show(views.small_view(), "#p-0") as seen:
        page = seen.page
        press, title = page.keyboard.press, partial(page.wait_for_selector, timeout=5000)
        for key, then in [
            ("j", "p-1"),
            ("ArrowDown", "p-2"),
            ("k", "p-1"),
            ("n", "p-2"),
            ("p", "p-0"),
        ]:
            press(key)
            title(f"h2:text('Proposal {then}')")
            assert page.evaluate("location.hash") == f"#{then}"
        page.go_back()
        title("h2:text('Proposal p-2')")
        press("?")
        assert page.locator("#help").is_visible()
        press("j")  # belongs to the sheet now
        press("Escape")
        assert not page.locator("#help").is_visible()
        assert page.evaluate("location.hash") == "#p-2"
        press("o")
        assert page.locator("#trace details:not([open])").count() == 0
        page.get_by_label("Next trace").click()
        title("h2:text('Rollout base-0')")
        assert page.evaluate("document.activeElement.ariaLabel") == "Next trace"
        assert seen.texts("#said") == ["Rollout base-0"]
        seen.quiet()


@slow
@needs_chromium
def test_a_link_shows_its_trace_filters_and_search(show: Show) -> None:
    with show(
        views.small_view(), "#rl-1-2?kind=rl&verdict=incorrect&iteration=1&q=sampled"
    ) as seen:
        page = seen.page
        wait_for_count(seen, "2 of 14")
        assert page.locator("[aria-selected=true]").get_attribute("data-id") == "rl-1-2"
        assert page.locator("#query").input_value() == "sampled"
        assert seen.texts("#trace h2") == ["InT + RL, iteration 1, group 7"]
        assert page.locator(".sample.current").count() == 1
        assert page.locator(".sample").count() == 3  # the whole group, whatever is filtered
        page.get_by_role("button", name="← iteration 0").click()
        page.wait_for_selector("h2:text('iteration 0')")
        seen.quiet()
    with show(views.small_view(), "#no/such?thing") as seen:
        assert seen.texts("#trace") == ["There is no trace no/such in this page."]


@slow
@needs_chromium
def test_two_models_stand_side_by_side_on_one_problem(show: Show) -> None:
    with show(views.small_view(), "#base-1") as seen:
        page = seen.page
        page.keyboard.press("c")
        page.wait_for_selector(".pair")
        assert [text.split(" correct")[0] for text in seen.texts(".model")] == [
            "base · held_out 0 of 3",
            "patched · held_out 2 of 2",
        ]
        left, right = page.locator(".pair article").all()
        assert "wrong 1" in left.inner_text()
        assert "right 0" in right.inner_text()
        right.get_by_label("Rollout").select_option("patched-1")
        page.wait_for_selector("text=right 1")
        assert page.evaluate("location.hash") == "#base-1?compare=base-1%2Cpatched-1"
        right.get_by_role("link", name="patched-1").click()
        page.wait_for_selector("h2:text('Rollout patched-1')")
        page.go_back()
        page.wait_for_selector(".pair")
        page.keyboard.press("Escape")
        page.wait_for_selector("h2:text('Rollout base-1')")
        seen.quiet()


@slow
@needs_chromium
def test_a_run_without_traces_says_so(show: Show) -> None:
    with show(views.view([], [])) as seen:
        assert seen.texts("#trace") == ["There are no traces in this run yet."]
        for key in "jknpocr":
            seen.page.keyboard.press(key)
        seen.quiet()


@slow
@needs_chromium
def test_ten_thousand_proposals_leave_few_rows_in_the_document(show: Show) -> None:
    with show(views.large_view(10_000)) as seen:
        page = seen.page
        assert "10,000 of 10,000, 200 problems" in page.locator("#count").inner_text()
        assert page.locator(".row").count() < 60
        page.evaluate("document.querySelector('#list').scrollTop = 1e9")
        page.wait_for_selector("[data-id=p-9999]")
        assert page.locator(".row").count() < 60
        page.keyboard.press("/")
        page.locator("#query").fill("idea-7777")
        wait_for_count(seen, "1 of")
        page.wait_for_selector("h2:text('Proposal p-7777')")
        page.keyboard.press("Escape")
        page.locator("#query").fill("")
        wait_for_count(seen, "10,000")
        page.locator("#sort").select_option("rate")
        page.locator("#direction").click()
        assert "3 of 3 correct" in page.locator(".row").first.inner_text()
        seen.quiet()


@slow
@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (800, "dark"), (2000, "light")])
def test_no_width_needs_sideways_scrolling(show: Show, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900}
    with show(views.small_view(), "#p-0", viewport=size, color_scheme=scheme) as seen:
        for part in ("html", "#trace"):
            overflow = seen.page.eval_on_selector(
                part, "node => node.scrollWidth - node.clientWidth"
            )
            assert overflow <= 0
        background = seen.page.eval_on_selector(
            "body", "node => getComputedStyle(node).backgroundColor"
        )
        assert (int(background[4:].split(",")[0]) > 128) is (scheme == "light")
        if width == 360:
            seen.page.get_by_role("button", name="← List").click()
            assert seen.page.locator("#list").is_visible()
            seen.page.locator("[data-id=p-1]").click()
            assert seen.page.locator("h2:text('Proposal p-1')").is_visible()


@slow
@needs_chromium
def test_what_is_printed_is_the_trace_with_everything_unfolded(show: Show) -> None:
    with show(views.small_view(), "#p-0") as seen:
        seen.page.emulate_media(media="print")
        seen.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert not seen.page.locator("#side").is_visible()
        assert seen.page.get_by_text("Review this attempt.").is_visible()


HOSTILE = [
    "<script>owned()</script>",
    "</script><script>owned()</script>",
    "<img src=http://127.0.0.1:9/x onerror=owned()>",
    "<svg onload=owned()><a href='javascript:owned()'>x</a></svg>",
    "<math><maction xlink:href=javascript:owned()>x</maction></math>",
    r"$\href{javascript:owned()}{click}$ and \url{http://127.0.0.1:9/}",
    r"$\includegraphics{http://127.0.0.1:9/x.png}$",
    r"$\htmlClass{row}{x} \htmlId{list}{x} \htmlStyle{position:fixed}{x} \htmlData{a=b}{x}$",
    r"$\def\x#1{#1#1}\x{\x{\x{\x{\x{\x{\x{\x{\x{\x{a}}}}}}}}}}$",
    r"$\gdef\y{\y\y}\y$ $\newcommand\z{\z}\z$",
    "$" + "\\sqrt" * 300 + "x$",
    "$" + "{" * 600 + "x" + "}" * 600 + "$",
    "\\(" + "\\frac{1}{" * 200 + "x" + "}" * 200 + "\\)",
    r"$\rule{99999em}{99999em}$ $\kern{99999em}x$ $\pmb{x}$ $\unknown$",
    r"$\fcolorbox{red}{blue}{x}$ $\text{<b>x</b>}$",
    "\\begin{align}" * 50,
    "$" * 1001 + "\\(" * 1000,
    "\u2028owned()\u2029 \u202egnitirw\u202c \x1b[31m \x07 \x00 \u200b \ufeff \U000e0041",
    "__proto__",
    "constructor",
    "toString",
    "${owned()}",
    "{{owned()}}",
    "' onmouseover='owned()",
    "%",
    "%zz",
]


def hostile_view() -> View:
    """Return a view in which every text of every place is hostile."""
    everything = " ".join(HOSTILE)
    problems = [
        views.problem(text, text=text, answer=text, reference=text, source=text, status=text)
        for text in HOSTILE
    ]
    pairs: list[tuple[dict[str, object], views.Body]] = []
    for at, text in enumerate(HOSTILE):
        body = views.proposal_body(
            answer=text,
            intervention=text,
            detail=text,
            steps=[text, everything, text],
            turns=[(text, everything)],
            continuations=[
                Continuation(rollout_id=text, condition=text, text=text, verdict=text, answer="1")
            ],
            tokens=[Token(text=text, trained=True, base=0.5, patched=None)],
        )
        named = {"outcome": text, "title": text, "model": text}
        pairs.append((views.proposal(f"p {at} {text}", at, **named), body))
        rollout = views.rollout_body(text, context=text, answer=text)
        pairs.append(
            (views.rollout(f"r {at} {text}", at, **named, eval_set=text, condition=text), rollout)
        )
        of_rl = {"kind": Kind.RL, "arm": text, "iteration": 0, "group": at, "advantage": 0.0}
        pairs.append((views.rollout(f"g {at} {text}", at, **named, **of_rl), rollout))
    return views.view(pairs, problems, everything)


@slow
@needs_chromium
def test_hostile_traces_run_nothing_ask_for_nothing_and_are_shown(show: Show) -> None:
    with show(hostile_view(), "#?sort=problem") as seen:
        page = seen.page
        for _ in range(3 * len(HOSTILE) - 1):
            page.evaluate(
                "document.querySelectorAll('#trace details').forEach((one) => { one.open = true; })"
            )
            page.keyboard.press("j")
            page.wait_for_selector("#trace:not([aria-busy])")
            assert "native code" not in page.locator("body").inner_text()
        for key in ("c", "o", "r", "r", "Escape"):
            page.keyboard.press(key)
        page.locator("#query").fill("owned")
        page.locator("#progress").wait_for(state="hidden")
        assert page.evaluate("document.scripts.length") == 3 + -(-3 * len(HOSTILE) // views.CHUNK)
        attributes = "[...document.querySelectorAll('body *')].flatMap((e) => [...e.attributes])"
        names = page.evaluate(f"{attributes}.map((a) => a.name)")
        assert not {
            name for name in names if name.startswith("on") or name in {"src", "xlink:href"}
        }
        links = page.evaluate(f"{attributes}.filter((a) => a.name === 'href').map((a) => a.value)")
        assert all(link.startswith("#") for link in links)
        assert page.locator("img, iframe, object, embed, link, form, base, maction").count() == 0
        seen.quiet()
        # What a script would try is refused by the policy too, and seen here: so the test can fail.
        page.evaluate(
            "document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/' }))"
        )
        page.wait_for_timeout(200)
        assert len(page.evaluate("window.violations")) == 1
        assert (
            page.evaluate(
                "(() => { try { document.body.innerHTML = 'x'; } catch { return 1; } })()"
            )
            == 1
        )


@slow
@needs_chromium
def test_what_cannot_be_seen_is_written_out(show: Show) -> None:
    at = next(n for n, text in enumerate(HOSTILE) if "\u202e" in text)
    with show(hostile_view(), "#?sort=problem") as seen:
        seen.page.keyboard.press("/")
        seen.page.locator("#query").fill(f"p {at} ")
        seen.page.wait_for_selector(f"h2:text('Proposal p {at} ')")
        text = seen.page.locator(".step.error").inner_text()
        shown = seen.page.locator(".side .card").first.inner_text()
        assert "\\u2028owned()\\u2029 \\u202egnitirw\\u202c \\x1b[31m \\x07 \\x00" in shown
        assert "\u200b" not in shown  # KaTeX has some of its own in formulas
        assert not set("\u2028\u202e\x1b\x07") & set(text + shown + seen.page.title())


@slow
@needs_chromium
def test_a_step_of_a_megabyte_is_cut_until_it_is_asked_for(show: Show) -> None:
    body = views.rollout_body("$x$ " * 250_000)
    with show(views.view([(views.rollout("big"), body)], [views.problem("p")])) as seen:
        step = seen.page.locator(".step").nth(1)
        assert step.locator("math").count() == 5000
        assert (
            seen.page.evaluate("document.querySelectorAll('.step')[1].textContent.length") < 30_000
        )
        step.get_by_role("button", name="Show all 1,000,000 characters").click()
        assert (
            seen.page.evaluate("document.querySelectorAll('.step')[1].textContent.length") > 999_999
        )
        assert step.locator("math").count() == 0
        seen.quiet()


#: Texts, and how many formulas they hold.
FORMULAS = [
    ("$a$ and $b$", 2),
    ("\\(a\\) and \\[b\\]", 2),
    ("$$a\n=b$$", 1),
    ("\\boxed{\\frac{1}{2}}", 1),
    ("\\boxed{Alice wins}", 1),
    ("\\begin{align*}a&=b\\\\c&=d\\end{align*}", 1),
    ("$5 and $6", 0),
    ("costs $5, or $6 at most", 0),
    ("I have $20. You have $30.", 0),
    ("\\$5 and \\$6", 0),
    ("between $5 dollars and 6$", 0),
    ("$ a $", 0),
    ("$a", 0),
    ("\\(a", 0),
    ("a\\\\(b\\\\)", 0),
    ("$a\n\nb$", 0),
    ("$\\frac{$", 0),
    ("$\\href{x}{y}$", 0),
    ("$\\def\\a{b}\\a$", 0),
    ("$x^{10}$ is $1$", 2),
    ("\\boxed{unclosed", 0),
    ("$\\pmb{x}$", 1),
    ("$\\text{“$5”}$", 0),
]


@slow
@needs_chromium
def test_what_is_a_formula_and_what_is_not(show: Show) -> None:
    pairs = [(views.rollout("r"), views.rollout_body("", steps=[text for text, _ in FORMULAS]))]
    with show(views.view(pairs, [views.problem("p")])) as seen:
        counted = seen.page.evaluate(
            "[...document.querySelectorAll('.step')].map((e) => e.querySelectorAll('math').length)"
        )
        assert list(zip([text for text, _ in FORMULAS], counted, strict=True)) == FORMULAS
        seen.quiet()
