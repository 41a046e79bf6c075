"""How many files and connections this process may have open."""

from __future__ import annotations

import logging
import resource
import sys

__all__ = ["raise_descriptor_limit"]

_ENOUGH = 65_536
_log = logging.getLogger("ktrdr")


def raise_descriptor_limit(wanted: int = _ENOUGH) -> int:
    """Raise the soft limit towards ``wanted``, as far as the hard limit allows; returns the limit that holds now.

    Many systems start processes with 1,024, which is one connection each to a thousand workers and none for users.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        return sys.maxsize if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError) as error:  # macOS has limits of the kernel below the hard limit it tells
        _log.info("This process may open %d files and connections: %s", soft, error)
        return soft
    return allowed
