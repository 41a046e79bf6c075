"""The files of checkpoints at the backend: verified before they are recorded, removed when nobody needs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from ktrdr.artifacts import FileArtifactStore
from ktrdr.errors import NotFound, Unavailable
from ktrdr.jobs.checkpoint import checkpoint_done, checkpoint_owner
from ktrdr.operations.store import OperationStore

__all__ = ["CheckpointFiles"]

_log = logging.getLogger("ktrdr.backend")


class CheckpointFiles:
    """Keeps what operations can go on from and lets go of the rest.

    A file goes only if it is a checkpoint that a job of this very operation wrote. So an operation that was resumed
    leaves its parent's alone, and no worker can have anything else removed by calling it a checkpoint.
    """

    def __init__(self, store: OperationStore, artifacts: FileArtifactStore) -> None:
        self._store, self._artifacts = store, artifacts

    async def require(self, digest: str, operation_id: str) -> None:
        """Raise Unavailable unless the file is here with the right bytes: it is to be uploaded, then told again."""
        if not await asyncio.to_thread(self._artifacts.intact, digest):
            raise Unavailable(
                f"Checkpoint {digest} of operation {operation_id} is not here, or damaged: upload it, then report again.",
                1.0,
            )

    async def intact(self, digests: Iterable[str]) -> tuple[str, ...]:
        """Those of ``digests`` whose files are whole."""
        known = tuple(digests)
        return await asyncio.to_thread(lambda: tuple(d for d in known if self._artifacts.intact(d)))

    async def furthest_first(self, digests: Iterable[str]) -> list[str]:
        """The checkpoints in the order in which an attempt tries them.

        The ledger holds them in the order of their news, and news can overtake each other: a report that got no answer
        in time may be heard after the next one.
        """
        known = list(digests)
        if len(known) < 2:
            return known
        done = await asyncio.to_thread(lambda: {digest: self._done(digest) for digest in known})
        return sorted(known, key=lambda digest: -done[digest])

    def _done(self, digest: str) -> int:
        done = checkpoint_done(self._artifacts.location(digest))
        return -1 if done is None else done

    async def drop(self, operation_id: str, digests: Iterable[str]) -> None:
        """Remove checkpoints of the operation's own that it needs no more."""
        try:
            needed = (await self._store.get(operation_id)).checkpoints
        except (NotFound, Unavailable) as error:
            _log.info("Checkpoints of %s stay on disk: %s", operation_id, error)
            return
        for digest in set(digests).difference(needed):
            await asyncio.to_thread(self._remove, operation_id, digest)

    def _remove(self, operation_id: str, digest: str) -> None:
        if checkpoint_owner(self._artifacts.location(digest)) == operation_id:
            self._artifacts.delete(digest)
