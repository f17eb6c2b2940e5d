"""As many views go together as memory allows; where it runs out, fewer do, and none is lost."""

from __future__ import annotations

import dataclasses
import gc
import resource
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.medgemma import detector as module
from m3node.detectors.medgemma.memory import LARGE, MOST, ON_CPU, ON_CPU_LARGE, bytes_a_view, views_that_fit
from m3node.detectors.protocols import ViewResult
from m3node.errors import InferenceError
from m3node.gemma.batches import in_batches
from m3node.gemma.generation import Answer
from m3node.settings import MedGemmaSettings
from tests.asking import REGION, VOLUME, Script, look, make_view, random_model, script, written

VIEWS = [make_view(number) for number in range(9)]


def short_of_memory(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, items: Callable[..., Sequence[Any]]) -> Any:
    """Have a function run out of memory with more than two items; returns how many it got each time."""
    calls: list[int] = []
    real = getattr(owner, name)

    def bounded(*arguments: Any, **named: Any) -> Any:
        calls.append(len(items(*arguments)))
        if calls[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, bounded)
    return calls


def looked(monkeypatch: pytest.MonkeyPatch, *, keep_attention: bool = False) -> list[ViewResult]:
    script(monkeypatch, *(written((300, 300, 400 + 10 * number, 500)) for number in range(9)))
    detector = MedGemmaDetector(random_model(), MedGemmaSettings(batch_views=8))
    detector.keep_attention = keep_attention
    return look(detector, VIEWS)


def heights(results: Sequence[ViewResult]) -> list[int]:
    return [round((result.boxes[0].box.r1 - result.boxes[0].box.r0) / 60 * 1000) for result in results]


def test_an_encoder_that_does_not_fit_is_given_fewer_views(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = short_of_memory(monkeypatch, module, "image_features", lambda _model, pixels, *_: pixels)
    assert heights(looked(monkeypatch)) == [100 + 10 * number for number in range(9)]
    assert calls == [8, 4, 2, 2, 2, 2, 1]


def test_answers_that_do_not_fit_are_written_for_fewer_views_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []
    room = 8
    whole = Script.__call__

    def bounded(self: Script, model: Any, prompts: Any, features: torch.Tensor, **named: Any) -> Any:
        given.append(features)
        if len(prompts) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(self, model, prompts, features, **named)

    monkeypatch.setattr(Script, "__call__", bounded)
    assert heights(looked(monkeypatch)) == [100 + 10 * number for number in range(9)]
    together = torch.cat(given)
    given.clear()
    room = 2
    assert heights(looked(monkeypatch)) == [100 + 10 * number for number in range(9)]
    assert [len(features) for features in given] == [8, 4, 2, 2, 2, 2, 1]
    assert torch.equal(torch.cat(given[2:]), together)  # each about its own view


@pytest.mark.parametrize("keep_attention", [False, True], ids=["written", "written and read back"])
def test_features_that_cannot_be_put_together_are_put_together_for_fewer_views(
    keep_attention: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = short_of_memory(monkeypatch, torch, "stack", lambda tensors, **_: tensors)
    assert heights(looked(monkeypatch, keep_attention=keep_attention)) == [100 + 10 * number for number in range(9)]
    one_pass = [8, 4, 2, 2, 2, 2]
    assert calls == [*one_pass, *(one_pass if keep_attention else []), 1, *([1] if keep_attention else [])]


def test_answers_that_cannot_be_read_back_together_are_read_back_fewer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = short_of_memory(monkeypatch, module, "read_answers", lambda _model, prompts, *_: prompts)
    results = looked(monkeypatch, keep_attention=True)
    assert all(result.attention is not None for result in results)
    assert calls == [8, 4, 2, 2, 2, 2, 1]


def test_memory_for_not_even_one_view_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(module, "image_features", never)
    with pytest.raises(InferenceError, match="memory ran out with a single image"):
        looked(monkeypatch)


def test_no_more_images_go_through_the_encoder_together_than_keep_it_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = module.image_features

    def noted(model: Any, pixels: torch.Tensor, *arguments: Any) -> torch.Tensor:
        calls.append(len(pixels))
        return real(model, pixels, *arguments)

    monkeypatch.setattr(module, "image_features", noted)
    asked = script(monkeypatch, "[]")
    look(MedGemmaDetector(random_model(), MedGemmaSettings(batch_views=40)), [VIEWS[0]] * 40)
    assert calls == [16, 16, 8]
    assert len(asked.asked) == 40


def test_on_a_cpu_few_views_go_together_and_on_a_gpu_as_many_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()
    assert views_that_fit(model, 300, 1000) == ON_CPU
    for parameters, views in ((LARGE - 1, ON_CPU), (LARGE, ON_CPU_LARGE)):
        with monkeypatch.context() as patched:
            patched.setattr(type(model.network), "num_parameters", lambda _self, count=parameters: count)
            assert views_that_fit(model, 300, 1000) == views
    on_gpu = dataclasses.replace(model, device=torch.device("cuda"))
    need = bytes_a_view(model, 300, 1000)
    for free, views in ((need * 15, 10), (need // 2, 1), (need * 10_000, MOST)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device, free=free: (free, free))
        assert views_that_fit(on_gpu, 300, 1000) == views


def test_a_views_memory_is_its_states_of_every_token_as_far_as_each_layer_sees() -> None:
    model = (
        random_model()
    )  # 2 of 4 layers see 64 tokens; 2 key heads of 16 in float32; each layer has room for 128 more
    longer = bytes_a_view(model, 300, 2000) - bytes_a_view(model, 300, 1000)
    assert longer == 1000 * 2 * (2 * 2 * 16 * 4)
    half = dataclasses.replace(model, dtype=torch.bfloat16)
    states = (2 * (1300 + 128) + 2 * (64 + 128)) * (2 * 2 * 16 * 4)
    passing = 300 * (4 * 48 + 3 * 64) * 4
    assert bytes_a_view(model, 300, 1000) - bytes_a_view(half, 300, 1000) == (states + passing) // 2
    masks, logits = 2 * 300**2, 3 * 4 * len(model.tokenizer)  # type: ignore[arg-type]
    assert bytes_a_view(model, 300, 1000) == states + passing + masks + logits


def test_how_many_go_together_is_measured_with_the_longer_question_and_the_longest_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "views_that_fit", lambda _model, *tokens: asked.append(tokens) or 3)
    (tmp_path / "long.txt").write_text("x" * 500)
    settings = MedGemmaSettings(slice_prompt_file=tmp_path / "long.txt", max_new_tokens=77)
    MedGemmaDetector(random_model(), settings)
    MedGemmaDetector(random_model(), MedGemmaSettings())
    MedGemmaDetector(random_model(), MedGemmaSettings(batch_views=2))
    (long, answer), (short, default) = asked
    assert (long > 500 > short, answer, default) == (True, 77, 160)


def test_memory_stays_flat_over_a_thousand_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process and one model: after the first rounds nothing is added any more."""
    said = Answer(token_ids=tuple(random_model().tokenizer("[]")["input_ids"]), ended=True, log_probs=(-1.0, -1.0))  # type: ignore[operator]
    real = module.generate

    def generate(*arguments: Any, **named: Any) -> list[Answer]:
        return [said for _ in real(*arguments, **named)]  # what random words say cannot be read, nor be read back

    monkeypatch.setattr(module, "generate", generate)
    detector = MedGemmaDetector(random_model(), MedGemmaSettings(max_new_tokens=2))
    detector.keep_attention = True
    views = [make_view(number, (160 + number % 7, 200)) for number in range(50)]

    def tensors() -> int:
        gc.collect()
        return sum(kept.nbytes for kept in gc.get_objects() if issubclass(type(kept), torch.Tensor))

    def megabytes() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    after, kept = [], []
    for number in range(20):
        assert sum(result.attention is not None for result in detector.look(views, VOLUME, REGION)) == 50
        after.append(megabytes())
        if number in {1, 19}:
            kept.append(tensors())
    assert kept[0] == kept[1]
    # The lowest of several, since allocators keep some now and then; 500 crops in their windows are 48 MB.
    assert min(after[15:]) - min(after[5:10]) < 15


def test_what_a_call_that_failed_held_is_let_go_before_a_smaller_one_begins() -> None:
    class Held:
        """In a circle, as what an exception's frames hold often is."""

        def __init__(self) -> None:
            self.itself = self

    held: list[weakref.ref[Held]] = []

    def work(items: Sequence[int]) -> Sequence[int]:
        if len(items) > 1:
            held.append(weakref.ref(Held()))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        assert held[0]() is None
        return items

    gc.disable()  # it must not come about by chance
    try:
        assert list(in_batches([1, 2], work, size=2)) == [1, 2]
    finally:
        gc.enable()
