"""How `cmd:` workers are started and stopped: ports, check endpoints, stop commands, reasons."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from proxy.process.named_files import missing_file
from proxy.process.ports import NoPort, Ports
from tests.nvml.device import ScriptedGpu
from tests.proxy import bytes_counted
from tests.proxy.bytes_counted import GIB, answered, on_card
from tests.proxy.served import Gate, Hotseat, all_gone, is_alive, served, spawned, workers_of

ECHO = f"{sys.executable} -P -m workers.echo --port ${{PORT}}"
PYTHON = Path(sys.executable)

gpu = bytes_counted.gpu


DAEMON = """
import os, sys, threading
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.argv[1], sys.argv[1:])
    os._exit(0)
os.wait()
threading.Event().wait()
"""


def command(*words: str, **options: object) -> str:
    """Write a `cmd` that runs an echo with these switches."""
    return " ".join([ECHO, *words, f"--options '{json.dumps(options)}'"])


def config_of(models: dict[str, dict[str, Any]], **above: object) -> str:
    return json.dumps({**above, "models": models})


def script(folder: Path, code: str) -> str:
    """Keep a Python program; gives how to run it."""
    path = folder / "program.py"
    path.write_text(code)
    return f"{sys.executable} -I -S {path}"


async def worker_of(hotseat: Hotseat, model: str) -> psutil.Process:
    """Find the process that a `cmd` is, under its guard."""
    guard = psutil.Process((await hotseat.running())[model]["pid"])
    [process] = guard.children()
    return process


# Stopping.


async def test_a_stop_command_ends_the_worker_itself(tmp_path: Path) -> None:
    """CmdStop runs instead of SIGTERM, and ${PID} is the command's own process."""
    stop = f"{sys.executable} -c 'import os, sys; os.kill(int(sys.argv[1]), 9)' ${{PID}}"
    model = {"cmd": command(ignore_sigterm=True), "cmdStop": stop}
    async with served(config_of({"a": model}, unloadTimeout=60), tmp_path) as hotseat:
        await hotseat.chat("a")
        process = await worker_of(hotseat, "a")
        await hotseat.post("/api/models/unload/a")

        assert not is_alive(process)
        assert workers_of(os.getpid()) == []


async def test_a_stop_command_has_the_environment_of_its_worker(tmp_path: Path) -> None:
    """It sees `env` and the port, and its lines are in the model's log."""
    program = script(
        tmp_path,
        "import os, sys\n"
        "print('stops', os.environ['WHO'], *sys.argv[1:])\n"
        "os.kill(int(sys.argv[2]), 15)\n",
    )
    stop = f"{program} ${{PORT}} ${{PID}}"
    model = {"cmd": command(), "cmdStop": stop, "env": ["WHO=a at ${PORT}"]}
    async with served(config_of({"a": model}), tmp_path) as hotseat:
        await hotseat.chat("a")
        process = await worker_of(hotseat, "a")
        port = (await hotseat.running())["a"]["proxy"].rpartition(":")[2]
        await hotseat.post("/api/models/unload/a")

        lines = (await hotseat.get("/logs")).body
        assert f"stops a at {port} {port} {process.pid}" in lines


@pytest.mark.parametrize(
    "stop", [f"{sys.executable} -c 'raise SystemExit(3)'", "no-such-program ${PID}"]
)
async def test_a_stop_command_that_fails_is_followed_by_a_signal(
    tmp_path: Path, stop: str
) -> None:
    """SIGTERM has the rest of the grace, at once."""
    config = config_of({"a": {"cmd": command(), "cmdStop": stop}}, unloadTimeout=60)
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        process = await worker_of(hotseat, "a")
        await hotseat.post("/api/models/unload/a")

        assert not is_alive(process)
        assert "stop_command_failed" in (await hotseat.get("/logs")).body


async def test_a_stop_command_that_hangs_is_bounded_by_the_grace(tmp_path: Path) -> None:
    """When the grace is over, it is ended together with the worker."""
    stop = f"{sys.executable} -c 'import threading; threading.Event().wait()'"
    config = config_of({"a": {"cmd": command(), "cmdStop": stop}}, unloadTimeout=0.3)
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        process = await worker_of(hotseat, "a")
        await hotseat.post("/api/models/unload/a")

        assert not is_alive(process)
        assert workers_of(os.getpid()) == []


@pytest.mark.parametrize("way", ["swap", "unload", "ttl", "shutdown"])
async def test_one_grace_on_every_path(tmp_path: Path, way: str) -> None:
    """Who ignores SIGTERM is killed after unloadTimeout, whatever ends it."""
    deaf = {"cmd": command(ignore_sigterm=True), "ttl": 0.2 if way == "ttl" else 0}
    config = config_of({"a": deaf, "b": {"echo": {}}}, unloadTimeout=0.3, healthCheckTimeout=60)
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        process = await worker_of(hotseat, "a")
        if way == "swap":
            assert (await hotseat.chat("b")).status == 200
        elif way == "unload":
            await hotseat.post("/api/models/unload/a")
        elif way == "ttl":
            await hotseat.log_line("unloaded model=a cause=ttl")

    assert not is_alive(process)


async def test_a_grandchild_with_our_pipes_delays_no_swap(tmp_path: Path) -> None:
    """What left the worker's group and holds its output open ends with it, at once."""
    program = script(
        tmp_path,
        "import http.server, os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    print('left', os.getpid(), flush=True)\n"
        "    import threading; threading.Event().wait()\n"
        "class Face(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Face).serve_forever()\n",
    )
    models = {"a": {"cmd": f"{program} ${{PORT}}"}, "b": {"echo": {"reply": "I am b"}}}
    async with served(config_of(models), tmp_path) as hotseat:
        await hotseat.post("/api/models/load/a")
        line = await hotseat.log_line(r"^left \d+")
        orphan = psutil.Process(int(line.split()[1]))
        answer = await hotseat.chat("b")
        assert answer.text == "I am b"
        assert not is_alive(orphan)


@pytest.mark.parametrize("way", ["setsid", "daemon"])
@pytest.mark.parametrize("grace_s", [60, 0.3])
async def test_who_has_left_the_group_ends_with_the_worker(
    tmp_path: Path, way: str, grace_s: float
) -> None:
    """A session of its own, or a daemon's: SIGTERM finds it, and SIGKILL after the grace."""
    serve = [sys.executable, "-I", "-S", "-c", DAEMON] if way == "daemon" else ["setsid"]
    words = shlex.join(serve)
    config = config_of(
        {"a": {"cmd": f"{words} {command(ignore_sigterm=grace_s < 1)}"}},
        unloadTimeout=grace_s,
    )
    async with served(config, tmp_path) as hotseat:
        assert (await hotseat.chat("a")).status == 200
        family = workers_of(os.getpid())
        await hotseat.post("/api/models/unload/a")

        assert len(family) >= 2
        assert not any(map(is_alive, family))


async def test_who_has_left_the_group_ends_with_a_killed_proxy(tmp_path: Path) -> None:
    """The guard has adopted it, and takes it along."""
    words = shlex.join([sys.executable, "-I", "-S", "-c", DAEMON])
    async with spawned(config_of({"a": {"cmd": f"{words} {command()}"}}), tmp_path) as (
        hotseat,
        proxy,
    ):
        assert (await hotseat.chat("a")).status == 200
        family = workers_of(proxy.pid)
        proxy.kill()
        await proxy.wait()

        assert await all_gone(family, within_s=5)


async def test_what_a_dead_worker_has_left_goes_before_it_is_started_anew(tmp_path: Path) -> None:
    """A command that dies leaves nobody who holds its port or its memory, deaf or not."""
    deaf = "import signal, threading; signal.signal(15, signal.SIG_IGN); threading.Event().wait()"
    program = script(
        tmp_path,
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    print('left', os.getpid(), flush=True)\n"
        f"    os.execv(sys.executable, [sys.executable, '-c', {deaf!r}])\n"
        "sys.exit(3)\n",
    )
    async with served(config_of({"a": {"cmd": f"{program} ${{PORT}}"}}), tmp_path) as hotseat:
        assert (await hotseat.post("/api/models/load/a")).status == 502
        line = await hotseat.log_line(r"^left \d+")

        assert not psutil.pid_exists(int(line.split()[1]))


# Ports.


async def test_the_port_is_told_wherever_it_is_written(tmp_path: Path) -> None:
    """${PORT} is one number in cmd, proxy, checkEndpoint and env."""
    program = script(
        tmp_path,
        "import http.server, os, sys\n"
        "print('port', sys.argv[1], os.environ['AT'], flush=True)\n"
        "class Face(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200 if self.path == f'/up/{sys.argv[1]}' else 500)\n"
        "        self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Face).serve_forever()\n",
    )
    model = {
        "cmd": f"{program} ${{PORT}}",
        "proxy": "http://localhost:${PORT}/",
        "checkEndpoint": "/up/${PORT}",
        "env": ["AT=<${PORT}>"],
    }
    async with served(config_of({"a": model}), tmp_path) as hotseat:
        loaded = await hotseat.post("/api/models/load/a")
        entry = (await hotseat.running())["a"]
        port = entry["proxy"].removeprefix("http://localhost:")

        assert loaded.status == 200
        assert f"port {port} <{port}>" in (await hotseat.get("/logs")).body
        assert entry["cmd"].endswith(f" {port}")


def test_ports_are_given_once_and_taken_are_passed_by() -> None:
    """From the first one on: neither who listens nor who is about to is disturbed."""
    ports = Ports()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        one, two = ports.give(first), ports.give(first)

        assert first < one < two
        ports.take_back(one)
        assert ports.give(first) == one
        assert len({ports.give(None) for _ in range(50)}) == 50


def test_no_port_is_told() -> None:
    """When nothing is free from the first one on, that is an error and no endless search."""
    with socket.create_server(("127.0.0.1", 65535)), pytest.raises(NoPort, match="65535 on"):
        Ports().give(65535)


async def test_start_port_is_where_ports_begin(tmp_path: Path) -> None:
    """Two workers at once have two ports, from startPort on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        models = {name: {"cmd": command(), "pin": True} for name in "ab"}
        async with served(config_of(models, startPort=first), tmp_path) as hotseat:
            for name in models:
                await hotseat.log_line(f"swap came={name}")
            running = await hotseat.running()
            ports = {int(one["proxy"].rpartition(":")[2]) for one in running.values()}

            assert len(ports) == 2
            assert min(ports) > first


async def test_a_port_that_is_stolen_is_no_failure(tmp_path: Path) -> None:
    """Who finds its port taken when it comes to bind it gets another one."""
    program = script(
        tmp_path,
        "import http.server, pathlib, sys\n"
        f"tried = pathlib.Path({str(tmp_path / 'tried')!r})\n"
        "if not tried.exists():\n"
        "    tried.write_text(sys.argv[1])\n"
        "    sys.exit('OSError: [Errno 98] Address already in use')\n"
        "class Face(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Face).serve_forever()\n",
    )
    async with served(config_of({"a": {"cmd": f"{program} ${{PORT}}"}}), tmp_path) as hotseat:
        loaded = await hotseat.post("/api/models/load/a")

        assert loaded.status == 200
        port = (await hotseat.running())["a"]["proxy"].rpartition(":")[2]
        assert (tmp_path / "tried").read_text() != port


def test_a_port_of_ones_own_is_had_by_one() -> None:
    """It is given to nobody else until it is back."""
    ports = Ports()
    ports.claim(45678)
    with pytest.raises(NoPort, match="45678"):
        ports.claim(45678)
    assert ports.give(45678) != 45678
    ports.take_back(45678)

    ports.claim(45678)


def at_port(port: int, name: str) -> dict[str, Any]:
    """Describe a model with a port of its own."""
    options = json.dumps({"reply": f"I am {name}"})
    serve = f"{sys.executable} -P -m workers.echo --port {port} --options '{options}'"
    return {"cmd": serve, "proxy": f"http://127.0.0.1:{port}"}


async def test_two_models_at_one_port_are_no_two_workers(tmp_path: Path) -> None:
    """Where both had room, the second is told why it cannot come; one at a time, both serve."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    models = {name: at_port(port, name) for name in "ab"}
    both = {"both": {"swap": False, "members": ["a", "b"]}}
    async with served(config_of(models, groups=both), tmp_path) as hotseat:
        assert (await hotseat.chat("a")).text == "I am a"
        refused = await hotseat.chat("b")
        assert refused.status == 502
        assert f"port {port} is another worker's" in refused.error["message"]
        assert (await hotseat.chat("a")).text == "I am a"
    async with served(config_of(models), tmp_path) as hotseat:
        assert (await hotseat.chat("a")).text == "I am a"
        assert (await hotseat.chat("b")).text == "I am b"


async def test_a_stranger_at_the_port_is_not_taken_for_the_worker(tmp_path: Path) -> None:
    """Who served there before the command was started is not it: the command dies of it."""
    async with served(config_of({"theirs": {"cmd": command()}}), tmp_path) as stranger:
        await stranger.chat("theirs")
        port = int((await stranger.running())["theirs"]["proxy"].rpartition(":")[2])
        folder = tmp_path / "ours"
        folder.mkdir()
        async with served(config_of({"a": at_port(port, "a")}), folder) as hotseat:
            refused = await hotseat.chat("a")

            assert refused.status == 502
            assert "somebody else has its port" in refused.error["message"]
            assert "port_was_taken" in (await hotseat.get("/logs")).body


# Getting ready.


async def test_ready_is_found_in_milliseconds(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """From the moment when the worker would say 200 to the first byte: no second's rhythm."""
    load = gate()
    async with (
        served(config_of({"a": {"cmd": command(load_gate=str(load.path))}}), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        asked = tasks.create_task(hotseat.chat("a"))
        await load.reached()
        clock = asyncio.get_running_loop().time
        load.open()
        opened = clock()
        assert (await asked).status == 200

        assert clock() - opened < 0.7


async def test_a_check_that_never_answers_is_bounded(tmp_path: Path) -> None:
    """A health endpoint that takes the question and is silent costs healthCheckTimeout."""
    models = {
        "hangs": {"cmd": command(health_hangs=True), "healthCheckTimeout": 0.8},
        "b": {"echo": {"reply": "I am b"}},
    }
    config = config_of(models, healthCheckTimeout=60, unloadTimeout=0.2)
    async with served(config, tmp_path) as hotseat:
        late = await hotseat.chat("hangs")

        assert (late.status, late.error["code"]) == (504, "worker_start_timeout")
        assert (await hotseat.chat("b")).text == "I am b"


@pytest.mark.parametrize("status", [204, 302])
async def test_ready_is_200_and_nothing_else(tmp_path: Path, status: int) -> None:
    """Other answers that are no errors are not ready either."""
    model = {"cmd": command(health_status=status), "healthCheckTimeout": 0.8}
    async with served(config_of({"a": model}), tmp_path) as hotseat:
        late = await hotseat.chat("a")

        assert late.error["code"] == "worker_start_timeout"


async def test_without_a_check_it_is_ready_when_it_listens(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """`checkEndpoint: none` asks nothing, and still sends no request to a closed port."""
    listen = gate()
    model = {
        "cmd": command(listen_gate=str(listen.path), health_status=500),
        "checkEndpoint": "none",
    }
    async with (
        served(config_of({"a": model}), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        asked = tasks.create_task(hotseat.chat("a"))
        await listen.reached()
        assert (await hotseat.running())["a"]["state"] == "starting"
        listen.open()

        assert (await asked).status == 200


# Why it did not start.


@pytest.mark.parametrize(
    ("words", "reason", "code"),
    [
        ("CUDA error: out of memory", "out of memory", "capacity_exceeded"),
        ("error: invalid argument: --ngl", "see its options", "worker_start_failed"),
        ("gguf_init: failed to open x: No such file", "see the paths", "worker_start_failed"),
        ("failed to bind the server socket", "has its port", "worker_start_failed"),
    ],
)
async def test_a_failed_start_says_why(tmp_path: Path, words: str, reason: str, code: str) -> None:
    """The worker's own words, and what they mean."""
    model = {"cmd": command(exit_at_load=1, detail=words)}
    async with served(config_of({"a": model}), tmp_path) as hotseat:
        failed = await hotseat.chat("a")

        assert failed.error["code"] == code
        assert words in failed.error["message"]
        assert reason in failed.error["message"]
        assert "status 1" in failed.error["message"]


async def test_a_start_that_is_killed_says_so(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """SIGKILL from outside is most often the kernel's."""
    load = gate()
    async with (
        served(config_of({"a": {"cmd": command(load_gate=str(load.path))}}), tmp_path) as hotseat,
        asyncio.TaskGroup() as tasks,
    ):
        asked = tasks.create_task(hotseat.chat("a"))
        await load.reached()
        (await worker_of(hotseat, "a")).send_signal(signal.SIGKILL)

        assert "signal 9" in (await asked).error["message"]
        assert "host memory" in (await asked).error["message"]


async def test_a_file_that_is_missing_costs_the_seated_one_nothing(tmp_path: Path) -> None:
    """The model files in a command are looked for before anybody leaves."""
    models = {"a": {"echo": {}}, "f": {"cmd": command("-m", "nowhere.gguf")}}
    async with served(config_of(models), tmp_path) as hotseat:
        await hotseat.chat("a")
        pid = (await hotseat.running())["a"]["pid"]
        refused = await hotseat.chat("f")

        assert refused.status == 502
        assert "no such file: nowhere.gguf" in refused.error["message"]
        assert (await hotseat.running())["a"]["pid"] == pid


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ("-m no.gguf", "no.gguf"),
        ("--model=no.gguf --port 1", "no.gguf"),
        ("-m there.gguf --mmproj no.gguf", "no.gguf"),
        ("-m there.gguf --alias no.gguf", None),
        ("-hf org/name --hf-file no.gguf", None),
        ("--model-url https://host/no.gguf -m no.gguf", None),
        ("run.sh docker run image -m /models/no.gguf", None),
        ("-c 'exec server -m no.gguf'", None),
    ],
)
def test_which_files_are_looked_for(tmp_path: Path, words: str, missing: str | None) -> None:
    """Only those that the program itself will read here, and that nothing fetches first."""
    (tmp_path / "there.gguf").touch()
    argv = ["llama-server", *words.split(" ")] if "'" not in words else ["sh", "-c", words[4:-1]]

    assert missing_file(argv, PYTHON, tmp_path) == missing


def test_a_script_may_find_its_files_elsewhere(tmp_path: Path) -> None:
    """What a wrapper makes of a name is not ours to know."""
    wrapper = tmp_path / "serve"
    wrapper.write_text("#!/bin/sh\n")

    assert missing_file(["serve", "-m", "no.gguf"], wrapper, tmp_path) is None


# The very end.


async def test_a_proxy_that_ends_waits_for_no_memory(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """A process that is gone is enough then, whatever its grace, though the driver is slow."""
    models = {name: on_card(gpu, 8 * GIB) for name in "ab"}
    config = bytes_counted.config_of(models, gpu={"memory": "auto"}, unloadTimeout=60)
    async with served(config, tmp_path) as hotseat:
        await answered(*(hotseat.chat(name) for name in models))
        workers = workers_of(os.getpid())
        for number, entry in enumerate((await hotseat.running()).values()):
            (gpu.held / str(entry["pid"])).rename(gpu.held / f"stuck-{number}")

    assert workers
    assert not any(map(is_alive, workers))


# What is loaded at the start.


async def test_preloaded_models_come_one_after_the_other(tmp_path: Path) -> None:
    """In the order of the list, by id or alias; one that fails is told and stops nobody."""
    config = config_of(
        {
            "a": {"echo": {}},
            "broken": {"echo": {"exit_at_load": 1}},
            "c": {"echo": {}, "aliases": ["see"]},
        },
        hooks={"on_startup": {"preload": ["a", "broken", "see"]}},
    )
    async with served(config, tmp_path) as hotseat:
        await hotseat.log_line(r"swap came=c left=\S+ cause=preload")
        lines = (await hotseat.get("/logs")).body

        assert lines.index("came=a") < lines.index("load_failed model=broken cause=preload")
        assert list(await hotseat.running()) == ["c"]
