"What several test files share."
from pathlib import Path

from initpools.figure import run_figure

FIGURES = Path(__file__).resolve().parents[1]/"figures"


def same_twice(template, params, folder):
    "Execute a template twice; its pictures and numbers have to be the same bytes. The two notebooks, as text."
    name = params["name"]
    try:
        for turn in ("one", "two"):
            run_figure(template, params, folder/f"{turn}.ipynb")
            (folder/turn).mkdir()
            for file in drawn(name): file.rename(folder/turn/file.name)
    finally:
        for file in drawn(name): file.unlink()
    same_files(folder, "one", "two")
    return [(folder/f"{turn}.ipynb").read_text() for turn in ("one", "two")]


def same_files(folder, one, two):
    "Two turns have drawn the same files, byte for byte."
    names = sorted(f.name for f in (folder/one).iterdir())
    assert names == sorted(f.name for f in (folder/two).iterdir()) and len(names) >= 3
    for n in names: assert (folder/one/n).read_bytes() == (folder/two/n).read_bytes(), n


def drawn(name):
    "What a figure of this name has left under figures/; tests run side by side, so no name may begin with another's."
    return [f for end in ("svg", "png", "csv") for f in FIGURES.glob(f"{name}*.{end}")]
