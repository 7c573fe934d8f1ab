"The answers under the chapters' exercises are true: their code gives the output that stands below it."
import ast
import contextlib
import io
import json
import re
from pathlib import Path

import pytest

NBS = Path(__file__).resolve().parents[1]/"nbs"
HEAD = "## Exercises\n"
ANSWER = re.compile(r"```python\n(.*?)\n```\n\n```text\n(.*?)\n```", re.S)


def cells(path): return [(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text())["cells"]]


def exercises(path): return next((text for _, text in cells(path) if text.startswith(HEAD)), "")


WITH = [p for p in sorted(NBS.glob("*.ipynb")) if exercises(p)]
CODED = [pytest.param(p, i, id=f"{p.stem}-{i}") for p in WITH for i in range(len(ANSWER.findall(exercises(p))))]


def known(path):
    "What a reader of the chapter has at hand: its imports, and the names that it exports."
    names = {}
    for kind, text in cells(path):
        if kind != "code" or text.startswith("#| hide"): continue
        with contextlib.suppress(SyntaxError): # a line of magic
            body = ast.parse(text).body
            if body and all(isinstance(b, (ast.Import, ast.ImportFrom)) for b in body): exec(text, names)
    module, = re.findall(r"#\| default_exp (\S+)", "\n".join(text for _, text in cells(path)))
    exec(f"from initpools.{module} import *", names)
    return names


def says(code, names, file):
    "What a piece of code prints; it lies in a file, since rules are read as texts."
    file.write_text(code)
    out = io.StringIO()
    with contextlib.redirect_stdout(out): exec(compile(code, str(file), "exec"), names)
    return out.getvalue().rstrip()


@pytest.mark.parametrize("path, i", CODED)
def test_an_answer_is_true(path, i, tmp_path):
    code, output = ANSWER.findall(exercises(path))[i]
    assert says(code, known(path), tmp_path/"answer.py") == output


@pytest.mark.parametrize("path", WITH, ids=lambda p: p.stem)
def test_exercises_are_folded_and_last(path):
    "Two or three tasks, an answer folded under each, right before what exports the chapter."
    text = exercises(path)
    asked = re.findall(r"^\*\*\d\.\*\* .+", text, re.M)
    assert 2 <= len(asked) <= 3
    assert text.count("<details><summary>Answer</summary>\n\n") == text.count("\n\n</details>") == len(asked)
    for code in re.findall(r"```python\n(.*?)\n```", text, re.S): ast.parse(code)
    *_, (_, before), (_, last) = cells(path)
    assert before == text and "nbdev_export()" in last
    assert max(map(len, "\n".join(re.findall(r"```python\n(.*?)\n```", text, re.S)).splitlines()), default=0) <= 120


def test_the_main_chapters_have_exercises():
    main = {"21_loop", "25_geometry", "38_features", "51_clustered", "58_pools", "61_uncertainty", "62_bayesian",
            "64_coverage", "65_gradient", "66_adversarial", "68_learned", "70_active", "90_statistics"}
    assert main <= {p.stem for p in WITH}


def test_a_wrong_answer_is_seen(tmp_path):
    text = HEAD + "```python\nprint(1 + 1)\n```\n\n```text\n3\n```"
    (code, output), = ANSWER.findall(text)
    assert says(code, {}, tmp_path/"answer.py") == "2" != output
