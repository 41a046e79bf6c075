"""Hosts in headers, and which of them are this machine."""

from __future__ import annotations

import pytest

from ktrdr.protocol.hosts import host_of, host_of_origin, is_address, is_loopback


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("LocalHost:80", "localhost"),
        ("[::1]:80", "::1"),
        ("a@127.0.0.1", "127.0.0.1"),
        ("", ""),
        ("[", ""),
        ("[::1", ""),
        ("a]b", ""),
        ("127.0.0.1:99999", "127.0.0.1"),
        ("//", ""),
    ],
)
def test_hosts(authority: str, host: str) -> None:
    assert host_of(authority) == host


@pytest.mark.parametrize(
    ("origin", "host"), [("http://Evil.example:1", "evil.example"), ("null", ""), ("http://[", "")]
)
def test_origins(origin: str, host: str) -> None:
    assert host_of_origin(origin) == host


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("LOCALHOST", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", True),
        ("::1", True),
        ("[fd00::1]", True),
        ("localhost", False),
        ("10.0.0", False),
        ("", False),
    ],
)
def test_addresses(host: str, address: bool) -> None:
    assert is_address(host) is address
