"Rules, data sets, models and recipes that are not the book's, by name, in this process, in others and on Dask."
import os
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from initpools.core import UserError
from initpools.data.images import load
from initpools.lab.execute import execute
from initpools.lab.grid import grid
from initpools.lab.store import Store, diff
from initpools.own import find_own
from initpools.samplers import pool_title
from initpools.strategies import passive_of, strategy_title

RULES = '''
import numpy as np
from initpools.core import check_budget, top_k
from initpools.rules.table import rule

SIGN = -1
def score(p): return np.sort(p)[:, -1] * SIGN

def shy(state, k, rng): return state.unlabelled[top_k(score(state("probs")), k, rng)]

@rule(title="Three are sure", members=3)
def sure(state, k, rng): return state.unlabelled[top_k(state("member_probs").mean(1).max(1), k, rng)]

def central(state, k, rng):
    x = state("features")
    return state.unlabelled[top_k(-np.linalg.norm(x - x.mean(0), axis=1), k, rng)]

def short(state, k, rng): return state.unlabelled[:k - 1]

def breaks(state, k, rng):
    check_budget(k, len(state.unlabelled))
    return {}["nothing"]
'''
DATA = '''
import numpy as np
from initpools.data.images import pair
def load_it():
    x = np.random.default_rng(0).integers(0, 256, (80, 8, 8)).astype(np.uint8)
    y = np.arange(80) % 3
    return pair(x[:60], y[:60], "abc"), pair(x[60:], y[60:], "abc")
'''
MODEL = '''
from torch import nn
def net(channels, size): return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 24), nn.ReLU()), 24
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    "A folder with one's own files, as the current one."
    for name, text in (("my_rules.py", RULES), ("my_data.py", DATA), ("my_models.py", MODEL)):
        (tmp_path/name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(**axes):
    "A grid of few and short trainings."
    return [replace(r, recipe=replace(r.recipe, epochs=2, min_steps=0))
            for r in grid(**{**dict(initial=8, budget=8, queries=1), **axes})]


def done(runs, folder, *how):
    return execute(runs, Store(folder), *how, device="cpu", root=folder.parent/"data", quiet=True)


def test_rules_of_a_file_here_and_in_processes(here):
    "The same records in one process and in two, and a title and a passive counterpart for each."
    runs = small(samplers=["random", "my_rules.py:central@pixels"], strategies=["my_rules.py:shy", "my_rules.py:sure"])
    one, two = done(runs, here/"one", "local"), done(runs, here/"two", "processes", 2)
    assert len(one.frame(runs)) == 8 and not len(diff(one, two))
    assert {strategy_title(r.strategy) for r in runs} == {"shy", "Three are sure"}
    assert pool_title(runs[-1].sampler) == "central (pixels)"
    assert [passive_of(r.strategy) for r in runs[:2]] == ["random", "random_committee"]


def test_the_key_changes_with_the_source_and_with_nothing_else(here):
    before, = small(strategies=["my_rules.py:shy"])
    (here/"my_rules.py").write_text(RULES + "\ndef another(state, k, rng): return 1\n")
    assert small(strategies=["my_rules.py:shy"]) == [before]
    (here/"my_rules.py").write_text(RULES.replace("SIGN = -1", "SIGN = 1")) # a constant of a helper of the rule
    after, = small(strategies=["my_rules.py:shy"])
    assert (after.key != before.key
            and after.strategy.partition("#")[0] == before.strategy.partition("#")[0] == "my_rules.py:shy")
    told, = small(strategies=["my_rules.py:sure"])
    (here/"my_rules.py").write_text(RULES.replace("members=3", "members=2"))
    assert small(strategies=["my_rules.py:sure"])[0].key != told.key
    assert find_own(before.strategy).name == before.strategy, "a run that is under way goes on with what it began"


def test_records_outlive_their_rule(here):
    "Another process that no longer finds the file still draws the figure; executing needs the old text."
    runs = small(strategies=["my_rules.py:shy"])
    store = done(runs, here/"store", "local")
    (here/"my_rules.py").write_text(RULES.replace("SIGN = -1", "SIGN = 2"))
    code = ("import sys; from initpools.lab.store import Store; from initpools.lab.execute import execute; from "
            f"initpools.report.plots import learning_curves\ns = Store({str(store.folder)!r}); "
            "learning_curves(s.frame()); print(len(s.frame()), s.verify())\nfrom dataclasses import "
            "replace\nexecute([replace(s.runs()[0], seed=1)], s, 'local', device='cpu', quiet=True)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here)
    assert out.stdout.strip() == "2 {}", out.stderr
    assert "my_rules.py:shy is no longer what my_rules.py:shy#" in out.stderr.strip().splitlines()[-1]


def notebook(code):
    "Functions as a notebook's cells define them."
    import linecache
    module = sys.modules["__main__"]
    name = f"<cell {hash(code)}>"
    linecache.cache[name] = len(code), None, code.splitlines(True), name
    exec(compile(code, name, "exec"), module.__dict__)
    return module


def test_a_rule_of_a_notebook_travels(here):
    cell = notebook("import numpy as np\nSTEP = 3\ndef helper(n): return np.arange(n) * STEP % n\n"
                    "def mine(state, k, rng): return state.unlabelled[helper(len(state.unlabelled))[:k]]\n")
    runs = small(samplers=[cell.mine], strategies=[cell.mine, "random"])
    assert runs[0].sampler.startswith("mine#")
    one, two = done(runs, here/"one", "local"), done(runs, here/"two", "processes", 2)
    assert len(one.frame(runs)) == 4 and not len(diff(one, two))


def test_a_rule_that_cannot_travel_says_why(here):
    cell = notebook("import numpy as np\nscores = np.arange(2000.)\n"
                    "def leaning(state, k, rng): return state.unlabelled[np.argsort(scores[state.unlabelled])[:k]]\n")
    runs = small(strategies=[cell.leaning])
    with pytest.raises(UserError, match="leaning#.* uses scores of this notebook, which cannot go to another process: "
                       "put it into a file"):
        done(runs, here/"store", "processes", 2)
    assert len(done(runs, here/"store", "local").frame(runs)) == 2


@pytest.mark.parametrize("name, says", [("my_rules.py:short", "picked 7 images"),
                                        ("my_rules.py:breaks", r"raised KeyError \('nothing', line 22\): mend it")])
def test_a_rule_that_is_wrong_stops_its_own_runs(here, name, says):
    "One sentence; the rounds before it and the runs beside it are kept."
    runs = small(strategies=["random", name], queries=2, initial=10, seeds=1)
    for how in (("local",), ("processes", 2)):
        with pytest.raises(UserError, match=f"all finished rounds are kept.*{says}"):
            done(runs + small(strategies=["min_margin"], initial=9), here/how[0], *how)
        assert len(Store(here/how[0]).frame(small(strategies=["min_margin"], initial=9))) == 2


def test_a_rule_that_a_worker_cannot_import(here):
    "A package that is only here."
    sys.modules["only_here"] = types.ModuleType("only_here")
    try:
        (here/"lonely.py").write_text("import only_here\n" + RULES)
        runs = small(strategies=["lonely.py:shy"])
        with pytest.raises(UserError, match=r"1 share stopped; all finished rounds are kept.*lonely.py cannot be "
                           r"imported here \(ModuleNotFoundError: No module named 'only_here', line 1\)"):
            done(runs, here/"store", "processes", 2)
        assert len(done(runs, here/"store", "local").frame(runs)) == 2
    finally: del sys.modules["only_here"]


def test_data_model_and_recipe(here):
    (here/"mine.yml").write_text("like: digits\nepochs: 2\nmin_steps: 0\nmodel: my_models.py:net\n")
    n = len(load("my_data.py:load_it").train)
    runs = grid("my_data.py:load_it", n, ["random", "typiclust@pixels"], ["min_margin"], initial=9, budget=9, queries=1,
                recipe="mine.yml")
    assert runs[0].dataset.startswith("my_data.py:load_it#") and runs[0].recipe.model.startswith("my_models.py:net#")
    one, two = done(runs, here/"one", "local"), done(runs, here/"two", "processes", 2)
    assert (len(one.frame(runs)) == 4 and not len(diff(one, two))
            and set(one.frame(runs).model) == {runs[0].recipe.model})
    (here/"my_models.py").write_text(MODEL.replace("24", "25"))
    again = grid("my_data.py:load_it", n, ["random"], ["min_margin"], initial=9, budget=9, queries=1, recipe="mine.yml")
    assert again[0].key != runs[0].key
    (here/"my_data.py").write_text(DATA.replace("default_rng(0)", "default_rng(1)"))
    assert (grid("my_data.py:load_it", n, ["random"], ["min_margin"], initial=9, budget=9, queries=1,
                 recipe="mine.yml")[0].key != again[0].key)


def test_on_dask(here):
    "Workers with another folder of their own get the text."
    pytest.importorskip("distributed")
    from distributed import LocalCluster
    runs = small(samplers=["random", "my_rules.py:central@pixels"], strategies=["my_rules.py:shy"])
    one = done(runs, here/"one", "local")
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1",
                      local_directory=str(here/"dask")) as cluster:
        from distributed import Client
        with Client(cluster) as client:
            client.run(os.chdir, "/")
            two = done(runs, here/"two", client)
    assert not len(diff(one, two)) and len(two.frame(runs)) == 4


@pytest.mark.parametrize("axes, says", [
    (dict(samplers=["hardest@pixels"]), "gives no loss: sources that do are vae, rotation, inpainting, simclr"),
    (dict(samplers=["typiclust@probs"]), "'probs' needs labels, and the first pool has none"),
    (dict(samplers=["badge@vae"]), "no model is trained: use it as a strategy"),
    (dict(samplers=["vae", "hardest@vae"]), "'vae' and 'hardest@vae' are one and the same sampler: name one"),
    (dict(samplers=["hardest@vae", "hardest@vae:40"], quick=True), "one and the same pool here"),
    (dict(strategies=["typiclust@simclr", "hardest"]), "use it as a sampler, hardest@SOURCE"),
    (dict(samplers=["typiclust@features:nowhere"]), "There are no features in nowhere"),
    (dict(strategies=["my_rules.py:shi"]), "has no 'shi'; did you mean 'shy'"),
    (dict(strategies=["no_rules.py:shy"]), "There is no file no_rules.py in"),
    (dict(strategies=["no_package.rules:shy"]), "no_package.rules cannot be imported here"),
    (dict(samplers=["my_rules.py:shy@vae"]), "reads probs, and before the first labels"),
    (dict(strategies=["my_rules.py:shy", "my_rules.py:shy"]), "named twice")])
def test_names_that_cannot_be_are_one_sentence(here, axes, says):
    with pytest.raises(UserError) as e: grid(**axes)
    assert says in str(e.value) and str(e.value).rstrip().endswith((".", "?")), str(e.value)


def test_features_of_a_folder_are_a_source(here):
    "Chosen on them, recorded with their content; other content is another run, and a change under way is refused."
    from initpools.pretext.features import save_features
    digits = load("digits")
    x = digits.train.x.flatten(1).numpy().astype(np.float32)
    save_features(here/"mine", x, digits.train.y.numpy())
    runs = small(samplers=["coreset@features:mine", "coreset@pixels"], strategies=["typiclust@features:mine"])
    one, two = done(runs, here/"one", "local"), done(runs, here/"two", "processes", 2)
    assert (not len(diff(one, two)) and [r.task.name for r in runs] == ["features", "pixels"]
            and runs[1].query_task == runs[0].task)
    save_features(here/"mine", 2 * x, digits.train.y.numpy())
    assert small(samplers=["coreset@features:mine"])[0].key not in {r.key for r in runs}
    with pytest.raises(UserError, match="have changed since this run was named"): done(runs, here/"three", "local")


def test_a_query_reads_a_source_in_every_round(here):
    "typiclust@pixels asks the same whatever the model says, and something else than typiclust alone."
    from initpools.active import learn
    digits = load("digits")
    at, alone = small(strategies=["typiclust@pixels", "typiclust"], queries=2)
    other = replace(at, recipe=replace(at.recipe, lr=at.recipe.lr / 2))
    asked = [[r.query for r in learn(run, digits, device="cpu", root=here/"data")] for run in (at, other, alone)]
    assert asked[0] == asked[1] and asked[0][:2] != asked[2][:2]
    store = done([at], here/"store", "local")
    assert store.runs() == [at] and store.runs()[0].key == at.key


def test_figures_take_them(here):
    "By papermill, with names as a reader would write them."
    from initpools.report.figure import run_figure
    given = dict(dataset="my_data.py:load_it", seeds=1, initial=9, budget=9, queries=1, store=str(here/"store"),
                 executor="local", device="cpu", root=str(here/"data"))
    curves = run_figure(
        "learning_curves",
        given | dict(name="curves", samplers=["random", "my_rules.py:central@pixels"], strategies=["my_rules.py:shy"],
                     changes=dict(epochs=1, model="my_models.py:net")), here/"curves.ipynb")
    assert "my_models.py:net#" in curves.read_text() and (here/"curves.svg").exists()
    table = run_figure("strategies",
                       given | dict(name="ranking", dataset="digits", strategies=["random", "my_rules.py:sure"]),
                       here/"ranking.ipynb")
    assert "Three are sure" in table.read_text() and (here/"ranking.svg").exists()
