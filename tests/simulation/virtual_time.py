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


class _Due(asyncio.TimerHandle):
    """Something to be called, now or later: what asyncio's own handles are, without their debugging."""

    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: Context | None) -> None:
        self._when, self._callback, self._args, self._loop = when, callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled = self._scheduled = False
        self._source_traceback = self._repr = None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = self._context = None


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose hours pass at once. Work for threads is done on the spot, names of hosts are addresses.

    What is ready runs in the order in which it became so; when nothing is, the time jumps to the next timer. Timers
    of one moment fire in the order of their making.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, _Due]] = []
        self._made = 0
        self.frozen: dict[Process | None, list[_Due]] = {}  # what became due of whom meanwhile
        super().__init__(_NothingToWaitFor())
        self._ready: deque[_Due]
        self._stopping: bool
        self.set_task_factory(_owned)

    get_debug: Any = bool  # asked for each future: always False, and no Python is called for it

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = _Due(self._now, callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Due(when, callback, args, self, context)
        self._made += 1
        heappush(self._timers, (when, self._made, timer))
        return timer

    def _run_once(self) -> None:
        """Turns of asyncio's loop, without files and threads: the hottest place of a simulation."""
        ready, timers, frozen = self._ready, self._timers, self.frozen
        while not self._stopping:
            while not ready:
                if not timers:
                    raise RuntimeError(
                        "The simulation stands still: nothing is due, and nobody will ever wake anybody."
                    )
                self._now = max(self._now, timers[0][0])
                while timers and timers[0][0] <= self._now:
                    timer = heappop(timers)[2]
                    if not timer._cancelled:
                        ready.append(timer)
            for _ in range(len(ready)):
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                if frozen and (held := frozen.get(handle._context.get(_OWNER))) is not None:
                    held.append(handle)
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # as asyncio's own loop: whoever watches it is told
                    self.call_exception_handler({"message": f"Exception in {handle!r}", "exception": error})

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # the thread's edge: the caller gets it
            done.set_exception(error)
        return done

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]


def _owned(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coro, loop=loop, **more)
    owner = _OWNER.get()
    if owner is not None:
        owner.own(task)
    return task


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

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time() + self.skew_s)

    def monotonic(self) -> float:
        return self._loop.time()

    def jump(self, seconds: float) -> None:
        """Move the wall time alone."""
        self.skew_s += seconds
