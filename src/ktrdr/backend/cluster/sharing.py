"""What a backend needs to share its ledger with others, and the check that all of them share their files too."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ktrdr.backend.config import BackendConfig
from ktrdr.errors import InvalidSetting
from ktrdr.operations.leadership import Leadership
from ktrdr.operations.sql.board import Board, SqlBoard, Storage
from ktrdr.operations.sql.fence import Fence
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.private import private_folder

__all__ = ["Cluster", "claim_storage", "open_cluster"]

_IDENTITY = "storage-id"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The election, the board on which the leader puts up its workers, and the fence around the leader's writes."""

    leadership: Leadership
    board: Board
    fence: Fence = field(default_factory=Fence)


def open_cluster(store: SqlStore, config: BackendConfig, address: str | None) -> Cluster | None:
    """The cluster of backends on a PostgreSQL database; None for a file, which one backend has for itself.

    Raises
    ------
    InvalidSetting
        If the ledger's files are in another folder than ours.
    """
    if store.database is None:
        return None
    from ktrdr.operations.sql.election import PostgresLeadership  # lazy: the driver is an extra

    board = SqlBoard(store)
    claim_storage(config.home, board, store.name)
    store.fence = fence = Fence()
    name = f"ktrdr backend {os.getpid()} on {socket.gethostname()}"
    leadership = PostgresLeadership(
        store.database, name, address, lease_s=config.control.leader_lease_s, tell=store.tell
    )
    return Cluster(leadership, board, fence)


def claim_storage(home: Path, board: SqlBoard, ledger: str) -> None:
    """See to it that the ledger and ``home`` belong together; the first backend of a ledger notes its own.

    Raises
    ------
    InvalidSetting
        If the ledger belongs to another folder.
    """
    private_folder(home)
    mark = home / _IDENTITY
    place = f"{socket.gethostname()}:{home}"
    identity, noted = _read(mark), board.storage()
    if noted is None:
        if not identity:
            _write(mark)
            identity = _read(mark)
        noted = board.note_storage(Storage(identity, place))
    if noted.identity != identity:
        raise InvalidSetting(
            f"The ledger {ledger} belongs to the files in {noted.place}, and KTRDR_HOME={home} is another folder"
            f"{'' if identity else ' or a new one'}. Backends of one ledger share their files: mount that folder here and "
            f"point KTRDR_HOME at it, or give this backend a database of its own. If those files are lost for good, go on "
            f"without them: echo {noted.identity} > {mark}"
        )


def _read(mark: Path) -> str:
    try:
        return mark.read_text().strip()
    except FileNotFoundError:
        return ""


def _write(mark: Path) -> None:
    """Make the mark, whole or not at all; one that another backend made in between stays."""
    handle, temporary = tempfile.mkstemp(dir=mark.parent, prefix=f".{mark.name}-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(16) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        try:
            os.link(temporary, mark)
        except FileExistsError:
            return
    finally:
        Path(temporary).unlink(missing_ok=True)
