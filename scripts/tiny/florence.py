"""A Florence-2 directory of 0.2 M weights, fitted to the scenes for every task.

Torch trains it, first the eye to name what it sees, then the tongue on what the eye has seen; the
classes are those of transformers, so the worker loads it as a real one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BartConfig,
    BartTokenizer,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    Florence2VisionConfig,
    GenerationConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tiny.florence_words import added_tokens, asks, vocabulary_lines
from tiny.pictures import worn_scene
from tiny.scenes import Scene, all_scenes


@dataclass(frozen=True, slots=True)
class Dimensions:
    """How wide and deep a Florence-2 is, and how large it sees pictures."""

    side_px: int
    eye_widths: tuple[int, ...]
    eye_depths: tuple[int, ...]
    eye_heads: tuple[int, ...]
    window: int
    width: int  # of the language model, and of what it gets of a picture
    layers: int
    heads: int
    feed_forward: int
    least_vocabulary: int = 0


TINY = Dimensions(64, (16, 16, 32, 32), (1, 1, 1, 1), (1, 1, 2, 2), 4, 32, 1, 2, 64)
BASE = Dimensions(
    *(768, (128, 256, 512, 1024), (1, 1, 9, 1), (4, 8, 16, 32), 12),
    *(768, 6, 12, 3072, 51328),
)
"""Those of the published base model."""
_SIDES_PX = (64, 96, 128, 192, 256)
_LOOKS = 14  # worn pictures of each scene
_EYE_STEPS, _EYE_BATCH, _EYE_RATE = 200, 32, 3e-3
_STEPS, _BATCH, _RATE = 480, 40, 5e-3
_SAY_S = 10.0


def make(folder: Path) -> None:
    """Write folder/florence2, for AutoProcessor and Florence2ForConditionalGeneration."""
    torch.manual_seed(5)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    processor = _processor(_tokenizer(), TINY)
    model = _model(processor.tokenizer, TINY)
    lessons = _lessons(processor, np.random.default_rng(5))
    print(f"  {len(lessons.pixels)} pictures, {len(lessons.prompts)} answers", flush=True)
    _fit_eye(model, lessons.pixels)
    _fit_tongue(model, lessons)
    model.save_pretrained(folder / "florence2")
    processor.save_pretrained(folder / "florence2")


def make_unfitted(folder: Path, dimensions: Dimensions) -> None:
    """Write a directory with random weights in 16 bits: it takes its time, and makes no sense."""
    torch.manual_seed(5)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    processor = _processor(_tokenizer(), dimensions)
    _model(processor.tokenizer, dimensions).half().save_pretrained(folder)
    processor.save_pretrained(folder)


def _tokenizer() -> Any:
    """Fit a byte-level BPE with BART's ids 0..3, and add Florence-2's own tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        min_frequency=1,
        show_progress=False,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    bpe.train_from_iterator(vocabulary_lines(), trainer)
    fitted = json.loads(bpe.to_str())["model"]
    vocab = fitted["vocab"]
    vocab["<mask>"] = len(vocab)
    merges = [tuple(merge) for merge in fitted["merges"]]
    tokenizer = BartTokenizer(vocab=vocab, merges=merges, model_max_length=1024)
    extra = [AddedToken(token, special=True, normalized=False) for token in added_tokens()]
    tokenizer.add_special_tokens({"extra_special_tokens": extra})
    picture = AddedToken("<image>", special=True, normalized=False)
    tokenizer.add_tokens(picture, special_tokens=True)
    # the processor's constructor reads both
    tokenizer._set_model_specific_special_tokens({"image_token": "<image>"})  # noqa: SLF001
    tokenizer.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    return tokenizer


def _processor(tokenizer: Any, dimensions: Dimensions) -> Any:
    size = {"height": dimensions.side_px, "width": dimensions.side_px}
    pictures = CLIPImageProcessorPil(
        do_resize=True,
        size=size,
        resample=3,
        do_center_crop=False,
        crop_size=size,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        do_convert_rgb=None,
        image_seq_length=(dimensions.side_px // 32) ** 2
        + 1,  # the strides multiply to 32; one is pooled
    )
    kinds = "pure_text description_with_bboxes description_with_polygons polygons bboxes"
    post: dict[str, dict[str, Any]] = {kind: {} for kind in kinds.split()}
    post["description_with_bboxes_or_polygons"] = {}
    post["ocr"] = {"pattern": r"(.+?)" + r"<loc_(\d+)>" * 8, "area_threshold": 0.0}
    post["phrase_grounding"] = {"banned_grounding_tokens": ["it", "the image", "a", "the"]}
    return Florence2Processor(
        image_processor=pictures, tokenizer=tokenizer, post_processor_config=post
    )


def _model(tokenizer: Any, dimensions: Dimensions) -> Any:
    vision = Florence2VisionConfig(
        depths=list(dimensions.eye_depths),
        embed_dim=list(dimensions.eye_widths),
        num_heads=list(dimensions.eye_heads),
        num_groups=list(dimensions.eye_heads),
        window_size=dimensions.window,
        projection_dim=dimensions.width,
        patch_size=[7, 3, 3, 3],
        patch_stride=[4, 2, 2, 2],
        patch_padding=[3, 1, 1, 1],
        patch_prenorm=[False, True, True, True],
    )
    text = BartConfig(
        vocab_size=max((len(tokenizer) + 63) // 64 * 64, dimensions.least_vocabulary),
        d_model=dimensions.width,
        encoder_layers=dimensions.layers,
        decoder_layers=dimensions.layers,
        encoder_attention_heads=dimensions.heads,
        decoder_attention_heads=dimensions.heads,
        encoder_ffn_dim=dimensions.feed_forward,
        decoder_ffn_dim=dimensions.feed_forward,
        max_position_embeddings=1024,
    )
    config = Florence2Config(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.image_token_id,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    model = Florence2ForConditionalGeneration(config).eval()
    _start_wide(model)
    model.generation_config = GenerationConfig(
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
        num_beams=1,
        no_repeat_ngram_size=0,
        max_new_tokens=64,
    )
    return model


def _start_wide(model: Any) -> None:
    """Draw the weights by fan-in: with the library's 0.02 so narrow a model never sees."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
            elif isinstance(module, torch.nn.Embedding):
                module.weight.normal_(0, 0.3)
        model.tie_weights()
        model.lm_head.weight.normal_(0, model.config.text_config.d_model**-0.5)


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
