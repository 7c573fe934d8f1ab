"Everything about the package stands in settings.ini; this file only hands it to setuptools."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
facts = config["DEFAULT"]
extras = {k.removesuffix("_requirements"): facts[k].split() for k in facts if k.endswith("_requirements")}

setup(
    name=facts["lib_name"], version=facts["version"], description=facts["description"], author=facts["author"],
    license="Apache-2.0", keywords=facts["keywords"], python_requires=f">={facts['min_python']}",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    packages=find_packages(include=["initpools", "initpools.*"]), include_package_data=True, zip_safe=False,
    install_requires=facts["requirements"].split(), extras_require=extras,
    entry_points={"console_scripts": facts["console_scripts"].split(), "nbdev": [f"{facts['lib_path']}={facts['lib_path']}._modidx:d"]},
)
