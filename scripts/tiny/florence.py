"""A Florence-2 directory of 0.2 M weights, fitted to the scenes for every task.

Torch trains it, first the eye to name what it sees, then the tongue on what the eye has seen; the
classes are those of transformers, so the worker loads it as a real one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tiny.florence_shape import TINY, unfitted
from tiny.florence_words import asks
from tiny.pictures import worn_scene
from tiny.scenes import Scene, all_scenes

_SIDES_PX = (64, 96, 128, 192, 256)
_LOOKS = 14  # worn pictures of each scene
_EYE_STEPS, _EYE_BATCH, _EYE_RATE = 200, 32, 3e-3
_STEPS, _BATCH, _RATE = 480, 40, 5e-3
_SAY_S = 10.0


def make(folder: Path) -> None:
    """Write folder/florence2, for AutoProcessor and Florence2ForConditionalGeneration."""
    torch.set_num_threads(1)
    processor, model = unfitted(TINY)
    lessons = _lessons(processor, np.random.default_rng(5))
    print(f"  {len(lessons.pixels)} pictures, {len(lessons.prompts)} answers", flush=True)
    _fit_eye(model, lessons.pixels)
    _fit_tongue(model, lessons)
    model.save_pretrained(folder / "florence2")
    processor.save_pretrained(folder / "florence2")


@dataclass(frozen=True, slots=True)
class _Lessons:
    """Tensors of all prompts and answers; answer i belongs to scene i // tasks."""

    prompts: Tensor
    answers: Tensor
    pixels: Tensor  # (scenes, looks, 3, side, side)


def _lessons(processor: Any, rng: np.random.Generator) -> _Lessons:
    scenes = all_scenes()
    tokenizer = processor.tokenizer
    blank = scenes[0].draw(TINY.side_px)
    prompts, answers = [], []
    for scene in scenes:
        for ask in asks(scene):
            asked = processor(text=ask.prompt, images=blank, return_tensors="pt")
            prompts.append(asked.input_ids[0])
            answer = tokenizer(f"<s>{ask.answer}</s>", add_special_tokens=False)
            answers.append(torch.tensor(answer.input_ids))
    looks = [_pixels(processor, scene, rng) for scene in scenes]
    return _Lessons(
        pad_sequence(prompts, batch_first=True, padding_value=1),
        pad_sequence(answers, batch_first=True, padding_value=-100),
        torch.stack(looks),
    )


def _pixels(processor: Any, scene: Scene, rng: np.random.Generator) -> Tensor:
    sides = rng.choice(_SIDES_PX, _LOOKS - 1)
    pictures = [worn_scene(scene, int(side), rng).picture for side in sides]
    pictures.append(scene.draw(128))
    found: Tensor = processor.image_processor(pictures, return_tensors="pt").pixel_values
    return found


class _Clock:
    """Says how far a training is, at most every ten seconds."""

    def __init__(self, what: str, step_count: int) -> None:
        self._what, self._step_count = what, step_count
        self._start = self._spoken = time.monotonic()

    def tick(self, step: int, loss: Tensor) -> None:
        now = time.monotonic()
        if now - self._spoken > _SAY_S or step == self._step_count - 1:
            self._spoken = now
            so_far = f"{self._what}, step {step + 1} of {self._step_count}"
            print(f"  {so_far}, loss {loss.item():.4f}, {now - self._start:.0f} s", flush=True)


class _Descent:
    """AdamW with one cycle of the rate over a known number of steps."""

    def __init__(self, parameters: list[Tensor], rate: float, step_count: int) -> None:
        self._parameters = parameters
        self._optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
        self._pace = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, rate, total_steps=step_count, pct_start=0.1
        )

    def step(self, loss: Tensor) -> None:
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own gap
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        self._pace.step()


def _features(model: Any, pixels: Tensor) -> Tensor:
    """Give what the language model gets of pictures: (n, tokens, width)."""
    found: Tensor = model.model.get_image_features(pixels).pooler_output
    return found.reshape(len(pixels), -1, found.shape[-1])


def _fit_eye(model: Any, pixels: Tensor) -> None:
    """Teach the vision tower the scene's number, read from the mean of its tokens.

    Fitted through the whole model instead, it learns colours and places at once and takes very
    long to tell a circle from a square.
    """
    head = torch.nn.Linear(model.config.text_config.d_model, len(pixels))
    eye = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    descent = _Descent([*eye, *head.parameters()], _EYE_RATE, _EYE_STEPS)
    clock = _Clock("eye", _EYE_STEPS)
    for step in range(_EYE_STEPS):
        scene = torch.randint(0, pixels.shape[0], (_EYE_BATCH,))
        look = torch.randint(0, pixels.shape[1], (_EYE_BATCH,))
        seen = head(_features(model, pixels[scene, look]).mean(dim=1))
        loss = torch.nn.functional.cross_entropy(seen, scene)
        descent.step(loss)
        clock.tick(step, loss)
    for parameter in eye:
        parameter.requires_grad_(requires_grad=False)


def _fit_tongue(model: Any, lessons: _Lessons) -> None:
    """Train the language model, without dropout, on features that no longer change."""
    scene_count, look_count = lessons.pixels.shape[:2]
    with torch.no_grad():
        seen = torch.stack([_features(model, looks) for looks in lessons.pixels])
    parameters = [p for p in model.parameters() if p.requires_grad]
    descent, clock = _Descent(parameters, _RATE, _STEPS), _Clock("tongue", _STEPS)
    task_count = len(lessons.prompts) // scene_count
    for step in range(_STEPS):
        index = torch.randint(0, len(lessons.prompts), (_BATCH,))
        look = torch.randint(0, look_count, (_BATCH,))
        prompts, answers = lessons.prompts[index], lessons.answers[index]
        words = model.get_input_embeddings()(prompts)
        is_picture = (prompts == model.config.image_token_id)[..., None].expand_as(words)
        logits = model(
            inputs_embeds=words.masked_scatter(is_picture, seen[index // task_count, look]),
            attention_mask=(prompts != 1).long(),
            labels=answers.clone(),
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), answers.flatten(), ignore_index=-100
        )
        descent.step(loss)
        clock.tick(step, loss)
