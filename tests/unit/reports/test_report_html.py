from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

from ktrdr.fuzzy import LinguisticVariable
from ktrdr.reports import ReportData, build_html
from ktrdr.reports.charts import CANDLES, equity_chart, fuzzy_charts, training_chart
from ktrdr.reports.html import TRADE_ROWS, script_json
from ktrdr.reports.series import thinned_rows
from ktrdr.strategies import parse_strategy
from ktrdr.timeframe import Timeframe
from unit.reports.report_pieces import make_data, some_strategy, walk

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'"


class Page(HTMLParser):
    """Tags, ids, text outside of scripts, and the content of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "link"):
            self._inside.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self._inside.pop() == tag

    def handle_data(self, data):
        if self._inside and self._inside[-1] == "script":
            self.scripts[-1] += data
        elif self._inside and self._inside[-1] != "style":
            self.text.append(data)

    @property
    def figures(self) -> list[dict]:
        return json.loads(self.scripts[0])

    @property
    def words(self) -> str:
        return " ".join(self.text)


@pytest.fixture(scope="module")
def page(data: ReportData) -> Page:
    return Page(build_html(data))


def test_every_part_is_there(page: Page) -> None:
    names = [figure["name"] for figure in page.figures]
    assert names == ["equity", "candles", "training", "fuzzy-0", "fuzzy-1"]
    places = {value for name, value in page.attributes if name == "id"}
    assert set(names) <= places
    for title in (
        "Equity and drawdown",
        "Prices and trades",
        "Statistics",
        "Where it comes from",
        "Trades",
        "Training",
    ):
        assert title in page.text, title
    assert "momentum on rsi_14" in page.text
    assert "place on bands_20.percent_b" in page.text
    assert "Out of sample" in page.text
    assert "7 bars did something." in page.text


def test_provenance_names_data_model_dates_and_costs(page: Page, data: ReportData) -> None:
    for part in (data.bars.digest(), data.result["model"], data.result["digest"]):
        assert part in page.words
    assert "commission 0.001" in page.words
    assert "stop loss 0.05" in page.words
    assert "WALK, 1d" in page.words
    assert "3 bars of the range lost" in page.words
    assert "2015-01-02 00:00" in page.words


def test_figures_are_valid_plotly_documents(page: Page) -> None:
    for figure in page.figures:
        checked = go.Figure(data=figure["data"], layout=figure["layout"])  # raises on an unknown key or value
        assert [trace.type for trace in checked.data] == [trace["type"] for trace in figure["data"]]
    assert len(page.figures) >= 3


def test_figures_show_the_numbers_of_the_result(page: Page, data: ReportData) -> None:
    equity, candles, training = page.figures[:3]
    strategy, benchmark, drawdown = equity["data"]
    np.testing.assert_allclose(strategy["y"], data.equity["equity"], rtol=1e-6)
    np.testing.assert_allclose(benchmark["y"], data.equity["benchmark"], rtol=1e-6)
    np.testing.assert_allclose(drawdown["y"], 100 * data.equity["drawdown"], atol=1e-3)
    assert len(candles["data"][0]["close"]) == 400
    markers = {trace["name"]: len(trace["x"]) for trace in candles["data"][1:]}
    assert markers["Long"] + markers["Short"] == len(data.trades)
    assert markers["Exit, won"] + markers["Exit, lost"] == len(data.trades)
    assert training["layout"]["shapes"][0]["x0"] == 3


def test_the_page_reaches_for_nothing_outside(page: Page, data: ReportData) -> None:
    links = [value for name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert links == []
    assert not {"link", "iframe", "img", "object", "embed", "form"} & set(page.tags)
    policy = [
        value for name, value in page.attributes if name == "content" and value and "default-src" in value
    ]
    assert policy == [
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    ]
    assert len(page.scripts) == 3
    assert "showSendToCloud: false" in page.scripts[2]


def test_the_same_input_gives_the_same_bytes(data: ReportData) -> None:
    assert build_html(data) == build_html(make_data(walk(400), strategy=some_strategy()))


def test_texts_from_outside_cannot_become_markup() -> None:
    strategy = some_strategy()
    use = strategy.fuzzy_sets["momentum"]
    labels = tuple((f"{EVIL}{i}", mf) for i, (_, mf) in enumerate(use.variable.sets))
    evil_use = dataclasses.replace(use, name=EVIL, variable=LinguisticVariable(EVIL, labels))
    evil = dataclasses.replace(strategy, name=EVIL, description=EVIL, fuzzy_sets={EVIL: evil_use})
    bars = walk(100).with_symbol(EVIL)
    changes = {"strategy_name": EVIL, "symbol": EVIL, "model": EVIL, "digest": EVIL, "warnings": [EVIL]}
    data = make_data(bars, strategy=evil, document=changes | {"config": {"costs": {EVIL: EVIL}}})
    reasons = data.trades.with_columns(reason=np.array([EVIL] * len(data.trades)))
    text = build_html(dataclasses.replace(data, trades=reasons))
    page, clean = Page(text), Page(build_html(make_data(walk(100), strategy=strategy)))
    assert len(page.scripts) == len(clean.scripts) == 3
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.words.count("<img src=x onerror=alert(2)>") >= 5  # shown as text
    for figure in page.figures:
        shown = json.dumps([trace.get("name", "") for trace in figure["data"]])
        shown += json.dumps([trace.get("text", "") for trace in figure["data"]])
        assert "<img" not in shown  # plotly reads HTML in names and hovers


def test_script_json_cannot_close_its_element() -> None:
    text = script_json({"a": "</script><!-- & \u2028"})
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028"}


@pytest.mark.parametrize(("count", "timeframe"), [(5_000, Timeframe.D1), (6_000, Timeframe.H1)])
def test_long_backtests_stay_usable(count: int, timeframe: Timeframe) -> None:
    start = 946_857_600_000_000
    data = make_data(walk(count, timeframe, start=start), strategy=some_strategy(), density=0.3)
    text = build_html(data)
    assert len(text.encode()) < 8_000_000
    page = Page(text)
    assert len(page.figures[1]["data"][0]["x"]) == count
    assert text.count("<tr><td>2") <= TRADE_ROWS + 5
    assert f"{len(data.trades):,} trades; the newest {TRADE_ROWS}" in page.words
    low, high = page.figures[1]["layout"]["yaxis"]["range"]
    assert low < data.bars.close[-1] < high


def test_more_candles_than_a_browser_likes_are_cut_and_it_is_said() -> None:
    data = make_data(walk(CANDLES + 500, Timeframe.M5))
    page = Page(build_html(data))
    assert len(page.figures[1]["data"][0]["x"]) == CANDLES
    assert f"The newest {CANDLES:,} of {CANDLES + 500:,} bars" in page.words
    since = page.figures[1]["data"][0]["x"][0]
    assert all(
        x >= since
        for trace in page.figures[1]["data"][1:]
        if trace["name"] in ("Long", "Short")
        for x in trace["x"]
    )
    assert len(page.figures[0]["data"][0]["x"]) < 5_000
    peak = max(page.figures[0]["data"][0]["y"])
    assert peak == pytest.approx(data.equity["equity"].max(), rel=1e-6)


def test_pieces_that_are_absent_leave_no_hole(data: ReportData) -> None:
    bare = dataclasses.replace(
        data,
        bars=None,
        strategy=None,
        history=None,
        equity=data.equity.drop("benchmark"),
        trades=data.trades.head(0),
        result={
            k: data.result[k] for k in ("strategy_name", "symbol", "timeframe", "start", "end", "statistics")
        },
    )
    page = Page(build_html(bare))
    assert [figure["name"] for figure in page.figures] == ["equity"]
    assert "The strategy made no trade." in page.words
    assert "Sample unknown" in page.text
    assert "Fuzzy sets" not in page.text


def test_undefined_statistics_are_dashes_not_zeros() -> None:
    data = make_data(walk(50), density=0.0)
    text = build_html(data)
    assert '<div class="value">–</div>' in text  # Sharpe ratio of an idle strategy
    assert "None" not in Page(text).words
    assert "nan" not in Page(text).words.lower().split()


def test_weekends_take_room_only_where_there_are_bars() -> None:
    everyday = Page(build_html(make_data(walk(30))))
    assert everyday.figures[1]["layout"]["xaxis"]["rangebreaks"] == []
    weekday = walk(5, start=1_420_416_000_000_000)  # Monday 2015-01-05
    assert Page(build_html(make_data(weekday))).figures[1]["layout"]["xaxis"]["rangebreaks"]


def test_fuzzy_charts_show_where_values_fell() -> None:
    strategy = some_strategy()
    first, second = fuzzy_charts(strategy, walk(400))
    assert first.data[0]["name"] == "values seen"
    assert len(first.data) == 4
    low, high = first.layout["xaxis"]["range"]
    assert 0 < low < high < 100  # where RSI was, not where it could be
    without = fuzzy_charts(strategy, None)
    assert [trace["name"] for trace in without[1].data] == ["below", "inside", "above"]
    low, high = without[1].layout["xaxis"]["range"]
    assert low == pytest.approx(-0.04)
    assert high == pytest.approx(1.04)
    assert len(second.data[1]["x"]) == 201


def test_fuzzy_charts_read_the_timeframe_of_the_network() -> None:
    both = "timeframes: {mode: multi_timeframe, list: [1h, 1d], base_timeframe: 1h}"
    everywhere = some_strategy().text.replace("timeframes: [1d]", both)
    daily = everywhere.replace(
        "{fuzzy_set: momentum, timeframes: all}", "{fuzzy_set: momentum, timeframes: [1d]}"
    )
    bars = walk(24 * 60, Timeframe.H1)
    hourly_view, daily_view = (fuzzy_charts(parse_strategy(text), bars)[0] for text in (everywhere, daily))
    assert hourly_view.layout["xaxis"]["range"] != daily_view.layout["xaxis"]["range"]


def test_training_chart_without_history_is_left_out() -> None:
    assert training_chart([]) is None
    chart = training_chart([{"epoch": 1, "train_loss": 0.5}])
    assert chart is not None
    assert [trace["name"] for trace in chart.data] == ["Training loss"]
    assert chart.caption == ""


def test_thinning_keeps_extremes_and_ends() -> None:
    values = np.random.default_rng(0).normal(size=50_000)
    rows = thinned_rows(values, 1_000)
    assert len(rows) <= 1_002
    assert np.all(np.diff(rows) > 0)
    assert {0, 49_999, int(values.argmin()), int(values.argmax())} <= set(rows.tolist())
    assert thinned_rows(values[:10], 1_000).tolist() == list(range(10))


def test_equity_chart_without_benchmark(data: ReportData) -> None:
    chart = equity_chart(dataclasses.replace(data, equity=data.equity.drop("benchmark")))
    assert [trace["name"] for trace in chart.data] == ["Strategy", "Drawdown"]


def test_without_plotly_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['plotly'] = None; sys.modules['plotly.offline'] = None\n"
        "from ktrdr.reports.html import plotly_script\n"
        "try:\n    plotly_script()\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "MissingExtra" in done.stdout
    assert "pip install 'ktrdr[report]'" in done.stdout


def test_importing_reports_loads_no_drawing_library() -> None:
    code = "import sys, ktrdr.reports; print(sorted({'plotly', 'matplotlib', 'torch'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
