"The site: what it is made from, and where `make site` has built it, links, anchors, and no request to a network."
import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from shared import made_once

from initpools.report.site import PARTS, chapters, comments_in, exported, make_sources, modules, parameters
from initpools.report.site import proposed_in, reference, returned, section, with_sections

ROOT = Path(__file__).resolve().parents[1]
MODULES = [f for fs in modules(ROOT/"initpools").values() for f in fs]
PAGES = ROOT/"nbs"/"site"


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    "What Sphinx reads, once for all test processes."
    return made_once(tmp_path_factory, "site_sources", lambda folder: make_sources(folder, ROOT))


@pytest.fixture(scope="session")
def site(tmp_path_factory, sources):
    "The built pages: those of INITPOOLS_SITE, else built here, where Sphinx is installed."
    if given := os.environ.get("INITPOOLS_SITE"): return Path(given).resolve()
    if not importlib.util.find_spec("myst_nb"): pytest.skip("make site installs Sphinx; make site-test runs this")
    def build(folder):
        subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", PAGES, sources, folder],
                       check=True, env=os.environ | dict(PYDEVD_DISABLE_FILE_VALIDATION="1"))
    return made_once(tmp_path_factory, "site_pages", build)


def test_every_chapter_has_one_part():
    placed = [f.name for fs in chapters(ROOT).values() for f in fs]
    assert sorted(placed) == sorted(f.name for f in (ROOT/"nbs").glob("[0-9]*.ipynb"))
    ends = [(first, last) for _, first, last, _ in PARTS.values()]
    assert all(a[1] + 1 == b[0] for a, b in zip(ends, ends[1:])), "a number between two parts has no place"


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(ROOT/"initpools").as_posix())
def test_every_public_name_says_what_it_is(file):
    "A function has one line that says what it does, and each parameter a comment; a class has its line too."
    source = file.read_text()
    comments, wrong = comments_in(source), []
    given = exported(source)
    helps = {n for n, d in given.items() if isinstance(d, ast.Assign) and "help=" in ast.unparse(d)}
    for name, node in given.items():
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        if not ast.get_docstring(node): wrong.append(f"{name} has no docstring")
        if isinstance(node, ast.FunctionDef):
            found = parameters(node, comments, dict.fromkeys(helps, "told by its option"))
            wrong += [f"{name}: say in a comment what {p} is" for p, says in found.items() if not says]
    assert not wrong, wrong


def test_a_name_that_says_nothing_is_seen():
    source = "__all__ = ['f', 'g']\ndef f(\n    a, # first\n    b,\n): return a\ndef g(x): return x # one\n"
    nodes, comments = exported(source), comments_in(source)
    assert parameters(nodes["f"], comments) == dict(a="first", b="") and parameters(nodes["g"], comments) == dict(x="")
    assert returned(nodes["f"], comments) == ""


def test_every_exported_name_is_in_the_reference():
    pages = "\n".join(reference(ROOT, {}).values())
    entries = set(re.findall(r"\{py:\w+\} (\w+)", pages))
    wanted = set()
    for f in (ROOT/"initpools").rglob("*.py"):
        for node in ast.parse(f.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                wanted |= set(ast.literal_eval(node.value))
    assert len(wanted) > 1000 and not wanted - entries, wanted - entries


def test_papers_name_rules_that_exist():
    "Keywords of refs.bib are rules; a rule without a paper is the book's own, or a reference."
    from initpools.rules.table import RULES
    named = proposed_in((PAGES/"refs.bib").read_text())
    assert not set(named) - set(RULES)
    assert {n for n in set(RULES) - set(named) if not n.startswith("random")} <= {"uniform"}


def test_pages_of_the_site_take_their_numbers_from_the_index():
    "No number about accuracy is typed into a page of nbs/site."
    typed = {f.name: found for f in PAGES.rglob("*.md") if (found := re.findall(r"[+-]\d+\.\d", f.read_text()))}
    assert not typed, typed
    index = with_sections((PAGES/"index.md").read_text(), ROOT, ())
    assert section(ROOT/"nbs"/"index.ipynb", "The answer so far")[:200].split("](")[0] in index
    assert "<!-- index" not in index


def test_sources_hold_no_directive_and_keep_outputs(sources):
    ours = sorted((ROOT/"nbs").glob("[0-9]*.ipynb"))
    assert {f.name for f in ours} == {f.name for f in (sources/"chapters").iterdir()}
    for f in ours:
        cells = json.loads((sources/"chapters"/f.name).read_text())["cells"]
        assert not [c for c in cells if re.search(r"^#\|", "".join(c["source"]), re.M)], f.name
        assert any(c.get("outputs") for c in cells), f.name
    pictures = {f.stem for f in (ROOT/"figures").glob("*.png")}
    assert pictures == {f.stem for f in (sources/"thumbnails").iterdir()}


def refers(page):
    "The addresses that a page names, and the places that it offers."
    text = page.read_text()
    tags = re.findall(r"<[a-zA-Z][^>]*>", re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S))
    found = [unescape(a) for tag in tags for a in re.findall(r'\s(?:href|src)="([^"]*)"', tag)]
    return found, {unescape(i) for tag in tags for i in re.findall(r'\s(?:id|name)="([^"]+)"', tag)}


def broken(site):
    "Links of all pages that lead nowhere."
    pages = {p.resolve(): refers(p) for p in site.rglob("*.html") if "_static" not in p.parts}
    wrong = []
    for page, (addresses, _) in pages.items():
        for address in addresses:
            at = urlsplit(address)
            if at.scheme or address.startswith("//"): continue
            target = (page.parent/unquote(at.path)).resolve() if at.path else page
            if target.is_dir(): target = target/"index.html"
            here = page.relative_to(site.resolve())
            if not target.exists(): wrong.append(f"{here}: {address} does not exist")
            elif at.fragment and target in pages and unquote(at.fragment) not in pages[target][1] | {"top"}:
                wrong.append(f"{here}: {address} has no such place")
    return wrong


def test_links_and_anchors_hold(site):
    assert len(list(site.rglob("*.html"))) > 200
    wrong = broken(site)
    assert not wrong, wrong[:20]


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path/"a.html").write_text('<a href="b.html#here">b</a><a href="c.html">c</a><a href="b.html#there">b</a>')
    (tmp_path/"b.html").write_text('<p id="here">so <code>href="no.html"</code></p>')
    assert broken(tmp_path) == ["a.html: c.html does not exist", "a.html: b.html#there has no such place"]


def test_pages_load_nothing_from_elsewhere(site):
    "Links may lead out; scripts, styles, pictures and fonts may not."
    outside, loads = re.compile(r"^(?:https?:)?//"), []
    for page in site.rglob("*.html"):
        text = page.read_text()
        loads += [(page.name, a) for a in re.findall(r'<(?:script|img|iframe|source|video)\b[^>]*\ssrc="([^"]*)"', text)
                  if outside.match(a)]
        loads += [(page.name, tag) for tag in re.findall(r"<link\b[^>]*>", text)
                  if re.search(r'href="(?:https?:)?//', tag) and 'rel="canonical"' not in tag]
    for style in site.rglob("*.css"):
        asked = re.findall(r"(?:url\(|@import\s)['\"]?((?:https?:)?//[^'\")]+)", style.read_text())
        loads += [(style.name, a) for a in asked]
    assert not loads, loads[:10]


def test_formulas_are_made_when_the_site_is_built(site):
    text = (site/"chapters"/"65_gradient.html").read_text()
    assert text.count("<math ") > 10 and not re.search(r"<script[^>]*(mathjax|katex)", text, re.I)
