"""What the backend forgets with time, so that a ledger does not grow for ever."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from ktrdr.backend.operations.service import OperationsService
from ktrdr.clock import Clock
from ktrdr.errors import Unavailable

__all__ = ["Housekeeping"]

_log = logging.getLogger("ktrdr.backend")
_STEP = 100  # operations of one transaction: some ten milliseconds of the ledger's writer
_BREATH_S = 0.2  # between two of them; what is submitted or finished meanwhile goes first
_LONGEST_S = 3_600.0
# Of the retention: how much later than it, at most, an operation goes where an hour would be more.
_LATE = 1 / 24
_JUMP = timedelta(minutes=10)
_WHOLE_STORIES = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class _Moment:
    wall: datetime
    monotonic: float


class Housekeeping:
    """Makes stories one line a week after their end, and deletes operations ``retention`` after theirs.

    Laws
    ----
    - Only what has ended is touched. Models are kept, and so are results until artifacts are collected.
    - A step is small and there is a pause after each: nobody waits for it.
    - A clock that was set since the round before deletes nothing: the round is left out, and the next one believes the
      clock if it has been right since.
    - No exception ends the loop.
    """

    def __init__(
        self,
        operations: OperationsService,
        clock: Clock,
        retention: timedelta,
    ) -> None:
        self._every_s = min(_LONGEST_S, retention.total_seconds() * _LATE)
        self._operations = operations
        self._clock = clock
        self._retention = retention
        self._before = self._now()

    async def run(self) -> None:
        """A round every hour, the first one ten minutes after the start; more often where the retention is below a day."""
        pause_s = self._every_s / 6
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self._every_s
            try:
                await self.round()
            except Unavailable as error:
                _log.warning("Retention waits for the ledger: %s", error)
            except Exception:  # the edge of a background job: the loop outlives everything
                _log.exception("Retention failed; it is tried again in %.0f s", self._every_s)

    async def round(self) -> None:
        """Compact and delete until nothing is left to do."""
        before, now = self._before, self._now()
        self._before = now
        if abs(now.wall - before.wall - timedelta(seconds=now.monotonic - before.monotonic)) > _JUMP:
            _log.warning(
                "The clock was set; nothing is deleted until it has been right for %.0f s", self._every_s
            )
            return
        told = await self._compact(now.wall - min(_WHOLE_STORIES, self._retention))
        end = now.wall - self._retention
        gone = await self._expire(end)
        if told or gone:
            _log.info(
                "Retention: %d stories were made one line; %d operations that ended before %s were deleted",
                told,
                gone,
                f"{end:%Y-%m-%d %H:%M} UTC",
            )

    async def _compact(self, before: datetime) -> int:
        done = 0
        while found := await self._operations.store.compact(before, _STEP):
            done += found
            await asyncio.sleep(_BREATH_S)
        return done

    async def _expire(self, before: datetime) -> int:
        done = 0
        while found := await self._operations.expire(before, _STEP):
            done += found
            await asyncio.sleep(_BREATH_S)
        return done

    def _now(self) -> _Moment:
        return _Moment(self._clock.now(), self._clock.monotonic())
