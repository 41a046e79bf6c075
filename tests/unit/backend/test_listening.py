"""Where the backend cannot listen: what is wrong decides what to do about it."""

from __future__ import annotations

import socket

import pytest

from ktrdr.backend.server import listen
from ktrdr.errors import InvalidSetting


@pytest.mark.parametrize("host", ["203.0.113.7", "300.1.2.3", "no-such-host.invalid"])
def test_an_address_that_is_not_this_machine_s(host: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        listen(host, 0)
    assert caught.value.message.startswith(f"'{host}' is not an address of this machine (")
    assert caught.value.message.endswith("Give one with --host, such as 127.0.0.1.")
    assert "Errno" not in caught.value.message
    assert "port" not in caught.value.message


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(
            InvalidSetting, match=rf"127\.0\.0\.1:{port}: .* in use\. Choose another port with --port"
        ):
            listen("127.0.0.1", port)


def test_a_free_port() -> None:
    with listen("127.0.0.1", 0) as sock:
        assert sock.getsockname()[1] > 0
