"The second paper's figures: parameters, a run at smoke size, and features that stop in the middle."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from initpools.core import UserError
from initpools.pretext.features import HEADER, extract, open_features, read_manifest
from initpools.report.figure import check_names, declared, read_parameters, run_figure, templates
from initpools.lab.budgets import MEASURES, budget_runs, check_budgets, spending
from initpools.lab.execute import execute
from initpools.lab.store import Store
from initpools.pretext.feature_sets import feature_set
from initpools.rules.table import RULES
from shared import same_twice

ROOT = Path(__file__).resolve().parents[1]
SMOKE = dict(name="low_budget_smoke", backbone="pixels", measure="nn",
             strategies=["random", "coreset", "single_batch_kmeans"], budgets=[10, 20], seeds=2)


@pytest.mark.parametrize("file", sorted((ROOT/"nbs"/"figures"/"params"/"low_budget").glob("*.yml")),
                         ids=lambda p: p.stem)
def test_parameter_files_fit_the_template(file):
    params = read_parameters([file])
    check_names(params, declared(templates()["low_budget"]))
    check_budgets(params["budgets"], 1_281_167)
    assert params["measure"] in MEASURES and set(params.get("strategies", [])) <= set(RULES)
    assert params["name"] == f"low_budget_{file.stem}"


def test_low_budget_twice(tmp_path, monkeypatch):
    "Executed, and executed again from its records, without a feature or a training: the same pictures and numbers."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    one, two = same_twice("low_budget", SMOKE, tmp_path)
    assert "12/12 rounds: 12 done" in one and "12/12 rounds: 0 done" in two and "12 found in the store" in two
    assert Store(tmp_path/"data"/"store").verify() == {} and not (tmp_path/"data"/"cache"/"frozen").exists()


@pytest.mark.parametrize("name", [n for n, r in RULES.items()
                                  if not r.terms and r.members == 1 and set(r.reads) <= {"features", "truth", "probs"}])
def test_a_rule_says_how_it_spends(name, tmp_path_factory):
    "Read off its row: as many labels as each budget says, nested where bought in turn, one random start."
    home = tmp_path_factory.getbasetemp()/"spending"
    plan = budget_runs([name, "random"] if name != "random" else [name], [10, 30], "pixels", 1297, dataset="digits",
                       seeds=1, recipe="nn")
    kept = execute(list({r.key: r for rs in plan.values() for r in rs}.values()), Store(home/f"store-{name}"), "local",
                   device="cpu", root=home, quiet=True)
    way, runs = spending(name, "pixels"), plan[name]
    assert [run.budgets for run in runs] == ([(10,), (30,)] if way.anew else [(10, 20)])
    sets = [sum((r.bought for r in kept.rounds(run)), ()) for run in runs]
    assert [len(set(s)) for s in sets] == [sum(run.budgets) for run in runs]
    if way.pool == "random": assert kept.rounds(runs[0])[0].bought == kept.rounds(plan["random"][0])[0].bought
    elif RULES[name].candidates: assert sets[1][:10] == sets[0], "a greedy rule finds the same prefix again"


def test_published_rounds_are_drawn_without_features(tmp_path, monkeypatch):
    "Where all rounds on the book's data are published, their features are not made again; what is missing needs them."
    from initpools.lab import execute as engine
    plan = budget_runs(["random"], [10, 20], "pixels", 1297, dataset="digits", seeds=2, recipe="nn")["random"]
    kept = execute(plan, Store(tmp_path/"runs"), "local", device="cpu", root=tmp_path, quiet=True)
    def refuse(*_): raise AssertionError("no feature is needed")
    monkeypatch.setattr(engine, "load_once", refuse)
    monkeypatch.setattr(engine, "Store", lambda name: Store(tmp_path/"runs") if name == "runs" else Store(name))
    assert (len(execute(plan, Store(tmp_path/"mine", kept), "local", device="cpu", root=tmp_path,
                        quiet=True).frame(plan)) == 4)
    more = budget_runs(["random"], [10, 20, 30], "pixels", 1297, dataset="digits", recipe="nn")["random"]
    with pytest.raises(AssertionError):
        execute(plan + more, Store(tmp_path/"mine", kept), "local", device="cpu", root=tmp_path, quiet=True)


@pytest.mark.parametrize("wrong, says", [
    (dict(measure="accuracy"), "coverage"), (dict(strategies=["random", "kmeans"]), "kmeans"),
    (dict(budgets=[20, 10]), "ascend"),
    (dict(backbone="none.pth"), "no checkpoint"), (dict(seed=3), "'seeds'")], ids=lambda v: str(v)[:20])
def test_mistakes_end_in_a_sentence(wrong, says, tmp_path, monkeypatch):
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path))
    with pytest.raises(UserError, match=says): run_figure("low_budget", {**SMOKE, **wrong}, tmp_path/"out.ipynb")


def test_a_folder_of_ones_own(tmp_path, monkeypatch):
    "Named from where its owner stands; other images, other numbers; a figure that stops leaves the last one."
    from PIL import Image
    from initpools.data.images import load
    digits = load("digits").train
    for i in range(120):
        file = tmp_path/"mine"/str(int(digits.y[i]))/f"scan {i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.x[i, 0] * 15).numpy()).resize((32, 32)).save(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INITPOOLS_DATA", "data")
    params = dict(SMOKE, name="own_folder_smoke", data="folder:mine", budgets=[10, 20], seeds=2,
                  strategies=["random", "single_batch_kmeans"])
    out = tmp_path/"pages"/"out.ipynb"
    numbers = out.with_name("own_folder_smoke.csv")
    run_figure("low_budget", params, out)
    first = numbers.read_text()
    (tmp_path/"mine"/"3"/"broken.png").write_bytes(b"no image")
    for i in range(60, 100): next((tmp_path/"mine").rglob(f"scan {i}.png")).unlink()
    run_figure("low_budget", params, out)
    assert first != numbers.read_text() and "image files cannot be read and are skipped" in out.read_text()
    assert list((tmp_path/"data"/"store").glob("*.jsonl")) # the data root, too, is taken from where the caller stands
    before = out.read_bytes()
    with pytest.raises(UserError, match="stopped") as e:
        run_figure("low_budget", dict(params, data="folder:yours"), out)
    left, = (out.parent/"stopped").rglob("out.ipynb")
    assert out.read_bytes() == before and str(left) in str(e.value)


@pytest.mark.filterwarnings("ignore:1 of")
@pytest.mark.parametrize("measure", ["finetune", "scratch"])
def test_what_trains_networks_sees_the_same_images(measure, tmp_path):
    "Features of a folder skip what cannot be read; where the images have changed since, nothing is trained."
    from PIL import Image
    for c in "ab":
        (tmp_path/"own"/c).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((8, 8, 3), 20 * i + (c == "b"), np.uint8)).save(tmp_path/"own"/c/f"{i}.png")
    (tmp_path/"own"/"a"/"4.png").write_bytes(b"no image")
    data = f"folder:{tmp_path/'own'}@8"
    rows = feature_set(data, "pixels", root=tmp_path, device="cpu")
    assert len(rows.images.train) == len(rows.train)
    (tmp_path/"own"/"b"/"3.png").unlink()
    changed = feature_set(data, "pixels", root=tmp_path, device="cpu")
    runs, = budget_runs(["random"], [4], "pixels", len(changed.train), dataset=data, recipe=measure,
                        changes={"epochs": 1}).values()
    (tmp_path/"own"/"b"/"5.png").unlink()
    from initpools.active import learn
    with pytest.raises(UserError, match="make the features again"): list(learn(runs[0], changed, device="cpu"))


SLOW = """
import sys, time, torch
from pathlib import Path
from torch import nn
from initpools.pretext.features import Manifest, extract
from initpools.data.files import source
from initpools.pretext.backbones import Frozen
class Slow(nn.Module):
    def forward(self, x):
        if x.sum() >= 0: time.sleep(.05)  # torch.fx cannot trace this, so it is not traced away
        return x.flatten(1)
facts = Manifest("key", "digits, train", "slow", 0, 0, "float32", True, tuple("0123456789"))
print(len(extract(source("digits"), Frozen(Slow(), 0, (0.,), (1.,)), Path(sys.argv[1]), facts, batch=20, every=.1)))
"""


def test_features_survive_a_kill(tmp_path):
    "Killed in the middle and started again: the rows are those of one go."
    folder, env = tmp_path/"f", {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([sys.executable, "-c", SLOW, folder], env=env)
    for _ in range(600):
        if (folder/"manifest.json").exists() and read_manifest(folder).done > 0: break
        time.sleep(.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = read_manifest(folder).done
    assert 0 < done < 1297
    with pytest.raises(UserError, match="not finished"): open_features(folder)
    assert (subprocess.run([sys.executable, "-c", SLOW, folder], env=env, capture_output=True,
                           text=True).stdout.strip() == "1297")
    from initpools.data.files import source
    f, digits = open_features(folder), source("digits")
    assert np.abs(f.x - digits.x.flatten(1).numpy() / 255).max() < 1e-6 and (f.labels() == digits.y.numpy()).all()
    file = folder/"features.npy"
    file.write_bytes(file.read_bytes()[:HEADER + 1000])
    with pytest.raises(UserError, match="cut off"): open_features(folder)


def test_batches_are_bounded_and_change_no_row(tmp_path, monkeypatch):
    "A processor gets as many pixels at a time as 16 images of 224 have, and the rows are those of any other batch."
    import torch
    from initpools.pretext import features
    from initpools.data.files import source
    from initpools.pretext.backbones import Frozen
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 7, 4), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
                              torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(128, 32)).eval()
    pool = source("digits")[range(40)]
    seen = []
    embed = features.embed_batch
    monkeypatch.setattr(features, "embed_batch",
                        lambda how, x, device: seen.append((len(x), how.size)) or embed(how, x, device))
    facts = features.Manifest("key", "digits, train", "net", 0, 0, "float32", True, tuple("0123456789"))
    for side in (32, 224):
        how, rows = Frozen(net, side, (.5,) * 3, (.25,) * 3), []
        for batch in (None, 1, 40): rows.append(extract(pool, how, tmp_path/f"{side} {batch}", facts, batch=batch).x)
        for other in rows[1:]: assert np.abs(rows[0] - other).max() <= .02 * np.abs(other).max()
        seen.clear()
        extract(pool, how, tmp_path/f"{side}", facts)
        assert (max(n * size**2 for n, size in seen[1:]) <= 16 * 224**2 and sum(n for n, _ in seen[1:]) == 40
                and seen[1][0] == min(40, 16 * 224**2 // side**2))
