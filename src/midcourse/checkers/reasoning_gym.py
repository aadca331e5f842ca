"""The checker of reasoning-gym's tasks: their own verifiers.

Many of these tasks have more than one right answer, so no gold answer can stand for the problem:
the boxed answer is handed to the verifier with the task's entry, ``{"task": …, "answer": …,
"metadata": …}``. A full score is right, anything less is wrong. Some verifiers raise on an answer
that they cannot parse: it is wrong if the same verifier takes the entry's own answer, else the
verifier or the entry is at fault: `ungraded`. A leak is judged on the entry's own answer as in
mathematics.

Some of reasoning-gym's verifiers evaluate the answer, or the entry, as Python. Only the tasks of
`TASKS`, whose verifiers were read and evaluate nothing, are ever asked; the others are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from typing import Any

from midcourse.checkers.base import Comparison, Pair, installed_version, readable
from midcourse.checkers.math.extract import extract_answer, open_box_tail, state_answer
from midcourse.checkers.math.leak import leaks_answer
from midcourse.errors import MissingExtra

NAME = "reasoning-gym"
#: The tasks of reasoning-gym 0.1.25 whose verifiers only compare, count and parse by hand. Refused
#: are binary_matrix, bitwise_arithmetic, countdown, intermediate_integration, n_queens,
#: number_sorting, polynomial_multiplication, puzzle24, simple_integration, spiral_matrix and
#: string_insertion, which call eval or sympy's parse_expr (an eval too); codeio, which runs
#: programs to make its problems; composite, whose entry chooses another task's verifier.
TASKS = frozenset(
    """
    ab acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf
    binary_alternation boxnet caesar_cipher calendar_arithmetic chain_sum circuit_logic coin_flip
    color_cube_rotation complex_arithmetic count_bits count_primes course_schedule cryptarithm
    decimal_arithmetic decimal_chain_sum dice emoji_mystery family_relationships figlet_font
    fraction_simplification futoshiki game_of_life game_of_life_halting gcd graph_color
    group_anagrams gsm_symbolic isomorphic_strings jugs kakurasu knight_swap knights_knaves
    largest_island lcm leg_counting letter_counting letter_jumble list_functions mahjong_puzzle
    manipulate_matrix maze mini_sudoku modulo_grid needle_haystack number_filtering number_format
    number_sequence palindrome_generation palindrome_partitioning path_star polynomial_equations
    pool_matrix power_function prime_factorization products propositional_logic quantum_lock
    ransom_note rearc rectangle_count rotate_matrix rotten_oranges rubiks_cube rush_hour
    self_reference sentence_reordering shortest_path simple_equations simple_geometry sokoban
    spell_backward string_manipulation string_splitting string_synthesis sudoku survo syllogism
    time_intervals tower_of_hanoi tsumego word_ladder word_sequence_reversal word_sorting
    zebra_puzzles
    """.split()  # noqa: SIM905 - a table of words reads better as text
)

#: What verifiers raise on a text that they did not expect.
_UNPARSED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def entry_of(task: str, entry: Mapping[str, Any]) -> str:
    """Return what a problem carries; what JSON does not know becomes text or a list."""
    return json.dumps({**entry, "task": task}, default=_plainly)


def _plainly(value: Any) -> Any:
    return list(value) if isinstance(value, set | frozenset | tuple) else str(value)


def refusal(task: str) -> str:
    """Say why a task is not asked; "" if it may be."""
    if task in TASKS:
        return ""
    return f"the verifier of task {task!r} may run an answer as code: choose another task"


class ReasoningGymChecker:
    """A boxed answer before a task's verifier; the methods are those of `base.Checker`."""

    name = NAME
    extract = staticmethod(extract_answer)
    open_tail = staticmethod(open_box_tail)
    state = staticmethod(state_answer)
    leaks = staticmethod(leaks_answer)

    @property
    def version(self) -> str:
        """Version of reasoning-gym and of our rules. Raises MissingExtra without the package."""
        try:
            return f"reasoning-gym/{installed_version('reasoning-gym')}+midcourse/3"
        except PackageNotFoundError as error:
            raise MissingExtra("reasoning-gym", "reasoning-gym") from error

    def same(self, answer: str) -> str:
        """A verifier may look at every character."""
        return answer

    def complaint_about(self, entry: object) -> str:
        """Refuse what is not a task's entry, and tasks whose verifier may run code."""
        match entry:
            case {"task": str(task), "answer": str()}:
                return refusal(task)
        return 'is not an entry that midcourse wrote: it needs "task" and "answer", both texts'

    def compare_quickly(self, pair: Pair, by_text: bool) -> Comparison | None:
        """Leave every answer that is not too long or too deep to the verifier."""
        return None if readable(pair.answer) else Comparison.ERROR

    def prepare(self) -> None:
        """Import the verifiers."""
        try:
            import reasoning_gym  # noqa: F401
        except ImportError as error:
            raise MissingExtra("reasoning-gym", "reasoning-gym") from error

    def compare(self, pair: Pair) -> Comparison:
        """Ask the verifier. Raises what it raises, and ValueError for a task not in `TASKS`."""
        from reasoning_gym import get_score_answer_fn

        entry = json.loads(pair.gold.value)
        if why := refusal(entry["task"]):
            raise ValueError(why)
        score = get_score_answer_fn(entry.pop("task"))
        try:
            is_right = score(answer=pair.answer, entry=entry) >= 1
        except _UNPARSED:
            if score(answer=entry["answer"], entry=entry) < 1:
                raise
            is_right = False
        return Comparison.EQUAL if is_right else Comparison.DIFFERENT
