# make train   set up .venv, build the emoji set, train a CLIP with pretrained towers on it, evaluate,
#              write a report
# make test    set up .venv, run the tests
# make test-slow    the tests that take longest, listed in tests/slow.txt

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/lit_emoji
BIN := $(VENV)/bin

PYTEST := $(BIN)/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: train test test-slow lint setup clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; assert v >= (3, 11), \
	  f"mmjax needs Python 3.11 or later and {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

train: setup
	$(BIN)/python -m mmjax.photos.features --config=configs/lit_emoji.py
	$(BIN)/python -m mmjax.train --config=configs/lit_emoji.py --workdir=$(WORKDIR)

test: setup
	$(PYTEST) -m "not slow" --durations=20

test-slow: setup
	$(PYTEST) -m slow --durations=20

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs build data/emoji_features
