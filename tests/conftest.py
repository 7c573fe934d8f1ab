"Every test computes with one thread, as the workers of a grid do, and outside nbdev's own test mode."
import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"
for name in ("IN_TEST", "INITPOOLS_DATA"): os.environ.pop(name, None)

import pytest
import torch

torch.set_num_threads(1)
# begun in the background it is ignored, in all that tests begin too
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    "An empty data root."
    monkeypatch.setenv("INITPOOLS_DATA", str(tmp_path/"data"))
    return tmp_path/"data"


@pytest.fixture(scope="session", autouse=True)
def warm():
    "Pages that tests execute begin warm; in test_figures, each template's first page begins cold, and gives the same."
    from initpools.report.gallery import NEEDED
    from initpools.report.kernels import warm_kernels
    with warm_kernels(*NEEDED): yield
