"""Where a worker listens, and the URL that it tells the backend."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import psutil

from ktrdr.errors import InvalidSetting
from ktrdr.protocol.hosts import is_loopback
from ktrdr.workers.settings import WorkerSettings

__all__ = ["bind_host", "bind_socket", "endpoint_url", "format_host", "own_port", "reachable_host"]

_log = logging.getLogger(__name__)


def reachable_host(api_url: str, *, connect: Callable[[str, int], str] | None = None) -> str:
    """The address of this machine that the kernel would use towards the backend; nothing is sent.

    ``connect(host, port)`` gives that address or raises OSError; a parameter for tests. If it fails, the machine's
    hostname is the answer, with a warning.
    """
    parts = urlsplit(api_url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        return (connect or _source_address)(host, port)
    except OSError as error:
        name = socket.gethostname()
        _log.warning(
            "No route to the backend's host '%s' (%s); using this machine's name '%s' as its address. "
            "Set WORKER_ENDPOINT_URL if the backend cannot reach it there.",
            host,
            error.strerror or error,
            name,
        )
        return name


def _source_address(host: str, port: int) -> str:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def format_host(host: str) -> str:
    """A host as URLs want it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def bind_host(settings: WorkerSettings) -> str:
    """Where to listen: as told, else where the endpoint URL says that this worker is.

    Raises
    ------
    InvalidSetting
        If that is not loopback and no credential is set.
    """
    host = settings.host or _host_of(settings.endpoint_url) or reachable_host(settings.api_urls[0])
    if not is_loopback(host) and not settings.tokens:
        raise InvalidSetting(
            f"Listening on {host} would open this worker to the network without a password. "
            "Set KTRDR_ENROLMENT_TOKEN (the same as the backend's), or WORKER_IP=127.0.0.1."
        )
    return host


def endpoint_url(settings: WorkerSettings, port: int) -> str:
    """What to tell the backend: as told, else the address of this machine as the backend's host sees it."""
    if settings.endpoint_url:
        return settings.endpoint_url
    host = settings.host
    if host is None or _is_wildcard(host):
        host = reachable_host(settings.api_urls[0])
    return f"{settings.tls.scheme}://{format_host(host)}:{port}"


def bind_socket(host: str, port: int) -> socket.socket:
    """A listening socket; connections wait in its backlog until the server takes them.

    Raises
    ------
    InvalidSetting
        If the port is in use or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named because asyncio switches Nagle's delay off (TCP_NODELAY) only where it is known;
        # without it every answer to a kept-alive connection takes 40 ms longer.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise InvalidSetting(_cannot_listen(host, port, error)) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InvalidSetting(_cannot_listen(host, port, error)) from None
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if not 0 <= port <= 65535:
        return f"{port} is not a port: 0 (any free one) to 65535."
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"'{host}' is not an address of this machine ({reason}). Give one with --host or WORKER_IP."
    return (
        f"Cannot listen on {format_host(host)}:{port}: {reason}. Choose another port (--port or WORKER_PORT; 0 takes "
        "any free one) or stop what listens there; WORKER_IP sets the address."
    )


async def own_port(wanted: int, *, patience_s: float = 10.0) -> int:
    """The port on which this process really listens, once it does.

    For a worker that is served by somebody else's server. If it listens on several, or on none in time, ``wanted``.
    """
    deadline = asyncio.get_running_loop().time() + patience_s
    while asyncio.get_running_loop().time() < deadline:
        ports = await asyncio.to_thread(_listening_ports)
        if wanted in ports:
            return wanted
        if len(ports) == 1:
            return ports.pop()
        await asyncio.sleep(0.05)
    return wanted


def _listening_ports() -> set[int]:
    try:
        found = psutil.Process(os.getpid()).net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return set()
    return {entry.laddr.port for entry in found if entry.status == psutil.CONN_LISTEN}


def _host_of(url: str | None) -> str | None:
    return urlsplit(url).hostname if url else None


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False
