"""Makes the worker known to its backend, for as long as it lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random

from ktrdr.clock import Clock
from ktrdr.errors import KtrdrError, ServerUnreachable
from ktrdr.protocol.messages import RegisterRequest, RegisterResponse
from ktrdr.workers.backend_link import BackendLink

__all__ = ["Registration"]

_log = logging.getLogger(__name__)
_LOUD = 5
_HEARTBEATS = 10


class Registration:
    """Registers, and registers again when the backend seems to have forgotten this worker.

    That is: no probe came for ``silence_s``, the backend said that it does not know this worker, or ten times
    ``silence_s`` have passed (something other than the backend may be asking ``/health``).

    Parameters
    ----------
    request
        Makes the message, fresh for each attempt.
    accept
        Takes the backend's answer.
    """

    def __init__(
        self,
        link: BackendLink,
        *,
        request: Callable[[], Awaitable[RegisterRequest]],
        accept: Callable[[RegisterResponse], None],
        clock: Clock,
        random: Random,
        silence_s: float = 30.0,
        first_retry_s: float = 1.0,
        longest_retry_s: float = 30.0,
    ) -> None:
        self._link, self._request, self._accept = link, request, accept
        self._clock, self._random = clock, random
        self._silence_s, self._first_s, self._longest_s = silence_s, first_retry_s, longest_retry_s
        self._heard_at = clock.monotonic()
        self._again = asyncio.Event()
        self.registered = asyncio.Event()

    def heard(self) -> None:
        """A probe came."""
        self._heard_at = self._clock.monotonic()

    def again(self) -> None:
        """Register soon: the backend does not know this worker, or something that it should know has changed."""
        self._again.set()

    async def run(self) -> None:
        """Never returns; no failure ends it."""
        while True:
            await self._until_registered()
            await self._until_forgotten()

    async def _until_registered(self) -> None:
        failures = 0
        while not await self._attempt(failures):
            failures += 1
            longest = min(self._first_s * 2 ** min(failures - 1, 30), self._longest_s)
            await asyncio.sleep(longest * self._random.uniform(0.5, 1.0))

    async def _attempt(self, failures: int) -> bool:
        self._again.clear()
        try:
            response = await self._link.register(await self._request())
        except KtrdrError as error:
            self._tell(failures, error)
            return False
        except Exception:  # the edge of a task that must not end
            _log.exception("Registration failed unexpectedly; trying again.")
            return False
        first = not self.registered.is_set()
        level = logging.INFO if first or failures else logging.DEBUG
        _log.log(level, "Registered with %s as %s: %s", self._link.url, response.worker_id, response.message)
        self.registered.set()
        self.heard()
        self._accept(response)
        return True

    def _tell(self, failures: int, error: KtrdrError) -> None:
        if failures < _LOUD:
            silent = isinstance(
                error, ServerUnreachable
            )  # else it did answer, and its answer says what to do
            _log.warning(
                "Registration failed (attempt %d): %s%s Trying again for as long as it takes.",
                failures + 1,
                error,
                " Is the backend running? KTRDR_API_URL names it." if silent else "",
            )
        else:
            _log.debug("Registration failed (attempt %d): %s", failures + 1, error)
        if failures + 1 == _LOUD:
            _log.warning("Further failed registrations are logged at level DEBUG only.")

    async def _until_forgotten(self) -> None:
        latest = self._clock.monotonic() + _HEARTBEATS * self._silence_s
        while True:
            now = self._clock.monotonic()
            due = min(self._heard_at + self._silence_s, latest)
            if now >= due:
                return
            try:
                async with asyncio.timeout(due - now):  # asyncio.wait_for (3.11) may lose a cancel
                    await self._again.wait()
            except TimeoutError:
                continue
            return
