"""Fewer waits for a PostgreSQL server. SQLite is in the process and has none, so nothing differs there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sqlalchemy import Connection

__all__ = ["alone", "unanswered"]

T = TypeVar("T")


def alone(work: Callable[[Connection], T], connection: Connection) -> T:
    """Run work that is a single question. It needs no transaction, whose begin and end would cost a wait each."""
    driver = _server(connection)
    if driver is None:
        return work(connection)
    driver.autocommit = True
    try:
        return work(connection)
    finally:
        if not driver.closed:
            driver.autocommit = False


@contextlib.contextmanager
def unanswered(connection: Connection) -> Iterator[None]:
    """Send the statements inside one behind the other and wait once, at the end; none of them may have an answer.

    What one of them meets is raised at the end, as the driver's error.
    """
    driver = _server(connection)
    if driver is None:
        yield
        return
    with driver.pipeline():
        yield


def _server(connection: Connection) -> Any:
    """The driver's connection to a server, None for a file."""
    return None if connection.dialect.name == "sqlite" else connection.connection.driver_connection
