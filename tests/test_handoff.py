"A round's folder: what is in it survives, and it is there as a whole or not at all."
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pandas as pd
import pytest
from PIL import Image

from initpools.choose import handoff
from initpools.choose.handoff import COLUMNS, csv_bytes, next_command, read_round, seen_size, table_of, write_round
from initpools.core import UserError

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["a.png", "day 1/b.jpg", "day 1/b.png", "one, two; three.png", "line\nbreak.png", "carriage\rreturn.png",
         'the "best".png', os.fsdecode(b"latin-\xe9.png"), "-rf.png", "=1+1.png", "😀.png", " space .png",
         "%41+b&d=x#.png", "tab\t.png", "separator\u2028.png", "'; rm -rf $HOME.png"]


@pytest.fixture
def pool(tmp_path):
    "Photographs with ugly names, and the table of a round of all of them."
    root = tmp_path/"my photos"
    for i, name in enumerate(NAMES):
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 10)).save(root/name, "JPEG" if name.endswith("jpg") else "PNG")
    skipped = (("notes.jpg", "not an image"), ("zero\n.png", "an empty file"))
    table = table_of(NAMES, cluster=2, score=range(len(NAMES)), nearest=NAMES[::-1], round=1, rule="random", seed=7,
                     group=[" | ".join(NAMES), *[""] * (len(NAMES) - 1)])
    facts = dict(command="initpools choose 'my photos' 100 -o round2", rule="random", seed=7, round=1)
    return SimpleNamespace(root=root, names=tuple(sorted(NAMES)), skipped=skipped, table=table, facts=facts)


def write(pool, folder, **options): return write_round(folder, pool.table, pool, pool.facts, **options)
def hidden(folder): return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_a_round_comes_back_as_it_was(pool, tmp_path):
    folder = write(pool, tmp_path/"rounds"/"1", classes=["cat", 'a "dog" & <more>'])
    table, facts = read_round(folder)
    pd.testing.assert_frame_equal(table, pool.table, check_dtype=False)
    assert facts | pool.facts == facts and facts["versions"]["initpools"]
    assert sorted(facts["files"]) == sorted(p.name for p in folder.iterdir())
    lines = (folder/"picks.txt").read_text().splitlines()
    assert [json.loads(n) if n.startswith('"') else n for n in lines] == NAMES
    assert hidden(folder.parent) == []
    choices = [c.get("value") for c in ElementTree.parse(folder/"labels.xml").iter("Choice")]
    assert choices == ["cat", 'a "dog" & <more>', "reject"]
    assert "Put your own classes here" in (write(pool, tmp_path/"2")/"labels.xml").read_text()


def test_a_round_that_a_spreadsheet_saved_comes_back(pool, tmp_path):
    folder = write(pool, tmp_path/"r")
    rows = handoff.csv_rows((folder/"picks.csv").read_bytes().decode(errors="surrogateescape"))
    text = "\r\n".join(";".join(f'"{c}"' for c in (d.replace('"', '""') for d in row)) for row in rows)
    (folder/"picks.csv").write_bytes(b"\xef\xbb\xbf" + text.encode(errors="surrogateescape"))
    pd.testing.assert_frame_equal(read_round(folder)[0], pool.table, check_dtype=False)


def test_addresses_are_what_a_server_decodes(pool, tmp_path):
    "As Django reads them, below the folder above the photographs; no task holds what is no UTF-8."
    tasks = json.loads((write(pool, tmp_path/"r")/"tasks.json").read_text())
    for name, task in zip(NAMES, tasks):
        asked = parse_qs(urlsplit(task["data"]["image"]).query, errors="surrogateescape")
        assert list(asked) == ["d"] and asked["d"] == [f"my photos/{name}"]
        json.dumps(task, ensure_ascii=False).encode()
        assert task["data"]["path"] == (handoff.printable(name) if "latin" in name else name)
    assert [task["data"]["rank"] for task in tasks] == list(range(1, len(NAMES) + 1))


def test_other_tools_get_what_they_can_take(pool, tmp_path):
    folder = write(pool, tmp_path/"r", classes=["cat"])
    manifest = [json.loads(line) for line in (folder/"cvat"/"manifest.jsonl").read_text().split("\n")[:-1]]
    assert manifest[:2] == [{"version": "1.0"}, {"type": "images"}]
    assert [m["name"] + m["extension"] for m in manifest[2:]] == NAMES
    assert [(m["width"], m["height"]) for m in manifest[2:]] == [(20 + i, 10) for i in range(len(NAMES))]
    labels = json.loads((folder/"fiftyone"/"labels.json").read_text())
    assert labels["classes"] == ["cat"] and set(labels["labels"].values()) == {None}
    left_out = {"day 1/b.jpg", "day 1/b.png", os.fsdecode(b"latin-\xe9.png")}
    assert list(labels["labels"]) == [n[:-4] for n in NAMES if n not in left_out]
    told = (folder/"README.txt").read_text()
    assert "without 3 of them" in told and "cannot show 1 of them" in told
    assert "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true" in told and pool.facts["command"] in told
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={shlex.quote(str(tmp_path))}" in told
    skipped = handoff.csv_rows((folder/"skipped.csv").read_text())
    assert [tuple(row) for row in skipped] == [("name", "reason"), *pool.skipped]


def test_sizes_are_read_without_decoding(tmp_path):
    "A cut file has a size, 200 megapixels have one, a text has none; a turned photograph is counted as it is seen."
    Image.new("RGB", (300, 200), "red").save(tmp_path/"a.png")
    (tmp_path/"cut.png").write_bytes((tmp_path/"a.png").read_bytes()[:60])
    for turned in range(1, 9):
        exif = Image.Exif()
        exif[274] = turned
        Image.new("RGB", (300, 200)).save(tmp_path/f"{turned}.jpg", exif=exif)
        assert seen_size(tmp_path/f"{turned}.jpg") == ((300, 200) if turned < 5 else (200, 300))
    Image.new("1", (20000, 10000)).save(tmp_path/"huge.png")
    (tmp_path/"text.jpg").write_text("text")
    found = [seen_size(tmp_path/name) for name in ("cut.png", "huge.png", "text.jpg", "none.jpg")]
    assert found == [(300, 200), (20000, 10000), None, None]


def test_a_shell_reads_the_command_back(tmp_path):
    odd = "it's\n$HOME `x` *"
    command = next_command(Path("-photos"), 20, tmp_path/odd/"round 9", labels=[odd, odd], options=["--weights", odd])
    done = subprocess.run(["sh", "-c", f"initpools() {{ printf '%s\\0' \"$@\"; }}; {command}"], capture_output=True)
    said = done.stdout.decode().split("\0")[:-1]
    assert said == ["choose", "./-photos", "20", "-o", str(tmp_path/odd/"round 10"), "--labels", odd, "--labels",
                    str(tmp_path/odd/"round 9"/"picks.csv"), "--weights", odd]


def test_a_place_that_is_taken_stays_taken(pool, tmp_path):
    (tmp_path/"empty").mkdir()
    folder = write(pool, tmp_path/"empty")
    with pytest.raises(UserError, match="not labelled yet"): write(pool, folder)
    write(pool, folder, again=True, classes=["new"])
    assert "new" in (folder/"labels.xml").read_text() and hidden(tmp_path) == []
    (folder/"export.json").write_text("[]")
    with pytest.raises(UserError, match="export.json, which is not the round's own"): write(pool, folder, again=True)
    (folder/"export.json").unlink()
    table, facts = read_round(folder)
    table.loc[3, "label"] = "cat"
    (folder/"picks.csv").write_bytes(csv_bytes([COLUMNS, *table.itertuples(index=False)]))
    with pytest.raises(UserError, match="1 photographs in .* are labelled"): write(pool, folder, again=True)
    for place, says in (("my photos", "no round"), ("file", "is a file"), ("file/below", "cannot be written")):
        (tmp_path/"file").write_text("mine")
        with pytest.raises(UserError, match=says): write(pool, tmp_path/place, again=True)
    assert hidden(tmp_path) == [] and (tmp_path/"file").read_text() == "mine"


def test_a_link_to_a_folder_is_followed(pool, tmp_path):
    (tmp_path/"disk").mkdir()
    (tmp_path/"link").symlink_to("disk")
    assert write(pool, tmp_path/"link").samefile(tmp_path/"disk") and (tmp_path/"link").is_symlink()


BREAKS = [("fsync", 0), ("fsync", 4), ("rename", 0), ("rename", 9), ("rename", 16), ("rename", 17), ("open", 6)]


@pytest.mark.parametrize("call, when", BREAKS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_left_where_the_system_refuses(pool, tmp_path, monkeypatch, call, when, code, again):
    "The disk fills up, or may not be written, in the middle: one sentence, no leftover, the old round intact."
    folder = write(pool, tmp_path/"r") if again else tmp_path/"r"
    calls = []
    def failing(*args, **options):
        calls.append(args)
        if len(calls) == when + 1: raise OSError(code, os.strerror(code))
        return real(*args, **options)
    where = __builtins__ if call == "open" else os
    real = where["open"] if call == "open" else getattr(os, call)
    if call == "open": monkeypatch.setattr(handoff, "open", failing, raising=False)
    else: monkeypatch.setattr(os, call, failing)
    if not again and when == 17: return # there are sixteen copies, then the new folder, or the old and the new one
    with pytest.raises(UserError, match=re.escape(os.strerror(code)) + ".*another folder"):
        write(pool, folder, again=again, classes=["new"], copy_to=tmp_path/"copies")
    monkeypatch.undo()
    assert len(calls) > when and hidden(tmp_path) == []
    assert not [*(tmp_path/"copies").rglob("*.*")]
    assert folder.exists() == again
    assert not again or "new" not in (folder/"labels.xml").read_text() and len(read_round(folder)[0]) == 16


def test_a_file_that_may_not_grow(pool, tmp_path):
    "The system's own limit, not a pretended one."
    code = ("import resource, sys\nsys.path.insert(0, 'tests')\nfrom test_handoff import *\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (999, 999))\n"
            "pool = SimpleNamespace(root=Path(sys.argv[1]), names=tuple(NAMES), skipped=())\n"
            "try: write_round(sys.argv[2], table_of(NAMES, round=1), pool, {})\n"
            "except UserError as e: print(e)")
    done = subprocess.run([sys.executable, "-c", code, pool.root, tmp_path/"r"], capture_output=True, text=True,
                          cwd=ROOT)
    assert "cannot be written (File too large)" in done.stdout and done.stdout.count("\n") == 1, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my photos"]


KILLED = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from initpools.choose.handoff import table_of, write_round
def wait(folder):
    print(folder, flush=True)
    time.sleep(60)
photos = SimpleNamespace(root=Path(sys.argv[1]), names=("a.png",), skipped=())
write_round(sys.argv[2], table_of(["a.png"], round=1), photos, {}, also=wait)
"""


def test_a_killed_call_leaves_nothing_that_is_read(pool, tmp_path):
    "While it runs nobody else writes there; after it was killed, the next call clears what it left."
    child = subprocess.Popen([sys.executable, "-c", KILLED, pool.root, tmp_path/"r"], stdout=subprocess.PIPE, text=True,
                             cwd=ROOT)
    try:
        part = Path(child.stdout.readline().strip())
        assert part.parent == tmp_path and (part/"tasks.json").exists() and not (tmp_path/"r").exists()
        with pytest.raises(UserError, match="Another call is writing"): write(pool, tmp_path/"r")
        assert (part/"tasks.json").exists()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with pytest.raises(UserError, match="no folder of a round"): read_round(tmp_path/"r")
    (part/"stale").write_text("stale")
    assert len(read_round(write(pool, tmp_path/"r"))[0]) == 16
    assert hidden(tmp_path) == [] and not (tmp_path/"r"/"stale").exists() and not (tmp_path/"r"/".lock").exists()


def test_a_round_that_stepped_aside_comes_back(pool, tmp_path):
    "Killed between the two renames of a replacement."
    folder = write(pool, tmp_path/"r")
    os.rename(folder, tmp_path/".r.old")
    with pytest.raises(UserError, match="not labelled yet"): write(pool, folder)
    assert len(read_round(folder)[0]) == 16 and hidden(tmp_path) == []


def test_what_is_added_is_there_at_once_or_not_at_all(pool, tmp_path):
    def fails(folder): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): write(pool, tmp_path/"r", also=fails)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my photos"]
    folder = write(pool, tmp_path/"r", also=lambda part: (part/"index.html").write_text("sheet"))
    assert (folder/"index.html").read_text() == "sheet"
    write(pool, folder, again=True)
    assert not (folder/"index.html").exists()


def test_copies_overwrite_nothing(pool, tmp_path):
    folder = write(pool, tmp_path/"r", copy_to=tmp_path/"to"/"copies")
    there = tmp_path/"to"/"copies"
    assert {str(p.relative_to(there)) for p in there.rglob("*") if p.is_file()} == set(NAMES)
    assert all((there/n).read_bytes() == (pool.root/n).read_bytes() for n in NAMES)
    write(pool, folder, again=True, copy_to=there) # the same bytes: nothing to do
    (there/"😀.png").write_text("mine")
    (there/"a.png").unlink()
    with pytest.raises(UserError, match="would overwrite .*😀.png"): write(pool, tmp_path/"r2", copy_to=there)
    assert (there/"😀.png").read_text() == "mine" and not (there/"a.png").exists() and not (tmp_path/"r2").exists()
    for inside in (pool.root, pool.root/"day 1"):
        with pytest.raises(UserError, match="of the next round"): write(pool, tmp_path/"r2", copy_to=inside)
    (pool.root/"day 1"/"b.png").unlink()
    with pytest.raises(UserError, match="cannot be written"): write(pool, tmp_path/"r2", copy_to=tmp_path/"more")
    assert not [p for p in (tmp_path/"more").rglob("*") if p.is_file()] and hidden(tmp_path) == []


def test_a_damaged_round_is_refused(pool, tmp_path):
    folder = write(pool, tmp_path/"r")
    odd = ",".join(COLUMNS) + "\n" + "x," * 9 + "\n"
    for name, text, says in (("round.json", "{", "no whole round.json"), ("picks.csv", odd, "rank .* than numbers"),
                             ("picks.csv", "", "lost"), ("picks.csv", "path,label\na.png,cat\n", "lost columns")):
        shutil.copytree(folder, tmp_path/"damaged")
        (tmp_path/"damaged"/name).write_text(text)
        with pytest.raises(UserError, match=says): read_round(tmp_path/"damaged")
        shutil.rmtree(tmp_path/"damaged")


def test_a_thousand_rows_are_quick(pool, tmp_path):
    names = [f"day {i % 7}/{i}.png" for i in range(1000)]
    begun = time.perf_counter()
    photos = SimpleNamespace(root=pool.root, names=names * 20, skipped=())
    write_round(tmp_path/"r", table_of(names, round=1, group=[" | ".join(names * 20), *[""] * 999]), photos, {})
    assert read_round(tmp_path/"r")[0].path.tolist() == names
    assert time.perf_counter() - begun < 5
