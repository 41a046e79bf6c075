"""A newer ktrdr, made from this one: its sources in a folder of their own, with one more migration of the ledger."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import ktrdr
from ktrdr.operations.sql.tables import SCHEMA

__all__ = ["NEXT", "newer_ktrdr"]

NEXT = f"{int(SCHEMA) + 1:04d}"
_MIGRATION = '''"""What a later version does to a ledger that is in use."""

import sqlalchemy as sa
from alembic import op

revision = "{new}"
down_revision = "{old}"


def upgrade() -> None:
    op.add_column("operations", sa.Column("of_a_later_version", sa.Integer, nullable=False, server_default="7"))
    op.execute("{last}")
'''


def newer_ktrdr(folder: Path, *, last: str = "SELECT 1") -> Path:
    """Make it below ``folder``; returns what goes into PYTHONPATH. Its migration ends with ``last``."""
    source, target = Path(ktrdr.__file__).parent, folder / "ktrdr"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "sample_data"))
    tables = target / "operations" / "sql" / "tables.py"
    text, changed = re.subn(r'^SCHEMA = "\d+"$', f'SCHEMA = "{NEXT}"', tables.read_text(), flags=re.M)
    assert changed == 1
    tables.write_text(text)
    migration = target / "operations" / "sql" / "migrations" / "versions" / f"{NEXT}_later.py"
    migration.write_text(_MIGRATION.format(new=NEXT, old=SCHEMA, last=last))
    return folder
