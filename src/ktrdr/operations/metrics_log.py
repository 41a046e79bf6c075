"""Metrics records of one attempt: a file of JSON lines that only grows, read by record number."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ktrdr.operations.jsontext import dump_ascii
from ktrdr.operations.progress import Metric, Scalar

__all__ = ["MetricsReader", "MetricsWriter"]


class MetricsWriter:
    """Appends records; the file appears with the first one. One ``write`` per record, no fsync."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def append(self, metric: Metric) -> None:
        """Add one record."""
        line = dump_ascii(metric.values) + b"\n"
        if self._handle is None:
            self._handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            if os.fstat(self._handle).st_size:
                line = b"\n" + line  # whoever wrote before may have died in the middle of a line
        view = memoryview(line)
        while view:
            view = view[os.write(self._handle, view) :]

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class MetricsReader:
    """Reads records by number; remembers where each one stands, so that a cursor costs one seek.

    Lines that are not complete JSON objects (a torn tail, a writer that died) are no records: they are skipped,
    and a tail that is completed later is found later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts: list[int] = []
        self._scanned = 0

    def read(self, cursor: int, limit: int) -> tuple[list[Mapping[str, Scalar]], int]:
        """At most ``limit`` records from number ``cursor`` (0 is the first) on, and the next cursor.

        A cursor beyond the end gives no records and stays, so that a follower can ask again.
        """
        cursor = max(cursor, 0)
        try:
            with self._path.open("rb") as file:
                self._scan(file)
                records: list[Mapping[str, Scalar]] = []
                for start in self._starts[cursor : cursor + max(limit, 0)]:
                    file.seek(start)
                    records.append(json.loads(file.readline()))
        except FileNotFoundError:
            return [], cursor
        return records, cursor + len(records)

    def _scan(self, file: Any) -> None:
        file.seek(self._scanned)
        for line in file:
            if not line.endswith(b"\n"):
                return
            if _is_record(line):
                self._starts.append(self._scanned)
            self._scanned += len(line)


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
