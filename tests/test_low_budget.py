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
from initpools.features import HEADER, extract, open_features, read_manifest
from initpools.figure import check_names, declared, read_parameters, run_figure, templates
from initpools.frozen import FROZEN, MEASURES, check_budgets
from shared import same_twice

ROOT = Path(__file__).resolve().parents[1]
SMOKE = dict(name="low_budget_smoke", backbone="pixels", measure="nn", strategies=["random", "coreset", "single_batch_kmeans"], budgets=[10, 20], seeds=2)


@pytest.mark.parametrize("file", sorted((ROOT/"nbs"/"figures"/"params"/"low_budget").glob("*.yml")), ids=lambda p: p.stem)
def test_parameter_files_fit_the_template(file):
    params = read_parameters([file])
    check_names(params, declared(templates()["low_budget"]))
    check_budgets(params["budgets"], 1_281_167)
    assert params["measure"] in MEASURES and set(params.get("strategies", [])) <= set(FROZEN)
    assert params["name"] == f"low_budget_{file.stem}"


def test_low_budget_twice(tmp_path, monkeypatch):
    "Executed, and executed again from what was kept: the same pictures and numbers."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    same_twice("low_budget", SMOKE, tmp_path)


@pytest.mark.parametrize("wrong, says", [
    (dict(measure="accuracy"), "coverage"), (dict(strategies=["kmeans"]), "single_batch_kmeans"), (dict(budgets=[20, 10]), "ascend"),
    (dict(backbone="none.pth"), "no checkpoint"), (dict(seed=3), "'seeds'")], ids=lambda v: str(v)[:20])
def test_mistakes_end_in_a_sentence(wrong, says, tmp_path, monkeypatch):
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path))
    with pytest.raises(UserError, match=says): run_figure("low_budget", {**SMOKE, **wrong}, tmp_path/"out.ipynb")


SLOW = """
import sys, time, torch
from pathlib import Path
from torch import nn
from initpools.features import Manifest, extract
from initpools.files import source
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
    first.send_signal(signal.SIGKILL); first.wait()
    done = read_manifest(folder).done
    assert 0 < done < 1297
    with pytest.raises(UserError, match="not finished"): open_features(folder)
    assert subprocess.run([sys.executable, "-c", SLOW, folder], env=env, capture_output=True, text=True).stdout.strip() == "1297"
    from initpools.files import source
    f, digits = open_features(folder), source("digits")
    assert np.abs(f.x - digits.x.flatten(1).numpy() / 255).max() < 1e-6 and (f.labels() == digits.y.numpy()).all()
    file = folder/"features.npy"; file.write_bytes(file.read_bytes()[:HEADER + 1000])
    with pytest.raises(UserError, match="cut off"): open_features(folder)
