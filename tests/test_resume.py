"Stopped at any moment, in any number of processes, a grid ends with the records of one that never stopped."
import json
import os
import re
import signal
import socket
import sys
import time
import warnings
from threading import Thread

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from initpools.core import UserError, hold
from initpools.lab.execute import execute, wait_for_others
from initpools.lab.faults import begin, kept, kill_test, leftovers, lines, race, small_grid, starve, stop
from initpools.lab.grid import grid
from initpools.lab.store import SCHEMA, Store, diff, seal
from initpools.lab.work import How, artefacts_of, make_artefact
from shared import made_once

SEEDS, QUERIES = 1, 1
runs = small_grid(SEEDS, QUERIES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The grid, undisturbed, made once for all test processes; its pretext task is cached beside it."
    def make(folder): return execute(runs, Store(folder/"store"), "local", device="cpu", root=folder/"data", quiet=True)
    return Store(made_once(tmp_path_factory, "whole-grid", make)/"store")


def data_of(whole): return whole.folder.parent/"data"


def test_killed_at_random_moments_and_while_writing(whole, tmp_path):
    rows = kill_test(tmp_path, whole, kills=4, seeds=SEEDS, queries=QUERIES)
    assert all(r["kept"] and not r["differ"] for r in rows), rows
    assert any(r["what"] == "killed while writing" for r in rows), rows
    assert {(r["missing"], *r["leftovers"]) for r in rows if r["what"] == "finished"} == {(0,)}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    "The same on frozen features: hundreds of quick rounds, of which a second's worth is written together."
    many = small_grid(1, 40, "pixels")
    def make(folder): execute(many, Store(folder/"store"), "local", device="cpu", root=folder/"data", quiet=True)
    return Store(made_once(tmp_path_factory, "whole-heads", make)/"store")


def test_heads_killed_at_random_moments(heads, tmp_path):
    """What is gathered in memory is lost with the process; what is on the disk is whole, and is gone on from. Heads
    that are trained beside others may differ in the seventh digit of a loss, and in nothing else."""
    rows = kill_test(tmp_path, heads, kills=3, seeds=1, queries=40, features="pixels")
    assert all(r["kept"] for r in rows), rows
    assert {(r["missing"], *r["leftovers"]) for r in rows if r["what"] == "finished"} == {(0,)}
    same = ["key", "round", "bought", "accuracy", "labels"]
    one, two = (s.frame().sort_values(["key", "round"], ignore_index=True)
                for s in (heads, Store(tmp_path/str(rows[-1]["grid"])/"store")))
    assert one[same].equals(two[same]) and (one.loss - two.loss).abs().max() < 1e-6


def test_four_workers_give_the_same(whole, tmp_path):
    four = execute(runs, Store(tmp_path/"store"), "processes", workers=4, device="cpu",
                   root=tmp_path/"data", quiet=True)
    assert not len(diff(whole, four)) and leftovers(four) == []
    assert len(list((tmp_path/"data"/"cache"/"pretext").iterdir())) == 1, "one artefact, and nothing beside it"


def test_three_executions_at_once_share_the_work(whole, tmp_path):
    done = race(tmp_path, 3, SEEDS, QUERIES)
    assert sum(done) == 12, done
    store = Store(tmp_path/"store")
    assert not len(diff(whole, store)) and leftovers(store) == []


def test_a_worker_process_that_dies(whole, tmp_path):
    "Its share is continued by a new one."
    store, killed = Store(tmp_path/"store"), False
    p = begin(store.folder, SEEDS, QUERIES, "processes")
    while p.poll() is None:
        for child in psutil.Process(p.pid).children() if not killed and store.files() else ():
            try:
                if any("spawn_main" in a for a in child.cmdline()):
                    child.kill()
                    killed = True
                    break
            except psutil.Error: continue
        time.sleep(.01)
    assert p.returncode == 0, p.stderr.read()
    assert killed and not len(diff(whole, store))


def stopped(p, store, number):
    "Stop an execution of two workers; nobody may outlive it, and no claim."
    below, alive, held = stop(p, store, number)
    for q in alive: q.kill()
    assert below >= 2 and not alive and not held, (below, alive, held)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGINT], ids=lambda n: n.name)
def test_workers_end_with_their_execution(number, whole, tmp_path):
    "A batch system, a closed terminal, a kill, Ctrl-C."
    (tmp_path/"data").symlink_to(data_of(whole))
    store = Store(tmp_path/"store")
    p = begin(store.folder, SEEDS, 20, "processes")
    stopped(p, store, number)
    assert p.returncode == -number and store.verify() == {}
    many = small_grid(SEEDS, 20)
    assert sum(len(store.rounds(run)) for run in many) < 21 * len(many), "stopped, and not done to the end first"
    if number == signal.SIGKILL: goes_on_at_once(store)


def goes_on_at_once(store):
    "The next execution does not wait for claims of the one before."
    before, p = lines(store), begin(store.folder, SEEDS, 20)
    def count(records): return sum(map(len, records.values()))
    while p.poll() is None and count(lines(store)) == count(before): time.sleep(.01)
    p.kill()
    assert "another" not in (said := p.communicate()[1]) and "with process" not in said and "waiting" not in said, said
    assert count(lines(store)) > count(before) and kept(before, lines(store))


def test_workers_end_with_their_kernel(whole, tmp_path):
    "As under a figure: the kernel executes the grid, and is killed."
    manager, client = start_new_kernel(kernel_name="python3")
    store = Store(tmp_path/"store")
    try:
        client.execute(
            "from initpools.lab.execute import execute; from initpools.lab.faults import small_grid; from "
            f"initpools.lab.store import Store\nexecute(small_grid({SEEDS}, 20), Store({str(store.folder)!r}), "
            f"'processes', workers=2, device='cpu', root={str(data_of(whole))!r})")
        stopped(manager.provisioner.process, store, signal.SIGKILL)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True) if manager.is_alive() else manager.cleanup_resources()


class Notes(list):
    "Stands for a progress line."
    def step(self, n=0, note=""): self.append(note)


def test_waiting_says_for_whom(whole, tmp_path):
    store = Store(tmp_path/"store")
    notes = Notes()
    found = []
    with store.claim(runs[0].key), store.claim(runs[1].key):
        t = Thread(target=lambda: found.extend(wait_for_others(runs[:2], store, notes, .05)))
        t.start()
        t.join(.5)
        assert t.is_alive() and len(notes) > 1, "it waits as long as both are held"
    t.join()
    assert found, "what nobody holds any more is handed back"
    assert re.fullmatch(
        rf"2 runs are with process {os.getpid()} on {re.escape(socket.gethostname())} since [-\d :]*\d\d:\d\d",
        notes[0]), notes
    assert wait_for_others(runs[:2], whole, notes) == [] and leftovers(store) == []


def test_waiting_for_a_pretext_task_says_for_whom(whole, tmp_path):
    "It is trained by another execution, and this one waits for the result."
    wanted, = artefacts_of(runs)
    def make(tell): return make_artefact(wanted, How(str(tmp_path), str(tmp_path), "cpu"), tell)
    made, = (data_of(whole)/"cache"/"pretext").iterdir()
    (tmp_path/"cache"/"pretext").mkdir(parents=True)
    notes = []
    with hold(tmp_path/"cache"/"pretext"/f".{made.name}.claim"):
        t = Thread(target=make, args=(lambda n, note: notes.append(note),))
        t.start()
        while t.is_alive() and not notes: time.sleep(.01)
        (tmp_path/"cache"/"pretext"/made.name).write_bytes(made.read_bytes())
    t.join()
    assert f"waiting for process {os.getpid()} on {socket.gethostname()} since" in notes[0] and len(notes) == 1, notes


def test_a_full_disk(whole, tmp_path):
    (tmp_path/"data").symlink_to(data_of(whole))
    store = Store(tmp_path/"store")
    said, rounds = starve(tmp_path, 1500, SEEDS, QUERIES)
    assert "cannot be written" in said and "Finished rounds are safe" in said and "Traceback" not in said
    before = lines(store)
    assert rounds == 6 and leftovers(store) == []
    execute(runs, store, "local", device="cpu", root=data_of(whole), quiet=True)
    assert kept(before, lines(store)) and not len(diff(whole, store))


def test_a_store_that_may_only_be_read(whole, tmp_path):
    "What is finished can be read; what is not is one sentence."
    with pytest.raises(UserError, match="/sys/store.*Finished rounds are safe"):
        execute(runs[:1], Store("/sys/store"), "local", device="cpu", quiet=True)
    if os.geteuid() == 0: return # nothing is read-only for root
    store = Store(tmp_path/"store")
    execute(runs[:1], store, "local", device="cpu", root=data_of(whole), quiet=True)
    store.folder.chmod(0o555)
    execute(runs[:1], store, "local", device="cpu", root=data_of(whole), quiet=True)
    with pytest.raises(UserError, match="Permission denied.*Finished rounds are safe"):
        execute(runs[:2], store, "local", device="cpu", root=data_of(whole), quiet=True)
    store.folder.chmod(0o755)


DAMAGE = {
    "truncated": lambda sound: sound[:-50],
    "empty": lambda sound: b"",
    "bit-flipped": lambda sound: sound[:-100] + bytes([sound[-100] ^ 1]) + sound[-99:],
    "foreign": lambda sound: (seal(dict(schema=SCHEMA, run=runs[1], key=runs[1].key, data="x")) + "\n").encode(),
    "not text": lambda sound: bytes(range(256)) * 9,
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_record_is_done_again(what, whole, tmp_path):
    run, store = runs[0], Store(tmp_path/"store")
    store.folder.mkdir()
    sound = whole.file(run).read_bytes()
    store.file(run).write_bytes(damaged := DAMAGE[what](sound))
    assert (list(store.verify()) == [store.file(run).name]
            and store.file(run).read_bytes() == damaged), "to look is not to touch"
    with pytest.warns(UserWarning, match="cannot be trusted"):
        execute([run], store, "local", device="cpu", root=data_of(whole), quiet=True)
    assert [r for r in diff(whole, store).what if r != "only in A"] == [] and store.verify() == {}
    assert [f.read_bytes() for f in (store.folder/"aside").iterdir()] == [damaged]
    if what in ("truncated", "bit-flipped"):
        assert store.file(run).read_bytes().split(b"\n")[:2] == sound.split(b"\n")[:2], "the sound round stays"


def test_a_newer_schema_is_left_alone(tmp_path):
    store = Store(tmp_path/"store")
    store.folder.mkdir()
    store.file(runs[0]).write_text(text := seal(dict(schema=SCHEMA + 1, key=runs[0].key)) + "\n")
    for look in (lambda: execute(runs[:1], store, "local", device="cpu", quiet=True), store.frame, store.verify):
        with pytest.raises(UserError, match=f"has schema {SCHEMA + 1}.*update initpools"): look()
    assert store.file(runs[0]).read_text() == text


def test_keys_that_collide(tmp_path):
    class Twin(type(runs[0])): key = runs[0].key
    with pytest.raises(UserError, match="Two different runs have the same key"): execute([runs[0], Twin(seed=5)])
    with pytest.raises(UserError, match="twice"): execute([runs[0], runs[0]])
    store = Store(tmp_path/"store")
    store.folder.mkdir()
    store.file(runs[0]).write_text(seal(dict(schema=SCHEMA, key=runs[0].key, run=runs[1], data="x")) + "\n")
    with pytest.raises(UserError, match="differs from yours but has the same key"):
        execute(runs[:1], store, "local", device="cpu", quiet=True)


@pytest.mark.parametrize("axes, says", [
    (dict(samplers=["random", "random"]), "named twice"), (dict(strategies=["dbal", "dbal"]), "named twice"),
    (dict(dataset="mnist", recipe="cifar10", quick=True), "leave one of them out"),
    (dict(queries=-1), "or more"), (dict(seeds=0), "at least 1"), (dict(fidelity="true"), "'official'")])
def test_axes_that_contradict_each_other(axes, says):
    with pytest.raises(UserError, match=says): grid(**axes)


def test_a_missing_engine(whole, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"initpools\[dask\]"):
        execute(runs, Store(tmp_path/"store"), "tcp://127.0.0.1:8786", device="cpu", quiet=True)
    with pytest.raises(UserError, match=r"initpools\[parquet\]"): whole.export(tmp_path/"table.parquet")
    with pytest.raises(UserError, match="'processes'"): execute(runs, Store(tmp_path/"store"), "slurm")


def test_a_record_says_how_it_was_made(whole):
    head, record = (json.loads(line.partition(" ")[2]) for line in lines(whole)[whole.file(runs[0]).name][:2])
    assert (head["schema"] == SCHEMA and head["run"]["recipe"]["lr"] == runs[0].recipe.lr
            and head["run"]["budgets"] == [10, 10])
    assert ({"initpools", "python", "torch", "numpy", "cuda", "device", "threads", "precision", "peak_mb", "at",
             "seconds"} <= set(record["made"]))
    assert set(record["made"]["seconds"]) == {"train", "test", "predict", "select"}


def test_the_published_records_can_be_trusted():
    store = Store("runs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(store.keys()) >= 100 and store.verify() == {} and all(store.rounds(run) for run in store.runs())
