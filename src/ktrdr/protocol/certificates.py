"""What an X.509 certificate says of its own validity; the standard library can load one, but not tell that."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["validity"]

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


def validity(der: bytes) -> tuple[datetime, datetime]:
    """From when until when it is valid (RFC 5280, 4.1.2.5).

    Raises
    ------
    ValueError
        If the bytes are no certificate.
    """
    body = _inside(_inside(der, _SEQUENCE), _SEQUENCE)
    fields = _elements(body)
    if fields and fields[0][0] == _VERSION:
        fields = fields[1:]
    try:
        times = _elements(fields[3][1])  # after serial number, signature algorithm and issuer
        (first, begins), (second, ends) = times[:2]
    except (IndexError, ValueError):
        raise ValueError("not a certificate") from None
    return _moment(first, begins), _moment(second, ends)


def _elements(content: bytes) -> list[tuple[int, bytes]]:
    """The elements of a DER sequence: tag and content of each."""
    found, at = [], 0
    while at < len(content):
        tag, start, end = _element(content, at)
        found.append((tag, content[start:end]))
        at = end
    return found


def _inside(content: bytes, tag: int) -> bytes:
    got, start, end = _element(content, 0)
    if got != tag:
        raise ValueError("not a certificate")
    return content[start:end]


def _element(content: bytes, at: int) -> tuple[int, int, int]:
    if at + 2 > len(content):
        raise ValueError("not a certificate")
    tag, length, start = content[at], content[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(content[start : start + size]), start + size
    if start + length > len(content):
        raise ValueError("not a certificate")
    return tag, start, start + length


def _moment(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii", "replace")
    if tag == _UTC_TIME:  # two digits of the year: 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a certificate")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
