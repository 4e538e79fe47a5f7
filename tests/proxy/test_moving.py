"""Moving in from llama-swap: which calls become bundled workers, and what is left of the text."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import ConfigError, load_config
from proxy.moving import Moved, llama, move, sd
from proxy.moving.entry import Kept, Translated, translate
from proxy.moving.flags import Flag, Reading
from proxy.moving.words import Word, split
from tests.proxy.served import served
from workers.llama.options import LlamaOptions
from workers.sd.options import SdOptions

TRIED = (
    *("0", "1", "2", "32", "0.5", "-1"),
    *("q8_0", "none", "row", "off", "auto", "cuda", "a.jinja", "{{}}"),
)
"""Words that may follow a flag."""
ALWAYS = {"model": "m.gguf", "n_ctx": 0}
PAINTS = {"model": "m.gguf"}


def moved(text: str, folder: Path) -> Moved:
    source = folder / "config.yaml"
    source.write_bytes(text.encode())
    return move(source)


def read(text: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(text)
    return data


def entry_of(outcome: Translated | Kept | None) -> dict[str, Any]:
    """Nest the settings as the file will."""
    assert isinstance(outcome, Translated), outcome
    entry: dict[str, Any] = {}
    for one in outcome.settings:
        at = entry
        for part in one.path[:-1]:
            at = at.setdefault(part, {})
        at[one.path[-1]] = one.value
    return entry


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("--host 0.0.0.0 --port ${PORT}", {}),
        ("-c 8192", {"n_ctx": 8192}),
        ("--ctx-size 8192 -c 4096", {"n_ctx": 4096}),
        ("--ctx_size 0", {"n_ctx": 0}),
        ("-ngl 99", {"n_gpu_layers": 99}),
        ("-ngl all --n-gpu-layers auto", {}),
        ("-fa", {"flash_attn": "on"}),
        ("-fa -c 512", {"flash_attn": "on", "n_ctx": 512}),
        ("--flash-attn off", {"flash_attn": "off"}),
        ("--flash-attn auto", {}),
        ("-ctk q8_0 --cache-type-v Q4_0", {"type_k": "q8_0", "type_v": "q4_0"}),
        (
            "-b 1024 -ub 256 -t 8 -tb 16",
            {"n_batch": 1024, "n_ubatch": 256, "n_threads": 8, "n_threads_batch": 16},
        ),
        ("-t -1 -np -1 -n -1 --seed -1", {}),
        ("--mlock --no-mmap", {"use_mlock": True, "use_mmap": False}),
        ("-sm row -mg 1 -ts 3,1", {"split_mode": "row", "main_gpu": 1, "tensor_split": [3, 1]}),
        ("--mmproj eyes.gguf", {"mmproj": "eyes.gguf"}),
        ("--embeddings --pooling mean", {"embedding": True, "pooling_type": "mean"}),
        ("--reranking", {"embedding": True, "pooling_type": "rank"}),
        ("--chat-template-file a.jinja --jinja", {"chat_template": "a.jinja"}),
        ("--chat-template '{{ messages }}'", {"chat_template": "{{ messages }}"}),
        (
            "--temp 0.7 --top-p 1.0 -n 100",
            {"defaults": {"temperature": 0.7, "top_p": 1, "max_tokens": 100}},
        ),
        (
            "--rope-freq-base 1e6 --load-mode mmap+mlock",
            {"rope_freq_base": 1000000, "use_mlock": True},
        ),
    ],
)
def test_a_flag_of_llama_server_becomes_an_option(flags: str, options: dict[str, Any]) -> None:
    """Each has the engine's name, and the worker takes it."""
    outcome = translate({"cmd": f"/opt/bin/llama-server -m m.gguf {flags}"}, {})

    entry = entry_of(outcome)
    assert entry["llama"] == ALWAYS | options
    assert LlamaOptions.model_validate(entry["llama"])


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("--listen-ip 127.0.0.1 --listen-port ${PORT} -v --color", {}),
        (
            "--vae v --taesd t --clip_l l --clip_g g --t5xxl t5",
            {"vae": "v", "taesd": "t", "clip_l": "l", "clip_g": "g", "t5xxl": "t5"},
        ),
        (
            "--qwen2vl q --llm_vision e --lora-model-dir loras",
            {"llm": "q", "llm_vision": "e", "lora_dir": "loras"},
        ),
        ("--type q4_K -t 4", {"type": "q4_k", "n_threads": 4}),
        (
            "--vae-tiling --diffusion-fa --offload-to-cpu",
            {"vae_tiling": True, "diffusion_flash_attn": True, "offload_params_to_cpu": True},
        ),
        ("-W 768 -H 512 --steps 4", {"defaults": {"width": 768, "height": 512, "steps": 4}}),
        ("--sampling-method euler --seed -1", {"defaults": {"sample_method": "euler"}}),
        ("--lora-apply-mode at_runtime --rng cuda", {}),
    ],
)
def test_a_flag_of_sd_server_becomes_an_option(flags: str, options: dict[str, Any]) -> None:
    """Each has the engine's name, and the worker takes it."""
    outcome = translate({"cmd": f"sd-server --model m.gguf {flags}"}, {})

    entry = entry_of(outcome)
    assert entry["sd"] == PAINTS | options
    assert SdOptions.model_validate(entry["sd"])


@pytest.mark.parametrize(
    ("name", "flag"), [*llama.FLAGS.items(), *sd.FLAGS.items()], ids=lambda it: str(it)[:20]
)
def test_what_a_flag_becomes_is_taken_by_the_worker(name: str, flag: Flag) -> None:
    """No flag of the tables leads to an option, or a value, that the worker refuses."""
    taken = []
    for value in TRIED:
        try:
            taken.append(flag.becomes(Word(value, value)))
        except ValueError:
            continue
    assert taken, f"{name} takes nothing"

    for becomes in taken:
        reading = Reading()
        for one in becomes:
            reading.set(one)
        outcome = Translated("", tuple(reading.settings.values()), (), ())
        entry = entry_of(outcome)
        if "llama" in entry:
            assert LlamaOptions.model_validate({"model": "m", **entry["llama"]})
        if "sd" in entry:
            assert SdOptions.model_validate({"model": "m", **entry["sd"]})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"cmd": "llama-server -m m -ngl 0"}, {"device": "cpu"}),
        ({"cmd": "llama-server -m m -dev none"}, {"device": "cpu"}),
        ({"cmd": "llama-server -m m --device CUDA1"}, {"gpu": 1}),
        ({"cmd": "llama-server -m m --device CUDA1,CUDA0"}, {"gpu": [1, 0]}),
        ({"env": ["A=b", "CUDA_VISIBLE_DEVICES=1"]}, {"gpu": 1}),
        ({"env": ["CUDA_VISIBLE_DEVICES=0, 2"]}, {"gpu": [0, 2]}),
        ({"env": ["CUDA_VISIBLE_DEVICES=GPU-12ab-34"]}, {"gpu": "GPU-12ab-34"}),
        ({"env": ["CUDA_VISIBLE_DEVICES="]}, {"device": "cpu"}),
        ({"env": ["CUDA_VISIBLE_DEVICES=${card}"]}, {"gpu": 3}),
        (
            {"cmd": "llama-server -m m -ngl 0", "env": ["CUDA_VISIBLE_DEVICES=1"]},
            {"device": "cpu"},
        ),
        ({"cmd": "llama-server -m m -np 8"}, {"concurrencyLimit": 8}),
        ({"cmd": "llama-server -m m -np 4"}, {}),
        ({"cmd": "llama-server -m m -np 8", "concurrencyLimit": 2}, {}),
    ],
)
def test_where_it_runs_is_said_of_the_model(
    more: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Devices and limits are keys of the model, not options of the engine."""
    outcome = translate({"cmd": "llama-server -m m"} | more, {"card": "3"})

    entry = entry_of(outcome)
    del entry["llama"]
    assert entry == expected


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("-m m --lora a.gguf", "--lora has no counterpart"),
        ("-m m -ot exps=CPU", "-ot has no counterpart"),
        ("-m m -c many", "-c many: the option takes a whole number of 0 to 2147483647"),
        ("-m m -np 65", "-np 65: the option takes a whole number of 1 to 64"),
        ("-m m -ctk q2_k", "-ctk q2_k: the option takes f32, f16, bf16"),
        ("-m m --temp hot", "--temp hot: the option takes a number of 0 or more"),
        ("-m m --temp nan", "--temp nan"),
        ("-m m --chat-template chatml", "only a name cannot be had"),
        ("-m m --reasoning-format deepseek", "only none can be had"),
        ("-m m --device Vulkan0", "only none and CUDA's devices can be had"),
        ("-m m -sm tensor", "-sm tensor"),
        ("-m m --pooling cls", "--pooling without --embedding"),
        ("-m", "-m has no value"),
        ("-hf ggml-org/gemma", "-hf has no counterpart"),
        ("-c 10", "it names no model with -m"),
        ("-m 'm", "a quotation has no end"),
        ({"proxy": "http://10.0.0.5:8080"}, "proxy http://10.0.0.5:8080"),
        ({"proxy": "http://localhost:${PORT}/v1"}, "proxy http://localhost:${PORT}/v1"),
        ({"env": ["LLAMA_ARG_CTX_SIZE=5"]}, "LLAMA_ARG_CTX_SIZE in env is a flag too"),
        ({"env": ["CUDA_VISIBLE_DEVICES=MIG-1/2"]}, "does not name GPUs plainly"),
        ({"env": ["A=${PORT}"]}, "env tells its port"),
        ({"metadata": {"at": ["port ${PORT}"]}}, "metadata tells its port"),
    ],
)
def test_what_has_no_counterpart_keeps_the_model_as_it_is(
    entry: str | dict[str, Any], why: str
) -> None:
    """The reason names the flag, or the key."""
    more = {"cmd": f"llama-server {entry}"} if isinstance(entry, str) else entry

    outcome = translate({"cmd": "llama-server -m m"} | more, {})

    assert isinstance(outcome, Kept)
    assert why in outcome.why


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve m --port ${PORT}",
        "docker run --rm vllm/vllm-openai:latest --model m",
        "sh -c 'exec my-llama-server -m m'",
        "env A=b sd -m m.safetensors -p 'a cat'",
        "sd -m m.safetensors -p 'a cat'",
        "my-llama-server -m m",
        "${unknown} -m m",
        "# llama-server -m m",
    ],
)
def test_any_other_command_is_not_looked_at(command: str) -> None:
    """Only a program of the right name is a call that we know."""
    assert translate({"cmd": command}, {}) is None


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("docker run --rm image llama-server -m m", "docker runs llama-server in a container"),
        (
            "podman run -p ${PORT}:8080 ghcr.io/ggml-org/llama.cpp:server-cuda -m m",
            "podman runs llama-server in a container",
        ),
        ("env A=b llama-server -m m", "it sets variables before llama-server"),
        ("A=hush-hush /opt/llama-server -m m", "it sets variables before llama-server"),
        ("bash -c 'cd /x; exec /opt/llama-server -m m'", "bash starts llama-server"),
        ("sh -c 'sd --listen-port ${PORT} -m m'", "sh starts sd"),
        ("taskset -c 0 numactl -N 0 llama-server -m m", "taskset starts llama-server"),
        ("nice -n 5 sd-server -m m", "nice starts sd-server"),
        ("${wrapper} llama-server -m m", "run-it.sh starts llama-server"),
    ],
)
def test_a_server_that_another_program_starts_stays_and_it_is_said_why(
    command: str, why: str
) -> None:
    """Whoever starts it may have reasons that no option can say."""
    outcome = translate({"cmd": command}, {"wrapper": "/opt/run-it.sh --fast"})

    assert isinstance(outcome, Kept)
    assert outcome.why.startswith(why)
    assert "hush" not in outcome.why


def test_every_flag_that_goes_is_named() -> None:
    """Also one that a bundled worker has by itself; but for the port, which it has not."""
    flags = "--host 0.0.0.0 --port ${PORT} --jinja -cb --reasoning-format none --no-webui -c 5"

    outcome = translate({"cmd": f"llama-server -m m {flags}"}, {})

    assert isinstance(outcome, Translated)
    assert outcome.left_out == ["--host", "--jinja", "-cb", "--reasoning-format", "--no-webui"]


def test_sd_with_a_port_is_a_server() -> None:
    """The program `sd` serves where it is told to listen."""
    assert isinstance(translate({"cmd": "sd -m m --listen-port ${PORT}"}, {}), Translated)


@given(
    words=st.lists(st.text(st.characters(codec="ascii", exclude_characters="\n\r"), min_size=1))
)
def test_words_are_split_as_a_shell_quotes_them(words: list[str]) -> None:
    """Whatever is quoted comes out again."""
    command = "program " + shlex.join(words)

    assert [word.value for word in split(command, {})] == ["program", *words]


def test_macros_are_expanded_for_reading_and_stay_written() -> None:
    """A macro of several words is read as several; one within a word stays as it is written."""
    macros = {
        "serve": "${bin} --port ${PORT}",
        "bin": "/opt/llama-server",
        "home": "/srv/my models",
    }

    words = split('${serve} \\\n # not this\n -m "${home}/a.gguf"', macros)

    assert [word.value for word in words] == [
        *("/opt/llama-server", "--port", "${PORT}", "-m", "/srv/my models/a.gguf")
    ]
    assert words[-1].text == "${home}/a.gguf"


FILE = """\
# everything that we run
healthCheckTimeout: 300   # slow disk
macros:
  serve: "/opt/llama.cpp/llama-server --port ${PORT} -ngl 99 --no-webui"
  dir: /srv/models

models:
  # the everyday one
  qwen:
    name: Qwen 14B
    cmd: | # on several lines
      ${serve}
      # quantised cache
      -m ${dir}/qwen.gguf -c 16384 \\
      --cache-type-k q8_0 --temp 0.7
    proxy: http://127.0.0.1:${PORT}
    checkEndpoint: /health
    aliases: [gpt-4o]   # for clients
    env:
      - "CUDA_VISIBLE_DEVICES=0"
      - OMP_NUM_THREADS=4   # threads

  moe:
    ttl: 60
    # experts on the host
    cmd: >
      ${serve} -m ${dir}/moe.gguf
      -ot ".ffn_.*_exps.=CPU"

  small: {cmd: "llama-server -m s.gguf --port ${PORT} -ngl 0", ttl: 30, env: ["CUDA_VISIBLE_DEVICES=1", "A=b"]} # tiny
  paint:
    cmd: sd-server --listen-port ${PORT} --diffusion-model ${dir}/flux.gguf --vae ${dir}/ae.sft --steps 4   # pictures
    checkEndpoint: /
    cmdStop: |
      kill
      ${PID}
  whisper:
    cmd: whisper-server --port ${PORT}

groups:
  main: {members: [qwen, small]}
"""  # noqa: E501  # as people write them

MOVED = """\
# everything that we run
healthCheckTimeout: 300   # slow disk
macros:
  serve: "/opt/llama.cpp/llama-server --port ${PORT} -ngl 99 --no-webui"
  dir: /srv/models

models:
  # the everyday one
  qwen:
    name: Qwen 14B
    # was:
    #   # on several lines
    #   ${serve}
    #   # quantised cache
    #   -m ${dir}/qwen.gguf -c 16384 \\
    #   --cache-type-k q8_0 --temp 0.7
    # left out: --no-webui
    llama:
      model: ${dir}/qwen.gguf
      n_gpu_layers: 99
      n_ctx: 16384
      type_k: q8_0
      defaults: {temperature: 0.7}
    gpu: 0  # was CUDA_VISIBLE_DEVICES=0; counted as nvidia-smi does
    # proxy: http://127.0.0.1:${PORT}  (a bundled worker has no port)
    # checkEndpoint: /health  (a bundled worker says itself when it is ready)
    aliases: [gpt-4o]   # for clients
    env:
      # - "CUDA_VISIBLE_DEVICES=0"
      - OMP_NUM_THREADS=4   # threads

  moe:
    ttl: 60
    # experts on the host
    # stays a cmd: -ot has no counterpart
    cmd: >
      ${serve} -m ${dir}/moe.gguf
      -ot ".ffn_.*_exps.=CPU"

  small:  # tiny
    # was: "llama-server -m s.gguf --port ${PORT} -ngl 0"
    llama:
      model: s.gguf
      n_ctx: 0  # as trained, llama-server's default; a number takes less memory
    device: cpu  # was -ngl 0
    ttl: 30
    env: ["A=b"]
  paint:
    # was: sd-server --listen-port ${PORT} --diffusion-model ${dir}/flux.gguf --vae ${dir}/ae.sft --steps 4 # pictures
    # not said, so as suits the family (sd-server: width 512, height 512, cfg_scale 7.0)
    sd:
      diffusion_model: ${dir}/flux.gguf
      vae: ${dir}/ae.sft
      defaults: {steps: 4}
    # checkEndpoint: /  (a bundled worker says itself when it is ready)
    # cmdStop: |  (a bundled worker stops on SIGTERM)
    #   kill
    #   ${PID}
  whisper:
    cmd: whisper-server --port ${PORT}

groups:
  main: {members: [qwen, small]}
"""  # noqa: E501


def test_a_whole_file_keeps_what_is_not_translated(tmp_path: Path) -> None:
    """Comments, order and spelling stay; what changed is said beside it."""
    result = moved(FILE, tmp_path)

    head, _, rest = result.text.partition("\n\n")
    assert all(line.startswith("# ") for line in head.splitlines())
    gone = ("reasoning_content", "page", "/slots", "/v1/messages", "/infill", "/tokenize")
    assert all(one in head for one in gone)
    assert (result.bundled_count, result.model_count) == (3, 5)
    assert rest == MOVED
    assert result.notes == (
        "qwen: llama, instead of a cmd",
        "moe: stays a cmd: -ot has no counterpart",
        "small: llama, instead of a cmd",
        "paint: sd, instead of a cmd",
    )


def test_the_result_loads(tmp_path: Path) -> None:
    """The moved file has no mistakes, and says the same of its groups."""
    path = tmp_path / "swap.yaml"
    path.write_text(moved(FILE, tmp_path).text)

    config = load_config(path).config

    assert [model.kind for model in config.models.values()] == [
        *("llama", "cmd", "llama", "sd", "cmd")
    ]
    assert config.models["qwen"].options["model"] == "/srv/models/qwen.gguf"
    assert config.models["qwen"].env == {"OMP_NUM_THREADS": "4"}
    assert config.models["small"].device == "cpu"


def test_lines_end_as_they_ended(tmp_path: Path) -> None:
    """A file from Windows stays one."""
    text = moved(FILE.replace("\n", "\r\n"), tmp_path).text

    assert text.count("\n") == text.count("\r\n")
    assert text.partition("\r\n\r\n")[2] == MOVED.replace("\n", "\r\n")


def test_what_an_anchor_shares_is_left_alone(tmp_path: Path) -> None:
    """To change the one would change the other."""
    text = """\
models:
  a: &base
    cmd: llama-server -m a --port ${PORT}
  b:
    <<: *base
    ttl: 5
  c: *base
  d:
    cmd: &alone llama-server -m d
    useModelName: *alone
  e:
    <<: &more {checkEndpoint: /}
    cmd: llama-server -m d --port ${PORT}
"""
    result = moved(text, tmp_path)

    assert read(result.text) == read(text)
    assert all("shared with others by an anchor" in note for note in result.notes)
    assert len(result.notes) == 5


WRITTEN = """\
  a: {
    cmd: 'llama-server -m a',
    ttl: 3}
======
  a: {cmd: llama-server -m a, env: [CUDA_VISIBLE_DEVICES=0]}
======
  a:
    cmd:
      llama-server
      -m a
    env: [CUDA_VISIBLE_DEVICES=0]
======
  a:
    cmd: 'llama-server
      -m a'
    env:
    - CUDA_VISIBLE_DEVICES=0
    description: ""
======
  a:
    ttl: 3
    cmd: |-  # first
      llama-server -m a


  b: {cmd: x}
======
  a:
    env: [CUDA_VISIBLE_DEVICES=0, A=b]
    cmd: >-
      llama-server -m a
# end
======
  7:
    cmd: llama-server -m a
======
    "a b": # spaces
        "cmd": "llama-server -m a" # first
======
  a:
   proxy:
     http://localhost:${PORT}

   env:

     - A=b

     # the first

     - CUDA_VISIBLE_DEVICES=0

   cmd:   llama-server   -m   a
"""


@pytest.mark.parametrize(
    "models",
    [
        'models: {a: {cmd: "llama-server -m a", ttl: 3}}\n',
        "x: &x {models: {a: {cmd: llama-server -m a}}}\n<<: *x\n",
        '{"models": {"a": {"cmd": "llama-server -m a"}}}\n',
        *(f"---\nmodels:\n{one}" for one in WRITTEN.split("======\n")),
        "models:\n  a:\n    cmd: llama-server -m a",
    ],
)
def test_however_it_is_written_it_means_the_same(models: str, tmp_path: Path) -> None:
    """Either the model is a llama worker's, or nothing but comments was added."""
    result = moved(models, tmp_path)

    (was,) = [v for k, v in read(models)["models"].items() if k != "b"]
    (entry,) = [v for k, v in read(result.text)["models"].items() if k != "b"]
    if "cmd" in entry:
        assert read(result.text) == read(models)
    else:
        assert entry["llama"] == {"model": "a", "n_ctx": 0}
        assert entry.get("ttl") == was.get("ttl")
        assert entry.get("gpu") == (0 if "CUDA" in str(was.get("env")) else None)
    assert [line for line in models.splitlines() if line.startswith("#")] == [
        line for line in result.text.splitlines()[5:] if line.startswith("#")
    ]


NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=5).map(
    "m{}".format  # no number
)
UNMOVED = ("llama-server -m a --lora b", "other -m a")
ENTRIES = st.fixed_dictionaries(
    {
        "cmd": st.sampled_from(
            [
                *UNMOVED,
                "llama-server -m a --port ${PORT}",
                "llama-server\n# first\n-m a -c 10 \\\n--temp 0.5\n",
                "sd-server -m 'a b'",
            ]
        )
    },
    optional={
        "env": st.lists(st.sampled_from(["A=b", "CUDA_VISIBLE_DEVICES=1", "C=#d: [e"])),
        "description": st.text(max_size=20),
        "ttl": st.integers(0, 9),
        "proxy": st.just("http://localhost:${PORT}"),
        "cmdStop": st.just("kill\n\n${PID}"),
        "aliases": st.lists(st.text(max_size=5), max_size=2),
    },
)


@settings(max_examples=100)
@given(
    models=st.dictionaries(NAMES, ENTRIES, min_size=1, max_size=3),
    dumped=st.fixed_dictionaries(
        {
            "default_style": st.sampled_from([None, "'", '"']),
            "default_flow_style": st.sampled_from([None, False]),  # None: entries in braces
            "width": st.sampled_from([10, 1000]),
            "sort_keys": st.booleans(),
        }
    ),
)
def test_a_file_of_any_make_is_edited_where_it_stands(
    models: dict[str, Any], dumped: dict[str, Any]
) -> None:
    """Each model that can be moved is, unless its braces go on; the others mean what they did."""
    text = yaml.safe_dump({"models": models}, **dumped)
    with TemporaryDirectory() as folder:
        result = moved(text, Path(folder))

    now = read(result.text)["models"]
    assert now.keys() == models.keys()
    for name, was in models.items():
        if was["cmd"] in UNMOVED or (dumped["default_flow_style"] is None and "cmd" in now[name]):
            assert now[name] == was
        else:
            assert {"cmd", "proxy", "cmdStop"}.isdisjoint(now[name])
            assert now[name].get("description") == was.get("description")


def test_a_value_on_several_lines_stays_one_value(tmp_path: Path) -> None:
    """Neither the option nor the reason breaks the text."""
    text = """\
models:
  a:
    cmd: |
      llama-server -m a --chat-template '{{ x }}
      {{ y }}: "ü"'
  b:
    cmd: |
      llama-server -m b --temp 'very

      - hot'
"""
    result = moved(text, tmp_path)

    models = read(result.text)["models"]
    assert models["a"]["llama"]["chat_template"] == '{{ x }}\n{{ y }}: "ü"'
    assert models["b"] == read(text)["models"]["b"]
    assert "# stays a cmd: --temp very - hot: the option takes" in result.text


@pytest.mark.parametrize(
    "text", ["a: [", "", "- models", "models: []", "a: !!float x", "\xff", "[" * 5000]
)
def test_what_is_no_such_file_is_told(text: str, tmp_path: Path) -> None:
    """The mistakes of the YAML are told as for any config."""
    source = tmp_path / "config.yaml"
    source.write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigError) as error:
        move(source)

    assert str(source) in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """So is a folder."""
    (tmp_path / "config.yml").touch()

    with pytest.raises(ConfigError, match=r"cannot be read: No such file.* there would be config"):
        move(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory; name another"):
        move(tmp_path)


def hotseat(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", *words], check=False, capture_output=True, text=True
    )


def test_the_command_writes_a_file_or_to_its_output(tmp_path: Path) -> None:
    """What became of each model is told beside it."""
    source, target = tmp_path / "config.yaml", tmp_path / "swap.yaml"
    source.write_text(FILE)

    printed = hotseat("import", "--from", str(source))
    written = hotseat("import", "--from", str(source), "--to", str(target))

    assert printed.stdout == target.read_text() == moved(FILE, tmp_path).text
    assert (printed.returncode, written.returncode, written.stdout) == (0, 0, "")
    assert "moe: stays a cmd: -ot has no counterpart" in printed.stderr
    told, _, end = written.stderr.rstrip().rpartition("\n")
    how = f"check it with: hotseat check --config {target}"
    assert end == f"wrote {target}: 3 of 5 models bundled; {how}"
    assert printed.stderr.startswith(told)
    assert "3 of 5 models bundled; write it to a file with: --to" in printed.stderr


def test_a_source_that_is_not_there_is_told_plainly(tmp_path: Path) -> None:
    """It is no mistake in a file; one dash is as good as two."""
    told = hotseat("import", "-from", str(tmp_path / "none.yaml"), "-to", str(tmp_path / "x"))

    assert told.returncode == 1
    assert [line.partition(": ")[2] for line in told.stderr.splitlines()] == [
        "cannot be read: No such file or directory; name another file with --from",
        "",
    ]
    assert told.stderr.endswith("\nnothing was written\n")


def test_the_command_overwrites_nothing(tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    source, target = tmp_path / "config.yaml", tmp_path / "swap.yaml"
    source.write_text(FILE)
    target.write_text("mine")

    told = hotseat("import", "--from", str(source), "--to", str(target))

    assert told.returncode == 1
    assert str(target) in told.stderr
    assert target.read_text() == "mine"


@pytest.mark.engine
@pytest.mark.timeout(60)
async def test_a_moved_model_answers(models: Path, tmp_path: Path) -> None:
    """A llama-server's entry becomes a worker that chats, and one that embeds."""
    text = f"""
macros: {{server: "/nowhere/llama-server --host 127.0.0.1 --port ${{PORT}} --no-webui -t 1"}}
models:
  chat:
    cmd: |
      ${{server}} -m {models}/chat.gguf
      -c 512 -np 2 --temp 0 -ngl 0 --jinja -ctk f16
    checkEndpoint: /health
  embed:
    cmd: ${{server}} -m {models}/embed.gguf --embeddings -ngl 0 -c 0
"""
    async with served(moved(text, tmp_path).text, tmp_path) as server:
        question = [{"role": "user", "content": "What is the capital of France?"}]

        answer = await server.post(
            "/v1/chat/completions", json={"model": "chat", "messages": question}
        )
        vectors = await server.post("/v1/embeddings", json={"model": "embed", "input": "x"})

    assert "Paris" in answer.body["choices"][0]["message"]["content"]
    assert len(vectors.body["data"][0]["embedding"]) > 1
