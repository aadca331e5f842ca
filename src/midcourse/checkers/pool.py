r"""Grades responses, with worker processes that are killed and replaced at a deadline.

A thread cannot be killed and a power tower holds the interpreter, so what may hang runs in
processes of its own. Most answers never get there: extraction, the checker's quick comparison and
a cache settle them in the parent. What we fail to grade is `ungraded` with its cause, never
incorrect.

    with Grader() as grader:
        for result in grader.grade([("So it is \boxed{4}.", Gold("math", "4"))]):
            result.verdict      # correct
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue

from midcourse.checkers.base import MAX_ANSWER_CHARS, Comparison, Pair
from midcourse.checkers.process import WorkerDied, WorkerProcess, WorkerTimeout
from midcourse.checkers.registry import checker_named, runs_programs
from midcourse.errors import MidcourseError
from midcourse.records import DEFAULT_CHECKER, Gold, UngradedCause, Verdict
from midcourse.sandbox import SandboxKind

_CACHE_SIZE = 20_000
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
    detail: str = ""
    """As `records.Grade.detail`."""


_ERROR = GradeResult(Verdict.UNGRADED, None, UngradedCause.GRADER_ERROR)
#: By the worker's word; whatever else it says is an error.
_RESULTS: dict[str, GradeResult] = {
    Comparison.EQUAL: GradeResult(Verdict.CORRECT, None),
    Comparison.DIFFERENT: GradeResult(Verdict.INCORRECT, None),
    Comparison.GOLD_UNPARSEABLE: GradeResult(
        Verdict.UNGRADED, None, UngradedCause.GOLD_UNPARSEABLE
    ),
    Comparison.ERROR: _ERROR,
    Comparison.TIMEOUT: (_TIMEOUT := GradeResult(Verdict.UNGRADED, None, UngradedCause.TIMEOUT)),
}
_NO_ANSWER = GradeResult(Verdict.NO_ANSWER, None)

#: A promised result, without the answer that it is about.
_Promise = Future[GradeResult]


class Grader:
    """A grader with a pool of killable workers; usable from any thread.

    Workers start when something first gets past the quick comparison. Close it, or use it as a
    context manager; at the latest its workers end with the interpreter.
    """

    def __init__(
        self,
        *,
        num_workers: int = 2,
        timeout_seconds: float = 5.0,
        memory_mib: int = 2048,
        sandbox: SandboxKind = "namespaces",
    ) -> None:
        self._num_workers = num_workers
        self._sandbox = sandbox
        self._start = partial(WorkerProcess, timeout_seconds=timeout_seconds, memory_mib=memory_mib)
        self._pool: _Pool | None = None
        #: By gold and normal form of the answer: what workers said, or will say.
        self._cache: dict[Pair, _Promise] = {}
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

    def grade(self, responses: Iterable[tuple[str, Gold]]) -> Iterator[GradeResult]:
        """Yield one result per (response text, gold), in order, as soon as it is known.

        Looks ahead by a bounded window, so that all workers have work while one is slow. Raises
        DataError for an unknown checker, MidcourseError if workers cannot start at all.
        """
        return self._in_order(self._begin(text, gold) for text, gold in responses)

    def check_golds(self, pairs: Iterable[Pair]) -> Iterator[GradeResult]:
        """Yield, for each gold and its own answer, the grade of that answer as it is stated.

        The same text proves nothing: a gold that is not `correct` here can only ever be
        matched word for word.
        """
        return self._in_order(
            self._begin(checker_named(p.gold.checker).state(p.answer), p.gold, by_text=False)
            for p in pairs
        )

    def equal(self, pair: Pair) -> bool:
        """Whether an answer is known to be right; False where we could not tell."""
        return _settled(pair.answer, self._compare(pair)).verdict is Verdict.CORRECT

    def _in_order(self, begun: Iterable[tuple[str | None, _Promise]]) -> Iterator[GradeResult]:
        window: deque[tuple[str | None, _Promise]] = deque()
        for item in begun:
            window.append(item)
            while window and (window[0][1].done() or len(window) > _LOOKAHEAD * self._num_workers):
                yield _settled(*window.popleft())
        while window:
            yield _settled(*window.popleft())

    def _begin(self, text: str, gold: Gold, by_text: bool = True) -> tuple[str | None, _Promise]:
        answer = checker_named(gold.checker).extract(text)
        if answer is None:
            return None, _kept(_NO_ANSWER)
        return answer, self._compare(Pair(answer, gold), by_text)

    def _compare(self, pair: Pair, by_text: bool = True) -> _Promise:
        """Return the result, or the promise of it: in the parent, from the cache, by a worker."""
        checker = checker_named(pair.gold.checker)
        quick = checker.compare_quickly(pair, by_text)
        if quick is not None:
            return _kept(_RESULTS[quick])
        key = replace(pair, answer=checker.same(pair.answer))
        with self._lock:
            if (known := self._cache.get(key)) is not None:
                return known
            future = self._live_pool().submit(pair)
            self._cache[key] = future
            if len(self._cache) > _CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
        future.add_done_callback(lambda done: self._forget_failure(key, done))
        return future

    def _live_pool(self) -> _Pool:
        # A fork copies neither threads nor workers: a child of ours gets a pool of its own.
        if self._pool is None or self._pool.owner_pid != os.getpid():
            self._pool = _Pool(self._num_workers, self._start, self._sandbox)
            weakref.finalize(self, self._pool.close)
        return self._pool

    def _forget_failure(self, key: Pair, done: _Promise) -> None:
        """A crash may be chance: the next such answer is compared again."""
        failed = done.exception() or done.result().cause is UngradedCause.GRADER_ERROR
        with self._lock:
            if failed and self._cache.get(key) is done:
                del self._cache[key]


def grade_responses(responses: Iterable[tuple[str, Gold | str]]) -> list[GradeResult]:
    """Return one result per (response text, gold), in order; a text as gold is a math answer."""
    with Grader() as grader:
        golds = ((t, Gold(DEFAULT_CHECKER, g) if isinstance(g, str) else g) for t, g in responses)
        return list(grader.grade(golds))


def _kept(result: GradeResult) -> _Promise:
    promise: _Promise = Future()
    promise.set_result(result)
    return promise


def _settled(answer: str | None, promise: _Promise) -> GradeResult:
    """Wait for a result and say which answer it is about."""
    if answer is not None and len(answer) > MAX_ANSWER_CHARS:
        answer = answer[:_SHOWN_CHARS] + "…"
    return replace(promise.result(), extracted_answer=answer)


class _Pool:
    """Threads that each lead one worker process at a time; holds no reference to its Grader."""

    def __init__(
        self, num_workers: int, start: Callable[..., WorkerProcess], sandbox: SandboxKind
    ) -> None:
        self.owner_pid, self._start, self._sandbox = os.getpid(), start, sandbox
        self._tasks: SimpleQueue[tuple[Pair, _Promise] | None] = SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._workers: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        # Daemons: they wait on processes that are killed when the interpreter ends.
        self._threads = [
            threading.Thread(target=self._serve, daemon=True) for _ in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, pair: Pair) -> _Promise:
        """Promise the result of one comparison."""
        promise: _Promise = Future()
        self._tasks.put((pair, promise))
        return promise

    def close(self) -> None:
        """Kill all workers; what was not done yet ends in an error."""
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
            pair, promise = task
            try:
                promise.set_result(self._ask(pair))
            except (MidcourseError, OSError) as error:  # OSError: no process to be had
                promise.set_exception(error)

    def _ask(self, pair: Pair) -> GradeResult:
        """Ask one worker; one that hangs or dies is taken down, a later question gets another."""
        worker = self._take(pair.gold.checker)
        try:
            word, detail = worker.ask(pair)
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
        return replace(_RESULTS.get(word, _ERROR), detail=detail)

    def _take(self, checker: str) -> WorkerProcess:
        """Return a worker that is ready for a checker. Raises MidcourseError if none will be."""
        sandbox = self._sandbox if runs_programs(checker) else None
        for _ in range(_START_ATTEMPTS):
            worker = self._idle_or_new(sandbox)
            try:
                worker.prepare(checker)
                return worker
            except WorkerDied:
                self._discard(worker)
            except MidcourseError:
                self._discard(worker)
                raise
        raise MidcourseError(
            "the grader's workers die while they start: is grade.memory_mib too small?"
        )

    def _idle_or_new(self, sandbox: SandboxKind | None) -> WorkerProcess:
        while True:
            with self._lock:
                if self._closed:
                    raise MidcourseError(_CLOSED)
                worker = next((w for w in self._idle if w.sandbox == sandbox), None)
                if worker is None:
                    worker = self._start(sandbox=sandbox)
                    self._workers.add(worker)
                    return worker
                self._idle.remove(worker)
            if worker.alive:
                return worker
            # Killed while it had nothing to do: no answer is to blame.
            self._discard(worker)

    def _discard(self, worker: WorkerProcess) -> None:
        worker.reap()
        with self._lock:
            self._workers.discard(worker)
