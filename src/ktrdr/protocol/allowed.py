"""The hosts and networks that the settings allow."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence

from ktrdr.errors import InvalidSetting
from ktrdr.protocol.hosts import is_address

__all__ = ["LOOPBACK", "PRIVATE", "Network", "address_allowed", "read_hosts", "read_networks"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
PRIVATE: tuple[Network, ...] = (
    *LOOPBACK,
    *(ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")),
)

_HOST_NAME = re.compile(
    r"(?!.*[.][0-9]+$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?([.][a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
)


def read_networks(environ: Mapping[str, str]) -> tuple[Network, ...]:
    """``KTRDR_ALLOWED_WORKER_NETWORKS``: networks in CIDR notation, separated by commas.

    Raises
    ------
    InvalidSetting
        If one of them is not a network.
    """
    networks: list[Network] = []
    for part in _pieces(environ, "KTRDR_ALLOWED_WORKER_NETWORKS"):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError:
            raise InvalidSetting(
                f"KTRDR_ALLOWED_WORKER_NETWORKS: '{part}' is not a network. "
                "Write CIDR blocks separated by commas, e.g. 10.0.0.0/8,192.168.1.0/24."
            ) from None
    return tuple(networks)


def read_hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    """``KTRDR_ALLOWED_HOSTS``: host names in lower case, from a list separated by commas.

    Raises
    ------
    InvalidSetting
        If one of them is not a name or an address: with a scheme, a port or a wildcard it would never match.
    """
    hosts = [piece.lower().removesuffix(".") for piece in _pieces(environ, "KTRDR_ALLOWED_HOSTS")]
    for host in hosts:
        if not (is_address(host) or _HOST_NAME.fullmatch(host)):
            raise InvalidSetting(
                f"KTRDR_ALLOWED_HOSTS: '{host}' is not the name of a host. "
                "Write names without scheme and port, separated by commas, e.g. ktrdr.desk.example,backend-1."
            )
    return tuple(host.strip("[]") for host in hosts)


def _pieces(environ: Mapping[str, str], name: str) -> Iterator[str]:
    return filter(None, (piece.strip() for piece in environ.get(name, "").split(",")))


def address_allowed(address: str, networks: Sequence[Network]) -> bool:
    """Whether an IP address lies in one of the networks (an IPv4 address mapped into IPv6 counts as IPv4)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed.version == network.version and parsed in network for network in networks)
