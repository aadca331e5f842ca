"""A domain of one's own: what docs/domains.md builds from nothing runs; what is wrong is told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from midcourse.checkers import AnswerChecker, Grader, checker_named, registry
from midcourse.config import Recipe, load_recipe
from midcourse.data import load_problems, validate_problems
from midcourse.data.task_references import WRITERS as WORKED
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.errors import ConfigError, DataError
from midcourse.pipeline import Method, Session
from midcourse.records import Condition, SftRow, Verdict
from midcourse.steps import rule_named, split_steps
from runs import ready, run_to
from test_data import needs_gym

PAGE = Path(__file__).parent.parent / "docs" / "domains.md"
FILES = re.compile(r"<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<text>.*?)\n```\n", re.DOTALL)
SCRIPT = [
    ["leads astray", '<intervention>{"content": "*2 makes 8", "location": 2}</intervention>'],
    [r"\*2 makes 8\n$", "+3 makes 11\nMoves: +3 *2 +3"],
    [".", "+3 makes 4\n+3 makes 7\nMoves: +3 +3", "+3 makes 4\n+3 makes 7\nMoves: +3 +3 "],
]


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the page describes, as the working folder."""
    for name, text in FILES.findall(PAGE.read_text("utf-8")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        if name.partition(".")[0] in ("reach", "broken"):
            del sys.modules[name]


def test_the_documented_domain_is_under_a_hundred_lines() -> None:
    texts = [text for _, text in FILES.findall(PAGE.read_text("utf-8"))]
    assert len(texts) == 4
    assert sum(text.count("\n") + 1 for text in texts) < 100


def test_the_documented_domain_runs(domain: Path) -> None:
    with Grader() as grader:
        assert validate_problems("reach:rows", grader, checker="reach:Reach") == []
        (problem, *_) = load_problems("reach:rows", checker="reach:Reach")
        answers = (f"Moves: {problem.answer}", "Moves: *2", "no idea")
        graded = grader.grade((f"So.\n{answer}", problem.gold) for answer in answers)
        verdicts = [result.verdict for result in graded]
        assert verdicts == [Verdict.CORRECT, Verdict.INCORRECT, Verdict.NO_ANSWER]
    (domain / "script.json").write_text(json.dumps(SCRIPT))
    settings = ["engine.kind=scripted", "engine.script=script.json", "model.path=lab"]
    recipe = load_recipe(domain / "my.toml", [*settings, "sample.num_rollouts=4"])

    def read(session: Session, made: Method) -> tuple[set[str], int]:
        ready(session, made)
        verified = made.interventions.verified[Condition.PREFIX_INTERVENTION]
        graders = {grade.grader for grade in session.read(verified.grades)}
        return graders, len(list(session.read(made.hard.statuses)))

    graders, num_problems = run_to(domain / "run", recipe, read)
    assert num_problems
    (grader_name,) = graders
    assert grader_name.startswith("1+"), "the module's content is part of the checker's version"


def test_the_command_line_finds_a_domain_in_the_working_folder(domain: Path) -> None:
    command = ["-m", "midcourse", "validate", "reach:rows", "--checker", "reach:Reach"]
    done = subprocess.run(
        [sys.executable, *command], cwd=domain, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "reach:rows: every problem is sound\n")


# --- what a data file may not do ---------------------------------------------------------------


@pytest.mark.parametrize("more", [{"answer": "1"}, {"answer": "1", "entry": {}}, {}])
def test_a_data_file_loads_no_code(domain: Path, more: dict[str, object]) -> None:
    (domain / "trap.py").write_text("open('sprung', 'w').close()\n")
    file = domain / "rows.jsonl"
    file.write_text(json.dumps({"problem": "What?", "checker": "trap:Checker", **more}) + "\n")
    with pytest.raises(DataError, match=r"'trap:Checker' is code: name it in problems\.checker"):
        load_problems(file)
    assert not (domain / "sprung").exists()


# --- plugins that are wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("Checker = 3", "is no checker: it has no name"),
        ("class Checker:\n    name = 'x'", "is no checker: it has no version"),
        ("", "has no Checker"),
        ("import no_such_module", "cannot be imported (ModuleNotFoundError"),
        ("raise SystemError('no')", "cannot be imported (SystemError: no)"),
        ("def (", "cannot be imported (SyntaxError"),
    ],
)
def test_a_checker_that_cannot_be_used_is_one_line(
    domain: Path, request: pytest.FixtureRequest, module: str, says: str
) -> None:
    name = f"broken{abs(hash(request.node.name))}"
    (domain / f"{name}.py").write_text(module + "\n")
    with pytest.raises(ConfigError) as refused:
        checker_named(f"{name}:Checker")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "json.decoder:JSONDecoder"])
def test_pythons_own_library_is_no_plugin(name: str) -> None:
    with pytest.raises(ConfigError, match="Python's own library"):
        checker_named(name)
    with pytest.raises(ConfigError, match="Python's own library"):
        rule_named(name)


def test_a_function_that_fails_is_one_line(domain: Path) -> None:
    (domain / "brokenrows.py").write_text(
        "def rows():\n    yield {'problem': 'a', 'answer': '1'}\n    raise OSError('gone')\n"
        "def others():\n    yield 'a'\n"
    )
    with pytest.raises(DataError, match="brokenrows:rows: fails: OSError: gone"):
        load_problems("brokenrows:rows")
    with pytest.raises(DataError, match="row 1: not a dictionary"):
        load_problems("brokenrows:others")


# --- entry points ------------------------------------------------------------------------------


def test_a_package_brings_a_checker_under_a_short_name(
    domain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("moves", "reach:Reach", registry.GROUP)
    monkeypatch.setattr(registry, "installed", lambda group: {"moves": point})
    assert "moves" in registry.checker_names()
    assert checker_named("moves").extract("Moves: +3") == "+3"
    (domain / "rows.jsonl").write_text(
        json.dumps({"problem": "a", "answer": "+3", "checker": "moves", "entry": {"target": 4}})
    )
    assert load_problems(domain / "rows.jsonl")[0].checker == "moves"


# --- a checker of one function -----------------------------------------------------------------


def test_one_function_makes_a_checker() -> None:
    checker = AnswerChecker("sum", "1", lambda answer, gold: int(answer) == int(gold))
    assert checker.extract(checker.state("4")) == "4"
    with Grader() as grader:
        assert checker.leaks(r"So \boxed{4}.", "4", grader.equal)
        assert checker.leaks("It is 1234 then.", "1234", grader.equal)
        assert not checker.leaks("It is 4 then.", "4", grader.equal), "a digit stands everywhere"


# --- tasks of reasoning-gym ----------------------------------------------------------------------


@needs_gym
@pytest.mark.parametrize("task", WORKED)
def test_an_intervention_from_a_worked_reference_solves_a_task(
    task: str, tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    path = f"reasoning-gym:{task}@9"
    [problem] = load_problems(path, limit=1)
    step, *rest = split_steps(str(problem.reference_solution))
    attempt = "This is wrong.\n\nThe answer is \\boxed{no idea}."
    content = json.dumps({"content": step.strip(), "location": 1})
    script = [
        ["Compare and intervene", f"<intervention>{content}</intervention>"],
        [f"{re.escape(step.strip())}\\s*$", "".join(rest)],
        [".", *(attempt + " " * n for n in range(8))],
    ]
    Path(recipe_data["engine"]["script"]).write_text(json.dumps(script))
    recipe = Recipe.model_validate(recipe_data | {"problems": {"path": path, "limit": 1}})

    def read(session: Session, made: Method) -> tuple[list[SftRow], set[Verdict]]:
        verified = made.interventions.verified[Condition.PREFIX_INTERVENTION]
        rows = ready(session, made)
        return rows, {grade.verdict for grade in session.read(verified.grades)}

    [row], verdicts = run_to(tmp_path / "run", recipe, read)
    assert verdicts == {Verdict.CORRECT}, "by the task's own verifier"
    text = ByteTokenizer().decode(row.input_ids[row.prompt_tokens :])
    assert text.split() == step.split()
