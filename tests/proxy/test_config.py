"""swap.yaml: what it may say, and how its mistakes are told."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from proxy.config import ConfigError, load_config
from proxy.config.document import read_document
from proxy.config.schema import Config, ModelConfig
from proxy.macros import UnknownMacro, expand
from workers.florence2.options import Florence2Options
from workers.llama.options import LlamaOptions
from workers.sd.options import SdOptions

ONE_KIND = "it needs exactly one of llama, sd, florence2, echo or cmd"
NO_NUMBER = "Input should be a valid number, unable to parse string as a number"
ROOT = Path(__file__).parent.parent.parent


def load(text: str, folder: Path) -> Config:
    path = folder / "swap.yaml"
    path.write_text(text)
    return load_config(path, {"HOME": "/home/me", "SECRET": "s3"})[0]


def mistakes(text: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, folder)
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    """One reading of the file finds them all, each where it stands."""
    told = mistakes(
        """\
globalTtl: 5
models:
  a:
    echo: {}
    ttl: soon
    concurency: 3
  b:
    aliases: [a]
    cmd: serve --port ${PORT} ${dir}/b.gguf
    llama: {model: b.gguf}
  c:
    name: nothing to run
""",
        tmp_path,
    )

    assert told == [
        "swap.yaml:1: globalTtl: unknown key; did you mean globalTTL?",
        f"swap.yaml:5: models.a.ttl: {NO_NUMBER}",
        "swap.yaml:6: models.a.concurency: unknown key; did you mean concurrencyLimit?",
        f"swap.yaml:7: models.b: names llama and cmd to run; {ONE_KIND}",
        "swap.yaml:9: models.b.cmd: unknown macro ${dir}; known are: MODEL_ID, env.NAME, PORT",
        f"swap.yaml:11: models.c: names nothing to run; {ONE_KIND}",
    ]


def test_clashing_names_are_told(tmp_path: Path) -> None:
    """An alias may be nobody's id and nobody else's alias."""
    told = mistakes(
        "models:\n  a: {echo: {}, aliases: [b, x]}\n  b: {echo: {}, aliases: [x]}\n",
        tmp_path,
    )

    assert told == [
        "swap.yaml:2: models.a.aliases.0: 'b' is a model's id",
        "swap.yaml:3: models.b.aliases.0: 'x' is an alias of 'a' already",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {a: {echo: {}}\n", "swap.yaml:2: not valid YAML"),
        ("", "swap.yaml: must be a mapping"),
        ("models: {}\n", "swap.yaml:1: models: is empty"),
        ("- models\n", "swap.yaml: must be a mapping"),
        ("models:\n  a: {echo: {}}\n  a: {echo: {}}\n", "swap.yaml:3: models.a: is given twice"),
        ("models:\n  a: {cmd: ' '}\n", "swap.yaml:2: models.a.cmd: the command is empty"),
        ("models:\n  a: {cmd: 'x \"y'}\n", "swap.yaml:2: models.a.cmd: No closing quotation"),
        ("models:\n  a: {echo: {}, env: [X]}\n", "swap.yaml:2: models.a.env: each entry must"),
        ("models:\n  a: {echo: {}, ttl: -1}\n", "swap.yaml:2: models.a.ttl: "),
        (
            "models:\n  a: {echo: {}, capabilities: [see]}\n",
            "swap.yaml:2: models.a.capabilities.0",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    """Each of these is an error that says what and where."""
    assert mistakes(text, tmp_path)[0].startswith(message)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """No traceback for a wrong path."""
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_yaml_without_its_surprises() -> None:
    """Words and times stay texts, numbers are decimal, anchors and merge keys work."""
    data = read_document(
        "a: [no, on, 12:30:00, 010, 0x10, 1_000, 2026-01-02, 1e3, 1.5, -7, true, null, =]\n"
        "base: &base {x: 1, y: 2}\n"
        "more: {<<: *base, y: 3}\n"
    ).data

    assert isinstance(data, dict)
    assert data["a"] == [
        *("no", "on", "12:30:00", "010", "0x10", "1_000", "2026-01-02"),
        *(1000.0, 1.5, -7, True, None, "="),
    ]
    assert data["more"] == {"x": 1, "y": 3}


def test_macros(tmp_path: Path) -> None:
    """Macros expand in any text, keep their type when they stand alone, and reach options."""
    config = load(
        """\
macros: {dir: "${env.HOME}/models", layers: 99}
models:
  a:
    cmd: serve ${dir}/${MODEL_ID}.gguf --port ${PORT}
    env: ["KEY=${env.SECRET}"]
  b:
    llama: {model: "${dir}/b.gguf", n_gpu_layers: "${layers}"}
""",
        tmp_path,
    )

    assert config.models["a"].cmd == "serve /home/me/models/a.gguf --port ${PORT}"
    assert config.models["a"].env == {"KEY": "s3"}
    assert config.models["b"].options == {"model": "/home/me/models/b.gguf", "n_gpu_layers": 99}
    with pytest.raises(UnknownMacro, match="unknown macro"):
        expand("${nope}", {"a": 1})


def test_what_models_can_do_follows_from_their_options(tmp_path: Path) -> None:
    """Words are told by kind and options; a `cmd` that does not say may be asked anything."""
    config = load(
        """\
models:
  chat: {llama: {model: m.gguf}}
  seer: {llama: {model: m.gguf, mmproj: p.gguf}}
  embed: {llama: {model: m.gguf, embedding: true}}
  rank: {llama: {model: m.gguf, embedding: true, pooling_type: rank}}
  paint: {sd: {model: m.safetensors}}
  describe: {florence2: {model: dir}}
  any: {cmd: serve}
  told: {cmd: serve, capabilities: [rerank]}
""",
        tmp_path,
    )

    assert {name: model.words for name, model in config.models.items()} == {
        "chat": ("chat", "completions"),
        "seer": ("chat", "vision", "completions"),
        "embed": ("embeddings",),
        "rank": ("rerank",),
        "paint": ("image_generation", "text_to_image", "image_edit", "image_to_image"),
        "describe": ("chat", "vision", "describe"),
        "any": None,
        "told": ("rerank",),
    }


async def hotseat_check(path: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "check", "--config", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_check_asks_the_workers_too(tmp_path: Path) -> None:
    """`hotseat check` tells wrong options and missing files with their lines, and exits 1."""
    path = tmp_path / "swap.yaml"
    path.write_text(
        "models:\n"
        "  a:\n"
        "    echo:\n"
        "      file: missing.gguf\n"
        "      unheard_of: 1\n"
        "  b:\n"
        "    echo:\n"
        "      file: missing.gguf\n"
    )
    code, told = await hotseat_check(path)

    assert code == 1
    assert "swap.yaml:5: models.a.echo.unheard_of: " in told
    assert "swap.yaml:8: models.b.echo.file: no such file: missing.gguf" in told


async def test_check_is_content_with_a_good_file(tmp_path: Path) -> None:
    """Paths are relative to the file, wherever the command is run."""
    path = tmp_path / "swap.yaml"
    path.write_text("models: {a: {echo: {file: model.gguf}}}")
    (tmp_path / "model.gguf").touch()
    code, told = await hotseat_check(path)

    assert (code, "no mistakes: a" in told) == (0, True)


def test_the_shipped_file_is_sound_and_so_are_its_commented_entries(tmp_path: Path) -> None:
    """swap.yaml loads as it is, and with every entry that it shows in comments."""
    text = (ROOT / "swap.yaml").read_text()
    head, _, commented = text.partition("Copy what you have the files for.\n")
    shown = re.sub(r"^#", "", commented, flags=re.MULTILINE)

    assert "painter" in load(text, tmp_path).models
    assert "qwen-image-edit" in load(f"{head}\n{shown}", tmp_path).models


def names_of(section: type[BaseModel]) -> Iterator[str]:
    """Yield the section's option names, those of its `defaults` too."""
    for name, field in section.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from names_of(field.annotation)


@pytest.mark.parametrize("options", [LlamaOptions, SdOptions, Florence2Options])
def test_every_engine_option_is_in_the_readme(options: type[BaseModel]) -> None:
    """The README names each option of each engine."""
    readme = (ROOT / "README.md").read_text()

    assert [name for name in names_of(options) if f"`{name}" not in readme] == []


def test_every_key_is_in_the_readme() -> None:
    """The README's reference names each key of the file."""
    readme = (ROOT / "README.md").read_text()
    keys = [
        field.alias or name
        for section in (Config, ModelConfig)
        for name, field in section.model_fields.items()
    ]

    assert [key for key in keys if f"`{key}`" not in readme] == []
    assert yaml.safe_load((ROOT / "swap.yaml").read_text())["models"]
