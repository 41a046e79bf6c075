"""Under which names the backend is asked, and from which pages."""

from __future__ import annotations

from ktrdr.backend.config import BackendConfig
from ktrdr.protocol.hosts import host_of, host_of_origin, is_address, is_loopback
from ktrdr.protocol.messages import Problem

__all__ = ["foreign"]


def foreign(config: BackendConfig, host: str, origin: str | None) -> Problem | None:
    """What is wrong with a request's ``Host`` and ``Origin`` headers; None where both are the backend's own.

    A page that a user visits can send requests anywhere, and reads what comes back where a name of its own leads here
    (DNS rebinding). So on loopback, where a token may be missing, only local names and those of KTRDR_ALLOWED_HOSTS
    will do. Off loopback a token is needed, which a page does not have, and the backend's names are not known to it:
    any will do, unless KTRDR_ALLOWED_HOSTS tells them. Addresses always do there, no page can make one its own.
    A page of another host is refused everywhere.
    """
    named = host_of(host).removesuffix(".")
    if not _served(config, named):
        return _problem(
            421,
            "foreign-host",
            f"This backend is not '{named[:100]}'; ask for {_names(config)}, or name it in KTRDR_ALLOWED_HOSTS.",
        )
    if origin is None or _own(config, host_of_origin(origin).removesuffix("."), named):
        return None
    return _problem(403, "foreign-origin", f"Requests of pages from '{origin[:100]}' are not accepted.")


def _served(config: BackendConfig, host: str) -> bool:
    if is_loopback(host) or host in config.hosts:
        return True
    return not config.loopback_only and (not config.hosts or is_address(host))


def _own(config: BackendConfig, page: str, host: str) -> bool:
    """Whether a page came from this backend, or, asked on this machine, from a server beside it."""
    return bool(page) and (page == host or page in config.hosts or (is_loopback(page) and is_loopback(host)))


def _names(config: BackendConfig) -> str:
    """Not the configured ones: who asks under a wrong name need not learn the right one."""
    return "127.0.0.1 or localhost" if config.loopback_only else "its address"


def _problem(status: int, slug: str, detail: str) -> Problem:
    return Problem(
        type=f"urn:ktrdr:problem:{slug}",
        title=slug.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
    )
