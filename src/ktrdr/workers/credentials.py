"""What opens a worker's routes: its own tokens at first, then what its backend made for it alone."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

__all__ = ["Credentials"]

_PATIENCE_S = 5.0
_PAUSE_S = 10.0


class Credentials:
    """Knows whom to let in.

    A fleet's enrolment token is known to every worker of the fleet. Once the backend has given this worker a credential
    of its own, the enrolment token therefore opens nothing here any more; only KTRDR_API_TOKEN does, where it is set.

    Parameters
    ----------
    administrator
        KTRDR_API_TOKEN, if this worker was given it.
    enrolment
        What this worker shows the backend.
    register_again
        Called when somebody shows what is not known here: the backend may have changed its credential.
    pause_s
        So long at least lies between two of these calls.
    """

    def __init__(
        self,
        administrator: str | None,
        enrolment: str | None,
        register_again: Callable[[], None],
        *,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._administrator, self._enrolment = administrator, enrolment
        self._call: str | None = None
        self._register_again, self._pause_s = register_again, pause_s
        self._learned = asyncio.Event()
        self._asked_at: float | None = None

    @property
    def needed(self) -> bool:
        """Whether anything needs to be shown at all."""
        return bool(self._administrator or self._enrolment or self._call)

    def learn(self, call: str | None) -> None:
        """The backend has answered a registration, with the credential that it will show from now on."""
        self._call = call or self._call
        self._learned.set()

    async def admit(self, offered: str) -> bool:
        """Whether this opens the routes. What is not known makes the worker register again, and waits for that."""
        if self._opens(offered):
            return True
        if not offered:
            return False
        now = asyncio.get_running_loop().time()
        if self._asked_at is None or now - self._asked_at >= self._pause_s:
            self._asked_at = now
            self._learned.clear()
            self._register_again()
        try:
            async with asyncio.timeout(max(0.0, self._asked_at + _PATIENCE_S - now)):
                await self._learned.wait()
        except TimeoutError:
            return False
        return self._opens(offered)

    def _opens(self, offered: str) -> bool:
        accepted = (self._administrator, self._call or self._enrolment)
        shown = offered.encode("utf-8", "surrogateescape")
        known = [token.encode("utf-8", "surrogateescape") for token in accepted if token]
        return any([hmac.compare_digest(shown, token) for token in known])  # noqa: C419 (each, in constant time)
