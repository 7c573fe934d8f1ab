"Features kept by content: what is new costs itself, nothing half-written is read, two processes do no harm."
import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from initpools.choose import shelf
from initpools.choose.photos import Photos, find_photos
from initpools.choose.shelf import CHANGED, NOT_FINITE, ROWS, append, content_keys, database, open_rows, shelve
from initpools.choose.shelf import shelve_file
from initpools.core import UserError
from initpools.pretext.features import HEADER

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import glob, os, signal, sys, time
from initpools.choose import shelf
from initpools.choose.photos import find_photos
shelf.batch_size = lambda side, device: 4
folder, root, where, what = sys.argv[1:]
write, fsync, calls = shelf._write, os.fsync, []
def die():
    os.kill(os.getpid(), getattr(signal, what))
    time.sleep(60)
def written(*given):
    calls.append(1)
    if where == "before the rows" and len(calls) == 3: die()
    write(*given)
    if where == "before the index" and len(calls) == 3: die()
def synced(fd):
    if where == "before the disk" and len(calls) == 3: die()
    fsync(fd)
shelf._write, os.fsync = written, synced
if where == "without locks":
    from contextlib import nullcontext
    shelf.hold = lambda *given, **more: nullcontext()
    shelf._write = lambda *given: (time.sleep(.2), write(*given))
    open(f"{root}.{os.getpid()}.ready", "w").close()
    while len(glob.glob(f"{root}.*.ready")) < 2: time.sleep(.01)
print("begun", flush=True)
try: s = shelf.shelve(find_photos(folder), "pixels", root, report=lambda text: print(text, flush=True))
except KeyboardInterrupt: sys.exit("stopped")
print("whole", len(s), len(s.x), flush=True)
"""


def paint(file, value):
    "A small photograph that nobody has touched for long."
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    os.utime(file, (1e9, 1e9))


@pytest.fixture
def folder(tmp_path):
    "Thirty photographs, one of them twice, two files that are none."
    for i in range(30): paint(tmp_path/"photos"/f"{i % 3}"/f"{i:02}.png", i)
    paint(tmp_path/"photos"/"copy\nof.png", 5)
    for name in ("text.jpg", "more.jpg"): (tmp_path/"photos"/name).write_text("no image" + name)
    return tmp_path/"photos"


@pytest.fixture
def calls(monkeypatch):
    "How many images each call of the network was given, four at most."
    seen, real = [], shelf.embed_batch
    def counted(how, x, device="cpu"):
        seen.append(len(x))
        return real(how, x, device)
    monkeypatch.setattr(shelf, "embed_batch", counted)
    monkeypatch.setattr(shelf, "batch_size", lambda side, device: 4)
    return seen


def network_folder(root): return next((root/"cache"/"photos").glob("*/rows.sqlite")).parent
def told(s): return s.photos.names, s.photos.skipped, s.keys, np.asarray(s.x[s.rows]).tobytes()
def pixels(folder, root, **more): return shelve(find_photos(folder), "pixels", root, "cpu", **more)


def start(folder, root, where="", what=""):
    "The work in a process of its own."
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(root), where, what], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | dict(PYTHONPATH=str(ROOT)))


def test_what_is_new_costs_itself(folder, tmp_path, calls):
    "One more photograph is one image; a renamed, moved, copied or touched one is none."
    first = pixels(folder, tmp_path/"data")
    assert sum(calls) == 30 and len(first) == 31 and isinstance(first.x, np.memmap) and first.x.dtype == np.float16
    calls.clear()
    assert told(pixels(folder, tmp_path/"data")) == told(first) and not calls
    paint(folder/"new.png", 99)
    assert len(pixels(folder, tmp_path/"data")) == 32 and calls == [1]
    (folder/"0"/"00.png").rename(folder/"renamed.png")
    (folder/"1").rename(folder/"elsewhere")
    (folder/"copy.png").write_bytes((folder/"2"/"02.png").read_bytes())
    os.utime(folder/"2"/"05.png", (2e9, 2e9))
    after = pixels(folder, tmp_path/"data")
    assert len(after) == 33 and calls == [1]
    row = dict(zip(after.photos.names, after.rows))
    assert row["copy.png"] == row["2/02.png"] and row["copy\nof.png"] == row["2/05.png"]
    assert row["renamed.png"] == first.rows[first.photos.names.index("0/00.png")]
    assert told(after) == told(pixels(folder, tmp_path/"fresh"))


def test_rows_are_what_the_network_gives(folder, tmp_path):
    "Each name leads to its own features, and to the same by the older way."
    from initpools.data.files import read_image
    s = pixels(folder, tmp_path/"data")
    for name, row in zip(s.photos.names, s.rows):
        x = read_image(folder/name, 32).transpose(2, 0, 1).ravel() / 255
        assert np.abs(x - s.x[row]).max() < 1e-3


def test_an_unchanged_file_is_not_read_again(folder, tmp_path, monkeypatch):
    "Nor is anything written where nothing is new."
    first = pixels(folder, tmp_path/"data")
    for f in folder.rglob("*.jpg"): os.utime(f, (1e9, 1e9))
    pixels(folder, tmp_path/"data")
    before = {f: f.stat().st_mtime_ns for f in (tmp_path/"data").rglob("*") if f.is_file()}
    monkeypatch.setattr(shelf, "content_key", None)
    assert told(pixels(folder, tmp_path/"data")) == told(first)
    assert before == {f: f.stat().st_mtime_ns for f in (tmp_path/"data").rglob("*") if f.is_file()}


def test_a_change_that_the_clock_does_not_show(folder, tmp_path):
    "As long as a file is young, its time is not trusted."
    file = folder/"0"/"00.png"
    now = time.time_ns()
    data = [b"one" * 9, b"two" * 9]
    keys = []
    for content in data:
        file.write_bytes(content)
        os.utime(file, ns=(now, now))
        keys.append(content_keys(find_photos(folder), tmp_path/"data")[0]["0/00.png"])
    assert keys[0] != keys[1]


@pytest.mark.parametrize("where, what", [("before the rows", "SIGKILL"), ("before the disk", "SIGTERM"),
                                         ("before the index", "SIGKILL"), ("before the index", "SIGINT")])
def test_a_kill_loses_one_batch_at_most(folder, tmp_path, where, what):
    "Continued, the work gives what it gives uninterrupted."
    done = start(folder, tmp_path/"data", where, what)
    out, err = done.communicate(timeout=60)
    assert done.returncode in (-getattr(signal, what), 1) and "whole" not in out
    assert out.count(" of 32 photographs") == 2
    with database(network_folder(tmp_path/"data")/"rows.sqlite", ROWS) as db:
        assert db.execute("SELECT n FROM facts").fetchone()[0] in (7, 8)
    lines = []
    after = pixels(folder, tmp_path/"data", report=lines.append)
    assert lines[-1].startswith("24 of 24 photographs") and told(after) == told(pixels(folder, tmp_path/"fresh"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(np.load(network_folder(tmp_path/"data")/"features.npy")) == 30


def test_stopped_while_files_are_read(folder, tmp_path, monkeypatch):
    "What is hashed is kept, and no thread goes on."
    seen, real = [], shelf.content_key
    def slow(file):
        seen.append(file)
        if len(seen) == 10: raise KeyboardInterrupt
        return real(file)
    monkeypatch.setattr(shelf, "content_key", slow)
    with pytest.raises(KeyboardInterrupt): content_keys(find_photos(folder), tmp_path/"data")
    count = len(seen)
    time.sleep(.2)
    assert len(seen) == count
    seen[:] = [None] * 10
    content_keys(find_photos(folder), tmp_path/"data")
    assert 0 < len(seen) - 10 < 33


def test_two_processes_at_once(folder, tmp_path):
    "The second waits, finds what the first has made, and computes nothing."
    two = [start(folder, tmp_path/"data") for _ in range(2)]
    out = [p.communicate(timeout=90) for p in two]
    assert [p.returncode for p in two] == [0, 0], out
    assert all(text.strip().endswith("whole 31 30") for text, _ in out), out
    assert sorted(text.count(" of 32 photographs") for text, _ in out) == [0, 8]
    assert told(pixels(folder, tmp_path/"data")) == told(pixels(folder, tmp_path/"fresh"))


def test_two_processes_without_locks(folder, tmp_path):
    "Of two halves of the photographs each row is kept once and is right: SQLite's transactions alone see to it."
    two = [start(folder/half, tmp_path/"data", "without locks") for half in "01"]
    out = [p.communicate(timeout=90) for p in two]
    assert [p.returncode for p in two] == [0, 0], out
    both = pixels(folder, tmp_path/"data")
    assert sorted(both.rows) == sorted([*range(30), both.rows[both.photos.names.index("copy\nof.png")]])
    assert told(both) == told(pixels(folder, tmp_path/"fresh"))


def test_a_file_that_was_cut_or_is_longer(folder, tmp_path):
    first = pixels(folder, tmp_path/"data")
    file = network_folder(tmp_path/"data")/"features.npy"
    with open(file, "ab") as f: f.write(b"half a row")
    assert told(pixels(folder, tmp_path/"data")) == told(first)
    paint(folder/"new.png", 99)
    assert len(pixels(folder, tmp_path/"data").x) == 31 and (file.stat().st_size - HEADER) % (3072 * 2) == 0
    os.truncate(file, HEADER + 5 * 3072 * 2 + 7)
    with pytest.raises(UserError, match="holds 5 rows, but its index counts 31: the file was cut off"):
        pixels(folder, tmp_path/"data")
    file.unlink()
    with pytest.raises(UserError, match="holds 0 rows"): pixels(folder, tmp_path/"data")


def test_a_full_disk_is_a_sentence(folder, tmp_path, monkeypatch):
    "And afterwards the work goes on."
    real = os.fsync
    def full(fd): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="features.npy cannot be written .No space left on device"):
        pixels(folder, tmp_path/"data")
    monkeypatch.setattr(os, "fsync", real)
    assert told(pixels(folder, tmp_path/"data")) == told(pixels(folder, tmp_path/"fresh"))


def test_what_sqlite_refuses_is_a_sentence(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="small.sqlite cannot be written .*disk is full"):
        with database(tmp_path/"small.sqlite", ROWS) as db:
            db.execute("PRAGMA max_page_count = 1")
            append(db, tmp_path, [bytes([i]) * 16 for i in range(255)], np.ones((255, 2)))
    pixels(folder, tmp_path/"data")
    index = network_folder(tmp_path/"data")/"rows.sqlite"
    index.write_bytes(b"\0" * 5000)
    with pytest.raises(UserError, match="is damaged .* call again"): pixels(folder, tmp_path/"data")
    index.unlink()
    (index.parent/"features.npy").unlink()
    assert len(pixels(folder, tmp_path/"data")) == 31
    (tmp_path/"taken"/"cache"/"photos").mkdir(parents=True)
    (tmp_path/"taken"/"cache"/"photos"/"files.sqlite").mkdir()
    with pytest.raises(UserError, match="files.sqlite cannot be written"): pixels(folder, tmp_path/"taken")


def test_what_cannot_be_decoded_is_remembered(folder, tmp_path, calls, monkeypatch):
    "With its reason, until another version may read it."
    first = pixels(folder, tmp_path/"data")
    why = "not an image that can be read, whatever its name says"
    assert dict(first.photos.skipped) == {"text.jpg": why, "more.jpg": why}
    assert "31 photographs used, 2 skipped" in first.photos.found
    looked, real = [], shelf.image_batches
    def watched(files, *given, **more):
        looked.extend(files.names)
        return real(files, *given, **more)
    monkeypatch.setattr(shelf, "image_batches", watched)
    assert told(pixels(folder, tmp_path/"data")) == told(first) and not looked
    monkeypatch.setattr(shelf, "reader", lambda: "Pillow of next year")
    assert told(pixels(folder, tmp_path/"data")) == told(first) and sorted(looked) == ["more.jpg", "text.jpg"]


def test_a_file_that_changes_while_it_is_read(folder, tmp_path, monkeypatch):
    "Its features are kept under no key; the next call has them right."
    real = shelf.embed_batch
    def meddle(how, x, device="cpu"):
        if (folder/"0"/"03.png").stat().st_mtime == 1e9:
            paint(folder/"0"/"03.png", 1003)
            os.utime(folder/"0"/"03.png", (1e9 + 5, 1e9 + 5))
        return real(how, x, device)
    monkeypatch.setattr(shelf, "embed_batch", meddle)
    first = pixels(folder, tmp_path/"data")
    assert dict(first.photos.skipped)["0/03.png"] == CHANGED and len(first) == 30
    assert told(pixels(folder, tmp_path/"data")) == told(pixels(folder, tmp_path/"fresh"))


def test_reasons_that_pass_are_not_remembered(folder, tmp_path, monkeypatch):
    "A disk that did not answer, memory that was short."
    import initpools.pretext.features as features
    real = features.read_told
    for says in ("cannot be decoded (OSError: [Errno 5] Input/output error)", "cannot be decoded (MemoryError: )"):
        monkeypatch.setattr(features, "read_told", lambda file, size: (None, (says,)) if "04" in str(file)
                            else real(file, size))
        assert dict(pixels(folder, tmp_path/says[:30]).photos.skipped)["1/04.png"] == says
        monkeypatch.setattr(features, "read_told", real)
        assert len(pixels(folder, tmp_path/says[:30])) == 31


def test_features_that_are_not_finite(folder, tmp_path, monkeypatch):
    "The photograph is skipped with that reason."
    real = shelf.embed_batch
    def broken(how, x, device="cpu"):
        out = real(how, x, device).clone()
        out[2] = torch.nan
        return out
    monkeypatch.setattr(shelf, "embed_batch", broken)
    s = pixels(folder, tmp_path/"data")
    assert [why for _, why in s.photos.skipped].count(NOT_FINITE) == 1 and np.isfinite(s.x).all()


def test_simclr_learns_from_these_photographs(folder, tmp_path):
    "Its name changes with them, and so do all rows."
    for f in folder.glob("*.jpg"): f.unlink()
    one = shelve(find_photos(folder), "simclr:1:small_cnn", tmp_path/"data", "cpu")
    same = shelve(find_photos(folder), "simclr:1:small_cnn", tmp_path/"data", "cpu")
    paint(folder/"new.png", 99)
    more = shelve(find_photos(folder), "simclr:1:small_cnn", tmp_path/"data", "cpu")
    assert told(one) == told(same) and one.network == same.network != more.network and len(more.x) == 31


def test_own_features_of_an_ugly_folder(tmp_path):
    "Any name finds its row; what is missing is told in one sentence."
    names = ["a\nb.png", os.fsdecode(b"caf\xe9.png"), "-x.png", "plain.png", "sub/plain.png"]
    for i, name in enumerate(names): paint(tmp_path/"photos"/name, i)
    photos = find_photos(tmp_path/"photos")
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.save(tmp_path/"f.npy", x)
    import json
    (tmp_path/"f.names.json").write_text(json.dumps([str(tmp_path/"photos"/n) for n in names]))
    s = shelve_file(photos, tmp_path/"f.npy", tmp_path/"data")
    assert {n: s.x[r].tolist() for n, r in zip(s.photos.names, s.rows)} == dict(zip(names, x.tolist()))
    (tmp_path/"f.names.json").write_text(json.dumps(["plain.png", "gone.png", *names[:3]]))
    with pytest.warns(UserWarning) as told_:
        s = shelve_file(photos, tmp_path/"f.npy", tmp_path/"data")
    (text,) = [str(w.message) for w in told_]
    assert text == ("1 of 5 photographs have no row in f.npy and are skipped, for instance sub/plain.png; 1 of 5 rows "
                    "of f.npy belong to no photograph, for instance gone.png")
    assert s.photos.skipped == (("sub/plain.png", "has no row in f.npy"),) and len(s) == 4


def test_a_million_rows_stay_on_the_disk(tmp_path):
    "Own features as a memory map, without any image."
    import resource
    n = 200_000
    x = np.lib.format.open_memmap(tmp_path/"big.npy", "w+", np.float16, (n, 512))
    for i in range(0, n, 10_000): x[i:i + 10_000] = 1 + i / n
    del x
    (tmp_path/"big.txt").write_text("\n".join(f"{i:07}.jpg" for i in range(n)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    s = shelve_file(None, tmp_path/"big.npy")
    assert isinstance(s.x, np.memmap) and len(s) == n and s.photos.root == tmp_path
    assert isinstance(s.photos, Photos) and len(set(s.keys)) == 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6 < .35


def test_a_lock_that_is_none(folder, tmp_path, monkeypatch):
    "On a file system without locks SQLite still keeps order."
    monkeypatch.setattr(shelf, "hold", lambda *given, **more: nullcontext())
    first = pixels(folder, tmp_path/"data")
    with database(network_folder(tmp_path/"data")/"rows.sqlite", ROWS) as db:
        assert len(open_rows(db, network_folder(tmp_path/"data"))) == len(first.x) == 30
