"What several test files share."
import os
from contextlib import contextmanager
from pathlib import Path

from jupyter_client.provisioning import KernelProvisionerFactory

from initpools.core import hold
from initpools.report.figure import run_figure


def same_twice(template, params, folder):
    "Execute a template twice; its pictures and numbers have to be the same bytes. The two notebooks, as text."
    for turn in ("one", "two"): run_figure(template, params, folder/turn/"page.ipynb")
    same_files(folder, "one", "two")
    return [(folder/turn/"page.ipynb").read_text() for turn in ("one", "two")]


def same_files(folder, one, two):
    "Two turns have drawn the same files, byte for byte."
    first, second = (drawn(folder/turn) for turn in (one, two))
    assert [f.name for f in first] == [f.name for f in second] and len(first) >= 3
    for a, b in zip(first, second): assert a.read_bytes() == b.read_bytes(), a.name


def drawn(folder):
    "The pictures and numbers beside an executed notebook."
    return sorted(f for f in folder.iterdir() if f.suffix in (".svg", ".png", ".csv"))


def page_facts(page, **more):
    "The facts of a small page of learning curves."
    facts = dict(page=page, template="learning_curves", title=f"About {page}", subtitle="two seeds",
                 parameters=dict(name=page), files=[],
                 notes=["50 images"], rounds=None, cells=[], machines=[], timed=False, verdicts=[])
    return facts | more


@contextmanager
def cold_kernels():
    "Within, kernels start as by a figure's own command, with nothing imported."
    factory = KernelProvisionerFactory.instance()
    before, factory.default_provisioner_name = factory.default_provisioner_name, "local-provisioner"
    try: yield
    finally: factory.default_provisioner_name = before


def made_once(factory, name, make):
    "A folder that whichever test process comes first makes for all of them."
    base = factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(home)/name
    with hold(home/f".{name}.lock"):
        if not (folder/"whole").exists():
            make(folder)
            (folder/"whole").touch()
    return folder
