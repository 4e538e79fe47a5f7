"""A tour of the shipped swap.yaml: starts Hotseat, uses every model with the openai client.

Pictures go to out/. Afterwards Hotseat goes on serving until Ctrl-C.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out"
DIM, BOLD, PLAIN = ("\033[2m", "\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
PHASE = re.compile(r"(\w+)_s=(\S+)")
SWAP = re.compile(r" swap came=(?P<came>\S+) left=(?P<left>\S+) (?P<phases>.*)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--no-tour", action="store_true", help="only serve")
    args = parser.parse_args()
    with served(args.port) as proxy:
        base_url = f"http://127.0.0.1:{args.port}/v1"
        if not args.no_tour:
            began = time.monotonic()
            tour(openai.OpenAI(base_url=base_url, api_key="none"))
            title(f"Six models on one seat, in {time.monotonic() - began:.1f} s")
        print(what_next(base_url), flush=True)
        return proxy.wait()


@contextmanager
def served(port: int) -> Iterator[subprocess.Popen[str]]:
    """Run `hotseat serve` for the length of the block; show its swaps as they happen."""
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(ROOT / "swap.yaml")]
    env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    proxy = subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{port}"],
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=ROOT,
        start_new_session=True,  # Ctrl-C comes to us, and we pass it on once
    )
    serves = threading.Event()
    shown = threading.Thread(target=show, args=(proxy, serves), daemon=True)
    shown.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        wait_for(serves)
        if proxy.poll() is not None:
            sys.exit(proxy.returncode)
        yield proxy
    except KeyboardInterrupt:
        print("\nstopping …")
    finally:
        proxy.terminate()
        proxy.wait()
        shown.join()  # it has more to show than it had time for


def wait_for(serves: threading.Event) -> None:
    try:
        serves.wait()
    except KeyboardInterrupt:
        sys.exit(130)


def show(proxy: subprocess.Popen[str], serves: threading.Event) -> None:
    """Print what a person wants to see of the proxy's log."""
    for line in proxy.stderr or ():
        if swap := SWAP.search(line):
            phases = " · ".join(f"{n} {float(t):.2f} s" for n, t in PHASE.findall(swap["phases"]))
            left = "the seat was free" if swap["left"] == "nobody" else f"{swap['left']} left"
            print(f"  {DIM}⇄ {left}, {swap['came']} came: {phases}{PLAIN}", flush=True)
        elif " info " not in line:
            print(f"  {DIM}{line.rstrip()}{PLAIN}", flush=True)
        if "Hotseat serves" in line:
            serves.set()
    proxy.wait()
    serves.set()


def tour(client: openai.OpenAI) -> None:
    OUT.mkdir(exist_ok=True)
    title("1  A chat model")
    ask(client, "chat", "What is the capital of France?")
    title("2  The same, streamed")
    stream(client, "chat", "Tell me a story")
    title("3  An image model paints")
    red = paint(client, "a red circle")
    blue = paint(client, "a blue square")
    title("4  A captioner looks at the pictures")
    for picture in (red, blue):
        ask(client, "florence-2", "<CAPTION>", picture)
    ask(client, "florence-2", "find the objects", red)
    title("5  Two vision models chat about them")
    for model in ("llava", "minicpm-v"):
        ask(client, model, "What is in this picture?", red)
        ask(client, model, "What color is it?", blue)
    title("6  Embeddings, and back to the chat")
    texts = ["a red circle", "the circle is red", "night in Tokyo"]
    a, b, c = (d.embedding for d in client.embeddings.create(model="embed", input=texts).data)
    for other, near in ((texts[1], dot(a, b)), (texts[2], dot(a, c))):
        print(f"  embed: {texts[0]!r} and {other!r}: {near:.2f}", flush=True)
    ask(client, "chat", "Thank you")


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def title(text: str) -> None:
    print(f"\n{BOLD}{text}{PLAIN}", flush=True)


def messages(text: str, picture: Path | None = None) -> list[Any]:
    if picture is None:
        return [{"role": "user", "content": text}]
    uri = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    parts = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def ask(client: openai.OpenAI, model: str, text: str, picture: Path | None = None) -> None:
    about = f" [{picture.name}]" if picture else ""
    answer = client.chat.completions.create(model=model, messages=messages(text, picture))
    print(
        f"  you → {model}{about}: {text}\n  {model}: {answer.choices[0].message.content}",
        flush=True,
    )


def stream(client: openai.OpenAI, model: str, text: str) -> None:
    print(f"  you → {model}: {text}\n  {model}: ", end="")
    for chunk in client.chat.completions.create(model=model, messages=messages(text), stream=True):
        print(
            (chunk.choices[0].delta.content if chunk.choices else None) or "", end="", flush=True
        )
    print()


def paint(client: openai.OpenAI, prompt: str) -> Path:
    began = time.monotonic()
    answer = client.images.generate(model="painter", prompt=prompt)
    path = OUT / f"{prompt.replace(' ', '-')}.png"
    path.write_bytes(base64.b64decode((answer.data or [])[0].b64_json or ""))
    took = time.monotonic() - began
    print(
        f"  you → painter: {prompt}\n  painter: {path.relative_to(ROOT)} ({took:.1f} s)",
        flush=True,
    )
    return path


def what_next(base_url: str) -> str:
    root = base_url.removesuffix("/v1")
    return f"""
Hotseat goes on serving at {base_url}. In another terminal:

  curl {base_url}/models
  curl {base_url}/chat/completions -d \\
    '{{"model": "chat", "messages": [{{"role": "user", "content": "Hello"}}]}}'
  curl {base_url}/images/generations -d '{{"model": "painter", "prompt": "a green square"}}'
  curl {root}/running
  curl -X POST {root}/unload

Point any OpenAI client at {base_url} (any key). Your own models: swap.yaml. Stop: Ctrl-C."""


if __name__ == "__main__":
    sys.exit(main())
