"""No more submissions at once than the backend can make durable in a moment; the others are told at once to come back."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ktrdr.backend.problems import error_response
from ktrdr.errors import Overloaded

__all__ = ["Turnstile"]

_SUBMITS = re.compile(r"/api/v1/((backtests|trainings|training)/start|operations/[^/]+/(retry|resume))\Z")
_AT_ONCE = 16
_LINE = 256
_LONGEST_WAIT_S = 0.025
_RETRY_S = 1.0
_TOLD = (
    "The backend has as many submissions as it can record in a moment and takes no more just now. Nothing of this one "
    f"was recorded: send it again in {_RETRY_S:g} s."
)


class Turnstile:
    """Lets ``at_once`` submissions in; those that come meanwhile stand in line.

    Laws
    ----
    - Whoever comes is refused at once if the first in line has waited longer than ``longest_wait_s``, or ``line`` wait.
      So a burst after quiet is taken whole, while under a load that is too much for the machine an accepted submission
      has waited about that long; and when the load falls everybody is let in again as soon as the line has moved.
    - A refused submission is not recorded. Nothing else is refused: what runs, reports, cancels and reads has its way.
    - Nobody holds a place who has not sent the whole request.

    ``refused`` is called for each that is.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        refused: Callable[[], object] = lambda: None,
        at_once: int = _AT_ONCE,
        line: int = _LINE,
        longest_wait_s: float = _LONGEST_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._refused, self._clock = app, refused, clock
        self._at_once, self._longest, self._longest_wait_s = at_once, line, longest_wait_s
        self._inside = 0
        self._line: deque[tuple[float, asyncio.Future[None]]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        submits = scope["type"] == "http" and scope["method"] == "POST" and _SUBMITS.match(scope["path"])
        if not submits:
            await self._app(scope, receive, send)
            return
        whole = None if self._closed() else await _whole(receive)
        if whole is None or not await self._enter():
            self._refused()
            await error_response(Overloaded(_TOLD, _RETRY_S), scope["path"])(scope, receive, send)
            return
        try:
            await self._app(scope, whole, send)
        finally:
            self._leave()

    def _closed(self) -> bool:
        """Whether the line does not move, or is too long."""
        line = self._line
        return len(line) >= self._longest or bool(line and self._clock() - line[0][0] > self._longest_wait_s)

    async def _enter(self) -> bool:
        if self._inside < self._at_once:
            self._inside += 1
            return True
        if self._closed():
            return False
        place = asyncio.get_running_loop().create_future()
        entry = (self._clock(), place)
        self._line.append(entry)
        try:
            await place
        except asyncio.CancelledError:
            if entry in self._line:
                self._line.remove(entry)
            elif not place.cancelled():
                self._leave()  # let in and broken off in one moment
            raise
        return True

    def _leave(self) -> None:
        """The place goes to the first in line who is still there."""
        while self._line:
            _, place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._inside -= 1


async def _whole(receive: Receive) -> Receive:
    """``receive`` that gives what was sent, once all of it is here."""
    messages: deque[Message] = deque()
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request" or not message.get("more_body", False):
            break

    async def again() -> Message:
        return messages.popleft() if messages else await receive()

    return again
