"A rule of one's own against all others: honest pages, and one sentence where there is none."
import pandas as pd
import pytest

from initpools.cli import main
from initpools.core import UserError
from initpools.lab.fill import figure_runs
from initpools.lab.execute import execute
from initpools.lab.store import Store
from initpools.report.comparison import FEWEST, made_up
from initpools.report.trial import answer_grids, duels, features_missing, save_trial, try_rule

RULES = '''
from initpools.rules.table import rule
from initpools.rules.typical import maxherding

@rule(title="MaxHerding, half as wide", reads=["features"])
def narrow(state, k, rng): return maxherding(state, k, rng, bandwidth=.5)

def first(state, k, rng): return state.unlabelled[:k]

def twice(state, k, rng): return state.unlabelled[[0, *range(k - 1)]]

def picky(state, k, rng):
    if k == 10: raise ValueError("ten are too few")
    return state.unlabelled[:k]
'''
GRIDS = answer_grids()
DIGITS = {"digits_pixels_2": GRIDS["digits_pixels_2"]}
SMALL = DIGITS["digits_pixels_2"] | dict(title="Ten at a time", initial=10, budget=10, queries=1, seeds=2,
                                         samplers=["random", "uniform"], strategies=["random"])


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    "A folder with one's own rules, and the records of what was tried already."
    folder = tmp_path_factory.mktemp("try")
    (folder/"my_rules.py").write_text(RULES)
    return folder


@pytest.fixture
def tried(here, monkeypatch):
    "Try a rule; what was found, and what was said."
    monkeypatch.chdir(here)
    said = []
    def call(rule, grids=DIGITS, **how):
        how = dict(seeds=5, store=Store(here/"store"), say=said.append) | how
        return try_rule(rule, grids=grids, **how), said
    return call


def test_a_good_rule_gets_its_page(tried, here):
    "MaxHerding with another width: ahead at the start under every query, beside each pool of the grid."
    found, _ = tried("my_rules.py:narrow")
    trial, = found.trials
    mine = trial.table[trial.table.sampler == trial.name]
    assert trial.name.endswith("@pixels") and trial.seeds == 5 and len(mine) == 5
    assert (mine.gap > .05).all() and set(trial.duels.sampler) == set(trial.frame.sampler) - {trial.name}
    files = save_trial(found, here/"good")
    page = files[0].read_text()
    assert {f.name for f in files} == {f"tried_narrow.{end}" for end in ("md", "svg", "png", "csv")}
    assert "Exploratory" in page and "1 grid, 5 seeds" in page and "MaxHerding (pixels)" in page
    table = pd.read_csv(files[-1])
    assert len(table) == 7 * 5 + 6 * 5 and set(table.verdict) <= {"better", "equal", "worse", "open"}


def test_own_against_another_is_the_difference_of_their_leads(tried):
    "The second table turns the first around: lead over MaxHerding = lead over random - MaxHerding's."
    trial, = tried("my_rules.py:narrow")[0].trials
    ends = trial.table.set_index(["sampler", "strategy"]).end
    for r in trial.duels.itertuples():
        theirs = ends.get((r.sampler, r.strategy), 0) # random itself leads by nothing
        assert r.lead == pytest.approx(ends[trial.name, r.strategy] - theirs)
        assert r.low < r.lead < r.high


def test_words_are_said_of_the_rule():
    "A rule that is ahead of all is better than each, one behind all is worse; the truth is known here."
    frame = made_up(dict(good=(.1, 100), poor=(-.1, 100)), seeds=10).assign(grid="toy")
    assert set(duels(frame, "good", "sampler").verdict) == {"better"}
    assert set(duels(frame, "poor", "sampler").verdict) == {"worse"}


def test_a_useless_rule_is_not_called_better(tried):
    found, _ = tried("my_rules.py:first")
    trial, = found.trials
    mine = trial.table[trial.table.sampler == trial.name]
    assert not (mine.verdict == "better").any() and "better in" not in found.page()
    assert mine.gap.max() < .1 # a good pool is 20 points ahead here


def test_a_broken_rule_is_one_sentence_and_exit_1(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    with pytest.raises(SystemExit) as stopped:
        main(["try", "my_rules.py:twice", "--data", "digits", "--seeds", "2", "--out", "broken", "--store",
              str(here/"store")])
    assert "my_rules.py:twice could not be tried" in stopped.value.code and "19 of them distinct" in stopped.value.code
    assert not (here/"broken").exists() and "\n" not in stopped.value.code


def test_a_rule_that_fails_on_one_grid_is_tried_on_the_others(tried, here):
    small = Store(here/"store")
    execute(figure_runs(SMALL), small, "local", device="cpu", quiet=True)
    found, said = tried("my_rules.py:picky", DIGITS | {"ten": SMALL}, seeds=2)
    assert [t.grid for t in found.trials] == ["digits_pixels_2"] and "ten are too few" in found.left["ten"]
    assert "## Left out" in found.page() and any("ten are too few" in line for line in said)


def test_a_second_call_goes_on(tried, tmp_path):
    "One seed more does only its own rounds."
    mine = Store(tmp_path/"store")
    tried("my_rules.py:first", seeds=1, store=mine)
    before = {f: f.stat().st_mtime_ns for f in mine.folder.glob("*.jsonl")}
    found, _ = tried("my_rules.py:first", seeds=2, store=mine)
    assert found.trials[0].seeds == 2 and len(before) == 5 and len(list(mine.folder.glob("*.jsonl"))) == 10
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_few_seeds_give_no_verdict(tried):
    found, _ = tried("my_rules.py:first", seeds=3)
    assert set(found.trials[0].table.verdict) == {"open"} == set(found.trials[0].duels.verdict)
    assert f"3 seeds are too few for a verdict: {FEWEST} are needed" in found.page()


def test_as_a_query_it_meets_the_queries(tried):
    found, _ = tried("my_rules.py:first", role="query", seeds=2)
    trial, = found.trials
    assert set(trial.duels.strategy) == {"random", "max_entropy", "min_margin", "badge", "coreset"}
    assert found.stem == "tried_first_as_query" and "compared with a random query" in found.page()


def test_another_number_format_is_said(tried):
    found, _ = tried("my_rules.py:first", seeds=2)
    trial, = found.trials
    mine = trial.frame.sampler == trial.name
    trial.frame.loc[mine, "device"] = "another machine, fp32"
    assert "number formats bf16, fp32" in found.page()


def test_a_rule_of_the_grid_needs_no_run(tried, tmp_path):
    found, _ = tried("typiclust", store=Store(tmp_path/"none"))
    assert found.trials[0].name == "typiclust@pixels" and not list((tmp_path/"none").glob("*.jsonl"))


@pytest.mark.parametrize("rule, how, said", [
    ("my_rules.py:nothing", {}, "has no 'nothing'"), ("gone.py:first", {}, "There is no file gone.py"),
    ("typiclus", {}, "typiclust"), ("random", {}, "name another rule"), ("coreset", dict(role="pol"), "pool"),
    ("coreset", dict(data=["digit"]), "digit: none of the answer's data sets"),
    ("coreset", dict(seeds=0), "at least 1"), ("hardest", {}, "gives no loss"), ("max_entropy", {}, "no model is"),
    ("coreset", dict(grids={}), "has records here")])
def test_what_cannot_be_is_one_sentence(tried, rule, how, said):
    with pytest.raises(UserError) as e: tried(rule, **how)
    assert said in str(e.value) and "\n" not in str(e.value)


def test_an_unknown_data_set_is_named_and_the_rest_goes_on(tried):
    found, _ = tried("typiclust", data=["nowhere", "digits"])
    assert list(found.left) == ["nowhere"] and len(found.trials) == 1


def test_features_not_at_hand_are_named_with_their_command(tried, tmp_path, monkeypatch):
    "The command is one that Python reads, and the other grids go on."
    far = DIGITS["digits_pixels_2"] | dict(features="efficientnet_lite0@96")
    monkeypatch.setattr("initpools.report.trial.has_records", lambda params, store: True)
    found, _ = tried("typiclust", DIGITS | {"far": far})
    assert "are not at hand; python -c" in found.left["far"] and len(found.trials) == 1
    compile(features_missing(far, tmp_path).split('"')[1], "command", "exec")


def test_the_command_writes_the_page(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    with pytest.raises(SystemExit) as e:
        main(["try", "typiclust", "--data", "digits", "--seeds", "5", "--out", "book", "--store", str(here/"store")])
    assert not e.value.code and "tried_typiclust.md" in capsys.readouterr().out
    assert (here/"book"/"tried_typiclust.md").read_text().startswith("# Tried as a pool: `typiclust`")
