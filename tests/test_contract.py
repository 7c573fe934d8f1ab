"""One contract for every sampler and every strategy: `select(state, k, rng)` gives k distinct unlabelled indices.

The tests know no names. Whether a rule is random is found out by asking it twice; a random rule must not care for the
order of the file either, but that can only be seen in its frequencies.
"""
import copy
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from initpools.core import UserError, stream
from initpools.datasets import load
from initpools.models import build
from initpools.samplers import SAMPLERS
from initpools.state import State
from initpools.strategies import STRATEGIES
from initpools.strategies.state import model_state
from initpools.terms import TERMS
from initpools.trainer import RECIPES, Compute, Fit, Training, embed, fit_many, seeded

RULES = {**{f"sampler {k}": (v.select, 0) for k, v in SAMPLERS.items()}, **{f"strategy {k}": (v.select, 8) for k, v in STRATEGIES.items() if not v.heavy}}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
N, C = 40, 4
with seeded("contract"): MODEL = Fit(build("small_cnn", 1, 8, C).eval(), (.5,), (.25,), "cpu", "fp32")


def softmax(z): return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def known(n=N, seed="pool"):
    "Everything a pretext task or a model could say of a pool of n images."
    g = stream("contract", seed)
    logits = 2 * g.normal(size=(n, C))
    spread = lambda m: softmax(logits[:, None] + .7 * g.normal(size=(n, m, C)))
    truth = np.arange(n) % C
    return dict(loss=g.random(n), features=g.normal(size=(n, 6)).astype(np.float32) + 3 * np.eye(6, dtype=np.float32)[truth], projection=g.normal(size=(n, 5)).astype(np.float32),
                clusters=truth.copy(), dynamics=g.random((n, 2)), truth=truth, logits=logits, probs=softmax(logits), mc_probs=spread(10), member_probs=spread(3),
                temperature=np.full(n, 1.7), predicted_loss=g.random(n), discrepancy=g.random(n), dirichlet=1 + g.gamma(1, size=(n, C)),
                images=g.integers(0, 256, (n, 1, 8, 8)).astype(np.uint8), loss_rank=g.normal(size=n), critic=g.random(n))


def state(labelled, views, order=None):
    "The pool, or the same pool with its images listed in another order."
    order = np.arange(len(views["loss"])) if order is None else order
    place = np.argsort(order)
    return State(len(order), place[labelled], views["truth"][labelled], C, model=MODEL, **{k: v[order] for k, v in views.items()})


@every_rule
@pytest.mark.parametrize("k", [1, 7])
def test_k_distinct_unlabelled_indices(rule, k):
    select, m = rule
    s = state(np.arange(m), known())
    picks = np.asarray(select(s, k, stream("pick")))
    assert picks.shape == (k,) and np.issubdtype(picks.dtype, np.integer)
    assert len(set(picks.tolist())) == k and set(picks.tolist()) <= set(s.unlabelled.tolist())


@every_rule
def test_same_stream_same_answer(rule):
    select, m = rule
    s = state(np.arange(m), known())
    assert np.array_equal(select(s, 7, stream("a")), select(s, 7, stream("a")))


@every_rule
def test_everything(rule):
    select, m = rule
    s = state(np.arange(m), known())
    assert set(np.asarray(select(s, N - m, stream("all"))).tolist()) == set(s.unlabelled.tolist())


every_sampler = pytest.mark.parametrize("select", [v.select for v in SAMPLERS.values()], ids=SAMPLERS)


@every_sampler
@pytest.mark.parametrize("distinct", [1, 10])
def test_samplers_and_images_that_are_alike(select, distinct):
    "Every image several times, or all images the same."
    views = {k: v[np.arange(N) % distinct] for k, v in known().items()}
    for k in (1, 12, N - 3): assert len(set(np.asarray(select(state(np.arange(3), views), k, stream("alike", k))).tolist())) == k


@every_sampler
@pytest.mark.parametrize("view", ["loss", "features", "dynamics"])
def test_samplers_and_a_view_with_a_hole(select, view):
    "A sampler that reads the view names the first bad image; another does not notice."
    whole, broken = known(), known()
    broken[view][[5, 9]] = np.nan
    pick = lambda views: np.asarray(select(state(np.arange(0), views), 7, stream("hole"))).tolist()
    try: assert pick(broken) == pick(whole)
    except UserError as e: assert "image 5" in str(e)


@every_rule
@pytest.mark.parametrize("k", [0, -1, N + 1])
def test_budgets_that_cannot_be_spent(rule, k):
    select, m = rule
    with pytest.raises(UserError): select(state(np.arange(m), known()), k, stream("k"))


@every_rule
def test_the_state_is_left_as_it_was(rule):
    select, m = rule
    s = state(np.arange(m), known())
    before = copy.deepcopy({**s._views, "labelled": s.labelled, "unlabelled": s.unlabelled, "labels": s.labels})
    select(s, 7, stream("b"))
    after = {**s._views, "labelled": s.labelled, "unlabelled": s.unlabelled, "labels": s.labels}
    assert set(before) == set(after) and all(np.array_equal(before[k], after[k]) for k in before)


@every_rule
def test_global_randomness_is_not_used(rule):
    select, m = rule
    s = state(np.arange(m), known())
    np.random.seed(1); torch.manual_seed(1); one = select(s, 7, stream("g"))
    np.random.seed(2); torch.manual_seed(2); two = select(s, 7, stream("g"))
    assert np.array_equal(one, two)


@every_rule
def test_the_order_of_the_file_does_not_matter(rule):
    "A rule without chance permutes with the pool; one with chance keeps its frequencies."
    select, m = rule
    n, k = 12, 3
    m = min(m, 4)
    views, order = known(n, "small pool"), stream("order").permutation(n) # a pool without exact ties, which rounding would break by order
    plain, shuffled = state(np.arange(m), views), state(np.arange(m), views, order)
    ask = lambda s, names, *name: tuple(sorted(names[np.asarray(select(s, k, stream(*name)))].tolist()))
    start = time.perf_counter()
    answers = {ask(plain, np.arange(n), "chance", i) for i in range(8)} | {ask(shuffled, order, "chance", "other")}
    if len(answers) == 1: return # no chance in it, and the order did not matter
    repeats = int(np.clip(8 * 3 / (time.perf_counter() - start), 30, 300)) # about six seconds at most
    count = lambda s, names: np.bincount(np.concatenate([ask(s, names, "frequency", i, s is plain) for i in range(repeats)]), minlength=n) / repeats
    a, b = count(plain, np.arange(n)), count(shuffled, order)
    assert abs(a - b).max() < 5 * (2 * .25 / repeats) ** .5, (a, b)


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
    trained = {p.data_ptr() for t in fit.terms for m in vars(t).values() if isinstance(m, torch.nn.Module) for p in m.parameters() if p.requires_grad}
    assert trained <= {w.data_ptr() for t in fit.terms for w in t.weights()}, "a head that is not kept with its network's weights"
