"""Splits: by time, purged by t1, embargoed, for pooled symbols; and rows joined by (symbol, stamp)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.datasets.labels import Labels
from ktrdr.datasets.splits import pool_rows, purged_split
from ktrdr.errors import InvalidInput, TooFewBars
from ktrdr.strategies.document import DataSplit

NO_EMBARGO = DataSplit(0.6, 0.2, 0.2, 0.0)


def split_of(time, ahead, shares):
    time = np.asarray(time, np.int64)
    return purged_split(time, time + np.asarray(ahead, np.int64), shares)


def test_borders_and_purge_by_hand():
    # Ten rows; borders before rows 6 and 8. Labels look 2 ahead, so row 4 sees row 6 and row 6 would see row 8.
    split = split_of(range(10), [2] * 6 + [1] * 4, NO_EMBARGO)
    assert split.train.tolist() == [0, 1, 2, 3]
    assert split.validation.tolist() == [6]
    assert split.test.tolist() == [8, 9]
    assert (split.purged_train, split.purged_validation) == (2, 1)
    with pytest.raises(TooFewBars, match=r"validation part: 10 labelled rows, share 0\.2, embargo 0 rows"):
        split_of(range(10), 2, NO_EMBARGO)


def test_embargo_leaves_rows_out_after_each_border():
    split = split_of(range(100), 3, DataSplit(0.6, 0.2, 0.2, 0.05))
    assert split.train.tolist() == list(range(57))
    assert split.validation.tolist() == list(range(65, 77))
    assert split.test.tolist() == list(range(85, 100))
    assert (split.validation_start, split.test_start) == (60, 80)
    assert (split.purged_train, split.purged_validation, split.purged) == (3, 3, 6)
    assert (split.embargoed_validation, split.embargoed_test, split.embargoed) == (5, 5, 10)


def test_a_label_that_ends_on_the_border_is_purged():
    split = split_of(range(10), [1] * 10, NO_EMBARGO)
    assert split.train.tolist() == [0, 1, 2, 3, 4]  # row 5 ends on row 6, the first of validation
    assert split.validation.tolist() == [6]


def test_without_a_test_share_the_last_part_is_validation():
    split = split_of(range(10), 0, DataSplit(0.7, 0.3, 0.0, 0.0))
    assert split.validation.tolist() == [7, 8, 9]
    assert len(split.test) == 0
    assert split.test_start is None


def test_rows_of_one_stamp_stay_together():
    time = np.repeat(np.arange(10), 3)  # three symbols on one clock
    split = split_of(time, 0, DataSplit(0.65, 0.15, 0.2, 0.0))
    for part, others in ((split.train, split.validation), (split.validation, split.test)):
        assert not set(time[part]) & set(time[others])
    assert len(split.train) % 3 == 0


def test_order_of_rows_does_not_matter():
    rng = np.random.default_rng(1)
    time = rng.permutation(60)
    split = split_of(time, 2, NO_EMBARGO)
    assert time[split.train].tolist() == list(range(34))
    assert time[split.test].tolist() == list(range(48, 60))


@pytest.mark.parametrize("end", [[1, 2], [0, 0, 2]])
def test_arrays_that_cannot_be(end):
    with pytest.raises(InvalidInput, match="last bar its label looked at"):
        purged_split(np.array([0, 1, 2]), np.array(end), NO_EMBARGO)


def test_no_rows_at_all():
    with pytest.raises(TooFewBars, match="train part: 0 labelled rows"):
        split_of([], [], NO_EMBARGO)


def test_test_part_may_be_embargoed_away():
    with pytest.raises(TooFewBars, match="test part"):
        split_of(range(20), 0, DataSplit(0.4, 0.5, 0.1, 0.2))


rows = st.lists(
    st.tuples(st.integers(0, 80), st.integers(0, 25)), min_size=1, max_size=150
)  # (stamp, how far its label looks)
shares = st.sampled_from(
    [
        NO_EMBARGO,
        DataSplit(0.7, 0.15, 0.15, 0.01),
        DataSplit(0.5, 0.25, 0.25, 0.1),
        DataSplit(0.8, 0.2, 0.0, 0.05),
    ]
)


@settings(max_examples=150, deadline=None)
@given(rows=rows, shares=shares)
def test_law_no_row_sees_the_next_part(rows, shares):
    time = np.array([stamp for stamp, _ in rows], np.int64)
    end = time + np.array([ahead for _, ahead in rows], np.int64)
    try:
        split = purged_split(time, end, shares)
    except TooFewBars:
        return
    first_validation = time[split.validation].min()
    assert end[split.train].max() < split.validation_start <= first_validation
    if len(split.test):
        first_test = time[split.test].min()
        assert end[split.train].max() < first_test
        assert end[split.validation].max() < split.test_start <= first_test
    for part in (split.train, split.validation, split.test):
        assert (np.diff(time[part]) >= 0).all()
    everything = np.concatenate([split.train, split.validation, split.test])
    assert len(set(everything.tolist())) == len(everything)
    assert len(everything) + split.purged + split.embargoed == len(time)


# -- pooling ----------------------------------------------------------------------------------------------------


def labels_of(symbol: str, stamps, y, ahead: int = 1) -> Labels:
    stamps = np.asarray(stamps, np.int64)
    y = np.asarray(y, np.int8)
    t1 = np.where(y >= 0, np.arange(len(y)) + ahead, -1)
    return Labels(symbol, stamps, y, t1)


def test_two_symbols_are_joined_by_symbol_and_stamp():
    labels = {
        "A": labels_of("A", [10, 20, 30, 40], [0, 1, 2, -1]),
        "B": labels_of("B", [20, 30, 50], [2, 0, -1]),
    }
    # Features of A begin one bar later than its labels: position 0 is stamp 20.
    time = {"A": np.array([20, 30, 40]), "B": np.array([20, 30, 50])}
    valid = {"A": np.array([True, True, True]), "B": np.array([True, False, True])}
    pooled = pool_rows(labels, time, valid)
    assert len(pooled) == 3
    assert [pooled.symbols[i] for i in pooled.symbol_N] == ["A", "B", "A"]
    assert pooled.time_N.tolist() == [20, 20, 30]
    assert pooled.y_N.tolist() == [1, 2, 2]
    assert pooled.feature_row_N.tolist() == [0, 0, 1]
    assert pooled.end_time_N.tolist() == [30, 30, 40]
    assert (pooled.not_labelled, pooled.not_valid) == (2, 1)


def test_a_symbol_without_labels_is_refused():
    with pytest.raises(InvalidInput, match="must be the same symbols"):
        pool_rows({}, {"A": np.array([1])}, {"A": np.array([True])})


def test_features_of_other_bars_are_refused():
    labels = {"A": labels_of("A", [10, 20], [0, -1])}
    with pytest.raises(InvalidInput, match="A has no bar stamped 15"):
        pool_rows(labels, {"A": np.array([10, 15])}, {"A": np.array([True, True])})
