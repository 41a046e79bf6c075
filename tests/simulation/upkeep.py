"""Retention and the collection of artifacts in a hurry: the real loops, with minutes where they have days."""

from __future__ import annotations

from datetime import timedelta

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.upkeep.garbage import ArtifactGarbage
from ktrdr.backend.upkeep.housekeeping import Housekeeping
from ktrdr.backend.wiring import Backend

__all__ = ["GRACE_S", "RETENTION_S", "hurry"]

RETENTION_S, GRACE_S = 500.0, 400.0
_EVERY_S = 60.0


def hurry(backend: Backend, artifacts: FileArtifactStore) -> None:
    """Before its start."""
    home = backend.config.home
    retention = timedelta(seconds=RETENTION_S)
    backend.housekeeping = Housekeeping(
        backend.operations, backend.clock, retention, first_s=_EVERY_S, every_s=_EVERY_S
    )
    backend.garbage = ArtifactGarbage(
        backend.store, artifacts, home / "market", home / "artifact-gc.json", backend.clock, GRACE_S
    )
