"Everything about the package stands in settings.ini; this file hands it to setuptools, and puts the book into the wheel."
from configparser import ConfigParser
from pathlib import Path
from shutil import copyfile
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
config = ConfigParser(delimiters=["="])
config.read(HERE/"settings.ini", encoding="utf-8")
facts = config["DEFAULT"]
extras = {k.removesuffix("_requirements"): facts[k].split() for k in facts if k.endswith("_requirements")}
LARGEST = 1_000_000 # bytes of a file of records that goes along: what is larger, a figure measures anew

def book():
    "What an installed figure reads: templates, their parameters, published records."
    files = [*(HERE/"nbs"/"figures").rglob("*.ipynb"), *(HERE/"nbs"/"figures").rglob("*.yml")]
    files += [f for f in (HERE/"data"/"runs").rglob("*.jsonl*") if f.stat().st_size <= LARGEST]
    return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(HERE).parts))

class WithBook(build_py):
    "The package, and in a wheel a copy of the book beside it (`initpools.core.shipped` finds it there)."
    def run(self):
        super().run()
        if self.editable_mode: return # a clone has it
        for file in book():
            copy = Path(self.build_lib)/facts["lib_name"]/"_book"/file.relative_to(HERE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copyfile(file, copy)

setup(
    name=facts["lib_name"], version=facts["version"], description=facts["description"], author=facts["author"],
    license="Apache-2.0", keywords=facts["keywords"], python_requires=f">={facts['min_python']}",
    long_description=(HERE/"README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    packages=find_packages(include=["initpools", "initpools.*"]), include_package_data=True, zip_safe=False,
    install_requires=facts["requirements"].split(), extras_require=extras, cmdclass=dict(build_py=WithBook),
    entry_points={"console_scripts": facts["console_scripts"].split(), "nbdev": [f"{facts['lib_path']}={facts['lib_path']}._modidx:d"]},
)
