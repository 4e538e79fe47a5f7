"""`hotseat check --memory`: what models need, what fits alone and together, and how it reads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy import app
from proxy.__main__ import main
from proxy.budget import NoBudget
from proxy.config import load_config
from proxy.demand import PLAIN, RequestClass
from proxy.footprints import Footprints, default_path, options_digest
from proxy.process import Estimate
from proxy.report.text import WIDTH, size
from proxy.scheduler import Demand, Device, ModelName
from tests.nvml.device import GIB, ScriptedNvml
from tests.workers import heads

KIB, MIB = 1 << 10, 1 << 20
PICTURES = "  pictures up to "
UNIT_BYTES = {"KiB": KIB, "MiB": MIB, "GiB": GIB}
GPU0, GPU1, HOST = Device("gpu0"), Device("gpu1"), Device("host")


@dataclass
class Block:
    """What was printed of one model."""

    lives_on: str
    gpu: str
    host: str
    known_from: str
    alone: str
    parts: dict[str, tuple[str, str]] = field(default_factory=dict)  # on the GPU, on the host
    pictures: str = ""


@dataclass
class Printed:
    """What was printed, and the exit status."""

    status: int
    out: str
    err: str

    @property
    def models(self) -> Mapping[str, Block]:
        """Read the table by the places of its headings."""
        lines = self.out.splitlines()
        top = next(at for at, line in enumerate(lines) if line.startswith("model "))
        headings = f"{lines[top]:{WIDTH}} alone"  # which is left out where nobody can tell
        on, known, alone = map(headings.index, ("lives on", "known from", "alone"))
        blocks: dict[str, Block] = {}
        for line in lines[top + 1 :]:
            if line.startswith("together"):
                break
            name, sizes = line[:on].rstrip(), line[on:known]
            if line.startswith(PICTURES):
                list(blocks.values())[-1].pictures = line.removeprefix(PICTURES)
            elif line.startswith(" " * len(PICTURES)):
                list(blocks.values())[-1].pictures += f" {line.strip()}"
            elif name.startswith("  ") and line[on:].strip():
                list(blocks.values())[-1].parts[name.strip()] = _columns(lines[top], line)
            elif name and sizes.strip():
                home = line[on:].split()[0]
                rest = (line[known:alone].strip(), line[alone:].strip())
                blocks[name] = Block(home, *_columns(lines[top], line), *rest)
        return blocks

    def together(self, device: str) -> str:
        """Give the section of the device, in one line."""
        sections = self.out.split("\n\n")
        found = (one for one in sections if one.startswith(f"together on {device}"))
        return " ".join(next(found, "").split())


def _columns(headings: str, line: str) -> tuple[str, str]:
    """Give what is printed under GPU, if there is such a column, and under host."""
    ends = [headings.find(f" {name}") + len(f" {name}") for name in ("GPU", "host")]
    gpu, host = (line[end - 10 : end].strip() for end in ends)
    return gpu if " GPU" in headings else "", host


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Give the command, to be run on a text."""
    return Check(tmp_path / "swap.yaml", capsys)


class Check:
    """The command line, run here: `check(yaml)`."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys
        (path.parent / "held").mkdir()

    def __call__(self, yaml: str) -> Printed:
        self.path.write_text(yaml)
        with pytest.raises(SystemExit) as exited:
            main(["check", "--memory", "--config", str(self.path)])
        told = self._capsys.readouterr()
        assert isinstance(exited.value.code, int)
        return Printed(exited.value.code, told.out, told.err)

    def estimate(self, name: str) -> Estimate:
        """Ask the worker's program itself."""
        surveyed = asyncio.run(app.survey(load_config(self.path).config))
        return surveyed.estimates[name]

    def learn(self, yaml: str, name: str, peak: Demand, request_class: str = PLAIN) -> None:
        """Write a footprint of the model for the next run."""
        self.path.write_text(yaml)
        model = load_config(self.path).config.models[name]
        digest = options_digest(model.kind, model.options, model.env, model.cmd)
        footprints = Footprints(default_path())
        footprints.learn(ModelName(name), digest, request_class, peak, now=0.0)
        footprints.save()


def holds(gpu_bytes: int = 0, host_bytes: int = 0) -> str:
    """Write the options of an echo worker that says it will hold so much."""
    allocate = f", allocate: {{path: held, bytes: {gpu_bytes}}}" if gpu_bytes else ""
    return f"{{ballast_bytes: {host_bytes}{allocate}}}"


def put_chat(folder: Path) -> None:
    """Write the head of a language model of 32 layers, of about 3.5 GiB."""
    path = folder / "chat.gguf"
    heads.llama(path, layers=32, width=4096, inner=14336, words=1000, heads=32, kv_heads=8)


def put_flux(folder: Path) -> str:
    """Write the heads of a small FLUX, and give the options that name them."""
    heads.flux(folder / "flux.safetensors", double=1, single=1)
    heads.kl_vae(folder / "ae.safetensors")
    table = {"shared.weight": ("BF16", (32128, 4096))}
    heads.write_safetensors(folder / "t5.safetensors", table)
    return "diffusion_model: flux.safetensors, vae: ae.safetensors, t5xxl: t5.safetensors"


def in_bytes(printed: str) -> float:
    """Read a size back, which has lost what is less than a tenth."""
    number, unit = printed.split()
    return float(number) * UNIT_BYTES[unit]


def lost_bytes(printed: str) -> float:
    """Tell by how much a printed size may be wrong."""
    return 0.05 * UNIT_BYTES[printed.split()[1]] + 1


# The numbers


def test_the_parts_of_a_model_are_its_worker_s_own_and_sum_up(check: Check) -> None:
    """Each part stands where it will live, and the first line is what they are together."""
    put_chat(check.path.parent)
    printed = check(
        "gpu: {memory: 24GiB}\nhost: {memory: 8GiB}\n"
        "models: {chat: {llama: {model: chat.gguf, n_ctx: 8192}}}"
    )
    block, estimate = printed.models["chat"], check.estimate("chat")

    device = estimate.held_bytes("device") + estimate.held_bytes("context")
    host = estimate.held_bytes("host")
    assert (block.lives_on, block.known_from) == ("gpu0", "estimated")
    assert (block.gpu, block.host) == (size(device), size(host))
    assert block.parts["KV cache"] == ("1.0 GiB", "")
    assert block.parts["engine and interpreter"] == ("", "75.0 MiB")
    assert set(block.parts) == {part.what for part in estimate.parts}
    for column, whole in enumerate((device, host)):
        cells = [cells[column] for cells in block.parts.values() if cells[column]]
        assert abs(sum(map(in_bytes, cells)) - whole) <= sum(map(lost_bytes, cells))
    assert printed.status == 0


def test_a_model_on_the_cpu_has_all_its_parts_on_the_host(check: Check) -> None:
    """Nothing is on a GPU then, a context there is none, and no column is spent on it."""
    put_chat(check.path.parent)
    printed = check("device: cpu\nmodels: {chat: {llama: {model: chat.gguf}}}")
    block, estimate = printed.models["chat"], check.estimate("chat")

    whole = estimate.held_bytes("host") + estimate.held_bytes("device")
    assert (block.lives_on, block.gpu, block.host) == ("host", "", size(whole))
    assert "GPU context" not in block.parts
    assert "gpu0" not in printed.out


def test_pictures_have_their_ladder(check: Check) -> None:
    """The plain picture is a part; what other sizes need in all follows, up to what fits.

    What does not fit as a whole, and does in tiles, says so.
    """
    options = put_flux(check.path.parent)
    printed = check(
        f"gpu: {{memory: 8GiB}}\nmodels:\n"
        f"  flux: {{sd: {{{options}, defaults: {{width: 512, height: 512}}}}}}"
    )
    block, estimate = printed.models["flux"], check.estimate("flux")

    held = estimate.held_bytes("device") + estimate.held_bytes("context")
    assert block.parts["a picture, 512x512"] == (size(estimate.request_bytes(None)), "")
    assert block.gpu == size(held + estimate.request_bytes(512**2))
    for side in (256, 512, 768):
        assert f"{side}x{side} {size(held + estimate.request_bytes(side**2))}" in block.pictures
    in_tiles = size(held + estimate.least_request_bytes(1024**2))
    assert f"1024x1024 {in_tiles} in tiles" in block.pictures
    too_big = size(held + estimate.least_request_bytes(1536**2))
    assert f"too big: 1536x1536 {too_big}, and larger ones" in block.pictures
    assert printed.status == 0


# Where a demand is known from


def test_what_a_model_declares_rules_over_its_estimate(check: Check) -> None:
    """The declaration stands first, and what was estimated is still told."""
    block = check(
        "gpu: {memory: 8GiB}\nmodels: {a: {memory: 3GiB, echo: " + holds(1 * GIB) + "}}"
    ).models["a"]

    assert (block.gpu, block.known_from, block.alone) == (
        "3.0 GiB",
        "declared",
        "fits, 5.0 GiB left",
    )
    assert block.parts["estimated in all"][0] == "1.0 GiB"


def test_what_was_learned_rules_over_the_estimate(check: Check) -> None:
    """A footprint of an earlier run is told, as the server would take it."""
    yaml = "gpu: {memory: 8GiB}\nmodels: {a: {echo: " + holds(1 * GIB) + "}}"
    check.learn(yaml, "a", {GPU0: 2 * GIB})
    block = check(yaml).models["a"]

    assert (block.gpu, block.known_from, block.alone) == (
        "2.0 GiB",
        "learned",
        "fits, 6.0 GiB left",
    )
    assert block.parts["estimated in all"][0] == "1.0 GiB"


def test_what_was_learned_of_a_picture_is_in_the_ladder(check: Check) -> None:
    """Sizes that were painted already are told as they were measured."""
    yaml = f"gpu: {{memory: 64GiB}}\nmodels: {{flux: {{sd: {{{put_flux(check.path.parent)}}}}}}}"
    check.learn(yaml, "flux", {GPU0: 33 * GIB}, RequestClass("1536x1536"))
    block = check(yaml).models["flux"]

    assert "1536x1536 33.0 GiB" in block.pictures
    assert block.known_from == "estimated"


def test_a_command_that_says_nothing_gets_all_there_is(check: Check) -> None:
    """There is no number to tell, and nobody is said to fit beside it."""
    printed = check(
        "gpu: {memory: 8GiB}\nmodels: {a: {cmd: 'serve ${PORT}'}, b: {echo: " + holds(GIB) + "}}"
    )
    block = printed.models["a"]

    assert (block.gpu, block.known_from, block.alone) == ("?", "unknown", "gets all there is")
    assert printed.together("gpu0") == ""
    assert printed.status == 0


# What fits


def test_models_that_all_fit_are_summed_up(check: Check) -> None:
    """The largest first, with what they are together."""
    printed = check(
        "gpu: {memory: 8GiB}\n"
        f"models: {{a: {{echo: {holds(2 * GIB)}}}, b: {{echo: {holds(3 * GIB)}}}}}"
    )

    told = "together on gpu0, 8.0 GiB all fit b 3.0 GiB + a 2.0 GiB = 5.0 GiB"
    assert printed.together("gpu0") == told
    assert printed.status == 0


def test_those_who_have_no_room_beside_each_other_are_named(check: Check) -> None:
    """Each pair once, then as many as fit at once, then who fits beside those left out."""
    printed = check(
        "gpu: {memory: 8GiB}\nmodels:\n"
        f"  five: {{echo: {holds(5 * GIB)}}}\n  four: {{echo: {holds(4 * GIB)}}}\n"
        f"  three: {{echo: {holds(3 * GIB)}}}\n  one: {{echo: {holds(1 * GIB)}}}"
    )

    assert printed.together("gpu0") == (
        "together on gpu0, 8.0 GiB"
        " no room for five 5.0 GiB beside four 4.0 GiB"
        " at once four 4.0 GiB + three 3.0 GiB + one 1.0 GiB = 8.0 GiB"
        " at once five 5.0 GiB + one 1.0 GiB = 6.0 GiB"
    )
    assert printed.status == 0


def test_the_pinned_are_always_there(check: Check) -> None:
    """What they hold is nobody else's: it counts in what fits alone and what fits together."""
    printed = check(
        "gpu: {memory: 8GiB}\nmodels:\n"
        f"  stays: {{pin: true, echo: {holds(2 * GIB)}}}\n"
        f"  fits: {{echo: {holds(6 * GIB)}}}\n"
        f"  large: {{echo: {holds(7 * GIB)}}}"
    )

    alone = {name: block.alone for name, block in printed.models.items()}
    assert alone == {
        "stays": "pinned, fits, 6.0 GiB left",
        "fits": "fits, 0.0 MiB left",
        "large": "1.0 GiB too big",
    }
    assert "always stays 2.0 GiB all fit stays 2.0 GiB + fits 6.0 GiB" in printed.together("gpu0")
    assert (
        "large can never load: it needs 7.0 GiB of gpu0 (estimated), and there are 6.0 GiB"
        " beside the pinned; 1.0 GiB too little." in " ".join(printed.out.split())
    )
    assert printed.status == 1


def test_what_can_never_load_is_told_with_what_would_help(check: Check) -> None:
    """The numbers, what other options would make of them where that was not done, status 1."""
    put_chat(check.path.parent)
    yaml = "gpu: {memory: 5GiB}\nmodels: {chat: {llama: {model: chat.gguf, %s}}}"
    smaller = check(yaml % "n_ctx: 8192, type_k: q8_0, type_v: q8_0").models["chat"].gpu
    printed = check(yaml % "n_ctx: 32768, type_k: q8_0, type_v: q8_0")

    needs, told = printed.models["chat"].gpu, printed.out.split("\n\n")[-1]
    assert told.startswith(f"chat can never load: it needs {needs} of gpu0 (estimated)")
    assert re.search(rf"^  try  n_ctx: 8192 +{smaller} +fits$", told, re.MULTILINE)
    assert "a file of a smaller quant" in told
    assert "type_k" not in told
    assert printed.status == 1


def test_what_declares_too_much_is_asked_to_declare_less(check: Check) -> None:
    """Options would not change it, so none are tried."""
    printed = check(f"gpu: {{memory: 4GiB}}\nmodels: {{a: {{memory: 6GiB, echo: {holds(GIB)}}}}}")

    told = printed.out.split("\n\n")[-1]
    assert told.startswith("a can never load: it needs 6.0 GiB of gpu0 (declared)")
    assert "try  declare less as its memory" in told
    assert printed.status == 1


def test_two_gpus_are_told_apart(check: Check, scripted_nvml: ScriptedNvml) -> None:
    """A model on both takes half of each, and each has its own size and company."""
    scripted_nvml.add_gpu(24 * GIB)
    scripted_nvml.add_gpu(16 * GIB)
    printed = check(
        "gpu: {memory: {0: auto, 1: 50%}, devices: [0, 1], reserve: 1GiB}\nmodels:\n"
        f"  wide: {{gpu: [0, 1], echo: {holds(12 * GIB)}}}\n"
        f"  one: {{gpu: 1, echo: {holds(2 * GIB)}}}\n"
        f"  first: {{echo: {holds(8 * GIB)}}}"
    )

    rooms = [line.split() for line in printed.out.splitlines() if line.startswith("gpu")]
    assert [row[:3] for row in rooms] == [["gpu0", "23.0", "GiB"], ["gpu1", "7.0", "GiB"]]
    assert "16.0 GiB (Scripted 1), 1.0 GiB in reserve" in printed.out
    blocks = printed.models
    assert (blocks["wide"].lives_on, blocks["wide"].gpu) == ("gpu0+gpu1", "12.0 GiB")
    assert blocks["wide"].alone == "fits, 1.0 GiB left on gpu1"
    assert (blocks["one"].lives_on, blocks["first"].lives_on) == ("gpu1", "gpu0")
    assert "all fit first 8.0 GiB + wide 6.0 GiB = 14.0 GiB" in printed.together("gpu0")
    assert "no room for wide 6.0 GiB beside one 2.0 GiB" in printed.together("gpu1")
    assert printed.status == 0


def test_the_host_s_budget_is_shared_by_those_on_gpus_too(check: Check) -> None:
    """What a model on the GPU holds on the host counts beside a model that lives there."""
    printed = check(
        "gpu: {memory: 8GiB}\nhost: {memory: 1GiB}\nmodels:\n"
        f"  cpu: {{device: cpu, echo: {holds(0, 700 * MIB)}}}\n"
        f"  gpu: {{echo: {holds(GIB, 300 * MIB)}}}"
    )

    blocks = printed.models
    assert (blocks["cpu"].gpu, blocks["cpu"].host) == ("", "748.0 MiB")
    assert (blocks["gpu"].gpu, blocks["gpu"].host) == ("1.0 GiB", "348.0 MiB")
    told = "together on host, 1.0 GiB no room for cpu 748.0 MiB beside gpu 348.0 MiB"
    assert printed.together("host") == told


# Without budgets, without devices, with mistakes


def test_without_a_budget_the_size_of_the_gpu_is_the_measure(
    check: Check, scripted_nvml: ScriptedNvml
) -> None:
    """One at a time is said, and what a budget would make of it."""
    scripted_nvml.add_gpu(8 * GIB)
    printed = check(
        f"models: {{a: {{echo: {holds(2 * GIB)}}}, b: {{echo: {holds(3 * GIB)}}},"
        f" c: {{echo: {holds(9 * GIB)}}}}}"
    )

    assert "gpu0  8.0 GiB  no budget: one model at a time; Scripted 0\n" in printed.out
    assert printed.models["a"].alone == "fits, 6.0 GiB left"
    told = "together on gpu0, 8.0 GiB, if gpu.memory were set all fit b 3.0 GiB + a 2.0 GiB"
    assert printed.together("gpu0").startswith(told)
    assert "c will hardly load: it needs 9.0 GiB of gpu0" in printed.out
    assert printed.status == 1


def test_without_any_gpu_to_look_at_nothing_is_too_big(check: Check) -> None:
    """The estimates are told, and that nobody knows what there is."""
    printed = check(f"models: {{a: {{echo: {holds(2 * GIB)}}}, b: {{echo: {holds(900 * GIB)}}}}}")

    assert "gpu0  -  no budget: one model at a time; its size is not known\n" in printed.out
    assert "no GPU can be looked at: " in printed.out
    assert (printed.models["b"].gpu, printed.models["b"].alone) == ("900.0 GiB", "")
    assert printed.together("gpu0") == (
        "together on gpu0, if gpu.memory were set all b 900.0 GiB + a 2.0 GiB = 902.0 GiB"
    )
    assert printed.status == 0


def test_a_budget_that_cannot_be_told_here_does_not_hide_the_estimates(check: Check) -> None:
    """`auto` needs a GPU to look at: that is said with what would help, and the status is 1."""
    printed = check(f"gpu: {{memory: auto}}\nmodels: {{a: {{echo: {holds(2 * GIB)}}}}}")

    assert "no budget can be told here: gpu.memory: needs to look at the GPU" in printed.out
    assert printed.models["a"].gpu == "2.0 GiB"
    assert printed.status == 1


def test_a_gpu_that_is_not_there_is_a_mistake(check: Check, scripted_nvml: ScriptedNvml) -> None:
    """It is told by its key, with what there is."""
    scripted_nvml.add_gpu()
    printed = check("models: {a: {gpu: 5, echo: {}}}")

    assert "models.a.gpu: 5 is no GPU here; there are: 0 = GPU-0a8f-scripted" in printed.err
    assert printed.status == 1


def test_a_server_does_not_start_for_a_gpu_that_is_not_there(
    check: Check, scripted_nvml: ScriptedNvml
) -> None:
    """It complains as the check does, before anything is opened for models."""
    scripted_nvml.add_gpu()
    check.path.write_text("models: {a: {echo: {}}, b: {gpu: [0, 1], echo: {}}}")
    config = load_config(check.path).config

    with pytest.raises(NoBudget, match="1 is no GPU here") as told, app.opened_devices(config):
        pass
    assert told.value.where == ("models", "b", "gpu")


def test_mistakes_come_first(check: Check) -> None:
    """A file with mistakes is told them, and no numbers of models that could not be."""
    printed = check("models:\n  a:\n    echo: {file: missing.gguf}\n  b: {echo: {}}")

    assert "swap.yaml:3: models.a.echo.file: " in printed.err
    assert printed.out == ""
    assert printed.status == 1


def test_ten_models_with_long_names_stay_within_the_terminal(check: Check) -> None:
    """Sentences are broken, but never between a number and its unit."""
    models = "".join(
        f"  a-model-of-the-name-{number}: {{echo: {holds(number * GIB + GIB // 4)}}}\n"
        for number in range(1, 11)
    )
    printed = check(f"gpu: {{memory: 22GiB}}\nmodels:\n{models}")

    lines = printed.out.splitlines()[1:]
    assert max(map(len, lines)) <= WIDTH
    assert not [line for line in lines if re.search(r"[0-9]$", line)]
    assert not [line for line in lines if line != line.rstrip()]
    assert printed.status == 0


@pytest.mark.parametrize(
    ("count_bytes", "told"),
    [
        (0, "0.0 MiB"),
        (512, "0.5 KiB"),
        (99 * KIB, "0.1 MiB"),
        (1023 * MIB, "1023.0 MiB"),
        (GIB - 1, "1.0 GiB"),
        (int(12.94 * GIB), "12.9 GiB"),
    ],
)
def test_sizes_have_one_decimal(count_bytes: int, told: str) -> None:
    """So that a column of them lines up."""
    assert size(count_bytes) == told
