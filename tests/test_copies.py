"""What chooses by features picks no image twice while others are left; what may, and why, is listed."""
import numpy as np
import pytest

from initpools.contract import toy_model, toy_views as known
from initpools.core import stream
from initpools.rules.clustered import cartography_equal, kmeans_equal, kmeans_proportional
from initpools.rules.coverage import density_weighted
from initpools.rules.gradient import bait, egl
from initpools.rules.learned import adaptive, cal, uncertain_gcn
from initpools.rules.submodular import facility_location_mi, graph_cut, graph_cut_mi, log_det, log_det_mi
from initpools.rules.table import FREE, GIVEN, RULES as TABLE
from initpools.state import State

N = 40
C = 4
MODEL = toy_model()
RULES = {name: (rule.select, 0 if set(rule.reads) - FREE <= GIVEN else 8)
         for name, rule in TABLE.items() if not rule.heavy}

MAY_REPEAT = { # rules that read features and whose definition knows no copies -> why (notebook 51 says it in prose)
    kmeans_equal: "draws uniformly inside a cluster", kmeans_proportional: "draws uniformly inside a cluster",
    cartography_equal: "ranks each image by its own place on the training map",
    density_weighted: "ranks each image by its own score",
    egl: "ranks each image by its own score", cal: "ranks each image by its own score",
    uncertain_gcn: "ranks each image by its own confidence",
    bait: "adds up information, and that of a copy is information again",
    adaptive: "deals out a batch among rules that draw and rank",
    graph_cut: "sums similarities, those of a copy too", graph_cut_mi: "seeks what resembles the queries, copies too",
    facility_location_mi: "seeks what resembles the queries, copies too",
    log_det_mi: "seeks what resembles the queries, copies too",
    log_det: "measures a volume, which is the same for any image once the features' dimensions are spanned"}


class Watched(State):
    "A state that notes which views it was asked for."
    def all(self, name):
        self.__dict__.setdefault("asked", set()).add(name)
        return super().all(name)


def in_pairs(m, seed):
    "A pool of 20 images that are each there twice, m of them labelled; and which of the 20 each row is."
    views, which = known(20, seed), stream("in pairs", seed).permutation(np.repeat(np.arange(20), 2))
    labelled = np.array([np.flatnonzero(which == i)[0] for i in range(m)], np.int64)
    views = {k: v[which] for k, v in views.items()}
    return Watched(N, labelled, views["truth"][labelled], C, model=MODEL, **views), which


def repeats(select, m, k, seed):
    "How many picks are copies of labelled images or of other picks, and whether the rule has looked at features."
    s, which = in_pairs(m, seed)
    have = which[np.concatenate([s.labelled, np.asarray(select(s, k, stream("in pairs", seed)))])]
    return (len(have) - len(set(have.tolist())),
            bool(s.asked & {"features", "projection"}) if hasattr(s, "asked") else False)


def unpacked(select):
    "The rule inside a partial."
    return getattr(select, "func", select)


BY_FEATURES = {n: (select, m) for n, (select, m) in RULES.items()
               if unpacked(select) not in MAY_REPEAT and repeats(select, 8, 5, 0)[1]}


@pytest.mark.parametrize("rule", BY_FEATURES.values(), ids=BY_FEATURES)
@pytest.mark.parametrize("k", [2, 5, 12])
def test_no_image_twice_while_others_are_left(rule, k):
    "What chooses by features spends no label on a copy of a pick or of a labelled image; 12 others are left."
    select, m = rule
    for labelled in sorted({m, 8}):
        for seed in range(3):
            copies, looked = repeats(select, labelled, k, seed)
            assert not (looked and copies), f"{copies} of {k} picks are copies"


def test_rules_that_may_repeat_do():
    "An excuse that is not needed is taken off the list."
    rules = {}
    for select, m in RULES.values(): rules.setdefault(unpacked(select), (select, m))
    for rule in MAY_REPEAT:
        select, m = rules[rule]
        found = [all(repeats(select, 8, k, seed)) for k in (2, 5, 12) for seed in range(4)]
        assert any(found), f"{rule.__name__} repeats nothing"
