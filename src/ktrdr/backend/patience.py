"""A client gets an answer in time although what it asked for hangs, as changes do while a database stands still."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ktrdr.backend.problems import error_response
from ktrdr.errors import Unavailable

__all__ = ["Patience"]

_PREFIXES = tuple(f"/api/v1/{noun}" for noun in ("operations", "backtests", "training", "workers", "queue"))
_TELL_AGAIN_S = 5.0


class Patience:
    """Answers 503 to a change that has not begun to answer within ``patience_s``, and lets it go on.

    It is not broken off: a change whose fate nobody knows is worse than one that is known late. So the answer says
    that it may still happen. Reads are left alone: the ledger bounds them, and ``?wait=`` is meant to be slow.
    """

    def __init__(self, app: ASGIApp, patience_s: float) -> None:
        self._app, self._patience_s = app, patience_s
        self._late: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        changes = scope["type"] == "http" and scope["method"] in ("POST", "DELETE")
        if not changes or not scope["path"].startswith(_PREFIXES):
            await self._app(scope, receive, send)
            return
        begun = given_up = False

        async def forward(message: Message) -> None:
            nonlocal begun
            if not given_up:
                begun = True
                await send(message)

        work = asyncio.ensure_future(self._app(scope, receive, forward))
        try:
            await asyncio.wait({work}, timeout=self._patience_s)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if work.done() or begun:
            await work
            return
        given_up = True
        self._late.add(work)
        work.add_done_callback(self._late.discard)
        told = (
            f"The backend did not get this done within {self._patience_s:g} s; most likely its ledger does not answer. "
            "It may still happen: repeat a submission under the same Idempotency-Key, and look before you repeat "
            "anything else."
        )
        await error_response(Unavailable(told, _TELL_AGAIN_S), scope["path"])(scope, receive, send)
