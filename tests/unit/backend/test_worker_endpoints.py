"""Which addresses a worker may register."""

from __future__ import annotations

import ipaddress

import pytest

from ktrdr.backend.fleet.endpoints import check_endpoint
from ktrdr.errors import InvalidInput
from ktrdr.protocol.allowed import LOOPBACK


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://127.0.0.1", "not an http"),
        ("http://", "not an http"),
        ("http://user:secret@127.0.0.1:5003", "user name or password"),
        ("http://127.0.0.1:5003/path", "must end after host and port"),
        ("http://127.0.0.1:5003?x=1", "must end after host and port"),
        ("http://127.0.0.1:99999", "is not a URL"),
        ("http://169.254.169.254", "outside the networks"),
        ("http://10.0.0.1:5003", "KTRDR_ALLOWED_WORKER_NETWORKS"),
        ("http://no-such-host.invalid:5003", "has no address"),
        ("http://[::ffff:10.0.0.1]:5003", "outside the networks"),
        ("http://2130706433.evil..:1", "neither a name nor an IP address"),
    ],
)
async def test_endpoints_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        await check_endpoint(url, LOOPBACK)
    assert "secret" not in str(caught.value)


async def test_endpoints_that_are_accepted() -> None:
    assert await check_endpoint(" http://127.0.0.1:5003/ ", LOOPBACK) == "http://127.0.0.1:5003"
    assert await check_endpoint("https://localhost", LOOPBACK) == "https://localhost"
    assert await check_endpoint("http://[::1]:80", LOOPBACK) == "http://[::1]:80"
    ten = (ipaddress.ip_network("10.0.0.0/8"),)
    assert await check_endpoint("http://10.1.2.3:5003", ten) == "http://10.1.2.3:5003"
