"A tree of photographs as people have them: what is found, what is skipped and why, from anywhere, quickly."
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from initpools.choose.photos import AGAIN, HIDDEN_FILE, HIDDEN_FOLDER, NOT_NAMED, UP, find_photos, leave_out
from initpools.core import UserError
from test_ugly_folder import as_anybody

ROOT = Path(__file__).resolve().parents[1]
GOOD = ["plain.png", "copy of plain.png", "line\nbreak.png", os.fsdecode(b"latin-\xe9.png"), "-rf.png", "😀.png",
        '"quoted".png', "2019/05/a.JPG", "2019/05/deep/er/b.tiff", "2019/a.jpg/inside.webp", "text.jpg",
        "linked.png",
        "disk/far.png", "disk/sub/farther.png", os.fsdecode(b"ordner \xfc/x.gif"), "ends in dot./y.bmp"]
BAD = {"lost.jpg": "a link to a file that is not there", "round.jpg": "a link that leads back to itself",
       "lost": "a link to a file that is not there", "zero.png": "an empty file",
       "pipe.png": "a pipe, socket or device",
       "socket.png": "a pipe, socket or device", "device.png": "a pipe, socket or device", "notes.txt": NOT_NAMED,
       "README": NOT_NAMED, ".thumb.png": HIDDEN_FILE, "2019/.DS_Store": HIDDEN_FILE, ".trash": HIDDEN_FOLDER,
       "circle": UP, "2019/05/deep/up": UP, "above": UP, "again": AGAIN, "disk/back": AGAIN,
       "disk/other way": AGAIN, "zz": AGAIN, "shut.png": "no permission to read it",
       "shut": "a folder that cannot be opened (Permission denied)"}
SCRIPT = """
import json, sys
from initpools.choose.photos import find_photos
p = find_photos(sys.argv[1])
print(json.dumps([str(p.root), p.names, p.skipped, p.labels, p.held, p.found]))
"""


def put(file):
    "A file that is named like an image."
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")


def litter(folder):
    "All that is no photograph."
    for name in ("notes.txt", "README", ".thumb.png", "2019/.DS_Store", ".trash/old.png", "shut/in.png", "shut.png"):
        put(folder/name)
    for name in ("lost.jpg", "lost"): (folder/name).symlink_to("nowhere")
    (folder/"round.jpg").symlink_to("round.jpg")
    (folder/"device.png").symlink_to("/dev/zero")
    (folder/"circle").symlink_to(".")
    (folder/"above").symlink_to("../..")
    (folder/"2019"/"05"/"deep"/"up").symlink_to("..")
    (folder/"again").symlink_to("2019/05")
    (folder/"zero.png").touch()
    os.mkfifo(folder/"pipe.png")
    here = os.getcwd()
    os.chdir(folder)
    try: socket.socket(socket.AF_UNIX).bind("socket.png")
    finally: os.chdir(here)
    for name in ("shut", "shut.png"): (folder/name).chmod(0)


@pytest.fixture
def tree(tmp_path):
    "A folder with all of it, and a second one that it links to."
    folder, disk = tmp_path/"inner"/"photos", tmp_path/"disk"
    for name in GOOD[:11] + GOOD[-2:]: put(folder/name)
    for name in ("far.png", "sub/farther.png"): put(disk/name)
    put(tmp_path/"inner"/"elsewhere.png")
    (folder/"linked.png").symlink_to("../elsewhere.png")
    (folder/"disk").symlink_to(disk)
    (folder/"zz").symlink_to(disk)
    (disk/"back").symlink_to(folder)
    (disk/"other way").symlink_to(folder/"2019")
    litter(folder)
    yield folder
    (folder/"shut").chmod(0o755)


def ask(folder, cwd):
    "What a process of its own finds, as a user who may not read everything."
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], cwd=cwd, capture_output=True, text=True,
                          timeout=60, preexec_fn=as_anybody, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_an_ugly_tree_from_anywhere(tree, tmp_path):
    "Every photograph once, every other file with its reason, the same from another folder and by another path."
    (tmp_path/"short").symlink_to(tree)
    one = ask(tree, tmp_path)
    root, names, skipped, labels, held, found = one
    assert names == sorted(GOOD) and dict(skipped) == BAD and len(skipped) == len(BAD) and (labels, held) == ([], [])
    assert found == (f"{len(GOOD) + len(BAD)} files in 8 folders: {len(GOOD)} photographs used, {len(BAD)} skipped, "
                     "3 of them hidden (see skipped.csv)")
    assert len({os.path.realpath(tree/n) for n in names}) == len(names) and root == str(tree)
    assert one == ask("photos", tree.parent) == ask("../short", tmp_path/"disk") == ask(".", tree)


def test_the_order_of_the_system_changes_nothing(tree, monkeypatch):
    "Listed backwards, the same names."
    before, scan = find_photos(tree), os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: list(scan(path))[::-1])
    after = find_photos(tree)
    assert (after.names, after.skipped, after.found) == (before.names, before.skipped, before.found)


def test_a_link_into_a_tree_that_another_link_holds(tmp_path):
    "Each photograph once, whichever link comes first."
    for name in ("disk/sub/1.png", "disk/2.png"): put(tmp_path/name)
    for first, second in (("disk/sub", "disk"), ("disk", "disk/sub")):
        home = tmp_path/f"home {first[-3:]}"
        put(home/"own.png")
        (home/"a").symlink_to(tmp_path/first)
        (home/"b").symlink_to(tmp_path/second)
        photos = find_photos(home)
        real = [os.path.realpath(home/n) for n in photos.names]
        assert len(set(real)) == len(real) == 3
        assert [why for _, why in photos.skipped] == [AGAIN]


def test_parts_and_classes(tmp_path):
    "train/ is the pool, test/ is held out and said so; elsewhere a sub-folder is a class where one says so."
    for name in ("train/cat/1.png", "train/dog/x/2.png", "val/cat/3.png", "more/4.png", "5.png"): put(tmp_path/name)
    photos = find_photos(tmp_path)
    assert photos.names == ("train/cat/1.png", "train/dog/x/2.png") and photos.labels == ("cat", "dog")
    assert photos.held == ("val/cat/3.png",) and photos.found.endswith("1 in val/ held out")
    assert {n for n, _ in photos.skipped} == {"more/4.png", "5.png"}
    assert find_photos(tmp_path/"train", classes=True).labels == ("cat", "dog")
    assert find_photos(tmp_path/"train").labels == ()
    put(tmp_path/"train"/"6.png")
    assert find_photos(tmp_path).labels == () and len(find_photos(tmp_path)) == 3
    with_classes = find_photos(tmp_path, classes=True)
    assert with_classes.labels == ("cat", "dog") and ("train/6.png", "lies in no class folder") in with_classes.skipped


def test_leaving_out_keeps_rows_together(tmp_path):
    for name in ("a/1.png", "b/2.png", "b/3.png"): put(tmp_path/name)
    photos = leave_out(find_photos(tmp_path, classes=True), {"a/1.png": "broken"})
    assert (photos.names, photos.labels) == (("b/2.png", "b/3.png"), ("b", "b"))
    assert photos.skipped == (("a/1.png", "broken"),) and "2 photographs used, 1 skipped" in photos.found


def test_what_cannot_be_used_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="There is no folder .*none"): find_photos(tmp_path/"none")
    with pytest.raises(UserError, match="There is no photograph in"): find_photos(tmp_path)
    (tmp_path/"1.png").symlink_to("nowhere")
    with pytest.raises(UserError, match="1 file skipped; 1.png: a link to a file"): find_photos(tmp_path)
    put(tmp_path/"folder"/"2.png")
    with pytest.raises(UserError, match="There is no folder .*give the path"): find_photos(tmp_path/"folder"/"2.png")
    (tmp_path/"folder").chmod(0)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path/"folder")], capture_output=True, text=True,
                          preexec_fn=as_anybody, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    (tmp_path/"folder").chmod(0o755)
    assert "cannot be opened (Permission denied): give a folder that may be read" in done.stderr


def test_a_hundred_thousand_files_take_seconds(tmp_path):
    Image.new("L", (1, 1)).save(tmp_path/"one.png")
    for i in range(100):
        home = tmp_path/"many"/str(i)
        home.mkdir(parents=True)
        for j in range(1000): (home/f"{j}.png").symlink_to(tmp_path/"one.png")
    start = time.process_time()
    assert len(find_photos(tmp_path/"many")) == 100_000
    assert time.process_time() - start < 8


def test_a_round_is_no_part_of_the_pool(tmp_path):
    "Its contact sheet is a picture beside the photographs it shows."
    for name in ("a.png", "b/c.png", "round1/sheet.png"):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/name).write_bytes(b"png")
    assert len(find_photos(tmp_path)) == 3
    (tmp_path/"round1"/"round.json").write_text("{}")
    photos = find_photos(tmp_path)
    assert photos.names == ("a.png", "b/c.png") and ("round1", "a round that was chosen before") in photos.skipped
