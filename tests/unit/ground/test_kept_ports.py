"""The tests' own ports."""

from __future__ import annotations

import socket
import sys

import pytest

from support.ports import kept_port

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux lets a server listen on a port that is kept"
)


def test_a_kept_port_refuses_until_its_server_listens_and_again_after_it() -> None:
    port = kept_port()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        with (
            socket.create_server(("127.0.0.1", port)),
            socket.create_connection(("127.0.0.1", port), timeout=10),
        ):
            pass


def test_nobody_else_is_given_it() -> None:
    kept = {kept_port() for _ in range(100)}
    others = [socket.create_server(("127.0.0.1", 0)) for _ in range(100)]
    given = {other.getsockname()[1] for other in others}
    for other in others:
        other.close()
    assert len(kept) == 100
    assert not kept & given
