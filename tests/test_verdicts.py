"Verdicts, tallies and sentences say what the published numbers bear."
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from initpools.report.figure import read_facts, run_figure
from initpools.report.gallery import score
from initpools.report.low_budget import low_budget_claims
from initpools.report.statistics import claims, curve_areas, differences, interval, verdict

ROOT = Path(__file__).resolve().parents[1]
SIZE = "direction holds, size differs"


def numbers(page): return pd.read_csv(ROOT/"figures"/f"{page}.csv")
def facts(name): return read_facts(ROOT/"figures"/f"{name}.ipynb")


@pytest.mark.parametrize("claim", ["same", "not above"])
def test_a_sameness_fails_only_beyond_the_margin(claim):
    "Every interval on a grid: what holds lies inside, what fails lies beyond on one side, the rest is open."
    ends = np.round(np.arange(-.03, .0301, .0025), 4)
    for low in ends:
        for high in ends[ends >= low]:
            inside = high < .01 and (claim == "not above" or low > -.01)
            beyond = low > .01 or (claim == "same" and high < -.01)
            assert (verdict((low + high) / 2, low, high,
                            claim) == ("holds" if inside else "fails" if beyond else "open")), (low, high)


def test_a_size_is_judged_beside_the_direction():
    low, high = -.417, -.233
    assert [verdict(-.325, low, high, "below", size=s) for s in (-.18, -.3, None)] == [SIZE, "holds", "holds"]
    assert verdict(-.1, -.3, .1, "below", size=-.18) == "open" and verdict(.2, .1, .3, "below", size=-.18) == "fails"


def test_the_paper_s_sizes_on_published_numbers():
    "On MNIST the VAE's pool starts lower than the paper's; on CIFAR-10 where the paper has it."
    mnist, cifar = (claims(numbers(f"{f}_quick"), f).iloc[0] for f in ("figure_5", "figure_2"))
    assert mnist.verdict == SIZE and mnist.ours.startswith("-32.5 points [-41.7, -23.3]")
    assert cifar.verdict == "holds" and cifar.ours.startswith("-13.1 ") and "from random alone -17.8 " in cifar.ours


def test_figure_8_is_tested_over_the_whole_curve():
    table = claims(numbers("figure_8_quick"), "figure_8").set_index("claim")
    row = table.loc["vae is above random, over the whole curve"]
    assert row.verdict == "fails" and row.ours.startswith("-4.5 points [-7.0, -2.0]") and "all three" in row.paper
    d = differences(curve_areas(numbers("figure_8_quick")), "area").set_index("sampler").loc["vae"]
    assert d.high < 0


def test_floor_and_ceiling_are_flagged():
    tiny = claims(numbers("figure_4_quick"), "figure_4", classes=200)
    assert tiny.limits.str.startswith("floor").all()
    for figure in ("figure_2", "figure_5", "figure_8", "figure_9"):
        assert "limits" not in claims(numbers(f"{figure}_quick"), figure, classes=10)
    probe = low_budget_claims(numbers("low_budget_tiny_lite0_linear")).set_index("claim").limits
    assert (probe["K-means is above random at 10 labels"].startswith("floor")
            and not probe["K-means meets random at 2,000 labels"])
    covered = low_budget_claims(numbers("low_budget_cifar10_lite0_coverage")).set_index("claim").limits
    assert not covered["Max-entropy is below random, mean over budgets after the first"] # 98 % leave room below
    assert (covered["K-means meets random at 5,000 labels"].startswith("ceiling")
            and not covered["K-means is above random at 10 labels"])
    assert "limits" not in low_budget_claims(numbers("low_budget_cifar10_lite0_linear"))


def test_a_lead_of_a_point_and_a_bit_is_open():
    "The three that were tallied as failing: +1.1 [+0.8, +1.4] and its like."
    for name, rows in (("cifar10_lite0_nn", ["K-means"]), ("cifar10_simclr_nn", ["K-means", "Multi k-means"])):
        table = low_budget_claims(numbers(f"low_budget_{name}")).set_index("claim")
        assert {table.loc[f"{r} meets random at 5,000 labels", "holds?"] for r in rows} == {"open"}


def test_published_pages_say_what_their_numbers_say():
    "No page keeps a verdict that today's rule would not give."
    for name in ("figure_2", "figure_4", "figure_5", "figure_8", "figure_9"):
        fresh = claims(numbers(f"{name}_quick"), name, classes=200 if name == "figure_4" else 10)
        assert facts(f"{name}_quick")["verdicts"] == fresh.to_dict("records")
    for f in sorted((ROOT/"figures").glob("low_budget_*.csv")):
        assert facts(f.stem)["verdicts"] == low_budget_claims(pd.read_csv(f)).to_dict("records"), f.stem


def test_settings_and_limits_are_not_tallied_as_findings():
    table = facts("table_1")
    assert score(table) == Counter() and sum(r["ours agrees?"] == "yes" for r in table["verdicts"]) == 44
    assert score(facts("figure_4_quick")) == Counter(limits=8)
    assert score(facts("figure_5_quick")) == Counter({SIZE: 1, "open": 1})
    tally = (ROOT/"figures"/"README.md").read_text().split("## What became of the statements")[1].split("\n## ")[0]
    assert "Table 1: " not in tally and "at a floor or ceiling" in tally and "in direction, not in size" in tally


def test_titles_count_the_classes_that_were_there():
    "Ten labels, one of each class, cover ten classes: the share gives their number."
    covered = numbers("low_budget_tiny_lite0_coverage").query("labels == 10").value.max()
    for f in (ROOT/"nbs"/"figures"/"params"/"low_budget").glob("tiny_*.yml"):
        title = yaml.safe_load(f.read_text())["title"]
        assert int(re.search(r"(\d+) classes", title)[1]) == round(10 / covered), title


def test_a_committee_is_compared_with_a_passive_committee(tmp_path, monkeypatch):
    "What is missing is added; each difference is taken from its own reference; a rule under two names is ranked once."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    asked = ["coreset", "coreset_projection", "ens_lc"]
    small = dict(name="smoke_verdicts", strategies=asked, seeds=2, initial=10, budget=10, queries=1, workers=1)
    out = run_figure("strategies", small, tmp_path/"page.ipynb").read_text()
    frame = pd.read_csv(tmp_path/"smoke_verdicts.csv")
    assert "Added, to compare with: Passive learning, Passive, three networks." in out
    assert "Core-set (projection) bought the same images as Core-set (greedy) in every round of every seed" in out
    against = dict(frame[["strategy", "against"]].dropna().drop_duplicates().values)
    assert (against == {"coreset": "random", "ens_lc": "random_committee", "random_committee": "random"}
            and "coreset_projection" not in set(frame.strategy))
    ends = frame[frame["round"] == 1].pivot(index="seed", columns="strategy", values="accuracy")
    mean, low, high = interval(ends.ens_lc - ends.random_committee)
    shown = [o for c in json.loads(out)["cells"] for o in c.get("outputs", [])]
    table = next("".join(o["data"]["text/html"]) for o in shown if "area's difference" in str(o.get("data", {})))
    row = re.search(r"<td>ENS-LC</td>(.*?)</tr>", table, re.S)[1]
    assert f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]" in row and "Passive, three networks" in row


def test_no_page_says_more_than_an_interval():
    "Words for what an interval wider than the margin cannot bear."
    prose = [ROOT/"README.md", ROOT/"figures"/"README.md", *(ROOT/"nbs"/"figures").glob("*.ipynb"),
             *(ROOT/"figures").glob("*.ipynb")]
    words = ("as good as chance", "and level with", "and level by", "too little to matter for")
    for f in prose: assert not (said := [w for w in words if w in f.read_text()]), (f.name, said)
