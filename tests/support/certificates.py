"""Certificates for tests, made by the openssl program: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["Authority"]

_CONFIG = """
[ca]
default_ca = it
[it]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[server]
basicConstraints = CA:false
subjectAltName = {names}
"""


class Authority:
    """A certificate authority in a folder; ``ca`` is its own certificate."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.ca, self._key = folder, folder / "ca.pem", folder / "ca-key.pem"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.ca)),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def sign(
        self,
        name: str,
        *,
        names: str = "IP:127.0.0.1,IP:::1,DNS:localhost",
        begins: str = "",
        ends: str = "",
    ) -> tuple[Path, Path]:
        """A certificate and its key; ``begins`` and ``ends`` as ``20200131000000Z``, else it is valid for a day."""
        cert, key, request = (self.folder / f"{name}{end}" for end in (".pem", "-key.pem", ".csr"))
        _openssl(
            *(
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                f"/CN={name}",
            ),
            *("-keyout", str(key), "-out", str(request)),
        )
        config = self.folder / f"{name}.cnf"
        config.write_text(_CONFIG.format(folder=self.folder, names=names))
        (self.folder / "index.txt").touch()
        times = [
            *(["-startdate", begins] if begins else []),
            *(["-enddate", ends] if ends else ["-days", "1"]),
        ]
        _openssl(
            *("ca", "-batch", "-notext", "-config", str(config), "-extensions", "server", *times),
            *("-cert", str(self.ca), "-keyfile", str(self._key), "-in", str(request), "-out", str(cert)),
        )
        return cert, key


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
