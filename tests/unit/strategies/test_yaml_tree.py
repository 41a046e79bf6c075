"""The YAML layer: plain data only, under caps, every node with its place."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ktrdr.errors import InvalidStrategy
from ktrdr.strategies.yaml_tree import MAX_BYTES, Faults, ListNode, MapNode, ScalarNode, read_yaml


def plain(text: str) -> object:
    faults = Faults()
    value = read_yaml(text, faults).plain()
    assert not faults.sorted()
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("1e-4", 1e-4),
        ("1.", 1.0),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("-.inf", -math.inf),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2015-01-31", "2015-01-31"),
        ("12:30", "12:30"),
        ('"12"', "12"),
        ("'true'", "true"),
        ("9" * 40, 1e40),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = plain(f"[{text}]")
    assert found == [value]
    assert type(found[0]) is type(value)


def test_nan_is_read_as_a_number():
    assert math.isnan(plain("[.nan]")[0])


def test_every_node_knows_its_place():
    root = read_yaml("a: 1\nb:\n  - x\n  - {c/d: [5]}\n", Faults())
    assert isinstance(root, MapNode)
    listed = root.entries["b"].node
    assert isinstance(listed, ListNode)
    inner = listed.items[1]
    assert isinstance(inner, MapNode)
    entry = inner.entries["c/d"]
    assert (entry.pointer, entry.line, entry.column) == ("/b/1/c~1d", 4, 6)
    assert isinstance(entry.node, ListNode)
    five = entry.node.items[0]
    assert five == ScalarNode("/b/1/c~1d/0", 4, 12, 5, "5")
    assert root.plain() == {"a": 1, "b": ["x", {"c/d": [5]}]}


def test_each_duplicate_key_is_a_fault_and_the_first_value_stays():
    faults = Faults()
    root = read_yaml("a: 1\na: 2\nb: {c: 1, c: [1, 2]}\n", faults)
    assert root.plain() == {"a": 1, "b": {"c": 1}}
    assert [(e.pointer, e.line, e.message) for e in faults.sorted()] == [
        ("/a", 2, "duplicate key 'a', already given in line 1"),
        ("/b/c", 3, "duplicate key 'c', already given in line 3"),
    ]


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("a: &x 1\nb: *x", "anchor '&x'", 1),
        ("a: 1\nb: *x", "alias '*x'", 2),
        ("a: !!python/object:os.system x", "tag 'tag:yaml.org,2002:python/object:os.system'", 1),
        ("a: !!int 3", "tag", 1),
        ("a: 1\n---\nb: 2", "second document", 2),
        ("? [x]\n: 1", "a key that is a list", 1),
        ("{x: 1}: 1", "a key that is a list", 1),
        ("a: " + "[" * 33 + "]" * 33, "nesting deeper than 32", 1),
        ("[" + "1, " * 20_000 + "]", "more than 20,000 values", 1),
    ],
)
def test_what_strategies_may_not_use(text, said, line):
    with pytest.raises(InvalidStrategy) as caught:
        read_yaml(text, Faults())
    (error,) = caught.value.errors
    assert said in error.message
    assert error.line == line
    assert error.column is not None


@pytest.mark.parametrize(
    ("text", "line"), [("a: [1", 1), ("a: 1\n\tb: 2", 2), ("a: b: c", 1), ("a: 'x", 1), ("a: \x07", None)]
)
def test_what_is_not_yaml(text, line):
    with pytest.raises(InvalidStrategy, match="not YAML") as caught:
        read_yaml(text, Faults())
    assert caught.value.errors[0].line == line
    assert caught.value.errors[0].message


@pytest.mark.parametrize("text", ["", "   \n", "# nothing but a comment\n"])
def test_nothing_is_no_document(text):
    with pytest.raises(InvalidStrategy, match="ktrdr strategies new NAME"):
        read_yaml(text, Faults())


def test_size_is_capped_before_parsing():
    with pytest.raises(InvalidStrategy, match="262,145 bytes; at most 262,144"):
        read_yaml("#" * (MAX_BYTES + 1), Faults())
    with pytest.raises(InvalidStrategy, match="bytes"):
        read_yaml("é" * (MAX_BYTES // 2 + 1), Faults())


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor():
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    with pytest.raises(InvalidStrategy, match="anchor '&a0'"):
        read_yaml("\n".join(lines), Faults())


values = st.recursive(
    st.one_of(
        st.integers(-1000, 1000),
        st.booleans(),
        st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3)),
        st.text("abcdefghij klm-_.", min_size=1, max_size=8).map(str.strip).filter(str.isalpha),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text("abcdef", min_size=1, max_size=5), inner, max_size=4),
    ),
    max_leaves=20,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=5), values, min_size=1, max_size=4))
def test_reads_what_a_yaml_writer_writes(document):
    import io

    out = io.StringIO()
    YAML(typ="safe", pure=True).dump(document, out)
    assert plain(out.getvalue()) == document
