"""The reference page is the OpenAPI document."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from support.control_plane import ControlPlane

TOOL = Path(__file__).resolve().parents[3] / "tools" / "api_docs.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_docs", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(tool: ModuleType) -> None:
    assert tool.PAGE.read_text() == tool.render(), "run: make docs"


async def test_every_route_has_a_tag_a_description_and_its_place_on_the_page(
    plane: ControlPlane, tool: ModuleType
) -> None:
    answer = await plane.ask("GET", "/openapi.json")
    page = tool.PAGE.read_text()
    for path, item in answer.json()["paths"].items():
        for method, operation in item.items():
            assert operation["tags"][0] in tool.TAGS, path
            assert operation["description"], path
            assert f"### {method.upper()} {path}\n" in page
