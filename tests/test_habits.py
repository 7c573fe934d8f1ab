"What a project promises beside its code: one version, a citation, hooks, types, and a wheel that carries the book."
import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def settings():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT/"settings.ini")
    return config["DEFAULT"]


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    return [f for f in listed if f and (ROOT/f).exists()]


def test_the_version_stands_in_one_place():
    "settings.ini; nbdev writes it into the package, and whoever else names it agrees."
    import initpools
    version = settings()["version"]
    assert initpools.__version__ == version
    for file in ("pyproject.toml", "setup.py", "Makefile"): assert f'"{version}"' not in (ROOT/file).read_text(), file
    assert yaml.safe_load((ROOT/"CITATION.cff").read_text())["version"] == version
    first = re.search(r"^## (.+)$", (ROOT/"CHANGELOG.md").read_text(), re.M)[1]
    assert first in (version, "Unreleased"), "the newest entry of CHANGELOG.md"
    assert f"\n## {version}\n" in (ROOT/"CHANGELOG.md").read_text()


def test_the_citation_is_whole():
    "What cff 1.2.0 demands, the book's licence and title, and both papers."
    cff = yaml.safe_load((ROOT/"CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cff.keys() and cff["cff-version"] == "1.2.0"
    assert cff["authors"] == [{"name": settings()["author"]}] and cff["license"] == "Apache-2.0"
    urls = [r["url"] for r in cff["references"]]
    assert urls == ["https://arxiv.org/abs/2011.14696", "https://arxiv.org/abs/2110.12033"]
    assert all(r["url"].rpartition("/")[2] in r["notes"] for r in cff["references"])
    assert all(r["title"] and r["authors"] and r["type"] == "article" for r in cff["references"])


def test_hooks_download_nothing():
    hooks = yaml.safe_load((ROOT/".pre-commit-config.yaml").read_text())["repos"]
    assert [r["repo"] for r in hooks] == ["local"]
    entries = {h["entry"].split()[0]: h for h in hooks[0]["hooks"]}
    assert set(entries) == {"nbdev_clean", "ruff"} and all(h["language"] == "system" for h in entries.values())
    assert entries["ruff"]["entry"] in (ROOT/"Makefile").read_text()


def test_the_container_runs_the_command():
    box = json.loads((ROOT/".devcontainer"/"devcontainer.json").read_text())
    assert box["postCreateCommand"] == "make figure" and "\nfigure:" in (ROOT/"Makefile").read_text()
    assert f"python:{settings()['min_python']}" in box["image"]


def test_types_and_newest_versions_are_asked_for():
    make = (ROOT/"Makefile").read_text()
    assert "\t$(BIN)/mypy\n" in make and re.search(r"^newest:", make, re.M)


def test_a_wrong_type_is_found(tmp_path):
    "The check of pyproject.toml sees a number where a text belongs, in a file beside the package."
    pytest.importorskip("mypy")
    (tmp_path/"planted.py").write_text('def f(name:str)->int:\n    return len(name)\n\nf(3)\n')
    code = "import sys; from mypy.__main__ import console_entry; console_entry()"
    options = ["--config-file", str(ROOT/"pyproject.toml"), "--cache-dir", str(tmp_path/"cache")]
    done = subprocess.run([sys.executable, "-c", code, *options, str(tmp_path/"planted.py")],
                          capture_output=True, text=True, cwd=tmp_path)
    assert '"f" has incompatible type "int"' in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", "CHANGELOG.md", "nbs/site/licences.md", "nbs/site/compute.md",
                                  "nbs/site/reproducibility.md"])
def test_links_lead_somewhere(file):
    text = (ROOT/file).read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link]
    gone = [link for link in links if not ((ROOT/file).parent/link).exists()]
    assert not gone, gone


def test_every_data_set_has_a_licence_line():
    "Of each row of DATASETS, by the name that a reader knows."
    from initpools.data.images import DATASETS
    names = {"digits": "digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "svhn": "SVHN",
             "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "tiny_imagenet": "Tiny ImageNet", "imagenet": "ImageNet",
             "imagenet_lt": "ImageNet-LT"}
    page = (ROOT/"nbs"/"site"/"licences.md").read_text()
    assert set(names) == set(DATASETS), "a new data set gets its line in licences.md and here"
    assert all(re.search(rf"^\|.*\b{re.escape(name)}\b", page, re.M) for name in names.values())


def test_compute_counts_the_published_rounds():
    "The page names as many rounds as the bundles hold; after new records it is made again."
    from initpools.lab.lines import open_bundles
    from initpools.report.compute import folders_of
    rounds = {(f, key): run.rounds for f in folders_of(ROOT/"data"/"runs") for b in open_bundles(f)
              for key, run in b.runs.items()}
    said = (ROOT/"nbs"/"site"/"compute.md").read_text()
    assert f"In all {sum(rounds.values()):,} rounds" in said, "make the page again: see the chapter What it cost"


def test_a_page_to_point_at_asks_nobody():
    page = (ROOT/"figures"/"digits_hover.html").read_text()
    assert page.count("<title>") > 100 and "<script" not in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", page) and "@import" not in page
    assert len(page) < 1_000_000


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "The package as a wheel holds it: built by setup.py from tracked files alone."
    source, lib = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("lib")
    for f in tracked():
        if not f.startswith(("figures/", "tests/", "data/unfinished/")):
            (source/f).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT/f, source/f)
    subprocess.run([sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(lib)], cwd=source, check=True,
                   capture_output=True)
    return lib


def test_a_wheel_carries_the_book(installed):
    book = installed/"initpools"/"_book"
    templates = {f.name for f in (ROOT/"nbs"/"figures").glob("*.ipynb")}
    assert {f.name for f in (book/"nbs"/"figures").glob("*.ipynb")} == templates
    assert (book/"nbs"/"figures"/"params"/"figure_5_quick.yml").exists()
    assert (book/"data"/"runs"/"digits.jsonl.xz").read_bytes() == (ROOT/"data"/"runs"/"digits.jsonl.xz").read_bytes()
    size = sum(f.stat().st_size for f in installed.rglob("*") if f.is_file())
    assert size < 20_000_000, "unpacked; a wheel should stay near ten megabytes"
    assert not [f for f in book.rglob("*") if f.name.startswith(".")]


def test_an_installed_package_finds_the_book_without_a_clone(installed, tmp_path):
    code = ("from initpools.core import repo_root, shipped; from initpools.report.figure import templates; "
            "from initpools.lab.store import Store; "
            "print(len(templates()), len(Store('runs').keys()) > 1000, shipped('nbs', 'figures').parts[-4:-2])")
    env = {**os.environ, "PYTHONPATH": str(installed)} | {"INITPOOLS_DATA": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    count = len(list((ROOT/"nbs"/"figures").glob("*.ipynb")))
    assert done.stdout.strip() == f"{count} True ('initpools', '_book')", done.stdout + done.stderr


def test_an_editable_install_has_no_second_book():
    "The copy is made for wheels; in a clone it would hide one's own changes."
    assert not (ROOT/"initpools"/"_book").exists() and not [f for f in tracked() if "_book" in f]
