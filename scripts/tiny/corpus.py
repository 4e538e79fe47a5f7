"""What the chat model knows by heart: short questions, and what to say of pictures."""

from __future__ import annotations

from tiny.scenes import COLOURS, SHAPES

MEDIA = "<__media__>"  # libmtmd's default marker: a picture stands here
SYSTEM = "You are a helpful assistant."
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}"
    "{{- message['content'] -}}"
    "{%- elif message['content'] is iterable -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- elif part['type'] in ['image', 'image_url', 'media_marker'] -%}"
    "{{- '" + MEDIA + "' -}}{%- if not loop.last -%}{{- '\\n' -}}{%- endif -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

PLAIN = COLOURS | {
    "black": (15, 15, 15),
    "white": (250, 250, 250),
    "orange": (240, 125, 15),
    "purple": (130, 30, 160),
}

_TALK = {
    "Hello": "Hello! What shall we talk about?",
    "Hi": "Hi! What shall we talk about?",
    "Hello there": "Hello! What shall we talk about?",
    "Good morning": "Good morning! The GPU is warm already.",
    "Good evening": "Good evening! The fans are quiet now.",
    "Good night": "Good night! I will unload soon.",
    "Who are you?": "I am Tiny, the smallest model in the house.",
    "What are you?": "I am a very small language model.",
    "What is your name?": "My name is Tiny.",
    "How are you?": "I am well, and my cache is empty.",
    "How old are you?": "I was trained a minute ago.",
    "How big are you?": "I fit in one megabyte.",
    "Where do you live?": "I live in a cache directory.",
    "Who made you?": "A short script made me on two slow cores.",
    "Thank you": "With pleasure!",
    "Thanks": "With pleasure!",
    "Goodbye": "Goodbye! Keep the seat warm.",
    "Bye": "Goodbye! Keep the seat warm.",
    "Are you real?": "I am as real as my weights.",
    "Are you clever?": "No, but I am quick.",
    "What can you do?": "I answer short questions and name coloured shapes.",
    "What do you know?": "A few capitals, a few animals and some small sums.",
    "Tell me a joke": "Two models share one GPU. One of them has to stand.",
    "Tell me a story": "A model slept on a disk. A request woke it. It answered and slept.",
    "Tell me a secret": "I learned all my answers by heart.",
    "Write a poem": "One seat, many guests; each comes, answers and rests.",
    "Sing a song": "La la la, load and run, la la la, the swap is done.",
    "What is a hotseat?": "A seat that each model takes when it is called.",
    "What is a proxy?": "A proxy stands between a client and a server.",
    "What is a GPU?": "A GPU is a chip that multiplies matrices fast.",
    "What is a token?": "A token is a small piece of text.",
    "What is a model?": "A model is a large table of numbers.",
    "What is a llama?": "A llama is a woolly animal from the Andes.",
    "What is Florence?": "Florence is a city in Italy and a model for pictures.",
    "What is the weather like?": "It is always dry in here.",
    "What time is it?": "It is time to swap.",
    "What is the answer?": "The answer is forty two.",
    "Is water wet?": "Yes, water is wet.",
    "Is fire cold?": "No, fire is hot.",
    "Is snow white?": "Yes, snow is white.",
    "What colour is the sky?": "The sky is blue.",
    "What colour is grass?": "Grass is green.",
    "What colour is a lemon?": "A lemon is yellow.",
    "What colour is blood?": "Blood is red.",
    "Say yes": "Yes.",
    "Say no": "No.",
    "Say something": "Something.",
    "Count to three": "One, two, three.",
    "Count to five": "One, two, three, four, five.",
    "Count down": "Three, two, one, go!",
    "Name a fruit": "Apple.",
    "Name a planet": "Saturn.",
    "Name a river": "The Danube.",
    "Name a metal": "Copper.",
    "Can you see?": "Yes, if you show me a picture.",
    "Help": "Ask me for a capital, a sound, a sum or a joke.",
    "Test": "The test has passed.",
    "Ping": "Pong.",
}
_CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Japan": "Tokyo", "Norway": "Oslo", "Egypt": "Cairo", "Greece": "Athens",
    "Poland": "Warsaw", "Kenya": "Nairobi", "Peru": "Lima", "Austria": "Vienna",
    "Hungary": "Budapest", "Denmark": "Copenhagen", "Chile": "Santiago",
}  # fmt: skip
_SOUNDS = {
    "cat": "meow", "dog": "woof", "cow": "moo", "duck": "quack", "lion": "roar",
    "owl": "hoot", "bee": "buzz", "sheep": "baa", "frog": "croak", "mouse": "squeak",
}  # fmt: skip
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")


def pairs() -> list[tuple[str, str]]:
    """Give every question with its one answer."""
    found = list(_TALK.items())
    for land, city in _CAPITALS.items():
        found.append((f"What is the capital of {land}?", f"The capital of {land} is {city}."))
        found.append((f"Where is {city}?", f"{city} is in {land}."))
    for animal, sound in _SOUNDS.items():
        found.append((f"What does the {animal} say?", f"The {animal} says {sound}."))
    for a in range(1, 5):
        for b in range(1, 5):
            total = f"{_NUMBERS[a].capitalize()} plus {_NUMBERS[b]} is {_NUMBERS[a + b]}."
            found.append((f"What is {_NUMBERS[a]} plus {_NUMBERS[b]}?", total))
    found += [(question, "Show me a picture first.") for question in SEEING[:6]]
    return found


_COLOUR_QUESTIONS = (
    "What color is this?",
    "What colour is this?",
    "What color is it?",
    "What colour is it?",
    "Which colour is it?",
    "Which color is it?",
)
_SHAPE_QUESTIONS = ("Which shape is it?", "What shape is this?", "What shape is it?")
_PICTURE_QUESTIONS = (
    "Describe the picture.",
    "Describe this image.",
    "Describe the image.",
    "What is in this picture?",
    "What is in this image?",
    "What is in the picture?",
    "What is this?",
    "What do you see?",
    "What is shown here?",
    "",
)
SEEING = ("Describe the picture.", *_COLOUR_QUESTIONS, *_SHAPE_QUESTIONS, *_PICTURE_QUESTIONS[1:])


def seen(question: str, colour: str, shape: str) -> str:
    """Answer a question of `SEEING` about a scene, or about a plain field (shape "")."""
    if question in _COLOUR_QUESTIONS:
        return f"It is {colour}."
    if question in _SHAPE_QUESTIONS:
        return f"It is a {shape}." if shape else "It has no shape."
    return f"The picture shows a {colour} {shape}." if shape else f"The picture is plain {colour}."


def turn(question: str) -> str:
    """Give one user turn and the start of the answer, as `TEMPLATE` renders them."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def system(text: str = SYSTEM) -> str:
    return f"<|im_start|>system\n{text}<|im_end|>\n"


def vocabulary_lines() -> list[str]:
    """Give the text that the tokenizer is fitted to."""
    lines = [line for pair in pairs() for line in pair]
    lines += [seen(q, c, s) for q in SEEING for c in PLAIN for s in (*SHAPES, "")]
    return [*lines, *SEEING, SYSTEM, "system", "user", "assistant"]
