"""Hosts as requests name them: in ``Host`` and ``Origin``, and as addresses."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

__all__ = ["host_of", "host_of_origin", "is_address", "is_loopback"]


def is_address(host: str) -> bool:
    """Whether this is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host name or address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_of(authority: str) -> str:
    """The host in a ``Host`` header, lower case; empty if there is none or it is malformed."""
    return host_of_origin(f"//{authority}")


def host_of_origin(url: str) -> str:
    """The host in an ``Origin`` header, lower case; empty if there is none or it is malformed."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # a bracket without its pair
        return ""
