"""The table of questions: what is read from it, and what is refused by line and column."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.attention.questions.question import Question
from m3node.attention.questions.table import DELIMITERS, ColumnNames, read_questions
from m3node.errors import ConfigError

HEADER = "dicom_id,study_id,question,answer"
HARD = f"{HEADER},baseline_question,question_variant,variant_index,strategy,truth_box,truth_mask"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "questions.csv"


def read(table: Path, text: str | bytes, columns: ColumnNames | None = None) -> list[Question]:
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_questions(table, columns)


def question(dicom_id: str, study_id: str, text: str, *, baseline: str = "", index: int = 0) -> Question:
    return Question(2, dicom_id, study_id, text, baseline or text, index)


def refusal(table: Path, text: str | bytes, columns: ColumnNames | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(table, text, columns)
    return str(caught.value)


def test_a_row_becomes_a_question(table: Path) -> None:
    assert read(table, f"{HEADER}\nd1,s1, Is there an effusion? ,yes\n") == [
        Question(2, "d1", "s1", "Is there an effusion?", "Is there an effusion?", 0, truth="yes")
    ]


def test_a_variant_is_asked_in_the_place_of_its_baseline(table: Path) -> None:
    row = 'd1,s1,Is it there?,no,Is it there?,Can you see it?,3,synonym,"10 20.5 30 40",masks/d1.png'
    assert read(table, f"{HARD}\n{row}\n") == [
        Question(
            line=2,
            dicom_id="d1",
            study_id="s1",
            text="Can you see it?",
            baseline="Is it there?",
            variant_index=3,
            strategy="synonym",
            truth="no",
            truth_box=(10.0, 20.5, 30.0, 40.0),
            truth_mask="masks/d1.png",
        )
    ]


@pytest.mark.parametrize(
    ("cells", "text", "of"),
    [
        ("Q?,,,", "Q?", "Q?"),
        ("Q?,,B?,", "Q?", "B?"),
        ("Q?,,,V?", "V?", "Q?"),
        ("Q?,,B?,V?", "V?", "B?"),
        (",,B?,V?", "V?", "B?"),
        (",,,V?", "V?", "V?"),
    ],
)
def test_what_is_asked_and_what_it_is_a_variant_of(table: Path, cells: str, text: str, of: str) -> None:
    (question,) = read(table, f"{HARD}\nd,s,{cells},1,,,\n")
    assert (question.text, question.baseline) == (text, of)


def test_variants_without_a_number_get_one_that_no_other_has(table: Path) -> None:
    rows = ["d,s,,,B?,B?,,,,", "d,s,,,B?,One?,,,,", "d,s,,,B?,Two?,1,,,", "d,s,,,B?,Three?,,,,", "e,s,,,B?,One?,,,,"]
    questions = read(table, "\n".join([HARD, *rows]))
    assert [question.variant_index for question in questions] == [0, 2, 1, 3, 1]


def test_whole_numbers_are_read_as_tools_write_them_that_know_no_others(table: Path) -> None:
    (question,) = read(table, f"{HARD}\nd,s,Q?,,B?,,2.0,,,\n")
    assert question.variant_index == 2


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_separator_is_found_by_the_columns(table: Path, delimiter: str) -> None:
    # Every separator stands in the text: the header alone says which one it is.
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(HEADER.split(","))
    writer.writerow(["d", "s", "a, b; c\td?", "yes"])
    (question,) = read(table, stream.getvalue())
    assert question.text == "a, b; c\td?"


def test_a_byte_order_mark_and_the_line_ends_of_a_spreadsheet_do_no_harm(table: Path) -> None:
    text = f"\ufeff{HEADER}\r\nd,s,Q?,yes\r\n\r\ne,s,Q?,no\r\n"
    assert [(q.line, q.dicom_id) for q in read(table, text)] == [(2, "d"), (4, "e")]


def test_a_cell_may_hold_line_breaks_and_lines_are_counted_as_an_editor_does(table: Path) -> None:
    first, second = read(table, f'{HEADER}\nd,s,"Is it\nthere?",yes\ne,s,Q?,no\n')
    assert first.text == "Is it\nthere?"
    assert (first.line, second.line) == (2, 4)


def test_names_of_columns_in_capitals_other_columns_and_any_order_are_fine(table: Path) -> None:
    (question,) = read(table, "Answer,age,QUESTION,study_id, dicom_id \nyes,61,Q?,s,d\n")
    assert (question.dicom_id, question.truth) == ("d", "yes")


def test_columns_may_have_other_names(table: Path) -> None:
    columns = ColumnNames.of({"dicom_id": "image", "answer": "label"})
    (question,) = read(table, "image,study_id,question,label\nd,s,Q?,yes\n", columns)
    assert (question.dicom_id, question.truth) == ("d", "yes")


def test_a_column_that_this_program_does_not_know_cannot_be_renamed() -> None:
    with pytest.raises(ConfigError, match=r"'picture' here; there are dicom_id, study_id"):
        ColumnNames.of({"picture": "image"})


def test_a_row_without_a_question_is_kept_for_its_own_failure(table: Path) -> None:
    rows = ["d,s,  ,yes", "d,s,,yes", "d,s,Q?,yes"]
    questions = read(table, "\n".join([HEADER, *rows]))
    assert [question.text for question in questions] == ["", "", "Q?"]
    assert len({question.key for question in questions}) == 3


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("d,s,Q?,,B?,,x,,,", "line 2, column variant_index: 'x' is no whole number"),
        ("d,s,Q?,,B?,,-1,,,", "line 2, column variant_index: '-1' is no whole number"),
        ("d,s,Q?,,B?,,1.5,,,", "line 2, column variant_index: '1.5' is no whole number"),
        ("d,s,Q?,,B?,,99999999999,,,", "line 2, column variant_index: '99999999999'"),
        ("d,s,Q?,,B?,,1,,1 2 3,", "line 2, column truth_box: '1 2 3' is not four numbers"),
        ("d,s,Q?,,B?,,1,,1 2 a 4,", "line 2, column truth_box: '1 2 a 4' is not four numbers"),
        ("d,s,Q?,,B?,,1,,5 2 3 4,", "line 2, column truth_box: '5 2 3 4' is no box"),
        ("d,s,Q?,,B?,,1,,1 2 1 4,", "line 2, column truth_box: '1 2 1 4' is no box"),
        ("d,s,Q?,,B?,,1,,1 2 nan 4,", "line 2, column truth_box: '1 2 nan 4' is no box"),
        ("d,s,Q?,,B?,,1,,,../secret.png", "line 2, column truth_mask: '../secret.png' does not lie below"),
        ("d,s,Q?,,B?,,1,,,/etc/passwd", "line 2, column truth_mask: '/etc/passwd' does not lie below"),
        (r"d,s,Q?,,B?,,1,,,c:\masks\d.png", "line 2, column truth_mask: "),
    ],
)
def test_a_cell_that_cannot_be_meant_is_named_by_line_and_column(table: Path, cells: str, said: str) -> None:
    assert said in refusal(table, f"{HARD}\n{cells}\n")


def test_the_column_is_named_as_the_table_names_it(table: Path) -> None:
    columns = ColumnNames.of({"variant_index": "number"})
    text = f"{HEADER},number\nd,s,Q?,yes,0\nd,s,R?,yes,two\n"
    assert "line 3, column number: 'two'" in refusal(table, text, columns)


def test_columns_that_are_missing_are_told_with_those_that_are_there(table: Path) -> None:
    said = refusal(table, "image,study_id,question\nd,s,Q?\n")
    assert "no column 'dicom_id', 'answer'" in said
    assert "it has 'image', 'study_id', 'question'" in said
    assert "--column NAME=COLUMN" in said


def test_a_column_that_was_named_has_to_be_there(table: Path) -> None:
    said = refusal(table, f"{HEADER}\nd,s,Q?,yes\n", ColumnNames.of({"strategy": "way"}))
    assert "no column 'way'" in said


def test_two_columns_of_one_name_are_refused(table: Path) -> None:
    assert "two columns are called 'answer'" in refusal(table, f"{HEADER},Answer\nd,s,Q?,yes,no\n")


@pytest.mark.parametrize("row", ["d,s,Is it, there?,yes", "d,s,Q?"])
def test_a_row_of_more_or_fewer_cells_than_the_header_is_refused(table: Path, row: str) -> None:
    said = refusal(table, f"{HEADER}\nx,s,Q?,yes\n{row}\n")
    assert f"line 3: {len(row.split(','))} cells, but 4 columns" in said


def test_empty_cells_beyond_the_header_are_nothing(table: Path) -> None:
    assert len(read(table, f"{HEADER}\nd,s,Q?,yes,,\n")) == 1


def test_a_question_that_is_asked_twice_names_both_lines(table: Path) -> None:
    said = refusal(table, f"{HEADER}\nd,s,Q?,yes\ne,s,Q?,yes\nd,s,R?,no\nd,s,Q?,no\n")
    assert "lines 2 and 5" in said


def test_of_many_questions_that_are_asked_twice_some_are_named_and_all_counted(table: Path) -> None:
    rows = [f"d{number % 8},s,Q?,yes" for number in range(16)]
    said = refusal(table, "\n".join([HEADER, *rows]))
    assert "lines 2 and 10, lines 3 and 11, lines 4 and 12, lines 5 and 13, lines 6 and 14 and 3 more" in said


def test_the_same_words_about_another_image_or_study_are_another_question(table: Path) -> None:
    questions = read(table, f"{HEADER}\nd,s,Q?,yes\ne,s,Q?,yes\nd,t,Q?,yes\n")
    assert len({question.key for question in questions}) == 3


def test_questions_that_look_alike_have_files_of_their_own() -> None:
    alike = [
        question("d", "s", "Q?"),
        question("d", "s", "q?"),
        question("d", "s", "Q!"),
        question("d", "s", "Q?", baseline="B?"),
        question("d", "s", "Q?", index=1),
        question("s", "d", "Q?"),
        question("d/1", "s", "Q?"),  # look the same as file names
        question("d:1", "s", "Q?"),
        question("d-1", "s", "Q?"),
        question("", "s", "Q?"),
        question("..", "s", "Q?"),
        question("d" * 60, "s", "Q?"),
        question("d" * 61, "s", "Q?"),
        question("d\udcff", "s", "Q?"),  # as a command line gives what it cannot decode
        question("d", "s\x1fd", "Q?"),
        question("d\x1fd", "s", "Q?"),
    ]
    assert len({one.key.casefold() for one in alike}) == len(alike)


@pytest.mark.parametrize("study_id", ["CON.1", "nul.1.2.840", "Com1.x"])
def test_no_key_is_a_device_of_windows(study_id: str) -> None:
    assert question("a", study_id, "Is it?").key.startswith(f"x{study_id}_")
    assert question("a", f"{study_id[:3]}x.1", "Is it?").key.startswith(study_id[:3])


def test_a_key_is_the_same_in_each_run_and_wherever_the_row_stands() -> None:
    one = question("1.2.3", "study 7", "Is there an effusion?", index=2)
    assert one.key == replace(one, line=99, strategy="other", truth="yes").key
    assert one.key == "study-7_1.2.3_v2_c505ca902eea"


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50), st.integers(0, 10**9))
def test_a_key_is_safe_as_a_file_name(dicom_id: str, study_id: str, text: str, index: int) -> None:
    key = question(dicom_id, study_id, text, index=index).key
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}", key)


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", "  \n"])
def test_an_empty_file_says_what_it_needs(table: Path, text: str) -> None:
    assert "is empty" in refusal(table, text)


def test_a_table_of_column_names_alone_holds_no_question(table: Path) -> None:
    assert "holds no question" in refusal(table, f"{HEADER}\n\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEADER}\nd,s,Q\0?,yes\n".encode(), "line 2: holds a NUL"),
        (f"{HEADER}\nd,s,Q?,yes\n".encode("utf-16"), "UTF-16"),
        (f"{HEADER}\nd,s,Ödem?,yes\n".encode("latin-1"), "line 2: not UTF-8"),
        (f'{HEADER}\nd,s,"Q?,yes\n'.encode(), "a quote is not closed"),
        (f'{HEADER}\nd,s,"Q" ?,yes\n'.encode(), "below line 1"),
        (f"{HEADER}\nd,s,{'x' * 200_000},yes\n".encode(), "longer than 131,072 characters"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)), "not UTF-8"),
    ],
)
def test_what_is_no_table_in_utf_8_is_refused_with_the_place(table: Path, text: bytes, said: str) -> None:
    message = refusal(table, text)
    assert said in message
    assert "questions.csv" in message
    assert len(message) < 300


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_questions(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_questions(tmp_path)


words = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12).filter(
    lambda text: text.strip() != ""
)


@given(st.lists(st.tuples(words, words, words, words), min_size=1, max_size=6), st.sampled_from(DELIMITERS))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], delimiter: str
) -> None:
    table = tmp_path_factory.getbasetemp() / "written.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows(
            [HEADER.split(","), *((*row[:2], f"{number} {row[2]}", row[3]) for number, row in enumerate(rows))]
        )
    found = [(q.dicom_id, q.study_id, q.text, q.truth) for q in read_questions(table)]
    wanted = [(d, s, f"{number} {text}", truth) for number, (d, s, text, truth) in enumerate(rows)]
    assert found == [tuple(cell.strip() for cell in row) for row in wanted]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error_of_our_own(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    table = tmp_path_factory.getbasetemp() / "any.csv"
    table.write_bytes(HEADER.encode() + b"\n" + data)
    questions: list[Question] = []
    with contextlib.suppress(ConfigError):
        questions = read_questions(table)
    assert len({question.key for question in questions}) == len(questions)
