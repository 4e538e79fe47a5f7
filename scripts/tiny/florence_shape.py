"""A Florence-2 directory that was never trained: its parts in any dimensions.

The classes are those of transformers, so the worker loads it as a real one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
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

from tiny.florence_words import added_tokens, vocabulary_lines


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


def make_unfitted(folder: Path, dimensions: Dimensions) -> None:
    """Write a directory with random weights in 16 bits: it takes its time, and makes no sense."""
    processor, model = unfitted(dimensions)
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)


def unfitted(dimensions: Dimensions) -> tuple[Any, Any]:
    """Make a processor and a model with random weights, the same ones each time."""
    torch.manual_seed(5)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    processor = _processor(_tokenizer(), dimensions)
    return processor, _model(processor.tokenizer, dimensions)


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
    config = Florence2Config(
        vision_config=_eye(dimensions),
        text_config=_tongue(tokenizer, dimensions),
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


def _eye(dimensions: Dimensions) -> Any:
    return Florence2VisionConfig(
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


def _tongue(tokenizer: Any, dimensions: Dimensions) -> Any:
    return BartConfig(
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
