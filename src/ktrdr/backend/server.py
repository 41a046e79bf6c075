"""Serving the backend: one process, one port, a clean stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
from dataclasses import replace
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ktrdr.backend.app import create_app
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.wiring import Backend, Parts
from ktrdr.descriptors import raise_descriptor_limit
from ktrdr.errors import InvalidSetting
from ktrdr.logs import LogSettings, configure
from ktrdr.protocol.serving import PatientProtocol, serve_tls, trusts_a_proxy
from ktrdr.protocol.tls import TlsSettings
from ktrdr.protocol.tls_renewal import serving
from ktrdr.tracing import traces_from_environment

__all__ = ["listen", "run_backend"]

_log = logging.getLogger("ktrdr.backend")
_STOP_S = 5


class _Server(uvicorn.Server):
    """A server that tells the application of a stop at once, so that event streams and long polls end.

    It keeps signals to itself: uvicorn would raise them again at the end, and a clean stop would look like a death.
    """

    def __init__(self, config: uvicorn.Config, backend: Backend) -> None:
        super().__init__(config)
        self._backend = backend
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        del sig, frame
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._backend.hub.close)
        self.force_exit = self.should_exit  # a second signal does not wait any more
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A bound listening socket; port 0 takes a free one.

    Raises
    ------
    InvalidSetting
        If it cannot be had; the message names the port and the way out.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError) as error:
        raise InvalidSetting(_not_here(host, error)) from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
    except (OSError, OverflowError) as error:
        sock.close()
        if getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
            raise InvalidSetting(_not_here(host, error)) from None
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidSetting(
            f"Cannot listen on {host}:{port}: {reason}. Choose another port with --port, "
            "or stop the process that uses this one."
        ) from None
    return sock


def _not_here(host: str, error: OSError | OverflowError) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return f"'{host}' is not an address of this machine ({reason}). Give one with --host, such as 127.0.0.1."


def _log_settings(config: BackendConfig, level: str | None) -> LogSettings:
    """From the environment; ``level`` wins, and the tokens of ``config`` are secret wherever they came from."""
    read = LogSettings.from_environment()
    tokens = tuple(token for token in (config.api_token, config.worker_token) if token)
    return replace(read, level=(level or read.level).upper(), secrets=(*read.secrets, *tokens))


def _spare_the_collector() -> None:
    """Keep Python's garbage collector from going over everything that was imported, and over all workers, again and
    again: one full pass takes a tenth of a second and nobody is answered meanwhile."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _address(sock: socket.socket, config: BackendConfig) -> str:
    """Where this backend serves, for other backends to name it."""
    host, port = sock.getsockname()[:2]
    if not config.loopback_only and host in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        host = socket.gethostname()
    return f"{config.tls.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def run_backend(
    host: str = "127.0.0.1",
    port: int = 8000,
    sock: socket.socket | None = None,
    *,
    config: BackendConfig | None = None,
    parts: Parts | None = None,
    tls: TlsSettings | None = None,
    log_level: str | None = None,
    access_log: bool = False,
) -> int:
    """Serve until SIGTERM or SIGINT; both stop it within a few seconds, work goes on at the workers.

    Parameters
    ----------
    sock
        A bound socket to serve instead of ``host`` and ``port``; then ``host`` still says who may ask.
    config, tls, log_level
        Read from the environment where they are None.

    Returns
    -------
    int
        The exit code of a clean stop, 0.

    Raises
    ------
    InvalidSetting
        If the port is taken, a setting cannot be used, or ``host`` is not loopback and there is no token.
    MissingExtra
        If the ledger is in PostgreSQL and its driver is not installed.
    Unavailable
        If another backend uses a ledger in SQLite, or its database does not answer.
    """
    config = config or BackendConfig.from_environment(host, tls=tls)
    context = serving(config.tls)
    owned = sock or listen(host, port)
    configure(_log_settings(config, log_level), libraries="WARNING")
    raise_descriptor_limit()  # a connection is kept to every worker
    traces = traces_from_environment("ktrdr-backend", config.version)
    parts = replace(parts or Parts(), traces=traces) if traces.enabled else parts
    backend = Backend(config, parts, address=_address(owned, config))
    settings = _serving(create_app(config, backend=backend), access_log=access_log)
    serve_tls(settings, context)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if access_log else logging.WARNING)
    server = _Server(settings, backend)
    name = owned.getsockname()
    url = f"{config.tls.scheme}://{name[0]}:{name[1]}"
    _log.info("ktrdr backend %s on %s (data in %s)", config.version, url, config.home)
    _spare_the_collector()
    with owned:
        asyncio.run(server.serve(sockets=[owned]))
    if not server.started:
        raise InvalidSetting("The backend did not start; its log says why.")
    return 0


def _serving(app: FastAPI, *, access_log: bool) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        access_log=access_log,
        timeout_graceful_shutdown=_STOP_S,
        timeout_keep_alive=30,
        lifespan="on",
        log_config=None,
        server_header=False,
        proxy_headers=trusts_a_proxy(),
    )
