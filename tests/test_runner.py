"""Stages as values and the run directory: what names them, what resumes, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import midcourse.prompts
from midcourse.config import Recipe
from midcourse.errors import ArtifactError, ConfigError, EngineError
from midcourse.pipeline import Method, Session
from midcourse.progress import SilentProgress
from midcourse.records import Solvability
from midcourse.run import Keyed, Run, Stage, Work, identity_of, read_recipe
from midcourse.stages.sample import duplicate_share
from midcourse.store.files import read_checked_json, write_checked_json
from midcourse.store.stage import StageStore
from runs import run_to


@dataclass(frozen=True)
class Note:
    """A record for tests."""

    note_id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class NoteSettings:
    texts: tuple[str, ...]
    loud: bool = False
    reads: Stage[Note, Any] | None = None


def write_notes(settings: NoteSettings, work: Work[Note]) -> Iterator[Keyed[Note]]:
    before = [note.text for note in work.reader.read(settings.reads)] if settings.reads else []
    for text in (*before, *settings.texts):
        if text == "fails":
            work.failures.add("no answer")
        elif text not in work.done:
            yield text, [Note(text, text.upper() if settings.loud else text)]


def notes(*texts: str, **settings: Any) -> Stage[Note, NoteSettings]:
    return Stage(
        name="note",
        label=" ".join(texts),
        record=Note,
        settings=NoteSettings(texts=texts, **settings),
        make=write_notes,
        outcome=lambda note: "loud" if note.text.isupper() else "plain",
        total=lambda settings, reader: len(settings.texts),
    )


@pytest.fixture
def run(tmp_path: Path, recipe: Recipe) -> Iterator[Run]:
    with Run(tmp_path / "run", recipe, SilentProgress()) as made:
        yield made


def test_settings_and_inputs_name_a_stage_and_labels_do_not() -> None:
    plain = notes("a")
    assert plain.key == replace(plain, label="another").key
    assert plain.key != notes("a", "b").key
    assert plain.key != notes("a", loud=True).key
    assert notes("b", reads=plain).key != notes("b", reads=notes("a", loud=True)).key
    assert notes("b", reads=plain).inputs == (plain,)


def test_a_field_that_a_later_release_adds_renames_nothing() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(NoteSettings):
        added: int = 3

    before, after = NoteSettings(texts=("a",)), Later(texts=("a",))
    assert identity_of(before) == identity_of(after)
    assert identity_of(before) != identity_of(Later(texts=("a",), added=4))


def test_what_has_no_identity_cannot_be_a_setting() -> None:
    with pytest.raises(TypeError, match="a setting of type object has no identity"):
        identity_of({"x": object()})


def test_a_stage_is_made_once_and_read_as_it_was_made(run: Run) -> None:
    stage = notes("a", "b", loud=True)
    artifact = run.complete(stage, None)
    assert [note.text for note in run.read(stage)] == ["A", "B"]
    assert artifact.manifest["counts"] == {"loud": 2}
    assert artifact.manifest["key"] == stage.key == artifact.path.name
    made = {path: path.stat().st_mtime_ns for path in artifact.path.iterdir()}
    run.complete(replace(stage, make=lambda settings, work: 1 / 0), None)  # type: ignore[arg-type,return-value]
    assert made == {path: path.stat().st_mtime_ns for path in artifact.path.iterdir()}


def test_failed_requests_keep_the_rest_and_leave_the_stage_open(run: Run) -> None:
    stage = notes("a", "fails", "b")
    with pytest.raises(EngineError, match=r"1 request failed.*run the same command again"):
        run.complete(stage, None)
    assert not run.is_complete(stage)
    with StageStore(run.path(stage), Note) as store:
        assert [text in store.done for text in ("a", "fails", "b")] == [True, False, True]


def test_reading_what_is_not_complete_is_one_line(run: Run) -> None:
    with pytest.raises(ArtifactError, match="note a is not complete: run it first"):
        list(run.read(notes("a")))


def test_a_place_that_holds_another_artifact_is_refused(run: Run) -> None:
    run.complete(replace(notes("a"), folder="notes"), None)
    with pytest.raises(ArtifactError, match="was made from other data"):
        run.complete(replace(notes("b"), folder="notes"), None)


def test_an_alarm_stops_a_run_each_time(run: Run) -> None:
    stage = replace(notes("a"), alarm=lambda manifest: f"{manifest['num_records']} is too few")
    for _ in range(2):
        with pytest.raises(EngineError, match="1 is too few"):
            run.complete(stage, None)


# --- resuming ----------------------------------------------------------------------------------

TUNED: list[dict[str, Any]] = [
    {"grade": {"num_workers": 1, "timeout_seconds": 9.0, "memory_mib": 1024}},
    {"train_rl": {"micro_batch_size": 2, "save_every": 7}},
    {"train_sft": {"micro_batch_size": 2, "accelerate": "accelerate/ddp"}},
    {"sample": {"num_rollouts": 4, "max_duplicate_share": 0.95}},
    {"name": "renamed"},
]


def complete_rows(session: Session, m: Method) -> list[str]:
    session.complete(m.models.rows)
    directory = session.run.directory
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("tuned", TUNED, ids=lambda tuned: next(iter(tuned)))
def test_a_tuned_key_goes_on_where_the_run_was(
    tmp_path: Path, recipe_data: dict[str, Any], tuned: dict[str, Any]
) -> None:
    recipe = Recipe.model_validate(recipe_data)
    run_to(tmp_path / "run", recipe, lambda s, m: s.complete(m.proposals))
    changed = Recipe.model_validate({**recipe_data, **tuned})
    there = run_to(tmp_path / "run", changed, complete_rows)
    whole = run_to(tmp_path / "whole", recipe, complete_rows)
    assert there == whole
    assert read_recipe(tmp_path / "run" / "config.resolved.json") == changed


def test_a_directory_of_an_earlier_release_goes_on(tmp_path: Path, recipe: Recipe) -> None:
    first = run_to(tmp_path / "run", recipe, complete_rows)
    resolved = tmp_path / "run" / "config.resolved.json"
    data = read_checked_json(resolved, "")
    del data["verify"]["shift"], data["train_rl"]["vllm_gpu_share"], data["warmup"]
    write_checked_json(resolved, data)
    assert run_to(tmp_path / "run", recipe, complete_rows) == first


def test_a_directory_of_the_former_layout_is_one_line(tmp_path: Path, recipe: Recipe) -> None:
    run_to(tmp_path / "run", recipe, complete_rows)
    resolved = tmp_path / "run" / "config.resolved.json"
    data = read_checked_json(resolved, "")
    data["engine"]["max_batch_rows"] = 256  # Every kind's keys stood in one section.
    write_checked_json(resolved, data)
    with pytest.raises(ArtifactError, match="use another --run-dir") as caught:
        run_to(tmp_path / "run", recipe, complete_rows)
    assert "\n" not in str(caught.value)


def test_recipes_that_share_a_directory_share_what_they_have_in_common(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    keys = set()
    for name, num_continuations in (("one", 4), ("two", 2)):
        data = {**recipe_data, "name": name}
        data["verify"] = {**data["verify"], "num_continuations": num_continuations}
        recipe = Recipe.model_validate(data)
        run_to(tmp_path / "run", recipe, complete_rows, shared=True)
        keys |= {path.parent.name for path in (tmp_path / "run").rglob("propose/*/manifest.json")}
    assert len(keys) == 1
    assert len(list((tmp_path / "run" / "build-sft").iterdir())) == 2
    with pytest.raises(ArtifactError, match="belongs to several recipes"):
        run_to(tmp_path / "run", recipe, complete_rows)


# --- what an artifact is named by ---------------------------------------------------------------


def keys_of(recipe_data: dict[str, Any], **changes: Any) -> dict[str, str]:
    """Return the keys of the method's steps by stage and label."""
    from midcourse.pipeline import Setup, method

    made = method(Setup.of(Recipe.model_validate({**recipe_data, **changes})))
    return {f"{step.name} {step.label}": step.key for steps in made.steps() for step in steps}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A copy of the default prompts."""
    packaged = Path(midcourse.prompts.__file__).parent / "sets" / "default"
    return Path(shutil.copytree(packaged, tmp_path / "mine"))


def test_a_copy_of_a_prompt_set_samples_nothing_again(
    recipe_data: dict[str, Any], prompts: Path
) -> None:
    assert keys_of(recipe_data, prompts=str(prompts)) == keys_of(recipe_data, prompts="default")


@pytest.mark.parametrize(
    ("file", "turns", "first"),
    [
        ("solve", "two", "sample train"),
        ("review", "two", "propose train"),
        ("guided_solve", "two", "propose train"),
        ("guided_solve", "single", None),
        ("reflect", "two", None),
    ],
)
def test_an_edited_prompt_renames_what_reads_it(
    recipe_data: dict[str, Any], prompts: Path, file: str, turns: str, first: str | None
) -> None:
    recipe_data["propose"]["turns"] = turns
    before = keys_of(recipe_data, prompts=str(prompts))
    path = prompts / f"{file}.md"
    path.write_text(path.read_text() + "\nBe brief.")
    after = keys_of(recipe_data, prompts=str(prompts))
    renamed = [name for name in before if before[name] != after[name]]
    assert (renamed[0] if renamed else None) == first


def test_a_script_is_known_by_its_text_wherever_it_lies(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    script = Path(recipe_data["engine"]["script"])
    copy = tmp_path / "copy.json"
    copy.write_text(script.read_text())
    engine = {"kind": "scripted", "script": str(copy)}
    assert keys_of(recipe_data, engine=engine) == keys_of(recipe_data)
    before = keys_of(recipe_data, proposer_engine=recipe_data["engine"])
    assert keys_of(recipe_data, proposer_engine=engine) == before
    copy.write_text(json.dumps([[".", "It is \\boxed{4}."]]))
    renamed = keys_of(recipe_data, proposer_engine=engine)
    assert renamed["sample train"] == before["sample train"]
    assert renamed["propose train"] != before["propose train"]


def test_another_checker_version_grades_again_and_samples_nothing(
    recipe_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from midcourse.checkers import checker_named

    before = keys_of(recipe_data)
    monkeypatch.setattr(type(checker_named("math")), "version", "math-verify/99")
    after = keys_of(recipe_data)
    assert after["sample train"] == before["sample train"]
    assert after["grade train"] != before["grade train"]


def test_truncated_rollouts_are_asked_about_as_the_recipe_says(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    recipe_data["sample"] |= {"sampling": {"max_tokens": 30}, "max_duplicate_share": 1}
    asked = {}
    for is_incorrect in (True, False):
        recipe_data["select"] = {"truncated_is_incorrect": is_incorrect}
        recipe = Recipe.model_validate({**recipe_data, "name": f"truncated-{is_incorrect}"})
        asked[is_incorrect] = run_to(
            tmp_path / "run", recipe, lambda s, m: list(s.read(m.cases)), shared=True
        )
    assert asked[True]
    assert {case.finish_reason for case in asked[True]} == {"length"}
    assert asked[False] == []


def test_problems_are_known_by_what_they_hold_not_by_their_file(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path
) -> None:
    before = keys_of(recipe_data)
    moved = tmp_path / "moved.jsonl"
    moved.write_text(problem_file.read_text())
    assert keys_of(recipe_data, problems={"path": str(moved)}) == before
    moved.write_text(problem_file.read_text().replace('"answer": "4"', '"answer": "5"'))
    after = keys_of(recipe_data, problems={"path": str(moved)})
    assert after["sample train"] == before["sample train"]
    assert after["grade train"] != before["grade train"]


# --- complete artifacts -------------------------------------------------------------------------


def test_the_duplicate_share_is_in_the_manifest(tmp_path: Path, recipe: Recipe) -> None:
    def check(session: Session, m: Method) -> None:
        session.complete(m.train.rollouts)
        found = duplicate_share(session.read(m.train.rollouts))
        manifest = session.run.artifact(m.train.rollouts).manifest
        assert manifest["duplicates"] == {
            "num_contexts": found.num_contexts,
            "num_identical": found.num_identical,
        }
        assert found.num_contexts == 3

    run_to(tmp_path / "run", recipe, check)


def test_a_complete_stage_is_not_opened(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to(tmp_path / "run", recipe, lambda s, m: s.complete(m.statuses))

    def refuse(*arguments: object) -> None:
        raise AssertionError("a complete stage was opened")

    monkeypatch.setattr("midcourse.run.StageStore", refuse)
    monkeypatch.setattr("midcourse.pipeline.session.Tools.engine", refuse)
    statuses = run_to(tmp_path / "run", recipe, lambda s, m: list(s.read(m.statuses)))
    assert [status.status for status in statuses] == [Solvability.HARD] * 3


def test_status_lists_what_is_not_begun(tmp_path: Path, recipe: Recipe) -> None:
    from midcourse.report.status import status_table

    def begin(session: Session, m: Method) -> list[tuple[str, str]]:
        steps = [step for steps in m.steps() for step in steps]
        session.run.announce(steps)
        session.complete(m.train.grades)
        return [(step.name, step.label) for step in steps]

    steps = run_to(tmp_path / "run", recipe, begin)
    table = status_table(tmp_path / "run")
    rows = [" ".join(map(str, row)) for row in table.rows]
    assert len(rows) == len(set(steps))
    assert sum("not begun" in row for row in rows) == len(set(steps)) - 2


def test_a_hub_model_is_known_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    from midcourse.config import ModelConfig
    from midcourse.engines import models
    from midcourse.pipeline.session import identify_model

    commits = iter(["a" * 40, "a" * 40, "b" * 40])
    monkeypatch.setattr(models, "hub_commit", lambda name, revision: next(commits))
    names = [identify_model(ModelConfig(path="owner/name")) for _ in range(3)]
    assert names[0] == names[1] != names[2]


def test_an_unknown_model_is_refused_before_work(recipe_data: dict[str, Any]) -> None:
    recipe_data["engine"], recipe_data["model"] = {}, {"path": "./nowhere"}
    with pytest.raises(ConfigError, match="no model"):
        keys_of(recipe_data)
