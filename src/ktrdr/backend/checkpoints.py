"""The files of checkpoints at the backend: verified before they are recorded, removed when nobody needs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from ktrdr.artifacts import FileArtifactStore
from ktrdr.errors import NotFound, Unavailable
from ktrdr.operations.store import OperationStore

__all__ = ["CheckpointFiles"]

_log = logging.getLogger("ktrdr.backend")


class CheckpointFiles:
    """Keeps what operations can go on from and lets go of the rest.

    An operation that was resumed shares its first checkpoints with its parent, so a file goes only if neither needs
    it. Where that cannot be found out it stays: a file too many costs disk, one too few costs work.
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

    async def drop(self, operation_id: str, digests: Iterable[str]) -> None:
        """Remove files that the operation needs no more, unless it or its parent still names them."""
        try:
            operation = await self._store.get(operation_id)
            needed = set(operation.checkpoints)
            if operation.parent_operation_id is not None:
                needed |= set((await self._store.get(operation.parent_operation_id)).checkpoints)
        except (NotFound, Unavailable) as error:
            _log.info("Checkpoints of %s stay on disk: %s", operation_id, error)
            return
        for digest in set(digests) - needed:
            await asyncio.to_thread(self._artifacts.delete, digest)
