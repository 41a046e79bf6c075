"""Where a worker listens and what it tells the backend."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ktrdr.errors import InvalidSetting
from ktrdr.operations.model import WorkerType
from ktrdr.workers.endpoint import bind_host, bind_socket, endpoint_url, format_host, reachable_host
from ktrdr.workers.settings import WorkerSettings


def settings(api_url: str = "http://127.0.0.1:8000", **extra: object) -> WorkerSettings:
    return WorkerSettings(
        worker_type=WorkerType.BACKTESTING,
        api_urls=(api_url,),
        home=Path("unused"),
        **extra,  # type: ignore[arg-type]
    )


def test_the_kernel_knows_the_address_towards_the_backend() -> None:
    assert reachable_host("http://127.0.0.1:8000") == "127.0.0.1"
    assert reachable_host("https://localhost") in ("127.0.0.1", "::1")


def test_without_a_route_the_hostname_is_used_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def no_route(host: str, port: int) -> str:
        assert (host, port) == ("backend.invalid", 443)
        raise OSError(101, "Network is unreachable")

    assert reachable_host("https://backend.invalid", connect=no_route) == socket.gethostname()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "WORKER_ENDPOINT_URL" in caplog.text


def test_priority_of_the_endpoint() -> None:
    assert endpoint_url(settings(), 7) == "http://127.0.0.1:7"
    assert endpoint_url(settings(host="127.0.0.2"), 7) == "http://127.0.0.2:7"
    assert endpoint_url(settings(host="0.0.0.0"), 7) == "http://127.0.0.1:7"
    assert endpoint_url(settings(host="::"), 7) == "http://127.0.0.1:7"
    assert endpoint_url(settings(host="::1"), 7) == "http://[::1]:7"
    assert endpoint_url(settings(host="box"), 7) == "http://box:7"
    assert endpoint_url(settings(host="127.0.0.2", endpoint_url="http://h:1"), 7) == "http://h:1"


def test_it_listens_where_it_says_it_is() -> None:
    assert bind_host(settings()) == "127.0.0.1"
    assert bind_host(settings(endpoint_url="http://127.0.0.3:1")) == "127.0.0.3"
    assert bind_host(settings(endpoint_url="http://127.0.0.3:1", host="127.0.0.1")) == "127.0.0.1"


def test_off_loopback_needs_a_credential() -> None:
    with pytest.raises(InvalidSetting, match="KTRDR_ENROLMENT_TOKEN"):
        bind_host(settings(host="0.0.0.0"))
    assert bind_host(settings(host="0.0.0.0", enrolment_token="t")) == "0.0.0.0"


def test_a_port_in_use_gives_one_message_with_a_way_out() -> None:
    with bind_socket("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with pytest.raises(
            InvalidSetting, match=rf"127\.0\.0\.1:{port}: address already in use.*WORKER_PORT"
        ):
            bind_socket("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_an_address_of_another_machine(host: str) -> None:
    told = rf"'{host}' is not an address of this machine \(.*\)\. Give one with --host or WORKER_IP\."
    with pytest.raises(InvalidSetting, match=told):
        bind_socket(host, 0)


def test_brackets() -> None:
    assert [format_host(host) for host in ("::1", "[::1]", "a")] == ["[::1]", "[::1]", "a"]


OWN_PORT = """
import asyncio
from ktrdr.workers.endpoint import bind_socket, own_port

async def main():
    with bind_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert await own_port(port) == port
        assert await own_port(1) == port
    assert await own_port(1, patience_s=0.1) == 1

asyncio.run(main())
"""


def test_the_own_port_is_found() -> None:
    """In a process of its own: what other tests listen on in this one would count too."""
    done = subprocess.run([sys.executable, "-c", OWN_PORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_answers_on_a_kept_alive_connection_are_not_held_back() -> None:
    no_delay: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        no_delay.set_result(
            writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        )
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(accepted, sock=bind_socket("127.0.0.1", 0))
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await no_delay
        writer.close()
        await writer.wait_closed()
