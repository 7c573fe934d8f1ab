"Bundles from end to end: packed, read beside loose records, continued, slim, broken, and the published ones."
import json
import lzma
import re
import time
import warnings
from dataclasses import replace

import pandas as pd
import pytest

from initpools.active import learn, transfer
from initpools.core import UserError
from initpools.data.images import load
from initpools.lab.bundles import pack, unpack
from initpools.lab.execute import execute
from initpools.lab.grid import grid
from initpools.lab.lines import FORMAT, open_bundle, pack_text, seal, unseal
from initpools.lab.store import Store, diff, published, result, to_run
from initpools.report.statistics import hard_classes, labelled_overlap

RUNS = [replace(r, recipe=replace(r.recipe, epochs=2, min_steps=0)) for r in
        grid(strategies=["random", "min_margin"], seeds=2, initial=10, budget=10, queries=2)]


def do(folder, runs=RUNS): return execute(runs, Store(folder), "local", device="cpu", quiet=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "Four runs of three rounds, as loose files."
    return do(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def store(whole, tmp_path):
    "The same runs in one bundle."
    store = Store(tmp_path/"store")
    store.folder.mkdir()
    for f in whole.files(): (store.folder/f.name).write_bytes(f.read_bytes())
    pack(store, "toy", remove=True)
    return store


def bundle(store): return store.folder/"toy.jsonl.xz"


def same(store, whole):
    return all([result(r) for r in store.rounds(run)] == [result(r) for r in whole.rounds(run)] for run in RUNS)


def test_a_store_reads_bundles_beside_loose_records(store, whole):
    assert [f.name for f in store.files()] == ["toy.jsonl.xz"] and "4 runs" in repr(store)
    assert sorted(store.keys()) == sorted(r.key for r in RUNS) and store.runs() == whole.runs() and store.verify() == {}
    pd.testing.assert_frame_equal(store.frame(made=True), whole.frame(made=True))
    assert len(diff(store, whole)) == 0 and same(store, whole)
    extra = replace(RUNS[0], seed=7)
    store.add(extra, whole.rounds(RUNS[0])[0], "x")
    assert ("5 runs" in repr(store) and len(store.runs()) == 5 and len(store.frame()) == 13
            and len(diff(store, whole)) == 1)


def test_packing_and_unpacking_keeps_every_byte(store, whole):
    assert unpack(store, "toy", remove=True) == 4
    assert {f.name: f.read_bytes() for f in store.files()} == {f.name: f.read_bytes() for f in whole.files()}
    pack(store, "toy")
    text = lzma.decompress(bundle(store).read_bytes()).decode().split("\n")[1:-1]
    assert sorted(text) == sorted(line for f in whole.files() for line in f.read_text().splitlines())


def test_what_is_packed_is_found_and_what_is_missing_is_done(whole, tmp_path):
    "A packed run that is not finished is continued in a file of its own; no finished round is done again."
    store = Store(tmp_path/"s")
    store.folder.mkdir()
    for i, f in enumerate(whole.files()):
        (store.folder/f.name).write_text("".join(f.read_text().splitlines(True)[:2 + i % 3]))
    before = {f.stem: f.read_text() for f in store.files()}
    pack(store, "toy", remove=True)
    packed = bundle(store).read_bytes()
    do(store.folder)
    assert same(store, whole) and bundle(store).read_bytes() == packed
    for f in store.loose(): assert f.read_text().startswith(before[f.stem]) # copied out of the bundle
    assert 0 < len(store.loose()) < 4 and not (store.folder/"aside").exists()


def test_a_store_beside_it_is_only_read(store, whole, tmp_path):
    mine = Store(tmp_path/"mine", also=store)
    assert (same(mine, whole) and len(mine.frame(RUNS)) == 12 and mine.borrowed(RUNS) == 12 and mine.keys() == []
            and not mine.folder.exists())
    digits = load("digits")
    assert mine.borrowed(RUNS, {"digits": digits.fingerprint}) == 12 and mine.rounds(RUNS[0], "other pixels") == []
    half = Store(tmp_path/"half")
    for r in whole.rounds(RUNS[0])[:2]: half.add(RUNS[0], r, digits.fingerprint)
    mine = Store(tmp_path/"mine", also=half)
    old = half.find(RUNS[0].key).lines
    mine.add(RUNS[0], whole.rounds(RUNS[0])[2], digits.fingerprint)
    assert len(half.rounds(RUNS[0])) == 2 and mine.find(RUNS[0].key).lines[:3] == old and mine.borrowed(RUNS) == 0


def broken(store):
    "Ways to spoil a bundle, and what is said of it."
    good = bundle(store).read_bytes()
    index = unseal(lzma.decompress(good).decode().split("\n")[0])
    begin = min(p.begin for p in open_bundle(bundle(store)).runs.values())
    twice = json.loads(json.dumps(index))
    twice["blocks"][0][1][1][0] = twice["blocks"][0][1][0][0]
    flipped = bytearray(good)
    flipped[-700] ^= 1
    text = lzma.decompress(good[begin:]).decode().replace('"accuracy":0.', '"accuracy":1.', 1)
    changed = pack_text(text)
    index["blocks"][0][0] = len(changed)
    return {"cut": (good[:-700], "cut off"), "cut in its index": (good[:60], "cut off within its index"),
            "damaged": (bytes(flipped), "damaged"),
            "a changed record": (pack_text(seal(index) + "\n") + changed, "the record of round . is damaged"),
            "foreign": (lzma.compress(b"a novel of a thousand pages " * 9), "no bundle"),
            "not xz": (b"PK" + good, "no bundle"), "empty": (b"", "empty"),
            "a run twice": (pack_text(seal(twice) + "\n") + good[begin:], "twice")}


@pytest.mark.parametrize(
    "how", ["cut", "cut in its index", "damaged", "a changed record", "foreign", "not xz", "empty", "a run twice"])
def test_a_broken_bundle_is_one_sentence_and_finished_rounds_stay(store, whole, how):
    spoilt, says = broken(store)[how]
    # a loose run beside it
    keep = whole.file(RUNS[3])
    (store.folder/keep.name).write_bytes(keep.read_bytes())
    bundle(store).write_bytes(spoilt)
    assert list(store.verify()) == ["toy.jsonl.xz"]
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        sound = {run.key: len(store.rounds(run)) for run in RUNS}
        with pytest.raises(UserError): unpack(store, "toy", remove=True)
    assert sound[RUNS[3].key] == 3 and bundle(store).exists()
    said = str(w[0].message)
    assert said.startswith("toy.jsonl.xz cannot be trusted") and "\n" not in said
    assert re.search(says, store.verify()["toy.jsonl.xz"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # the rest is done again
        do(store.folder)
        assert same(store, whole)


def test_a_newer_bundle_is_left_to_a_newer_program(store):
    index = unseal(lzma.decompress(bundle(store).read_bytes()).decode().split("\n")[0])
    bundle(store).write_bytes(pack_text(seal(index | {"bundle": FORMAT + 1}) + "\n"))
    with pytest.raises(UserError, match=f"format {FORMAT + 1}.*update initpools"): store.rounds(RUNS[0])


def test_a_packed_run_that_differs_under_the_same_key_is_refused(store, whole):
    "However the data look: nobody's rounds are taken for another's."
    from initpools.lab.lines import write_bundles
    key = RUNS[0].key
    lines = list(whole.find(key).lines)
    lines[0] = seal(whole.find(key).head | {"run": unseal(whole.find(RUNS[1].key).lines[0])["run"]})
    write_bundles(store.folder, "toy", {key: lines})
    for print_ in (None, "other pixels"):
        with pytest.raises(UserError, match="differs from yours but has the same key"): store.rounds(RUNS[0], print_)


def test_a_missing_part_is_named(store, monkeypatch):
    monkeypatch.setattr("initpools.lab.lines.BLOCK", 2000)
    monkeypatch.setattr("initpools.lab.lines.LARGEST", 1500)
    first, second, *_ = pack(store, "toy")
    assert second.name == "toy-2.jsonl.xz" and store.verify() == {} and len(store.keys()) == 4
    second.unlink()
    assert "part 2 of" in store.verify()["toy.jsonl.xz"]


def test_slim_records_say_so_wherever_picks_are_needed(whole, tmp_path):
    store = Store(tmp_path/"slim")
    store.folder.mkdir()
    for f in whole.files(): (store.folder/f.name).write_bytes(f.read_bytes())
    size = sum(f.stat().st_size for f in store.files())
    pack(store, "toy", slim=True, remove=True)
    assert store.verify() == {} and bundle(store).stat().st_size < size / 3
    frame = store.frame(RUNS)
    digits = load("digits")
    run = RUNS[0]
    columns = ["key", "round", "labels", "accuracy", "loss", "seconds", "device"]
    pd.testing.assert_frame_equal(frame[columns], whole.frame(RUNS)[columns])
    assert (frame.bought[0] == whole.frame(RUNS).bought[0] and len(diff(store, whole)) == 0
            and execute(RUNS, store, "local", device="cpu", quiet=True) is store)
    rounds = store.rounds(run)
    asks = dict(overlap=lambda: labelled_overlap(frame), classes=lambda: hard_classes(frame, digits.train.y.numpy()),
                transfer=lambda: list(transfer(run, rounds, digits, run.recipe, device="cpu")),
                another=lambda: next(learn(replace(run, strategy="min_margin"), digits, rounds[:1], device="cpu")),
                add=lambda: store.add(run, rounds[0], digits.fingerprint))
    for ask in asks.values():
        with pytest.raises(UserError, match="This record is slim.*store of your own"): ask()
    assert store.export(tmp_path/"t.csv") == 12 and store.export(tmp_path/"t.parquet") == 12
    table = pd.read_parquet(tmp_path/"t.parquet")
    assert table.slim.all() and table["query"].isna().all() and table.bought.notna().sum() == 4
    assert unpack(store, "toy", remove=True) == 4 and len(store.loose()) == 4 and store.frame(made=True).slim.all()


def test_only_finished_runs_can_be_slim(whole, tmp_path):
    store = Store(tmp_path/"s")
    store.folder.mkdir()
    f = whole.files()[0]
    (store.folder/f.name).write_text("".join(f.read_text().splitlines(True)[:2]))
    with pytest.raises(UserError, match="only 1 of its 3 rounds"): pack(store, "toy", slim=True)
    assert store.files() == [store.folder/f.name]


def test_a_killed_packing_leaves_nothing_that_counts(store, whole):
    "What a kill leaves: half a bundle under its temporary name, or runs that lie in a file and in the bundle."
    (store.folder/".toy.jsonl.xz.part").write_bytes(bundle(store).read_bytes()[:500])
    for f in whole.files()[:2]: (store.folder/f.name).write_bytes(f.read_bytes())
    assert store.verify() == {} and len(store.keys()) == 4 and len(store.frame()) == 12
    assert store.sweep() == [".toy.jsonl.xz.part"] and same(store, whole)


def test_published_rounds_are_found_under_their_keys():
    "In bundles, or in the loose files that they are packed from."
    stores = Store("runs"), Store("runs/strategies_mnist")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for s, least in zip(stores, (2266, 1881)):
            heads = {key: s.find(key).head for key in s.keys()}
            assert s.verify() == {} and all(to_run(h["run"]).key == key for key, h in heads.items())
            assert sum(len(s.find(key).records) for key in s.keys()) >= least


def test_a_published_figure_is_found_and_read_at_once(tmp_path):
    runs = [r for r in Store("runs").runs() if r.dataset == "mnist" and len(r.budgets) == 11]
    there = published(runs)
    assert there.folder == Store("runs").folder and there.held(runs) == 528
    mine = Store(tmp_path/"mine", also=there)
    assert mine.borrowed(runs) == 528 and published([replace(runs[0], seed=99)]) is None
    took = []
    for _ in range(3):
        start = time.perf_counter()
        assert len(mine.frame(runs)) == 528
        took.append(time.perf_counter() - start)
    assert min(took) < .3
