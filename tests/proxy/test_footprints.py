"""Footprints: what is learned, what is kept, and a file that may be in any state."""

from __future__ import annotations

import json
import logging
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.footprints import Digest, Footprints, default_path, options_digest
from proxy.scheduler.types import Device, ModelName

GPU, HOST = Device("gpu0"), Device("host")
GIB = 1 << 30
PAINTER, CHAT = ModelName("painter"), ModelName("chat")
ONE, OTHER = Digest("0123456789abcdef"), Digest("fedcba9876543210")

PEAK: Mapping[str, object] = {
    "model": "painter",
    "digest": ONE,
    "request_class": "1024x1024",
    "peak": {"gpu0": GIB},
    "runs": 1,
    "used_at": 5.0,
}
TIMES: Mapping[str, object] = {
    "model": "painter",
    "digest": ONE,
    "load_s": 2.0,
    "service_s": None,
    "used_at": 5.0,
}
WHOLE = {"version": 1, "peaks": [PEAK], "times": [TIMES]}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# Learning.


def test_an_unseen_model_has_no_footprint() -> None:
    """Where nothing was measured, nothing is claimed."""
    footprints = Footprints(None)

    assert footprints.peak(PAINTER, ONE, "load") is None
    assert footprints.classes(PAINTER, ONE) == {}
    assert footprints.load_s(PAINTER, ONE) is None
    assert footprints.service_s(PAINTER, ONE) is None
    assert footprints.runs(PAINTER, ONE, "load") == 0


def test_the_options_and_the_class_tell_footprints_apart() -> None:
    """The same model with other options, or with bigger requests, is another matter."""
    footprints = Footprints(None)
    footprints.learn(PAINTER, ONE, "512x512", {GPU: GIB}, now=1)
    footprints.learn(PAINTER, ONE, "1024x1024", {GPU: 3 * GIB, HOST: GIB}, now=1)
    footprints.learn(PAINTER, OTHER, "512x512", {GPU: 2 * GIB}, now=1)
    footprints.learn(CHAT, ONE, "512x512", {GPU: 7 * GIB}, now=1)

    assert footprints.peak(PAINTER, ONE, "512x512") == {GPU: GIB}
    assert footprints.peak(PAINTER, OTHER, "512x512") == {GPU: 2 * GIB}
    assert footprints.classes(PAINTER, ONE) == {
        "512x512": {GPU: GIB},
        "1024x1024": {GPU: 3 * GIB, HOST: GIB},
    }


@pytest.mark.parametrize(
    ("first", "second", "is_news", "expected"),
    [
        ({GPU: 1000}, {GPU: 1000}, False, {GPU: 1000}),
        ({GPU: 1000}, {GPU: 500}, False, {GPU: 1000}),
        ({GPU: 1000}, {GPU: 1010}, False, {GPU: 1010}),
        ({GPU: 1000}, {GPU: 1011}, True, {GPU: 1011}),
        ({GPU: 1000}, {HOST: 1}, True, {GPU: 1000, HOST: 1}),
        ({GPU: 1000}, {HOST: 0}, False, {GPU: 1000, HOST: 0}),
        ({GPU: 1000, HOST: 10}, {GPU: 1, HOST: 20}, True, {GPU: 1000, HOST: 20}),
    ],
)
def test_peaks_only_grow(
    *,
    first: Mapping[Device, int],
    second: Mapping[Device, int],
    is_news: bool,
    expected: Mapping[Device, int],
) -> None:
    """Each device's peak is the most that was seen; more than 1 % more is news."""
    footprints = Footprints(None)
    assert footprints.learn(PAINTER, ONE, "load", first, now=1)

    assert footprints.learn(PAINTER, ONE, "load", second, now=2) is is_news
    assert footprints.peak(PAINTER, ONE, "load") == expected
    assert footprints.runs(PAINTER, ONE, "load") == 2


def test_slow_growth_becomes_news() -> None:
    """Steps that are each too small to tell are told when they add up."""
    footprints = Footprints(None)
    footprints.learn(PAINTER, ONE, "load", {GPU: 1000}, now=1)

    news = [footprints.learn(PAINTER, ONE, "load", {GPU: n}, now=1) for n in (1006, 1012, 1018)]
    assert news == [False, True, False]


def test_what_was_feared_is_forgotten_when_all_goes_well(tmp_path: Path) -> None:
    """It may have run out for a neighbour's sake: after three good runs what was seen counts."""
    path = tmp_path / "footprints.json"
    footprints = Footprints(path)
    footprints.learn(PAINTER, ONE, "", {GPU: 1000}, now=1)
    footprints.note_out_of_memory(PAINTER, ONE, "", {GPU: 1000}, now=2)
    footprints.learn(PAINTER, ONE, "", {GPU: 1010}, now=3)
    footprints.save()
    footprints = Footprints(path)
    assert footprints.feared(PAINTER, ONE, "") == {GPU: 1250}
    assert footprints.peak(PAINTER, ONE, "") == {GPU: 1010}

    footprints.learn(PAINTER, ONE, "", {GPU: 1000}, now=4)
    assert footprints.learn(PAINTER, ONE, "", {GPU: 1000}, now=5)
    assert footprints.feared(PAINTER, ONE, "") == {}


def test_running_out_of_memory_is_feared() -> None:
    """What was not enough is taken for a quarter too small; a smaller fear takes none back."""
    footprints = Footprints(None)
    footprints.note_out_of_memory(PAINTER, ONE, "load", {GPU: 1000}, now=1)
    assert footprints.feared(PAINTER, ONE, "load") == {GPU: 1250}

    footprints.note_out_of_memory(PAINTER, ONE, "load", {GPU: 1250, HOST: 4}, now=2)
    footprints.note_out_of_memory(PAINTER, ONE, "load", {GPU: 100}, now=3)
    assert footprints.feared(PAINTER, ONE, "load") == {GPU: 1562, HOST: 5}
    assert footprints.peak(PAINTER, ONE, "load") is None


def test_times_follow_the_newest() -> None:
    """The first time stands as it is; later ones move the mean by three tenths."""
    footprints = Footprints(None)
    footprints.note_times(PAINTER, ONE, load_s=10.0, now=1)
    assert (footprints.load_s(PAINTER, ONE), footprints.service_s(PAINTER, ONE)) == (10.0, None)

    footprints.note_times(PAINTER, ONE, load_s=20.0, service_s=1.0, now=2)
    footprints.note_times(PAINTER, ONE, service_s=1.0, now=3)
    assert footprints.load_s(PAINTER, ONE) == pytest.approx(13.0)
    assert footprints.service_s(PAINTER, ONE) == pytest.approx(1.0)
    assert footprints.load_s(PAINTER, OTHER) is None


def test_the_longest_unused_are_forgotten(tmp_path: Path) -> None:
    """Five hundred footprints are kept, by their last use, and as many times."""
    footprints = Footprints(tmp_path / "footprints.json")
    for number in range(510):
        name = ModelName(f"model-{number}")
        footprints.learn(name, ONE, "load", {GPU: 1}, now=number)
        footprints.note_times(name, ONE, load_s=1.0, now=number)
        footprints.learn(ModelName("model-0"), ONE, "load", {GPU: 1}, now=number)
    footprints.save()

    again = Footprints(tmp_path / "footprints.json")
    kept = [n for n in range(510) if again.peak(ModelName(f"model-{n}"), ONE, "load")]
    timed = [n for n in range(510) if again.load_s(ModelName(f"model-{n}"), ONE)]
    assert kept == [0, *range(11, 510)]
    assert timed == [*range(10, 510)]


# The digest.


def test_the_digest_does_not_mind_the_order() -> None:
    """Only what a model is started with counts, not how it was written down."""
    one = options_digest("sd", {"a": 1, "b": {"c": [1, 2], "d": None}}, {"X": "1", "Y": "2"}, None)
    same = options_digest(
        "sd", {"b": {"d": None, "c": [1, 2]}, "a": 1}, {"Y": "2", "X": "1"}, None
    )

    assert one == same
    assert len(one) == 16
    assert int(one, 16) >= 0


@pytest.mark.parametrize(
    "other",
    [
        ("llama", {"a": 1}, {"X": "1"}, None),
        ("sd", {"a": 2}, {"X": "1"}, None),
        ("sd", {"a": "1"}, {"X": "1"}, None),
        ("sd", {"a": 1}, {}, None),
        ("sd", {"a": 1}, {"X": "1"}, ""),
        ("sd", {"a": [1]}, {"X": "1"}, None),
    ],
)
def test_the_digest_minds_every_part(
    other: tuple[str, Mapping[str, object], Mapping[str, str], str | None],
) -> None:
    """Another kind, option, variable or command is another digest."""
    assert options_digest(*other) != options_digest("sd", {"a": 1}, {"X": "1"}, None)


# The file.


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/x"}, "/state/hotseat/footprints.json"),
        ({"HOME": "/home/x"}, "/home/x/.local/state/hotseat/footprints.json"),
        (
            {"XDG_STATE_HOME": "state", "HOME": "/home/x"},
            "/home/x/.local/state/hotseat/footprints.json",
        ),
        ({}, None),
    ],
)
def test_the_file_has_a_usual_place(environ: Mapping[str, str], expected: str | None) -> None:
    """It follows XDG, whose relative paths do not count; without a home there is no file."""
    assert default_path(environ) == (Path(expected) if expected else None)


on_disk = settings(max_examples=settings().max_examples // 5)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
demands = st.dictionaries(names.map(Device), st.integers(0, 1 << 50), max_size=3)


@on_disk
@given(
    st.dictionaries(st.tuples(names, names, names), demands, max_size=5),
    st.floats(0, 1e6),
    st.floats(0, 1e10),
)
def test_a_new_life_knows_what_the_last_one_knew(
    tmp_path_factory: pytest.TempPathFactory,
    peaks: Mapping[tuple[str, str, str], Mapping[Device, int]],
    seconds: float,
    now: float,
) -> None:
    """Whatever names there are, what was saved is loaded."""
    path = tmp_path_factory.mktemp("state") / "footprints.json"
    footprints = Footprints(path)
    for (model, digest, request_class), peak in peaks.items():
        footprints.learn(ModelName(model), Digest(digest), request_class, peak, now=now)
        footprints.note_times(ModelName(model), Digest(digest), load_s=seconds, now=now)
    footprints.save()

    again = Footprints(path)
    for (model, digest, request_class), peak in peaks.items():
        assert again.peak(ModelName(model), Digest(digest), request_class) == peak
        assert again.load_s(ModelName(model), Digest(digest)) == seconds
        assert not again.learn(ModelName(model), Digest(digest), request_class, peak, now=now)


def test_the_file_is_private_and_alone(tmp_path: Path) -> None:
    """It appears with its folders, readable by us only, and no draft stays beside it."""
    path = tmp_path / "state/hotseat/footprints.json"
    footprints = Footprints(path)
    footprints.learn(PAINTER, ONE, "load", {GPU: 1}, now=1)
    footprints.save()
    footprints.save()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first run ever starts empty, without a warning and without a file."""
    footprints = Footprints(tmp_path / "footprints.json")

    assert footprints.peak(PAINTER, ONE, "load") is None
    assert warnings(caplog) == []
    assert list(tmp_path.iterdir()) == []


def change(**parts: object) -> bytes:
    return json.dumps({**WHOLE, **parts}).encode()


def change_peak(**parts: object) -> bytes:
    return change(peaks=[{**PEAK, **parts}])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"version": 1, "peaks": [], "times": []} trailing',
        change(version=2),
        change(version="1"),
        change(peaks={}),
        change(times=None),
        change(more=1),
        change_peak(peak={"gpu0": "1"}),
        change_peak(peak={"gpu0": 1.5}),
        change_peak(peak={"gpu0": -1}),
        change_peak(peak={"gpu0": 10**30}),
        change_peak(peak=[]),
        change_peak(runs=True),
        change_peak(model=None),
        change_peak(used_at="yesterday"),
        change(times=[{**TIMES, "load_s": float("nan")}]),
        change(times=[{**TIMES, "load_s": -1.0}]),
    ],
)
def test_a_file_that_makes_no_sense_is_set_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The start is empty, with a warning, and what the file held can still be looked at."""
    path = tmp_path / "footprints.json"
    path.write_bytes(content)
    footprints = Footprints(path)

    assert footprints.peak(PAINTER, ONE, "1024x1024") is None
    assert warnings(caplog) == ["footprints_unreadable"]
    assert path.with_name("footprints.json.corrupt").read_bytes() == content
    assert not path.exists()

    footprints.learn(PAINTER, ONE, "load", {GPU: 1}, now=1)
    footprints.save()
    assert Footprints(path).peak(PAINTER, ONE, "load") == {GPU: 1}


def test_a_file_cut_anywhere_does_no_harm(tmp_path: Path) -> None:
    """Truncated at any byte it is set aside; only the whole of it is believed."""
    path, aside = tmp_path / "footprints.json", tmp_path / "footprints.json.corrupt"
    whole = json.dumps(WHOLE).encode()

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert Footprints(path).peak(PAINTER, ONE, "1024x1024") is None
        assert aside.read_bytes() == whole[:length]

    path.write_bytes(whole)
    assert Footprints(path).peak(PAINTER, ONE, "1024x1024") == {GPU: GIB}


@on_disk
@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_file_with_any_bytes_in_it_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    """Bytes written over any part of it never raise."""
    path = tmp_path_factory.mktemp("state") / "footprints.json"
    whole = json.dumps(WHOLE).encode()
    path.write_bytes(whole[:at] + junk + whole[at + len(junk) :])

    footprints = Footprints(path)
    footprints.learn(PAINTER, ONE, "load", {GPU: 7}, now=1)
    footprints.save()
    assert Footprints(path).peak(PAINTER, ONE, "load") == {GPU: 7}


def test_a_folder_in_its_place_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be read at all is moved away as well."""
    path = tmp_path / "footprints.json"
    path.mkdir()
    footprints = Footprints(path)
    footprints.save()

    assert warnings(caplog) == ["footprints_unreadable"]
    assert path.is_file()
    assert path.with_name("footprints.json.corrupt").is_dir()


def test_a_disk_that_takes_nothing_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed save is told once, until one succeeds; nothing raises and nothing is lost."""
    blocked = tmp_path / "state"
    blocked.write_text("a file where the folder should be")
    footprints = Footprints(blocked / "footprints.json")
    footprints.learn(PAINTER, ONE, "load", {GPU: 1}, now=1)
    caplog.clear()
    footprints.save()
    footprints.save()
    assert warnings(caplog) == ["footprints_not_saved"]

    blocked.unlink()
    footprints.save()
    assert Footprints(blocked / "footprints.json").peak(PAINTER, ONE, "load") == {GPU: 1}

    (blocked / "footprints.json").unlink()
    (blocked / "footprints.json").mkdir()
    footprints.save()
    assert warnings(caplog) == ["footprints_not_saved"] * 2
    assert list(blocked.iterdir()) == [blocked / "footprints.json"]


def test_a_time_that_makes_no_sense_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be loaded again is not saved either; the file stays as it was."""
    path = tmp_path / "footprints.json"
    path.write_text(json.dumps(WHOLE))
    footprints = Footprints(path)
    footprints.note_times(CHAT, ONE, load_s=float("nan"), now=1)
    footprints.save()

    assert warnings(caplog) == ["footprints_not_saved"]
    assert path.read_text() == json.dumps(WHOLE)
    assert list(tmp_path.iterdir()) == [path]


# root may write anywhere: the child gives that up first
SAVES_READ_ONLY = """
import os, sys
from pathlib import Path
from proxy.footprints import Footprints
footprints = Footprints(Path(sys.argv[1]))
if os.getuid() == 0:
    os.setuid(65534)
footprints.learn("painter", "digest", "load", {"gpu0": 1}, now=2)
footprints.save()
print(dict(footprints.peak("painter", "digest", "load")))
"""


def test_a_read_only_folder_keeps_the_old_file(tmp_path: Path) -> None:
    """A folder that may not be written to leaves us with what is in memory."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "footprints.json").write_text(json.dumps(WHOLE))
    folder.chmod(0o555)
    argv = [sys.executable, "-c", SAVES_READ_ONLY, str(folder / "footprints.json")]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)

    assert done.stdout == "{'gpu0': 1}\n"
    assert done.stderr == "footprints_not_saved\n"  # as logging does with no handler set up
    assert Footprints(folder / "footprints.json").peak(PAINTER, ONE, "1024x1024") == {GPU: GIB}
    assert list(folder.iterdir()) == [folder / "footprints.json"]


SAVES_OFTEN = """
import sys
from pathlib import Path
from proxy.footprints import Footprints
name, footprints = sys.argv[2], Footprints(Path(sys.argv[1]))
for number in range(100):
    footprints.learn(name, "digest", str(number), {"gpu0": 5}, now=number)
    footprints.save()
"""


def test_two_that_save_at_once_leave_a_whole_file(tmp_path: Path) -> None:
    """At any moment the file is whole, and in the end it is the one that was saved last."""
    path = tmp_path / "footprints.json"
    path.write_text(json.dumps(WHOLE))
    argv = [sys.executable, "-c", SAVES_OFTEN, str(path)]
    looks = 0
    with subprocess.Popen([*argv, "one"]) as one, subprocess.Popen([*argv, "other"]) as other:
        while one.poll() is None or other.poll() is None:
            assert json.loads(path.read_text()).keys() == WHOLE.keys()
            looks += 1

    assert (one.returncode, other.returncode) == (0, 0)
    assert looks > 0
    last = Footprints(path)
    counts = [len(last.classes(ModelName(n), Digest("digest"))) for n in ("one", "other")]
    assert max(counts) == 100
    assert list(tmp_path.iterdir()) == [path]
