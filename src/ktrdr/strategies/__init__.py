"""Strategies: the YAML document of indicators, fuzzy sets, network and account, parsed once and checked whole."""

from ktrdr.strategies.document import Strategy
from ktrdr.strategies.library import StrategyLibrary, example_root, read_strategy_file
from ktrdr.strategies.notes import notes_on
from ktrdr.strategies.parse import parse_strategy, with_overrides
from ktrdr.strategies.schema import json_schema
from ktrdr.strategies.starter import starter

__all__ = [
    "Strategy",
    "StrategyLibrary",
    "example_root",
    "json_schema",
    "notes_on",
    "parse_strategy",
    "read_strategy_file",
    "starter",
    "with_overrides",
]
