r"""The grader on answers as the field writes them: collected cases, and siblings of our own.

The collected cases decide as one: nearly all as expected, and no wrong answer credited.
"""

from __future__ import annotations

from field import field_cases, needs_field_cases
from midcourse.checkers import Grader
from midcourse.records import Gold, Verdict

R, W = Verdict.CORRECT, Verdict.INCORRECT


@needs_field_cases
def test_collected_answers_are_graded_as_expected_and_no_wrong_one_is_credited(
    grader: Grader,
) -> None:
    cases = field_cases("grader")
    results = grader.grade((case["input"], Gold("math", case["gold"])) for case in cases)
    failures = [
        f"{case['id']}: {case['input']} against {case['gold']} is {result.verdict.value}"
        for case, result in zip(cases, results, strict=True)
        if result.verdict != case["expected"]
    ]
    credited = [failure for failure in failures if failure.endswith(Verdict.CORRECT.value)]
    assert len(cases) > 200
    assert credited == []
    assert len(failures) <= 0.05 * len(cases), "\n".join(failures)


Case = tuple[str, str, Verdict]
"""A gold answer, what stands in the box, the verdict."""


def check(grader: Grader, cases: list[Case]) -> None:
    responses = [(rf"\boxed{{{answer}}}", Gold("math", gold)) for gold, answer, _ in cases]
    verdicts = [result.verdict for result in grader.grade(responses)]
    surprises = [
        (gold, answer, verdict.value)
        for (gold, answer, expected), verdict in zip(cases, verdicts, strict=True)
        if verdict is not expected
    ]
    assert surprises == []


TINY: list[Case] = [
    (r"\frac{1}{7!}", r"\frac{1}{5040}", R),
    (r"\frac{1}{500!}", r"\frac{1}{501!}", W),
    ("2^{-300}", "2^{-301}", W),
    (r"\sqrt{2}+10^{-40}", r"\sqrt{2}", W),
    (r"\sqrt{2}+10^{-700}", r"\sqrt{2}", W),
    (r"\pi-2^{-900}", r"\pi", W),
    (r"\pi-2^{-900}", r"-2^{-900}+\pi", R),
    ("e^{-200}", "e^{-201}", W),
    ("e^{-200}", "0", W),
    ("0", r"\sqrt{2}\sqrt{3}-\sqrt{6}", R),
    ("0", r"\sin\pi", R),
    (r"\cos\frac{2\pi}{5}", r"\frac{\sqrt5-1}{4}", R),
    (r"\sqrt{5+2\sqrt6}", r"\sqrt2+\sqrt3", R),
    (r"\sqrt{5+2\sqrt6}", r"\sqrt2+\sqrt3+10^{-30}", W),
    ("1-10^{-50}", "1", W),
    (r"\frac{10^{30}+1}{10^{30}}", "1", W),
    ("10^{-20}", r"\frac{1}{10^{20}}", R),
    ("10^{20}+1", "10^{20}", W),
    ("2^{100}+1", "2^{100}", W),
    ("2^{100}", "1267650600228229401496703205376", R),
    (r"\frac{1}{3}\times 10^{-7}", r"\frac{10^{-7}}{3}", R),
    (r"\frac{1}{3}\times 10^{-7}", "0.00000003", W),
    (r"2\sqrt{2}", "2.828427", R),
    (r"2\sqrt{2}", "2.8284271", R),
    (r"2\sqrt{2}", "2.82842712475", R),
    (r"2\sqrt{2}", "2.828428", W),
    (r"2\sqrt{2}", "2.82843", W),
    (r"\frac{\sqrt{2}}{10}", "0.141421", R),
    (r"\frac{\sqrt{2}}{100000000}", "0.00000001", W),
    (r"\frac{\sqrt2}{10^7}", "0.0000001", W),
    ("x+10^{-100}", "x", W),
    ("10^{-20}x", "10^{-21}x", W),
    ("x(x+1)", "x^2+x", R),
    (r"\frac{x}{10^{30}}", r"\frac{x}{10^{31}}", W),
    ("(1,10^{-20})", "(1,10^{-21})", W),
    ("[0,10^{-20}]", "[0,10^{-30}]", W),
    ("x<10^{-20}", "x<10^{-30}", W),
    (r"\begin{pmatrix}1\\10^{-20}\end{pmatrix}", r"\begin{pmatrix}1\\10^{-30}\end{pmatrix}", W),
    (r"\begin{pmatrix}1\\\frac12\end{pmatrix}", r"\begin{pmatrix}1\\0.5\end{pmatrix}", R),
    ("x = 10^{-20} y", "x = 10^{-30} y", W),
    ("7-i", "7.0-1.0i", R),
    (r"\frac{3}{2}x+2", "1.5x+2.0", R),
]


def test_numbers_are_compared_by_their_quotient(grader: Grader) -> None:
    check(grader, TINY)


WRITTEN: list[Case] = [
    ("6", "2(0.5)", W),
    ("6", "2(3)", R),
    ("1", "2(0.5)", R),
    ("2.5", "2(0.5)", W),
    ("10", "10^2", W),
    ("100", "10^2", R),
    ("100", "10^{2}", R),
    ("5", "5^2", W),
    ("25", "5^2", R),
    ("1e400", "10^{400}", R),
    ("10^{-400}", "1e-400", R),
    ("10^{-400}", "1e-401", W),
    ("4", "４", R),
    ("4", "٤", R),
    ("34", "３４", R),
    ("4", "５", W),
    ("3", r"\underbrace{1+1+1}_{3}", R),
    (r"0\le x\le 4^{50}", "[0,2^{100}]", R),
    (r"0\le x\le 4^{50}", "[0,2^{101}]", W),
    ("4", r"10^{10^7}\bmod 7", R),
    ("3", r"10^{10^7}\bmod 7", W),
    ("2", r"17 \bmod 5", R),
    ("3", r"17 \bmod 5", W),
    (r"17 \bmod 5", "2", R),
    (r"n \equiv 2 \pmod{4}", "2", W),
]


def test_numbers_are_read_as_they_are_written(grader: Grader) -> None:
    check(grader, WRITTEN)


GROUPED: list[Case] = [
    (r"11,\! 111,\! 100", "11111100", R),
    (r"0.123\,456\,7", "0.1234567", R),
    (r"12\,345.678\,9", "12345.6789", R),
    ("1{,}2", "12", W),
    ("12", r"1\,2", W),
    ("3,4", r"3,\,4", R),
    ("123,456", "3", W),
    (r"123\,456", "123456", R),
]


def test_groups_of_digits_are_one_number(grader: Grader) -> None:
    check(grader, GROUPED)


ABOUT: list[Case] = [
    ("5", r"x \approx 5", W),
    ("5", r"\approx 5", W),
    ("5", "x ≈ 5", W),
    ("5", r"AB \approx 5", W),
    ("5", r"f(2) \simeq 5", W),
    (r"\sqrt{2}", r"\sqrt{2} \approx 1.414", R),
    (r"\sqrt{2}", r"x = \sqrt{2} \approx 1.414", R),
    (r"\pi", r"\pi \approx 3.14", R),
    (r"x \approx 5.2", "5.2", R),
    (r"x \approx 5.2", r"\approx 5.2", R),
    ("1.414", r"\sqrt{2} \approx 1.414", W),
    ("x = 5, y = 3", r"x \approx 5, y = 3", W),
    ("5,3", r"x \approx 5, 3", W),
    ("5", r"5 \text{ approximately}", W),
    ("100", r"100 \text{ approx.}", W),
    ("100", r"\text{about } 100", W),
]


def test_what_is_only_about_right_is_not_credited(grader: Grader) -> None:
    check(grader, ABOUT)


UPRIGHT: list[Case] = [
    ("2+i", r"2+\mathrm{i}", R),
    ("2", r"2\mathrm{i}", W),
    ("2", r"2\text{e}", W),
    ("2", r"2\mathrm{x}", W),
    ("2x", r"2\mathrm{x}", R),
    ("i", r"\sqrt{-1}", R),
    (r"\cos\theta+i\sin\theta", r"e^{i\theta}", R),
    (r"\cos\theta+\mathrm{i}\sin\theta", r"\mathrm{e}^{\mathrm{i}\theta}", R),
    (r"\cos\theta+i\sin\theta", r"e^{-i\theta}", W),
    ("(1+i)^2", "2i", R),
    (r"\sin\mathrm{x}", r"\sin x", R),
    (r"\frac{\pi}{2}", r"\frac{\mathrm{\pi}}{2}", R),
]


def test_upright_letters_are_letters(grader: Grader) -> None:
    check(grader, UPRIGHT)


DEGREES: list[Case] = [
    (r"60^\circ", r"60\deg", R),
    (r"60^\circ", r"60^{\text{o}}", R),
    (r"60^\circ", "60^{o}", R),
    (r"60^\circ", "60º", R),
    (r"60^\circ", r"60\ \degree", R),
    (r"60^\circ", r"60 \text{ degrees}", R),
    (r"60^\circ", r"60\text{ deg}", R),
    (r"60^\circ", r"61\degree", W),
    ("60", "60^0", W),
    ("1", "60^0", R),
    (r"45^\circ 30'", r"45.5^\circ", R),
    (r"45.5^\circ", "45°30'", R),
    (r"45.51^\circ", r"45^\circ 30' 36''", R),
    (r"12^\circ 15^{\prime}", r"12.25^\circ", R),
    (r"45^\circ 30'", r"45.3^\circ", W),
    (r"45^\circ 30'", r"45^\circ", W),
]


def test_degrees_are_read_however_they_are_spelled(grader: Grader) -> None:
    check(grader, DEGREES)


POWERS_OF_TEN: list[Case] = [
    (r"4.5 \times 10^{33}", "4.5E33", R),
    (r"4.5 \times 10^{33}", "4.5e+33", R),
    (r"3 \cdot 10^{8}", "3e8", R),
    (r"3 \cdot 10^{8}", "3*10^8", R),
    ("2.5 × 10^-3", "0.0025", R),
    (r"1.2\times 10^5", "120000", R),
    (r"1.2\times 10^5", "1.2e6", W),
    ("1.2e-5", "1.2e5", W),
    (r"6.02\times 10^{23}\text{ mol}", "6.02e23", R),
    ("2e-1", "2e", W),
    ("e^2-2e-1", "e^2 - 2e - 1", R),
    ("1.5e3x", "1500x", R),
]


def test_powers_of_ten_are_read_however_they_are_spelled(grader: Grader) -> None:
    check(grader, POWERS_OF_TEN)


WORDS_AND_UNITS: list[Case] = [
    (r"\$12", "12 dollars", R),
    (r"\$12", "12", R),
    (r"\$12", "12 euros", W),
    (r"12 \text{ euros}", r"\$12", W),
    ("€12", r"12\text{ euros}", R),
    ("£5", r"\$5", W),
    (r"\$1.20", r"120 \text{ cents}", R),
    (r"\$1.20", r"1.2 \text{ cents}", W),
    (r"\$0.25", r"5 \text{ nickels}", R),
    (r"10 \text{ dimes}", r"1\text{ dollar}", R),
    (r"10 \text{ dimes}", r"10\text{ dollars}", W),
    ("1,500", r"\$1,500", R),
    (r"7 \text{ AM}", r"7 \text{ PM}", W),
    (r"7 \text{ AM}", r"7 \text{ a.m.}", R),
    (r"7 \text{ AM}", "7", R),
    (r"10:30\text{ a.m.}", r"10:30\text{ p.m.}", W),
    (r"10:30\text{ a.m.}", r"10:30\text{ AM}", R),
    (r"5\text{ km north}", r"5\text{ km south}", W),
    (r"5\text{ km north}", r"5\text{ km}", R),
    (r"90^\circ\text{ clockwise}", r"90^\circ\text{ counterclockwise}", W),
    (r"15\%\text{ profit}", r"15\%\text{ loss}", W),
    (r"3 \text{ boys}", r"3\text{ girls}", W),
    (r"3 \text{ boys}", r"3\text{ boy}", R),
    (r"3 \text{ red apples}", r"3\text{ apples}", R),
    (r"3 \text{ apples}", r"3\text{ red apples}", R),
    (r"3 \text{ red apples}", r"3\text{ green apples}", W),
    ("3 apples", "3 oranges", W),
    (r"100 \text{ CE}", r"100 \text{ BCE}", W),
    (r"1 \text{ minimum}", r"1\text{ maximum}", W),
    (r"5\text{ wins}", r"5\text{ losses}", W),
    (r"20^\circ\text{C}", r"20^\circ\text{F}", W),
    (r"20^\circ\text{C}", r"20\text{ degrees Celsius}", R),
    (r"20^\circ\text{C}", r"68^\circ\text{F}", R),
    (r"100^\circ\text{C}", r"212 \text{ degrees Fahrenheit}", R),
    (r"100^\circ\text{C}", r"212 \text{ degrees Celsius}", W),
    (r"20\text{°C}", r"20^{\circ}\mathrm{C}", R),
    (r"0^\circ\text{C}", r"273.15\text{ kelvin}", R),
    (r"5\text{ hours}", r"300\text{ min}", R),
    (r"2\text{ years}", r"24\text{ months}", R),
    (r"3\text{ decades}", r"30\text{ years}", R),
    (r"2\text{ centuries}", r"200\text{ years}", R),
    (r"2\text{ weeks}", r"14\text{ days}", R),
    (r"2\text{ weeks}", r"2\text{ days}", W),
    (r"2\text{ tons}", r"2\text{ kg}", W),
    (r"2\text{ tons}", r"4000\text{ pounds}", R),
    (r"1.5\text{ m}^3", r"1500\text{ liters}", R),
    (r"1500\text{ mL}", r"1500\text{ cm}^3", R),
    (r"1500\text{ mL}", r"1.5\text{ L}", R),
    (r"1500\text{ mL}", r"1500\text{ L}", W),
    (r"3\text{ gallons}", r"12\text{ quarts}", R),
    (r"3\text{ cups}", r"48\text{ tablespoons}", R),
    (r"2\text{ ft}", r"24\text{ in}", R),
    (r"2\text{ ft}", r"24\text{ inches}", R),
    (r"2\text{ yards}", r"6\text{ feet}", R),
    (r"12\text{ cm}^2", r"1200\text{ mm}^2", R),
    (r"12\text{ cm}^2", r"12\text{ square centimeters}", R),
    (r"12\text{ m}^2", r"12\text{ meters squared}", R),
    (r"12\text{ cm}^2", r"12\text{ square units}", R),
    (r"12\text{ cm}^2", r"12\text{ cm}", W),
    (r"3\text{ kPa}", r"3000\text{ Pa}", R),
    (r"4\text{ J}", r"4\text{ N m}", R),
    (r"4\text{ J}", r"4\text{ N}\cdot\text{m}", R),
    (r"4\text{ J}", r"4\text{ W}", W),
    (r"4\text{ kWh}", r"4000\text{ Wh}", R),
    (r"5\text{ ms}", r"0.005\text{ s}", R),
    (r"72\text{ km/h}", r"20\text{ m/s}", R),
    (r"60\text{ mph}", r"60\text{ miles per hour}", R),
    (r"60\text{ mph}", r"1\text{ mile per minute}", R),
    (r"60\text{ mph}", r"60\text{ km/h}", W),
    (r"9.8\text{ m/s}^2", r"9.8 \frac{\text{m}}{\text{s}^2}", R),
    (r"9.8\text{ m/s}^2", r"9.8 \text{ m s}^{-2}", R),
    (r"3.5 \text{ hours}", r"3 \text{ hours } 30 \text{ minutes}", R),
    (r"5\text{ feet } 3\text{ inches}", r"63\text{ inches}", R),
    (r"5\text{ feet } 3\text{ inches}", r"53\text{ inches}", W),
    (r"180\text{ degrees}", r"\pi\text{ radians}", R),
    (r"30\text{ degrees}", r"30\text{ radians}", W),
    (r"2\pi\text{ cm}", r"20\pi\text{ mm}", R),
    (r"2\pi\text{ cm}", r"2\pi\text{ mm}", W),
    (r"5\text{ km}", r"5\text{ kilometers}", R),
    (r"5\text{ GB}", r"5000\text{ MB}", R),
    (r"1\text{ acre}", r"43560 \text{ square feet}", R),
    (r"1\text{ hectare}", r"10000 \text{ m}^2", R),
    (r"1\text{ AU}", r"149597870.7\text{ km}", R),
    (r"3.26\text{ ly}", r"3.26\text{ light years}", R),
    (r"12\text{ ways}", "12", R),
    (r"12\text{ months}", r"12\text{ moons}", W),
    (r"50\text{ mi}", "50 miles", R),
    ("5 lb", "80 oz", R),
    (r"6\text{ hr}", r"6\text{ hours}", R),
    (r"6\text{ pounds}", r"6\text{ kilograms}", W),
    (r"5\text{ people}", "5", R),
    (r"12 \text{ noon}", r"12\text{ midnight}", W),
    (r"5\text{ Hz}", r"5\text{ s}^{-1}", R),
    (r"8\text{ units}", r"9\text{ cm}", W),
    (r"18 \text{ dollars per day}", "18", R),
    (r"18 \text{ dollars per day}", r"18 \text{ dollars per hour}", W),
    ("20 percent decrease", "20 percent increase", W),
    ("20 percent decrease", r"20\%\text{ decrease}", R),
    ("20 percent decrease", r"20\text{ percent decrease}", R),
    (r"20\%", r"20\text{ percent}", R),
    ("20 percent decrease", r"20\%", R),
]


def test_units_are_converted_and_contradicting_words_refused(grader: Grader) -> None:
    check(grader, WORDS_AND_UNITS)


LETTERS: list[Case] = [
    (r"\sqrt{xy}", r"\sqrt{x}\sqrt{y}", R),
    (r"\sqrt{\frac{x}{y}}", r"\frac{\sqrt{x}}{\sqrt{y}}", R),
    (r"a\sqrt{b}", r"\sqrt{a^2b}", R),
    ("x", r"\sqrt{x^2}", W),
    ("|x|", "x", W),
    ("|x|", r"\sqrt{x^2}", R),
    ("|x|", r"(\sqrt{x})^2", W),
    (r"|x|\sqrt{y}", r"x\sqrt{y}", W),
    (r"|x|\sqrt{y}", r"\sqrt{x^2 y}", R),
    (r"|x|\sqrt{x^2+1}", r"x\sqrt{x^2+1}", W),
    (r"\ln|x|", r"\ln x", W),
    (r"2\ln|x|", r"\ln(x^2)", R),
    (r"2\ln x", r"\ln x^2", R),
    (r"\ln\frac{a}{b}", r"\ln a-\ln b", R),
    (r"\ln(a+b)", r"\ln a+\ln b", W),
    (r"\sqrt{a+b}", r"\sqrt{a}+\sqrt{b}", W),
    (r"\sqrt{a^2+b^2}", "a+b", W),
    ("x^{3/2}", r"x\sqrt{x}", R),
    ("x^{-1/2}", r"\frac{1}{\sqrt{x}}", R),
    ("(ab)^n", "a^n b^n", R),
    ("(a+b)^n", "a^n+b^n", W),
    ("2^{n+1}", r"2\cdot 2^n", R),
    ("4^n", "2^{2n}", R),
    ("(2^n)^2", "4^n", R),
    (r"\frac{x^n}{y^n}", r"\left(\frac{x}{y}\right)^n", R),
    ("(-1)^{n+1}", "-(-1)^n", R),
    ("(-1)^{n+1}", "(-1)^n", W),
    (r"e^{\ln x}", "x", R),
    (r"\log_2 8x", r"3+\log_2 x", R),
    (r"\frac{\ln x}{\ln 2}", r"\log_2 x", R),
    (r"\sqrt[3]{x^2}", "x^{2/3}", R),
    (r"\sqrt[6]{x^2}", r"\sqrt[3]{x}", R),
    (r"\sqrt{x^2-1}", r"\sqrt{(x-1)(x+1)}", R),
    (r"\sqrt{x+1}\sqrt{x-1}", r"\sqrt{x^2-1}", R),
    (r"\sin^2 x+\cos^2 x", "1", R),
    (r"\sin 2x", r"2\sin x\cos x", R),
    (r"\sin 2x", r"2\sin x", W),
    (r"\frac{x^2-1}{x-1}", "x+1", R),
    (r"\frac{1}{1-x}-1", r"\frac{x}{1-x}", R),
    (r"\frac{x}{y}", r"\frac{y}{x}", W),
    (r"\frac{n(n+1)}{2}", r"\sum_{k=1}^{n} k", R),
    (r"\frac{n(n-1)}{2}", r"\sum_{k=1}^{n} k", W),
    ("2^n-1", r"\sum_{k=0}^{n-1} 2^k", R),
    ("n!", r"n\cdot(n-1)!", R),
    ("n!", "(n-1)!", W),
    (r"\binom{n}{2}", r"\frac{n(n-1)}{2}", R),
    (r"\binom{n}{k}", r"\frac{n!}{k!(n-k)!}", R),
    (r"\binom{n}{k}", r"\binom{n}{k+1}", W),
    (r"\lfloor \frac{n}{2} \rfloor", r"\lfloor n/2 \rfloor", R),
    (r"\lfloor \frac{n}{2} \rfloor", r"\frac{n}{2}", W),
    (r"\lceil x \rceil", r"\lfloor x \rfloor+1", W),
    (r"\frac{a+b+|a-b|}{2}", r"\max(a,b)", R),
    (r"\max(a,b)", r"\min(a,b)", W),
    ("x^{100}-1", "(x^{50}-1)(x^{50}+1)", R),
    ("x^{100}-1", "x^{100}-2", W),
    ("a_1+a_2", "a_2+a_1", R),
    ("a_1", "a_2", W),
    ("f(x)+1", "1+f(x)", R),
    ("f(x)", "f(y)", W),
    (r"\frac{\sqrt{2}}{2}x", r"\frac{x}{\sqrt{2}}", R),
    (r"1-\frac{1}{n}", r"\frac{n-1}{n}", R),
    (r"\frac{1}{x}", "x^{-2}", W),
    (r"\tan x", r"\frac{\sin x}{\cos x}", R),
    (r"\arctan x", r"\tan^{-1} x", R),
    (r"\arcsin x+\arccos x", r"\frac{\pi}{2}", R),
    (r"\int_0^x t\,dt", r"\frac{x^2}{2}", R),
    ("x^2+C", "C+x^2", R),
    ("x^2+C", "x^2", W),
    (r"\ln 8", r"3\ln 2", R),
    (r"\log_3 27", "3", R),
    (r"\log 100", "2", R),
    (r"\log 100", "2.1", W),
    (r"\sqrt{8}+\sqrt{2}", r"3\sqrt{2}", R),
    (r"\sqrt[3]{2}", r"\sqrt[3]{3}", W),
    ("e^{x+y}", "e^x e^y", R),
    (r"\cosh x", r"\frac{e^x+e^{-x}}{2}", R),
    ("x^2", "x^3", W),
    (r"\frac{a}{b}\div c", r"\frac{a}{bc}", R),
    ("0.5x", r"\frac{x}{2}", R),
    ("0.333x", r"\frac{x}{3}", W),
    ("3(x-2)", "3x-6", R),
    ("2(x+1)(3)", "6x+6", R),
    ("y=2x+1", "y-1=2x", R),
    ("x^2+y^2=1", "y^2+x^2=1", R),
    ("x^2+y^2=1", "x^2+y^2=2", W),
    ("2x+4y=6", "x+2y=3", R),
    ("2x+4y=6", "x+2y=4", W),
    (r"(\sqrt{x}+\sqrt{y})^2", r"x+2\sqrt{xy}+y", R),
    (r"\frac{1}{\sqrt{x}+\sqrt{y}}", r"\frac{\sqrt{x}-\sqrt{y}}{x-y}", R),
    (r"\sqrt{x^4}", "x^2", R),
    (r"\sqrt{4x^2+4}", r"2\sqrt{x^2+1}", R),
    ("n^{1/n}", r"\sqrt[n]{n}", R),
    (r"\frac{\Gamma(n+1)}{n}", r"\Gamma(n)", R),
    (r"-\ln(1-x)", r"\ln\frac{1}{1-x}", R),
    (r"\ln(1-x)", r"\ln(x-1)", W),
    (r"\frac{1-x^{n+1}}{1-x}", r"\sum_{k=0}^n x^k", R),
    (r"\prod_{k=1}^n k", "n!", R),
    ("x^{1/2}", "x^{1/3}", W),
    (r"\sqrt{-x}", r"\sqrt{-x}", R),
    (r"\sqrt{-4x}", r"2\sqrt{-x}", R),
    ("(x-y)^2", "(y-x)^2", R),
    ("(x-y)^3", "(y-x)^3", W),
    ("|a-b|", "|b-a|", R),
    (r"z\bar{z}", r"\bar{z}z", R),
    (r"\sum_{i=1}^n a_i", r"\sum_{i=1}^n b_i", W),
    ("5^{2^{10}}", "5^{1024}", R),
    ("5^{2^{10}}", "5^{1023}", W),
    ("2^{2^{100}}", "2^{2^{100}}", R),
    ("2^{2^{100}}", "2^{2^{101}}", W),
    ("x^{2^{100}}", "x^{2^{101}}", W),
    (r"\frac{2022!}{2020!}", r"2022\cdot 2021", R),
    (r"\max(a,b,c)", r"\max(a,b)", W),
    ("|a|+|b|", "|a+b|", W),
    ("|a|+|b|", "a+b", W),
    (r"\lfloor x \rfloor", r"\lceil x \rceil - 1", W),
    (r"\lceil x \rceil", r"-\lfloor -x \rfloor", R),
    (r"\lfloor x+1 \rfloor", r"\lfloor x \rfloor+1", R),
    (r"\lfloor 2x \rfloor", r"2\lfloor x \rfloor", W),
    (r"\lfloor \frac{n}{2} \rfloor", r"\lceil \frac{n-1}{3} \rceil", W),
    (r"\lfloor \frac{n}{2} \rfloor", r"\lfloor \frac{n+1}{2} \rfloor", W),
    (r"\lceil \frac{n+1}{2} \rceil", r"\lfloor \frac{n}{2} \rfloor +1", R),
    (r"n \bmod 2", r"n \bmod 2", R),
]


def test_letters_are_compared_where_roots_and_logarithms_are_real(grader: Grader) -> None:
    check(grader, LETTERS)


FURTHER: list[Case] = [
    ("2-i", r"2-\mathrm{~i}", R),
    ("e", r"\mathrm{e}", R),
    ("i", r"\mathrm{i}", R),
    ("i", "1", W),
    (r"2\pi i", r"2\pi\mathrm{i}", R),
    ("-1", r"\mathrm{e}^{\mathrm{i}\pi}", R),
    (r"\frac{e}{2}", r"\frac{\mathrm{e}}{2}", R),
    ("4.5e33", r"4.5\mathrm{E}33", R),
    (r"1.6\times 10^{-19}\text{ C}", r"1.6e-19\text{ C}", R),
    (r"1.6\times 10^{-19}\text{ C}", r"1.6e-18\text{ C}", W),
    (r"\frac{1}{10^9}", "1e-9", R),
    (r"\frac{\sqrt{4}}{2000}", "1e-3", R),
    (r"\frac{\sqrt{4}}{2000}", "1 x 10^-3", R),
    ("(1e-9, 2)", "(10^{-9}, 2)", R),
    ("1000000", "1'000'000", R),
    ("0.123456", "0.123 456", R),
    (r"60^\circ", "60^∘", R),
    (r"60^\circ", r"60\circ", R),
    (r"60^\circ", "60^°", R),
    (r"60^\circ", r"60^{\mathrm{o}}", R),
    (r"-45^\circ 30'", r"-45.5^\circ", R),
    (r"\sin x + 1", r"1+\sin(x)", R),
    (r"f\circ g", r"f \circ g", R),
    ("5", r"x \sim 5", W),
    ("5", "approximately 5", W),
    ("5", r"\text{approximately } 5", W),
    ("5", r"\text{about 5}", W),
    ("5", "roughly 5", W),
    (r"5\text{ light-years}", r"5\text{ ly}", R),
    (r"5\text{ kilowatt-hours}", r"5\text{ kWh}", R),
    (r"5\ \mu\text{s}", r"5\text{ microseconds}", R),
    (r"5\text{ μm}", r"5\times10^{-6}\text{ m}", R),
    (r"5\text{ μm}", r"5\text{ m}", W),
    ("50¢", r"\$0.50", R),
    ("5€", r"5\text{ euros}", R),
    (r"5\,\Omega", r"5\text{ volts}", W),
    (r"5\Omega", r"5\Omega", R),
    (r"5\text{ m³}", r"5000\text{ L}", R),
    (r"5\text{ sq. ft.}", r"5\text{ square feet}", R),
    (r"5\text{ cms}", r"5\text{ cm}", R),
    (r"5\text{ lbs}", r"5\text{ pounds}", R),
    (r"5\text{ hrs}", r"5\text{ hours}", R),
    (r"5\text{ mins}", r"5\text{ minutes}", R),
    (r"5\text{ kgs}", r"5000\text{ g}", R),
    (r"5\text{ yrs}", r"60\text{ months}", R),
    (r"5\text{ USD}", r"\$5", R),
    (r"300\text{ K}", r"26.85^\circ\text{C}", R),
    (r"36\text{ kmph}", r"10\text{ m/s}", R),
    (r"100\text{ cm}", r"1\text{ metre}", R),
    (r"3\text{ ft}^2", r"3\text{ sq ft}", R),
    (r"3\text{ yd}^3", r"81\text{ ft}^3", R),
    (r"3\text{ yd}^3", r"81\text{ ft}^2", W),
    (r"8\text{ fluid ounces}", r"1\text{ cup}", R),
    (r"1\text{ pint}", r"16\text{ fl oz}", R),
    (r"6\text{ feet}", r"2\text{ yards}", R),
    (r"3\text{ scores}", "3", R),
    (r"7\text{ days}", r"7\text{ years}", W),
    (r"1\text{ millennium}", r"10\text{ centuries}", R),
    (r"2\text{ grams}", r"2000\text{ milligrams}", R),
    (r"1000\text{ W}", r"1\text{ kW}", R),
    (r"1000\text{ W}", r"1\text{ MW}", W),
    (r"1\text{ kJ}", r"1000\text{ J}", R),
    (r"1\text{ bar}", r"100\text{ kPa}", R),
    (r"1\text{ nautical mile}", r"1852\text{ m}", R),
    (r"1\text{ mile}", r"1\text{ nautical mile}", W),
    (r"1\text{ metric ton}", r"1\text{ ton}", W),
    (r"1\text{ metric ton}", r"1000\text{ kg}", R),
    (r"5\text{ rupees}", r"5\text{ dollars}", W),
    (r"5\text{ pesos}", r"5\text{ yen}", W),
    (r"5\text{ feet}", r"5\text{ square feet}", W),
    (r"5\text{ m/s}", r"5\text{ m/s}^2", W),
    (r"5\text{ per day}", r"5\text{ per week}", W),
    (r"12\text{ miles/gallon}", r"12\text{ mpg}", R),
    (r"10\%", "0.1", R),
    (r"\frac{1}{10^{30}}", "0", W),
    (r"\left(\frac{1}{2}\right)^{100}", r"\left(\frac{1}{2}\right)^{99}", W),
    ("1, 10^{-30}", "1, 0", W),
    (r"\{10^{-30}\}", r"\{10^{-31}\}", W),
    (r"\sin(10^{-30})", "10^{-30}", W),
    (r"\pm 10^{-20}", r"\pm 10^{-21}", W),
    ("y=10^{-20}x", "y=10^{-21}x", W),
    ("1-(1-10^{-10})^5", "0", W),
    (r"\sqrt{10^{40}+1}", "10^{20}", W),
    ("x^2+10^{-20}", "x^2", W),
    ("(-10^{-20},10^{-20})", "(-10^{-21},10^{-21})", W),
    (r"[0,1]\cup[2,3+10^{-20}]", r"[0,1]\cup[2,3]", W),
    (r"(0,1)\cup(10^{-20}, 5)", r"(0,1)\cup(10^{-21},5)", R),
    ("x>10^{-30}", "x>0", W),
    ("x+y=10^{-30}", "x+y=0", W),
    (r"5\text{ minutes}", r"300\text{ seconds}", R),
    (r"2\text{ hours ago}", r"2\text{ hours later}", W),
    (r"\sqrt{a^2 b}", r"a\sqrt{b}", R),
    (r"\sqrt{\frac{a^3}{b}}", r"a\sqrt{\frac{a}{b}}", R),
    (r"\sqrt{2gh}", r"\sqrt{2}\sqrt{g}\sqrt{h}", R),
    (r"2\pi\sqrt{\frac{l}{g}}", r"\frac{2\pi\sqrt{l}}{\sqrt{g}}", R),
    (r"\ln(x^3)", r"3\ln x", R),
    (r"\log_a(xy)", r"\log_a x + \log_a y", R),
    (r"\ln\sqrt{x}", r"\frac12 \ln x", R),
    ("x^{a+b}", "x^a x^b", R),
    ("(x^a)^b", "x^{ab}", R),
    (r"\sqrt[n]{x^n}", "x", R),
    (r"e^{\frac{1}{2}\ln x}", r"\sqrt{x}", R),
    (r"\triangle ABC \sim \triangle DEF", r"\triangle ABC \sim \triangle XYZ", W),
    (r"\triangle ABC \cong \triangle DEF", r"\triangle ABC \cong \triangle DFE", W),
    (r"n! \approx n^n", r"n! \approx n^2", W),
    (r"\sqrt{2}\approx 1.41", r"\sqrt{2} \approx 1.414", R),
    (r"\sqrt{2}\approx 1.41", r"\sqrt{3} \approx 1.73", W),
    (r"\frac{1}{3} \approx 0.33", r"\frac13", R),
    (r"x \approx 5", r"x \approx 6", W),
    (r"30^\circ\text{ E}", r"30^\circ", R),
    (r"30^\circ\text{ E}", r"30^\circ\text{ W}", W),
    (r"8\text{ units}", r"8\text{ cm}", R),
    (r"8\text{ cm}", r"8\text{ square units}", W),
    (r"8\text{ cm}^2", r"8\text{ square units}", R),
    (r"8\text{ units}", r"8\text{ square units}", W),
    (r"8\text{ square units}", r"8\text{ units}^2", R),
    (r"2\mu x", "2μx", R),
    ("2", r"2\Omega", W),
    (r"5\text{ }\Omega", r"5\text{ }\Omega", R),
    (r"5\text{ }\text{Ω}", r"5\text{ ohms}", R),
    (r"\text{E}", "E", R),
    (r"4.5\text{E}3", "4500", R),
    (r"1-\frac{1}{e} \approx 0.632", r"1-\frac{1}{e}", R),
    (r"1-\frac{1}{e}", r"1-\frac{1}{e} \approx 0.632", R),
]


def test_further_spellings_of_numbers_and_units(grader: Grader) -> None:
    check(grader, FURTHER)
