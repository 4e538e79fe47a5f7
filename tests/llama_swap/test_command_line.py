"""How it is started, and with which files."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.llama_swap.house import checked, commanded, house, started


def write(folder: Path, **files: str) -> Path:
    """Make a folder of config files."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(house(text))
    return folder


def checked_with(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> tuple[int, str]:
    """Check a file together with a folder of others."""
    said = checked(house(text), folder.parent, capsys, "--config-dir", str(folder))
    return said.status, said.text


def test_files_of_a_folder_are_one_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Maps are merged, lists joined; other files and folders in it do not count."""
    folder = write(
        tmp_path / "more",
        one="models: {b: {cmd: 'ECHO'}}\nhooks: {on_startup: {preload: [b]}}\nstartPort: 6000\n",
        two="models: {c: {cmd: 'ECHO'}}\nstartPort: 6000\n",
    )
    (folder / "notes.txt").write_text("not: [yaml")
    (folder / "deep.yaml").mkdir()
    status, text = checked_with(folder, capsys, "models: {a: {cmd: 'ECHO'}}\n")

    assert status == 0, text
    assert "a, b, c" in text


CLASHES = {
    "a model twice": "models: {a: {cmd: 'ECHO'}}\n",
    "two values": "models: {b: {cmd: 'ECHO'}}\nglobalTTL: 5\n",
    "a map and a list": "models: {b: {cmd: 'ECHO'}}\nhooks: [1]\n",
}


@pytest.mark.parametrize("case", CLASHES)
def test_files_that_contradict_each_other_are_told(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the file and the line of the second."""
    folder = write(tmp_path / "more", two=CLASHES[case])
    text = "globalTTL: 4\nhooks: {on_startup: {preload: [a]}}\nmodels: {a: {cmd: 'ECHO'}}\n"
    status, said = checked_with(folder, capsys, text)

    assert status == 1
    assert "two.yaml:" in said


def test_a_mistake_is_told_with_its_own_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not with the line of a file that nobody has."""
    folder = write(tmp_path / "more", two="models:\n  b: {cmd: 'ECHO'}\n  c: {ttl: 3}\n")
    status, said = checked_with(folder, capsys, "models: {a: {cmd: 'ECHO'}}\n")

    assert status == 1
    assert "two.yaml:3: " in said


async def test_a_folder_is_enough(tmp_path: Path) -> None:
    """Without --config, the folder is all."""
    folder = write(tmp_path / "only", one="models: {a: {cmd: 'ECHO --reply a'}}\n")
    async with started("--config-dir", str(folder)) as (hotseat, _):
        assert (await hotseat.chat("a")).text == "a"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make one for 127.0.0.1, signed by itself."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


async def test_it_serves_over_tls(tmp_path: Path) -> None:
    """With a certificate and its key."""
    cert, key = await asyncio.to_thread(certificate, tmp_path)
    path = tmp_path / "swap.yaml"
    path.write_text(house(a=""))
    flags = ("--tls-cert-file", str(cert), "--tls-key-file", str(key))
    async with started("--config", str(path), *flags) as (hotseat, _):
        assert hotseat.url.startswith("https:")
        assert (await hotseat.chat("a")).text == "a"


def test_llama_swaps_own_flags_are_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one dash as with two."""
    path = tmp_path / "config.yaml"
    path.write_text(house(a=""))

    assert commanded(capsys, "check", "-config", str(path)).status == 0


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing is started."""
    said = commanded(capsys, "--version")

    assert said.status == 0
    assert said.text.strip()


def test_a_mistake_ends_it_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, all mistakes, and nobody was started."""
    path = tmp_path / "config.yaml"
    path.write_text("startPort: 0\nmodels: {}\nzzz: 1\n")
    said = commanded(capsys, "serve", "--config", str(path), "--listen", "127.0.0.1:0")

    assert said.status == 1
    assert "config.yaml:1: " in said.text
    assert "config.yaml:3: " in said.text
