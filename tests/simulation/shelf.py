"""The files that all backends share, in memory: models and checkpoints, which may be damaged as they lie there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import cast

from ktrdr.artifacts import FileArtifactStore, sha256_of
from ktrdr.backend.operations.checkpoints import CheckpointFiles
from ktrdr.errors import CorruptArtifact, NotFound
from ktrdr.operations.store import OperationStore
from simulation.trace import Trace
from simulation.virtual_time import EPOCH

__all__ = ["Made", "Shelf", "ShelvedCheckpoints"]

_LIES_S = 20.0  # in which what is damaged at all gets damaged


@dataclass(frozen=True, slots=True)
class Made:
    """Who wrote a checkpoint, and how far the job was."""

    operation_id: str
    attempt: int
    done: int
    checkpoint: bool = True  # else what a job brings at its end


class Shelf:
    """Does what the backend asks of its artifact store, as far as results and checkpoints go."""

    def __init__(self, trace: Trace, random: Random) -> None:
        self._trace, self._random = trace, random
        self._files: dict[str, bytes] = {}
        self._torn: dict[str, float] = {}  # since when
        self._verified: dict[str, float] = {}  # when a backend last found it whole
        self.made: dict[str, Made] = {}  # also of files that are gone
        self._touched: dict[str, float] = {}
        self.on_delete: Callable[[str], None] = lambda _: None
        self.on_collect: Callable[[str, float], None] = lambda _, __: None

    def put(self, content: bytes) -> str:
        """Store a file."""
        digest = sha256_of(content)
        self._files[digest] = content
        self._touched[digest] = self._trace.now()
        self._torn.pop(digest, None)
        return digest

    def take(self, content: bytes, made: Made, torn: float) -> None:
        """A worker brings a file; a checkpoint is damaged later with the chance ``torn``."""
        digest = self.put(content)
        self.made[digest] = made
        if made.checkpoint and self._random.random() < torn:
            after_s = self._random.uniform(0.0, _LIES_S)
            asyncio.get_running_loop().call_later(after_s, self._tear, digest, context=Context())

    def _tear(self, digest: str) -> None:
        if digest in self._files:
            self._torn[digest] = self._trace.now()
            made = self.made[digest]
            self._trace.fault("checkpoint torn", f"{digest[:12]} after {made.done}", made.operation_id)

    def intact(self, digest: str) -> bool:
        """A backend looks at the whole file."""
        if self.whole(digest):
            self._verified[digest] = self._trace.now()
        return self.whole(digest)

    def whole(self, digest: str) -> bool:
        """Nobody looks: for the laws."""
        return digest in self._files and digest not in self._torn

    def was_verified(self, digest: str, within_s: float) -> bool:
        """Whether a backend found it whole so long ago at most; or it is whole, and some backend ever did."""
        at = self._verified.get(digest)
        return at is not None and (self.whole(digest) or self._trace.now() - at <= within_s)

    def touch(self, digest: str) -> bool:
        if digest in self._files:
            self._touched[digest] = self._trace.now()
        return digest in self._files

    def read(self, digest: str) -> bytes:
        """The bytes, verified."""
        if digest not in self._files:
            raise NotFound("artifact", digest)
        if digest in self._torn:
            raise CorruptArtifact(f"Artifact {digest} is damaged.")
        return self._files[digest]

    def delete(self, digest: str) -> None:
        self.on_delete(digest)
        self._files.pop(digest, None)
        self._torn.pop(digest, None)
        self._verified.pop(digest, None)

    def folders(self) -> list[str]:
        """One is enough for so few."""
        return [""]

    def digests_of(self, folder: str) -> list[str]:
        """All that lies here."""
        return list(self._files)

    def discard(self, digest: str, *, unused_since: float, pretend: bool = False) -> int | None:
        """Collected as garbage, unless it was wanted since."""
        touched = self._touched.get(digest, 0.0)
        if digest not in self._files or EPOCH.timestamp() + touched > unused_since or pretend:
            return None
        self.on_collect(digest, self._trace.now() - touched)
        self._torn.pop(digest, None)
        self._verified.pop(digest, None)
        return len(self._files.pop(digest))

    @property
    def as_store(self) -> FileArtifactStore:
        """For parts of the backend that ask for files only what is here."""
        return cast("FileArtifactStore", self)

    def location(self, digest: str) -> Path:
        """Nothing here has a path, nor names anything else."""
        return Path("/nowhere", digest)


class ShelvedCheckpoints(CheckpointFiles):
    """The real part, but for the look into a file for its owner."""

    def __init__(self, store: OperationStore, shelf: Shelf) -> None:
        super().__init__(store, shelf.as_store)
        self._shelf = shelf

    def _done(self, digest: str) -> int:
        return self._shelf.made[digest].done

    def _remove(self, operation_id: str, digest: str) -> None:
        made = self._shelf.made.get(digest)
        if made is not None and made.operation_id == operation_id:
            self._shelf.delete(digest)
