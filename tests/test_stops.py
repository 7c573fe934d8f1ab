"Whoever stops a figure or a test, and however: no process is left, and what had been there before is as it was."
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from initpools.core import UserError
from initpools.report.figure import run_figure, templates

ROOT = Path(__file__).resolve().parents[1]
FIGURE = """
import sys
from contextlib import nullcontext
from initpools.report.figure import run_figure
from initpools.report.kernels import warm_kernels
with warm_kernels("initpools.lab.execute") if sys.argv[2] == "warm" else nullcontext():
    params = dict(name="stopped", samplers=["random"], seeds=60, anew=True, executor=sys.argv[3], workers=2)
    run_figure("learning_curves", params, sys.argv[1])
"""
COMMAND = """
import sys
from initpools.cli import main
sys.argv = ["initpools", "figure", "learning_curves", "-o", sys.argv[1], "-p", "name=stopped",
            "-p", "samplers=[random]", "-p", "seeds=60",
            "-p", "anew=true", "-p", f"executor={sys.argv[3]}", "-p", "workers=2"]
main()
"""


def marked(mark):
    "The processes that were started under a mark, workers and kernels too."
    found = []
    for p in psutil.process_iter():
        try:
            if p.status() != psutil.STATUS_ZOMBIE and p.environ().get("INITPOOLS_MARK") == mark: found.append(p)
        except psutil.Error: continue
    return found


def wait_for(condition, seconds):
    "Whether a condition comes true in time."
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end: return False
        time.sleep(.1)
    return True


def begin(folder, kernels, executor, code=FIGURE):
    "A figure under way: its process, and the mark of all that it starts; rounds have been stored."
    mark = uuid.uuid4().hex
    env = {**os.environ, "INITPOOLS_MARK": mark, "INITPOOLS_DATA": str(folder/"data"), "PYTHONPATH": str(ROOT)}
    p = subprocess.Popen([sys.executable, "-c", code, str(folder/"page.ipynb"), kernels, executor], env=env, cwd=folder,
                         start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not wait_for(lambda: list((folder/"data"/"store").glob("*.jsonl")) or p.poll() is not None, 120): p.kill()
    assert p.poll() is None, p.stdout.read()
    assert len(marked(mark)) >= 2
    return p, mark


@pytest.mark.parametrize("kernels, executor, how",
                         [("cold", "processes", signal.SIGTERM), ("warm", "local", signal.SIGKILL)])
def test_a_figure_that_is_ended_leaves_no_kernel(kernels, executor, how, tmp_path):
    p, mark = begin(tmp_path, kernels, executor)
    p.send_signal(how)
    p.wait(20)
    def left(): return [q for q in marked(mark)]
    try: assert wait_for(lambda: not left(), 20), [q.cmdline() for q in left()]
    finally:
        for q in left(): q.kill()


def test_ctrl_c_is_one_sentence_and_removes_what_was_begun(tmp_path):
    (tmp_path/"page.ipynb").write_text("the page before")
    p, mark = begin(tmp_path, "cold", "local", COMMAND)
    os.killpg(p.pid, signal.SIGINT) # as a terminal does: to all of the group
    said = p.communicate(timeout=60)[0]
    assert (p.returncode == 130 and said.strip().endswith("stopped; call again to go on")
            and "Traceback" not in said), said
    assert len([line for line in said.splitlines() if "rounds:" not in line]) <= 2, said
    assert wait_for(lambda: not marked(mark), 20)
    assert (sorted(f.name for f in tmp_path.iterdir()) == ["data", "page.ipynb"]
            and (tmp_path/"page.ipynb").read_text() == "the page before")


def test_run_all_twice_in_one_kernel(tmp_path):
    "A reader's own cells and names do not count as parameters; papermill's do, each time."
    cells = nbformat.read(templates()["learning_curves"], 4).cells
    top = [c for c in cells if c.cell_type == "code"][:2]
    def own(text): return nbformat.v4.new_code_cell(text)
    once = [top[0], own("mine = 3"), top[1], own("runs = [1]; print('ran')")]
    book = nbformat.v4.new_notebook(cells=[nbformat.from_dict(dict(c, id=f"c{i}")) for i, c in enumerate(once * 2)])
    NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(ROOT/"nbs"/"figures")}}).execute()
    assert [o.text for c in book.cells for o in c.get("outputs", [])] == ["ran\n"] * 2


@pytest.mark.parametrize("params, out, says", [
    (dict(name="../../evil"), None, "is none"), (dict(name="a/b"), None, "is none"), ({}, "x.txt", "ends in .ipynb"),
    ({}, "", "ends in .ipynb"), ({}, "/sys/page.ipynb", "cannot be written")])
def test_places_that_a_figure_cannot_go_to(params, out, says, tmp_path):
    before = {f: f.stat().st_mtime_ns for f in (ROOT/"figures").iterdir()}
    out = None if out is None else tmp_path/out
    with pytest.raises(UserError, match=says): run_figure("table_1", params, out)
    assert (before == {f: f.stat().st_mtime_ns for f in (ROOT/"figures").iterdir()}
            and not list(tmp_path.parent.glob("evil*")))


def test_pictures_go_where_the_notebook_goes(tmp_path):
    before = {f.name for f in (ROOT/"figures").iterdir()}
    run_figure("table_1", dict(name="elsewhere"), tmp_path/"deep"/"page.ipynb")
    assert ({f.name for f in (tmp_path/"deep").iterdir()} == {"page.ipynb", "page.json",
                                                              *(f"elsewhere.{e}" for e in ("svg", "png", "csv"))})
    assert before == {f.name for f in (ROOT/"figures").iterdir()}
