"Stopped at any moment, a grid ends with the records of one that never stopped."
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from initpools.core import UserError
from initpools.lab.execute import execute
from initpools.lab.grid import grid
from initpools.lab.store import Store, result

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from test_resume import small_grid
from initpools.lab.execute import execute
from initpools.lab.store import Store
if __name__ == "__main__":
    print("ready", flush=True)
    execute(small_grid(), Store(sys.argv[1]), workers=int(sys.argv[3]), device="cpu", quiet=True)
"""


def small_grid():
    "Twelve runs of three rounds, two of them waiting for a pretext task."
    runs = grid(samplers=["random", "vae"], strategies=["random", "min_margin", "dbal"], seeds=2, initial=10, budget=10, queries=2, pretext_epochs=3)
    return [replace(r, recipe=replace(r.recipe, epochs=3, min_steps=0)) for r in runs]


def start(folder, workers):
    "Another process that executes the small grid; returned when its imports are done."
    env = {**os.environ, "INITPOOLS_DATA": str(folder/"data"), "PYTHONPATH": f"{ROOT}:{ROOT/'tests'}", "OMP_NUM_THREADS": "1"}
    p = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder/"store"), str(ROOT/"tests"), str(workers)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stdout.readline() == b"ready\n"
    return p


def kill_a_worker(pid):
    "SIGKILL one worker process, if there is one; a process may end while it is looked at."
    for child in psutil.Process(pid).children():
        try:
            if any("spawn_main" in a for a in child.cmdline()): child.kill(); return True
        except psutil.Error: continue
    return False


def results(folder): return {run.key: [result(r) for r in Store(folder).rounds(run)] for run in small_grid()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    os.environ["INITPOOLS_DATA"] = str(folder/"data")
    execute(small_grid(), Store(folder/"store"), workers=1, device="cpu", quiet=True)
    yield results(folder/"store")
    os.environ.pop("INITPOOLS_DATA")


def test_killed_at_random_moments(undisturbed, tmp_path, monkeypatch):
    "SIGKILL, again and again, until the grid is done; every round is done once."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    store, kills, chance = tmp_path/"store", 0, random.Random(0)
    for _ in range(25):
        p = start(tmp_path, workers=1)
        try:
            p.wait(chance.uniform(.05, 1.5))
            assert p.returncode == 0, p.stderr.read().decode()
            break
        except subprocess.TimeoutExpired:
            p.send_signal(signal.SIGKILL); p.wait(); kills += 1
    assert kills >= 3, "the grid was done before it could be killed"
    execute(small_grid(), Store(store), workers=1, device="cpu", quiet=True)
    assert results(store) == undisturbed
    stamps = [json.loads(line.partition(" ")[2]) for f in store.glob("*.jsonl") for line in f.read_text().splitlines()[1:]]
    assert len(stamps) == 36
    assert {p.suffix for p in store.iterdir() if p.is_file()} - {".part"} == {".jsonl"} and not (store/"aside").exists()


def test_two_workers_give_the_same(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    execute(small_grid(), Store(tmp_path/"store"), workers=2, device="cpu", quiet=True)
    assert results(tmp_path/"store") == undisturbed


def test_a_damaged_record_is_done_again(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    run, store = small_grid()[1], Store(tmp_path/"store")
    execute([run], store, workers=1, device="cpu", quiet=True)
    file = store.file(run)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.warns(UserWarning, match="damaged"): execute([run], store, workers=1, device="cpu", quiet=True)
    assert [result(r) for r in store.rounds(run)] == undisturbed[run.key]
    assert len(list((store.folder/"aside").iterdir())) == 1


def test_a_store_that_cannot_be_written(tmp_path, monkeypatch):
    "A full disk or a read-only folder is one sentence."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    def full(*a): raise OSError(28, "No space left on device")
    monkeypatch.setattr("initpools.lab.store.write_atomic", full)
    with pytest.raises(UserError, match="No space left.*Finished rounds are safe"): execute(small_grid()[:1], Store(tmp_path/"store"), workers=1, device="cpu", quiet=True)


def test_a_worker_that_dies(tmp_path, monkeypatch):
    "A share whose worker is killed is continued by a new one."
    store, killed = tmp_path/"store", False
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    p = start(tmp_path, workers=2)
    while p.poll() is None:
        if not killed and len(list(store.glob("*.jsonl"))) >= 2: killed = kill_a_worker(p.pid)
        time.sleep(.01)
    assert p.returncode == 0, p.stderr.read().decode()
    assert killed and all(len(Store(store).rounds(run)) == 3 for run in small_grid())
