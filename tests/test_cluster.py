"The same grid on a Dask cluster whose workers come and go."
import logging
import random
import threading
import time

import pytest

pytest.importorskip("distributed")
from distributed import Client, LocalCluster

from initpools.core import UserError
from initpools.lab import cluster as lab_cluster
from initpools.lab.cluster import Cluster
from initpools.lab.execute import execute
from initpools.lab.faults import begin, leftovers, shoot, small_grid
from initpools.lab.store import Store, diff
from initpools.lab.work import How, Patience

runs = small_grid(1, 2)


@pytest.fixture(scope="module")
def cluster():
    for name in ("distributed", "distributed.nanny", "distributed.scheduler", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1",
                      resources={"GPU": 1}) as c:
        yield c


@pytest.mark.parametrize("runs", [runs, small_grid(1, 100, "pixels")], ids=["networks", "heads"])
def test_a_worker_is_lost(cluster, tmp_path, runs):
    "Killed as soon as there is a record; the grid is complete and identical, and executed again it is found."
    whole = execute(runs, Store(tmp_path/"whole"), "local", device="cpu", root=tmp_path/"data", quiet=True)
    store = Store(tmp_path/"store")
    stop = threading.Event()
    shots = []
    def hunt():
        while not store.files(): time.sleep(.01)
        while not shots and not stop.is_set():
            once = threading.Event()
            threading.Timer(.1, once.set).start()
            shots.extend(shoot(cluster, .05, once, random.Random(0)))
    hunter = threading.Thread(target=hunt)
    hunter.start()
    with Client(cluster) as client:
        execute(runs, store, client, device="cpu", root=tmp_path/"cluster", quiet=True)
        stop.set()
        hunter.join()
        assert shots and not len(diff(whole, store)) and leftovers(store) == []
        made = [*(tmp_path/"cluster"/"cache"/"pretext").glob("*")]
        assert len(made) == (not runs[0].features), "the artefact is made once"
    execute(runs, store, cluster.scheduler_address, device="cpu", root=tmp_path/"cluster", quiet=True)


def test_a_client_is_lost(cluster, tmp_path):
    "Killed as soon as there is a record; its shares end where they are, and let go of their runs."
    store, many = Store(tmp_path/"store"), small_grid(1, 40)
    p = begin(store.folder, 1, 40, cluster.scheduler_address)
    while p.poll() is None and not store.files(): time.sleep(.01)
    p.kill()
    p.wait()
    end = time.monotonic() + 60
    while time.monotonic() < end and (store.sweep() or list(store.folder.glob(".*.claim"))): time.sleep(.05)
    rounds = [len(store.rounds(run)) for run in many]
    assert leftovers(store) == [] and any(0 < n < 41 for n in rounds), rounds


def test_resources_are_those_that_workers_declare(cluster, tmp_path):
    store = Store(tmp_path)
    with Client(cluster) as client:
        for device, asked in (("cuda", {"GPU": 1}), ("auto", {"GPU": 1}), ("cpu", None)):
            assert Cluster(client, How(str(tmp_path), device=device), "", Patience(store)).resources == asked


def test_a_worker_that_does_not_see_the_store(cluster, tmp_path, monkeypatch):
    def elsewhere(file): return False
    elsewhere.__module__ = "__main__" # sent to the worker by value
    monkeypatch.setattr(lab_cluster, "sees", elsewhere)
    with Client(cluster) as client, pytest.raises(
        UserError, match="The worker tcp://.* does not see the store's folder.*mount it"):
        execute(runs[:1], Store(tmp_path/"store"), client, device="cpu", quiet=True)
    assert leftovers(Store(tmp_path/"store")) == []


def test_a_scheduler_that_does_not_answer(tmp_path):
    start = time.perf_counter()
    with pytest.raises(UserError, match="No Dask scheduler answers at tcp://127.0.0.1:9 within 5 s"):
        execute(runs[:1], Store(tmp_path/"store"), "tcp://127.0.0.1:9", device="cpu", quiet=True)
    assert time.perf_counter() - start < 10
