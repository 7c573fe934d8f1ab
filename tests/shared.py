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
            for end in ("svg", "png", "csv"): (FIGURES/f"{name}.{end}").rename(folder/f"{turn}.{end}")
    finally:
        for f in FIGURES.glob(f"{name}.*"): f.unlink()
    for end in ("svg", "png", "csv"): assert (folder/f"one.{end}").read_bytes() == (folder/f"two.{end}").read_bytes(), end
    return [(folder/f"{turn}.ipynb").read_text() for turn in ("one", "two")]
