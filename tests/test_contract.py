"""One contract for every rule: `select(state, k, rng)` gives k distinct unlabelled indices, and what follows from that.

The tests know no names: rules are found in RULES and sources in PRETEXTS, each rule meets every source that gives its
views, and what a rule reads is found out by watching it. The checks themselves are public, `initpools.contract`.
"""
from dataclasses import replace

import numpy as np
import pytest
import torch

from initpools.contract import CHECKS, OF_RULES, all_cases, checks_for
from initpools.core import UserError
from initpools.data.images import load
from initpools.pretext import PRETEXTS
from initpools.rules.table import FREE, GIVEN
from initpools.rules.table import RULES as TABLE
from initpools.rules.views import model_state
from initpools.samplers import SAMPLERS, canonical_pool, parse_pool
from initpools.state import State
from initpools.strategies import STRATEGIES
from initpools.trainer.terms import TERMS
from initpools.trainer import RECIPES, Compute, Training, embed, fit_many
from initpools.contract import toy_model

CASES = all_cases()
# one case stands for a rule where the source is nothing
FIRST = {case.name.partition("@")[0]: case.name for case in reversed(CASES)}
N = 40
C = 4
MODEL = toy_model()
# in each role once
RULES = {case.name: (case.rule.select, case.labelled)
         for case in CASES if FIRST[case.name.partition("@")[0]] == case.name}
PAIRS = []
for case in CASES:
    first = FIRST[case.name.partition("@")[0]] == case.name
    PAIRS += [(case, check) for check in checks_for(case) if first or check not in OF_RULES]


def state(labelled, views, order=None):
    "The toy pool with all views there are."
    return State(len(views["loss"]), labelled, views["truth"][labelled], C, model=MODEL, **views)


@pytest.mark.parametrize("case, check", PAIRS, ids=[f"{case.name}-{check}" for case, check in PAIRS])
def test_contract(case, check): CHECKS[check](case)


def test_every_rule_meets_every_source():
    "A rule that can choose a first pool is tested with each entry of PRETEXTS that gives its views, and with no other."
    tested = {case.name for case in CASES if not case.labelled}
    for name, rule in TABLE.items():
        needs = set(rule.reads) - FREE
        first = needs <= GIVEN and (rule.members, rule.dropout, rule.terms) == (1, False, ())
        wanted = {f"{name}@{s}" for s, entry in PRETEXTS.items() if needs <= set(entry.gives)} if needs else {name}
        assert {t for t in tested if t.partition("@")[0] == name} == (wanted if first else set()), name


@pytest.mark.parametrize("name, facts, says", [
    ("badge", dict(reads=("probs",)), "no 'features'"),
    ("badge", dict(reads=("probs", "projection", "loss_rank")), "reads loss_rank and did not"),
    ("hardest", dict(reads=("features",)), "no 'loss'"), ("deepfool", dict(reads=("model",)), "no 'images'")])
def test_a_row_that_is_wrong_is_found(name, facts, says):
    case, = [c for c in CASES if c.name in (f"{name}, query", f"{name}@vae")]
    CHECKS["reads_what_it_says"](case)
    with pytest.raises(UserError, match=says):
        CHECKS["reads_what_it_says"](replace(case, rule=replace(case.rule, **facts)))


def test_aliases_are_pairs_of_the_table():
    assert len(SAMPLERS) == 35
    for alias, sampler in SAMPLERS.items():
        rule, source = parse_pool(alias)
        assert rule == TABLE[sampler.rule] and canonical_pool(f"{sampler.rule}@{sampler.source}".rstrip("@")) == alias


@pytest.mark.parametrize("term", [t for t in TERMS if t.endswith("quick")])
@pytest.mark.parametrize("name", [n for n, e in STRATEGIES.items() if e.terms and not e.heavy])
def test_semi_supervised_training_under_any_strategy(name, term):
    "What an entry adds to the training still knows all images, beside pseudo-labels and beside FixMatch."
    digits, labelled = load("digits"), np.arange(40)
    recipe = replace(RECIPES["digits"], epochs=2, min_steps=0, terms=(term,))
    training = Training(recipe, labelled, ("beside", name), pool=np.arange(300), terms=STRATEGIES[name].terms)
    fit, = fit_many([training], digits, Compute("cpu"))
    s = model_state(fit, digits, np.arange(300), labelled)
    images = digits.train[np.arange(300)]
    given = [v for t in fit.terms for v in t.views(fit, images, lambda: embed(fit, images))]
    assert given and all(np.isfinite(s.all(v)).all() and len(s.all(v)) == 300 for v in given)
    parts = [m for t in fit.terms for m in vars(t).values()]
    heads = [m for m in parts if isinstance(m, torch.nn.Module)]
    weights = [p for m in heads for p in m.parameters()]
    trained = {p.data_ptr() for p in weights if p.requires_grad}
    kept = {w.data_ptr() for t in fit.terms for w in t.weights()}
    assert trained <= kept, "a head that is not kept with its network's weights"
