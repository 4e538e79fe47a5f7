"""A loaded Florence-2: pictures are looked at once, and questions answered about them together.

Import this module late: torch takes seconds. Nothing here but `prepare` and `text_of` is safe for
threads: `turns.Turns` calls it from one thread only.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutputWithPooling

from workers.florence2.answers import Answer, Vocabulary
from workers.florence2.options import Florence2Options
from workers.florence2.rows import NO_REPEAT, Ask, Left, Look, Rows
from workers.florence2.tasks import Question, prompt_too_long

# torch has a class for its own allocator on a GPU only
_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|CUDA error: out of memory"
    r"|(?:CUBLAS|CUDNN)_STATUS_(?:ALLOC_FAILED|INTERNAL_ERROR_HOST_ALLOCATION_FAILED)"
    r"|Cannot allocate memory|can't start new thread|bad_alloc"
)


class Engine:
    """A Florence-2 model in memory."""

    def __init__(self, model: Any, processor: Any, options: Florence2Options) -> None:
        self._model = model
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._options = options
        self._nobody_waits: Callable[[], bool] = lambda: False
        self._prompts = processor.task_prompts_without_inputs | processor.task_prompts_with_input
        self._positions: int = model.config.text_config.max_position_embeddings
        self.vocabulary = _vocabulary_of(self._tokenizer)
        size = processor.image_processor.size
        self._size_px: tuple[int, int] = size.width, size.height
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

    @property
    def side_px(self) -> int:
        return max(self._size_px)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """Make of an RGB picture what `look` takes: (1, 3, side, side) float32. Any thread may."""
        processor = self._processor.image_processor
        # as the processor would, but without its copies of a large picture
        small = image.resize(self._size_px, processor.resample)
        pixels: torch.Tensor = processor(small, return_tensors="pt")["pixel_values"]
        return pixels

    def look(self, look: Look) -> list[Ask]:
        """Encode a picture, once for all its questions.

        Raises Left at the next layer after its client left, and ApiError 400 for a question that
        is too long.
        """
        begun_s = time.monotonic()
        prompts = [self._prompt(question) for question in look.questions]
        with self._working(look.left.is_set):
            self._stop_if_left()
            pixels = look.pixels.to(self._model.device, self._model.dtype)
            sight: torch.Tensor = self._model.get_image_features(pixels).pooler_output
        limit = min(self._options.max_new_tokens, self._positions)
        most_tokens = min(look.max_tokens or limit, limit)
        return [
            Ask(look, sight, prompt, question, most_tokens, answer, begun_s)
            for prompt, question, answer in zip(prompts, look.questions, look.answers, strict=True)
        ]

    def _prompt(self, question: Question) -> torch.Tensor:
        """Tokenize the picture's places and the task's sentence: (tokens,) int64.

        Raises ApiError 400 when it is too long.
        """
        processor = self._processor
        words = self._prompts[question.task.token].format(input=question.text)
        places = processor.image_token * processor.num_image_tokens
        bos, eos = self._tokenizer.bos_token, self._tokenizer.eos_token
        told = self._tokenizer(
            f"{places}{bos}{words}{eos}", add_special_tokens=False, return_tensors="pt"
        )
        ids: torch.Tensor = told.input_ids[0]
        if len(ids) > self._positions:  # on CUDA this would poison the whole process
            raise prompt_too_long(
                f"{len(ids)} tokens, {processor.num_image_tokens} of them the picture,"
                f" at most {self._positions}",
                param=question.field,
            )
        return ids

    def together(self, asks: Sequence[Ask]) -> list[list[Ask]]:
        """Part questions into those that `answer` can take together.

        Searches by beams depend on the limit of tokens, so only those with the same one go
        together; greedy answers have each a limit of its own.
        """

        def search(ask: Ask) -> tuple[int, int]:
            beams = self._beams(ask)
            return beams, ask.most_tokens if beams > 1 else 0

        return [list(group) for _, group in groupby(sorted(asks, key=search), key=search)]

    def answer(self, asks: Sequence[Ask]) -> None:
        """Answer questions together; each is resolved as soon as its own answer has ended.

        One whose client left is resolved with Left, and the last one of them ends the work.
        Raises what the device raises; then some are not resolved.
        """
        with self._working(lambda: all(ask.is_left for ask in asks)):
            self._generate(Rows(asks, self.vocabulary, self._beams(asks[0])))

    def _beams(self, ask: Ask) -> int:
        """Tell how many beams to search; they bend boxes, and give no probabilities of tokens."""
        return self._options.num_beams if ask.is_caption else 1

    def _generate(self, rows: Rows) -> None:
        asks, config = rows.asks, copy.copy(self._model.generation_config)
        config.num_beams = rows.beams
        config.early_stopping = rows.beams > 1
        config.no_repeat_ngram_size = NO_REPEAT if rows.beams > 1 else 0  # else `rows` sees to it
        config.max_new_tokens = max(ask.most_tokens for ask in asks)
        prompts = pad_sequence([ask.prompt for ask in asks], batch_first=True, padding_value=-1)
        is_token = prompts >= 0
        device = self._model.device
        output = self._model.generate(
            input_ids=prompts.where(is_token, config.pad_token_id).to(device),
            attention_mask=is_token.long().to(device),
            mm_encoder_outputs={
                "image": BaseModelOutputWithPooling(
                    pooler_output=torch.cat([ask.sight for ask in asks])
                )
            },
            generation_config=config,
            logits_processor=LogitsProcessorList([rows.before_token] if rows.beams == 1 else []),
            stopping_criteria=StoppingCriteriaList([rows.after_token]),
        )
        rows.settle(output)

    def text_of(self, answer: Answer) -> str:
        return self.vocabulary.decode(answer.ids).strip()

    @contextmanager
    def _working(self, nobody_waits: Callable[[], bool]) -> Iterator[None]:
        """Let the work of this block stop at the next layer once nobody waits for it."""
        self._nobody_waits = nobody_waits
        with torch.inference_mode():
            yield

    def _stop_if_left(self, *_: object) -> None:
        if self._nobody_waits():
            raise Left


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
        int(tokenizer.eos_token_id),
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
