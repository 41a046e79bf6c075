"""Checkpoints: where a job can be left, and the file from which it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ktrdr.artifacts import ArtifactStore
from ktrdr.errors import InvalidInput, UnusableCheckpoint
from ktrdr.operations.progress import Scalar
from ktrdr.snapshot import Snapshot, pack, read_values, unpack

__all__ = ["FORMATS", "Checkpoint", "ResumePoint", "Unit", "checkpoint_done", "checkpoint_owner"]

FORMATS: Mapping[str, str] = {"training": "training/1", "backtesting": "backtesting/1"}
"""What the state of each kind of job looks like; the number rises whenever what is stored, or the arithmetic that goes
on from it, changes, so that nothing goes on from what it does not understand."""

Unit = Literal["epochs", "bars"]
_STATE, _HEAD = "state", "checkpoint"


@dataclass(frozen=True, slots=True, eq=False)
class ResumePoint:
    """A job yields one where it could go on later: ``done`` of ``total`` ``unit`` are behind it.

    ``capture`` is valid until the job is asked for its next item, costs nothing unless it is called, and gives what the
    same job takes as ``JobEnvironment.resume``.
    """

    done: int
    total: int
    unit: Unit
    capture: Callable[[], Snapshot]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """The state of a job after ``done`` of ``total`` ``unit``, with the metrics records it had written so far.

    ``spec_digest`` is the SHA-256 of the specification's canonical JSON: another job does not go on from it.
    ``operation_id`` and ``attempt`` say who wrote it.
    """

    format: str
    spec_digest: str
    operation_id: str
    attempt: int
    done: int
    total: int
    unit: Unit
    metrics: tuple[Mapping[str, Scalar], ...]
    snapshot: Snapshot

    def to_bytes(self) -> bytes:
        """The file; its SHA-256 is its name, so a damaged one is never read."""
        head = {
            name: getattr(self, name)
            for name in ("format", "spec_digest", "operation_id", "attempt", "done", "total", "unit")
        }
        head["metrics"] = [dict(record) for record in self.metrics]
        return pack(Snapshot({_HEAD: head, _STATE: dict(self.snapshot.values)}, self.snapshot.arrays))

    @classmethod
    def read(cls, artifacts: ArtifactStore, digest: str, *, kind: str, spec_digest: str) -> Checkpoint:
        """The stored checkpoint, if a job of this kind and specification may go on from it.

        Raises
        ------
        NotFound, CorruptArtifact, ServerUnreachable
            As :meth:`ArtifactStore.read`.
        UnusableCheckpoint
            If it is no checkpoint, another job's, or of another format than this ktrdr writes.
        """
        try:
            whole = unpack(artifacts.read(digest))
            head, state = whole.values[_HEAD], whole.values[_STATE]
            made = cls(
                **{**head, "metrics": tuple(head["metrics"]), "snapshot": Snapshot(state, whole.arrays)}
            )
        except (InvalidInput, KeyError, TypeError) as error:
            raise UnusableCheckpoint(f"Artifact {digest[:12]} is not a checkpoint: {error}") from None
        if made.format != FORMATS[kind]:
            raise UnusableCheckpoint(
                f"Checkpoint {digest[:12]} has the format '{made.format}'; this version of ktrdr goes on from "
                f"'{FORMATS[kind]}' only."
            )
        if made.spec_digest != spec_digest:
            raise UnusableCheckpoint(
                f"Checkpoint {digest[:12]} belongs to another job (specification {made.spec_digest[:12]}, "
                f"here {spec_digest[:12]})."
            )
        return made


def checkpoint_owner(file: Path) -> str | None:
    """The operation whose job wrote this checkpoint; None if the file is absent or no checkpoint. Reads its head only."""
    owner = _head_of(file).get("operation_id")
    return owner if isinstance(owner, str) else None


def checkpoint_done(file: Path) -> int | None:
    """How much of the job was done; None if the file is absent or no checkpoint. Reads its head only."""
    done = _head_of(file).get("done")
    return done if isinstance(done, int) else None


def _head_of(file: Path) -> Mapping[str, object]:
    head = (read_values(file) or {}).get(_HEAD)
    return head if isinstance(head, dict) else {}
