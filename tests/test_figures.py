"Figure templates run at smoke size, refuse what they do not know, and give the same bytes twice."
import os
import subprocess
import sys
from pathlib import Path

import papermill
import pytest
import yaml

from initpools.core import UserError, lookup
from initpools.figure import check_names, declared, read_parameters, run_figure, templates

ROOT = Path(__file__).resolve().parents[1]
SMOKE = dict(name="smoke", samplers=["random", "kmeans"], strategies=["random", "min_margin"], seeds=2, initial=10, budget=10, queries=1, pretext_epochs=1, workers=1)


@pytest.mark.parametrize("file", sorted((ROOT/"nbs"/"figures"/"params").glob("*.yml")), ids=lambda p: p.stem)
def test_parameter_files_fit_the_template(file):
    params = read_parameters([file])
    assert params["name"] == file.stem
    if "budgets" in params:
        check_names(params, declared(templates()["initial_pools"]))
        from initpools.samplers import SAMPLERS
        return [lookup("sampler", s, SAMPLERS) for s in (*params["samplers"], *params["reads"])]
    check_names(params, declared(templates()["learning_curves"]))
    from initpools.lab.grid import check_axes, choose_recipe, make_budgets
    check_axes(params["samplers"], params["strategies"], params["seeds"])
    make_budgets(50_000, params["initial"], params["budget"], params["queries"])
    choose_recipe(params["dataset"], params.get("recipe", "auto"), params.get("quick", False), "paper")
    assert params["name"] == file.stem


def test_learning_curves_twice(tmp_path, monkeypatch):
    "Executed, and executed again from the store: the same notebook and the same pictures."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    figures = ROOT/"figures"
    try:
        for turn in ("one", "two"):
            run_figure("learning_curves", SMOKE, tmp_path/f"{turn}.ipynb")
            for end in ("svg", "png", "csv"): (figures/f"smoke.{end}").rename(tmp_path/f"{turn}.{end}")
    finally:
        for f in figures.glob("smoke.*"): f.unlink()
    for end in ("svg", "png", "csv"): assert (tmp_path/f"one.{end}").read_bytes() == (tmp_path/f"two.{end}").read_bytes(), end
    one, two = ((tmp_path/f"{t}.ipynb").read_text().split("16/16 rounds")[0] for t in ("one", "two"))
    assert one == two
    assert "0 done" in (tmp_path/"two.ipynb").read_text() and "16 found" in (tmp_path/"two.ipynb").read_text()
    assert "holds?" in two or "holds?" in (tmp_path/"two.ipynb").read_text()


@pytest.mark.parametrize("wrong, says", [(dict(seed=3), "'seeds'"), (dict(sampler=["vae"]), "'samplers'"), (dict(quik=True), "'quick'")])
def test_unknown_parameters_are_refused(wrong, says):
    with pytest.raises(UserError, match=says): run_figure("learning_curves", wrong)


def test_plain_papermill_refuses_them_too(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="There is no parameter 'seed'"):
        papermill.execute_notebook(str(templates()["learning_curves"]), str(tmp_path/"out.ipynb"), dict(seed=1), progress_bar=False, kernel_name="python3", cwd=str(ROOT))


@pytest.mark.parametrize("wrong, says", [(dict(samplers="[random, vae]"), "single text"), (dict(strategies=["entropy"]), "max_entropy"), (dict(dataset="minst"), "mnist"), (dict(initial=5000), "only 1297")])
def test_bad_values_are_one_sentence(wrong, says, tmp_path):
    with pytest.raises(UserError, match=says): run_figure("learning_curves", {**SMOKE, **wrong}, tmp_path/"out.ipynb")


def test_the_command_line(tmp_path):
    env = {**os.environ, "INITPOOLS_DATA": str(tmp_path/"data"), "PYTHONPATH": str(ROOT)}
    ask = lambda *args: subprocess.run([sys.executable, "-c", "from initpools.cli import main; main()", *args], env=env, cwd=tmp_path, capture_output=True, text=True)
    bad = ask("list", "sampler")
    assert bad.returncode == 1 and "Did you mean 'samplers'" in bad.stderr and "Traceback" not in bad.stderr
    assert "vae" in ask("list", "samplers").stdout


def test_the_page_of_figures_is_fresh():
    from initpools.gallery import make_gallery
    assert make_gallery() == (ROOT/"figures"/"README.md").read_text(), "run make gallery"
