"""Who changed what, when and from where: an append-only file of JSON lines below the backend's home."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ktrdr.clock import Clock
from ktrdr.errors import InvalidInput

__all__ = ["AuditEntry", "AuditLog", "AuditPage"]

_log = logging.getLogger("ktrdr.backend")
_FILE_BYTES, _FILES = 16 << 20, 32
_SYNC_S = 1.0
_LONGEST = 200


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
    - Where the disk takes no more, the entry goes to the process's log instead, and the request is answered.
    """

    def __init__(
        self, folder: Path, clock: Clock, *, file_bytes: int = _FILE_BYTES, files: int = _FILES
    ) -> None:
        self._folder, self._path, self._clock = folder, folder / "audit.jsonl", clock
        self._file_bytes, self._files = file_bytes, files
        self._handle: int | None = None
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
            os.write(self._open(), entry.line())
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
        if self._handle is not None:
            handle, self._handle = self._handle, None
            await asyncio.to_thread(_flush, handle)
            os.close(handle)

    async def _sync(self) -> None:
        await asyncio.sleep(_SYNC_S)
        if self._handle is not None:
            await asyncio.to_thread(_flush, self._handle)

    def _open(self) -> int:
        """The file to append to; begun anew where it has grown long."""
        if self._handle is not None and os.fstat(self._handle).st_size >= self._file_bytes:
            _flush(self._handle)
            os.close(self._handle)
            self._handle = None
            self._path.rename(
                self._folder / f"audit-{self._clock.now().astimezone(UTC):%Y%m%dT%H%M%S%f}.jsonl"
            )
            for outdated in sorted(self._folder.glob("audit-*.jsonl"))[: -self._files]:
                outdated.unlink(missing_ok=True)
        if self._handle is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            size = os.fstat(self._handle).st_size
            if size and os.pread(self._handle, 1, size - 1) != b"\n":  # a crash cut the last line short
                os.write(self._handle, b"\n")
        return self._handle

    def _page(self, since: datetime | None, limit: int, cursor: str | None) -> AuditPage:
        found: list[AuditEntry] = []
        last: str | None = None
        for place, entry in self._newest_first(cursor):
            if since is not None and entry.at < since:
                break
            if len(found) == limit:
                return AuditPage(tuple(found), last)
            found.append(entry)
            last = place
        return AuditPage(tuple(found), None)

    def _newest_first(self, cursor: str | None) -> Iterator[tuple[str, AuditEntry]]:
        """Entries before the cursor, each with the cursor that continues after it: file name and offset."""
        name, _, offset = (cursor or "").partition(":")
        if cursor and not (offset.isdecimal() and name.removeprefix("audit").removesuffix(".jsonl") != name):
            raise InvalidInput(
                f"'{cursor[:80]}' is not a cursor of this list. Take next_cursor of the page before."
            )
        paths = [self._path, *sorted(self._folder.glob("audit-*.jsonl"), reverse=True)]
        names = [path.name for path in paths]
        if cursor:
            if name not in names:
                return  # it was removed meanwhile, with all before it
            paths = paths[names.index(name) :]
        for path in paths:
            content = path.read_bytes() if path.is_file() else b""
            if cursor and path.name == name:
                content = content[: int(offset)]
            end = len(content)
            for line in reversed(content.splitlines(keepends=True)):
                end -= len(line)
                entry = _read(line)
                if entry is not None:
                    yield f"{path.name}:{end}", entry


def _flush(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        _log.error("The audit record cannot be brought to the disk: %s", error)
