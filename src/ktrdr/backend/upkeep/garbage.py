"""Artifacts that nothing refers to any more are removed, after a grace and in small steps."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ktrdr.artifacts import FileArtifactStore
from ktrdr.clock import Clock
from ktrdr.errors import Unavailable
from ktrdr.operations.references import References, digests_in, follow
from ktrdr.operations.store import OperationStore

__all__ = ["ArtifactGarbage", "Collected"]

_log = logging.getLogger("ktrdr.backend")
_A_ROW_NAMES = 8  # digests, about
_LONGEST_PAUSE_S = 6 * 3_600.0  # a million operations are read in 50 seconds of CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a round found: ``removed`` went (or would go), ``waiting`` are referred to by nothing but not for long."""

    removed: int = 0
    removed_bytes: int = 0
    waiting: int = 0
    kept: int = 0


class ArtifactGarbage:
    """Removes what no operation, specification, model, checkpoint or dataset refers to.

    Laws
    ----
    - What is referred to is never removed. Nor what was stored, sent or asked for (HEAD) within the grace: files
      come first, and what refers to them later.
    - What was referred to is removed only after it was seen without a reference in two rounds with the grace between
      them; a restart of the backend keeps that in mind.
    - What is put while it is being removed is stored anew.

    Parameters
    ----------
    datasets
        The folder of the market store; its files name the manifests of datasets.
    memory
        The file that remembers since when which artifacts have been without a reference.
    """

    def __init__(
        self,
        store: OperationStore,
        artifacts: FileArtifactStore,
        datasets: Path,
        memory: Path,
        clock: Clock,
        grace_s: float,
    ) -> None:
        self._store, self._artifacts = store, artifacts
        self._datasets, self._memory = datasets, memory
        self._clock, self._grace_s = clock, grace_s
        self._busy = asyncio.Lock()

    async def run(self) -> None:
        """Collect for ever, several times per grace."""
        pause_s = min(self._grace_s / 4, _LONGEST_PAUSE_S)
        while True:
            await asyncio.sleep(pause_s)
            try:
                found = await self.collect()
            except (Unavailable, OSError) as error:
                _log.warning("Collecting artifacts failed: %s", error)
            except Exception:  # the edge of a background job: the loop outlives everything
                _log.exception("Collecting artifacts failed; going on")
            else:
                if found.removed:
                    size = found.removed_bytes / 1e6
                    _log.info(
                        "%d artifacts that nothing refers to were removed (%.1f MB)", found.removed, size
                    )

    async def collect(self, *, dry_run: bool = False) -> Collected:
        """One round; with ``dry_run`` nothing is removed or remembered."""
        async with self._busy:
            references = await self._references()
            known = await asyncio.to_thread(self._remembered)
            now = self._clock.now().timestamp()
            marks: dict[str, float] = {}
            total = Collected()
            for folder in await asyncio.to_thread(self._artifacts.folders):
                step = await asyncio.to_thread(self._step, folder, references, known, marks, now, dry_run)
                total = _sum(total, step)
            if not dry_run:
                await asyncio.to_thread(self._remember, marks)
            return total

    async def _references(self) -> References:
        rows = sum((await self._store.counts()).values()) + len(await self._store.models())
        references = References(_A_ROW_NAMES * (rows + 1_000))
        followed: set[str] = set()
        documents = await asyncio.to_thread(self._of_datasets)
        async for found in self._store.mentions():
            for digest in found.files:
                references.add(digest)
            documents |= found.documents
            named = await asyncio.to_thread(follow, documents - followed, self._artifacts)
            followed |= documents
            documents = set()
            for digest in named:
                references.add(digest)
        return references

    def _of_datasets(self) -> set[str]:
        found: set[str] = set()
        for file in self._datasets.glob("*/*.json"):
            try:
                found |= digests_in(file.read_bytes())
            except FileNotFoundError:  # deleted just now
                continue
        return found

    def _step(
        self,
        folder: str,
        references: References,
        known: Mapping[str, float],
        marks: dict[str, float],
        now: float,
        dry_run: bool,
    ) -> Collected:
        """One of the store's folders: a few hundredths of a second, on a thread."""
        removed = size = waiting = kept = 0
        for digest in self._artifacts.digests_of(folder):
            if digest in references:
                kept += 1
                continue
            since = min(known.get(digest, now), now)  # a clock that was set back starts the grace again
            gone = None
            if now - since >= self._grace_s:
                gone = self._artifacts.discard(digest, unused_since=now - self._grace_s, pretend=dry_run)
            if gone is None:
                marks[digest] = since
                waiting += 1
            else:
                removed, size = removed + 1, size + gone
        return Collected(removed=removed, removed_bytes=size, waiting=waiting, kept=kept)

    def _remembered(self) -> dict[str, float]:
        try:
            found = json.loads(self._memory.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        marks = found.items() if isinstance(found, dict) else ()
        return {digest: float(since) for digest, since in marks if isinstance(since, int | float)}

    def _remember(self, marks: Mapping[str, float]) -> None:
        part = self._memory.with_name(f".{self._memory.name}.part")
        part.write_text(json.dumps(marks))
        os.replace(part, self._memory)


def _sum(one: Collected, other: Collected) -> Collected:
    return Collected(
        removed=one.removed + other.removed,
        removed_bytes=one.removed_bytes + other.removed_bytes,
        waiting=one.waiting + other.waiting,
        kept=one.kept + other.kept,
    )
