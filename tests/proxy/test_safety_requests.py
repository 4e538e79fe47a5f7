"""Requests that a server refuses, and pictures that it keeps to itself.

The models that judge are echoes with a fixed reply: what a real one says is no matter of ours.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from tests.proxy.painted import GENERATE, until
from tests.proxy.scripted import command
from tests.proxy.served import Answer, Gate, Hotseat, chat_body, served, spawned

BAD = "a xylophone on fire"
"""Holds a word that is nowhere else: where it is found, a prompt was told."""
RULES = r"safety: {rules: [{label: noise, pattern: '\bxylophone\b'}]}"
CONFIG = f"""
logLevel: debug
{RULES}
models:
  a: {{echo: {{}}}}
  strict: {{echo: {{}}, safety: {{rules: [{{label: quiet, pattern: drum}}]}}}}
  free: {{echo: {{}}, safety: false}}
peers:
  other: {{proxy: http://127.0.0.1:1, models: [far]}}
"""
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(64)
TEXT = base64.b64encode(PICTURE).decode()


def form(**fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData(fields)
    data.add_field("image", PICTURE, filename="x.png", content_type="image/png")
    return data


def a1111(**fields: object) -> dict[str, Any]:
    return {"json": {"model": "a", **fields}}


def large(**fields: str) -> dict[str, Any]:
    raw = io.BytesIO(json.dumps(fields).encode())
    return {"data": raw, "headers": {"Content-Type": "application/json"}}


ASKED: Mapping[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "generation": (GENERATE, lambda: {"json": {"model": "a", "prompt": BAD, "n": 2}}),
    "no-v1": ("/images/generations", lambda: {"json": {"model": "a", "prompt": BAD}}),
    "async": (f"{GENERATE}?async=1", lambda: {"json": {"model": "a", "prompt": BAD}}),
    "edit": ("/v1/images/edits", lambda: {"data": form(model="a", prompt=BAD)}),
    "variation": ("/v1/images/variations", lambda: {"data": form(model="a", prompt=BAD)}),
    "txt2img": ("/sdapi/v1/txt2img", lambda: a1111(prompt=BAD)),
    "img2img": ("/sdapi/v1/img2img", lambda: a1111(prompt=BAD, init_images=[TEXT])),
    "hires": ("/sdapi/v1/txt2img", lambda: a1111(prompt="x", hr_prompt=BAD)),
    "spooled": (
        "/v1/images/edits",
        lambda: large(image="A" * (2 << 20), prompt="x " * 4000 + BAD, model="a"),
    ),
    "upstream": ("/upstream/a/v1//images/%67enerations", lambda: {"json": {"prompt": BAD}}),
    "peer": (GENERATE, lambda: {"json": {"model": "far", "prompt": BAD}}),
    "chat": ("/v1/chat/completions", lambda: {"json": chat_body("strict", BAD)}),
    "completion": ("/v1/completions", lambda: {"json": {"model": "strict", "prompt": BAD}}),
    "upstream-speech": ("/upstream/strict/v1/audio/speech", lambda: {"json": {"input": BAD}}),
}


@pytest.mark.parametrize("way", ASKED)
async def test_a_bad_wish_is_refused_before_anything_is_spent_on_it(
    tmp_path: Path, way: str
) -> None:
    """With the label of the rule, and without a word of it anywhere, the debug log included."""
    path, body = ASKED[way]
    async with served(CONFIG, tmp_path) as hotseat:
        answer = await hotseat.post(path, **body())
        running = await hotseat.running()
        figures = (await hotseat.get("/metrics")).body
        log = (await hotseat.get("/logs")).body

    assert (answer.status, answer.error["code"]) == (400, "safety_filter")
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] in ("prompt", "messages")
    assert "'noise'" in answer.error["message"]
    assert running == {}
    assert 'label="noise"' in figures.partition("hotseat_safety_refusals_total{")[2]
    assert "safety_refused" in log
    assert "xylophone" not in log + json.dumps(answer.body) + str(answer.headers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GENERATE, {"json": {"model": "a", "prompt": "x", "negative_prompt": BAD}}),
        (GENERATE, {"json": {"model": "free", "prompt": BAD}}),
        ("/v1/chat/completions", {"json": chat_body("a", BAD)}),
        ("/upstream/a/v1/chat/completions", {"json": chat_body("a", BAD)}),
        ("/upstream/free/v1/images/generations", {"json": {"prompt": BAD}}),
    ],
    ids=["negative", "lifted", "chat", "upstream-chat", "upstream-lifted"],
)
async def test_all_else_is_let_through(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    """What is not to be painted, what models without rules are asked, and what is only said."""
    async with served(CONFIG, tmp_path) as hotseat:
        answer = await hotseat.post(path, **body)

    assert answer.status == 200


async def test_a_model_adds_its_own_rules_to_those_of_all(tmp_path: Path) -> None:
    """They hold for what is said to it, however far back."""
    asked = chat_body("strict", "and now?")
    asked["messages"].insert(0, {"role": "user", "content": [{"type": "text", "text": "Drums!"}]})
    async with served(CONFIG, tmp_path) as hotseat:
        chat = await hotseat.post("/v1/chat/completions", json=asked)
        painted = await hotseat.post(GENERATE, json={"model": "strict", "prompt": "a drum"})
        client = hotseat.openai()
        with pytest.raises(openai.BadRequestError) as caught:
            await client.images.generate(model="strict", prompt=BAD)

    assert (chat.error["param"], "'quiet'" in chat.error["message"]) == ("messages", True)
    assert painted.error["param"] == "prompt"
    assert caught.value.code == "safety_filter"


async def test_a_prompt_that_is_too_long_to_be_checked_is_refused(tmp_path: Path) -> None:
    """With less than a chat may say; who has no rules takes what its worker takes."""
    long = "word " * 7000
    async with served(CONFIG, tmp_path) as hotseat:
        held = await hotseat.post(GENERATE, json={"model": "a", "prompt": long})
        free = await hotseat.post(GENERATE, json={"model": "free", "prompt": long})
        chat = await hotseat.post("/v1/chat/completions", json=chat_body("strict", long))

    assert (held.status, held.error["code"]) == (400, "text_too_long")
    assert "32768" in held.error["message"]
    assert (free.status, chat.status) == (200, 200)


async def test_a_form_that_hides_its_words_is_refused(tmp_path: Path) -> None:
    """Where they count; elsewhere it goes on as it came."""
    heads = {"Content-Type": "multipart/form-data; boundary=x"}
    raw = (
        '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n{}\r\n'
        '--x\r\nContent-Disposition: form-data; name="prompt"\r\n'
        "Content-Transfer-Encoding: base64\r\n\r\neHlsb3Bob25l\r\n--x--\r\n"
    )
    async with served(CONFIG, tmp_path) as hotseat:
        held, free = [
            await hotseat.post("/v1/images/edits", data=raw.format(model), headers=heads)
            for model in ("a", "free")
        ]

    assert (held.status, held.error["code"]) == (400, "unreadable_text")
    assert free.status == 200


async def test_a_reload_reads_the_files_anew(tmp_path: Path) -> None:
    """A mistake in one leaves the rules as they were."""
    rules = tmp_path / "rules.txt"
    config = CONFIG.replace(r"pattern: '\bxylophone\b'", "file: rules.txt")
    told: list[tuple[int, int]] = []
    why = ""
    rules.write_text("xylophone\n")
    async with spawned(config, tmp_path) as (hotseat, _):
        for text in ("drum\n", "drum\n(\n"):
            rules.write_text(text)
            reloaded = await hotseat.post("/api/reload")
            bad = await hotseat.post(GENERATE, json={"model": "a", "prompt": "drum"})
            told.append((reloaded.status, bad.status))
            why = json.dumps(reloaded.body)
        good = await hotseat.post(GENERATE, json={"model": "a", "prompt": BAD})

    assert told == [(200, 400), (400, 400)]
    assert f"{rules}:2" in why
    assert good.status == 200


# a model judges


def judged_by(reply: str, **echo: object) -> str:
    """Write a config in which the models share one seat, and one of them judges."""
    guard = json.dumps({"reply": reply, **echo})
    models = f"a: {{echo: {{}}}}, guard: {{echo: {guard}}}"
    return f"logLevel: debug\nsafety: {{check: {{model: guard}}}}\nmodels: {{{models}}}"


async def paint(hotseat: Hotseat, prompt: str = "a tree", **more: Any) -> Answer:
    return await hotseat.post(GENERATE, json={"model": "a", "prompt": prompt, **more})


async def swaps_to(hotseat: Hotseat) -> list[str]:
    return [one["model"] for one in (await hotseat.get("/api/swaps")).body["swaps"]]


async def test_what_a_model_finds_safe_is_painted_and_remembered(tmp_path: Path) -> None:
    """It is asked once for each text, and before the request takes its own turn at the seat."""
    async with served(judged_by("safe"), tmp_path) as hotseat:
        answers = [await paint(hotseat) for _ in range(3)]
        swaps = await swaps_to(hotseat)
        other = await paint(hotseat, "another tree")
        acts = (await hotseat.get("/api/metrics/activity")).body["data"]

    assert [answer.status for answer in (*answers, other)] == [200] * 4
    assert sorted(swaps) == ["a", "guard"]
    assert [act["model"] for act in acts].count("guard") == 2


async def test_what_a_model_finds_unsafe_is_refused_and_remembered(tmp_path: Path) -> None:
    """With its label; the painter is not even loaded."""
    async with served(judged_by("unsafe violence"), tmp_path) as hotseat:
        answers = [await paint(hotseat, BAD, negative_prompt=name) for name in ("x", "y")]
        acts = (await hotseat.get("/api/metrics/activity")).body["data"]
        log = (await hotseat.get("/logs")).body
        swaps = await swaps_to(hotseat)

    assert [answer.error["code"] for answer in answers] == ["safety_filter"] * 2
    assert "'violence'" in answers[0].error["message"]
    assert [act["model"] for act in acts] == swaps == ["guard"]
    assert "safety_refused" in log
    assert "xylophone" not in log + json.dumps([answer.body for answer in answers])


@pytest.mark.parametrize(
    ("reply", "echo", "why"),
    [
        ("I would rather not say", {}, "neither safe nor unsafe"),
        ("safe", {"fail": "bad_file"}, "worker_start_failed"),
        ("safe", {"exit_at_load": 3}, "worker_start_failed"),
    ],
    ids=["evades", "is-broken", "dies"],
)
async def test_where_nobody_can_judge_nothing_is_begun(
    tmp_path: Path, reply: str, echo: dict[str, Any], why: str
) -> None:
    """Nor remembered: the next request asks again."""
    async with served(judged_by(reply, **echo), tmp_path) as hotseat:
        answers = [await paint(hotseat) for _ in range(2)]
        running = await hotseat.running()

    assert [answer.status for answer in answers] == [503, 503]
    assert answers[0].error["code"] == "safety_check_failed"
    assert "guard" in answers[0].error["message"]
    assert why in answers[0].error["message"]
    assert "a" not in running


@pytest.mark.parametrize(("told", "status"), [(400, 400), (500, 503), (429, 503)])
async def test_a_model_that_answers_with_an_error_has_not_judged(
    tmp_path: Path, told: int, status: int
) -> None:
    """Only a text that it does not take is the client's mistake."""
    models = (
        "models:\n  a: {echo: {}}\n"
        f"  guard: {{echo: {{}}, filters: {{setParams: {{echo: {{status: {told}}}}}}}}}\n"
    )
    async with served("safety: {check: {model: guard}}\n" + models, tmp_path) as hotseat:
        answer = await paint(hotseat)

    assert (answer.status, answer.error["code"]) == (status, "safety_check_failed")
    assert "guard" in answer.error["message"]


async def test_a_client_that_leaves_is_not_judged_to_the_end(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The model that judges is asked in the client's own time."""
    held = gate()
    config = judged_by("safe", load_gate=str(held.path))
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(paint(hotseat))
        await held.reached()
        asking.cancel()
        acts = await until(hotseat, "/api/metrics/activity", lambda told: told["data"])
        held.open()

    assert [(act["model"], act["resp_status_code"]) for act in acts["data"]] == [("guard", 499)]


# a command judges what was painted

JUDGE = """
import sys
raw = sys.stdin.buffer.read()
open("seen", "ab").write(raw[:4] + b"|")
if raw.endswith(b"bad"):
    print("bad_taste")
    sys.exit(1)
sys.exit(0 if raw.startswith(b"\\x89PNG") else 7)
"""


def watched(folder: Path) -> str:
    """Write a config with a painter whose answers the requests say, and who is watched."""
    (folder / "judge.py").write_text(JUDGE)
    output = f"output: {{command: '{sys.executable} judge.py'}}"
    models = f"a: {{echo: {{}}}}, s: {{cmd: {command()}}}"
    return f"safety: {{{output}}}\nmodels: {{{models}}}"


def picture(ending: bytes = b"") -> str:
    return base64.b64encode(PICTURE + ending).decode()


def said(document: object) -> dict[str, Any]:
    return {"model": "s", "prompt": "x", "answer": json.dumps(document)}


async def test_a_picture_leaves_when_it_was_judged(tmp_path: Path) -> None:
    """As it was painted, or as a link; each one is looked at."""
    two = [{"b64_json": picture()}, {"b64_json": picture(b"x")}]
    async with served(watched(tmp_path), tmp_path) as hotseat:
        plain = await hotseat.post(GENERATE, json=said({"data": two}))
        linked = await paint(hotseat, response_format="url")
        async with hotseat.session.get(linked.body["data"][0]["url"]) as link:
            assert (link.status, link.content_type) == (200, "image/png")
        seen = (tmp_path / "seen").read_bytes()

    assert (plain.status, plain.body["data"]) == (200, two)
    assert seen == b"\x89PNG|" * 3


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_picture_that_is_refused_never_leaves(tmp_path: Path, *, is_async: bool) -> None:
    """The answer is an error with the label, for jobs too."""
    bad = said({"images": [picture(), picture(b"bad")], "info": "{}"})
    async with served(watched(tmp_path), tmp_path) as hotseat:
        if is_async:
            job_id = (await hotseat.post(f"{GENERATE}?async=1", json=bad)).body["id"]
            job = await until(hotseat, f"/api/jobs/{job_id}", lambda told: told["ended_at"])
            answer = await hotseat.get(f"/api/jobs/{job_id}/result")
            assert job["status"] == "failed"
        else:
            answer = await hotseat.post("/sdapi/v1/txt2img", json=bad)
        figures = (await hotseat.get("/metrics")).body

    assert (answer.status, answer.error["code"]) == (400, "safety_filter")
    assert "'bad_taste'" in answer.error["message"]
    assert 'hotseat_safety_refusals_total{label="bad_taste",model="s"} 1.0' in figures


async def test_a_packed_answer_is_unpacked_to_be_judged(tmp_path: Path) -> None:
    """And leaves packed, as it came."""
    good, bad = [
        {**said({"data": [{"b64_json": picture(end)}]}), "is_zipped": True}
        for end in (b"", b"bad")
    ]
    async with served(watched(tmp_path), tmp_path) as hotseat:
        told = await hotseat.post(GENERATE, json=good)
        refused = await hotseat.post(GENERATE, json=bad)

    assert (told.status, told.headers["Content-Encoding"]) == (200, "gzip")
    assert told.body["data"] == [{"b64_json": picture()}]
    assert (refused.status, refused.error["code"]) == (400, "safety_filter")


@pytest.mark.parametrize("ending", [b"", b"bad"])
async def test_a_stream_is_held_back_to_its_end(tmp_path: Path, ending: bytes) -> None:
    """Half-painted pictures are judged like finished ones."""
    events = [
        {"type": "image_generation.partial_image", "b64_json": picture(ending)},
        {"type": "image_generation.completed", "b64_json": picture()},
    ]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    asked = {"model": "s", "prompt": "x", "stream": True, "content_type": "text/event-stream"}
    async with served(watched(tmp_path), tmp_path) as hotseat:
        answer = await hotseat.post(GENERATE, json={**asked, "answer": text})

    assert (answer.status, answer.body) == (200, text) if not ending else answer.status == 400


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (json.dumps({"data": [{"url": "http://elsewhere/x.png"}]}), "holds no picture"),
        (
            json.dumps({"data": [{"b64_json": "R0lGODlh" + "A" * 64}]}),
            "could not: it ended with 7",
        ),
        ('{"data": [{"b64_json": "', "could not: the answer cannot be read"),
    ],
    ids=["none", "unjudged", "half"],
)
async def test_what_cannot_be_judged_does_not_leave(tmp_path: Path, told: str, why: str) -> None:
    """Because there is nothing to look at, or the command fails; where it lies is not told."""
    async with served(watched(tmp_path), tmp_path) as hotseat:
        answer = await hotseat.post(GENERATE, json={**said(None), "answer": told})

    assert (answer.status, answer.error["code"]) == (503, "safety_check_failed")
    assert why in answer.error["message"]
    assert "/" not in answer.error["message"]


async def test_nobody_looks_while_it_is_being_painted(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Neither at previews nor by the worker's own doors."""
    held = gate()
    told = {"step": 1, "steps": 2, "preview": "aGk="}
    echo = {"gate": str(held.path), "progress": told}
    async with served(watched(tmp_path), tmp_path) as hotseat:
        accepted = await hotseat.post(f"{GENERATE}?async=1", json={"model": "a", "echo": echo})
        await held.reached()
        job = (await hotseat.get(f"/api/jobs/{accepted.body['id']}")).body
        a1111 = (await hotseat.get("/sdapi/v1/progress")).body
        doors = [
            await hotseat.get("/upstream/a/progress?preview=1"),
            await hotseat.post("/upstream/a/v1/images/generations", json={"prompt": "x"}),
        ]
        held.open()

    assert job["progress"]["step"] == 1
    assert (job["progress"].get("preview"), a1111["current_image"]) == (None, None)
    assert [door.error["code"] for door in doors] == ["judged_elsewhere"] * 2


@pytest.mark.engine
@pytest.mark.timeout(120)
async def test_every_picture_of_a_real_stream_is_judged(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half-painted ones before the whole one; then the client has them all."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    files = models / "image"
    options = {
        "diffusion_model": str(files / "diffusion.safetensors"),
        "llm": str(files / "llm.gguf"),
        "taesd": str(files / "taesd.safetensors"),
        "n_threads": 1,
        "defaults": {"width": 64, "height": 64, "steps": 2},
    }
    painter = f", painter: {{sd: {json.dumps(options)}}}}}"
    async with served(watched(tmp_path).removesuffix("}") + painter, tmp_path) as hotseat:
        stream = await hotseat.openai().images.generate(
            model="painter",
            prompt="a red circle",
            size="1024x1024",
            stream=True,
            partial_images=1,
            extra_body={"width": 64, "height": 64},
        )
        told = [event.type async for event in stream]
        seen = (tmp_path / "seen").read_bytes()

    assert told[-1] == "image_generation.completed"
    assert seen == b"\x89PNG|" * len([one for one in told if "progress" not in one])
