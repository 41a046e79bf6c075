"""Brings the checkpoints of a running job to the backend, so that any worker can go on from them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ktrdr.errors import CorruptArtifact, KtrdrError, NotFound
from ktrdr.protocol.messages import CheckpointNews, ReportRequest, ReportResponse
from ktrdr.workers.backend_link import BackendLink
from ktrdr.workers.host import Run
from ktrdr.workers.runfolder import CheckpointLog

__all__ = ["CheckpointPost"]

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 15.0
_LAST_NEWS_S = 2.0
_MOST_NOTES, _LONGEST_NOTE, _MOST_REFUSED = 16, 500, 8


class CheckpointPost:
    """Looks at what the job tells and passes on what is new: first the file, then its digest.

    What cannot be brought is tried again, with longer and longer pauses, unless something newer has come; it never
    holds the job up.

    Parameters
    ----------
    report
        Makes the report message around the news, with the worker's state at that moment.
    on_unknown
        Called when the backend does not know this worker.
    on_answer
        Called with each answer of the backend (it may name operations to stop), and the attempt that it is about.
    look_every_s
        Pause between two looks at what the job tells.
    """

    def __init__(
        self,
        link: BackendLink,
        worker_id: str,
        *,
        report: Callable[[CheckpointNews], ReportRequest],
        on_unknown: Callable[[], None],
        on_answer: Callable[[ReportResponse, int], None],
        look_every_s: float = 0.5,
    ) -> None:
        self._link, self._worker_id = link, worker_id
        self._report, self._on_unknown, self._on_answer = report, on_unknown, on_answer
        self._look_every_s = look_every_s

    async def follow(self, run: Run) -> None:
        """Pass on what a run tells, until it has ended; its last checkpoint goes with its delivery."""
        posted, pause_s = CheckpointLog(), self._look_every_s
        while not run.ended.done():
            await asyncio.wait([run.ended], timeout=pause_s)
            if not run.ended.done():
                taken = await self._pass_on(run, await asyncio.to_thread(run.checkpoints), posted)
                pause_s = self._look_every_s if taken else min(2 * pause_s, _LONGEST_PAUSE_S)
        last = run.checkpoints()
        last.saved = posted.saved
        if (last.notes, last.refused) != (posted.notes, posted.refused):
            try:
                async with asyncio.timeout(_LAST_NEWS_S):
                    await self._pass_on(run, last, posted)
            except TimeoutError:
                _log.warning("Operation %s: the last news of checkpoints was not taken", run.operation_id)

    async def _pass_on(self, run: Run, told: CheckpointLog, posted: CheckpointLog) -> bool:
        """Send what is not ``posted`` yet, which then holds it; whether nothing went wrong."""
        digest = next(iter(told.saved), None)
        fresh = digest if digest is not None and digest not in posted.saved else None
        notes = told.notes[len(posted.notes) :][:_MOST_NOTES]
        refused = told.refused[len(posted.refused) :][:_MOST_REFUSED]
        if fresh is None and not notes and not refused:
            return True
        news = CheckpointNews(
            operation_id=run.operation_id,
            attempt=run.attempt,
            digest=fresh,
            refused=refused,
            notes=[note[:_LONGEST_NOTE] for note in notes],
        )
        try:
            if fresh is not None:
                await self._link.upload([fresh])
            answer = await self._link.report(self._worker_id, self._report(news))
        except (CorruptArtifact, OSError) as error:
            _log.warning("Checkpoint of %s cannot be brought to the backend: %s", run.operation_id, error)
        except NotFound as error:
            if error.kind == "worker":
                self._on_unknown()  # else: a newer one has replaced the file meanwhile
        except KtrdrError as error:
            _log.info("News of a checkpoint of %s waits for the backend: %s", run.operation_id, error)
        else:
            posted.notes += notes
            posted.refused += refused
            posted.saved = list(told.saved) if fresh is not None else posted.saved
            self._on_answer(answer, run.attempt)
            return True
        return False
