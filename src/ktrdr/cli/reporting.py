"""Builds the report of a finished backtest from what the backend serves: results, bars and the model by digest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ktrdr.artifacts import ArtifactStore, FileArtifactStore
from ktrdr.cli.client import Api, Json
from ktrdr.cli.output import write_file
from ktrdr.errors import Conflict, InvalidInput
from ktrdr.market.manifest import load_dataset
from ktrdr.models.bundle import load_bundle
from ktrdr.protocol.artifact_client import CachedArtifacts
from ktrdr.reports.data import ReportData
from ktrdr.strategies.parse import parse_strategy
from ktrdr.timeframe import Timeframe

__all__ = ["prepare_folder", "write_report"]


def write_report(api: Api, operation_id: str, folder: Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.png`` into ``folder``; returns their paths.

    Raises
    ------
    Conflict
        If the operation is not a completed backtest.
    InvalidInput
        If the folder cannot be written.
    """
    operation = api.get(f"/operations/{operation_id}")
    if operation["operation_type"] != "backtesting" or operation["status"] != "completed":
        raise Conflict(
            f"Operation {operation_id} is a {operation['operation_type']} operation that is {operation['status']}; "
            "a report needs a completed backtest."
        )
    prepare_folder(folder)
    from ktrdr.reports.html import build_html  # lazy: plotly and matplotlib are loaded only for a report
    from ktrdr.reports.png import build_png

    with tempfile.TemporaryDirectory(prefix="ktrdr-report-") as scratch:
        artifacts = CachedArtifacts(
            FileArtifactStore(Path(scratch)), ",".join(api.urls), api.token, tls=lambda: api.tls
        )
        data = _report_data(
            api.get(f"/operations/{operation_id}/spec")["spec"], operation["artifacts"], artifacts
        )
        contents = {"report.html": build_html(data).encode(), "report.png": build_png(data)}
    for name, content in contents.items():
        write_file(folder / name, content)
    return folder / "report.html", folder / "report.png"


def prepare_folder(folder: Path) -> None:
    """Make the folder of a report.

    Raises
    ------
    InvalidInput
        If it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidInput(
            f"Cannot write to '{folder}': {error.strerror}. Choose another folder by --output."
        ) from None


def _report_data(spec: Json, stored: Mapping[str, str], artifacts: ArtifactStore) -> ReportData:
    bundle = load_bundle(artifacts, spec["model"]).manifest
    dataset = next(d for d in spec["datasets"] if d["timeframe"] == spec["timeframe"])
    return ReportData.from_artifacts(
        artifacts.read(stored["result"]),
        artifacts.read(stored["trades"]),
        artifacts.read(stored["equity"]),
        bars=load_dataset(artifacts, dataset["manifest"], Timeframe.parse(spec["timeframe"]), spec["symbol"]),
        strategy=parse_strategy(bundle.strategy, source=bundle.strategy_name),
        training=bundle.training.model_dump(mode="json"),
    )
