"""When two answers say the same: by whole words, whatever the spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.attention.questions.answers import is_correct, normalise_answer, same_answer
from m3node.attention.questions.polarity import asks_yes_or_no

EFFUSION = "Is there a pleural effusion?"
WHICH = "Which lung is affected?"


@pytest.mark.parametrize(
    "text",
    """\
yes
Yes.
YES!
**Yes**
yes, it is
Yes - a small one
Yes: left
yes there is
True
Effusion is present.
The effusion is clearly visible
Final answer: Yes
The answer is **yes**.
""".splitlines(),
)
def test_a_yes(text: str) -> None:
    assert normalise_answer(text) == "yes"


@pytest.mark.parametrize(
    "text",
    """\
no
No.
NO
No, there is none.
not present
Effusion is not present.
It isn't present
absent
There is no effusion
No evidence of pneumonia
There is no evidence of it.
Negative for effusion
None
Based on the image, there is no effusion.
I do not see an effusion
I can't see an effusion
The lungs are free of effusion
It has been ruled out
Answer: no
No, but a small one cannot be excluded
No longer present
Neither
The patient doesn’t have one
Absence of effusion
""".splitlines(),
)
def test_a_no(text: str) -> None:
    assert normalise_answer(text) == "no"


@pytest.mark.parametrize(
    "text",
    """\
Pneumonia cannot be excluded.
An effusion can't be ruled out
not excluded
I don't know
Unknown
It is unclear
I am not sure
not certain
Unable to determine from this view
Maybe
possibly
Possible pneumonia
It is not possible to tell
There may be an effusion
This could represent pneumonia
No definite effusion, but a small one cannot be excluded.
I cannot see the image
No way to tell
""".splitlines(),
)
def test_neither(text: str) -> None:
    assert normalise_answer(text) == "unknown"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Known nodule", "known nodule"),  # holds "no"
        ("normal", "normal"),
        ("abnormal", "abnormal"),  # holds "normal" and "no"
        ("Noticeable nodule", "noticeable nodule"),
        ("Nothofagus", "nothofagus"),
        ("Yesterday's film", "yesterday s film"),
        ("eyes", "eyes"),
        ("Presentable", "presentable"),
        ("Not only the left lung", "not only left lung"),
        ("No doubt the left lung", "no doubt left lung"),
        ("Unchanged, with no significant change", "unchanged with no significant change"),
        ("Cardiomegaly without edema", "cardiomegaly without edema"),
        ("There is an effusion, but no edema", "there is effusion but no edema"),
    ],
)
def test_what_only_holds_the_letters_of_a_yes_or_a_no_is_neither(text: str, wanted: str) -> None:
    assert normalise_answer(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The left lung.", "left lung"),
        ("  a   LEFT-sided\tpneumothorax ", "left pneumothorax"),
        ("Hepatitis A", "hepatitis a"),
        ("2.5 cm", "2.5 cm"),
        ("ﬁbrosis", "fibrosis"),  # one letter
        ("Straße", "strasse"),
        ("…", ""),
        ("", ""),
    ],
)
def test_other_answers_are_their_words(text: str, wanted: str) -> None:
    assert normalise_answer(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("There is a small left pleural effusion.", "yes"),
        ("The image shows a left effusion.", "yes"),
        ("Small pleural effusion on the left", "yes"),
        ("There is a rib fracture.", "there is rib fracture"),  # of something else
        ("This is a frontal view. There is no effusion.", "no"),
        ("The image shows the lungs. No effusion is seen.", "no"),
        ("There is an effusion, but no pneumothorax.", "yes"),
        ("There is no pneumothorax. There is an effusion.", "yes"),
        ("There is no pneumothorax, but there is an effusion.", "yes"),
        ("The lungs are clear, with no effusion.", "no"),
        ("Pleural effusion: no", "no"),
        ("Is there a pleural effusion? No.", "no"),
        ("Pleural effusion? Yes.", "yes"),
        ("There is no significant change in the effusion.", "yes"),
        ("Effusions are seen in both lungs.", "yes"),
        ("There is an effusion with no pneumothorax", "yes"),
        ("There is an effusion without pneumothorax", "yes"),
        ("There is an effusion and no pneumothorax", "yes"),
        ("There is a pneumothorax without effusion", "no"),
        ("An effusion is seen, with or without pneumonia", "yes"),
        ("Effusion: present", "yes"),
    ],
)
def test_a_question_for_yes_or_no_is_answered_by_what_is_said_of_its_subject(text: str, wanted: str) -> None:
    assert normalise_answer(text, question=EFFUSION) == wanted


def test_a_statement_that_uses_all_of_the_questions_words_is_a_yes() -> None:
    assert normalise_answer("The heart is enlarged.", question="Is the heart enlarged?") == "yes"
    assert normalise_answer("The heart is not enlarged.", question="Is the heart enlarged?") == "no"
    assert normalise_answer("The heart is normal.", question="Is the heart enlarged?") == "no"
    assert normalise_answer("The lungs are not clear.", question="Are the lungs clear?") == "no"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The left one; the right lung is not affected.", "left one right lung is not affected"),
        ("The right lung is not affected, the left is.", "right lung is not affected left is"),
        ("There is an opacity in the left lung", "there is opacity in left lung"),
        ("No opacity is seen.", "no"),
        ("There are none", "no"),
        ("In this image, no opacity is seen.", "no"),
        ("There is one on the left, but no effusion.", "there is one on left but no effusion"),
        ("The left one, without effusion", "left one without effusion"),
        ("I cannot tell; impossible to say", "unknown"),
    ],
)
def test_a_question_for_more_is_answered_in_words(text: str, wanted: str) -> None:
    assert normalise_answer(text, question=WHICH) == wanted


@pytest.mark.parametrize(
    ("question", "closed"),
    [
        (EFFUSION, True),
        ("Does the patient have pneumonia?", True),
        ("Any fracture?", True),
        ("Please state whether there is an effusion.", True),
        ("Can you see it or not?", True),
        ("Is it left or right?", False),
        ("Is the heart normal or enlarged?", False),
        ("Is there an effusion or a pneumothorax?", True),
        ("Do you see an effusion or a pneumothorax?", True),
        ("Any effusion or pneumothorax?", True),
        (WHICH, False),
        ("Island of what?", False),
        ("Describe the heart.", False),
        ("", False),
    ],
)
def test_a_question_for_yes_or_no_is_known_by_its_words(question: str, closed: bool) -> None:
    assert asks_yes_or_no(question) is closed


def test_a_variant_is_for_yes_or_no_when_its_baseline_is() -> None:
    variant, statement = "What do you think: fluid around the lung", "There is fluid around the left lung."
    assert not same_answer(statement, "Yes", question=variant)
    assert same_answer(statement, "Yes", question=variant, baseline=EFFUSION)


def test_the_same_said_in_other_words_is_the_same_answer() -> None:
    assert same_answer("No.", "There is no evidence of pneumonia.")
    assert same_answer("The left lung", "left lung.")
    assert not same_answer("No", "I know")
    assert not same_answer("normal", "abnormal")
    assert not same_answer("no", "cannot be excluded")


@pytest.mark.parametrize(
    ("answer", "truth", "correct"),
    [
        ("Yes.", "yes", True),
        ("There is an effusion", "Yes", True),
        ("Not present", "no", True),
        ("Yes", "no", False),
        ("I don't know", "no", False),  # the letters of "no" are in "know" and "not"
        ("It cannot be excluded", "no", False),
        ("Unclear", "unknown", True),
        ("abnormal", "normal", False),
        ("not normal", "normal", False),
        ("The heart is normal.", "normal", True),
        ("It is in the left lung.", "left lung", True),
        ("It is in the left lungfish", "left lung", False),
        ("left or right", "left", False),
        ("The left one, not the right one", "left", True),
        ("The left one, not the right one", "right", False),
        ("No pneumothorax", "pneumothorax", False),
        ("hydropneumothorax", "pneumothorax", False),
        ("Pneumothorax, no effusion", "Pneumothorax.", True),
        ("Effusion without pneumothorax", "pneumothorax", False),
        ("", "yes", False),
        ("Yes", "", None),
        ("Yes", "  ", None),
    ],
)
def test_an_answer_is_right_by_whole_words(answer: str, truth: str, correct: bool | None) -> None:
    assert is_correct(answer, truth) is correct


def test_a_right_answer_is_about_what_was_asked() -> None:
    answer = "There is an effusion. There is no pneumothorax."
    assert is_correct(answer, "yes", question=EFFUSION) is True
    assert is_correct(answer, "no", question="Is there a pneumothorax?") is True
    assert is_correct(answer, "yes", question="Is there a pneumothorax?") is False


@given(st.text(st.characters(max_codepoint=0x24F), max_size=60))
def test_case_spaces_and_a_full_stop_change_nothing(text: str) -> None:
    wanted = normalise_answer(text)
    assert normalise_answer(f"  {text}  ") == wanted
    assert normalise_answer(text.casefold()) == wanted


@given(st.text(max_size=60), st.text(max_size=30), st.text(max_size=20))
def test_any_answer_has_one_form_and_is_right_or_wrong(text: str, question: str, truth: str) -> None:
    assert same_answer(text, text, question=question)
    assert is_correct(text, truth, question=question) in {True, False, None}
