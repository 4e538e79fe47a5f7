"""`hotseat`: its commands and flags, as typed at a shell."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from proxy.config.model import NO_KIND

ECHO = "models: {a: {echo: {}}}\n"


async def run(folder: Path, *words: str, **environ: str) -> tuple[int | None, str]:
    """Run to the end; tell the status, and what was said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, **environ},
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


@asynccontextmanager
async def serving(folder: Path, *words: str) -> AsyncIterator[str]:
    """Serve for the length of the block; gives the address that was told."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *words),
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    assert process.stderr is not None
    told = ""
    try:
        while not (match := re.search(r"at (https?://\S+)/v1", told)):
            line = await process.stderr.readline()
            assert line, told
            told += line.decode()
        yield match[1]
        process.send_signal(signal.SIGTERM)
        await process.stderr.read()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "words",
    [
        ("-config", "other.yaml", "-listen", "127.0.0.1:0"),
        ("--config=other.yaml", "--listen=127.0.0.1:0"),
        ("serve", "-config-dir", "conf.d", "--watch-config", "--listen", "127.0.0.1:0"),
        pytest.param(
            ("--config", "other.yaml", "--listen", "[::1]:0"),
            marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"),
        ),
    ],
)
async def test_it_is_started_as_llama_swap_is(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Without a command it serves, and one dash is as good as two."""
    (tmp_path / "other.yaml").write_text(ECHO)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.yaml").write_text(ECHO)

    async with (
        serving(tmp_path, *words) as url,
        aiohttp.ClientSession() as client,
        client.get(f"{url}/v1/models") as answer,
    ):
        listed = await answer.json()

    assert [model["id"] for model in listed["data"]] == ["a"]


async def test_without_a_word_it_serves(tmp_path: Path) -> None:
    """It reads swap.yaml, and without one says which it looked for."""
    code, told = await run(tmp_path)

    assert code == 1
    assert told == (
        "swap.yaml: cannot be read: No such file or directory; name another file with --config\n"
        "nothing was started\n"
    )


async def test_config_yaml_is_read_where_there_is_no_swap_yaml(tmp_path: Path) -> None:
    """And it is said that it is."""
    (tmp_path / "config.yaml").write_text(ECHO)

    alone = await run(tmp_path, "check")
    (tmp_path / "swap.yaml").write_text(ECHO.replace("a", "b", 1))
    both = await run(tmp_path, "check")

    assert alone[1].startswith("config.yaml is read, as there is no swap.yaml\nconfig.yaml: 1 mo")
    assert both[1].startswith("swap.yaml: ")


@pytest.mark.parametrize("command", ["serve", "check", "import"])
async def test_each_command_tells_its_flags(tmp_path: Path, command: str) -> None:
    """Its usage begins with its name, and each flag has its words."""
    code, told = await run(tmp_path, command, "--help", COLUMNS="200")

    assert code == 0
    assert told.startswith(f"usage: hotseat {command} [-h] ")
    flags = re.split(r"\n  (?=-)", told)[1:]
    assert len(flags) >= 3
    assert all(re.search(r"(  |\n) *[a-z]+ [a-z]+", flag) for flag in flags)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a certificate of our own; its key lies beside it."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    return tmp_path / "cert.pem"


async def test_https(tmp_path: Path, certificate: Path) -> None:
    """With a certificate and its key, clients that trust it are served."""
    (tmp_path / "swap.yaml").write_text(ECHO)
    trusting = ssl.create_default_context(cafile=str(certificate))
    words = ("--listen", "127.0.0.1:0", "-tls-cert-file", "cert.pem", "-tls-key-file", "key.pem")

    async with (
        serving(tmp_path, *words) as url,
        aiohttp.ClientSession() as client,
        client.get(f"{url}/health", ssl=trusting) as answer,
    ):
        status = answer.status

    assert (url[:8], status) == ("https://", 200)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--tls-cert-file", "cert.pem"), 2, "go together: give both or none"),
        (("--tls-cert-file", "no.pem", "--tls-key-file", "no.pem"), 1, "cannot be used for TLS"),
        (("--version",), 0, "hotseat "),
        (("-version",), 0, "hotseat "),
        (("serve", "--listen", "8080"), 2, "'8080' is not HOST:PORT"),
        (("--config", "no.yaml"), 1, "no.yaml: cannot be read"),
        (("--config-dir", "nowhere"), 1, "nowhere: cannot be read"),
        (("--listen", "127.0.0.1:65536"), 2, "'127.0.0.1:65536' is not HOST:PORT"),
        (("--listen", "none.invalid:9"), 1, "cannot listen on none.invalid:9: "),
        (("check", "--what"), 2, "usage: hotseat [serve]"),
        (("check", "--memory=9"), 2, "usage: hotseat check [-h]"),
        (("check", "--config", "no.yaml"), 1, "; beside it there would be swap.yaml; name"),
        (("import",), 2, "arguments are required: --from"),
    ],
)
async def test_what_cannot_be_done_is_said(
    tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    """And so is the version."""
    (tmp_path / "swap.yaml").write_text(ECHO)

    code, told = await run(tmp_path, *words)

    assert code == status
    assert said in told


SLACK = """\
models:
  a: {cmd: "${env.PROGRAM} --port ${PORT}", aliases: [b, "${env.NAME_OF_A}"]}
  b: {echo: {}, ttl: 5}
futureKey: 1
"""


async def test_check_tells_what_was_understood(tmp_path: Path) -> None:
    """A line for each model, then warnings; no value of the environment is shown."""
    (tmp_path / "swap.yaml").write_text(SLACK)
    environ = {"PROGRAM": "/opt/run-it", "NAME_OF_A": "hush-hush"}

    code, told = await run(tmp_path, "check", "--compat", **environ)

    assert code == 0
    assert told.splitlines() == [
        "swap.yaml: 2 model(s), no mistakes: a, b",
        "  a  cmd run-it · any free port · stays · 10 at once · also ${env.NAME_OF_A}",
        "  b  echo · socket · unloaded after 5 s · 10 at once",
        "warning: swap.yaml:2: models.a.aliases.0: 'b' is a model's id; this is left out",
        "warning: swap.yaml:4: futureKey: unknown key; known are: "
        + told.partition("known are: ")[2].partition("\nnote: ")[0],
        "note: swap.yaml:2: models.a.cmd: there is no program '${env.PROGRAM}' on this machine",
    ]


async def test_check_looks_for_the_programs(tmp_path: Path) -> None:
    """Where the worker would: from the config's folder, or along its own PATH."""
    (tmp_path / "bin").mkdir()
    for program in (tmp_path / "mine", tmp_path / "bin" / "its"):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    (tmp_path / "swap.yaml").write_text(
        "models:\n"
        "  a: {cmd: './mine ${PORT}', cmdStop: stop-it}\n"
        f"  b: {{cmd: 'its ${{PORT}}', env: ['PATH={tmp_path}/bin']}}\n"
        "  c: {cmd: 'its ${PORT}'}\n"
        "  d: {cmd: 'KEY=hush-hush sh ${PORT}'}\n"
    )

    code, told = await run(tmp_path, "check")

    assert code == 0
    assert [line.partition("models.")[2] for line in told.splitlines() if "note: " in line] == [
        "a.cmdStop: there is no program 'stop-it' on this machine",
        "c.cmd: there is no program 'its' on this machine",
        "d.cmd: there is no program 'KEY' on this machine",
    ]
    assert "hush" not in told


async def test_check_shows_no_password(tmp_path: Path) -> None:
    """Nor what stands before an address."""
    (tmp_path / "swap.yaml").write_text(
        "models: {a: {cmd: sh, proxy: 'http://me:hush-hush@127.0.0.1:9'}}\n"
    )

    _, told = await run(tmp_path, "check")

    assert "a  cmd sh · http://127.0.0.1:9 · stays" in told


async def test_check_tells_when_it_could_not_see_all(tmp_path: Path) -> None:
    """Where a variable is missing nobody knows what the file says."""
    (tmp_path / "swap.yaml").write_text(SLACK)

    missing = await run(tmp_path, "check", PROGRAM="x")
    wrong = await run(tmp_path, "check", PROGRAM="x", NAME_OF_A="y")

    assert "what else there may be is seen when that is mended" in missing[1]
    assert "what else" not in wrong[1]


async def test_check_names_the_way_out(tmp_path: Path) -> None:
    """Without --compat what llama-swap lets pass is an error, and the flag is told."""
    (tmp_path / "swap.yaml").write_text(SLACK)

    code, told = await run(tmp_path, "check", PROGRAM="x", NAME_OF_A="y")

    assert code == 1
    assert "2 mistake(s) in swap.yaml\n" in told
    assert "llama-swap would let 2 of them pass; with --compat they are left out" in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "llama-swap would let it pass; with --compat it is left out"),
        ("startPort: 0\n", "llama-swap would let one of them pass; with --compat it is left out"),
    ],
)
async def test_one_mistake_is_not_some(tmp_path: Path, more: str, said: str) -> None:
    """What can be left out is counted as people count; only `serve` started nothing."""
    (tmp_path / "swap.yaml").write_text(f"{ECHO}futureKey: 1\n{more}")

    _, checked = await run(tmp_path, "check")
    _, served = await run(tmp_path, "serve")

    assert said in checked.splitlines()
    assert "nothing was started" not in checked
    assert "mistake(s) in swap.yaml; nothing was started\n" in served


async def test_what_was_left_out_is_told_beside_what_came_of_it(tmp_path: Path) -> None:
    """With --compat a model that is gone makes mistakes of those that name it."""
    (tmp_path / "swap.yaml").write_text(
        "models:\n  a: {echo: {}}\n  b: {comand: x, aliases: [bee]}\n"
        "groups: {g: {members: [a, b, bee]}}\n"
    )

    code, told = await run(tmp_path, "check", "--compat")

    assert code == 1
    gone = "is no model any more: its entry was left out"
    assert told.splitlines() == [
        f"warning: swap.yaml:3: models.b: names nothing to run; {NO_KIND}; this is left out",
        "warning: swap.yaml:3: models.b.comand: unknown key; did you mean cmd?; this is left out",
        f"swap.yaml:4: groups.g.members.1: 'b' {gone}",
        f"swap.yaml:4: groups.g.members.2: 'bee' {gone}",
        "2 mistake(s) in swap.yaml",
    ]


async def test_import_writes_a_file_but_not_over_another(tmp_path: Path) -> None:
    """Without a target it is printed."""
    (tmp_path / "config.yaml").write_text(ECHO)

    printed = await run(tmp_path, "import", "--from", "config.yaml")
    first = await run(tmp_path, "import", "-from", "config.yaml", "-to", "swap.yaml")
    second = await run(tmp_path, "import", "--from", "config.yaml", "--to", "swap.yaml")

    assert ECHO in (tmp_path / "swap.yaml").read_text()
    assert (printed[0], ECHO in printed[1], first[0]) == (0, True, 0)
    assert second == (1, "swap.yaml: cannot be written: File exists\n")
