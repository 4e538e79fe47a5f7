"""What the tiny Florence-2 is asked and answers: every task, with boxes in thousandths."""

from __future__ import annotations

from dataclasses import dataclass

from tiny.scenes import COLOURS, PLACES, SHAPES, Scene

# The sentences that the processor puts in place of the task names.
_PROMPTS = (
    "What is the text in the image?",
    "What is the text in the image, with regions?",
    "What does the image describe?",
    "Describe in detail what is shown in the image.",
    "Describe with a paragraph what is shown in the image.",
    "Locate the objects with category name in the image.",
    "Locate the objects in the image, with their descriptions.",
    "Locate the region proposals in the image.",
    "Locate the phrases in the caption: a red square",
    "Locate a square in the image.",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt as a client sends it, and the answer before post-processing."""

    prompt: str
    answer: str


def asks(scene: Scene) -> list[Ask]:
    colour, shape, caption = scene.colour, scene.shape, scene.caption
    box = locations(scene)
    quad = _tokens([box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]])
    where = f"in the {scene.place}"
    region = _tokens(box)
    word = f"{colour.upper()} {shape.upper()}"
    return [
        Ask("<CAPTION>", caption),
        Ask("<DETAILED_CAPTION>", f"{caption} {where} of the picture"),
        Ask("<MORE_DETAILED_CAPTION>", f"The picture shows {caption} {where}. The rest is white."),
        Ask("<OD>", shape + region),
        Ask("<DENSE_REGION_CAPTION>", f"{colour} {shape}{region}"),
        Ask("<REGION_PROPOSAL>", region),
        Ask("<OCR>", word),
        Ask("<OCR_WITH_REGION>", word + quad),
        Ask(f"<CAPTION_TO_PHRASE_GROUNDING>{caption}", caption + region),
        Ask(f"<OPEN_VOCABULARY_DETECTION>{shape}", shape + region),
    ]


def locations(scene: Scene) -> list[int]:
    """Give the box in thousandths of the picture, as Florence-2 counts."""
    return [min(999, int(edge * 1000)) for edge in scene.box]


def vocabulary_lines() -> list[str]:
    scenes = [Scene(c, s, p) for c in COLOURS for s in SHAPES for p in PLACES]
    texts = [ask.answer.split("<")[0] for scene in scenes for ask in asks(scene)]
    return [*_PROMPTS, *texts]


def added_tokens() -> list[str]:
    """Give Florence-2's own tokens, in the order of the published checkpoints."""
    pairs = ("cap", "ncap", "dcap", "grounding", "seg")
    more = ("region_cap", "region_to_desciption", "proposal", "poly")  # the typo is theirs
    return [
        *_both(("od", "ocr")),
        *(f"<loc_{index}>" for index in range(1000)),
        *_both(pairs),
        "<sep>",
        *_both(more),
        "<and>",
    ]


def _both(names: tuple[str, ...]) -> list[str]:
    return [tag for name in names for tag in (f"<{name}>", f"</{name}>")]


def _tokens(box: list[int]) -> str:
    return "".join(f"<loc_{edge}>" for edge in box)
