"""Ports of loopback that are a test's own, also while nobody listens there."""

from __future__ import annotations

import atexit
import socket
import sys

__all__ = ["kept_port", "refusing_url"]


def kept_port() -> int:
    """A port that nobody else is given until this process ends; connections are refused until somebody listens there.

    A port that was found free and let go may be somebody else's a moment later: the tests beside this one take ports
    all the time. This one stays bound, without listening. On Linux whoever wants just this port and sets SO_REUSEADDR,
    as servers do, gets it, time and again, and whoever takes any port gets another one. Other systems would keep the
    server out too, so there it is let go.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port = int(holder.getsockname()[1])
    if sys.platform == "linux":
        atexit.register(holder.close)
    else:
        holder.close()
    return port


def refusing_url() -> str:
    """A URL at which nothing listens."""
    return f"http://127.0.0.1:{kept_port()}"
