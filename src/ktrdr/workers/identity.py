"""Who this worker is: a name that lasts, and one that does not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ktrdr.errors import InvalidSetting
from ktrdr.operations.model import WorkerType
from ktrdr.private import private_file, private_folder
from ktrdr.protocol.worker_key import bind

__all__ = ["Identity", "claim_identity", "new_instance_id"]

_KEY_BYTES = 32
_VALID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


@dataclass(slots=True)
class Identity:
    """A worker's name, its folder, and the lock that keeps both to one live process."""

    worker_id: str
    folder: Path
    key: str = field(repr=False)
    _lock: IO[str]

    def release(self) -> None:
        """Let another process be this worker; also happens when the process ends."""
        self._lock.close()


def claim_identity(home: Path, worker_type: WorkerType, worker_id: str | None = None) -> Identity:
    """Take a worker id that no other live process of this ``home`` uses.

    Without ``worker_id`` it is ``type-hostname-suffix``; suffixes are kept in ``home``, so a worker that is started
    again is the same worker, and two at once are two.

    Raises
    ------
    InvalidSetting
        If ``worker_id`` is malformed or in use by another process.
    """
    root = home / "workers"
    if worker_id is not None:
        if not _VALID.match(worker_id):
            raise InvalidSetting(
                f"WORKER_ID='{worker_id}' is not an id: letters, digits, '.', '_' and '-', at most 128 of them."
            )
        identity = _lock(root / worker_id, worker_id)
        if identity is None:
            raise InvalidSetting(
                f"Another running process is worker '{worker_id}'. Stop it, or choose another WORKER_ID."
            )
        return identity
    prefix = f"{worker_type.value}-{_host_label()}-"
    known = sorted(folder.name for folder in root.glob(f"{prefix}*") if folder.is_dir())
    for name in known:
        if (identity := _lock(root / name, name)) is not None:
            return identity
    fresh = prefix + secrets.token_hex(3)
    identity = _lock(root / fresh, fresh)
    assert identity is not None, "a fresh name is free"
    return identity


def _lock(folder: Path, worker_id: str) -> Identity | None:
    private_folder(folder)
    file = open(folder / "lock", "a", opener=private_file)  # noqa: SIM115  (held while the process lives)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return Identity(worker_id, folder, _key(folder), file)


def _key(folder: Path) -> str:
    """What proves to the backend that this is the same worker as before: 256 random bits, made once."""
    path = folder / "key"
    with contextlib.suppress(OSError, ValueError):
        key = path.read_text("ascii").strip()
        if len(key) == 2 * _KEY_BYTES and bytes.fromhex(key):
            return key
    fresh = secrets.token_hex(_KEY_BYTES)
    part = path.with_name("key.part")
    part.touch(mode=0o600)
    part.write_text(fresh + "\n", "ascii")
    os.replace(part, path)
    return fresh


def _host_label() -> str:
    label = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0]).strip("-").lower()
    return label[:60] or "host"


def new_instance_id(key: str) -> str:
    """One per process: tells the backend that this is another incarnation of the worker that has this key."""
    return bind(f"{os.getpid()}-{secrets.token_hex(6)}", key)
