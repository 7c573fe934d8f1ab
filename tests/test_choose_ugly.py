"A hundred of three thousand photographs, from a folder as people have them; and what a machine does to a round."
import csv
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from test_ugly_folder import grey, make

from initpools.choose import choose
from initpools.choose.answers import csv_rows, read_text
from initpools.cli import main
from initpools.core import UserError

BURST = 12 # of each kind of photograph


@pytest.fixture(scope="module")
def ugly(tmp_path_factory):
    "The ugly folder, with three thousand photographs in date folders, bursts and copies among them."
    home = tmp_path_factory.mktemp("choose")
    make(home/"photos")
    rng, kinds = np.random.default_rng(0), []
    for i in range(3000):
        folder = home/"photos"/f"2026-{1 + i % 12:02}"/f"{1 + i % 28:02}"
        folder.mkdir(parents=True, exist_ok=True)
        if i % BURST == 0: kinds.append(rng.integers(0, 256, (6, 8), np.uint8))
        pixels = np.clip(kinds[-1].repeat(3, 0).repeat(3, 1) + rng.normal(0, 6, (18, 24)), 0, 255).astype(np.uint8)
        grey(pixels).save(folder/f"IMG_{i:04}.png")
    first = (home/"photos"/"2026-01"/"01"/"IMG_0000.png").read_bytes()
    for i in range(40): (home/"photos"/f"copy {i}.png").write_bytes(first)
    return home


def ask(home, out, cwd):
    "The command, in a process of its own, from some folder."
    os.makedirs(cwd, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", "from initpools.cli import main; main()", "choose",
                           os.path.relpath(home/"photos", cwd), "100", "-o", str(home/out), "-b", "pixels", "--root",
                           str(home/"root"), "--device", "cpu"], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr, csv_rows(read_text(home/out/"picks.csv"))


def test_an_ugly_folder_gives_a_hundred_photographs(ugly, tmp_path):
    said, (head, *rows) = ask(ugly, "round", ugly)
    paths = [row[head.index("path")] for row in rows]
    assert len(set(paths)) == 100 and all((ugly/"photos"/p).is_file() for p in paths)
    _, (_, *skipped) = ask(ugly, "again", tmp_path/"elsewhere")
    assert [r[head.index("path")] for r in skipped] == paths, "the same from another folder, and twice"
    assert "photographs used" in said and json.loads((ugly/"round"/"round.json").read_text())["n"] >= 3040
    copies = [p for p in paths if p.startswith("copy ") or p == "2026-01/01/IMG_0000.png"]
    assert len(copies) <= 1, "copies are one candidate"


def test_every_skipped_file_has_its_reason(ugly):
    if not (ugly/"round").exists(): ask(ugly, "round", ugly)
    _, *rows = csv_rows(read_text(ugly/"round"/"skipped.csv"))
    reasons = dict(rows)
    used = json.loads((ugly/"round"/"round.json").read_text())["n"]
    files = [os.path.join(f, n) for f, _, names in os.walk(ugly/"photos") for n in names]
    assert len(files) == used + sum(os.path.lexists(ugly/"photos"/n) and not os.path.isdir(ugly/"photos"/n)
                                    for n in reasons), "each file is used or listed"
    for name in ("zero.png", "text.jpg", "lost.jpg", "round.jpg", "pipe.png", "notes.txt", ".thumb.png"):
        assert reasons.get(name), name


@pytest.fixture
def few(tmp_path):
    "Thirty photographs."
    (tmp_path/"photos").mkdir()
    for i in range(30): Image.new("RGB", (8, 8), (8 * i, 255 - 8 * i, i)).save(tmp_path/"photos"/f"{i}.png")
    return tmp_path


def order(home, out="round", **wishes):
    return choose(home/"photos", 5, home/out, backbone="pixels", root=home/"root", device="cpu", **wishes)


@pytest.mark.parametrize("where", ["initpools.choose.handoff.put", "initpools.choose.sheet.write_atomic"])
def test_a_full_disk_leaves_no_round(few, where, monkeypatch):
    def full(file, *args): raise OSError(errno.ENOSPC, "No space left on device", str(file))
    with monkeypatch.context() as m:
        m.setattr(where, full)
        with pytest.raises((UserError, OSError)) as e: order(few)
        with pytest.raises(SystemExit) as said:
            main(["choose", str(few/"photos"), "5", "-o", str(few/"round"), "-b", "pixels", "--root", str(few/"root")])
    assert "No space left" in str(e.value) and str(said.value).startswith("initpools: ")
    assert not (few/"round").exists()
    assert len(order(few)) == 5 and (few/"round"/"round.json").exists()


def test_a_photograph_that_vanishes_meanwhile(few):
    "It was embedded before; the round is written all the same, and the next call does not know it any more."
    order(few, "one")
    (few/"photos"/"3.png").unlink()
    left = choose(few/"photos", 29, backbone="pixels", root=few/"root", device="cpu")
    assert "3.png" not in set(left.path) and len(left) == 29


def test_a_round_inside_the_folder_of_photographs(few):
    "Its sheet is a picture, and no photograph."
    order(few, "photos/round1")
    table = choose(few/"photos", 30, backbone="pixels", root=few/"root", device="cpu")
    assert len(table) == 30 and not any("round1" in p for p in table.path)


def test_groups_weights_and_own_features_from_files(few):
    rows = [("path", "group"), *((f"{i}.png", i % 6) for i in range(30))]
    with open(few/"g.csv", "w", newline="") as f: csv.writer(f).writerows(rows)
    got = order(few, "grouped", groups=str(few/"g.csv"))
    assert len({int(p.removesuffix(".png")) % 6 for p in got.path}) == 5
    with open(few/"w.csv", "w", newline="") as f:
        csv.writer(f).writerows([("path", "weight"), *((f"{i}.png", int(i < 5)) for i in range(30))])
    assert set(order(few, "weighted", weights=str(few/"w.csv")).path) == {f"{i}.png" for i in range(5)}
    np.save(few/"f.npy", np.eye(30, dtype=np.float32))
    (few/"f.txt").write_text("\n".join(f"{i}.png" for i in range(30)) + "\n")
    own = choose(few/"photos", 5, features=few/"f.npy", root=few/"root")
    assert len(set(own.path)) == 5
