"""What a backup or a restore leaves that was killed: known, never taken for something whole, and swept by the next."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ktrdr.errors import Conflict, InvalidSetting
from ktrdr.private import private_file

__all__ = ["WORK", "alone", "hold", "part_of", "refuse_half_restored", "scratch_of", "sweep"]

WORK = ".restoring"
"""The folder in a home that a restore unpacks into; it goes when everything is in its place."""

_LOCK = f"{WORK}.lock"
_PART = re.compile(r"\..+\.\d+\.ktrdr-part")
_SCRATCH = ".rows"


# --- restores ---------------------------------------------------------------------------------------------------------


def refuse_half_restored(home: Path) -> None:
    """Raise if a restore into ``home`` runs, or was killed: an empty ledger would be made beside what it brought.

    Raises
    ------
    InvalidSetting
        If so.
    """
    if (home / WORK).exists():
        raise InvalidSetting(
            f"A restore into '{home}' is under way, or did not come to its end. Wait for it; or delete what is in the "
            "folder (and in the database, if KTRDR_DATABASE_URL names one) and restore again."
        )


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """The only restore into ``home``, over all processes; the system ends it when the process dies.

    Raises
    ------
    Conflict
        If another one is under way.
    """
    path = home / _LOCK
    with open(path, "a", opener=private_file) as file:
        if not hold(file):
            raise Conflict(f"Another restore into '{home}' is under way. Nothing was changed.")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


# --- backups ----------------------------------------------------------------------------------------------------------


def part_of(target: Path) -> Path:
    """Where a backup is written before it is whole."""
    return target.with_name(f".{target.name}.{os.getpid()}.ktrdr-part")


def scratch_of(part: Path) -> Path:
    """The folder for what is written on the way to that part."""
    return part.with_name(part.name + _SCRATCH)


def hold(file: IO[str] | IO[bytes]) -> bool:
    """Lock the file for as long as it is open; whether nobody else has it. Where nothing can be locked, nobody has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def sweep(folder: Path) -> None:
    """Remove what backups into ``folder`` left that were killed: hidden, as large as a backup, and of no use."""
    left: list[Path] = []
    with suppress(OSError):  # one may write there, perhaps, and not read
        left = sorted(folder.iterdir())
    for path in left:
        if _PART.fullmatch(path.name):
            with suppress(OSError):
                _remove_unless_held(path)
    for path in left:
        part = path.with_name(path.name.removesuffix(_SCRATCH))
        if part != path and _PART.fullmatch(part.name) and not part.exists():
            shutil.rmtree(path, ignore_errors=True)


def _remove_unless_held(part: Path) -> None:
    with part.open("ab") as file:
        fcntl.flock(
            file, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # an error, too, where nothing can be locked: it stays
        shutil.rmtree(scratch_of(part), ignore_errors=True)
        part.unlink()
