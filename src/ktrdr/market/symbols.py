"""Symbol names: short, printable, never a path; so a name can be a folder and part of a URL."""

from __future__ import annotations

import re

from ktrdr.errors import InvalidInput

__all__ = ["check_symbol"]

_SYMBOL = re.compile(r"[A-Za-z0-9^][A-Za-z0-9^._=-]{0,31}\Z")


def check_symbol(symbol: str) -> str:
    """Return ``symbol`` if it is an acceptable name.

    Raises
    ------
    InvalidInput
        If it is empty, longer than 32 characters, or holds anything but letters, digits and ``^ . _ = -``
        (the first character: letter, digit or ``^``). Slashes, spaces and control characters are never accepted.
    """
    if isinstance(symbol, str) and _SYMBOL.match(symbol):
        return symbol
    suggestion = re.sub(r"[^A-Za-z0-9^_=-]+", "", str(symbol))[:32].lstrip("_=-")
    hint = f" For example '{suggestion}'." if _SYMBOL.match(suggestion) else ""
    raise InvalidInput(
        f"'{str(symbol)[:80]}' is not a symbol name: use 1 to 32 letters, digits and ^ . _ = - "
        f"(no slashes, spaces or paths), as in EURUSD, BRK.B or ^GSPC.{hint}"
    )
