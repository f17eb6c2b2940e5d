"""From a question to token ids, with the places where the image stands."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from jinja2 import TemplateError

from m3node.errors import ConfigError
from m3node.gemma.model import GemmaModel
from m3node.gemma.own_tokens import own_tokens


def prompt_ids(model: GemmaModel, question: str) -> list[int]:
    """Encode one question about one image, as the model's chat template has it.

    Parameters
    ----------
    model : GemmaModel
        Its profile says whether the image comes first, and the system instruction.
    question : str
        The text.

    Returns
    -------
    list of int
        Token ids with ``sizes.tokens`` squared image tokens in them, in one run; ends where the answer begins.

    Raises
    ------
    ConfigError
        The question holds one of the model's own tokens, such as the image's, or is longer than the model can take, or
        the model's chat template does not take one image and one question.
    """
    tokenizer: Any = model.tokenizer
    network: Any = model.network
    ids: list[int] = tokenizer(prompt_text(model, question), add_special_tokens=False)["input_ids"]
    # Masks grow with the square of it: a novel in a table's cell would take all memory, and the process with it.
    if len(ids) > (most := int(network.config.text_config.max_position_embeddings)):
        raise ConfigError(
            f"the question is too long: with the image it is {len(ids)} tokens, of which {model.identity.name} takes "
            f"{most}"
        )
    number = tokenizer.convert_tokens_to_ids(tokenizer.image_token)
    places = [place for place, token in enumerate(ids) if token == number]
    if len(places) != model.sizes.tokens**2 or any(after - before != 1 for before, after in pairwise(places)):
        raise ConfigError(f"the chat template of {model.identity.name} does not leave a place for one image")
    return ids


def prompt_text(model: GemmaModel, question: str) -> str:
    """Write out what `prompt_ids` encodes, with the image's tokens in it.

    Raises
    ------
    ConfigError
        As `prompt_ids` does, except for the image's place.
    """
    tokenizer: Any = model.tokenizer
    for text in (question, model.profile.system):
        if found := [token for token in own_tokens(model).texts if token in text]:
            raise ConfigError(f"a prompt may not hold the model's own token {found[0]!r}")
    image, words = {"type": "image"}, {"type": "text", "text": question}
    content = [image, words] if model.profile.image_first else [words, image]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if model.profile.system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": model.profile.system}]})
    try:
        prompt: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise ConfigError(f"the chat template of {model.identity.name} does not take the question: {error}") from error
    # What transformers' own processor makes of the placeholder (processing_gemma3.py).
    image_words = tokenizer.image_token * model.sizes.tokens**2
    return prompt.replace(tokenizer.boi_token, f"\n\n{tokenizer.boi_token}{image_words}{tokenizer.eoi_token}\n\n")
