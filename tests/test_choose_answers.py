"""What people have said: every kind of file gives back what was said, and what is doubtful is refused in a sentence.

The files in tests/exports are exports of a Label Studio 1.23.2, made over its API, without the fields that point to
persons."""
import csv
import io
import json
import os
import random
import shutil
import time
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest

from initpools.choose.answers import KINDS, REJECTS, is_reject, read_answers
from initpools.choose.handoff import COLUMNS, csv_bytes, read_round, table_of, write_round
from initpools.core import UserError

EXPORTS = Path(__file__).parent/"exports"
NAMES = ["plain.png", "day 1/a.png", "day 1/b.png", "day 2/a.png", "one, two; three.png", "line\nbreak.png",
         'the "best".png', os.fsdecode(b"latin-\xe9.png"), "-rf.png", "😀.png", "%41+b&d=x#.png", "tab\t.png",
         "café.png", "back\\slash.png"] # in the order of their ranks
FROG = 'a "frog" & co'
SAID = dict(zip(NAMES, ["dog", FROG, "", "dog", "", "", "", FROG, "cat", "dog", FROG, "dog", "cat", FROG]))
LABELS = {name: label for name, label in SAID.items() if label}


def write(folder, text, name="labels.csv", **options):
    (folder/name).write_bytes(text if isinstance(text, bytes) else text.encode(**options))
    return folder/name


# Label Studio, as it really exports ----------------------------------------------------------------------------------

@pytest.mark.parametrize("file, rejected, asked", [
    ("round.json", ["day 1/b.png", "one, two; three.png"], 13),
    ("round.all.json", ["day 1/b.png", "one, two; three.png"], 14),
    ("round.min.json", ["one, two; three.png"], 12), ("round.csv", ["one, two; three.png"], 12)])
def test_exports_of_a_round(file, rejected, asked):
    "Skipped, rejected, submitted without a choice, skipped and then labelled, labelled twice, labelled once."
    found = read_answers([EXPORTS/file], NAMES, "/media/my photos")
    assert found.labels == LABELS and sorted(found.rejected) == rejected and len(found.asked) == asked
    assert found.classes == (FROG, "cat", "dog") and found.notes == ()
    assert {found.asked[name] for name in NAMES[:2]} == {"random"}
    assert found.asked["-rf.png"] == "single_batch_kmeans"


@pytest.mark.parametrize("ext", ["json", "min.json", "csv"])
def test_exports_of_somebody_elses_project(ext):
    "Without our keys, with another name for the control: found by the address."
    truth = {"day 1/a.png": "cat", "plain.png": "dog", "day 2/a.png": "dog"}
    for root in ("/media/my photos", "/elsewhere", None):
        found = read_answers(EXPORTS/f"own.{ext}", NAMES, root)
        assert found.labels == truth and set(found.asked.values()) == {""}
        assert bool(found.notes) == (root != "/media/my photos") # plain.png: the folder's name is not the same
    if ext == "csv": assert read_answers(EXPORTS/"clash.csv", NAMES).asked == {"plain.png": "random"}
    assert read_answers(EXPORTS/f"two.{ext}", NAMES).labels == {"plain.png": "cat"}


@pytest.mark.parametrize("ext", ["json", "min.json", "csv"])
@pytest.mark.parametrize("stem, says", [("several", r"plain.png several choices \(cat, dog\)"),
                                        ("regions", "regions of images"),
                                        ("disagree", "plain.png is '(cat|dog)' in .* and '(cat|dog)' in")])
def test_exports_that_give_no_class(stem, says, ext):
    with pytest.raises(UserError, match=says): read_answers([EXPORTS/f"{stem}.{ext}"], NAMES)


def test_a_cut_export(tmp_path):
    whole = (EXPORTS/"round.json").read_bytes()
    for n in (1, 2, 100, len(whole) // 2, len(whole) - 3):
        with pytest.raises(UserError, match="cut short"): read_answers([write(tmp_path, whole[:n], "cut.json")], NAMES)
    with pytest.raises(UserError, match="holds no task"): read_answers([write(tmp_path, "[]", "none.json")], NAMES)


def test_uploaded_images_are_found_by_their_own_names(tmp_path):
    item = dict(image="/data/upload/3/0a1b2c3d-plain.png", choice="cat", id=1)
    found = read_answers([write(tmp_path, json.dumps([item]))], NAMES, "/media")
    assert found.labels == {"plain.png": "cat"} and found.notes == ()
    item["image"] = "/data/upload/3/0a1b2c3d-a.png" # there are two
    with pytest.raises(UserError, match="None of the 1 names"):
        read_answers([write(tmp_path, json.dumps([item]))], NAMES)


# our own table -------------------------------------------------------------------------------------------------------

LETTERS = ["a", "B", " ", ",", ";", "\n", "\r", "\t", '"', "'", "-", "=", "é", "😀", "\\", "%", "+", "?", "#", "&", "|",
           "{", "[", "\u2028", "\x85", os.fsdecode(b"\xe9"), os.fsdecode(b"\xff"), "ß", ".", "~"]


@pytest.mark.parametrize("seed", range(40))
def test_a_round_filled_in_gives_exactly_this(seed, tmp_path):
    "For names of any characters, which may lie in folders, whatever somebody types for a rejection."
    rng = random.Random(seed)
    def word(): return "".join(rng.choices(LETTERS, k=rng.randint(1, 8))) + rng.choice(["x.png", "x.jpg", "x.JPEG"])
    names = sorted({"/".join(word() for _ in range(rng.randint(1, 3))) for _ in range(40)})
    chosen = rng.sample(names, 25)
    photos = SimpleNamespace(root=tmp_path/"photos", names=names, skipped=())
    table = table_of(chosen, round=1, rule=[rng.choice(["random", "typiclust"]) for _ in chosen])
    folder = write_round(tmp_path/"r", table, photos, {})
    words = [rng.choice(["cat", "dog", "Grün; hell", 'a "b", c', "", "", " ?", "Skip", "REJECTED"]) for _ in chosen]
    table, _ = read_round(folder)
    (folder/"picks.csv").write_bytes(csv_bytes([COLUMNS, *table.assign(label=words).itertuples(index=False)]))
    for path in (folder, folder/"picks.csv"):
        found = read_answers([path], names, photos.root)
        assert found.labels == {n: w for n, w in zip(chosen, words) if w and not is_reject(w)}
        assert found.rejected == {n for n, w in zip(chosen, words) if is_reject(w)}
        assert found.asked == dict(zip(table.path, table.rule)) and found.notes == ()


@pytest.mark.parametrize("seed", range(20))
def test_tasks_come_back_from_their_addresses_alone(seed, tmp_path):
    "As a project of Label Studio without our keys would export them."
    rng = random.Random(seed)
    names = sorted({"".join(rng.choices(LETTERS, k=6)) + f"/{i}.png" for i in range(30)})
    photos = SimpleNamespace(root=tmp_path/"my photos", names=names, skipped=())
    folder = write_round(tmp_path/"r", table_of(names, round=1), photos, {})
    tasks = json.loads((folder/"tasks.json").read_text())
    items = [dict(image=task["data"]["image"], choice="cat") for task in tasks]
    assert list(read_answers([write(tmp_path, json.dumps(items))], names, photos.root).labels) == names
    untouched = read_answers([folder/"tasks.json"], names, photos.root)
    assert list(untouched.asked) == names and not untouched.labels
    assert untouched.notes == (f"{folder/'tasks.json'} holds no label yet.",)


def test_words_that_reject(tmp_path):
    for word in (*REJECTS, *(w.upper() for w in REJECTS), f" {REJECTS[0]} "):
        found = read_answers([write(tmp_path, f"path,label\nplain.png,{word}\n")], NAMES)
        assert found.rejected == {"plain.png"} and not found.labels and not found.classes
    found = read_answers([write(tmp_path, "path,label\nplain.png,?\n")], NAMES, known=("?",))
    assert found.labels == {"plain.png": "?"} and not found.rejected


# tables as spreadsheets save them ------------------------------------------------------------------------------------

@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("head", [("path", "label"), ("Label", "Filename"), ("label", "x", "image"), None])
def test_a_table_of_any_make(delimiter, end, encoding, head, tmp_path):
    names = [n for n in NAMES if "😀" not in n and "latin" not in n]
    labels = ["Grün", "a, b; c", 'an "owl"', "cat"]
    columns = head or ("path", "label")
    rows = [head] * bool(head)
    for i, name in enumerate(names):
        rows.append([labels[i % 4] if "label" in c.lower() else "" if c == "x" else name for c in columns])
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    found = read_answers([write(tmp_path, text.getvalue(), encoding=encoding)], NAMES)
    assert found.labels == {name: labels[i % 4] for i, name in enumerate(names)} and found.notes == ()


def test_names_of_other_systems(tmp_path):
    composed = unicodedata.normalize("NFD", "café.png")
    text = f"path,label\n{composed},cat\nday 1\\a.png,cat\n./day 1/b.png,dog\n/media/p/day 2/a.png,dog\n"
    found = read_answers([write(tmp_path, text)], NAMES, "/media/p")
    assert found.labels == {"café.png": "cat", "day 1/a.png": "cat", "day 1/b.png": "dog", "day 2/a.png": "dog"}
    assert found.notes == ()
    # two photographs that differ in this alone keep their names
    found = read_answers([write(tmp_path, f"path,label\n{composed},cat\ncafé.png,dog\n")], ["café.png", composed])
    assert found.labels == {composed: "cat", "café.png": "dog"}


def test_a_cell_of_any_length(tmp_path):
    limit = csv.field_size_limit(131_072)
    found = read_answers([write(tmp_path, f'path,group,label\nplain.png,"{"x" * 300_000}",cat\n')], NAMES)
    assert found.labels == {"plain.png": "cat"} and csv.field_size_limit(limit) == 131_072


def test_a_workbook_and_other_files(tmp_path):
    with pytest.raises(UserError, match="save the table as CSV"):
        read_answers([write(tmp_path, b"PK\x03\x04" + bytes(50), "a.xlsx")], NAMES)
    odd = [b"", b"\n \n", bytes(range(256)), b"\x89PNG\r\n\x1a\n" + bytes(99), b"Dear all,\nsee, the, cats\n",
           b'{"a": 1}', b"[1, 2]", b'"text"', b"null", b'[{"a": 1}]', b"a.png\nb.png\n", Path(__file__).read_bytes()]
    for text in odd:
        with pytest.raises(UserError) as e: read_answers([write(tmp_path, text, "odd")], NAMES)
        assert all(kind in str(e.value) for kind in KINDS), text
    for says, text in (("holds a header and no rows", "path,label\n"),
                       ("has no column 'label'", "path,a,b\nplain.png,1,2\n"),
                       ("Row 3 of .* has 4 cells", "path,label,x\nplain.png,cat,1\na,b.png,cat,2\n")):
        with pytest.raises(UserError, match=says): read_answers([write(tmp_path, text)], NAMES)
    with pytest.raises(UserError, match="There is no file"): read_answers([tmp_path/"none.csv"], NAMES)
    found = read_answers([write(tmp_path, "{a}.jpg,cat\n")], ["{a}.jpg"]) # begins like JSON
    assert found.labels == {"{a}.jpg": "cat"}


# FiftyOne ------------------------------------------------------------------------------------------------------------

def test_fiftyone(tmp_path):
    labels = {"plain": 1, "day 1/a": "cat", "day 1/b": None, "café": dict(label="dog", confidence=.5),
              "-rf": dict(label=None)}
    found = read_answers([write(tmp_path, json.dumps(dict(classes=["cat", "dog"], labels=labels)))], NAMES)
    assert found.labels == {"plain.png": "dog", "day 1/a.png": "cat", "café.png": "dog"}
    assert set(found.asked) == {*found.labels, "day 1/b.png", "-rf.png"} and found.notes == ()
    found = read_answers([write(tmp_path, json.dumps(dict(labels=dict(plain=3))))], NAMES)
    assert found.labels == {"plain.png": "3"}
    for label, says in ((2, "class number 2, and lists 2"), (True, "class number True"), (-1, "number -1"),
                        (["cat", "dog"], "several choices"), (dict(detections=[dict(label="cat")]), "regions")):
        text = json.dumps(dict(classes=["cat", "dog"], labels=dict(plain=label)))
        with pytest.raises(UserError, match=says): read_answers([write(tmp_path, text)], NAMES)
    with pytest.raises(UserError, match="None of the 1"): # two photographs have this stem
        read_answers([write(tmp_path, '{"labels": {"a": "cat"}}')], ["a.png", "a.jpg"])


def test_what_we_wrote_for_fiftyone_comes_back(tmp_path):
    photos = SimpleNamespace(root=tmp_path/"p", names=NAMES, skipped=())
    file = write_round(tmp_path/"r", table_of(NAMES, round=1), photos, {}, classes=["cat"])/"fiftyone"/"labels.json"
    found = read_answers([file], NAMES)
    assert set(found.asked) == set(NAMES) - {os.fsdecode(b"latin-\xe9.png")}
    said = json.loads(file.read_text())
    file.write_text(json.dumps(dict(said, labels=dict.fromkeys(said["labels"], 0))))
    assert read_answers([file], NAMES).labels == dict.fromkeys(found.asked, "cat")


# a tree of folders ---------------------------------------------------------------------------------------------------

@pytest.fixture
def photos(tmp_path):
    for i, name in enumerate(NAMES):
        (tmp_path/"photos"/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/"photos"/name).write_text(f"photograph {i:2}")
    return tmp_path/"photos"


def test_a_tree_of_classes(photos, tmp_path):
    "Copies with their folders, by their names, or by their bytes."
    places = {"day 1/a.png": "cat/day 1/a.png", "day 2/a.png": "cat/a.png", "plain.png": "dog/plain.png",
              "line\nbreak.png": "dog/renamed.png", "café.png": "Skipped/café.png", "-rf.png": "_unlabeled/-rf.png",
              "😀.png": "a b/c/d/😀.png"}
    for name, place in places.items():
        (tmp_path/"tree"/place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos/name, tmp_path/"tree"/place)
    (tmp_path/"tree"/"cat"/".DS_Store").write_text("x")
    (tmp_path/"tree"/"cat"/"notes.txt").write_text("x")
    (tmp_path/"tree"/"loose.png").write_text("x")
    found = read_answers([tmp_path/"tree"], NAMES, photos)
    assert found.labels == {"day 1/a.png": "cat", "day 2/a.png": "cat", "plain.png": "dog", "line\nbreak.png": "dog",
                            "😀.png": "a b"}
    assert found.rejected == {"café.png"} and found.asked["-rf.png"] == "" and found.notes == ()
    without = read_answers([tmp_path/"tree"], NAMES) # nothing to compare with
    assert set(without.labels) == {"day 1/a.png", "plain.png", "😀.png"} and "2 of 7 names" in without.notes[0]


def test_the_photographs_own_folders_as_a_tree(photos):
    found = read_answers([photos], NAMES, photos)
    assert found.labels == {"day 1/a.png": "day 1", "day 1/b.png": "day 1", "day 2/a.png": "day 2"}


def test_a_folder_without_classes(tmp_path):
    (tmp_path/"empty"/"sub").mkdir(parents=True)
    for folder in (tmp_path, tmp_path/"empty"):
        with pytest.raises(UserError, match="holds no labels"): read_answers([folder], NAMES)


# what does not fit ---------------------------------------------------------------------------------------------------

def test_labels_of_no_photograph(tmp_path):
    "None fits: an error with the number, the first, and what was looked for. Some fit: a note."
    one = write(tmp_path, "path,label\nday 9\\x.png,cat\ny.png,dog\n", "one.csv")
    says = r"None of the 2 names in .*one.csv .* first is day 9\\x.png; looked for .*day 9/x.png"
    with pytest.raises(UserError, match=says):
        read_answers([one], NAMES, "/media/p")
    two = write(tmp_path, "path,label\nx.png,cat\nplain.png,dog\ny.png,\n", "two.csv")
    found = read_answers([two], NAMES, "/media/p")
    assert found.labels == {"plain.png": "dog"} and len(found.notes) == 1
    assert found.notes[0].startswith(f"2 of 3 names in {two} are no photographs of /media/p and are left out (the f")
    with pytest.raises(UserError, match="one.csv"): read_answers([two, one], NAMES) # every file has to fit
    guess = read_answers([write(tmp_path, "path,label\nold/plain.png,dog\n")], NAMES)
    assert guess.labels == {"plain.png": "dog"} and "old/plain.png as plain.png" in guess.notes[0]
    with pytest.raises(UserError, match="None of the 1"): # two are called so
        read_answers([write(tmp_path, "path,label\nold/a.png,dog\n")], NAMES)


def test_two_labels_for_one_photograph(tmp_path):
    a = write(tmp_path, "path,rule,label\nplain.png,random,cat\ncafé.png,random,-\n", "a.csv")
    b = write(tmp_path, json.dumps([dict(path="plain.png", choice="dog")]), "b.json")
    for files, says in (([a, b], "plain.png is 'cat' in .*a.csv and 'dog' in .*b.json"),
                        ([b, a], "plain.png is 'dog' in .*b.json and 'cat' in .*a.csv")):
        with pytest.raises(UserError, match=says): read_answers(files, NAMES)
    twice = write(tmp_path, "path,label\nplain.png,cat\nplain.png,cat\nplain.png,\ncafé.png,owl\n", "c.csv")
    found = read_answers([a, twice, a], NAMES)
    assert found.labels == {"plain.png": "cat", "café.png": "owl"} and not found.rejected
    assert found.asked == {"plain.png": "random", "café.png": "random"}
    line = write(tmp_path, 'path,label\n"line\nbreak.png",cat\n"line\nbreak.png",dog\n')
    with pytest.raises(UserError) as e: read_answers([line], NAMES)
    assert "\n" not in str(e.value) and r'"line\nbreak.png" is' in str(e.value)


def spelled(tmp_path, known=(), **counts):
    rows = [(f"{i}.png", c.replace("_", " ")) for i, c in enumerate(c for c, n in counts.items() for _ in range(n))]
    file = write(tmp_path, "path,label\n" + "".join(f"{name},{c}\n" for name, c in rows))
    return read_answers([file], [name for name, _ in rows], known=known)


@pytest.mark.parametrize("counts", [
    dict(cat=40, Cat=1), dict(cat=20, CAT=20), dict(cat=40, catt=1), dict(automobile=10, automobil=2),
    dict(red_fox=3, red__fox=3), dict(dog=40, cat=40, Cats=1), dict(bird=9, birds=1), dict(Straße=2, STRASSE=2)])
def test_one_class_in_two_spellings(counts, tmp_path):
    with pytest.raises(UserError, match="spelled almost like") as e: spelled(tmp_path, **counts)
    last, *others = [c.replace("_", " ") for c in reversed(counts)]
    assert repr(last) in str(e.value) or any(repr(o) in str(e.value) for o in others)
    known = [c.replace("_", " ") for c in counts]
    assert set(spelled(tmp_path, known, **counts).classes) == set(known)


@pytest.mark.parametrize("counts", [
    dict(cat=40, dog=1), dict(male=40, female=1), dict(class_1=40, class_2=1), dict(n01443537=30, n01443538=1),
    dict(cats=4, cat=3), dict(cat=40, car=1, bat=1), dict(ship=40, sheep=1), dict(é=40, e=1), dict(deer=1, door=1)])
def test_two_classes_are_two(counts, tmp_path):
    assert len(spelled(tmp_path, **counts).classes) == len(counts)


def test_a_new_class_beside_known_ones(tmp_path):
    says = "'trucks' .* like 'truck' .0 times"
    with pytest.raises(UserError, match=says): spelled(tmp_path, ("truck", "ship"), trucks=9)
    assert spelled(tmp_path, ("truck", "ship"), boat=9).classes == ("boat",)


def test_a_thousand_classes_and_a_hundred_thousand_photographs_are_quick(tmp_path):
    names = [f"{i % 500}/{i}.jpg" for i in range(100_000)]
    rows = "".join(f"{name},n{i % 1000:08}\n" for i, name in enumerate(names[:5000]))
    begun = time.perf_counter()
    assert len(read_answers([write(tmp_path, "path,label\n" + rows)], names).labels) == 5000
    assert time.perf_counter() - begun < 10
