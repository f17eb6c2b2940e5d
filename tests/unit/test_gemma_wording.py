"""Words of a question are found in its prompt, and words of an answer behind its thinking, by where they stand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from m3node.errors import ConfigError, InferenceError
from m3node.gemma.generation import Answer
from m3node.gemma.model import GemmaModel
from m3node.gemma.own_tokens import own_tokens
from m3node.gemma.prompts import prompt_ids
from m3node.gemma.wording import tokens_of_words, worded
from tests.small_gemma import small_gemma

PIECES = ("▁pneumo", "thorax,", "▁the▁", "▁a", "eff", "usion?", "fusion", "Is", "▁pleural▁")
SPECIAL = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>")


def pieces_tokenizer(like: Any) -> PreTrainedTokenizerFast:
    """A tokenizer as Gemma's is made: pieces with ▁ for spaces, over words' borders, and bytes for what it lacks."""
    letters = [chr(code) for code in range(33, 127)] + ["▁", "\n", "é"]
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, "<image>", "<unk>"))}
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    merges: list[tuple[str, str]] = []
    for token in letters:
        vocabulary.setdefault(token, len(vocabulary))
    for piece in PIECES:
        for end in range(2, len(piece) + 1):
            if piece[:end] not in vocabulary:
                merges.append((piece[: end - 1], piece[end - 1]))
                vocabulary[piece[:end]] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in (*SPECIAL, "<image>")])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image>",
        },
        chat_template=like.chat_template,
        clean_up_tokenization_spaces=False,
    )


class WithoutOffsets:
    """A tokenizer that does not tell where its tokens stand, as those written in Python do not."""

    is_fast = False

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        assert "return_offsets_mapping" not in more
        return self._tokenizer(*arguments, **more)


def asked(tokenizer: Any = None, **profile: Any) -> GemmaModel:
    model = small_gemma()
    return replace(
        model, tokenizer=model.tokenizer if tokenizer is None else tokenizer, profile=replace(model.profile, **profile)
    )


def with_pieces(**profile: Any) -> GemmaModel:
    return asked(pieces_tokenizer(small_gemma().tokenizer), **profile)


def words_of(model: GemmaModel, question: str, *words: str) -> list[list[str]]:
    """What the tokens read like that hold each word."""
    spans = [(question.index(word), question.index(word) + len(word)) for word in words]
    prompt = prompt_ids(model, question)
    tokenizer: Any = model.tokenizer
    found = tokens_of_words(model, question, prompt, spans)
    return [tokenizer.convert_ids_to_tokens([prompt[at] for at in places]) for places in found]


@pytest.mark.parametrize("image_first", [True, False])
@pytest.mark.parametrize("system", ["", "Is there a pneumothorax, or an effusion?"])
@pytest.mark.parametrize("offsets", [True, False])
def test_a_word_takes_every_token_that_holds_a_part_of_it(image_first: bool, system: str, offsets: bool) -> None:
    model = with_pieces(image_first=image_first, system=system)
    if not offsets:
        model = replace(model, tokenizer=WithoutOffsets(model.tokenizer))
    question = "Is there a pneumothorax, or an effusion?"
    prompt = prompt_ids(model, question)
    spans = [(11, 23), (31, 39)]
    found = tokens_of_words(model, question, prompt, spans)
    tokenizer: Any = model.tokenizer
    read = [tokenizer.convert_ids_to_tokens([prompt[at] for at in places]) for places in found]
    assert read == [["▁pneumo", "thorax,"], ["eff", "usion?"]]
    # In the question, which comes last, and not where the system instruction says the same.
    repeated = [at for at, token in enumerate(prompt) if tokenizer.convert_ids_to_tokens(token) == "▁pneumo"]
    assert len(repeated) == (2 if system else 1)
    assert found[0][0] == repeated[-1]


def test_a_word_within_a_token_takes_the_token() -> None:
    assert words_of(with_pieces(), "Is a pleural effusion?", "pleur", "us") == [["▁pleural▁"], ["usion?"]]


def test_a_letter_of_several_bytes_takes_all_of_them() -> None:
    assert words_of(asked(), "Où est l'épanchement?", "é")[0] == ["Ã", "©"]
    found = words_of(with_pieces(), "Und das Ödem?", "Ödem")[0]
    assert found == ["<0xC3>", "<0x96>", "d", "e", "m"]


def test_a_question_that_reads_like_the_prompt_around_it_is_told_apart() -> None:
    """The last "model" of the prompt is the turn's; the first "user" too."""
    for question in ("model", "user", "user model", "\ue000"):
        model = asked(system="user model \ue000")
        prompt = prompt_ids(model, question)
        ((*places,),) = tokens_of_words(model, question, prompt, [(0, len(question))])
        assert model.tokenizer.decode([prompt[at] for at in places]) == question
        behind = model.tokenizer.decode(prompt[places[-1] + 1 :])
        assert behind == "<end_of_turn>\n<start_of_turn>model\n"


def test_a_template_may_trim_the_question() -> None:
    tokenizer: Any = copy.deepcopy(small_gemma().tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("item['text']", "item['text'] | trim")
    model = asked(tokenizer)
    question = " \n  an effusion or a heart?  "
    assert words_of(model, question, "effusion", "heart") == [list("effusion"), list("heart")]


def test_a_template_that_changes_the_question_is_refused() -> None:
    tokenizer: Any = copy.deepcopy(small_gemma().tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("item['text']", "item['text'] | upper")
    model = asked(tokenizer)
    with pytest.raises(ConfigError, match="changes the question"):
        tokens_of_words(model, "effusion", prompt_ids(model, "effusion"), [(0, 3)])


def test_no_words_need_no_look() -> None:
    assert tokens_of_words(small_gemma(), "effusion", [], []) == []


def test_a_tokenizer_whose_tokens_cannot_be_placed_is_refused() -> None:
    class Changing(WithoutOffsets):
        def decode(self, *arguments: Any, **more: Any) -> str:
            text: str = self._tokenizer.decode(*arguments, **more)
            return text.replace("effusion", "Effusion")

    model = asked(Changing(small_gemma().tokenizer))
    with pytest.raises(ConfigError, match="does not tell where its tokens stand"):
        words_of(model, "An effusion?", "effusion")


def test_another_questions_prompt_is_refused() -> None:
    model = small_gemma()
    with pytest.raises(InferenceError, match="are not those of its question"):
        tokens_of_words(model, "heart", prompt_ids(model, "hearts"), [(0, 3)])


@given(
    question=st.text(st.sampled_from("aeffusion? ,\néÖ肝🫀"), min_size=1, max_size=30).filter(str.strip), data=st.data()
)
def test_found_tokens_cover_the_words_and_nothing_that_does_not_touch_them(question: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(question) - 1))
    last = data.draw(st.integers(first + 1, len(question)))
    for model in (small_gemma(), _PIECES):
        prompt = prompt_ids(model, question)
        (places,) = tokens_of_words(model, question, prompt, [(first, last)])
        tokenizer: Any = model.tokenizer
        read: str = tokenizer.decode([prompt[at] for at in places])
        assert question[first:last] in read
        assert question[first:last] not in tokenizer.decode([prompt[at] for at in places[1:]])
        assert list(places) == list(range(places[0], places[-1] + 1))


_PIECES = with_pieces()


def test_a_models_own_tokens_are_looked_for_once_and_again_when_there_are_more() -> None:
    tokenizer: Any = copy.deepcopy(small_gemma().tokenizer)
    model = asked(tokenizer)
    first = own_tokens(model)
    assert {"<image>", "<start_of_turn>", "<eos>"} <= set(first.texts)
    assert tokenizer.convert_tokens_to_ids("<image>") in first.ids
    assert own_tokens(asked(tokenizer)) is first
    tokenizer.add_tokens([AddedToken("<unused0>", special=True, normalized=False)])
    with pytest.raises(ConfigError, match="own token '<unused0>'"):
        prompt_ids(model, "What is <unused0>?")


def said(model: GemmaModel, text: str, *, ended: bool = True) -> Answer:
    tokenizer: Any = model.tokenizer
    return Answer(token_ids=tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), ended=ended)


def read(model: GemmaModel, answer: Answer) -> tuple[str, list[str]]:
    found = worded(model, answer)
    tokenizer: Any = model.tokenizer
    return found.text, tokenizer.convert_ids_to_tokens([answer.token_ids[at] for at in found.tokens])


@pytest.mark.parametrize(
    ("text", "answer", "tokens"),
    [
        ("yes", "yes", ["y", "e", "s"]),
        (" \n yes eff ", "yes eff", ["y", "e", "s", "▁", "eff", "▁"]),
        ("<think>no no</think>yes", "yes", ["y", "e", "s"]),
        ("<think>a</think>b<think>c</think>\n\nyes", "yes", ["y", "e", "s"]),
        ("<think>no pneumothorax", "", []),
        ("", "", []),
        (" \n", "", []),
        ("<pad>yes<start_of_turn>", "yes", ["y", "e", "s"]),
    ],
)
def test_an_answer_begins_behind_its_thinking(text: str, answer: str, tokens: Sequence[str]) -> None:
    model = with_pieces(thinking=("<think>", "</think>"))
    assert read(model, said(model, text)) == (answer, tokens)


def test_what_a_token_writes_of_the_thinking_is_no_word_of_the_answer() -> None:
    model = with_pieces(thinking=("<think>", "pleural"))
    answer = said(model, "<think>a pleural yes")
    assert "▁pleural▁" in model.tokenizer.convert_ids_to_tokens(answer.token_ids)
    assert read(model, answer)[1] == ["y", "e", "s"]


def test_without_thinking_nothing_is_left_out() -> None:
    model = with_pieces()
    assert worded(model, said(model, "<think>no</think>yes")).text == "<think>no</think>yes"


def test_spans_of_an_answer_are_of_the_whole_answer() -> None:
    model = with_pieces(thinking=("<think>", "</think>"))
    answer = said(model, "<think>eff</think> Is")
    assert worded(model, answer).tokens == (4,)
