"What a page says as data: written once beside it, and read by the gallery, which opens no notebook."
import ast
import json
import re
from pathlib import Path

import pytest

from initpools.core import UserError
from initpools.report.figure import FACTS, files_made, read_facts, run_figure, templates, write_facts
from initpools.report.gallery import make_gallery, pages, redraw
from shared import page_facts

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT/"figures").glob("*.ipynb"))
VERDICTS = [dict(claim="it starts | below", paper="12 points", ours="-13.1 points", verdict="holds"),
            dict(claim="it ends the same", paper="similar", ours="-0.5 points", verdict="open: 3 seeds"),
            dict(claim="another", paper="not run", ours="+1 point", verdict="above")]


def cells(file): return json.loads(file.read_text())["cells"]


def put(root, facts):
    "A page in a repository: its notebook, which is empty, what it has saved, and its facts."
    folder = root/"figures"
    folder.mkdir(exist_ok=True)
    write_facts(facts, folder)
    for name in (f"{facts['page']}.ipynb", *facts["files"]): (folder/name).touch()


@pytest.fixture
def toy(tmp_path):
    "A repository with two pages."
    (tmp_path/"nbs").symlink_to(ROOT/"nbs")
    (tmp_path/"settings.ini").symlink_to(ROOT/"settings.ini")
    curves = dict(name="curves", paper="figure_2", dataset="mnist", store="runs", samplers=["random", "vae"])
    put(tmp_path,
        page_facts("curves", parameters=curves, files=["curves.svg", "curves.png", "curves.csv"], verdicts=VERDICTS,
                   rounds=dict(count=360, seeds=3, seconds=4567.8)))
    put(tmp_path,
        page_facts("speed", template="benchmark_grid", title="What it costs: a grid", parameters={}, timed=True,
                   cells=[dict(record="a.jsonl", machine="a processor, fp32", seconds=90.)],
                   verdicts=[dict(what="run, ms", measured=2.5, target=5.0, holds="yes"),
                             dict(what="memory", measured=None, target=6.25, holds="not measured")]))
    return tmp_path


def test_facts_of_a_page_that_is_executed(tmp_path):
    "Everything the page says is in them, typed; the same page gives the same bytes; the order of parameters is kept."
    out = tmp_path/"page.ipynb"
    run_figure("table_1", dict(name="settings", datasets=["mnist", "cifar10"]), out)
    facts, once = read_facts(out), out.with_suffix(".json").read_bytes()
    assert list(facts) == sorted(FACTS) and facts["page"] == "page"
    assert (facts["parameters"] == dict(name="settings", datasets=["mnist", "cifar10"])
            and list(facts["parameters"]) == ["name", "datasets"])
    assert facts["title"] == "Table 1: hyper-parameters of the active-learning cycles (settings)"
    row = next(r for r in facts["verdicts"] if r["what"] == "lr")
    assert (list(row) == ["data set", "what", "paper", "ours", "released", "ours agrees?", "release agrees?"]
            and row["ours"] == .025)
    assert facts["notes"][0].startswith("22 of 22 entries") and not facts["timed"] and facts["rounds"] is None
    made = files_made(out)
    assert ([f.name for f in made] == ["settings.svg", "settings.png", "settings.csv", "page.json"]
            and all(f.exists() for f in made))
    run_figure("table_1", dict(name="settings", datasets=["mnist", "cifar10"]), out)
    assert out.with_suffix(".json").read_bytes() == once


def test_a_page_is_whole_only_with_its_facts(tmp_path):
    "A template that forgets to publish leaves the page before as it was."
    root = tmp_path/"repository"
    (root/"nbs"/"figures").mkdir(parents=True)
    mute = json.loads(templates()["table_1"].read_text())
    for cell in mute["cells"]: cell["source"] = "".join(cell["source"]).replace("publish(frame).name", "")
    (root/"nbs"/"figures"/"mute.ipynb").write_text(json.dumps(mute))
    out = tmp_path/"page.ipynb"
    out.write_text("the page before")
    with pytest.raises(UserError, match="has no page.json beside it"): run_figure("mute", {}, out, root)
    assert out.read_text() == "the page before" and not out.with_suffix(".json").exists()


def test_the_gallery_says_what_facts_say(toy):
    "Two pages whose notebooks are empty: pictures, sentences, costs, verdicts, commands, sections and the tally."
    page = make_gallery(toy)
    for line in (
        "- [About curves](#about-curves)", "![About curves](curves.png)", "50 images",
        "360 rounds, 3 seeds, 76 minutes of training and asking.",
        "| it starts \\| below | 12 points | -13.1 points | holds |",
        "[Notebook](curves.ipynb) · [curves.csv](curves.csv) · [curves.svg](curves.svg)",
        "measured on a processor, fp32: record a.jsonl  \n50 images", "1.5 minutes of measuring.",
        "| run, ms | 2.5 | 5.00 | yes |", "| memory |  | 6.25 | not measured |",
        "Again: `initpools figure learning_curves -p 'name=curves' -p 'paper=figure_2' -p 'dataset=mnist' "
        """-p 'store=runs' -p 'samplers=["random", "vae"]'`, from its records"""):
        assert line in page, line
    first, cost = page.index("\n## On Initial Pools\n"), page.index("\n## Benchmarks and tables\n")
    assert first < page.index("### About curves") < cost < page.index("### What it costs: a grid")
    assert "| [About curves](#about-curves) | 1 |  |  | 1 |  | 6 |" in page and "## Left out" not in page


def drop(file, facts): file.unlink()
def cut(file, facts): file.write_bytes(file.read_bytes()[:-40])
def binary(file, facts): file.write_bytes(b"\xff\xfe\x00")
def another(file, facts):
    write_facts(facts, file.parent.parent)
    (file.parent.parent/f"{facts['page']}.json").replace(file)
def headless(file, facts): file.write_text(json.dumps({k: v for k, v in facts.items() if k != "template"}))
def other_kind(file, facts): file.write_text(json.dumps(facts | dict(verdicts=["holds"])))
def unsaved(file, facts): (file.parent/"curves.png").unlink()


@pytest.mark.parametrize("harm, says", [
    (drop, "curves.ipynb has no curves.json beside it: "), (cut, "curves.json is damaged: "),
    (binary, "curves.json is damaged: "),
    (another, "curves.json holds the facts of another page, speed: "), (headless, "curves.json is damaged: "),
    (other_kind, "curves.json is damaged: "),
    (unsaved, "curves.json names curves.png, which does not lie beside it: ")],
                         ids=lambda v: getattr(v, "__name__", ""))
def test_a_page_with_bad_facts_is_named_and_left(harm, says, toy):
    "One sentence that says what to do; the other page stays on the page of figures; redrawing leaves it to the byte."
    file = toy/"figures"/"curves.json"
    harm(file, read_facts(toy/"figures"/("speed" if harm is another else "curves.ipynb")))
    found, (sentence,) = pages(toy)
    assert [f.stem for f in found] == ["speed"]
    assert sentence.startswith(says) and "by its own command" in sentence and sentence.endswith(".")
    page = make_gallery(toy)
    assert (f"## Left out\n\n- {sentence}\n" in page and "### What it costs: a grid" in page
            and "### About curves" not in page)
    before, said = {f.name: f.read_bytes() for f in (toy/"figures").iterdir()}, []
    redraw(toy, said.append)
    assert said == [f"curves.ipynb was left as it is: {sentence}", "speed.ipynb times a machine, and was left as it is"]
    assert {n: (toy/"figures"/n).read_bytes() for n in before} == before


def test_redrawn_twice_is_the_same_bytes(tmp_path, monkeypatch):
    "A page of settings, and one that measures cells; facts included."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    for name in ("nbs", "settings.ini"): (tmp_path/name).symlink_to(ROOT/name)
    small = dict(datasets={"digits": [20]}, epochs=6, seeds=2, store="runs")
    run_figure("audit_best_weights", small, root=tmp_path)
    run_figure("table_1", {}, root=tmp_path)
    turns = []
    for _ in range(2):
        redraw(tmp_path, lambda line: None)
        turns.append({f.name: f.read_bytes() for f in (tmp_path/"figures").iterdir()})
    assert turns[0] == turns[1] and {"audit_best_weights.json", "table_1.json", "README.md"} <= turns[0].keys()
    facts = read_facts(tmp_path/"figures"/"audit_best_weights.ipynb")
    (cell,) = facts["cells"]
    assert ((tmp_path/"data"/"runs"/"cells"/cell["record"]).exists() and facts["machines"] == [cell["machine"]]
            and cell["seconds"] > 0)
    assert cell["machine"] in facts["subtitle"] and "6 epochs" in facts["subtitle"] # as in the picture


@pytest.mark.parametrize("template", sorted(templates(ROOT)))
def test_every_template_publishes_once_and_last(template):
    code = ["".join(c["source"]) for c in cells(templates(ROOT)[template]) if c["cell_type"] == "code"]
    calls = [i for i, source in enumerate(code) for _ in re.findall(r"\bpublish\(", source)]
    assert calls == [len(code) - 1], "publish() is the last thing that a template does"
    lines = "\n".join(code).splitlines()
    said = [line for line in lines if re.search(r"\bprint\(", line) and ".name)" not in line]
    assert not said, "say it with note()"


@pytest.mark.parametrize("file", PAGES, ids=lambda f: f.stem)
def test_published_facts_are_those_of_their_notebook(file):
    "Parameters, sentences and title, as the executed notebook has them; and no path of one machine."
    facts = read_facts(file)
    injected = [c for c in cells(file) if "injected-parameters" in c["metadata"].get("tags", [])]
    lines = ast.parse("".join(injected[0]["source"]) if injected else "").body
    assert facts["parameters"] == {line.targets[0].id: ast.literal_eval(line.value) for line in lines}
    outputs = [o for c in cells(file) for o in c.get("outputs", [])]
    printed = "".join("".join(o["text"]) for o in outputs if o.get("name") == "stdout")
    said = [line.rstrip() for line in printed.splitlines()]
    assert set("\n".join(facts["notes"]).splitlines()) <= set(said)
    assert facts["notes"] and facts["title"] and facts["files"]
    assert not re.search(r"(?<![\w.])/(?:home|root|work|Users|tmp)/", file.with_suffix(".json").read_text())
