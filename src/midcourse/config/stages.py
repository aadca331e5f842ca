"""The sections of stages that sample, choose and score."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from midcourse.config.base import (
    CheckedTemplateArguments,
    Complaint,
    Part,
    SamplingConfig,
    Section,
    check_rounds,
    refuse,
    tunable,
)
from midcourse.records import DEFAULT_CHECKER, TABLE_1, Condition, Role

ModelRole = Literal["base", "patched", "base + RL", "patched + RL"]


#: The rule by which a world of the lab tells its steps, where it is not the default.
LAB_STEPS = {"programs": "statements"}
#: What answers in a world of dialogues.
LAB_ENVIRONMENTS = {"memory": "memory"}


class ProblemsConfig(Section):
    """Where problems come from."""

    kind: Literal["jsonl", "lab"] = "jsonl"
    """``jsonl``: problems of your own or of a known source; ``lab``: a generated world."""
    world: Literal["counts", "rules", "programs", "memory"] = "counts"
    """``lab``: which world. ``counts``: words for numbers; ``rules``: verbs that act by rules in
    context, in steps of many wordings, with one more set to evaluate on, ``unseen``; ``programs``:
    functions to write, graded by unit tests, for `steps.rule` ``statements``; ``memory``: dialogues
    with the environment of that name."""
    path: str = ""
    """``jsonl``: the training problems: a file, ``hub:OWNER/NAME``, a known SOURCE, ``SOURCE:FILE``
    ``reasoning-gym:TASK`` or ``word-problems:KIND``; or a function of your own that yields rows,
    ``package.module:function``. ``$MIDCOURSE_DATA`` at a path's start is filled in."""
    held_out_path: str = ""
    """``jsonl``: the set ``held_out`` to evaluate on, written likewise; none may be a training
    problem. Figures are about it; `evaluate.sets` names further sets."""
    columns: dict[str, str] = {}
    """``jsonl``: our fields in a file of no known source, e.g. ``{problem = "question"}``; a name
    with dots is of an object within one, ``{answer = "final.value"}``."""
    held_out_columns: dict[str, str] | None = None
    """``jsonl``: as `columns`, of `held_out_path`; default: `columns`. ``{}`` says that its columns
    are called as our fields."""
    checker: str = DEFAULT_CHECKER
    """``jsonl``: what grades problems that name no checker: ``math``, ``unit-tests``,
    ``reasoning-gym``, one that a package brings, or your own, ``package.module:Name``."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many training problems."""
    part: Part = (0.0, 1.0)
    """``jsonl``: only training problems whose text hashes into this part of 0 … 1: parts that do
    not overlap share no problem."""
    held_out_limit: int | None = Field(None, ge=1)
    """``jsonl``: only the first so many problems of the set ``held_out``."""
    num_composed: int = Field(48, ge=0)
    """``lab``: training problems with two unknown notions."""
    num_single: int = Field(20, ge=0)
    """``lab``: training problems with one unknown notion."""
    num_known: int = Field(4, ge=0)
    """``lab``: training problems without unknown notions."""
    num_soft: int = Field(0, ge=0)
    """``lab``, world ``rules``: training problems of a rule that the base seldom gets right."""
    num_held_out: int = Field(32, ge=1)
    """``lab``: held-out problems. World ``counts``: composed and single ones, half each; ``rules``:
    composed ones, and as many ``unseen`` ones."""
    num_probe: int = Field(32, ge=1)
    """``lab``: held-out problems of known notions, and as many of the control notions."""

    @property
    def columns_of_held_out(self) -> dict[str, str]:
        """The column map of `held_out_path`."""
        return self.columns if self.held_out_columns is None else self.held_out_columns

    @property
    def has_held_out(self) -> bool:
        """Whether there is a set ``held_out``."""
        return self.kind == "lab" or bool(self.held_out_path)


class StepsConfig(Section):
    """How a response is cut into steps (§2)."""

    rule: str = "blank_lines"
    """``blank_lines``; ``lines``; ``sentences``; ``statements``: a code block by the statements of
    its functions, prose at blank lines; ``thoughts``: blank lines up to ``</think>``, and what
    follows as one; or a function of your own, ``package.module:function``, from a text to steps
    that join to it."""


class EnvironmentConfig(Section):
    """What answers the model's turns; a rollout is then a dialogue."""

    name: str = ""
    """``memory``: named values that are written in one turn and read in another; one that a package
    brings; or one of your own, ``package.module:Name``. Empty: the model has one turn."""
    max_turns: int = Field(16, ge=2)
    """Turns of the model; a dialogue that has not ended by then is truncated."""
    timeout_seconds: float = tunable(60.0, gt=0)
    """For an answer. A dialogue that waits longer has failed, which is no fault of the model's; an
    environment that hangs time after time stops the stage."""


class SampleConfig(Section):
    """Rollouts per problem (§5.1)."""

    num_rollouts: int = Field(64, ge=1)
    """Rollouts of each training problem: the k of pass@k = 0."""
    num_rollouts_by_source: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Another number for the problems of a source, e.g. ``{omni-math = 128}`` (§5.1)."""
    rounds: tuple[int, ...] = ()
    """Search: draw in rounds of these sizes, say 4, 12, 48, and stop a problem at its first
    correct rollout. The hard set is the same, at a fraction of the tokens; no pass@k. Where a
    source has more rollouts, the rest is a last round."""
    sampling: SamplingConfig = SamplingConfig()
    """Of rollouts."""
    max_duplicate_share: float = tunable(0.9, gt=0, le=1)
    """Alarm: above this share of problems whose rollouts are all the same text, stop."""

    @model_validator(mode="after")
    def _rounds_fit(self) -> SampleConfig:
        refuse(check_rounds(self.rounds, "num_rollouts", self.num_rollouts))
        return self


class GradeConfig(Section):
    """The grader's limits."""

    timeout_seconds: float = tunable(5.0, gt=0)
    """Processor time per answer, and a tenth of the wall time; over it: ``ungraded``."""
    num_workers: int = tunable(2, ge=1)
    """Worker processes."""
    memory_mib: int = tunable(2048, ge=256)
    """Address space of one worker."""
    sandbox: Literal["namespaces", "process"] = tunable("namespaces")
    """Where answers that are programs run. ``namespaces``: without network, files and processes of
    this machine, or not at all; ``process``: where that cannot be had, with limits on time, memory
    and, as far as the kernel can, on what it may be asked for."""


class SelectConfig(Section):
    """Which problems are hard."""

    truncated_is_incorrect: bool = True
    """Whether a rollout that ran out of tokens counts as incorrect; else as ungraded."""
    condition: Literal["problem", "hint"] = "problem"
    """``problem``: all hard problems; ``hint``: of the hard problems only those that stay unsolved
    with a hint (Table 1, rows 8-10)."""
    num_rollouts: int = Field(16, ge=1)
    """Hinted rollouts per hard problem, where `condition` is ``hint``."""
    subset: int | None = Field(None, ge=1)
    """Go on with so many of the hard problems (Table 1: 334 of 4,500): a choice by seed and problem
    id alone, so that a larger one holds a smaller one."""


class HintsConfig(Section):
    """Hints: the beginning of the reference solution, in the user's turn (Table 1, rows 8-10)."""

    length: Literal["third", "intervention"] = "third"
    """``third``: uniform in (0, 1/3] of the reference's steps; ``intervention``: as many tokens as
    the intervention it is compared with."""


class ReferenceConfig(Section):
    """Reference solutions that are missing (§5.1) are written by a model, and graded."""

    write: Literal["none", "missing", "all"] = "none"
    """For which hard problems one is written. Where no attempt is correct the problem is left out
    (App. G)."""
    num_attempts: int = Field(1, ge=1)
    """Solutions asked for per problem; the first correct one is kept."""
    model: str = ""
    """Model folder or hub name of the writer; default: the base. See also `reference_engine`."""
    template_arguments: CheckedTemplateArguments | None = None
    """As `model.template_arguments`, of the writer; default: none, unless the base writes."""
    sampling: SamplingConfig = SamplingConfig()
    """Of the writer."""


class ProposeConfig(Section):
    """Questions to the proposer (§3.1)."""

    turns: Literal["two", "single"] = "two"
    """``two``: Box 1, two turns in one chat; ``single`` asks everything at once."""
    guided: Literal["each", "shared"] = "each"
    """The solution of the first of two turns: ``each`` question has its own, or all questions about
    a rollout go on from one that is ``shared``, as in the authors' release: fewer tokens."""
    variant: Literal["one", "list"] = "one"
    """``one`` step (Box 1), or a ``list`` of several replacement steps (Box 2)."""
    reference: Literal["given", "none", "shuffled"] = "given"
    """``given``: the problem's own; ``none`` is Table 1 row 7; ``shuffled`` shows another problem's
    reference: a control."""
    truth: bool = False
    """Take the first error and the right step from what knows them; no model is asked. ``lab``: the
    world; ``jsonl``: the problem's worked reference, by its numbers
    (`midcourse.stages.oracle.leaving`)."""
    num_rollouts: int = Field(4, ge=1)
    """Incorrect rollouts per hard problem."""
    num_proposals: int = Field(4, ge=1)
    """Questions per rollout; the first accepted one is verified."""
    stop_at_first_accepted: bool = False
    """Ask one question after the other, and none after an accepted answer."""
    max_intervention_tokens: int = Field(1024, ge=1)
    """A longer intervention is ``too_long``; in the policy's tokens."""
    leak_rule: Literal["assertion", "substring"] = "assertion"
    """``assertion``: an intervention leaks if it asserts the answer; ``substring``: if it holds it,
    the authors' rule, for parity."""
    terminator: str = "\n\n"
    """What an intervention ends in, in verification and in the SFT row alike; the default stands
    for the end of a step by `steps.rule`."""
    sampling: SamplingConfig = SamplingConfig()
    """Of the proposer, each turn."""

    @property
    def num_turns(self) -> int:
        """The turns of one question: without a reference no solution comes first."""
        return 2 if self.turns == "two" and self.reference != "none" else 1

    @property
    def shares_solution(self) -> bool:
        """Whether the questions about a rollout go on from one guided solution."""
        return self.num_turns == 2 and self.guided == "shared"


class VerifyConfig(Section):
    """Continuations from prefix + intervention (§3.2), and the other rows of Table 1."""

    num_continuations: int = Field(32, ge=1)
    """Continuations of each intervention, and of each other context of Table 1."""
    rounds: tuple[int, ...] = ()
    """Search, as `sample.rounds`: which interventions succeed at all; coverage, no accuracy."""
    budget: Literal["total", "new"] = "total"
    """``total``: prefix and continuation share the sampling budget; ``new``: it is all new."""
    conditions: tuple[Condition, ...] = (Condition.PREFIX_INTERVENTION,)
    """Rows of Table 1 to run; ``prefix_intervention`` is what the filter uses."""
    shift: int = 0
    """Put each intervention so many steps after (before, if negative) the place it was made for;
    its content stays. Where there is no such step the outcome is ``location_out_of_range``, where
    it says the same ``unchanged``."""
    sampling: SamplingConfig = SamplingConfig()
    """Of continuations."""

    @model_validator(mode="after")
    def _known_conditions(self) -> VerifyConfig:
        refuse(self._complaints())
        return self

    def _complaints(self) -> Iterator[Complaint]:
        yield from check_rounds(self.rounds, "num_continuations", self.num_continuations)
        for other in sorted(set(self.conditions) - set(TABLE_1)):
            text = f"condition {other.value!r} is not a row of Table 1"
            yield Complaint(text, ("conditions",))


class BuildSftConfig(Section):
    """Rows to fine-tune on: prefix + intervention (§4.1, Table 2), or a baseline's."""

    source: Literal[
        "intervention", "original_step", "reference", "self_reflection", "distillation"
    ] = "intervention"
    """``intervention`` is InT; ``original_step`` trains on the wrong step itself: a control that
    must gain nothing. The last three are baselines: whole solutions for the problems of InT's rows,
    as many rows."""
    filter: bool = True
    """Keep only interventions with a correct continuation; of a baseline, correct solutions."""
    rows_per_problem: Literal["one", "all"] = "one"
    """``one``: a seeded choice among the verified interventions of a problem; or ``all`` of
    them."""
    prefix: Literal["trained", "masked", "dropped"] = "trained"
    """``trained``: the loss is on prefix and intervention; ``masked``: in the context without loss
    (Table 2's "no prefix"); ``dropped``: not there."""
    suffix: bool = False
    """Append a correct continuation, end-of-turn included if it finished (Table 2)."""
    after_error: bool = False
    """Also use Box 2's recovery steps, located after the error."""
    max_tokens: int = Field(16_384, ge=1)
    """A longer row is refused, never cut."""
    num_solutions: int = Field(4, ge=1)
    """Rewrites per rollout (``self_reflection``), rollouts per problem (``distillation``)."""
    teacher: str = ""
    """``distillation``: model folder or hub name of the teacher. See also `teacher_engine`."""
    teacher_template_arguments: CheckedTemplateArguments | None = None
    """``distillation``: as `model.template_arguments`, of the teacher; default: none, unless the
    base teaches."""
    trace: Literal["whole", "thinking", "summary"] = "whole"
    """``distillation``: all of the teacher's reply, or what stands within or after its
    ``<think>`` tags (Fig. 9)."""
    sampling: SamplingConfig = SamplingConfig()
    """Of rewrites and of the teacher."""

    @property
    def is_baseline(self) -> bool:
        """Whether rows are whole solutions."""
        return self.source not in ("intervention", "original_step")


#: The sets whose problems are there without a path: ``train`` are the hard training problems.
TRAIN_SET, HELD_OUT_SET, PROBE_SETS = "train", "held_out", ("known", "control")
#: Held out too, in the lab's world ``rules``: combinations that no training problem has.
UNSEEN_SET = "unseen"
_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class EvalSetConfig(Section):
    """One set to evaluate on, by name: a benchmark, or what is special about a set of the run."""

    path: str = ""
    """Where the problems of a new set are, as `problems.path`. ``held_out``, ``train`` (the hard
    training problems, Table 2 and Fig. 6) and the lab's ``known`` and ``control`` have none."""
    columns: dict[str, str] = {}
    """As `problems.columns`, of this file."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many problems of the path."""
    subset: int | None = Field(None, ge=1)
    """Only so many problems (Fig. 6: 32), chosen as in `select.subset`, whatever their order."""
    ks: tuple[int, ...] = ()
    """The k of pass@k; default: those of `evaluate.ks` that there are rollouts for."""
    num_rollouts: int | None = Field(None, ge=1)
    """Rollouts of each problem and model; default: `evaluate.num_rollouts`, of a probe set
    `evaluate.num_probe_rollouts`."""


class EvaluateConfig(Section):
    """pass@k on problems that were not trained on (§5.4-5.5)."""

    models: tuple[ModelRole, ...] = ("base", "patched", "base + RL", "patched + RL")
    """Which models to compare; what none of them needs is not trained by ``run``. ``patched`` is
    whatever `build_sft.source` and `train_sft.method` make."""
    num_rollouts: int = Field(128, ge=1)
    """Rollouts of each problem and model."""
    num_probe_rollouts: int = Field(8, ge=1)
    """Per problem of a probe set: known and control notions of the lab."""
    ks: tuple[int, ...] = (1, 8)
    """The k of pass@k, at most `num_rollouts`."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.8, top_k=20)
    """Of rollouts in evaluation."""
    sets: dict[str, EvalSetConfig] = {}
    """Sets by name, each a section ``[evaluate.sets.NAME]``: a benchmark with its path, or what is
    special about a set that the run has already."""
    on: tuple[str, ...] = ()
    """The names of the sets to evaluate on; default: all there are."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """The models to compare, in order."""
        return tuple(Role.parse(model) for model in self.models)

    @property
    def benchmarks(self) -> dict[str, EvalSetConfig]:
        """The sets that have problems of their own and are evaluated on, in order."""
        return {name: of for name, of in self.sets.items() if of.path and self.includes(name)}

    def includes(self, eval_set: str) -> bool:
        """Whether a set is evaluated on."""
        return not self.on or eval_set in self.on

    def subset_of(self, eval_set: str) -> int | None:
        """Return to how many problems a set is cut down; None for all."""
        return self.sets.get(eval_set, EvalSetConfig()).subset

    def num_rollouts_of(self, eval_set: str) -> int:
        """Return the rollouts of each problem of a set."""
        usual = self.num_probe_rollouts if eval_set in PROBE_SETS else self.num_rollouts
        return self.sets.get(eval_set, EvalSetConfig()).num_rollouts or usual

    def ks_of(self, eval_set: str) -> tuple[int, ...]:
        """Return the k of pass@k on a set."""
        most = self.num_rollouts_of(eval_set)
        own = self.sets.get(eval_set, EvalSetConfig()).ks
        return own or tuple(k for k in self.ks if k <= most)

    @model_validator(mode="after")
    def _enough_samples(self) -> EvaluateConfig:
        refuse(self._complaints())
        return self

    def _complaints(self) -> Iterator[Complaint]:
        if not self.ks:
            yield Complaint("ks is empty: name a k of pass@k, or leave it out", ("ks",))
            return
        if max(self.ks) > self.num_rollouts:
            text = f"ks has {max(self.ks)}, more than num_rollouts={self.num_rollouts}"
            yield Complaint(text, ("ks", "num_rollouts"))
        for name in self.sets:
            place = f"sets.{name}"
            if not _SET_NAME.fullmatch(name):
                text = f"sets: {name!r} is not a name: use letters, digits, - and _"
                yield Complaint(text, (place,))
            ks, most = self.ks_of(name), self.num_rollouts_of(name)
            is_drawn = name == TRAIN_SET or self.includes(name)
            if is_drawn and max(ks, default=most + 1) > most:
                yield Complaint(
                    f"{place}: pass@{max(ks or self.ks)} needs as many rollouts: raise its "
                    f"num_rollouts={most}, or give it ks of its own",
                    (f"{place}.ks", f"{place}.num_rollouts", "ks"),
                )


class LikelihoodConfig(Section):
    """NLL, entropy and intervention-token probability (Figs 7-9)."""

    max_items: int = Field(64, ge=1)
    """Sequences scored per kind and model."""
    num_own_rollouts: int = Field(2, ge=1)
    """Rollouts of each held-out problem drawn for entropy, at temperature 1 with top_p 1 and top_k
    off, where `evaluate.sampling` is not that already."""


CreditMeasure = Literal[
    "policy", "privileged", "numbers", "numbers_reference", "marks", "marks_reference", "values"
]


class CreditConfig(Section):
    """The credit map, ``midcourse credit``: several signals on the same steps of wrong rollouts."""

    num_rollouts: int = Field(1, ge=1)
    """Wrong rollouts of each problem, at most; those of marked solutions are the marked ones."""
    num_continuations: int = Field(32, ge=1)
    """From each prefix of a rollout, sampled as rollouts are."""
    limit_per_source: int | None = Field(None, ge=1)
    """Only the first so many problems of each source; of marked files, wrong solutions."""
    measures: list[CreditMeasure] = tunable(list(get_args(CreditMeasure)))
    """What is measured: likelihoods of steps (``policy``, ``privileged``), the number of the first
    wrong step as next tokens, marks after each step, values by continuation. Each is kept by
    itself, so that one run directory takes them one by one."""


class LocalizeConfig(Section):
    """The first-error benchmark, ``midcourse localize``."""

    reference: Literal["both", "given", "none"] = "both"
    """Whether the reference solution is shown: ``given``, ``none``, or ``both``, asked twice."""
    limit_per_source: int | None = Field(None, ge=1)
    """Only the first so many solutions of each source."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.0, max_tokens=4096)
    """Of answers."""
