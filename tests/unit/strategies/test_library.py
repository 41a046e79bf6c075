"""The library: names, not paths; whole documents or none; the user's directory before the examples."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ktrdr.errors import Conflict, InvalidInput, InvalidStrategy, KtrdrError, NotFound
from ktrdr.strategies import StrategyLibrary, example_root, read_strategy_file, starter


@pytest.fixture
def library(tmp_path: Path) -> StrategyLibrary:
    return StrategyLibrary.with_examples(tmp_path / "mine")


def test_examples_are_there_without_a_directory_of_ones_own(library):
    assert "sp500_trend" in library.names()
    assert library.get("sp500_trend").name == "sp500_trend"
    assert library.text("sp500_trend") == (example_root() / "sp500_trend.yaml").read_text()


def test_what_is_saved_is_found(library, tmp_path):
    path = library.save("new_one", starter("new_one"))
    assert path == tmp_path / "mine" / "new_one.yaml"
    assert library.text("new_one") == starter("new_one")
    assert "new_one" in library.names()
    assert list(library.names()) == sorted(library.names())
    assert [p.name for p in path.parent.iterdir()] == ["new_one.yaml"]  # no temporary file left


def test_the_first_directory_hides_the_later_one(library):
    library.save("sp500_trend", starter("sp500_trend"))
    assert library.text("sp500_trend") == starter("sp500_trend")
    assert library.names().count("sp500_trend") == 1


def test_nothing_is_overwritten_unless_asked(library):
    library.save("a", starter("a"))
    other = starter("a").replace("seed: 7", "seed: 8")
    with pytest.raises(Conflict, match="There is a strategy 'a' already"):
        library.save("a", other)
    assert library.get("a").training.seed == 7
    library.save("a", other, overwrite=True)
    assert library.get("a").training.seed == 8


def test_a_document_with_faults_is_not_stored(library, tmp_path):
    with pytest.raises(InvalidStrategy, match=r"bad\.yaml: the strategy has 1 fault"):
        library.save("bad", starter("bad").replace("seed: 7", "seed: x"))
    assert not (tmp_path / "mine").exists()


def test_a_document_is_stored_under_its_own_name(library):
    with pytest.raises(InvalidInput, match="named 'other'; save it under that name"):
        library.save("a", starter("other"))


def test_unknown_names_get_the_nearest(library):
    with pytest.raises(NotFound, match="did you mean 'sp500_trend'") as caught:
        library.get("sp500_trent")
    assert "rsi_mean_reversion" in str(caught.value)


def test_an_empty_library_says_how_to_begin(tmp_path):
    with pytest.raises(NotFound, match="ktrdr strategies new NAME"):
        StrategyLibrary([tmp_path]).get("x")
    with pytest.raises(InvalidInput, match="at least one directory"):
        StrategyLibrary([])


@pytest.mark.parametrize(
    "name", ["../secret", "a/b", "/etc/passwd", "..", "", ".hidden", "a\x00", "a.yaml", "x" * 65]
)
def test_names_are_no_paths(library, name):
    for use in (library.path, library.get, library.text):
        with pytest.raises(InvalidInput, match="not a possible strategy name"):
            use(name)
    with pytest.raises(InvalidInput):
        library.save(name, starter("a"))


def test_links_out_of_the_directory_are_not_followed(tmp_path):
    secret = tmp_path / "secret.yaml"
    secret.write_text(starter("secret"))
    root = tmp_path / "root"
    root.mkdir()
    (root / "secret.yaml").symlink_to(secret)
    (root / "kept.yaml").write_text(starter("kept"))
    (root / "alias.yaml").symlink_to(root / "kept.yaml")
    library = StrategyLibrary([root])
    assert library.names() == ("alias", "kept")
    with pytest.raises(NotFound):
        library.get("secret")
    assert library.get("alias").name == "kept"


def test_overwriting_a_link_replaces_the_link_not_its_target(tmp_path):
    outside = tmp_path / "outside.yaml"
    outside.write_text("precious")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.yaml").symlink_to(outside)
    StrategyLibrary([root]).save("a", starter("a"), overwrite=True)
    assert outside.read_text() == "precious"
    assert not (root / "a.yaml").is_symlink()


def test_files_that_cannot_be_documents(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    (tmp_path / "huge.yaml").write_bytes(b"#" * 300_000)
    (tmp_path / "with space.yaml").write_text("x")
    (tmp_path / "folder.yaml").mkdir()
    library = StrategyLibrary([tmp_path])
    assert library.names() == ("huge", "latin")
    with pytest.raises(InvalidStrategy, match=r"latin\.yaml is not UTF-8 text \(byte 9\)"):
        library.get("latin")
    with pytest.raises(InvalidStrategy, match=r"huge\.yaml has more than 262,144 bytes"):
        library.get("huge")


def test_a_file_by_its_path(tmp_path):
    path = tmp_path / "any name.yml"
    path.write_bytes(b"\xef\xbb\xbf" + starter("x").encode())  # as some editors save it
    assert read_strategy_file(path).name == "x"
    assert read_strategy_file(str(path)).text == starter("x")
    with pytest.raises(NotFound, match="strategy file"):
        read_strategy_file(tmp_path / "absent.yaml")


def test_of_two_savers_one_wins_whole(library):
    texts = [starter("a").replace("seed: 7", f"seed: {seed}") for seed in range(8)]
    outcomes: list[str] = []
    gate = threading.Barrier(len(texts))

    def save(text: str) -> None:
        gate.wait()
        try:
            library.save("a", text)
            outcomes.append("saved")
        except KtrdrError as error:
            outcomes.append(error.slug)

    threads = [threading.Thread(target=save, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 7 + ["saved"]
    assert library.text("a") in texts
