r"""Grades responses, with worker processes that are killed and replaced at a deadline.

A thread cannot be killed and a power tower holds the interpreter, so algebra runs in processes
of its own. Most answers never get there: extraction, the fast path and a cache settle them in
the parent. What we fail to grade is `ungraded` with its cause, never incorrect.

    with Grader() as grader:
        for result in grader.grade([("So it is \boxed{4}.", "4")]):
            result.verdict      # correct
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from queue import SimpleQueue

from midcourse.checkers.math.equivalence import (
    MAX_ANSWER_CHARS,
    Comparison,
    compare_quickly,
    readable,
)
from midcourse.checkers.math.extract import extract_answer
from midcourse.checkers.process import WorkerDied, WorkerProcess, WorkerTimeout
from midcourse.checkers.reasoning_gym import is_checker, own_answer
from midcourse.errors import MidcourseError
from midcourse.records import UngradedCause, Verdict

_CACHE_SIZE = 100_000
#: Responses looked at while the head of the line is still with a worker, per worker.
_LOOKAHEAD = 128
_START_ATTEMPTS = 3
_CLOSED = "the grader was closed while it was grading"
#: What is kept of an answer that is too long to be read.
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class GradeResult:
    """A verdict and the answer it is about, e.g. ``correct`` for ``"1/2"``."""

    verdict: Verdict
    extracted_answer: str | None
    cause: UngradedCause | None = None
    """Set where, and only where, the verdict is `ungraded`."""


#: By the worker's word; whatever else it says is an error.
_RESULTS: dict[str, GradeResult] = {
    Comparison.EQUAL: GradeResult(Verdict.CORRECT, None),
    Comparison.DIFFERENT: GradeResult(Verdict.INCORRECT, None),
    Comparison.GOLD_UNPARSEABLE: GradeResult(
        Verdict.UNGRADED, None, UngradedCause.GOLD_UNPARSEABLE
    ),
}
_TIMEOUT = GradeResult(Verdict.UNGRADED, None, UngradedCause.TIMEOUT)
_ERROR = GradeResult(Verdict.UNGRADED, None, UngradedCause.GRADER_ERROR)
_NO_ANSWER = GradeResult(Verdict.NO_ANSWER, None)

_Key = tuple[str, str, bool]


class Grader:
    """A grader with a pool of killable workers; usable from any thread.

    Workers start when something first gets past the fast path. Close it, or use it as a context
    manager; at the latest its workers end with the interpreter.
    """

    def __init__(
        self, *, num_workers: int = 2, timeout_seconds: float = 5.0, memory_mib: int = 2048
    ) -> None:
        self._num_workers = num_workers
        self._timeout_seconds = timeout_seconds
        self._memory_mib = memory_mib
        self._pool: _Pool | None = None
        self._cache: dict[_Key, GradeResult | Future[GradeResult]] = {}
        self._lock = threading.RLock()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Take every worker down. Workers start again if the grader is used again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def grade(self, pairs: Iterable[tuple[str, str]]) -> Iterator[GradeResult]:
        """Yield one result per (response text, gold answer), in order, as soon as it is known.

        Looks ahead by a bounded window, so that all workers have work while one is slow. Raises
        MidcourseError if workers cannot start at all.
        """
        yield from self._in_order(self._begin(text, gold) for text, gold in pairs)

    def check_golds(self, golds: Iterable[str]) -> Iterator[GradeResult]:
        r"""Yield, for each gold answer, the grade of ``\boxed{gold}``; the same text is no proof.

        A gold answer that is not `correct` here can only ever be matched word for word.
        """
        yield from self._in_order(
            self._begin(f"\\boxed{{{_answer_of(gold)}}}", gold, by_text=False) for gold in golds
        )

    def equal(self, answer: str, gold: str) -> bool:
        """Whether two bare answers are known to be equal; False where we could not tell."""
        return _settled(self._compare(gold, answer)).verdict is Verdict.CORRECT

    def worker_pids(self) -> list[int]:
        """The process ids of the workers that are up."""
        with self._lock:
            return self._pool.pids() if self._pool is not None else []

    def _in_order(
        self, begun: Iterable[GradeResult | Future[GradeResult]]
    ) -> Iterator[GradeResult]:
        window: deque[GradeResult | Future[GradeResult]] = deque()
        for item in begun:
            window.append(item)
            while window and (_known(window[0]) or len(window) > _LOOKAHEAD * self._num_workers):
                yield _settled(window.popleft())
        while window:
            yield _settled(window.popleft())

    def _begin(
        self, text: str, gold: str, by_text: bool = True
    ) -> GradeResult | Future[GradeResult]:
        answer = extract_answer(text)
        return _NO_ANSWER if answer is None else self._compare(gold, answer, by_text)

    def _compare(
        self, gold: str, answer: str, by_text: bool = True
    ) -> GradeResult | Future[GradeResult]:
        """Return the result, or the promise of it: cache, fast path, then a worker."""
        if not is_checker(gold) and not readable(gold):
            return replace(_RESULTS[Comparison.GOLD_UNPARSEABLE], extracted_answer=_shown(answer))
        if not readable(answer):
            return replace(_ERROR, extracted_answer=_shown(answer))
        key = gold, answer, by_text
        with self._lock:
            known = self._cache.get(key)
            if known is not None:
                return known
            quick = None if is_checker(gold) else compare_quickly(gold, answer, by_text=by_text)
            if quick is not None:
                result = replace(_RESULTS[quick], extracted_answer=answer)
                self._remember(key, result)
                return result
            future = self._live_pool().submit(gold, answer)
            self._remember(key, future)
        future.add_done_callback(lambda done: self._replace(key, done))
        return future

    def _live_pool(self) -> _Pool:
        # A fork copies neither threads nor workers: a child of ours gets a pool of its own.
        if self._pool is None or self._pool.owner_pid != os.getpid():
            self._pool = _Pool(
                num_workers=self._num_workers,
                timeout_seconds=self._timeout_seconds,
                memory_mib=self._memory_mib,
            )
            weakref.finalize(self, self._pool.close)
        return self._pool

    def _remember(self, key: _Key, item: GradeResult | Future[GradeResult]) -> None:
        self._cache[key] = item
        if len(self._cache) > _CACHE_SIZE:
            del self._cache[next(iter(self._cache))]

    def _replace(self, key: _Key, done: Future[GradeResult]) -> None:
        """Keep a result in place of its promise; a crash may be chance and is not kept."""
        with self._lock:
            if self._cache.get(key) is not done:
                return
            del self._cache[key]
            if not done.cancelled() and done.exception() is None:
                result = done.result()
                if result.cause is not UngradedCause.GRADER_ERROR:
                    self._remember(key, result)


def grade_responses(pairs: Iterable[tuple[str, str]]) -> list[Verdict]:
    """Return the verdicts of (response text, gold answer) pairs, in order. Safe from any thread.

    `Grader` also tells the extracted answer and why a response is ungraded, and keeps its workers.
    """
    with Grader() as grader:
        return [result.verdict for result in grader.grade(pairs)]


def _answer_of(gold: str) -> str:
    return own_answer(gold) if is_checker(gold) else gold


def _known(item: GradeResult | Future[GradeResult]) -> bool:
    return isinstance(item, GradeResult) or item.done()


def _settled(item: GradeResult | Future[GradeResult]) -> GradeResult:
    if isinstance(item, GradeResult):
        return item
    try:
        return item.result()
    except CancelledError as error:
        raise MidcourseError(_CLOSED) from error


def _shown(answer: str) -> str:
    return answer if len(answer) <= MAX_ANSWER_CHARS else answer[:_SHOWN_CHARS] + "…"


class _Pool:
    """Threads that each lead one worker process at a time; holds no reference to its Grader."""

    def __init__(self, *, num_workers: int, timeout_seconds: float, memory_mib: int) -> None:
        self.owner_pid = os.getpid()
        self._timeout_seconds, self._memory_mib = timeout_seconds, memory_mib
        self._tasks: SimpleQueue[tuple[str, str, Future[GradeResult]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._workers: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        # Daemons: they wait on processes that are killed when the interpreter ends.
        self._threads = [
            threading.Thread(target=self._serve, name=f"grader-{index}", daemon=True)
            for index in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    def pids(self) -> list[int]:
        """The process ids of the workers that are up."""
        with self._lock:
            return [worker.pid for worker in self._workers]

    def submit(self, gold: str, answer: str) -> Future[GradeResult]:
        """Promise the result of one comparison."""
        future: Future[GradeResult] = Future()
        self._tasks.put((gold, answer, future))
        return future

    def close(self) -> None:
        """Kill all workers; what was still owed is cancelled."""
        if os.getpid() != self.owner_pid:
            return
        with self._lock:
            self._closed = True
            workers = list(self._workers)
        for worker in workers:
            worker.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            # The last reference to a grader may be dropped in one of our own callbacks.
            if thread is not threading.current_thread():
                thread.join()
        for worker in list(self._workers):
            self._discard(worker)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            gold, answer, future = task
            if self._closed:
                future.cancel()
            elif future.set_running_or_notify_cancel():
                try:
                    result = self._ask(gold, answer)
                except (MidcourseError, OSError) as error:  # OSError: no process to be had
                    future.set_exception(error)
                else:
                    future.set_result(replace(result, extracted_answer=answer))

    def _ask(self, gold: str, answer: str) -> GradeResult:
        """Ask one worker; one that hangs or dies is taken down, a later question gets another."""
        worker = self._take()
        try:
            reply = worker.ask(gold, answer)
        except WorkerTimeout:
            self._discard(worker)
            return _TIMEOUT
        except WorkerDied:
            self._discard(worker)
            if self._closed:
                raise MidcourseError(_CLOSED) from None
            return _ERROR
        if worker.fit:
            with self._lock:
                self._idle.append(worker)
        else:
            self._discard(worker)
        return _RESULTS.get(reply, _ERROR)

    def _take(self) -> WorkerProcess:
        """Return an idle worker or a new one. Raises MidcourseError if none will start."""
        for _ in range(_START_ATTEMPTS):
            worker = self._idle_or_new()
            try:
                worker.wait_ready()
            except WorkerDied:
                self._discard(worker)
            except MidcourseError:
                self._discard(worker)
                raise
            else:
                return worker
        raise MidcourseError(
            f"the grader's workers die while they start; is grade.memory_mib = {self._memory_mib} "
            "too small?"
        )

    def _idle_or_new(self) -> WorkerProcess:
        while True:
            with self._lock:
                if self._closed:
                    raise MidcourseError(_CLOSED)
                if not self._idle:
                    worker = WorkerProcess(
                        timeout_seconds=self._timeout_seconds, memory_mib=self._memory_mib
                    )
                    self._workers.add(worker)
                    return worker
                worker = self._idle.pop()
            if worker.alive:
                return worker
            # Killed while it had nothing to do: no answer is to blame.
            self._discard(worker)

    def _discard(self, worker: WorkerProcess) -> None:
        worker.reap()
        with self._lock:
            self._workers.discard(worker)
