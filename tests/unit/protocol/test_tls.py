"""TLS files: what is accepted, what is refused with which words, and the two ends of a handshake."""

from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ktrdr.errors import InvalidSetting
from ktrdr.protocol.certificates import validity
from ktrdr.protocol.tls import TlsSettings, client_context
from support.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[Path, Path]:
    return authority.sign("server")


def handshake(server: TlsSettings, client: TlsSettings, name: str = "127.0.0.1") -> str:
    """Both ends in memory; the version that they agreed on."""
    there, here = server.server_context(), client.client_context()
    assert there is not None
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = there.wrap_bio(to_server, to_client, server_side=True)
    asking = (here or ssl.create_default_context()).wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(6):
        for end in (asking, serving):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    serving.write(b"hello")
    assert asking.read(5) == b"hello"
    return str(asking.version())


def test_server_and_client_agree(authority: Authority, pair: tuple[Path, Path]) -> None:
    server = TlsSettings(cert=pair[0], key=pair[1])
    assert handshake(server, TlsSettings(ca=authority.ca)) == "TLSv1.3"
    assert (server.scheme, TlsSettings().scheme) == ("https", "http")


def test_nothing_older_than_1_2_is_spoken(authority: Authority, pair: tuple[Path, Path]) -> None:
    settings = TlsSettings(cert=pair[0], key=pair[1], ca=authority.ca)
    for context in (settings.server_context(), settings.client_context()):
        assert context is not None
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_another_authoritys_certificate_is_not_accepted(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    server = TlsSettings(cert=pair[0], key=pair[1])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, TlsSettings(ca=Authority(tmp_path, "another").ca))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, TlsSettings())


def test_a_certificate_of_another_name_is_not_accepted(authority: Authority, pair: tuple[Path, Path]) -> None:
    server = TlsSettings(cert=pair[0], key=pair[1])
    with pytest.raises(ssl.SSLCertVerificationError, match=r"192\.0\.2\.1"):
        handshake(server, TlsSettings(ca=authority.ca), "192.0.2.1")


def test_where_it_is_demanded_a_client_needs_a_certificate_of_the_authority(
    tmp_path: Path, authority: Authority, pair: tuple[Path, Path]
) -> None:
    server = TlsSettings(cert=pair[0], key=pair[1], client_ca=authority.ca)
    cert, key = authority.sign("client")
    assert handshake(server, TlsSettings(ca=authority.ca, cert=cert, key=key)) == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(server, TlsSettings(ca=authority.ca))
    stranger = Authority(tmp_path, "another").sign("stranger")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, TlsSettings(ca=authority.ca, cert=stranger[0], key=stranger[1]))


def test_wrong_files_are_named_with_the_reason(
    tmp_path: Path, authority: Authority, pair: tuple[Path, Path]
) -> None:
    cert, key = pair
    other = authority.sign("other")[1]
    empty, folder, broken = tmp_path / "empty.pem", tmp_path / "folder", tmp_path / "broken.pem"
    empty.touch()
    folder.mkdir()
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    old = authority.sign("old", begins="20190101000000Z", ends="20200101000000Z")
    coming = authority.sign("coming", begins="20490101000000Z", ends="20501231000000Z")
    for one, two, told in (
        (tmp_path / "absent.pem", key, "KTRDR_TLS_CERT='{cert}' cannot be read: No such file"),
        (folder, key, "KTRDR_TLS_CERT='{cert}' cannot be read: Is a directory"),
        (cert, tmp_path / "absent.pem", "KTRDR_TLS_KEY='{key}' cannot be read: No such file"),
        (empty, key, "KTRDR_TLS_CERT='{cert}' holds no certificate in PEM form"),
        (key, key, "KTRDR_TLS_CERT='{cert}' holds no certificate in PEM form"),
        (broken, key, "KTRDR_TLS_CERT='{cert}' holds a certificate that cannot be read"),
        (cert, cert, "cannot be used"),
        (cert, empty, "cannot be used"),
        (cert, other, "KTRDR_TLS_KEY='{key}' is not the key of KTRDR_TLS_CERT='{cert}'"),
        (*old, "KTRDR_TLS_CERT='{cert}' expired at 2020-01-01 00:00 UTC"),
        (*coming, "KTRDR_TLS_CERT='{cert}' is valid from 2049-01-01 00:00 UTC on"),
    ):
        with pytest.raises(InvalidSetting) as caught:
            TlsSettings(cert=one, key=two).server_context()
        assert told.format(cert=one, key=two) in caught.value.message
        with pytest.raises(InvalidSetting):
            TlsSettings(cert=one, key=two).client_context()
    for wrong in (tmp_path / "absent.pem", empty, old[0]):
        with pytest.raises(InvalidSetting, match="KTRDR_TLS_CA="):
            TlsSettings(ca=wrong).client_context()
        with pytest.raises(InvalidSetting, match="KTRDR_TLS_CLIENT_CA="):
            TlsSettings(cert=cert, key=key, client_ca=wrong).server_context()


def test_a_key_with_a_passphrase_does_not_make_a_server_wait_for_one(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    locked = tmp_path / "locked.pem"
    command = [
        "openssl",
        "pkcs8",
        "-topk8",
        "-in",
        str(pair[1]),
        "-out",
        str(locked),
        "-passout",
        "pass:secret",
    ]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(InvalidSetting, match="is encrypted"):
        TlsSettings(cert=pair[0], key=locked).server_context()


@pytest.mark.parametrize(
    "told",
    [
        {"KTRDR_TLS_CERT": "c"},
        {"KTRDR_TLS_KEY": "k"},
        {"KTRDR_TLS_CLIENT_CA": "ca"},
    ],
)
def test_half_a_setting_is_refused(told: dict[str, str]) -> None:
    with pytest.raises(InvalidSetting, match="needs KTRDR_TLS_"):
        TlsSettings.from_environment(told)


def test_flags_win_over_the_environment() -> None:
    env = {"KTRDR_TLS_CERT": "/e/c", "KTRDR_TLS_KEY": "/e/k", "KTRDR_TLS_CA": "/e/ca"}
    settings = TlsSettings.from_environment(env, cert="/f/c")
    assert settings == TlsSettings(cert=Path("/f/c"), key=Path("/e/k"), ca=Path("/e/ca"))
    assert client_context({}) is None
    assert TlsSettings().server_context() is None


def test_the_validity_is_the_certificates_own(authority: Authority, pair: tuple[Path, Path]) -> None:
    begins, ends = validity(ssl.PEM_cert_to_DER_cert(pair[0].read_text()))
    assert ends - begins == timedelta(days=1)
    assert begins <= datetime.now(UTC) < ends
    late = authority.sign("late", begins="20490101000000Z", ends="20501231000000Z")[0]  # both forms of time
    assert validity(ssl.PEM_cert_to_DER_cert(late.read_text()))[1] == datetime(2050, 12, 31, tzinfo=UTC)


@pytest.mark.parametrize("length", [0, 1, 2, 10, 50, 100])
def test_torn_bytes_are_no_certificate(pair: tuple[Path, Path], length: int) -> None:
    der = ssl.PEM_cert_to_DER_cert(pair[0].read_text())
    with pytest.raises(ValueError, match="not a certificate"):
        validity(der[:length])
