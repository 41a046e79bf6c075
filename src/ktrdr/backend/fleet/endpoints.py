"""Where a worker may be: the rules for the URL at which the backend will call it."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from urllib.parse import urlsplit

from ktrdr.errors import FieldError, InvalidInput
from ktrdr.protocol.allowed import Network, address_allowed

__all__ = ["check_endpoint", "wrong_endpoint"]

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_SHOWN = 200


def wrong_endpoint(message: str) -> InvalidInput:
    """The refusal of an endpoint."""
    return InvalidInput(message, [FieldError("/endpoint_url", message)])


async def check_endpoint(url: str, networks: tuple[Network, ...]) -> str:
    """The endpoint as ``scheme://host[:port]`` if the backend may talk to it.

    A host is an IP address in its usual form or a name; other spellings of addresses (``2130706433``, ``0x7f.1``,
    ``0177.0.0.1``) are refused, because programs disagree about what they mean.

    Raises
    ------
    InvalidInput
        If it is not http(s), carries a user, path or query, or resolves outside ``networks``.
    """
    scheme, host, port = _parts(url.strip(" "))
    shown = _shown(url)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise wrong_endpoint(f"The host of {shown} has no address here: {error}.") from None
    outside = [str(a[4][0]) for a in found if not address_allowed(str(a[4][0]), networks)]
    if outside:
        allowed = ", ".join(str(network) for network in networks)
        raise wrong_endpoint(
            f"{shown} leads to {outside[0]}, outside the networks where workers may be ({allowed}). "
            "Set KTRDR_ALLOWED_WORKER_NETWORKS at the backend to allow it."
        )
    return f"{scheme}://{f'[{host}]' if ':' in host else host}" + (f":{port}" if port is not None else "")


def _parts(url: str) -> tuple[str, str, int | None]:
    shown = _shown(url)
    try:
        # before anything is parsed: parsers drop some control characters and fold some letters
        sound = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        sound = False
    if not sound:
        raise wrong_endpoint(f"{shown} is not a URL of plain ASCII characters with a port up to 65535.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong_endpoint(f"{shown} is not an http(s) URL such as http://192.168.1.20:5003.")
    if "@" in parts.netloc:
        raise wrong_endpoint("An endpoint URL must not contain a user name or password.")
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise wrong_endpoint(f"{shown} must end after host and port.")
    if port == 0 or parts.netloc.endswith(":"):
        raise wrong_endpoint(f"{shown} has no port from 1 to 65535 after its ':'.")
    host = parts.hostname
    if not (_is_name(host) or _is_address(host, bracketed="[" in parts.netloc)):
        raise wrong_endpoint(
            f"The host of {shown} is neither a name nor an IP address in its usual form, such as 192.168.1.20 or [fd00::20]."
        )
    return parts.scheme, host, port


def _is_address(host: str, *, bracketed: bool) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return bracketed == (address.version == 6) and "%" not in host


def _is_name(host: str) -> bool:
    """Letters, digits, ``-`` and ``_``; the last label is no number, or libraries would read the whole as an address."""
    return bool(_NAME.fullmatch(host)) and len(host) <= 253 and not _NUMBER.fullmatch(host.rpartition(".")[2])


def _shown(url: str) -> str:
    """The URL for a message: without what stands before an ``@``, and without characters that would garble it."""
    plain = ascii(url if "@" not in url else "..." + url[url.rindex("@") :])
    return plain if len(plain) <= _SHOWN else plain[: _SHOWN - 4] + "...'"
