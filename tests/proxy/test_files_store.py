"""The store of pictures: by content, bounded, and there again after whatever has ended it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.config import FilesConfig, Owner
from proxy.errors import BadRequest, BodyTooLarge, NotKept
from proxy.pictures import Claim, Incoming, PictureStore, sniff

PNG = b"\x89PNG\r\n\x1a\n"
A, B = Owner("a"), Owner("b")


def picture(name: str, size_bytes: int = 100) -> bytes:
    return (PNG + name.encode()).ljust(size_bytes, b".")


def config(**keys: object) -> FilesConfig:
    return FilesConfig.model_validate(keys)


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "image/bmp"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "image/avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "image/avif"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", None),
        (b"BMW is a maker of cars, and no kind of picture", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"", None),
    ],
)
def test_a_picture_is_known_by_its_first_bytes(raw: bytes, media_type: str | None) -> None:
    """Whatever it is called, and whatever somebody says that it is."""
    assert sniff(raw) == media_type


def test_a_reference_is_the_content_s_and_found_under_all_its_names(tmp_path: Path) -> None:
    """The same bytes are one file; a whole digest finds them as well."""
    store = PictureStore(tmp_path / "files", config())
    first = store.put(picture("x"), "cat.png")
    second = store.put(picture("x"), "dog.png")
    digest = hashlib.sha256(picture("x")).hexdigest()

    assert first.id == second.id == f"file-{digest[:32]}"
    assert (first.name, second.name, first.media_type) == ("cat.png", "dog.png", "image/png")
    found = [store.find(one) for one in (first.id, digest, digest[:32])]
    assert [one and one.path for one in found] == [first.path] * 3
    assert first.path.read_bytes() == picture("x")
    assert names_in(tmp_path / "files") == {first.id, f"{first.id}.json"}
    odd = ["", "file-", digest[:31], f"../{first.id}", f"{first.id}\n", f"file-{digest}"]
    assert [store.find(one) for one in odd] == [None] * len(odd)


def test_what_is_no_picture_or_too_large_leaves_nothing_behind(tmp_path: Path) -> None:
    """Both are the client's mistakes, in words."""
    store = PictureStore(tmp_path / "files", config(maxFileBytes=200))

    with pytest.raises(BadRequest) as text:
        store.put(b"hello")
    with pytest.raises(BodyTooLarge) as large:
        store.put(picture("x", 201))
    assert (text.value.told_code, large.value.told_code) == ("not_a_picture", "file_too_large")
    assert "200 B" in large.value.message
    assert names_in(tmp_path / "files") == set()


def test_the_longest_unused_leave_when_there_is_no_room(tmp_path: Path) -> None:
    """In bytes and in number; to be asked for counts as use, and a reader reads on."""
    store = PictureStore(tmp_path, config(maxBytes=300), most_kept=3)
    a, b, c = (store.put(picture(name)) for name in "abc")
    with b.path.open("rb") as reader:
        store.find(a.id)
        d = store.put(picture("d"))
        assert reader.read() == picture("b")
    e = store.put(picture("e", 20))

    assert [store.find(one.id) is not None for one in (a, b, c, d, e)] == [1, 0, 0, 1, 1]
    assert names_in(tmp_path) == {name for one in (a, d, e) for name in (one.id, f"{one.id}.json")}


def test_a_picture_leaves_when_it_is_not_used_for_long(tmp_path: Path) -> None:
    """Or when its owner wished it gone; a ttl of nothing keeps it."""
    clock = Clock()
    store = PictureStore(tmp_path / "a", config(ttl="1h"), clock=clock)
    used, unused = store.put(picture("used")), store.put(picture("unused"))
    with store.incoming() as incoming:
        store.take(incoming, picture("brief"))
        brief = store.keep(incoming, Claim(None, "vision", clock.now, keep_s=1800), None)
    with store.incoming() as incoming:
        store.take(incoming, picture("long"))
        long = store.keep(incoming, Claim(None, "vision", clock.now, keep_s=86_400), None)
    kept = PictureStore(tmp_path / "b", config(ttl=0), clock=clock).put(picture("kept"))

    clock.now += 2400
    is_brief_there = store.find(brief.id) is not None
    store.find(used.id)
    clock.now += 2400
    listed = [one.id for one in store.of(None)]
    store.tidy()

    assert (used.expires_at, kept.expires_at) == (clock.now - 1200, None)
    assert (brief.expires_at, long.expires_at) == (clock.now - 3000, clock.now - 1200)
    assert not is_brief_there
    assert listed == [used.id]
    assert names_in(tmp_path / "a") == {used.id, f"{used.id}.json"}
    assert store.find(unused.id) is None


def test_each_owner_has_a_claim_of_his_own(tmp_path: Path) -> None:
    """Who knows the reference may read it; only who has put it there lists it and may drop it."""
    store = PictureStore(tmp_path, config())
    mine = store.put(picture("x"), "secret name.png", A)
    store.put(picture("x"), "other.png", B)
    seen = store.find(mine.id, Owner("c"))
    lists = [[one.name for one in store.of(who)] for who in (A, B, Owner("c"), None)]
    dropped = [store.drop(mine.id, who) for who in (Owner("c"), A, A)]
    is_there = store.find(mine.id) is not None
    last = store.drop(mine.id, B)

    assert lists == [["secret name.png"], ["other.png"], [], []]
    assert seen is not None
    assert seen.name == "picture.png"
    assert dropped == [False, True, False]
    assert (is_there, last) == (True, True)
    assert names_in(tmp_path) == set()


def test_a_later_store_finds_what_an_earlier_one_has_kept(tmp_path: Path) -> None:
    """Names, owners and the order of use too; what is not ours in the folder stays as it is."""
    clock = Clock()
    (tmp_path / "holiday.png").write_bytes(picture("holiday"))
    link = tmp_path / f"file-{'1' * 32}"
    link.symlink_to("holiday.png")
    before = PictureStore(tmp_path, config(), clock=clock)
    a = before.put(picture("a"), "a.png", A)
    clock.now += 1
    b = before.put(picture("b"), "b.png", B)
    clock.now += 1
    before.find(a.id)
    (tmp_path / f"{'file-' + '0' * 32}.json").write_text("{}")  # a picture that is gone
    (tmp_path / f"{b.id}.json").write_text('{"b": {"name": 7}}')  # no label
    after = PictureStore(tmp_path, config(maxBytes=100), clock=clock)

    assert after.of(A) == [after.find(a.id, A)]
    assert after.find(b.id) is None
    assert after.find(link.name) is None
    assert names_in(tmp_path) == {"holiday.png", link.name, a.id, f"{a.id}.json"}


def test_two_stores_of_one_folder_do_each_other_no_harm(tmp_path: Path) -> None:
    """What one has removed the other does not find, and takes again; uploads are left alone."""
    one, other = PictureStore(tmp_path, config()), PictureStore(tmp_path, config())
    here = one.put(picture("x"))
    there = other.put(picture("x"))
    one.drop(here.id, None)
    with one.incoming() as incoming:
        one.take(incoming, picture("y"))
        lost = other.find(there.id)
        again = other.put(picture("x"))
        PictureStore(tmp_path, config())
        kept = one.keep(incoming, Claim(None, "vision", 0.0), None)

    assert lost is None
    assert again.path.read_bytes() == picture("x")
    assert kept.path.read_bytes() == picture("y")


KILLED = """
import sys, os, signal
from pathlib import Path
from proxy.config import FilesConfig
from proxy.pictures import PictureStore
store = PictureStore(Path(sys.argv[1]), FilesConfig())
store.put(b"\\x89PNG\\r\\n\\x1a\\nwhole")
with store.incoming() as incoming:
    store.take(incoming, b"\\x89PNG\\r\\n\\x1a\\n" + bytes(1 << 20))
    os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_what_a_killed_proxy_was_writing_is_gone_and_the_rest_is_there(
    tmp_path: Path,
) -> None:
    """A file has its name when it is whole, and not before."""
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, tmp_path], check=False
    )
    left = names_in(tmp_path)
    store = PictureStore(tmp_path, config())

    [whole] = store.of(None)
    assert run.returncode == -signal.SIGKILL
    assert len(left) == 3
    assert names_in(tmp_path) == {whole.id, f"{whole.id}.json"}
    assert whole.path.read_bytes() == PNG + b"whole"


def test_pictures_are_nobody_else_s_to_read(tmp_path: Path) -> None:
    """Not even their names."""
    folder = tmp_path / "state/files"
    stored = PictureStore(folder, config()).put(picture("x"))
    paths = [folder, stored.path, folder / f"{stored.id}.json"]

    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o700, 0o600, 0o600]


def test_where_nothing_can_be_kept_that_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder's place is taken: no start fails for it, each upload does, in words."""
    (tmp_path / "files").write_text("a file")
    with caplog.at_level(logging.WARNING, "proxy.pictures"):
        store = PictureStore(tmp_path / "files", config())
        for _ in range(2):
            with pytest.raises(NotKept) as refused:
                store.put(picture("x"))

    assert [one.message for one in caplog.records] == ["pictures_not_kept"]
    assert (refused.value.status, refused.value.told_code) == (507, "not_kept")
    assert refused.value.headers == {"x-should-retry": "false"}
    assert store.find("0" * 32) is None


def test_a_picture_that_gets_no_label_takes_room_all_the_same(tmp_path: Path) -> None:
    """It lies there, so it is counted, and leaves like the others."""
    store = PictureStore(tmp_path, config(maxBytes=250))
    label = tmp_path / f"file-{hashlib.sha256(picture('x')).hexdigest()[:32]}.json"
    label.mkdir()
    with pytest.raises(NotKept):
        store.put(picture("x"))
    others = [store.put(picture(name)).id for name in "ab"]

    assert {path.name for path in tmp_path.glob("file-*") if not path.suffix} == set(others)


def test_what_cannot_be_taken_back_is_not_said_to_be_gone(tmp_path: Path) -> None:
    """Whether it is the picture that cannot go, or the owner's name on it."""
    store = PictureStore(tmp_path, config())
    whole, shared = store.put(picture("x"), None, A), store.put(picture("y"), None, A)
    store.put(picture("y"), None, B)
    whole.path.unlink()
    (whole.path / "not-empty").mkdir(parents=True)
    label = tmp_path / f"{shared.id}.json"
    label.unlink()
    label.mkdir()
    for one in (whole, shared):
        with pytest.raises(NotKept, match="cannot be taken back"):
            store.drop(one.id, A)

    assert {one.id for one in store.of(A)} == {whole.id, shared.id}


async def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The limit of a process's files is the nearest to a full disk that a test may have."""
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from proxy.config import FilesConfig\n"
        "from proxy.errors import NotKept\n"
        "from proxy.pictures import PictureStore\n"
        "store = PictureStore(Path(sys.argv[1]), FilesConfig())\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "try:\n"
        "    store.put(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(1 << 20))\n"
        "except NotKept as error:\n"
        "    print(error.message)\n"
    )
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, tmp_path],
        check=True,
        capture_output=True,
        text=True,
    )

    assert os.strerror(errno.EFBIG) in run.stdout
    assert names_in(tmp_path) == set()


def test_an_incoming_file_that_is_not_kept_goes(tmp_path: Path) -> None:
    """However its block is left."""
    incoming = Incoming(tmp_path)
    with contextlib.suppress(ZeroDivisionError), incoming:
        incoming.write(b"x")
        was_there = names_in(tmp_path)
        raise ZeroDivisionError

    assert len(was_there) == 1
    assert names_in(tmp_path) == set()
