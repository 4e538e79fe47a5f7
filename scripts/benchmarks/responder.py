"""A worker that is up at once: the standard library's sockets, and nothing else to import.

    python -I -S responder.py --port N [--ready-after SECONDS] [--deaf yes]

It answers any POST with who and how old it is; the clock is the machine's, the same for all
processes. What a request wants is said in its headers: `X-Work` (seconds before the answer),
`X-Chunks` (events instead of one answer, each with the time it was sent) and `X-Pause` (seconds
between two). Until it is ready /health is a 503, as llama-server's is. A deaf one ignores SIGTERM.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import time

STARTED = time.monotonic()
OPTIONS = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
PORT = int(OPTIONS["--port"])
READY = STARTED + float(OPTIONS.get("--ready-after", 0))
END = b"\r\n\r\n"


def main() -> None:
    if OPTIONS.get("--deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.create_server(("127.0.0.1", PORT), backlog=128)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _thread.start_new_thread(talk, (connection,))


def talk(connection: socket.socket) -> None:
    """Answer the requests of one connection until the other side leaves."""
    buffer = b""
    try:
        while True:
            while END not in buffer:
                data = connection.recv(1 << 16)
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(END)
            headers = fields(head)
            buffer = without_body(connection, buffer, headers)
            answer(connection, head, headers)
    except OSError:
        return


def fields(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def without_body(connection: socket.socket, buffer: bytes, headers: dict[bytes, bytes]) -> bytes:
    """Read the body away; gives what came after it."""
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        while not buffer.endswith(b"0" + END):
            buffer = buffer[-4:] + connection.recv(1 << 16)
        return b""
    missing = int(headers.get(b"content-length", 0)) - len(buffer)
    while missing > 0:
        data = connection.recv(1 << 16)
        if not data:
            raise ConnectionResetError
        buffer, missing = data, missing - len(data)
    return buffer[len(buffer) + missing :] if missing else b""


def answer(connection: socket.socket, head: bytes, headers: dict[bytes, bytes]) -> None:
    if b"/health" in head.partition(b"\r\n")[0]:
        reply(connection, b"200 OK" if time.monotonic() >= READY else b"503 Loading", b"{}")
    elif chunks := int(headers.get(b"x-chunks", 0)):
        stream(connection, chunks, float(headers.get(b"x-pause", 0)))
    else:
        time.sleep(float(headers.get(b"x-work", 0)))  # noqa: TID251  # a thread of its own
        told = f'{{"pid": {os.getpid()}, "port": {PORT}, "started": {STARTED}, "ready": {READY}}}'
        reply(connection, b"200 OK", told.encode())


def reply(connection: socket.socket, status: bytes, body: bytes) -> None:
    connection.sendall(
        b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (status, len(body), body)
    )


def stream(connection: socket.socket, chunks: int, pause_s: float) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(chunks):
        event = b"data: %.7f\n\n" % time.monotonic()
        connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
        time.sleep(pause_s)  # noqa: TID251  # a thread of its own
    connection.sendall(b"0\r\n\r\n")


if __name__ == "__main__":
    main()
