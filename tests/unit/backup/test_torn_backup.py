"""A backup that is torn, altered or none brings nothing, and says so."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.backup.restore import restore_backup, verify_backup
from ktrdr.errors import CorruptArtifact, InvalidInput
from support.archives import rewritten, seal


@settings(max_examples=40, deadline=None)
@given(part=st.floats(0, 0.999))
def test_a_torn_file_brings_nothing(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, part: float
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    content = whole.read_bytes()
    end = content.rindex(b"manifest.json")  # what follows the manifest is padding
    torn = folder / "t.tar"
    torn.write_bytes(content[: int(part * end)])
    with pytest.raises((CorruptArtifact, InvalidInput)):
        restore_backup(torn, folder / "new", None)
    assert not (folder / "new").exists()


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 0.9999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, where: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("bits")
    content = bytearray(whole.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    (folder / "t.tar").write_bytes(content)
    try:
        manifest = verify_backup(folder / "t.tar")
    except (CorruptArtifact, InvalidInput):
        return
    assert manifest == verify_backup(whole)  # it was a byte of padding


@pytest.mark.parametrize(
    "name",
    ["home/../../evil", "/etc/evil", "home//x", "home/./x", "../x", "elsewhere/x", "artifacts/../x", "home/"],
)
def test_no_name_leads_out(whole: Path, tmp_path: Path, nowhere: Path, name: str) -> None:
    path = rewritten(whole, tmp_path / "t.tar", lambda members: members.insert(2, (name, b"evil")))
    with pytest.raises(CorruptArtifact, match="altered"):
        restore_backup(path, nowhere, None)


def test_links_are_refused(whole: Path, tmp_path: Path, nowhere: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(whole) as source, tarfile.open(path, "w") as target:
        first = source.next()
        assert first is not None
        target.addfile(first, source.extractfile(first))
        link = tarfile.TarInfo("home/x")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        target.addfile(link)
    with pytest.raises(CorruptArtifact, match="home/x"):
        restore_backup(path, nowhere, None)


def test_a_member_too_few_is_seen(whole: Path, tmp_path: Path, nowhere: Path) -> None:
    for prefix in ("artifacts/", "home/", "ledger/"):
        path = tmp_path / "t.tar"
        rewritten(
            whole,
            path,
            lambda members, prefix=prefix: members.remove(
                next(m for m in members if m[0].startswith(prefix))
            ),  # type: ignore[misc]
        )
        with pytest.raises(CorruptArtifact, match="members are not those"):
            restore_backup(path, nowhere, None)


def test_backups_of_later_versions_are_refused(whole: Path, tmp_path: Path, nowhere: Path) -> None:
    def later_format(members: list[tuple[str, bytes]]) -> None:
        members[0] = (members[0][0], b'{"format": 2}')

    def later_schema(members: list[tuple[str, bytes]]) -> None:
        seal(members, schema="9999")

    for change, told in ((later_format, "format 2"), (later_schema, "schema 9999")):
        path = rewritten(whole, tmp_path / "t.tar", change)
        with pytest.raises(InvalidInput, match=told):
            restore_backup(path, nowhere, None)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(600), bytes(20_000)])
def test_files_that_are_no_backups(tmp_path: Path, nowhere: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises((InvalidInput, CorruptArtifact), match="x'"):
        restore_backup(tmp_path / "x", nowhere, None)


def test_no_file_and_a_folder(tmp_path: Path, nowhere: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InvalidInput, match=path.name):
            restore_backup(path, nowhere, None)
