"""A prompt is what the library's own processor makes of the same question, and holds one image."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from tokenizers import processors
from transformers import AddedToken, Gemma3ImageProcessor, Gemma3Processor

from m3node.errors import ConfigError
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from small_gemma import small_gemma


def asked(*, image_first: bool = True, system: str = "") -> GemmaModel:
    model = small_gemma()
    return replace(model, profile=replace(model.profile, image_first=image_first, system=system))


def with_template(template: str) -> GemmaModel:
    model = small_gemma()
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = template
    return replace(model, tokenizer=tokenizer)


@pytest.mark.parametrize("image_first", [True, False])
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_it_is_what_the_librarys_processor_makes(image_first: bool, system: str) -> None:
    model = asked(image_first=image_first, system=system)
    side, tokens = model.sizes.image, model.sizes.tokens
    images = Gemma3ImageProcessor(size={"height": side, "width": side})
    processor = Gemma3Processor(
        images, model.tokenizer, chat_template=model.tokenizer.chat_template, image_seq_length=tokens**2
    )
    image, text = {"type": "image"}, {"type": "text", "text": "Where are\nthe lesions?"}
    messages = [{"role": "user", "content": [image, text] if image_first else [text, image]}]
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    words = processor.apply_chat_template(messages, add_generation_prompt=True)
    expected = processor(text=words, images=[[Image.new("RGB", (side, side))]], add_special_tokens=False)
    assert prompt_ids(model, "Where are\nthe lesions?") == expected["input_ids"][0]


@pytest.mark.parametrize("token", ["<pad>", "<bos>", "<eos>", "<start_of_image>", "<end_of_image>", "<image>"])
def test_a_question_cannot_bring_tokens_of_the_model(token: str) -> None:
    with pytest.raises(ConfigError, match=f"may not hold the model's own token '{token}'"):
        prompt_ids(small_gemma(), f"Lesions? {token}")


def test_a_question_cannot_end_its_turn() -> None:
    model = small_gemma()
    tokenizer = copy.deepcopy(model.tokenizer)
    # As Gemma's tokenizer has it: special, and yet not among all_special_tokens.
    tokenizer.add_tokens([AddedToken("<end_of_turn>", special=True)])
    assert "<end_of_turn>" not in tokenizer.all_special_tokens
    with pytest.raises(ConfigError, match="may not hold the model's own token '<end_of_turn>'"):
        prompt_ids(replace(model, tokenizer=tokenizer), "Lesions?<end_of_turn>")


def test_nor_can_the_system_instruction() -> None:
    with pytest.raises(ConfigError, match="may not hold"):
        prompt_ids(asked(system="<image>"), "Lesions?")


def test_a_question_that_is_longer_than_the_model_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_gemma()
    longest = len(prompt_ids(model, "Lesions?"))
    monkeypatch.setattr(model.network.config.text_config, "max_position_embeddings", longest)
    assert len(prompt_ids(model, "Lesions?")) == longest
    with pytest.raises(ConfigError, match=f"too long: with the image it is {longest + 1} tokens, .* takes {longest}$"):
        prompt_ids(model, "Lesions??")


def test_a_template_that_leaves_out_the_image() -> None:
    with pytest.raises(ConfigError, match="does not leave a place for one image"):
        prompt_ids(with_template("{{ bos_token }}{{ messages[0]['content'][1]['text'] }}"), "Lesions?")


def test_a_template_that_shows_it_twice() -> None:
    with pytest.raises(ConfigError, match="does not leave a place for one image"):
        prompt_ids(with_template("<start_of_image> and <start_of_image>"), "Lesions?")


def test_a_template_that_takes_the_image_apart() -> None:
    with pytest.raises(ConfigError, match="does not leave a place for one image"):
        prompt_ids(with_template("<image><image> and <image><image>"), "Lesions?")


def test_a_tokenizer_that_begins_every_text_by_itself_does_not_begin_it_twice() -> None:
    """As Gemma's does; the template has the beginning already."""
    model = small_gemma()
    tokenizer: Any = copy.deepcopy(model.tokenizer)
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", begin)]
    )
    assert tokenizer("a")["input_ids"][0] == begin
    ids = prompt_ids(replace(model, tokenizer=tokenizer), "Lesions?")
    assert ids == prompt_ids(model, "Lesions?")
    assert ids.count(begin) == 1


def test_a_question_may_hold_words_that_are_tokens_and_nothing_more() -> None:
    """Gemma has added tokens for runs of blanks and for tags, which are words like others."""
    model = small_gemma()
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_tokens([AddedToken("<table>", special=False)])
    ids = prompt_ids(replace(model, tokenizer=tokenizer), "Lesions in this <table>?")
    assert tokenizer.convert_tokens_to_ids("<table>") in ids


def test_a_template_that_refuses() -> None:
    with pytest.raises(ConfigError, match="does not take the question: no system role"):
        prompt_ids(with_template("{{ raise_exception('no system role') }}"), "Lesions?")
