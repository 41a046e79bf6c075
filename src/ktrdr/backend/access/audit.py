"""Who changed what, when and from where: an append-only file of JSON lines below the backend's home."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path

from ktrdr.backend.access.auditchain import Written, chains
from ktrdr.backend.access.auditfile import AuditFile
from ktrdr.clock import Clock
from ktrdr.errors import InvalidInput

__all__ = ["AuditEntry", "AuditLog", "AuditPage"]

_log = logging.getLogger("ktrdr.backend")
_FILE_BYTES, _FILES = 16 << 20, 32
_SYNC_S = 1.0
_LONGEST = 200
_PLACE = re.compile(r"([1-9][0-9]{0,2}):([0-9a-f]{1,16}[.][0-9a-f]{8}):([0-9]{1,20})")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One request that changed something, or was refused for want of a scope. No secret is in it.

    ``subject`` is the id of what was changed, ``detail`` what else tells it apart, ``outcome`` the HTTP status.
    """

    at: datetime
    who: str
    address: str
    what: str
    subject: str
    outcome: int
    detail: str = ""

    def line(self) -> bytes:
        """As a line of the file."""
        fields: dict[str, str | int] = {
            "at": self.at.astimezone(UTC).isoformat(timespec="milliseconds"),
            "who": self.who,
            "address": self.address,
            "what": self.what,
            "subject": self.subject[:_LONGEST],
            "outcome": self.outcome,
            "detail": self.detail[:_LONGEST],
        }
        return json.dumps(fields).encode() + b"\n"


def _read(line: bytes) -> AuditEntry | None:
    """The entry of a line; None for one that a crash cut short."""
    try:
        fields: Mapping[str, str | int] = json.loads(line)
        return AuditEntry(
            at=datetime.fromisoformat(str(fields["at"])),
            who=str(fields["who"]),
            address=str(fields["address"]),
            what=str(fields["what"]),
            subject=str(fields["subject"]),
            outcome=int(fields["outcome"]),
            detail=str(fields["detail"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first, and where the next page starts (None at the end)."""

    entries: tuple[AuditEntry, ...]
    next_cursor: str | None


class AuditLog:
    """Appends, and reads back.

    Laws
    ----
    - An entry is handed to the operating system when :meth:`append` returns, so it outlives the process; within a
      second it is on the disk, so it outlives the machine.
    - A file is begun anew at ``file_bytes``; of older ones ``files`` are kept. Nothing else removes or changes entries.
    - Several processes may record in one folder, each in a file of its own; all of them are read.
    - Where the disk takes no more, the entry goes to the process's log instead, and the request is answered.
    """

    def __init__(
        self, folder: Path, clock: Clock, *, file_bytes: int = _FILE_BYTES, files: int = _FILES
    ) -> None:
        self._folder, self._clock = folder, clock
        self._file = AuditFile(folder, file_bytes=file_bytes, files=files)
        self._syncing: asyncio.Task[None] | None = None

    def append(
        self, *, who: str, address: str, what: str, subject: str, outcome: int, detail: str = ""
    ) -> None:
        """Record one request."""
        entry = AuditEntry(
            at=self._clock.now(),
            who=who,
            address=address,
            what=what,
            subject=subject,
            outcome=outcome,
            detail=detail,
        )
        try:
            self._file.append(entry.line(), entry.at)
        except OSError as error:
            _log.error("The audit record cannot be written (%s): %s", error, entry.line().decode().strip())
            return
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.get_running_loop().create_task(self._sync())

    async def page(self, since: datetime | None, limit: int, cursor: str | None) -> AuditPage:
        """Entries from ``since`` on, newest first; raises InvalidInput for a cursor that is none."""
        return await asyncio.to_thread(self._page, since, limit, cursor)

    async def close(self) -> None:
        """Bring what was appended to the disk, and close the file."""
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)
        await asyncio.to_thread(self._file.close)

    async def _sync(self) -> None:
        await asyncio.sleep(_SYNC_S)
        await asyncio.to_thread(self._file.syncing())

    def _page(self, since: datetime | None, limit: int, cursor: str | None) -> AuditPage:
        found: list[AuditEntry] = []
        places, chained = _places(cursor), chains(self._folder)
        if cursor is None:  # what is recorded while somebody turns the pages belongs to none of them
            places = {slot: _Place(files[0].identity, files[0].size) for slot, files in chained.items()}
        streams = [
            self._newest_first(slot, files, places[slot]) for slot, files in chained.items() if slot in places
        ]
        for slot, place, entry in merge(*streams, key=lambda told: told[2].at, reverse=True):
            if since is not None and entry.at < since:
                break
            if len(found) == limit:
                return AuditPage(tuple(found), _cursor(places))
            found.append(entry)
            places[slot] = place
        return AuditPage(tuple(found), None)

    def _newest_first(
        self, slot: int, files: Sequence[Written], start: _Place
    ) -> Iterator[tuple[int, _Place, AuditEntry]]:
        """Entries of a slot before that place, each with the place that continues after it; none where that file, and
        so all before it, was removed meanwhile."""
        identities = [file.identity for file in files]
        if start.file not in identities:
            return
        for file in files[identities.index(start.file) :]:
            content = file.read(self._folder)
            if file.identity == start.file:
                content = content[: start.offset]
            end = len(content)
            for line in reversed(content.splitlines(keepends=True)):
                end -= len(line)
                entry = _read(line)
                if entry is not None:
                    yield slot, _Place(file.identity, end), entry


@dataclass(frozen=True, slots=True)
class _Place:
    """Before an offset of a file, whatever that is called by now."""

    file: str
    offset: int


def _cursor(places: Mapping[int, _Place]) -> str:
    return ",".join(f"{slot}:{place.file}:{place.offset}" for slot, place in places.items())


def _places(cursor: str | None) -> dict[int, _Place]:
    """Where each slot's entries go on."""
    places: dict[int, _Place] = {}
    for part in cursor.split(",") if cursor else ():
        found = _PLACE.fullmatch(part)
        if found is None:
            raise InvalidInput(
                f"'{part[:80]}' is not a cursor of this list. Take next_cursor of the page before."
            )
        places[int(found[1])] = _Place(found[2], int(found[3]))
    return places
