"What a chapter shows is what it would show today: quick chapters are executed again, their texts compared."
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from shared import cold_kernels

NBS = Path(__file__).resolve().parents[1]/"nbs"
QUICK = ["00_core", "05_state", "09_subsets", "25_geometry", "50_ranked", "51_clustered", "61_uncertainty",
         "63_committee", "80_grid", "90_statistics", "94_keep", "96_cli", "97_gallery"]
VARIES = re.compile(r"""
    \d[\d.,]*\s?(?:s|ms|us|µs|ns|seconds|minutes|MB|GB|GFLOP/s|images/s|rounds/s|times)\b # what a machine takes
  | (?<=measured\ on\ )[^:\n]+                                                           # a machine's name
  | 0x[0-9a-f]+ | (?<=\ )at\ \S+Z | (?:/\S+)+/ | tmp\w+ | pid\s\d+                         # addresses, moments, folders
""", re.VERBOSE)


def told(cell):
    "The texts under a cell, without what differs from one time to the next."
    texts = [o.get("text", o.get("data", {}).get("text/plain", "")) for o in cell.get("outputs", [])]
    return VARIES.sub("#", "".join("".join(t) for t in texts)).split()


def is_run(cell):
    "Whether a cell belongs to the chapter, not to its making."
    return (cell.cell_type == "code" and "nbdev_export()" not in cell.source
            and not re.match(r"#\|\s*(slow|notest|gpu)", cell.source))


@pytest.mark.parametrize("name", QUICK)
def test_saved_outputs_are_fresh(name):
    saved = nbformat.read(NBS/f"{name}.ipynb", 4)
    cells = [c for c in saved.cells if is_run(c)]
    before = [told(c) for c in cells]
    saved.cells = cells
    # warm ones have no inline pictures
    with cold_kernels():
        NotebookClient(saved, kernel_name="python3", resources={"metadata": {"path": str(NBS)}}).execute()
    stale = [(c.source.split("\n")[0], old, now) for c, old, now in zip(cells, before, map(told, cells)) if old != now]
    assert not stale, f"run make outputs NB={name}.ipynb: {stale}"


def test_a_stale_text_is_seen():
    "Numbers that count something are compared; seconds, addresses and folders are not."
    def cell(text): return dict(outputs=[dict(text=text)])
    assert told(cell("230 runs in 1.5 s at <f 0x7f>")) == told(cell("230 runs in 31 s at <f 0x8e>"))
    assert told(cell("230 runs in 1.5 s")) != told(cell("383 runs in 1.5 s"))
