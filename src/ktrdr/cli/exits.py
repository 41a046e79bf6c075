"""Exit codes: the one table. The same rows stand in ``docs/reference/exit-codes.md``; a test compares them."""

from __future__ import annotations

from enum import IntEnum

from ktrdr import errors

__all__ = ["Exit", "Interrupted", "exit_code"]


class Exit(IntEnum):
    """What the shell sees."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    NOT_FOUND = 3
    NOT_AUTHORISED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


class Interrupted(errors.KtrdrError):
    """Ctrl-C, and what it left going on."""

    slug = "interrupted"


_TABLE: dict[type[errors.KtrdrError], Exit] = {
    errors.KtrdrError: Exit.FAILED,
    errors.InvalidInput: Exit.INVALID,
    errors.Conflict: Exit.INVALID,
    errors.NotFound: Exit.NOT_FOUND,
    errors.NotAuthorised: Exit.NOT_AUTHORISED,
    errors.ServerUnreachable: Exit.UNREACHABLE,
    Interrupted: Exit.INTERRUPTED,
}


def exit_code(error: errors.KtrdrError) -> Exit:
    """The code of the nearest class in the table."""
    return next(_TABLE[cls] for cls in type(error).__mro__ if cls in _TABLE)
