"""Medical terms in a question: whole words, where they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.attention.questions.terms import TermList, load_terms
from m3node.errors import ConfigError


def found(text: str, *terms: str) -> list[str]:
    listed = TermList(terms) if terms else load_terms()
    return [text[first:last] for first, last in listed.spans(text)]


def test_terms_are_found_where_they_stand() -> None:
    assert load_terms().spans("Is there a nodule in the right lung?") == [(11, 17), (25, 35)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Is there PLEURAL Effusion?", ["PLEURAL Effusion"]),
        ("Are there ground-glass opacities?", ["ground-glass opacities"]),
        ("ground glass opacity", ["ground glass opacity"]),
        ("masses, nodules and calcifications", ["masses", "nodules", "calcifications"]),
        ("pneumothoraces or metastases", ["pneumothoraces", "metastases"]),
        ("a liver lesion", ["liver lesion"]),
        ("the lesion in segment 4 of the liver", ["lesion", "liver"]),
        ("What is the answer?", []),
        ("", []),
    ],
)
def test_the_packages_terms_in_questions(text: str, wanted: list[str]) -> None:
    assert found(text) == wanted


def test_a_term_within_a_word_is_none() -> None:
    assert found("massive ribbon heartless unportable portal", "mass", "rib", "heart", "port") == []


def test_the_longest_term_goes_first_also_when_it_begins_later() -> None:
    assert found("right lung nodule calcified", "right lung", "lung nodule calcified") == ["lung nodule calcified"]
    assert found("left lower lobe", "lobe", "left", "left lower lobe") == ["left lower lobe"]


def test_a_term_ends_with_its_sentence_but_not_with_its_line() -> None:
    assert found("the lung. Nodule?", "lung nodule") == []
    assert found("a lung\n nodule", "lung nodule") == ["lung\n nodule"]


@pytest.mark.parametrize("hyphen", [" ", "-", "‑", "–", "  "])
def test_hyphens_and_spaces_are_one(hyphen: str) -> None:
    text = f"an air{hyphen}fluid level"
    assert found(text, "air-fluid level") == [f"air{hyphen}fluid level"]


def test_part_of_a_compound_with_a_hyphen_is_a_word() -> None:
    assert found("a non-calcified, pleural-based lesion", "calcified", "pleural") == ["calcified", "pleural"]


def test_case_and_accents_however_they_are_made() -> None:
    assert found("OEDÈME", "oede\u0300me") == ["OEDÈME"]
    assert found("OEDE\u0300ME?", "oedème") == ["OEDE\u0300ME"]
    assert found("GROSSE STRASSE", "Straße") == ["STRASSE"]


def test_a_file_takes_the_place_of_the_list(tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_text("\ufeff# mine\n\n  Knee joint  # of the leg\nknee joint\n", encoding="utf-8")
    terms = load_terms(path)
    assert terms.terms == ("Knee joint", "knee joint")
    assert found("Is the knee joint near the lung?", *terms.terms) == ["knee joint"]


@pytest.mark.parametrize("data", [b"", b"# only words about it\n", b" - \n...\n"])
def test_a_file_without_a_term_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "terms.txt"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="holds no term"):
        load_terms(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_terms(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xd6dem\n")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_terms(tmp_path / "latin.txt")


def test_the_packages_list_has_each_term_once_and_finds_each() -> None:
    terms = load_terms().terms
    assert len(terms) > 250
    assert len({term.casefold() for term in terms}) == len(terms)
    assert [term for term in terms if found(f"Is there {term}?") != [term]] == []


def test_a_list_of_a_hundred_thousand_terms_is_one_look_for_each_run_of_words() -> None:
    listed = TermList(tuple(f"term{number} of many" for number in range(100_000)))
    text = "term7 of many and " * 50
    assert [text[first:last] for first, last in listed.spans(text)] == ["term7 of many"] * 50


@given(st.text(max_size=80), st.lists(st.text(max_size=8), max_size=6))
def test_spans_are_ordered_apart_and_of_whole_words(text: str, terms: list[str]) -> None:
    spans = TermList(tuple(terms)).spans(text)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    for first, last in spans:
        assert 0 <= first < last <= len(text)
        assert not text[last : last + 1].isalnum()
        assert not text[first - 1 : first].isalnum() or first == 0
