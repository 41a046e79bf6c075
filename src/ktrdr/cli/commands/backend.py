"""``ktrdr backend``: the backend alone, for fleets over several machines."""

from __future__ import annotations

import socket

import click

from ktrdr.cli.parent import watch_parent

__all__ = ["backend"]


@click.group()
def backend() -> None:
    """The backend alone: start."""


@backend.command("start")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; off loopback needs KTRDR_API_TOKEN.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--tls-cert", metavar="FILE", help="Serve TLS with this certificate (PEM). Default: KTRDR_TLS_CERT."
)
@click.option(
    "--tls-key", metavar="FILE", help="The certificate's private key (PEM). Default: KTRDR_TLS_KEY."
)
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    help="Demand of everybody a certificate signed by these. Default: KTRDR_TLS_CLIENT_CA.",
)
@click.option("--listen-fd", type=int, hidden=True, help="A listening socket inherited from 'ktrdr up'.")
@click.option("--parent-fd", type=int, hidden=True, help="A pipe from 'ktrdr up'; stop when it closes.")
def start(
    host: str,
    port: int,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    listen_fd: int | None,
    parent_fd: int | None,
) -> int:
    """Start the backend and serve until Ctrl-C or SIGTERM."""
    from ktrdr.backend.server import run_backend  # lazy: FastAPI and the ledger are needed only here
    from ktrdr.protocol.tls import TlsSettings

    tls = TlsSettings.from_environment(cert=tls_cert, key=tls_key, client_ca=tls_client_ca)
    if parent_fd is not None:
        watch_parent(parent_fd)
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets that say they are TCP.
    inherited = None if listen_fd is None else socket.socket(proto=socket.IPPROTO_TCP, fileno=listen_fd)
    return run_backend(host, port, sock=inherited, tls=tls)
