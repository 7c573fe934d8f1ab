"The built site in a headless browser: `make site-test` runs this, and fails where there is no browser."
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from urllib.parse import urlsplit
import json

import pytest

if not os.environ.get("INITPOOLS_SITE"):
    pytest.skip("make site-test runs this on the built site", allow_module_level=True)
SITE = Path(os.environ["INITPOOLS_SITE"]).resolve()
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if "_static" not in p.parts)


class Quiet(SimpleHTTPRequestHandler):
    "A server that says nothing."
    def log_message(self, *args): pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    "Debian's chromium; without one this is an error, not a pass."
    from selenium import webdriver
    program, driver = which("chromium"), which("chromedriver")
    assert program and driver, "install chromium and chromium-driver: as root, make site-test does"
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--disable-background-networking", "--disable-component-update"): options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", dict(browser="ALL", performance="ALL"))
    options.page_load_strategy = "normal"
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


def width(browser, pixels):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            dict(width=pixels, height=800, deviceScaleFactor=1, mobile=pixels < 600))


def requested(browser):
    "The addresses that the browser has asked for since the last look."
    said = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in said if m["method"] == "Network.requestWillBeSent"]


def complaints(browser):
    return [e["message"] for e in browser.get_log("browser") if e["level"] in ("SEVERE", "ERROR", "WARNING")]


def is_local(url, address): return url.startswith((address, "data:", "blob:", "about:")) or not urlsplit(url).netloc


def test_every_page_opens_quietly_alone_and_fits_a_telephone(browser, address):
    "No error on the console, no request that leaves the machine, nothing wider than 375 pixels."
    width(browser, 375)
    loud, outside = {}, {}
    wide = {}
    for page in PAGES:
        browser.get(f"{address}/{page}")
        if found := complaints(browser): loud[page] = found
        if found := [u for u in requested(browser) if not is_local(u, address)]: outside[page] = found
        over = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        if over > 0: wide[page] = over
    assert len(PAGES) > 200
    assert not loud, loud
    assert not outside, outside
    assert not wide, wide


def test_a_loud_page_is_heard(browser, address, tmp_path):
    "What the test above looks for would be found."
    browser.get("data:text/html,<script>console.error('oh')</script><img src='http://127.0.0.1:9/x.png'>"
                "<div style='width:3000px'>wide</div>")
    assert complaints(browser) and [u for u in requested(browser) if not is_local(u, address)]
    assert browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth") > 0


def test_search_finds_badge(browser, address):
    from selenium.webdriver.support.ui import WebDriverWait
    width(browser, 1200)
    browser.get(f"{address}/search.html?q=BADGE")
    def results(b): return [a.get_attribute("href") for a in b.find_elements("css selector", "#search-results li a")]
    WebDriverWait(browser, 20).until(lambda b: len(results(b)) > 5)
    found = " ".join(results(browser))
    assert "chapters/65_gradient.html" in found and "rules_gradient.html" in found
    assert not complaints(browser)


def test_the_table_of_rules_sorts_and_searches(browser, address):
    width(browser, 1400)
    browser.get(f"{address}/rules.html")
    shown = "[...document.querySelectorAll('.rules tbody tr:not([hidden])')]"
    def names(): return browser.execute_script(f"return {shown}.map(r => r.querySelector('code').textContent)")
    everything = names()
    field = browser.find_element("css selector", ".rule-search input")
    field.send_keys("gradient embeddings")
    assert "badge" in names() and len(names()) < len(everything)
    browser.execute_script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", field)
    assert names() == everything
    head = browser.find_elements("css selector", ".rules th")[-1] # numbers: the largest first, unknown ones last
    head.click()
    column = browser.execute_script(f"return {shown}.map(r => r.cells[9].textContent)")
    known = [float(c.split()[0].replace("−", "-")) for c in column if c.strip() != "—"]
    assert len(known) > 40 and known == sorted(known, reverse=True) and column[-1].strip() == "—"
    browser.find_elements("css selector", ".rules th")[0].click()
    assert names() == sorted(names())


def test_code_folds(browser, address):
    browser.get(f"{address}/chapters/65_gradient.html")
    def opened():
        return browser.execute_script("return document.querySelectorAll('.tag_exported details[open]').length")
    assert opened() > 5
    browser.find_element("css selector", ".fold-all").click()
    assert opened() == 0


def test_formulas_are_drawn_and_dark_is_dark(browser, address):
    browser.get(f"{address}/chapters/65_gradient.html")
    tall = browser.execute_script("return [...document.querySelectorAll('math')].map(m => m.clientHeight || "
                                  "m.getBoundingClientRect().height)")
    assert len(tall) > 10 and max(tall) > 20 and min(tall) > 5
    def ground(): return browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.execute_script("document.documentElement.dataset.theme = 'light'")
    light = ground()
    browser.execute_script("document.documentElement.dataset.theme = 'dark'")
    assert ground() != light
