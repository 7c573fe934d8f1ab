"Every test computes with one thread, as the workers of a grid do, and outside nbdev's own test mode."
import os

os.environ["OMP_NUM_THREADS"] = "1"
for name in ("IN_TEST", "INITPOOLS_DATA"): os.environ.pop(name, None)

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    "An empty data root."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    return tmp_path/"data"
