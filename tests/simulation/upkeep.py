"""Retention and the collection of artifacts in a hurry: the real loops, with minutes where they have days."""

from __future__ import annotations

from datetime import timedelta

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.upkeep.garbage import ArtifactGarbage
from ktrdr.backend.upkeep.housekeeping import Housekeeping
from ktrdr.backend.wiring import Backend

__all__ = ["GRACE_S", "RETENTION_S", "hurry"]

RETENTION_S, GRACE_S = 500.0, 400.0


def hurry(backend: Backend, artifacts: FileArtifactStore) -> None:
    """Before its start."""
    home = backend.config.home
    home.mkdir(parents=True, exist_ok=True)  # the collector keeps in mind there what it has seen
    backend.housekeeping = Housekeeping(backend.operations, backend.clock, timedelta(seconds=RETENTION_S))
    backend.garbage = ArtifactGarbage(
        backend.store, artifacts, home / "market", home / "artifact-gc.json", backend.clock, GRACE_S
    )
