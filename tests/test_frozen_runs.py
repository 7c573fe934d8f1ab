"Runs on frozen features are ordinary runs: the same store, executors, resumption and sentences."
import json

import numpy as np
import pytest

from initpools.core import UserError
from initpools.report.figure import run_figure
from initpools.lab.execute import execute
from initpools.lab.grid import grid
from initpools.lab.store import Store, diff, to_run
from shared import made_once

AXES = dict(samplers=["random", "typiclust@pixels", "hardest@vae"],
            strategies=["random", "min_margin", "coreset", "dropquery", "ens_mm"],
            seeds=2, initial=20, budget=20, queries=2, pretext_epochs=1, features="pixels", components=32)
runs = grid("digits", 1297, **AXES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The grid, done in this process."
    def make(folder): return execute(runs, Store(folder/"store"), "local", device="cpu", root=folder/"data", quiet=True)
    return Store(made_once(tmp_path_factory, "frozen-grid", make)/"store")


def data_of(whole): return whole.folder.parent/"data"


def test_a_record_gives_its_run_again(whole):
    assert len(whole.frame(runs)) == 30 * 3 and whole.verify() == {}
    for run in runs:
        assert to_run(json.loads(whole.file(run).read_text().split("\n")[0].partition(" ")[2])["run"]) == run
    assert (
        len({run.key for run in runs} | {run.key for run in grid("digits", 1297, **{**AXES, "components": 16})}) == 60)


def test_processes_and_another_grouping_give_the_same(whole, tmp_path):
    "Trained together or one by one: the same queries; a stacked product may differ in a last digit."
    both = execute(runs, Store(tmp_path/"store"), "processes", workers=2, device="cpu", root=data_of(whole), quiet=True)
    assert not len(diff(whole, both))
    alone = execute(runs[:5], Store(tmp_path/"alone"), "local", cohort=1, device="cpu", root=data_of(whole), quiet=True)
    one, two = (s.frame(runs[:5]).accuracy.to_numpy() for s in (whole, alone))
    assert np.abs(one - two).max() < .02


def test_what_is_cut_off_is_done_again(whole, tmp_path):
    store = Store(tmp_path/"store")
    store.folder.mkdir()
    for run in runs[:5]:
        lines = whole.file(run).read_text().split("\n")
        store.file(run).write_text("\n".join(lines[:2]) + "\n")
    execute(runs[:5], store, "local", device="cpu", root=data_of(whole), quiet=True)
    assert [w for w in diff(whole, store).what if w != "only in A"] == []


def test_a_pool_on_the_runs_own_features_needs_no_artefact(whole):
    made = [f.name for f in (data_of(whole)/"cache"/"pretext").glob("*.npz")]
    assert len(made) == 2 and all(name.startswith("vae") for name in made)


@pytest.mark.parametrize("axes, says", [
    (dict(recipe="svm"), "recipe for frozen features 'svm'"),
    (dict(strategies=["deal"]), "changes the training of a network"),
    (dict(strategies=["deepfool"]), "on frozen features has not"),
    (dict(recipe="nn", strategies=["ens_mm"]), "reads member_probs"),
    (dict(features="", recipe="probe"), "by features=")])
def test_what_a_head_cannot_do_is_one_sentence(axes, says):
    with pytest.raises(UserError, match=says): grid("digits", 1297, **{**AXES, **axes})


WHOLE = dict(samplers=["random", "typiclust@simclr:1:small_cnn"], strategies=["min_margin", "ens_mm"], seeds=1,
             initial=20, budget=20,
             queries=1, features="simclr:1:small_cnn", changes={"epochs": 40, "augment": []})


@pytest.mark.parametrize("recipe", ["finetune", "scratch"])
def test_whole_networks_are_a_recipe_like_others(recipe, tmp_path):
    "Chosen on features, trained on images; stopped and continued, alone or in processes: the same."
    own = grid("digits", 1297, **WHOLE, recipe=recipe)
    whole = execute(own, Store(tmp_path/"whole"), "local", device="cpu", root=tmp_path, quiet=True)
    frame = whole.frame(own)
    assert len(frame) == 8 and frame.accuracy.mean() > .2 and set(frame.model) == {own[0].recipe.model}
    assert [len(r.members) for run in own for r in whole.rounds(run)] == [0, 0, 3, 3] * 2
    for run in own:
        assert to_run(json.loads(whole.file(run).read_text().split("\n")[0].partition(" ")[2])["run"]) == run
    cut = Store(tmp_path/"cut")
    cut.folder.mkdir()
    for run in own: cut.file(run).write_text("\n".join(whole.file(run).read_text().split("\n")[:2]) + "\n")
    execute(own, cut, "processes", workers=2, device="cpu", root=tmp_path, quiet=True)
    assert not len(diff(whole, cut))


def test_learning_curves_on_features(tmp_path, monkeypatch):
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    small = dict(AXES, name="frozen", samplers=["random", "typiclust@pixels"],
                 strategies=["random", "min_margin"], workers=1)
    out = run_figure("learning_curves", small, tmp_path/"page"/"page.ipynb")
    assert "frozen features pixels, 32 directions" in out.read_text() and (tmp_path/"page"/"frozen.csv").exists()
