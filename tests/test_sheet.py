"The contact sheet as a browser, a parser and a reader with weak eyes meet it."
import functools
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from initpools.choose.sheet import STYLE, blank, contact_sheet, coverage_by_budget, page, sheet_of, sheet_png, sizes
from initpools.core import stream
from initpools.data.files import Files

HANDLERS = {"onload", "onerror", "onclick", "onmouseover", "onfocus"}
VOID = {"meta", "img", "wbr", "br", "link", "input"}
NAMES = ["line\nbreak.png", "<script>alert(1)</script>.png", 'a" onerror="alert(1).png', "&amp;.png", "😀.png",
         os.fsdecode(b"latin-\xe9.png"), "\u202eright to left.png", "it's $5.png", "javascript:void(0).png", "-rf.png",
         "http://elsewhere.example/a.png", "]]><!--.png", "{x}$title.png", " space .png", "tab\t.png"]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COUNT = """<script>
const images = [...document.images], broken = images.filter(i => !(i.complete && i.naturalWidth > 0))
document.documentElement.dataset.counted = `${images.length} images, ${broken.length} broken`
document.documentElement.dataset.wide = document.documentElement.scrollWidth > innerWidth
document.documentElement.dataset.fetched = performance.getEntriesByType("resource")
  .filter(e => !e.name.startsWith("data:")).length
</script>"""


def table(names, **columns):
    return pd.DataFrame(dict(rank=range(1, 1 + len(names)), path=pd.Series(names, dtype=object), **columns))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    "A folder of odd names, one of them vanished, and the sheet of its second round."
    root = tmp_path_factory.mktemp("photographs")
    names = [*NAMES, *(f"plain {i:02}.png" for i in range(40))]
    for i, name in enumerate(names):
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stream("photo", i).integers(0, 256, (30 + i, 50, 3), dtype=np.uint8)).save(root/name, "PNG")
    (root/NAMES[4]).unlink()
    x = stream("features").normal(size=(len(names), 20)).astype(np.float32)
    command = ["initpools", "choose", "<b>photos & more</b>/", "-o", "round3/"]
    rows = table(NAMES, group=pd.Series([" | ".join(NAMES)] * 15, dtype=object), rule=["<i>"] * 8 + ["b"] * 7)
    return sheet_of(rows, x, Files(root, tuple(names)), before=range(40, 45), folder="<u>&\ud800", round=2,
                    base="../photographs", labelled={"<b>cat</b>": 3, "dog": 2}, notes=["a < b & c"],
                    next_command=command)


class Page(HTMLParser):
    "What a page holds; a tag that is closed in the wrong order is an error."
    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.ids, self.words = [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID: self.open.append(tag)

    def handle_startendtag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def handle_endtag(self, tag): assert self.open and self.open.pop() == tag, tag
    def handle_data(self, data): self.words.append(data)
    def all(self, tag): return [attrs for t, attrs in self.tags if t == tag]


def test_a_page_is_well_formed_and_loads_nothing(hostile):
    text = page(hostile)
    text.encode("utf-8")
    found = Page(text)
    assert len(found.ids) == len(set(found.ids))
    assert not {t for t, _ in found.tags} & {"link", "iframe", "object", "embed", "base", "video", "u"}
    assert all(a["src"].startswith("data:image/jpeg;base64,") and a["alt"].strip() for a in found.all("img"))
    links = [a["href"] for a in found.all("a")]
    assert links and not [h for h in links if re.match(r"\s*(//|[a-z]+:)", h, re.I)]
    assert {h[1:] for h in links if h.startswith("#")} <= set(found.ids)
    assert not re.search(r"url\(|@import|@font-face", STYLE)
    policy = next(a["content"] for a in found.all("meta") if "http-equiv" in a)
    assert "default-src 'none'" in policy and "unsafe-inline'; script" in policy
    assert len(found.all("script")) == 1 and not {k for _, a in found.tags for k in a} & HANDLERS
    assert len(text.encode()) < 1e6


def test_names_are_read_as_they_are_meant(hostile):
    found = Page(page(hostile))
    words = "".join(found.words)
    for name in ("<script>alert(1)</script>.png", 'a" onerror="alert(1).png', "&amp;.png", "😀.png", "{x}$title.png",
                 "http://elsewhere.example", "by the rule b", "line\\nbreak.png", "latin-\\udce9.png",
                 "<b>cat</b>", "a < b & c"):
        assert name in words, name
    assert "'<b>photos & more</b>/'" in words and "by the rule <i>" not in words
    assert "http://elsewhere.example/a.png" in [a.get("title") for a in found.all("p")]
    alts = [a["alt"] for a in found.all("img")]
    assert sum("cannot be read any more" in a for a in alts) == 1 and "😀" in next(a for a in alts if "any more" in a)


def test_photographs_lead_to_their_files(hostile, tmp_path):
    from urllib.parse import unquote_to_bytes
    found = Page(page(hostile))
    links = [os.fsdecode(unquote_to_bytes(a["href"])) for a in found.all("a") if a["href"].startswith("..")]
    assert links == [f"../photographs/{n}" for n in NAMES if n != NAMES[4]]


@functools.cache
def light(colour):
    "Relative luminance, by WCAG 2.2."
    parts = [int(c * 2 if len(colour) == 4 else c, 16) / 255
             for c in (colour[1:] if len(colour) == 4 else re.findall("..", colour[1:]))]
    r, g, b = [p / 12.92 if p <= .04045 else ((p + .055) / 1.055)**2.4 for p in parts]
    return .2126 * r + .7152 * g + .0722 * b


def contrast(a, b):
    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + .05) / (low + .05)


def test_letters_stand_out_in_light_dark_and_print():
    assert contrast("#fff", "#000") == pytest.approx(21)
    palettes = re.findall(r":root\{(.*?)\}", STYLE, re.S)
    assert len(palettes) == 3
    for palette in palettes:
        colour = dict(re.findall(r"--(\w+):(#\w+)", palette))
        for ground in ("paper", "tile"):
            for ink in ("ink", "soft", "accent"): assert contrast(colour[ink], colour[ground]) >= 4.5, (palette, ink)
        assert 1.5 < contrast(colour["pale"], colour["paper"]) < .7 * contrast(colour["accent"], colour["paper"])


def browse(file, *options):
    "The document as a browser without a network leaves it."
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
                           "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={file.parent/'profile'}",
                           *options, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "</html>" in done.stdout, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(not BROWSER, reason="no Chromium here: that a browser shows every picture is not looked at")
def test_a_browser_shows_every_picture(hostile, tmp_path):
    file = contact_sheet(tmp_path, hostile)
    text = file.read_text()
    assert ">Copy</button>" in browse(file)  # the policy lets the page's own script through
    pictures = len(Page(text).all("img"))
    counted = tmp_path/"counted.html"
    for broken, changed in ((0, text), (1, text.replace("base64,/9j/", "base64,AAAA", 1))):
        changed = re.sub(r"<meta http-equiv.*?>", "", changed, flags=re.S) # it would stop the script that counts
        counted.write_text(changed.replace("</body>", COUNT + "</body>"))
        for width in (500, 1280):
            seen = browse(counted, f"--window-size={width},900")
            assert f'data-counted="{pictures} images, {broken} broken"' in seen, re.findall("<html.*?>", seen)
            assert 'data-wide="false"' in seen and 'data-fetched="0"' in seen, re.findall("<html.*?>", seen)


@pytest.mark.skipif(not BROWSER, reason="no Chromium here: that nothing of a page runs is not looked at")
def test_a_browser_runs_no_script_but_ours(hostile, tmp_path):
    file = contact_sheet(tmp_path, hostile)
    file.write_text(file.read_text().replace("</main>", "<script>document.title = 'run'</script></main>"))
    assert "<title>Round 2" in browse(file)


def test_the_same_round_gives_the_same_bytes(hostile, tmp_path):
    a, b = (contact_sheet(tmp_path/n, hostile).read_bytes() for n in "ab")
    assert a == b and sheet_png(tmp_path/"a", hostile).read_bytes() == sheet_png(tmp_path/"b", hostile).read_bytes()


def test_pages_stay_small():
    for k, most in ((1, .1), (100, 5), (150, 5), (400, 7), (1000, 9)):
        side, m, small = sizes(k)
        assert k * 4 / 3 * (1000 + side**2 / 3 + m * (1000 + small**2 / 3)) < most * 1e6
    assert len(blank()) < 4000


def test_k_means_covers_clumps_that_chance_misses():
    "A hundred clumps of a hundred: centres reach most of them, as many random photographs two thirds."
    centres = stream("clumps").normal(size=(100, 64))
    x = np.repeat(centres, 100, 0) + .05 * stream("spread").normal(size=(10_000, 64))
    found = coverage_by_budget(x, [100])
    assert found.chosen[0] < .75 * found.random[0]
