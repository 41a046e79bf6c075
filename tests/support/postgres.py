"""A PostgreSQL server for tests: its own folder, its own port on loopback, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
from sqlalchemy import URL

from support.ports import kept_port

DEBIAN = Path("/usr/lib/postgresql")
SUPERUSER = "tester"


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``pg_ctl``, or None; Debian keeps it off the PATH."""
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """A server of its own; ``stop`` and ``start`` are its machine going down and coming back.

    PostgreSQL refuses to run as root, so a root's server runs as the user ``postgres`` or ``nobody``. Nothing is
    flushed to disk (``fsync=off``), because it is thrown away, unless it is ``durable``: for measurements.
    """

    def __init__(self, folder: Path, bin_folder: Path, *, durable: bool = False) -> None:
        self._fsync = "on" if durable else "off"
        self.data = folder / "data"
        self.port = kept_port()
        self._folder, self._bin, self._made = folder, bin_folder, 0
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._run("initdb", "-D", str(self.data), "-U", SUPERUSER, "-A", "trust", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        """Start it, always on the same port. Idempotent."""
        if self._running:
            return
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync={self._fsync}"
        self._run("pg_ctl", "start", "-w", "-D", str(self.data), "-l", str(self.log), "-o", options)

    def stop(self) -> None:
        """End it at once, as a crash would. Idempotent."""
        if self._running:
            self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.data))

    @property
    def _running(self) -> bool:
        return (self.data / "postmaster.pid").exists()

    @property
    def log(self) -> Path:
        return self._folder / "log"

    def url(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        """What goes into ``KTRDR_DATABASE_URL``."""
        url = URL.create("postgresql+psycopg", user, password, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def database(self, options: str = "") -> str:
        """Make an empty database of its own; returns its name."""
        self._made += 1
        name = f"ledger_{self._made}"
        self.execute("postgres", f"CREATE DATABASE {name} {options}")
        return name

    def execute(self, database: str, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as another program would."""
        with self.connect(database) as connection:
            connection.autocommit = True
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(f"host=127.0.0.1 port={self.port} dbname={database} user={SUPERUSER}")

    def require_password(self, user: str) -> None:
        """Let ``user`` in only with a password."""
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        self.execute("postgres", "SELECT pg_reload_conf()")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, timeout=120, check=False, **self._as,  # type: ignore[call-overload]
        )  # fmt: skip
        told = done.stderr + (self.log.read_text() if self.log.exists() else "")
        assert done.returncode == 0, f"{program} failed:\n{told}"


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("PostgreSQL does not run as root, and there is no user postgres or nobody.")


@contextlib.contextmanager
def running_postgres(bin_folder: Path, *, durable: bool = False) -> Iterator[Postgres]:
    """A started server that is stopped and removed at the end."""
    # not below pytest's folders: those of root are closed to the server's user, and a socket's path is short
    folder = Path(tempfile.mkdtemp(prefix="ktrdr-pg-"))
    try:
        server = Postgres(folder, bin_folder, durable=durable)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
