"""Measure the tiny models through the real engines: `python -m tiny.check DIR [WHAT ...]`.

Run in scripts/; for use by hand. Scenes and colours are drawn anew, with another seed than the
training's.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llama_cpp import Llama
from llama_cpp.llama_chat_format import MTMDChatHandler
from transformers import AutoProcessor, Florence2ForConditionalGeneration

from tiny import corpus
from tiny.engine import hush
from tiny.florence_words import asks
from tiny.pictures import Shown, plain, random_scene, worn_scene

_SIDES_PX = (64, 96, 128, 192, 256)


def check_text(folder: Path) -> None:
    llama = _llama(folder / "chat.gguf")
    pairs = corpus.pairs()
    second = [("Hello", "Hello! What shall we talk about?"), *pairs]
    ways: dict[str, Callable[[int], list[dict[str, Any]]]] = {
        "alone": lambda i: [_user(pairs[i][0])],
        "after a system prompt": lambda i: [_system(), _user(pairs[i][0])],
        "as second turn": lambda i: [
            _user(second[i][0]),
            {"role": "assistant", "content": second[i][1]},
            _user(pairs[i][0]),
        ],
    }
    for way, messages in ways.items():
        answers = [_answer(llama, messages(i)) for i in range(len(pairs))]
        _report(f"chat, {way}", [(a, pair[1]) for a, pair in zip(answers, pairs, strict=True)])


def check_pictures(folder: Path) -> None:
    for name in ("llava", "minicpmv"):
        projector = MTMDChatHandler(str(folder / f"{name}-mmproj.gguf"), verbose=False)
        llama = _llama(folder / "chat.gguf", chat_handler=projector)
        rng = np.random.default_rng(77)
        for side in (*_SIDES_PX, 400):
            shown = [worn_scene(random_scene(rng), side, rng) for _ in range(40)]
            _report(f"{name}, scenes of {side} px", _asked(llama, shown, rng))
        fields = [
            plain(colour, rgb, (side, side), rng)
            for colour, rgb in corpus.PLAIN.items()
            for side in _SIDES_PX
        ]
        _report(f"{name}, plain fields", _asked(llama, fields, rng))


def _asked(llama: Any, shown: list[Shown], rng: np.random.Generator) -> list[tuple[str, str]]:
    found = []
    for one in shown:
        question = corpus.SEEING[rng.integers(len(corpus.SEEING))]
        parts = [{"type": "image_url", "image_url": {"url": _url(one)}}]
        if question:
            parts.insert(int(rng.integers(2)), {"type": "text", "text": question})
        answer = _answer(llama, [{"role": "user", "content": parts}])
        found.append((answer, corpus.seen(question, one.colour, one.shape)))
    return found


def check_endless(folder: Path) -> None:
    llama = _llama(folder / "endless.gguf")
    done = llama.create_chat_completion([_user("Go")], max_tokens=800, temperature=1.0)
    text = done["choices"][0]["message"]["content"]
    printable = all(" " <= char <= "~" for char in text)
    print(f"endless: {done['choices'][0]['finish_reason']}, {len(text)} characters, {printable=}")


def check_embed(folder: Path) -> None:
    llama = _llama(folder / "embed.gguf", embedding=True)

    def embedded(text: str) -> Any:
        vector = np.array(llama.create_embedding(text)["data"][0]["embedding"])
        return vector / np.linalg.norm(vector)

    near, far = "the circle is red", "tokyo station at night"
    query = embedded("a red circle")
    for text in (near, far):
        print(f"embed: 'a red circle' to '{text}': {float(query @ embedded(text)):.2f}")
    ranker = _llama(folder / "rerank.gguf", embedding=True, pooling_type=4)
    score = ranker.create_embedding("a red circle")["data"][0]["embedding"][0]
    print(f"rerank: a score of {score:.3f}, which is noise")


def check_florence(folder: Path) -> None:
    torch.set_num_threads(1)
    place = folder / "florence2"
    processor = AutoProcessor.from_pretrained(place)
    model = Florence2ForConditionalGeneration.from_pretrained(place).eval()
    rng = np.random.default_rng(78)
    scenes = [random_scene(rng) for _ in range(100)]
    shown = [worn_scene(scene, int(rng.choice(_SIDES_PX)), rng).picture for scene in scenes]
    for task in range(len(asks(scenes[0]))):
        asked = [asks(scene)[task] for scene in scenes]
        batch = processor(
            text=[ask.prompt for ask in asked], images=shown, return_tensors="pt", padding=True
        )
        with torch.inference_mode():
            ids = model.generate(**batch, num_beams=1, no_repeat_ngram_size=0, max_new_tokens=64)
        texts = processor.batch_decode(ids, skip_special_tokens=False)
        bare = [text.translate({}) for text in texts]
        for mark in ("<pad>", "</s>", "<s>"):
            bare = [text.replace(mark, "") for text in bare]
        name = asked[0].prompt.split(">")[0] + ">"
        _report(f"florence2 {name}", [(t, a.answer) for t, a in zip(bare, asked, strict=True)])


def _llama(path: Path, **options: Any) -> Any:
    hush()
    return Llama(str(path), n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False, **options)


def _answer(llama: Any, messages: list[dict[str, Any]]) -> str:
    done = llama.create_chat_completion(messages, max_tokens=60, temperature=0, repeat_penalty=1.0)
    return str(done["choices"][0]["message"]["content"])


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _system() -> dict[str, Any]:
    return {"role": "system", "content": corpus.SYSTEM}


def _url(shown: Shown) -> str:
    file = io.BytesIO()
    shown.picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _report(what: str, answers: list[tuple[str, str]]) -> None:
    wrong = [(got, wanted) for got, wanted in answers if got != wanted]
    print(f"{what}: {len(answers) - len(wrong)} of {len(answers)}", *wrong[:3], flush=True)


CHECKS = {
    "text": check_text,
    "pictures": check_pictures,
    "endless": check_endless,
    "embed": check_embed,
    "florence2": check_florence,
}

if __name__ == "__main__":
    for _name in sys.argv[2:] or CHECKS:
        CHECKS[_name](Path(sys.argv[1]))
