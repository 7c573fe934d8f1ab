"""What a strategy cannot rank by is refused in one sentence, by every entry that reads it.

Which views an entry reads is found out by watching it once, so that a new entry is tested without being named here.
"""
import re

import numpy as np
import pytest

from initpools.contract import toy_views as known
from initpools.core import UserError, stream
from initpools.state import State
from initpools.strategies import STRATEGIES
from test_contract import MODEL, N, state

M = 8
SPOKEN = ["probs", "mc_probs", "member_probs"] # views of probabilities
SCORES = ["discrepancy", "predicted_loss", "critic", "loss_rank"] # one number an image, from a term of the training


class Watched(State):
    "A state that remembers which views were read."
    def all(self, name):
        self.__dict__.setdefault("read", set()).add(name)
        return super().all(name)


def reads(select):
    views = known()
    s = Watched(N, np.arange(M), views["truth"][:M], 4, model=MODEL, **views)
    select(s, 5, stream("watch"))
    return s.__dict__.get("read", set())


READS = {name: reads(entry.select) for name, entry in STRATEGIES.items() if not entry.heavy}


def entries(*views): return pytest.mark.parametrize("name", [n for n, r in READS.items() if r & set(views)])
def entries_and(views):
    return pytest.mark.parametrize("name,view", [(n, v) for n, r in READS.items() for v in sorted(r & set(views))])


def refused(name, s, k=5):
    "The sentence with which an entry refuses."
    with pytest.raises(UserError) as e: STRATEGIES[name].select(s, k, stream("bad"))
    assert re.search(r"[.?!]$", str(e.value)) and len(str(e.value)) > 40, str(e.value)
    return str(e.value)


def test_the_watch_sees_something():
    assert ("probs" in READS["min_margin"] and "mc_probs" in READS["bald"] and "member_probs" in READS["ens_me"]
            and not READS["random"])


@entries("probs", "logits", "mc_probs", "member_probs", "dirichlet", *SCORES)
def test_one_class_only(name):
    views = known()
    s = State(N, np.arange(M), np.full(M, 2), 4, **views)
    assert "class 2" in refused(name, s)


@pytest.mark.parametrize("name", READS)
def test_fewer_unlabelled_than_asked_for(name):
    s = state(np.arange(N - 3), known())
    assert "3 or fewer" in refused(name, s, 4)


@entries_and(SPOKEN)
def test_probabilities_that_do_not_sum_to_one(name, view):
    views = known()
    assert "sum to one" in refused(name, state(np.arange(M), views | {view: 1.5 * views[view]}))


@entries_and([*SPOKEN, *SCORES, "logits", "dirichlet", "features", "projection"])
def test_not_a_number(name, view):
    views = known()
    broken = views[view].copy()
    broken[17] = np.nan
    assert re.search(r"NaN|infinit|finite", refused(name, state(np.arange(M), views | {view: broken})))


@entries("mc_probs")
def test_a_model_without_dropout(name):
    views = known()
    missing = {k: v for k, v in views.items() if k != "mc_probs"}
    assert "dropout" in refused(name, State(N, np.arange(M), views["truth"][:M], 4, **missing))
    assert "dropout" in refused(name,
                                state(np.arange(M), views | dict(mc_probs=np.repeat(views["probs"][:, None], 10, 1))))


@entries("member_probs")
def test_a_committee_of_one(name):
    views = known()
    missing = {k: v for k, v in views.items() if k != "member_probs"}
    assert "2 members" in refused(name, State(N, np.arange(M), views["truth"][:M], 4, **missing))
    assert "2 committee members" in refused(
        name, state(np.arange(M), views | dict(member_probs=views["member_probs"][:, :1])))


@entries_and(["temperature", "dirichlet", *SCORES])
def test_a_view_that_the_training_did_not_give(name, view):
    views = known()
    missing = {k: v for k, v in views.items() if k != view}
    assert f"no '{view}'" in refused(name, State(N, np.arange(M), views["truth"][:M], 4, **missing))


@pytest.mark.parametrize("rule, says", [
    (lambda s, k, rng: s.unlabelled[:1].repeat(k), "1 of them distinct"),
    (lambda s, k, rng: s.unlabelled[:k - 3], "picked 7 images"),
    (lambda s, k, rng: s.labelled[:k], "labelled already"), (lambda s, k, rng: None, "it has to return 10 indices"),
    (lambda s, k, rng: s.unlabelled < 10, "array of bool")])
def test_a_rule_that_breaks_the_contract_stops_its_run(rule, says):
    "A rule of one's own that answers wrongly is refused by name, before a curve is made of it."
    from initpools.active import Run, learn
    from initpools.data.images import load
    from initpools.own import register
    def mine(state, k, rng): return rule(state, k, rng)
    name = register(mine)
    with pytest.raises(UserError, match="The strategy 'mine#") as e:
        list(learn(Run(strategy=name, budgets=(10, 10)), load("digits"), device="cpu"))
    assert says in str(e.value)
    if says != "labelled already":
        with pytest.raises(UserError, match="The sampler 'mine#"):
            next(learn(Run(sampler=name, budgets=(10, 10)), load("digits"), device="cpu"))
