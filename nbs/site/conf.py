"Sphinx's settings. `make site` calls it on what `initpools.report.site` has prepared; no notebook is executed."
from configparser import ConfigParser
from html import escape
from pathlib import Path
from unicodedata import lookup
import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

logger = logging.getLogger(__name__)

here = Path(__file__).resolve()
home = next(p for p in here.parents if (p/"settings.ini").exists())
facts = ConfigParser(delimiters=["="])
facts.read(home/"settings.ini", encoding="utf-8")
facts = facts["DEFAULT"]

project = facts["title"]
author = facts["author"]
copyright = facts["copyright"]
version = release = facts["version"]

extensions = ["myst_nb", "sphinx_design", "sphinx_copybutton", "sphinxcontrib.bibtex"]
exclude_patterns = ["**.ipynb_checkpoints"]
templates_path = []

nb_execution_mode = "off"  # outputs are kept as they are
nb_merge_streams = True
nb_ipywidgets_js = {}  # they would come from a network
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline", "fieldlist", "deflist"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
myst_links_external_new_tab = False

bibtex_bibfiles = ["refs.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

html_theme = "pydata_sphinx_theme"
html_title = "initpools"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_favicon = "_static/mark.svg"
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}  # as the reader's machine has it
html_math_renderer = "mathml"
html_sidebars = {page: [] for page in ("index", "paths", "rules", "references", "glossary")}
html_theme_options = {
    "logo": {"image_light": "_static/mark.svg", "image_dark": "_static/mark.svg", "text": "initpools"},
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "navbar_center": ["navbar-nav"],
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button-field"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "navigation_depth": 3,
    "collapse_navigation": True,
    "show_prev_next": True,
    "back_to_top_button": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "article_header_end": [],
    "pygments_light_style": "friendly",
    "pygments_dark_style": "github-dark",
    "use_edit_page_button": False,
    "icon_links": [],
}
copybutton_exclude = ".linenos, .gp, .go"
add_module_names = False
python_maximum_signature_line_length = 80

suppress_warnings = [
    "myst.header",  # a chapter may go from ## to ####: what it says there is a remark, not a section
    "mystnb.unknown_mime_type",  # a widget's state beside a picture of it: the picture is shown
    "myst.xref_ambiguous",  # a heading of the same words on the same page: the first is meant
]

# What the converter does not know, in words that it knows; and what it leaves as it is.
WORDS = [(r"\\operatorname\*?\{([^{}]*)\}", lambda m: r"\mathop{\text{" + m[1].replace(r"\,", " ") + "}}"),
         (r"\\arg\\(max|min)", r"\\mathop{\\text{arg \1}}"), (r"\\Vert\b", r"\\|")]
LEFT = {r"\|": "‖", r"\{": "{", r"\}": "}"}


def script(m):
    "A script letter: browsers know it as a letter, not as a variant of another."
    for name in ("MATHEMATICAL SCRIPT CAPITAL", "SCRIPT CAPITAL"):
        try: return f"<mi>{lookup(f'{name} {m[1]}')}</mi>"
        except KeyError: pass
    return m[0]


def mathml(tex, display):
    "A formula as browsers show it by themselves: no script, no font from elsewhere."
    for pattern, instead in WORDS: tex = re.sub(pattern, instead, tex)
    try: made = convert(tex.strip(), display=display)
    except Exception as e: raise ValueError(f"A formula is not understood: {tex!r}") from e
    for sign, instead in LEFT.items(): made = made.replace(f">{sign}<", f">{instead}<")
    made = re.sub(r'<mi mathvariant="script">(\w)</mi>', script, made)
    if "\\" in made: logger.warning("A formula is not understood: %s", tex)
    return made.replace("<math ", f'<math aria-label="{escape(tex)}" ', 1)


def inline_math(self, node):
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block_math(self, node):
    self.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app): app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
