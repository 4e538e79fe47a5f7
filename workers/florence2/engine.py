"""A loaded Florence-2: pictures are looked at once, and questions answered about them.

Import this module late: torch takes seconds. Nothing here is safe for threads:
`turns.Turns` calls it from one thread only.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from transformers import LogitsProcessorList, StoppingCriteriaList

from workers import wire
from workers.florence2.answers import Answer, Vocabulary, is_degenerate
from workers.florence2.options import Florence2Options
from workers.florence2.tasks import Question, Shape, prompt_too_long

NO_REPEAT = 3  # tokens; as published for captions. In boxes and OCR it forbids true answers
HALF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of missing bytes
# torch has a class for its own allocator on a GPU only
_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|CUDA error: out of memory"
    r"|(?:CUBLAS|CUDNN)_STATUS_(?:ALLOC_FAILED|INTERNAL_ERROR_HOST_ALLOCATION_FAILED)"
    r"|Cannot allocate memory|can't start new thread|bad_alloc"
)
DEGENERATE = (
    "the model said nothing but special tokens (degenerate output), as Florence-2-large-ft is"
    " known to; use the checkpoint without -ft, or another dtype"
)

OnText = Callable[[str], None]


class Left(Exception):
    """The client is gone: nobody waits for the answer."""


class Engine:
    """A Florence-2 model in memory."""

    def __init__(self, model: Any, processor: Any, options: Florence2Options) -> None:
        self._model = model
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._options = options
        self._left = threading.Event()
        self._prompts = processor.task_prompts_without_inputs | processor.task_prompts_with_input
        self._positions: int = model.config.text_config.max_position_embeddings
        self.vocabulary = _vocabulary_of(self._tokenizer)
        size_px = processor.image_processor.size
        self.side_px: int = max(size_px.height, size_px.width)
        _settle_generation(model, self._tokenizer)
        for layer in _layers_before_the_first_token(model):
            layer.register_forward_pre_hook(self._stop_if_left)

    @property
    def facts(self) -> dict[str, object]:
        return {
            "device": str(self._model.device),
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "parameters": self._model.num_parameters(),
            "n_ctx": self._positions,
        }

    @contextmanager
    def looking(self, left: threading.Event) -> Iterator[None]:
        """Let `left` stop the work of this block: at the next layer, or the next token."""
        self._left = left
        with torch.inference_mode():
            yield

    def look(self, image: Image.Image) -> Any:
        """Encode an RGB picture, once for all its questions. Raises Left.

        Gives the model's own output; its `pooler_output` is (1, places, width of the decoder).
        """
        pixels = self._processor.image_processor(image, return_tensors="pt")["pixel_values"]
        return self._model.get_image_features(pixels.to(self._model.device, self._model.dtype))

    def answer(
        self,
        sight: Any,
        question: Question,
        *,
        max_new_tokens: int | None = None,
        on_text: OnText | None = None,
    ) -> Answer:
        """Answer a question about what `look` saw; `on_text` gets a text's pieces as they come.

        With beams there are no pieces. Raises Left, and ApiError: 400 when the prompt is too
        long, 500 on a degenerate answer.
        """
        prompt = self._prompt_ids(question)
        config = self._generation(question, max_new_tokens)
        probabilities = _Probabilities()
        following = None if on_text is None or config.num_beams > 1 else self._pieces_to(on_text)

        def after_token(ids: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
            self._stop_if_left()
            if following is not None:
                following(ids)
            return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

        output = self._model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            mm_encoder_outputs={"image": sight},
            generation_config=config,
            logits_processor=LogitsProcessorList([probabilities]),
            stopping_criteria=StoppingCriteriaList([after_token]),
        )
        ids = tuple(output[0].tolist())[1:]  # the first is the decoder's start
        logprobs = () if config.num_beams > 1 else probabilities.told()
        if is_degenerate(ids, self.vocabulary):
            raise wire.ApiError(500, DEGENERATE, code="degenerate_output")
        return Answer(ids, logprobs, prompt.shape[1], ended=ids[-1:] == (config.eos_token_id,))

    def text_of(self, answer: Answer) -> str:
        return self.vocabulary.decode(answer.ids).strip()

    def _stop_if_left(self, *_: object) -> None:
        if self._left.is_set():
            raise Left

    def _prompt_ids(self, question: Question) -> torch.Tensor:
        """Tokenize the picture's places and the task's sentence: (1, tokens) int64."""
        processor = self._processor
        words = self._prompts[question.task.token].format(input=question.text)
        places = processor.image_token * processor.num_image_tokens
        bos, eos = self._tokenizer.bos_token, self._tokenizer.eos_token
        told = self._tokenizer(
            f"{places}{bos}{words}{eos}", add_special_tokens=False, return_tensors="pt"
        )
        ids: torch.Tensor = told.input_ids
        if ids.shape[1] > self._positions:  # on CUDA this would poison the whole process
            raise prompt_too_long(
                f"{ids.shape[1]} tokens, {processor.num_image_tokens} of them the picture,"
                f" at most {self._positions}"
            )
        return ids.to(self._model.device)

    def _generation(self, question: Question, max_new_tokens: int | None) -> Any:
        """Say how to decode. Beams bend boxes, and give no probabilities of their tokens."""
        caption = question.task.shape is Shape.CAPTION
        config = copy.copy(self._model.generation_config)
        limit = min(self._options.max_new_tokens, self._positions)
        config.max_new_tokens = min(max_new_tokens or limit, limit)
        config.num_beams = self._options.num_beams if caption else 1
        config.early_stopping = config.num_beams > 1
        config.no_repeat_ngram_size = NO_REPEAT if caption else 0
        return config

    def _pieces_to(self, on_text: OnText) -> Callable[[torch.Tensor], None]:
        """Make a function of all tokens so far, (1, n), that gives `on_text` what is new.

        It holds back a blank at the end, and a character whose bytes are not all there.
        """
        told = 0

        def follow(ids: torch.Tensor) -> None:
            nonlocal told
            text = self.vocabulary.decode(ids[0].tolist()).rstrip(HALF_A_CHARACTER).strip()
            if len(text) > told:
                on_text(text[told:])
                told = len(text)

        return follow


class _Probabilities:
    """Records the log-probability of each greedy pick: one number a token, not its scores."""

    def __init__(self) -> None:
        self._picked: list[torch.Tensor] = []

    def __call__(self, _ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._picked.append(torch.log_softmax(scores.float(), -1).amax(-1)[0])
        return scores

    def told(self) -> tuple[float, ...]:
        return tuple(torch.stack(self._picked).tolist())


def is_out_of_memory(error: Exception) -> bool:
    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or _OUT_OF_MEMORY.search(str(error)) is not None


def _vocabulary_of(tokenizer: Any) -> Vocabulary:
    """Find the tokens of places and regions. Raises ValueError when they are not there."""
    first_location, poly = tokenizer.convert_tokens_to_ids(["<loc_0>", "<poly>"])
    if tokenizer.unk_token_id in (first_location, poly):
        raise ValueError("the tokenizer has no <loc_0> or <poly>; it is not Florence-2's")
    return Vocabulary(
        first_location,
        poly,
        frozenset(tokenizer.all_special_ids),
        lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)),
    )


def _settle_generation(model: Any, tokenizer: Any) -> None:
    """Say all of what a generation_config.json may say, or lack."""
    text_config = model.config.text_config
    start = text_config.decoder_start_token_id
    model.generation_config.update(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id if start is None else start,
        forced_bos_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,  # a cut answer must not look like one that ended
        max_length=None,
    )


def _layers_before_the_first_token(model: Any) -> Iterator[torch.nn.Module]:
    """Name the layers whose start is a chance to stop: on a CPU they work for seconds."""
    for stage in model.model.vision_tower.blocks:
        for block in stage:
            yield from (block.spatial_block, block.channel_block)
    yield from model.model.language_model.encoder.layers
