"""Which models are measured on what, and how likely texts are under them (§5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from operator import attrgetter
from typing import Any

from midcourse.config import HELD_OUT_SET, PROBE_SETS, TRAIN_SET, SamplingConfig
from midcourse.pipeline.contexts import (
    Continuations,
    HardOnes,
    Population,
    Questions,
    ready_rows,
)
from midcourse.pipeline.interventions import INTERVENTION, Interventions, asked_about, proposals_for
from midcourse.pipeline.models import Models
from midcourse.pipeline.sources import GOLD, WHOLE, Sources
from midcourse.pipeline.stages import SampleSettings, draw
from midcourse.pipeline.values import Candidates, Graded, Model, Problems, Subset, Texts, view
from midcourse.records import Likelihood, Problem, Role, RowSource, SftRow, Start
from midcourse.rendering import Renderer
from midcourse.run import Keyed, Reader, Stage, Work, stage
from midcourse.stages.build_sft import IGNORED
from midcourse.stages.likelihood import KEPT_TOKENS, ScoredText, row_kind
from midcourse.stages.likelihood import likelihood as score_texts
from midcourse.tokens import Asked

# --- likelihood --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelihoodSettings:
    """What decides which texts are scored under a model (Figs 7-9)."""

    model: Model
    policy: Model
    """Encodes the texts."""
    rows: Stage[SftRow, Any]
    problems: Problems
    """Training problems with references."""
    questions: Texts
    """What the user says, of training and held-out problems."""
    own: Graded | None
    """The model's own rollouts of held-out problems, drawn at temperature 1."""
    unseen: Continuations | None
    """Interventions on the base's held-out rollouts: never trained on."""
    max_items: int


@stage("likelihood", Likelihood, outcome=attrgetter("what"), asked=Asked.POLICY)
def likelihood(settings: LikelihoodSettings, work: Work[Likelihood]) -> Iterator[Keyed[Likelihood]]:
    """*likelihood*: NLL, entropy and token probabilities of given texts under a model."""
    renderer = work.tools.renderer(settings.policy)
    texts = list(_texts(settings, work.reader, renderer))
    scorer = work.tools.scorer(settings.model)
    for item in score_texts(texts, scorer, settings.model.name, work.done):
        yield item.item_id, [item]


def _texts(
    settings: LikelihoodSettings, reader: Reader, renderer: Renderer
) -> Iterator[ScoredText]:
    """Yield interventions, their rows, references, own rollouts, unseen interventions."""
    limit = settings.max_items
    for row in ready_rows(reader, settings.rows)[:limit]:
        yield from row_texts(row)
    given = (p for p in settings.problems.items if p.reference_solution)
    for problem in islice(given, limit):
        prompt = _prompt(settings, problem.problem_id, renderer)
        ids = renderer.reply_ids(str(problem.reference_solution))
        yield _scored("reference", problem.problem_id, problem.problem_id, prompt,
                      (*ids, *renderer.end_of_turn_ids))  # fmt: skip
    if settings.own is not None:
        rollouts = (r for r in reader.read(settings.own.rollouts) if r.token_ids)
        for rollout in islice(rollouts, limit):
            prompt = _prompt(settings, rollout.problem_id, renderer)
            own = _scored("own_rollout", rollout.rollout_id, rollout.problem_id, prompt,
                          rollout.token_ids)  # fmt: skip
            yield replace(own, counts=tuple(rollout.sampled))
    if settings.unseen is not None:
        yield from _unseen(settings.unseen, reader, renderer)


def _prompt(settings: LikelihoodSettings, problem_id: str, renderer: Renderer) -> tuple[int, ...]:
    text = settings.questions.items[problem_id]
    return tuple(renderer.prompt_ids([{"role": "user", "content": text}]))


def _scored(
    what: str, source_id: str, problem_id: str, context: Sequence[int], scored: Sequence[int]
) -> ScoredText:
    return ScoredText(
        what=what, source_id=source_id, problem_id=problem_id, token_ids=(*context, *scored),
        num_context=len(context),
    )  # fmt: skip


def _unseen(unseen: Continuations, reader: Reader, renderer: Renderer) -> Iterator[ScoredText]:
    for context in unseen.contexts(reader, renderer):
        response = context.response
        yield _scored(
            "intervention_held_out", str(context.parent_id), context.problem_id,
            (*context.prompt_ids, *response.prefix), response.addition,
        )  # fmt: skip


def row_texts(row: SftRow) -> Iterator[ScoredText]:
    """Yield a row's trained tokens given the problem; of a step also the step given its prefix.

    Of a trained prefix that counts which is trained: not what an environment said in it. A masked
    one is scored whole.
    """
    whole, start = row_kind(row), row.prompt_tokens + row.prefix_tokens
    learned = tuple(label != IGNORED for label in row.labels)
    is_trained = any(learned[row.prompt_tokens : start])
    contexts = {whole: row.prompt_tokens}
    if row.source is RowSource.INTERVENTION:  # An original step is the end of its prefix.
        contexts[str(row.source)] = start
    for what, num_context in contexts.items():
        scored = _scored(
            what, row.row_id, row.problem_id, row.input_ids[:num_context],
            row.input_ids[num_context:],
        )  # fmt: skip
        counts = learned[num_context:] if is_trained else ()
        num_kept = KEPT_TOKENS if what == whole else 0
        yield replace(scored, counts=counts, num_kept=num_kept)


# --- composition -------------------------------------------------------------------------------

#: What there is one context of, in the sets that are no benchmark.
_POPULATIONS = {TRAIN_SET: Population.HARD, **dict.fromkeys(PROBE_SETS, Population.PROBE)}


@dataclass(frozen=True)
class Evaluation:
    """What is measured of the models of a recipe."""

    sources: Sources
    interventions: Interventions
    models: Models

    @property
    def sets(self) -> list[str]:
        """The names of the sets that the recipe evaluates on, in order."""
        config = self.sources.recipe.evaluate
        return [name for name in self.sources.setup.problems.evaluation if config.includes(name)]

    def problems(self, reader: Reader, eval_set: str) -> list[Problem]:
        """Return the problems that a set is evaluated on, those of its subset.

        ``train`` stands for the hard training problems. Raises ConfigError if there is no such set.
        """
        is_train = eval_set == TRAIN_SET
        return self._hard_ones.read(reader) if is_train else self.sources.whole(eval_set)

    @property
    def _hard_ones(self) -> HardOnes:
        recipe = self.sources.recipe
        subset = Subset.of(recipe.evaluate.subset_of(TRAIN_SET), recipe.seed)
        return HardOnes(self.interventions.hard, subset=subset)

    def evaluate(self, model: Model, eval_set: str) -> Graded:
        """Return one model's rollouts of one set, graded.

        ``train`` stands for the hard training problems (Table 2, Fig. 6). Raises ConfigError if
        there is no such set.
        """
        config = self.sources.recipe.evaluate
        return self._drawn(
            model,
            eval_set,
            num_rollouts=config.num_rollouts_of(eval_set),
            sampling=config.sampling,
            stream=f"{eval_set} {model.label}",
        )

    def _drawn(
        self, model: Model, eval_set: str, num_rollouts: int, sampling: SamplingConfig, stream: str
    ) -> Graded:
        s = self.sources
        is_benchmark = eval_set in s.recipe.evaluate.benchmarks
        settings = SampleSettings(
            model=model,
            contexts=Questions(
                texts=s.questions(eval_set),
                population=_POPULATIONS.get(eval_set, Population.HELD_OUT),
                among=self._hard_ones if eval_set == TRAIN_SET else None,
                of=eval_set if is_benchmark else "",
            ),
            num_rollouts=num_rollouts,
            sampling=sampling,
            stream=stream,
            seed=s.recipe.seed,
            dialogues=s.dialogues(eval_set),
        )
        drawn = draw(settings, s.problems(*GOLD, of=eval_set))
        assert isinstance(drawn, Graded)
        return drawn

    @cached_property
    def all(self) -> dict[tuple[Role, str], Graded]:
        """Every model that is compared on every set that is evaluated on."""
        return {
            (role, eval_set): self.evaluate(self.models.in_role(role), eval_set)
            for role in self.sources.recipe.evaluate.roles
            for eval_set in self.sets
        }

    def drawn_by(self, role: Role) -> list[Graded]:
        """Return all that is drawn from the model in a role, the rollouts of Fig. 8 included."""
        drawn = [graded for (of, _), graded in self.all.items() if of == role]
        own = None if role.rl or not self.likelihoods else self._own(self.models.in_role(role))
        known = {graded.rollouts.key for graded in drawn}
        return drawn if own is None or own.rollouts.key in known else [*drawn, own]

    def _own(self, model: Model) -> Graded | None:
        """Return a model's rollouts of held-out problems at temperature 1 (Fig. 8).

        Where the evaluation draws otherwise they are drawn for themselves.
        """
        s, plain = self.sources, {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
        if HELD_OUT_SET not in s.setup.problems.evaluation:
            return None
        sampling = s.recipe.evaluate.sampling
        whole = sampling.model_copy(update={**plain, "repetition_penalty": 1.0})
        if whole == sampling:
            return self.evaluate(model, HELD_OUT_SET)
        number = s.recipe.likelihood.num_own_rollouts
        stream = f"{HELD_OUT_SET} at temperature 1, {model.label}"
        return self._drawn(model, HELD_OUT_SET, number, whole, stream)

    def along_rl(self) -> dict[tuple[Start, int], Graded]:
        """Return held-out problems along RL (Fig. 12), by where it started and the iteration.

        Iteration 0 is the model that RL started from; in between stand the checkpoints that
        ``train_rl.keep_checkpoints`` kept.
        """
        if HELD_OUT_SET not in self.sources.setup.problems.evaluation:
            return {}
        return {
            (role.start, iteration): self.evaluate(model, HELD_OUT_SET)
            for role in self.sources.recipe.evaluate.roles
            if role.rl
            for iteration, model in self.models.course(role.start).items()
        }

    @cached_property
    def unseen(self) -> Continuations | None:
        """Interventions on the base's held-out rollouts: never trained on, only scored (Fig. 7)."""
        s = self.sources
        if HELD_OUT_SET not in s.setup.problems.evaluation:
            return None
        held_out = s.whole(HELD_OUT_SET)
        problems = [problem for problem in held_out if problem.reference_solution]
        drawn = self.evaluate(s.setup.base, HELD_OUT_SET)
        asked = asked_about(s, drawn, view(problems), 1, HELD_OUT_SET)
        proposals = proposals_for(s, asked, view(problems, *WHOLE), HELD_OUT_SET)
        return Continuations(
            condition=INTERVENTION,
            candidates=Candidates(proposals=proposals),
            cases=asked,
            questions=s.questions(HELD_OUT_SET),
            problems=s.problems("checker", of=HELD_OUT_SET),
            limit=s.recipe.likelihood.max_items,
            steps=s.setup.steps,
        )

    def likelihood(self, model: Model) -> Stage[Likelihood, Any]:
        """Return the scores of the texts of Figs 7-9 under one model."""
        s, texts = self.sources, dict(self.sources.questions().items)
        if HELD_OUT_SET in s.setup.problems.evaluation:
            texts |= s.questions(HELD_OUT_SET).items
        settings = LikelihoodSettings(
            model=model,
            policy=s.setup.base,
            rows=self.models.rows,
            problems=s.problems("reference_solution"),
            questions=Texts(texts),
            own=self._own(model),
            unseen=self.unseen,
            max_items=s.recipe.likelihood.max_items,
        )
        return likelihood(settings, model.label)

    @cached_property
    def likelihoods(self) -> list[Stage[Likelihood, Any]]:
        """The scores under the compared models before RL, where the weights are available."""
        if self.sources.setup.base.engine.scoring is None:
            return []
        roles = [role for role in self.sources.recipe.evaluate.roles if not role.rl]
        return [self.likelihood(self.models.in_role(role)) for role in roles]
