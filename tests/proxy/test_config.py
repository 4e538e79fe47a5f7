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

from proxy.config import (
    ApiKey,
    ConfigError,
    DeclaredMemory,
    GpuConfig,
    HostConfig,
    Share,
    load_config,
)
from proxy.config.document import read_document
from proxy.config.model import ModelConfig
from proxy.config.schema import Config
from proxy.macros import UnknownMacro, expand
from tests.proxy.configs import load, loaded, mistakes
from workers.florence2.options import Florence2Options
from workers.llama.options import LlamaOptions
from workers.sd.options import SdOptions

ONE_KIND = "it needs exactly one of llama, sd, florence2, echo or cmd"
NO_NUMBER = "must be seconds, or read like 30s, 5m or 1h30m"
ROOT = Path(__file__).parent.parent.parent


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
        "swap.yaml:9: models.b.cmd: unknown macro ${dir}; known are: MODEL_ID",
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
        ("", "swap.yaml: is empty: it must be a mapping"),
        ("models: {}\n", "swap.yaml:1: models: is empty"),
        ("- models\n", "swap.yaml:1: must be a mapping"),
        ("models:\n  a: {echo: {}}\n  a: {echo: {}}\n", "swap.yaml:3: models.a: is given twice"),
        ("models:\n  a: {cmd: ' '}\n", "swap.yaml:2: models.a.cmd: the command is empty"),
        ("models:\n  a: {cmd: 'x \"y'}\n", "swap.yaml:2: models.a.cmd: No closing quotation"),
        ("models:\n  a: {echo: {}, env: [X]}\n", "swap.yaml:2: models.a.env: each entry must"),
        ("models:\n  a: {echo: {}, ttl: -2}\n", "swap.yaml:2: models.a.ttl: invalid TTL value -2"),
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
  any: {cmd: "serve ${PORT}"}
  told: {cmd: "serve ${PORT}", capabilities: [rerank]}
""",
        tmp_path,
    )

    assert {name: model.words for name, model in config.models.items()} == {
        "chat": ("chat", "completions"),
        "seer": ("chat", "vision", "completions", "describe"),
        "embed": ("embeddings",),
        "rank": ("rerank",),
        "paint": ("image_generation", "text_to_image", "image_edit", "image_to_image"),
        "describe": ("chat", "vision", "describe"),
        "any": None,
        "told": ("rerank",),
    }


GIB = 1 << 30
UUID = "GPU-5f2b6a3c-1d4e-4f6a-9b8c-7d6e5f4a3b2c"


def test_without_a_word_about_memory_there_is_no_budget(tmp_path: Path) -> None:
    """What is not said stays unsaid: one seat on the first GPU, and automatic patience."""
    config = load("models: {a: {echo: {}}}\n", tmp_path)
    model = config.models["a"]

    assert (config.gpu, config.host) == (GpuConfig(), HostConfig())
    assert (config.gpu.memory, config.gpu.reserve, config.gpu.devices) == (None, 0, None)
    assert (config.device_of(model), config.gpus_of(model)) == ("gpu", (0,))
    assert config.declared(model) is None
    assert (config.patience_s(model), config.waiting_notes, model.priority) == (None, 3.0, 0)
    assert (config.sends_loading_state(model), config.api_keys) == (False, ())
    assert config.footprints_path(Path("/var/x")) == Path("/var/x")


def test_budgets(tmp_path: Path) -> None:
    """A limit is automatic, a size or a share, for every GPU or for each by name."""
    each = load(
        f"""\
gpu:
  memory: {{0: 24GiB, {UUID}: "90%", "2": auto}}
  reserve: 512MiB
  devices: [0, {UUID}, "2"]
  yield: true
host: {{memory: 50 %, reserve: 4GiB}}
models: {{a: {{echo: {{}}}}}}
""",
        tmp_path,
    )
    every = load("gpu: {memory: auto}\nmodels: {a: {echo: {}}}\n", tmp_path)

    assert each.gpu.memory == {0: 24 * GIB, UUID: Share(90.0), 2: "auto"}
    assert [each.gpu.limit(i, u) for i, u in ((0, "GPU-x"), (1, UUID), (2, "GPU-y"))] == [
        *(24 * GIB, Share(90.0), "auto"),
    ]
    assert each.gpu.limit(3, "GPU-z") is None
    assert (each.gpu.reserve, each.gpu.devices, each.gpu.yields) == (GIB // 2, (0, UUID, 2), True)
    assert (each.host.memory, each.host.reserve) == (Share(50.0), 4 * GIB)
    assert every.gpu.limit(7, "GPU-x") == "auto"
    assert Share(90.0).of(1000) == 900


def test_where_models_live_and_what_they_need(tmp_path: Path) -> None:
    """A model's own word counts before the file's; a bare size is on the model's own device."""
    config = load(
        """\
device: cpu
gpu: {devices: [1, 0]}
models:
  quiet: {echo: {}, memory: 2GiB}
  first: {echo: {}, device: gpu, memory: 1.5GiB}
  second: {echo: {}, device: gpu, gpu: 0, memory: {gpu: 4GiB, host: 1GiB}}
  both: {echo: {}, device: gpu, gpu: [0, 1], memory: {host: 0}}
""",
        tmp_path,
    )
    models = config.models

    assert {name: config.gpus_of(model) for name, model in models.items()} == {
        "quiet": (),
        "first": (1,),
        "second": (0,),
        "both": (0, 1),
    }
    assert {name: config.declared(model) for name, model in models.items()} == {
        "quiet": DeclaredMemory(host=2 * GIB),
        "first": DeclaredMemory(gpu=3 * GIB // 2),
        "second": DeclaredMemory(gpu=4 * GIB, host=GIB),
        "both": DeclaredMemory(host=0),
    }


def test_a_models_word_counts_before_the_files(tmp_path: Path) -> None:
    """Patience can be automatic again, and what a model does not say is the file's."""
    config = load(
        """\
patience: 5
sendLoadingState: true
waitingNotes: 0
footprints: kept/footprints.json
models:
  as-the-file: {echo: {}}
  automatic: {echo: {}, patience: auto, sendLoadingState: false}
  impatient: {echo: {}, patience: 0, priority: -10}
""",
        tmp_path,
    )
    models = config.models.values()

    assert [config.patience_s(model) for model in models] == [5.0, None, 0.0]
    assert [config.sends_loading_state(model) for model in models] == [True, False, True]
    assert [model.priority for model in models] == [0, 0, -10]
    assert config.waiting_notes == 0
    assert config.footprints_path(Path("/x")) == tmp_path / "kept/footprints.json"


def test_footprints_may_be_kept_nowhere(tmp_path: Path) -> None:
    """`false` is not a file's name."""
    config = load("footprints: false\nmodels: {a: {echo: {}}}\n", tmp_path)

    assert config.footprints_path(Path("/x")) is None


def test_keys_are_secrets(tmp_path: Path) -> None:
    """They may come from the environment, and no text of ours shows them."""
    config = load(
        """\
apiKeys: ["${env.SECRET}", {key: hush-hush, name: laptop, priority: 3}]
models: {a: {echo: {}}}
""",
        tmp_path,
    )

    assert [entry.key.get_secret_value() for entry in config.api_keys] == ["s3", "hush-hush"]
    assert config.api_keys[1].name == "laptop"
    assert [entry.priority for entry in config.api_keys] == [None, 3]
    assert "hush" not in f"{config!r} {config} {config.api_keys[1]!r} {config.model_dump_json()}"
    assert isinstance(config.api_keys[0], ApiKey)


A_SIZE = "a size is a number of bytes, or reads like"
A_LIMIT = 'must be auto, a size such as "22GiB" or a share such as "90%"'
A_GPU = "a GPU is named by its index (0) or its UUID (GPU-…), see nvidia-smi -L"


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("gpu:\n  memory: lots", f"swap.yaml:2: gpu.memory: {A_LIMIT}"),
        ("gpu:\n  memory: 0", "swap.yaml:2: gpu.memory: must be more than nothing"),
        ("gpu:\n  memory: 110%", "swap.yaml:2: gpu.memory: a share is more than 0%"),
        ("gpu:\n  memory:\n    0: true", f"swap.yaml:3: gpu.memory.0: {A_LIMIT}"),
        ("gpu:\n  memory:\n    rtx: 1GiB", f"swap.yaml:3: gpu.memory.rtx: {A_GPU}"),
        ("gpu:\n  reserve: 1.5", 'swap.yaml:2: gpu.reserve: must be a size such as "12.9GiB"'),
        ("gpu:\n  reserve: 1 lot", f"swap.yaml:2: gpu.reserve: '1 lot': {A_SIZE}"),
        ("gpu:\n  devices: []", "swap.yaml:2: gpu.devices: names no GPU; leave"),
        ("gpu:\n  devices:\n    - 0\n    - -1", f"swap.yaml:4: gpu.devices.1: {A_GPU}"),
        ("gpu:\n  devices: [0, '0']", "swap.yaml:2: gpu.devices: names a GPU twice"),
        ("gpu:\n  memry: auto", "swap.yaml:2: gpu.memry: unknown key; did you mean memory?"),
        ("host:\n  memory: {0: 1GiB}", f"swap.yaml:2: host.memory: {A_LIMIT}"),
        ("host:\n  yield: true", "swap.yaml:2: host.yield: unknown key; known are: memory, "),
        ("device: tpu", "swap.yaml:1: device: must be 'gpu' or 'cpu'"),
        ("patience: soon", "swap.yaml:1: patience: must be seconds, 0 or more, or auto"),
        ("patience: -1", "swap.yaml:1: patience: must be seconds, 0 or more, or auto"),
        ("footprints: true", "swap.yaml:1: footprints: must be a path, or false"),
        ("waitingNotes: -1", "swap.yaml:1: waitingNotes: "),
        ("apiKeys: ['']", "swap.yaml:1: apiKeys.0.key: the key is empty"),
        ("apiKeys:\n  - hush hush", "swap.yaml:2: apiKeys.0.key: the key holds a space"),
        ("apiKeys:\n  - hush: laptop", "swap.yaml:2: apiKeys.0: an entry is the key as a text"),
        ("apiKeys: hush", "swap.yaml:1: apiKeys: must be a list"),
        ("apiKeys: [true]", "swap.yaml:1: apiKeys.0: an entry is the key as a text"),
        ("apiKeys: [hush, a, hush]", "swap.yaml:1: apiKeys.2: is the same key as entry 0"),
        (
            "apiKeys:\n  - {key: hush, priority: 11}",
            "swap.yaml:2: apiKeys.0.priority: must be less than or equal to 10",
        ),
    ],
)
def test_mistakes_above_the_models(tmp_path: Path, head: str, told: str) -> None:
    """Each says what is accepted, at its own line; a key is never repeated."""
    found = mistakes(f"{head}\nmodels: {{a: {{echo: {{}}}}}}\n", tmp_path)

    assert [line[: len(told)] for line in found] == [told]
    assert "hush" not in found[0]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("memory: big", f"memory: 'big': {A_SIZE}"),
        ("memory: {gpu: big}", f"memory.gpu: 'big': {A_SIZE}"),
        ("memory: {}", "memory: says neither gpu nor host"),
        ("memory: {vram: 1}", "memory.vram: unknown key; known are: gpu, host"),
        ("gpu: first", f"gpu.0: {A_GPU}"),
        ("gpu: [0, 0]", "gpu: names a GPU twice"),
        ("gpu: 2", "gpu: 2 is not one of gpu.devices"),
        ("gpu: 0, device: cpu", "gpu: its device is cpu: leave out one of the two"),
        ("memory: {gpu: 1}, device: cpu", "memory.gpu: its device is cpu: it needs no memory of"),
        ("priority: 11", "priority: must be less than or equal to 10"),
    ],
)
def test_mistakes_of_a_model(tmp_path: Path, entry: str, told: str) -> None:
    """Also what contradicts the rest of the file."""
    found = mistakes(
        f"gpu: {{devices: [0, 1]}}\nmodels:\n  a: {{echo: {{}}, {entry}}}\n", tmp_path
    )

    expected = f"swap.yaml:3: models.a.{told}"
    assert [line[: len(expected)] for line in found] == [expected]


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


def keys_of(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


@pytest.mark.parametrize("options", [LlamaOptions, SdOptions, Florence2Options])
def test_every_engine_option_is_in_the_readme(options: type[BaseModel]) -> None:
    """The README names each option of each engine."""
    readme = (ROOT / "README.md").read_text()

    assert [name for name in names_of(options) if f"`{name}" not in readme] == []


EXAMPLES = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
NAMED = (
    "gpu: {memory: 24GiB}\n"
    "models: {coder: &m {echo: {}}, writer: *m, embed: *m, rerank: *m, org/qwen: *m, phi: *m}\n"
)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_readme_is_read(example: str, tmp_path: Path) -> None:
    """What the README shows is a config, or a part of one with these models and some memory."""
    has_models = re.search(r"^models:", example, re.MULTILINE) is not None
    for name in re.findall(r"[\w/]+\.txt", example):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("a rule, or a name\n")

    told = loaded(example if has_models else NAMED + example, tmp_path, BOX2_KEY="k")

    assert not told.warnings


def test_every_key_is_in_the_readme() -> None:
    """The README's reference names each key of the file."""
    readme = (ROOT / "README.md").read_text()
    keys = [key for section in (Config, ModelConfig) for key in keys_of(section)]
    keys = [key for key in keys if key != "host"]  # its keys are named, and it has no other
    keys += [f"gpu.{key}" for key in keys_of(GpuConfig)]
    keys += [f"host.{key}" for key in keys_of(HostConfig)]

    assert [key for key in keys if f"`{key}`" not in readme] == []
    assert yaml.safe_load((ROOT / "swap.yaml").read_text())["models"]
