"""From a question to token ids, with the places where the image stands."""

from __future__ import annotations

from typing import Any

from m3node.errors import ConfigError
from m3node.gemma.model import GemmaModel


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
        The question holds one of the model's own tokens, such as the image's.
    """
    tokenizer: Any = model.tokenizer
    if any(token and token in question for token in tokenizer.all_special_tokens):
        raise ConfigError("a prompt may not hold the model's special tokens")
    image, text = {"type": "image"}, {"type": "text", "text": question}
    content = [image, text] if model.profile.image_first else [text, image]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if model.profile.system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": model.profile.system}]})
    words = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    # What transformers' own processor makes of the placeholder (processing_gemma3.py).
    image_words = tokenizer.image_token * model.sizes.tokens**2
    words = words.replace(tokenizer.boi_token, f"\n\n{tokenizer.boi_token}{image_words}{tokenizer.eoi_token}\n\n")
    ids: list[int] = tokenizer(words, add_special_tokens=False)["input_ids"]
    return ids
