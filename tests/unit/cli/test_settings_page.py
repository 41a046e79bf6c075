"""The page of settings names every one that the code reads, and no other, with the default that it has."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from ktrdr.operations.model import WorkerType
from ktrdr.settings import CheckpointSettings, ControlSettings
from ktrdr.workers.settings import WorkerSettings

ROOT = Path(__file__).parents[3]
NAME = r"(?:KTRDR|WORKER)_[A-Z_]*[A-Z]"


def test_every_setting_is_on_the_page_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = {
        name
        for row in page.splitlines()
        if row.startswith("| `")
        for name in re.findall(NAME, row.split("|")[1])
    }
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    read = {name for name in re.findall(rf'"({NAME})"', code) if not name.endswith("_FILE")}
    read -= {"WORKER_TYPE"}  # the name of a table in the code
    assert len(read) > 15
    assert rows == read


def test_the_numbers_on_the_page_are_what_is_read_where_nothing_is_set() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = [[cell.strip() for cell in row.split("|")] for row in page.splitlines() if row.startswith("| `")]
    told = {row[1].strip("`"): float(row[2]) for row in rows if re.fullmatch(r"[0-9.]+", row[2])}
    worker = WorkerSettings.from_environment(
        WorkerType.BACKTESTING, {"KTRDR_API_URL": "http://127.0.0.1:8000"}, host="127.0.0.1"
    )
    assert (worker.control, worker.checkpoints) == (ControlSettings(), CheckpointSettings())
    read = {f"KTRDR_{name.upper()}": value for name, value in asdict(worker.control).items()}
    kept = worker.checkpoints
    read |= {
        "KTRDR_CHECKPOINT_S": kept.every_s,
        "KTRDR_CHECKPOINT_EPOCHS": kept.every_epochs,
        "KTRDR_CHECKPOINT_BARS": kept.every_bars,
        "KTRDR_CACHE_GB": worker.cache_gb,
    }
    assert told == read
    assert (worker.first_retry_s, worker.longest_retry_s, worker.reregister_after_s) == (1.0, 30.0, 30.0)
