"""TLS between client, backend and workers: which files, what they must be, and the contexts made of them."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ktrdr.errors import InvalidSetting
from ktrdr.protocol.certificates import validity

__all__ = ["TlsSettings", "client_context"]

_NAMES = {
    "cert": "KTRDR_TLS_CERT",
    "key": "KTRDR_TLS_KEY",
    "ca": "KTRDR_TLS_CA",
    "client_ca": "KTRDR_TLS_CLIENT_CA",
}
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Files in PEM form.

    ``cert`` and ``key``: what this process shows of itself, as a server and, where it is asked, as a client.
    ``ca``: whose certificates it trusts at servers; None trusts what the system trusts. ``client_ca``: whose
    certificates it demands of everybody who connects; None demands none.
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    client_ca: Path | None = None

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, **flags: str | Path | None
    ) -> TlsSettings:
        """Read ``KTRDR_TLS_CERT`` and its kin; the named arguments (flags) win over them.

        Raises
        ------
        InvalidSetting
            If a file is named without its companion.
        """
        env = os.environ if environ is None else environ
        told = {name: flags.get(name) or env.get(setting) for name, setting in _NAMES.items()}
        paths = {name: Path(value).expanduser() for name, value in told.items() if value}
        for one, other in (("cert", "key"), ("key", "cert"), ("client_ca", "cert")):
            if one in paths and other not in paths:
                raise InvalidSetting(
                    f"{_NAMES[one]}='{paths[one]}' needs {_NAMES[other]} beside it: a server has a certificate and its "
                    "private key."
                )
        return cls(**paths)

    @property
    def scheme(self) -> str:
        """Of the URLs at which this process serves."""
        return "http" if self.cert is None else "https"

    def server_context(self, now: Callable[[], datetime] | None = None) -> ssl.SSLContext | None:
        """For listening; None where no certificate is set. TLS 1.2 and newer.

        Raises
        ------
        InvalidSetting
            If a file is absent, unreadable, not PEM, expired, or certificate and key do not belong together.
        """
        if self.cert is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._show(context, now)
        if self.client_ca is not None:
            _check(self.client_ca, "client_ca", now)
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self, now: Callable[[], datetime] | None = None) -> ssl.SSLContext | None:
        """For connecting; None where nothing is set, which means what the system trusts.

        Raises
        ------
        InvalidSetting
            As :meth:`server_context`.
        """
        if self.ca is None and self.cert is None:
            return None
        if self.ca is not None:
            _check(self.ca, "ca", now)
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            self._show(context, now)
        return context

    def _show(self, context: ssl.SSLContext, now: Callable[[], datetime] | None) -> None:
        assert self.cert is not None
        assert self.key is not None
        _check(self.cert, "cert", now)
        _read(self.key, "key")

        def locked() -> str:
            raise InvalidSetting(
                f"{_NAMES['key']}='{self.key}' is encrypted. Give a key without a passphrase, readable by this user alone."
            )

        try:
            context.load_cert_chain(self.cert, self.key, password=locked)
        except ssl.SSLError as error:
            if "KEY_VALUES_MISMATCH" in (error.reason or str(error)):
                raise InvalidSetting(
                    f"{_NAMES['key']}='{self.key}' is not the key of {_NAMES['cert']}='{self.cert}'."
                ) from None
            raise InvalidSetting(
                f"{_NAMES['key']}='{self.key}' or {_NAMES['cert']}='{self.cert}' cannot be used: "
                f"{error.reason or error}. Both must be PEM files."
            ) from None


def client_context(environ: Mapping[str, str] | None = None) -> ssl.SSLContext | None:
    """For connecting, as the environment says; see :class:`TlsSettings`."""
    return TlsSettings.from_environment(environ).client_context()


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text("latin-1")
    except OSError as error:
        raise InvalidSetting(f"{_NAMES[name]}='{path}' cannot be read: {error.strerror}.") from None


def _check(path: Path, name: str, now: Callable[[], datetime] | None) -> None:
    """Refuse a file without certificates, and one whose first is not valid now: nobody would accept it."""
    found = _PEM.findall(_read(path, name))
    if not found:
        raise InvalidSetting(
            f"{_NAMES[name]}='{path}' holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)."
        )
    try:
        begins, ends = validity(ssl.PEM_cert_to_DER_cert(found[0]))
    except ValueError:
        raise InvalidSetting(f"{_NAMES[name]}='{path}' holds a certificate that cannot be read.") from None
    moment = datetime.now(UTC) if now is None else now()
    if moment >= ends:
        raise InvalidSetting(
            f"The certificate {_NAMES[name]}='{path}' expired at {ends:%Y-%m-%d %H:%M} UTC. Renew it."
        )
    if moment < begins:
        raise InvalidSetting(
            f"The certificate {_NAMES[name]}='{path}' is valid from {begins:%Y-%m-%d %H:%M} UTC on. Is this machine's clock right?"
        )
