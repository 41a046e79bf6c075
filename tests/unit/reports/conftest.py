from __future__ import annotations

import pytest

from ktrdr.reports import ReportData
from unit.reports.report_pieces import make_data, some_strategy, walk


@pytest.fixture(scope="session")
def data() -> ReportData:
    return make_data(walk(400), strategy=some_strategy())
