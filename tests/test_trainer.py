"The trainer's room: values in place of parallel lists, few parameters, and the names that the book finds there."
import importlib
import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from initpools import trainer
from initpools.data.images import load
from initpools.trainer import RECIPES, Compute, Training, fit_many

ROOM = [importlib.import_module(f"initpools.trainer.{name}") for name in ("recipes", "loop", "weights", "inference")]
NAMES = """CIFAR RECIPES KEEP Recipe released seeded number_format autocast epoch_batches epochs_for
           make_optimizer Cohort fold_norms Fit Last Best Average fit_many embed predict accuracies evaluate
           mc_dropout""".split()


def state(fit): return torch.cat([v.flatten().double() for v in fit.net.state_dict().values()])


def test_all_names_are_found_in_one_place():
    assert [name for name in NAMES if not hasattr(trainer, name)] == []


def test_nothing_takes_more_than_five_parameters():
    "What a training is made of travels as one value, so nothing needs a long list."
    taken = {}
    for module in [*ROOM, trainer]:
        for name, f in inspect.getmembers(module, inspect.isfunction):
            if f.__module__ == module.__name__:
                taken[f"{module.__name__}.{name}"] = len(inspect.signature(f).parameters)
    assert len(taken) > 20 and max(taken.values()) <= 5, taken


def test_one_call_for_trainings_of_any_kind():
    "Recipes, numbers of labels, splits, starts, dropout and company: none of it changes another's network."
    digits, short = load("digits"), replace(RECIPES["digits"], epochs=4, min_steps=0)
    first, = fit_many([Training(short, np.arange(40), ("first",))], digits, Compute("cpu"))
    kinds = [
        Training(short, np.arange(60), ("plain",)),
        Training(short, np.arange(60), ("warm",), start=first.net.state_dict()),
        Training(replace(short, keep="best"), np.arange(50), ("best",), val=np.arange(1000, 1100), dropout=.5),
        Training(replace(short, model="mlp", keep="average"), np.arange(33), ("mlp",)),
        Training(replace(short, terms=("fixmatch_quick",)), np.arange(60), ("terms",), pool=np.arange(300)),
    ]
    together = fit_many(kinds, digits, Compute("cpu"))
    for training, fit in zip(kinds, together):
        alone, = fit_many([training], digits, Compute("cpu"))
        assert torch.equal(state(fit), state(alone)), training.name
        assert fit.losses == alone.losses and fit.checks == alone.checks
    assert [epoch for epoch, _ in together[2].checks] == [2, 4]


def test_a_value_cannot_be_changed_under_way():
    with pytest.raises(AttributeError): Compute("cpu").device = "cuda"
    with pytest.raises(AttributeError): Training(RECIPES["digits"], [0], ("x",)).labelled = [1]
    with pytest.raises(TypeError): Training(RECIPES["digits"], [0], ("x",), [1, 2])  # the rest goes by name
