"""Time that jumps to the next timer, and processes that can be killed: asyncio without a real clock or thread."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any, TypeVar

__all__ = ["EPOCH", "Process", "SimulatedClock", "VirtualLoop"]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_FEW = 16
_CONTEXT, _CALLBACK, _ARGS, _LINE = 2, 3, 4, 5  # places in what is due
T = TypeVar("T")
_OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)


class _NothingToWaitFor(selectors.BaseSelector):
    """No file ever becomes ready."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(
            fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data
        )
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[Any]:
        return []

    def get_map(self) -> Any:
        return self._keys


class _Due(list[Any]):
    """Something to be called, now or later: when, a number in the order of making, the context, the callback (None once
    it is cancelled), its arguments, and the line of limits it stands in. A list, because millions are made and
    compared, and lists do both without Python."""

    __slots__ = ()

    def cancel(self) -> None:
        self[_CONTEXT] = self[_CALLBACK] = self[_ARGS] = None

    def cancelled(self) -> bool:
        return self[_CALLBACK] is None


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose hours pass at once. Work for threads is done on the spot, names of hosts are addresses.

    What is ready runs in the order in which it became so; when nothing is, the time jumps to the next timer. Timers
    of one moment fire in the order of their making.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[_Due] = []
        self._limits: dict[float, deque[_Due]] = {}  # by length, each in the order of their ends
        self._made = 0
        self.frozen: dict[Process | None, list[_Due]] = {}  # what became due of whom meanwhile
        super().__init__(_NothingToWaitFor())
        self._ready: deque[_Due]
        self._stopping: bool

    get_debug: Any = bool  # asked for each future: always False, and no Python is called for it

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = _Due((0.0, 0, copy_context() if context is None else context, callback, args, None))
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        self._made += 1
        timer = _Due(
            (
                self._now + delay,
                self._made,
                copy_context() if context is None else context,
                callback,
                args,
                None,
            )
        )
        heappush(self._timers, timer)
        return timer

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        self._made += 1
        timer = _Due((when, self._made, copy_context() if context is None else context, callback, args, None))
        heappush(self._timers, timer)
        return timer

    def limit(self, delay: float, callback: Any, *args: Any) -> _Due:
        """As ``call_later``, for what is nearly always cancelled: of the limits of one length only the first that may
        count is among the timers."""
        line = self._limits.setdefault(delay, deque())
        self._made += 1
        timer = _Due((self._now + delay, self._made, copy_context(), callback, args, line))
        if not line:
            heappush(self._timers, timer)
        line.append(timer)
        return timer

    def _next_limit(self, line: deque[_Due]) -> None:
        line.popleft()
        while line and line[0][_CALLBACK] is None:
            line.popleft()
        if line:
            heappush(self._timers, line[0])

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> Any:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        owner = _OWNER.get()
        if owner is not None:
            owner.own(task)
        return task

    def _run_once(self) -> None:
        """Turns of asyncio's loop, without files and threads: the hottest place of a simulation."""
        ready, timers, frozen = self._ready, self._timers, self.frozen
        while not self._stopping:
            while not ready:
                if not timers:
                    raise RuntimeError(
                        "The simulation stands still: nothing is due, and nobody will ever wake anybody."
                    )
                now = self._now = max(self._now, timers[0][0])
                while timers and timers[0][0] <= now:
                    timer = heappop(timers)
                    if timer[_LINE] is not None:
                        self._next_limit(timer[_LINE])
                    if timer[_CALLBACK] is not None:
                        ready.append(timer)
            for _ in range(len(ready)):
                handle = ready.popleft()
                _, _, context, callback, args, _ = handle
                if callback is None:
                    continue
                if frozen and (held := frozen.get(context.get(_OWNER))) is not None:
                    held.append(handle)
                    continue
                try:
                    context.run(callback, *args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # as asyncio's own loop: whoever watches it is told
                    self.call_exception_handler({"message": f"Exception in {callback!r}", "exception": error})

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # the thread's edge: the caller gets it
            done.set_exception(error)
        return done

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]


class Process:
    """All tasks that began inside it, whoever made them; ``kill`` ends them in the order of their making."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self._tasks: list[asyncio.Task[Any]] = []
        self._tidy_at = _FEW

    def own(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)
        if len(self._tasks) > self._tidy_at:
            self.tidy()

    def tidy(self) -> None:
        """Let go of what has ended; a task whose error nobody asked for says so then."""
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tidy_at = max(_FEW, 2 * len(self._tasks))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task inside the process, from wherever this is called."""
        token = _OWNER.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            _OWNER.reset(token)

    def freeze(self, loop: VirtualLoop) -> None:
        """As ``SIGSTOP``: whatever becomes due for it waits, whatever comes for it too."""
        loop.frozen.setdefault(self, [])

    def thaw(self, loop: VirtualLoop) -> None:
        """As ``SIGCONT``: everything that waited happens at once, in its order."""
        loop._ready.extend(loop.frozen.pop(self, ()))

    def kill(self) -> None:
        """As ``kill -9``: nothing of it has an effect any more, because ways out look at ``alive``."""
        self.alive = False
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()

    def do(self, work: Callable[..., T], *about: Any) -> T:
        """Call something inside the process, at once."""
        token = _OWNER.set(self)
        try:
            return work(*about)
        finally:
            _OWNER.reset(token)

    def check(self) -> None:
        """Every way out of a process passes here: the dead do nothing."""
        if not self.alive:
            raise asyncio.CancelledError


class SimulatedClock:
    """The clock of one machine: virtual time and an error of its own, which may jump."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.skew_s = 0.0
        self._told = (0.0, EPOCH)  # the last answer: often nothing has moved since

    def now(self) -> datetime:
        seconds = self._loop.time() + self.skew_s
        if seconds != self._told[0]:
            self._told = (seconds, EPOCH + timedelta(seconds=seconds))
        return self._told[1]

    def monotonic(self) -> float:
        return self._loop.time()

    def jump(self, seconds: float) -> None:
        """Move the wall time alone."""
        self.skew_s += seconds
