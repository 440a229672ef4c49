# make demo, make test and make check each make their own environment in .venv; Python 3.11 or newer is all they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# tests run in so many processes; one that has nothing left takes half of what waits for another
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: demo test check format clean checkpoints

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fast,serve]'
	@touch $(STAMP)

demo: $(STAMP)  ## with the checkpoints that ship: a tune, a piece, and the scherzo finished
	$(BIN)/musicgen demo

checkpoints: $(STAMP)  ## train both again, from data/; stopped and called again, it goes on
	$(call checkpoint,orchestra,data/orchestra,OpenScore Orchestra (CC0 1.0))
	$(call checkpoint,folk,data/folk data/irish,Ceol Rince na hEireann (Unlicense) and 60 tunes of a lab of MIT 6.S191 (MIT))

# name, folders, what they are
define checkpoint
$(BIN)/musicgen train $(2) --config checkpoints/$(1).yaml --out out/checkpoints/$(1) \
	$(if $(wildcard out/checkpoints/$(1)/last.safetensors),--resume)
$(BIN)/python checkpoints/pack.py out/checkpoints/$(1) checkpoints/$(1) $(2) --music "$(3)"
endef

test: $(STAMP)  ## every test
	$(PYTEST)

check: $(STAMP)  ## the quick loop: format, lint, types, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) out
