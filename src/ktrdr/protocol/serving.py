"""What backend and workers have in common as servers: whose requests they read, how much of them and for how long."""

from __future__ import annotations

import asyncio
import os
import ssl

import uvicorn
from fastapi import HTTPException
from starlette.types import Message, Receive
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = [
    "HEAD_PATIENCE_S",
    "PatientProtocol",
    "bounded",
    "serve_tls",
    "trusts_a_proxy",
]

HEAD_PATIENCE_S = 30.0
_BODY_PATIENCE_S = 30.0


def bounded(receive: Receive, limit_bytes: int, patience_s: float = _BODY_PATIENCE_S) -> Receive:
    """``receive`` for a body of at most ``limit_bytes`` that arrives within ``patience_s``.

    Reading raises what becomes an answer 413 or 408. Once the body is complete, waiting for the client's going away
    takes as long as it takes.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    seen, complete = 0, False

    async def limited() -> Message:
        nonlocal seen, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"The body did not arrive within {patience_s:g} s.") from None
        seen += len(message.get("body", b""))
        if seen > limit_bytes:
            raise HTTPException(413, f"A JSON body may have up to {limit_bytes} bytes.")
        complete = not message.get("more_body", False)
        return message

    return limited


def trusts_a_proxy() -> bool:
    """Whether ``X-Forwarded-For`` says who asks. Only where FORWARDED_ALLOW_IPS, which the HTTP server reads, names the
    proxies that may say so: without it any program on this machine could put another's address into the audit record."""
    return bool(os.environ.get("FORWARDED_ALLOW_IPS"))


def serve_tls(config: uvicorn.Config, context: ssl.SSLContext | None) -> None:
    """Let a server speak TLS by this context, where there is one."""
    config.load()
    config.ssl = context


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection on which a request's head does not arrive in time.

    Without it, clients that send a byte now and then hold connections, and with them file descriptors, for ever.
    """

    head_patience_s = HEAD_PATIENCE_S
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()  # a request is being served
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_patience_s, self._give_up)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
