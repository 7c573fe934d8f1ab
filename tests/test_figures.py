"Figure templates run at smoke size, refuse what they do not know, and give the same bytes twice."
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import papermill
import pandas as pd
import pytest
import yaml

from initpools.core import UserError
from initpools.report.figure import check_names, read_parameters, run_figure, templates, write_facts
from shared import cold_kernels, drawn, page_facts, same_files, same_twice

ROOT = Path(__file__).resolve().parents[1]
SMOKE = dict(name="smoke_learning_curves", samplers=["random", "kmeans"], strategies=["random", "min_margin"], seeds=2,
             initial=10, budget=10, queries=1, pretext_epochs=1, workers=1)


PARAMS = sorted((ROOT/"nbs"/"figures"/"params").glob("*.yml"))
SMALL = { # template -> parameters that make it a matter of seconds
    "audit_simclr_score": dict(datasets={"digits": [2, 20]}, seeds=2),
    "audit_best_weights": dict(datasets={"digits": [20]}, epochs=6, seeds=2),
    "audit_warm_start": dict(n=200, tests=100, epochs=3, pretext_epochs=2, rounds=2),
    "audit_random_crops": dict(datasets={"digits": 40}, epochs=4, draws=2, pool=100, query=10),
    "audit_vae_tanh": dict(datasets={"digits": [200, 20]}, epochs=2),
    "audit_validation_splits": dict(datasets={"digits": ["vae", 2, "", 60]}, labels=40, seeds=2),
    "audit_clusters": dict(datasets={"digits": [2, 60]}),
    "audit_variation_ratio": dict(datasets={"digits": [20, 20]}, epochs=4, pool=300),
    "audit_nan_entropy": dict(datasets={"digits": [40, 8]}, pool=200),
    "audit_one_seed": dict(datasets={"digits": ["vae", 2, "", 20]}, pools=2, weights=2),
    "figure_1": dict(points=60, picks=10, seeds=2),
    "initial_pools": dict(budgets=[20], samplers=["random", "vae", "kmeans"], seeds=1, epochs={"vae": 1}, points=200,
                          first=6),
    "table_1": dict(),
    "table_2": dict(datasets={"digits": [1, 2, "small_cnn"]}),
}


def template_of(file):
    "The template that a parameter file is for: the longest name it begins with, else by what it sets."
    if "budgets" in read_parameters([file]): return "initial_pools"
    return max((t for t in templates() if file.stem.startswith(t)), key=len, default="learning_curves")


@pytest.mark.parametrize("file", PARAMS, ids=lambda p: p.stem)
def test_parameter_files_fit_the_template(file):
    params = read_parameters([file])
    assert params["name"] == file.stem
    known = papermill.inspect_notebook(str(templates()[template_of(file)]))
    check_names(params, known)
    kinds = dict(str=str, int=int, float=int | float, bool=bool, list=list, dict=dict)
    also = {"pretext_epochs": int | dict} # a number for all tasks, or one for each
    assert not {k: v for k, v in params.items()
                if not isinstance(v, also[k] if k in also else kinds[known[k]["inferred_type_name"]])}


@pytest.mark.parametrize("file", [p for p in PARAMS if template_of(p) == "initial_pools"], ids=lambda p: p.stem)
def test_samplers_of_pools_are_known(file):
    from initpools.samplers import sampler_of
    params = read_parameters([file])
    for s in (*params["samplers"], *params.get("reads", {})): sampler_of(s)


@pytest.mark.parametrize("file", [p for p in PARAMS if template_of(p) == "learning_curves"], ids=lambda p: p.stem)
def test_grids_of_learning_curves_are_sound(file):
    params = read_parameters([file])
    from initpools.lab.grid import check_axes, choose_recipe, make_budgets
    check_axes(params["samplers"], params["strategies"], params["seeds"])
    make_budgets(50_000, params["initial"], params["budget"], params["queries"])
    choose_recipe(params["dataset"], params.get("recipe", "auto"), params.get("quick", False), "paper")


@pytest.mark.parametrize("template", sorted(templates(ROOT)))
def test_every_template_refuses_unknown_parameters(template):
    with pytest.raises(UserError, match="There is no parameter"): run_figure(template, dict(sede=1))
    code = ["".join(c["source"])
            for c in json.loads(templates(ROOT)[template].read_text())["cells"] if c["cell_type"] == "code"]
    assert f'check_parameters(globals(), "{template}")' in code[1]


@pytest.mark.parametrize("template", SMALL)
def test_small_templates_twice(template, tmp_path, monkeypatch):
    "The same parameters, the same bytes: by its own command, and warm, as `make figures` does."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    for turn, kernels in (("one", cold_kernels()), ("two", nullcontext())): # the session's kernels are warm
        with kernels: run_figure(template, dict(SMALL[template], name=f"smoke_{template}"), tmp_path/turn/"page.ipynb")
        shutil.rmtree(tmp_path/"data"/"store", ignore_errors=True) # what was measured is measured again
    same_files(tmp_path, "one", "two")
    cells = json.loads((tmp_path/"one"/"page.ipynb").read_text())["cells"]
    verdict = next((i for i, c in enumerate(cells) if "".join(c["source"]).startswith("## Verdict")), 0)
    says = "".join("".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for c in cells[verdict:]
                   for o in c.get("outputs", []))
    assert says and "nan" not in says, says


def test_a_page_is_drawn_from_its_records(tmp_path, monkeypatch):
    "Measured once, then only read: the same bytes, and the second time nothing could have been measured."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    small = dict(SMALL["audit_best_weights"], name="smoke_kept")
    def turn(name): run_figure("audit_best_weights", small, tmp_path/name/"page.ipynb")
    turn("measured")
    monkeypatch.setenv("INITPOOLS_REDRAW", "1")
    turn("read")
    kept, = (tmp_path/"data"/"store"/"cells").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    with pytest.raises(UserError, match="has a damaged record|cut off"): turn("broken")
    same_files(tmp_path, "measured", "read")


BENCHMARKS = { # template -> parameters that make it a matter of seconds; what it times differs from time to time
    "benchmark_selection": dict(n=600, labelled=20, picks=[20, 40], herd=10, sizes=[300, 600], large=0, repeats=1),
    "benchmark_queries": dict(n=400, d=16, labelled=30, query=10, badge=20, repeats=1),
    "benchmark_training": dict(dataset="digits", images=24, small_images=48, pairs=2, seeds=2, labels=20, steps=20,
                               threads=1),
    "benchmark_frozen": dict(probes=4, labels=50, reference=1, reference_epochs=1, clusters=10, pairs=1, images=64,
                             data="digits", backbone="pixels", large=2000, niter=2, threads=1),
    "benchmark_rounds": dict(grids=[["digits", 20, 1]], samplers=["random"], strategies=["random", "min_margin"],
                             features="pixels", components=16, queries=1, workers=1),
}
# the others judge by a target
SAID = {"benchmark_training": "of a lone convolution", "benchmark_frozen": "distinct picks",
        "benchmark_rounds": "digits"}


@pytest.mark.parametrize("template", BENCHMARKS)
def test_small_benchmarks(template, tmp_path, monkeypatch):
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    out = run_figure(template, dict(BENCHMARKS[template], name=f"smoke_{template}"), tmp_path/"page"/"out.ipynb")
    assert len(drawn(tmp_path/"page")) == 3 and SAID.get(template, "target: at most") in out.read_text()


def test_every_template_is_run():
    elsewhere = {"learning_curves", "strategies", "transfer", "pools_compared", "second_round", "answer",
                 "answer_plan", "low_budget"} # below, and in test_low_budget
    # its workers are shot by the clock, so that a slow machine would never finish; the same faults are in test_resume
    # and test_cluster
    shot = {"benchmark_grid"}
    assert set(templates(ROOT)) == set(SMALL) | set(BENCHMARKS) | elsewhere | shot


def test_learning_curves_twice(tmp_path, monkeypatch):
    "Executed, and executed again from the store: the same notebook and the same pictures."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    first, second = same_twice("learning_curves", SMOKE, tmp_path)
    one, two = (text.split("16/16 rounds")[0] for text in (first, second))
    assert one == two
    assert "0 done" in second and "16 found" in second
    assert "not run" in second and "hard ones" in second


POOLS = dict(dataset="digits", features="pixels", components=16, samplers=["random", "uniform", "kmeans_equal@pixels"],
             strategies=["random", "min_margin"], seeds=6, initial=20, budget=20, queries=2, recipe="tuned", share=.8)


def test_the_answer_is_planned_and_drawn(tmp_path, monkeypatch):
    "A grid by its parameter file: planned, compared, read again, and on the page of all grids; some seeds are missing."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    (tmp_path/"plans").mkdir()
    (tmp_path/"plans"/"digits_small.yml").write_text(yaml.safe_dump(POOLS))
    home = dict(folder=str(tmp_path/"plans"))
    plan = run_figure("answer_plan", home | dict(seeds=[5, 6]), tmp_path/"plan"/"answer_plan.ipynb")
    assert "36 runs" in (tmp_path/"plan"/"answer_plan.json").read_text() and "equal within" in plan.read_text()
    small = POOLS | dict(name="smoke_pools", covering=["kmeans_equal@pixels"], executor="local", seeds=5)
    _, second = same_twice("pools_compared", small, tmp_path)
    assert "90 found" in second and "H1. After the last round" in second
    page = home | dict(data=["digits"], titles=["Digits"], first="small", others=[], luck="many", spend=[20, 40])
    out = run_figure("answer", page, tmp_path/"answer"/"answer.ipynb")
    assert "Digits 5 of 6" in out.read_text() and "H1. digits" in (tmp_path/"answer"/"answer.json").read_text()
    assert pd.read_csv(tmp_path/"answer"/"answer_ways.csv").labels.isin([20, 40]).all()
    with pytest.raises(UserError, match="No grid has 7 whole seeds"):
        run_figure("answer", page | dict(fewest=7), tmp_path/"none"/"answer.ipynb")


def test_a_second_round_is_drawn(tmp_path, monkeypatch):
    "Rules for later rounds, from one first round each; with a single first round too."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    small = dict(name="smoke_second", strategies=["random", "kmeans_features", "min_margin"], components=16, seeds=5,
                 queries=2, executor="local")
    _, second = same_twice("second_round", small, tmp_path)
    assert "90 found" in second and "Min-margin beats chance in the second round" in second
    one = small | dict(samplers=["random"])
    assert "after Random" in run_figure("second_round", one, tmp_path/"one"/"page.ipynb").read_text()


def test_strategies_twice(tmp_path, monkeypatch):
    "Its table tells what choosing cost, so the second time has to read it."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    small = dict(name="smoke_strategies", strategies=["random", "min_margin", "ens_lc"], seeds=2, initial=10, budget=10,
                 queries=1, workers=1)
    _, second = same_twice("strategies", small, tmp_path)
    assert "16 found" in second and "ENS-LC" in second and "verdict" in second


def test_transfer_twice(tmp_path, monkeypatch):
    "The second time both who picks and who learns come from the store."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    small = dict(name="smoke_transfer", strategies=["random", "min_margin"], to=["mlp"], seeds=2, initial=10, budget=10,
                 queries=1, workers=1)
    _, second = same_twice("transfer", small, tmp_path)
    assert "8 found" in second and "Kendall" in second and "mlp" in second and "nan" not in second
    with pytest.raises(UserError, match="'vgg16'"):
        run_figure("transfer", dict(small, to=["vgg"]), tmp_path/"wrong.ipynb")
    with pytest.raises(UserError, match="add the strategy 'random'"):
        run_figure("transfer", dict(small, strategies=["min_margin"]), tmp_path/"wrong.ipynb")


@pytest.mark.parametrize(
    "wrong, says", [(dict(seed=3), "'seeds'"), (dict(sampler=["vae"]), "'samplers'"), (dict(quik=True), "'quick'")])
def test_unknown_parameters_are_refused(wrong, says):
    with pytest.raises(UserError, match=says): run_figure("learning_curves", wrong)


def test_plain_papermill_refuses_them_too(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="There is no parameter 'seed'"):
        papermill.execute_notebook(str(templates()["learning_curves"]), str(tmp_path/"out.ipynb"), dict(seed=1),
                                   progress_bar=False, kernel_name="python3", cwd=str(ROOT))


@pytest.mark.parametrize(
    "wrong, says", [(dict(samplers="[random, vae]"), "single text"), (dict(strategies=["entropy"]), "max_entropy"),
                    (dict(dataset="minst"), "mnist"), (dict(initial=5000), "only 1297")])
def test_bad_values_are_one_sentence(wrong, says, tmp_path):
    with pytest.raises(UserError, match=says): run_figure("learning_curves", {**SMOKE, **wrong}, tmp_path/"out.ipynb")


def test_the_command_line(tmp_path):
    env = {**os.environ, "INITPOOLS_DATA": str(tmp_path/"data"), "PYTHONPATH": str(ROOT)}
    def ask(*args):
        return subprocess.run([sys.executable, "-c", "from initpools.cli import main; main()", *args], env=env,
                              cwd=tmp_path, capture_output=True, text=True)
    bad = ask("list", "sampler")
    assert bad.returncode == 1 and "Did you mean 'samplers'" in bad.stderr and "Traceback" not in bad.stderr
    assert "vae" in ask("list", "samplers").stdout


def test_the_page_of_figures_is_fresh():
    from initpools.report.gallery import make_gallery
    assert make_gallery() == (ROOT/"figures"/"README.md").read_text(), "run make gallery"


def test_redrawing_trains_nothing_and_spoils_nothing(tmp_path, monkeypatch):
    "A figure that has no records is named and left to the byte; INITPOOLS_REDRAW does not outlive the call."
    from initpools.report.gallery import redraw
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    (tmp_path/"figures").mkdir()
    for name in ("nbs", "settings.ini"): (tmp_path/name).symlink_to(ROOT/name)
    for name, given, template in (("curves", dict(SMOKE, seeds=1), "learning_curves"),
                                  ("page", dict(datasets={"digits": [20]}, epochs=7), "audit_best_weights")):
        write_facts(page_facts(name, template=template, parameters=given), tmp_path/"figures")
        (tmp_path/"figures"/f"{name}.ipynb").write_text("a notebook, which nobody reads")
    (tmp_path/"figures"/"mute.ipynb").touch()
    before = {f.name: f.read_bytes() for f in (tmp_path/"figures").iterdir()}
    said = []
    here = os.getcwd()
    redraw(tmp_path, said.append)
    assert os.getcwd() == here
    assert {n: (tmp_path/"figures"/n).read_bytes() for n in before} == before
    assert "mute.ipynb has no mute.json" in (tmp_path/"figures"/"README.md").read_text()
    assert all("was left as it is" in line and "by its own command" in line for line in said) and len(said) == 3, said
    assert not os.environ["INITPOOLS_REDRAW"] and not list((tmp_path/"data").rglob("*.jsonl"))
