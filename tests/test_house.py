"The shape of the house: layers, freshness, prose, and nothing that belongs to one machine."
import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(p for p in (ROOT/"nbs").glob("*.ipynb"))
TEMPLATES = sorted((ROOT/"nbs"/"figures").glob("*.ipynb"))


def cells(path): return json.loads(path.read_text())["cells"]
def source(cell): return "".join(cell["source"])


def exports():
    "Notebook -> the module it exports."
    found = {}
    for nb in MODULES:
        if m := re.search(r"#\|\s*default_exp\s+(\S+)", "\n".join(map(source, cells(nb)))): found[nb.name] = m[1]
    return found


def layer(nb):
    "A notebook's number, and the letter where a number holds several: 69 < 69a < 69b < 70."
    number, letter = re.match(r"(\d\d)([a-z]?)_", nb).groups()
    return int(number), letter


def test_numbers_are_layers():
    "A module imports only from modules whose notebooks have lower numbers."
    number = {module.removesuffix(".__init__"): layer(nb) for nb, module in exports().items()}
    wrong = []
    for nb, module in exports().items():
        for cell in cells(ROOT/"nbs"/nb):
            if cell["cell_type"] != "code" or "#| export" not in source(cell): continue
            for node in ast.walk(ast.parse(re.sub(r"^\s*%.*$", "", source(cell), flags=re.M))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("initpools."):
                    target = node.module.removeprefix("initpools.")
                    here, there = layer(nb), number.get(target)
                    if there is None or there > here or (there == here and target == module):
                        wrong.append(f"{nb} imports {node.module}")
                if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
                    wrong.append(f"{nb} has a star import")
    assert not wrong, wrong


def test_no_module_compares_a_rules_name():
    "What a rule needs stands in its row; the loop knows no names. (`random` is the reference of all comparisons.)"
    from initpools.pretext import PRETEXTS
    from initpools.rules.table import RULES, VIEWS
    from initpools.samplers import SAMPLERS
    from initpools.strategies import STRATEGIES
    names = {*RULES, *SAMPLERS, *STRATEGIES, *PRETEXTS} - {*VIEWS, "random"}
    found = []
    for file in sorted((ROOT/"initpools").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            equal = isinstance(node, ast.Compare) and any(isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops)
            if equal and any(isinstance(c, ast.Constant) and c.value in names for c in [node.left, *node.comparators]):
                found.append(f"{file.name}: {ast.unparse(node)}")
    assert not found, found


def test_package_is_what_the_notebooks_export(tmp_path):
    for name in ("nbs", "initpools"):
        shutil.copytree(ROOT/name, tmp_path/name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("settings.ini", "pyproject.toml", "setup.py", "README.md"): shutil.copy(ROOT/name, tmp_path/name)
    for f in (tmp_path/"initpools").rglob("*.py"): f.unlink()
    (tmp_path/"initpools"/"__init__.py").write_text((ROOT/"initpools"/"__init__.py").read_text())
    subprocess.run([sys.executable, "-c",
                    "from nbdev.export import nb_export\nfrom nbdev.doclinks import nbdev_export\nnbdev_export()"],
                   cwd=tmp_path, check=True, capture_output=True)
    def files(root): return {p.relative_to(root): p.read_text() for p in (root/"initpools").rglob("*.py")}
    ours, fresh = files(ROOT), files(tmp_path)
    assert set(ours) == set(fresh), f"modules without a notebook, or not exported: {set(ours) ^ set(fresh)}"
    stale = [str(p) for p in ours if ours[p] != fresh[p]]
    assert not stale, f"run nbdev_export: {stale}"


def test_readme_is_what_index_says():
    from initpools.report.figure import make_readme
    assert (ROOT/"README.md").read_text() == make_readme(ROOT), "run: make readme"


def test_import_is_light():
    "`import initpools` brings neither torch nor numpy."
    code = "import sys, initpools; print([m for m in ('torch', 'numpy', 'pandas', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["active", "geometry", "samplers", "strategies", "pretext", "lab.execute"])
def test_optional_packages_are_imported_late(module):
    "The core needs torch, numpy and scikit-learn alone."
    code = (f"import sys, initpools.{module}; print([m for m in ('faiss', 'papermill', 'dask', 'matplotlib', "
            "'torchvision', 'nbdev', 'fastcore') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("nb", [p for p in MODULES if p.name != "index.ipynb"], ids=lambda p: p.stem)
def test_a_module_notebook_is_a_chapter(nb):
    "Prose beside code, outputs kept, short exported cells, no errors, no machine's paths."
    all_cells = cells(nb)
    code, prose = [[c for c in all_cells if c["cell_type"] == t] for t in ("code", "markdown")]
    assert len(prose) * 3 >= len(code), f"{len(prose)} prose cells for {len(code)} code cells"
    assert any(c["outputs"] for c in code), "no outputs kept: run make outputs"
    outputs = [o for c in code for o in c["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error"]
    long = [source(c)[:60] for c in code if "#| export" in source(c) and source(c).count("\n") > 40]
    assert not long, f"exported cells over 40 lines: {long}"
    assert source(all_cells[0]).startswith("# ") and "> " in source(all_cells[0])


@pytest.mark.parametrize("nb", TEMPLATES, ids=lambda p: p.stem)
def test_a_template_has_parameters_and_no_outputs(nb):
    tagged = [c for c in cells(nb) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1, "one cell has to be tagged 'parameters'"
    lines = [line for line in source(tagged[0]).splitlines() if line.strip() and not line.startswith("#")]
    wrong = [line for line in lines if not re.match(r"^\w+: \w+ = .+  # .+$", line)]
    assert not wrong, f"write each parameter as `name: type = default  # meaning`: {wrong}"
    assert not any(c.get("outputs") for c in cells(nb))
    code = "\n".join(source(c) for c in cells(nb) if c["cell_type"] == "code")
    defined = re.search(r"^\s*def ", code, re.M)
    assert not defined or nb.stem.startswith("benchmark"), "a template defines no functions"


def test_nothing_belongs_to_one_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    files = [ROOT/f for f in tracked
             if f.endswith((".ipynb", ".py", ".md", ".yml", ".ini", ".toml", ".csv", ".svg")) and (ROOT/f).exists()]
    found = [f"{f.relative_to(ROOT)}: {m}" for f in files for m in set(
        re.findall(r"(?<![\w.])/(?:home|root|work|Users|tmp)/[\w./-]+", f.read_text(errors="ignore")))]
    assert not found, found


def test_no_file_is_large():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    assert not [f for f in tracked if f and (ROOT/f).exists() and (ROOT/f).stat().st_size > 5_000_000]


def test_every_requirement_has_a_tested_version():
    "Both commands install the versions of constraints.txt; a new requirement gets its line there."
    from configparser import ConfigParser
    facts = ConfigParser(delimiters=["="])
    facts.read(ROOT/"settings.ini")
    kinds = [k for k in facts["DEFAULT"] if k.endswith("requirements") and k != "gpu_requirements"]
    wanted = [w for k in kinds for w in facts["DEFAULT"][k].split()]
    names = {re.split(r"[\[<>=]", w)[0].lower().replace("_", "-") for w in wanted}
    lines = [line.split("==") for line in (ROOT/"constraints.txt").read_text().splitlines() if not line.startswith("#")]
    tested = {name.lower().replace("_", "-") for name, version in lines}
    assert names - tested == set()
    assert "$(VERSIONS)" in (ROOT/"Makefile").read_text()


def aired():
    "(name, source) of the code cells and test files that the linter reads; %% cells are left to their records."
    for nb in [*MODULES, *TEMPLATES]:
        for i, c in enumerate(cells(nb)):
            if c["cell_type"] != "code" or source(c).startswith("%%"): continue
            yield f"{nb.name} [{i}]", re.sub(r"^(\s*)[%!].*$", r"\1pass", source(c), flags=re.M)
    for file in sorted((ROOT/"tests").glob("*.py")): yield file.name, file.read_text()


def targets(node): return [t for t in getattr(node, "targets", []) if isinstance(t, ast.Tuple)]


def crowded(code):
    "What the linter does not say: (line, sentence) of each statement that holds too much."
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            if any(len(t.elts) > 2 for t in targets(node)): yield node.lineno, "gives three names three values"
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            loops = node.generators
            if len(loops) > 1 and any(g.ifs for g in loops): yield node.lineno, "has a second `for` and an `if`"
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if lines > 40: yield node.lineno, f"{node.name} has {lines} lines"


def too_long(text, limit):
    "Numbers of lines over the limit, but for what nbdev writes: the chapter's sentence, and `__all__`."
    made = next((range(n.lineno, n.end_lineno + 1) for n in ast.parse(text).body
                 if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"), ())
    lines = enumerate(text.splitlines(), 1)
    return [i for i, line in lines if len(line) > limit and i not in made and not (i == 1 and line[:3] == '"""')]


def test_statements_hold_one_thought():
    wrong = [f"{name}, line {line}: {says}" for name, code in aired() for line, says in crowded(code)]
    assert not wrong, wrong


def test_lines_are_short():
    "110 characters in exported modules, 120 in templates; ruff holds 120 in all other cells and in tests."
    modules = (ROOT/"initpools").rglob("*.py")
    wrong = {p.name: found for p in modules if p.name != "_modidx.py" and (found := too_long(p.read_text(), 110))}
    for nb in TEMPLATES:
        code = [c for c in cells(nb) if c["cell_type"] == "code" and "parameters" not in c["metadata"].get("tags", [])]
        lines = "\n".join(source(c) for c in code if not source(c).startswith("%%")).splitlines()
        if found := [line for line in lines if len(line) > 120]: wrong[nb.name] = found
    assert not wrong, wrong


PLANTED = ["a, b, c = 1, [], {}", "x = [i for a in b for i in a if i]", "def f():\n" + "    g()\n" * 41]
FINE = ["a, b = 1, []", "a, b, c = f()", "x = [i for a in b for i in a]", "x = [i for i in b if i]",
        "def f():\n" + "    g()\n" * 39]


def test_the_rules_of_air_find_what_is_planted():
    for code in PLANTED: assert len([*crowded(code)]) == 1, code
    for code in FINE: assert not [*crowded(code)], code
    assert too_long("x = 1\n__all__ = ['a',\n  'b']\ny = 10000\n", 8) == [4]


@pytest.mark.parametrize("code, rule", [
    ("x = 1; y = 2", "E702"), ("f = lambda x: x", "E731"), ("import os", "F401"), ("x = " + "1 + " * 40 + "1", "E501"),
    ("def f(x=[]): return x", "B006"), ("def f():\n    x = 1", "F841"), ("if x == None: y = 1", "E711"),
    ("if x: y = 1", "")])
def test_the_linter_finds_what_is_planted(code, rule):
    "By the settings of pyproject.toml; a guard on one line is none of its business."
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename",
                           "tests/planted.py", "-"], input=code + "\n", capture_output=True, text=True, cwd=ROOT)
    assert re.findall(r" ([A-Z]+\d+) ", done.stdout) == [rule] * bool(rule), done.stdout + done.stderr


def test_all_code_is_linted():
    "`make test` begins with it, and it reads every notebook and test."
    assert "$(BIN)/ruff check nbs tests" in (ROOT/"Makefile").read_text()
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "nbs", "tests"], capture_output=True, text=True,
                          cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    read = subprocess.run([sys.executable, "-m", "ruff", "check", "--show-files", "nbs", "tests"], capture_output=True,
                          text=True, cwd=ROOT).stdout.split("\n")
    ours = {*MODULES, *TEMPLATES, *(ROOT/"tests").glob("*.py")}
    assert not ours - {Path(f) for f in read}


def test_exported_modules_name_nothing_unknown():
    "A name that only a notebook's other cells import would be missing in the package."
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "initpools", "--select", "F821"], capture_output=True,
                          text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_no_test_needs_a_group():
    "What tests share is made once behind a lock: any runner may spread them over processes as it likes."
    assert not [p.name for p in (ROOT/"tests").glob("*.py") if "mark.xdist" + "_group" in p.read_text()]
