# Two commands: `make figure` and `make test`. Both install what they need into .venv, once, in the versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
VERSIONS ?= --constraint constraints.txt
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SPHINX := $(VENV)/.sphinx

.PHONY: figure figures gpu-figures gallery test newest outputs readme site site-test

figure: $(INSTALLED)      ## train, query and draw the learning curves of the embedded digits
	$(BIN)/initpools figure learning_curves -p name=digits $(ARGS)
	@$(MAKE) --no-print-directory gallery # this machine's numbers, on the page of figures too

figures: $(INSTALLED)     ## draw the published figures again from their committed records, without training
	OMP_NUM_THREADS=1 $(BIN)/python -c "from initpools.report.gallery import redraw; redraw()"

gpu-figures: $(INSTALLED) ## the paper's protocol where a GPU is at hand: missing rounds of Figures 5, 8 and 2 for MINUTES, and on from there the next time
	$(BIN)/initpools fill figure_5 figure_8 figure_2 --minutes $(or $(MINUTES),25) $(ARGS)

gallery: $(INSTALLED)     ## figures/README.md from the facts of the published pages
	$(BIN)/python -c "from initpools.report.gallery import make_gallery; open('figures/README.md', 'w').write(make_gallery())"

test: $(INSTALLED)        ## the linter, the types, every module notebook, then what spans them
	$(BIN)/ruff check nbs tests
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --do_print
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests

newest:                   ## make test with the newest release of everything, in an environment of its own
	rm -f .venv-newest/.installed
	$(MAKE) test VENV=.venv-newest VERSIONS="--upgrade --upgrade-strategy eager"

outputs: $(INSTALLED)     ## run every module notebook in place and keep its outputs
	cd nbs && OMP_NUM_THREADS=1 ../$(BIN)/jupyter nbconvert --to notebook --execute --inplace $(or $(NB),*.ipynb)
	$(BIN)/nbdev_clean

readme: $(INSTALLED)      ## README.md from nbs/index.ipynb, and its badges from settings.ini
	$(BIN)/python -c "from initpools.report.figure import make_readme; open('README.md', 'w').write(make_readme())"
	$(BIN)/python -c "from initpools.report.figure import badges; [open(f'nbs/site/_static/{n}', 'w').write(s) for n, s in badges().items()]"

site: $(SPHINX)           ## the book as pages under site/, from the notebooks as they are: open site/index.html
	$(BIN)/python -c "from initpools.report.site import make_sources; make_sources()"
	rm -rf site build/html
	$(BIN)/python -m sphinx -q -W --keep-going -c nbs/site -b html -d build/doctrees build/site build/html
	mv build/html site

# Debian's chromium, once; a registry that hiccups is asked a second time
CHROMIUM := apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null

site-test: $(SPHINX)      ## the pages of make site in a headless browser, which root gets by apt-get where there is none
	@test -f site/index.html || { echo "There is no site yet: run make site first."; exit 1; }
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { $(CHROMIUM); } || { sleep 10; $(CHROMIUM); } \
	  || { echo "There is no chromium, and apt-get could not install it: install chromium and chromium-driver."; exit 1; }
	INITPOOLS_SITE=site OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/test_site.py tests/test_site_browser.py

$(SPHINX): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check $(VERSIONS) -e '.[cpu,dev,site]'
	touch $@

$(INSTALLED): settings.ini setup.py pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(VERSIONS) -e '.[cpu,dev]'
	touch $@
