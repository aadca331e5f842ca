"""Problems that bring a verifier of their own: reasoning-gym's tasks.

Many of them have more than one right answer, so no gold answer can stand for the problem. Where
`Problem.gold` is a checker (a line that names it, then the task's entry as JSON), the grader hands
the boxed answer to that verifier, in a worker like all else that may hang. A full score is right,
anything less is wrong, and an error of the verifier is `ungraded`.

Some of reasoning-gym's verifiers evaluate the answer, or the entry, as Python. Only the tasks of
`TASKS`, whose verifiers were read and evaluate nothing, are ever asked; the others are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from midcourse.checkers.math.equivalence import Comparison

_PREFIX = "reasoning-gym\n"
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


def checker_of(task: str, entry: Mapping[str, Any]) -> str:
    """Return the checker of one entry of a task; what JSON does not know becomes text or a list."""
    return _PREFIX + json.dumps({"task": task, "entry": dict(entry)}, default=_plainly)


def _plainly(value: Any) -> Any:
    return list(value) if isinstance(value, set | frozenset | tuple) else str(value)


def is_checker(gold: str) -> bool:
    """Whether a gold answer names a verifier and is no answer itself."""
    return gold.startswith(_PREFIX)


def complaint_about(checker: str) -> str:
    """Return what is wrong with a checker that a file gives; empty if it may be asked."""
    not_ours = "is not a checker that midcourse wrote: leave it out"
    if not is_checker(checker):
        return not_ours
    try:
        content = json.loads(checker.removeprefix(_PREFIX))
        task, answer = content["task"], content["entry"]["answer"]
    except (ValueError, TypeError, KeyError):
        return not_ours
    if not isinstance(task, str) or not isinstance(answer, str):
        return not_ours
    return "" if task in TASKS else refusal(task)


def refusal(task: str) -> str:
    """Say why a task is not asked."""
    return f"the verifier of task {task!r} may run an answer as code: choose another task"


def own_answer(gold: str) -> str:
    """Return the answer that a checker's entry gives."""
    return str(json.loads(gold.removeprefix(_PREFIX))["entry"]["answer"])


def prepare_verifier() -> None:
    """Import the verifiers, which takes seconds. Raises ImportError without the package."""
    import reasoning_gym  # noqa: F401


def verify_answer(gold: str, answer: str) -> Comparison:
    """Ask the verifier. Raises whatever it raises, and ValueError for a task not in `TASKS`."""
    from reasoning_gym import get_score_answer_fn

    checker = json.loads(gold.removeprefix(_PREFIX))
    if checker["task"] not in TASKS:
        raise ValueError(refusal(checker["task"]))
    score = get_score_answer_fn(checker["task"])(answer=answer, entry=checker["entry"])
    return Comparison.EQUAL if score >= 1 else Comparison.DIFFERENT
