"""A backend's door: the real doorman with the real table of scopes, and the administrator's routes of tokens."""

from __future__ import annotations

from collections.abc import Callable

from ktrdr.backend.access.doorman import Doorman, check_scope
from ktrdr.backend.access.principal import Principal
from ktrdr.backend.access.scopes import matched
from ktrdr.backend.wiring import Backend
from ktrdr.errors import Forbidden, NotAuthorised, NotFound
from ktrdr.protocol.access import CreateToken
from simulation.network import Message
from simulation.passes import Passes
from simulation.trace import Trace
from simulation.virtual_time import Process

__all__ = ["Door"]


class Door:
    """Of one process. ``excused_until``: since when the backend can know what the ledger says."""

    def __init__(
        self,
        backend: Backend,
        process: Process,
        passes: Passes,
        trace: Trace,
        excused_until: Callable[[], float],
    ) -> None:
        self._backend, self._process, self._passes, self._trace = backend, process, passes, trace
        self._excused_until = excused_until
        self._doorman = Doorman(backend.config)
        self._doorman.book = backend.tokens

    async def enter(self, message: Message) -> Principal:
        """Let a request in, and say whose it is; raises what the guard before the routes answers with."""
        shown = message.headers.get("authorization", "")
        found = matched(message.method, message.path.partition("?")[0])
        assert found is not None, message.path
        try:
            principal = await self._doorman.principal(shown)
            check_scope(principal, found.scopes)
        except Forbidden:
            self._trace.situations["token of another scope refused"] += 1
            raise
        except NotAuthorised:
            withdrawn = self._passes.withdrawn(shown.removeprefix("Bearer "))
            self._trace.situations["withdrawn token refused" if withdrawn else "stranger refused"] += 1
            raise
        self._passes.admitted(message, self._trace.now(), self._process, self._excused_until())
        return principal

    async def make(self, wish: CreateToken) -> str:
        """A token's text."""
        record, text = await self._backend.tokens.create(wish.name, wish.scopes, None, "bootstrap")
        self._passes.gave(record.name, text, record.scopes)
        return text

    async def withdraw(self, name: str) -> None:
        """Make a token worthless."""
        try:
            await self._backend.tokens.revoke(name)
        except NotFound:  # somebody was quicker, or an earlier attempt that told nobody
            self._passes.withdrew(name, self._trace.now(), None)
            raise
        self._passes.withdrew(name, self._trace.now(), self._process)
