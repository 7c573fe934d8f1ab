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
execute(small_grid(), Store(sys.argv[1]), workers=1, device="cpu", quiet=True)
"""


def small_grid():
    "Twelve runs of three rounds, two of them waiting for a pretext task."
    runs = grid(samplers=["random", "vae"], strategies=["random", "min_margin", "dbal"], seeds=2, initial=10, budget=10, queries=2, pretext_epochs=3)
    return [replace(r, recipe=replace(r.recipe, epochs=3, min_steps=0)) for r in runs]


def results(folder): return {run.key: [result(r) for r in Store(folder).rounds(run)] for run in small_grid()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    os.environ["INITPOOLS_DATA"] = str(folder/"data")
    execute(small_grid(), Store(folder/"store"), workers=1, device="cpu", quiet=True)
    yield results(folder/"store")
    os.environ.pop("INITPOOLS_DATA")


def test_killed_at_random_moments(undisturbed, tmp_path):
    "SIGKILL, again and again, until the grid is done; every round is done once."
    env = {**os.environ, "INITPOOLS_DATA": str(tmp_path/"data"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    store, kills, chance = tmp_path/"store", 0, random.Random(0)
    for _ in range(60):
        p = subprocess.Popen([sys.executable, "-c", SCRIPT, str(store), str(ROOT/"tests")], env=env, stderr=subprocess.PIPE)
        try:
            begun = time.time()
            while p.poll() is None and not list(store.glob("*.jsonl")) and not (tmp_path/"data").exists() and time.time() - begun < 60: time.sleep(.01)
            p.wait(chance.uniform(.05, 1.2))
            assert p.returncode == 0, p.stderr.read().decode()
            break
        except subprocess.TimeoutExpired:
            p.send_signal(signal.SIGKILL); p.wait(); kills += 1
    assert kills > 0, "the grid was done before it could be killed"
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
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    store = tmp_path/"store"
    p = subprocess.Popen([sys.executable, "-c", SCRIPT.replace("workers=1", "workers=2").replace("execute(small", "if __name__ == '__main__': execute(small"), str(store), str(ROOT/"tests")], env=env, stderr=subprocess.PIPE)
    killed = 0
    begun = time.time()
    while p.poll() is None and time.time() - begun < 120:
        kids = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(p.pid)], capture_output=True, text=True).stdout.splitlines()
        workers = [int(k.split()[0]) for k in kids if "spawn_main" in k]
        if workers and len(list(store.glob("*.jsonl"))) >= 2 and not killed: os.kill(workers[0], signal.SIGKILL); killed = 1
        time.sleep(.05)
    assert p.wait(10) == 0, p.stderr.read().decode()
    assert killed and all(len(Store(store).rounds(run)) == 3 for run in small_grid())
