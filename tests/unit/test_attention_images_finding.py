"""An id finds its file anywhere below the folder, or the message says why it cannot."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from attention_cases import chest, write_cases, write_radiograph
from m3node.attention.images import finding
from m3node.attention.images.finding import ImageFolder
from m3node.errors import ConfigError, ImageError


def touched(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("dicom_id", "name"),
    [
        ("a1", "p10/s5/a1.png"),
        ("a1.png", "p10/s5/a1.png"),
        ("p10/s5/a1", "p10/s5/a1.png"),
        ("./p10/s5/a1.png", "p10/s5/a1.png"),
        (" a1 ", "p10/s5/a1.png"),
        ("b.2", "b.2.DCM"),
        ("./b.2", "b.2.DCM"),
        ("1.2.840.5", "x/1.2.840.5"),
        ("I0001.77", "x/I0001.77"),
    ],
)
def test_an_id_is_a_name_or_a_path_with_or_without_extension(tmp_path: Path, dicom_id: str, name: str) -> None:
    touched(tmp_path, "p10/s5/a1.png", "p10/s5/a1.txt", "b.2.DCM", "x/1.2.840.5", "x/I0001.77")
    assert ImageFolder(tmp_path).find(dicom_id) == tmp_path / name


@pytest.mark.parametrize("dicom_id", ["a", "A1", "I0001", "p10", "../a1", "/etc/hostname", "5/a1"])
def test_nothing_else_is_found(tmp_path: Path, dicom_id: str) -> None:
    touched(tmp_path / "in", "p10/s5/a1.png", "x/I0001.77")
    touched(tmp_path, "a1.png")
    with pytest.raises(ImageError, match=r"no file below in is called .*check the id"):
        ImageFolder(tmp_path / "in").find(dicom_id)


def test_a_page_of_text_in_the_place_of_an_id_is_not_said_again_in_full(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"is called a{100,300}…, with or without") as failed:
        ImageFolder(tmp_path).find("a" * 20_000)
    assert len(str(failed.value)) < 600


def test_an_id_that_may_mean_two_files_names_both(tmp_path: Path) -> None:
    folder = ImageFolder(touched(tmp_path, "a.png", "x/a.dcm"))
    with pytest.raises(ImageError, match=r"^a may mean \./a\.png or x/a\.dcm; remove all but one, or give the path"):
        folder.find("a")
    assert folder.find("./a.png") == tmp_path / "a.png"
    assert folder.find("x/a") == tmp_path / "x" / "a.dcm"


def test_two_links_to_one_file_are_no_choice(tmp_path: Path) -> None:
    touched(tmp_path, "all/a.png", "b/x")
    (tmp_path / "b" / "a.png").symlink_to(tmp_path / "all" / "a.png")
    assert ImageFolder(tmp_path).find("a").read_bytes() == b""


def test_links_that_go_in_circles_end(tmp_path: Path) -> None:
    touched(tmp_path, "x/y/a.png")
    (tmp_path / "x" / "y" / "up").symlink_to(tmp_path)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone")
    elsewhere = touched(tmp_path.parent / "elsewhere", "far.png")
    (tmp_path / "more").symlink_to(elsewhere)
    folder = ImageFolder(tmp_path)
    assert folder.find("a") == tmp_path / "x" / "y" / "a.png"
    assert folder.find("far") == tmp_path / "more" / "far.png"
    assert folder._files == [tmp_path / "more" / "far.png", tmp_path / "x" / "y" / "a.png"]
    with pytest.raises(ImageError):
        folder.find("dangling")


def test_hidden_files_pipes_and_folders_are_passed_over(tmp_path: Path) -> None:
    touched(tmp_path, "._a.png", ".a.png", ".cache/a.png", "x/a.png", "folder.png/b")
    os.mkfifo(tmp_path / "a.dcm")
    assert ImageFolder(tmp_path).find("a") == tmp_path / "x" / "a.png"
    with pytest.raises(ImageError):
        ImageFolder(tmp_path).find("folder")


def test_accents_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    name = "Röntgen-é"
    touched(tmp_path, unicodedata.normalize("NFD", name) + ".png")
    assert ImageFolder(tmp_path).find(unicodedata.normalize("NFC", name)).is_file()


def test_folders_that_cannot_be_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched(tmp_path, "open/a.png", "closed/b.png")
    scan = os.scandir

    def refuse(path: str) -> object:  # permissions do not stop root, whom tests may run as
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(finding.os, "scandir", refuse)
    folder = ImageFolder(tmp_path)
    assert folder.find("a")
    with pytest.raises(ImageError, match="1 folders there cannot be read"):
        folder.find("b")


def test_a_sop_instance_uid_finds_its_file_and_headers_are_read_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = write_radiograph(tmp_path / "x" / "IM1", chest(0).shown, "linear", seed=1)
    touched(tmp_path, "a.png", "notes.txt")
    folder = ImageFolder(tmp_path)
    reads = []
    told = finding._told
    monkeypatch.setattr(finding, "_told", lambda path: reads.append(path.name) or told(path))
    folder.find("a")
    with pytest.raises(ImageError):
        folder.find("gone")
    assert reads == []
    assert folder.find(uid) == tmp_path / "x" / "IM1"
    with pytest.raises(ImageError, match="no DICOM file there has it as SOP Instance UID"):
        folder.find("1.2.3")
    assert sorted(reads) == ["IM1", "notes.txt"]


def test_one_uid_in_two_files_is_a_choice(tmp_path: Path) -> None:
    uid = write_radiograph(tmp_path / "a", chest(0).shown, "linear", seed=1)
    write_radiograph(tmp_path / "b", chest(1).shown, "linear", seed=1)
    with pytest.raises(ImageError, match=rf"{uid} may mean \./a or \./b"):
        ImageFolder(tmp_path).find(uid)


def test_all_images_of_a_set_are_found(tmp_path: Path) -> None:
    made = write_cases(tmp_path, shape=(40, 32))
    folder = ImageFolder(made.images)
    assert [folder.find(case.dicom_id) for case in made.cases] == [case.path for case in made.cases]
    assert len(made.cases) == 20
    assert folder.find("masks/nodule-000.png").is_file()


def test_without_a_name_or_a_folder_there_is_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no image is named"):
        ImageFolder(tmp_path).find("  ")
    with pytest.raises(ConfigError, match="is not there"):
        ImageFolder(tmp_path / "gone")
