# make demo: see it work. make test: the tests, with PYTHON=/path/to/python. make help: the rest.
#
# Every target makes the virtual environment it needs, one for each interpreter, and installs the
# package again when its sources changed.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
HEAVY_WHEELS := torch==2.13.0 numpy pandas pyarrow

# Version and place of the interpreter itself: two pyenv versions hide behind one shim.
TAG := $(shell $(PYTHON) -c 'import os, sys, zlib; \
    path = os.path.realpath(getattr(sys, "_base_executable", sys.executable)); \
    print("%d.%d-%08x" % (sys.version_info[:2] + (zlib.crc32(os.fsencode(path)),)))' \
    2>/dev/null || echo none)
SOURCES := Makefile pyproject.toml CMakeLists.txt README.md LICENSE packaging/description.py \
    $(shell find src -type f -not -name '*.pyc')
NATIVE := $(shell find src/native tests/native tests/fuzz -name '*.cpp' -o -name '*.h')

# No python of these targets runs from huge pages but those that are meant to: pytest, pip and the
# like must work when the package does not.
export PYHUGETEXT := 0

.PHONY: help demo check test heavy containers servers any-program tools suites wheel-suites fuzz sanitize \
    compilers analyze lint format bench bench-startup siege inject bench-servers clean wheels \
    docs docs-test docs-links man kernels zoo
.DELETE_ON_ERROR:

help:
	@echo "make demo           install into a fresh virtual environment and see it work"
	@echo "make check          the quick tests, in a minute: between edits"
	@echo "make test           the tests but the heavy ones; PYTHON=..., PYTEST_ARGS=..."
	@echo "make heavy          the tests that need torch and other large wheels"
	@echo "make containers     images that are prepared, and what their containers get; needs root"
	@echo "make servers        gunicorn, uWSGI, mod_wsgi, PostgreSQL and others, started for real; needs root"
	@echo "make any-program    databases, compilers, interpreters with the preload library, and without"
	@echo "make tools          the table of tools that attach in docs/tools.md; needs gdb, perf, eu-stack"
	@echo "make suites         the suites of CPython and numpy with the hook active, most of an hour"
	@echo "make wheel-suites   the suites of scipy, pandas and others; WHEEL_SUITES='scipy pandas'"
	@echo "make kernels        other kernels under qemu, and what each gives; KERNELS='6.1 6.12 7'"
	@echo "make zoo            forty popular wheels, used with and without; ZOO_ARGS='numpy torch'"
	@echo "make siege          everything at once, from a seed; SECONDS=60, SEED=..., BACKINGS=..."
	@echo "make inject         every system call of ours fails, once in each way; most of an hour"
	@echo "make fuzz           broken ELF files, records, maps, settings; RUNS=5000000, TARGETS='maps record'"
	@echo "make sanitize       the engine and the extension under ASan, UBSan and TSan; KINDS='address'"
	@echo "make compilers      warnings of every g++-N and clang++-N there is; CHROOTS=..."
	@echo "make analyze        clang's static analyzer over src/native"
	@echo "make wheels         sdist and wheels for each python found, and tests of them; WHEELS='--python ...'"
	@echo "make lint           ruff, mypy, clang-format, clang-tidy, warnings as errors, workflows"
	@echo "make format         lay out the sources as make lint wants them"
	@echo "make bench          the suite on eight workloads, ten minutes; BENCH_ARGS='--only torch_mlp'"
	@echo "make bench-startup  what a start of python costs; BENCH_ARGS='--pairs 200'"
	@echo "make bench-servers  requests a second and memory of servers; BENCH_ARGS='--only gunicorn'"
	@echo "make docs           the documents as a site in build/site"
	@echo "make docs-test      runs every command that the documents show"
	@echo "make docs-links     asks for every address that the documents name; needs a network"
	@echo "make man            the manual page, build/pyhugetext.1"
	@echo "make clean          remove what the targets made"

# Stops with one sentence that says what is missing and how to get it.
define check
	@say() { echo "$$1." >&2; exit 1; }; \
	$(PYTHON) -c '' 2>/dev/null || say "'$(PYTHON)' does not run: install Python 3.9 or later\
	 (Debian: apt-get install python3), or name one with PYTHON=/path/to/python3"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || say "'$(PYTHON)' is older\
	 than Python 3.9: name a later one with PYTHON=/path/to/python3"; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || say "'$(PYTHON)' has no complete venv\
	 module: install it (Debian: apt-get install python3-venv)"; \
	for file in "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"; \
	do test -r "$$file" || say "'$(PYTHON)' has no header files ($$file is missing): install them\
	 (Debian: apt-get install python3-dev)"; done; \
	for compiler in $${CC:-cc} cc gcc clang; do command -v $$compiler >/dev/null && break; \
	done || say "there is no C compiler (cc, gcc or clang): install one (Debian: apt-get install\
	 gcc g++), or name one with CC"; \
	for compiler in $${CXX:-c++} c++ g++ clang++; do command -v $$compiler >/dev/null && break; \
	done || say "there is no C++ compiler (c++, g++ or clang++): install one (Debian: apt-get\
	 install g++), or name one with CXX"; \
	echo '#include <new>' | $$compiler -std=c++20 -x c++ -fsyntax-only - 2>/dev/null || say \
	"'$$compiler' cannot compile C++20: install GCC 10, Clang 12 or later with its headers (Debian:\
	 apt-get install g++)"
endef

# $(call pip,venv,what it installs): pip itself first.
define pip
	@pip() { $(1)/bin/python -m pip install --quiet "$$@" || { echo "pip could not install what\
	 $(1) needs, and told above why: PyPI, or what PIP_INDEX_URL names, must be within reach." >&2; \
	 exit 1; }; }; pip --upgrade pip && pip $(2)
endef

# $(call install,venv,what pip installs); the package itself is built anew each time.
define install
	$(check)
	@test -x $(1)/bin/pip || $(PYTHON) -m venv $(1)
	@echo "installing into $(1): $(strip $(2))"
	$(call pip,$(1),$(2))
	@touch $@
endef

DEMO := .venv-demo/$(TAG)
$(DEMO)/installed: $(SOURCES)
	$(call install,$(DEMO),. numpy pyarrow)

demo: $(DEMO)/installed
	@echo; echo "\$$ python examples/demo.py | tail -n 1    # a first start takes what time allows"
	@env -u PYHUGETEXT $(DEMO)/bin/python examples/demo.py | tail -n 1
	@echo; echo "\$$ pyhugetext warm -- python examples/demo.py | tail -n 1"
	@env -u PYHUGETEXT $(DEMO)/bin/python -m pyhugetext warm -- $(DEMO)/bin/python examples/demo.py | tail -n 1
	@echo; echo "\$$ python examples/demo.py"
	@env -u PYHUGETEXT $(DEMO)/bin/python examples/demo.py
	@echo; echo "\$$ PYHUGETEXT_BACKING=memfd python examples/demo.py | tail -n 1"
	@env -u PYHUGETEXT PYHUGETEXT_BACKING=memfd $(DEMO)/bin/python examples/demo.py | tail -n 1
	@echo; echo "\$$ PYHUGETEXT=0 python examples/demo.py | grep ^pyhugetext"
	@$(DEMO)/bin/python examples/demo.py | grep ^pyhugetext

TEST := .venv-test/$(TAG)
LINT := .venv-lint/$(TAG)
# For free-threaded builds few wheels are made: what the tests of threads need.
GROUP := $(shell $(PYTHON) -c 'import sysconfig; \
    print("threads" if sysconfig.get_config_var("Py_GIL_DISABLED") else "test")' 2>/dev/null)
# Tests build the package, too, and so do other interpreters, for whom most of it is the same: what one
# build compiles the others need not compile once more.
SERVERS := .venv-servers/$(TAG)
DOCS_TEST := .venv-docs-test/$(TAG)
HEAVY := .venv-heavy/$(TAG)
OBJECTS := .venv-test/objects
ALIKE := $(TEST)/installed $(SERVERS)/installed $(DOCS_TEST)/installed heavy
$(ALIKE): private export COMPILE_ONCE := $(CURDIR)/$(OBJECTS)
$(ALIKE): private export CMAKE_CXX_COMPILER_LAUNCHER := \
    $(PYTHON);-IS;$(CURDIR)/tests/support/compile_once.py
$(ALIKE): private export CMAKE_CXX_LINKER_LAUNCHER = $(CMAKE_CXX_COMPILER_LAUNCHER)
$(TEST)/installed: $(SOURCES)
	@mkdir -p $(OBJECTS) && find $(OBJECTS) -type f -mmin +60 -delete
	$(call install,$(TEST),. --prefer-binary --group $(GROUP))

# In several processes all but what changes settings of the machine, which follows by itself. Pytest's 1
# means that a test failed, 5 that there was none: which may be so in one of the phases.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder --alone without
define phases
	@status=5; for phase in "$(PARALLEL)" "-n 0 --alone only"; do \
	    set -- $(1) $$phase $(PYTEST_ARGS); echo "$$*"; \
	    "$$@"; code=$$?; \
	    case $$code$$status in 05) status=0;; 1?) status=1;; 0?|5?) ;; *) exit $$code;; esac; \
	done; exit $$status
endef

# Tests call tools that pip has put there.
check test: private export PATH := $(CURDIR)/$(TEST)/bin:$(PATH)
test: $(TEST)/installed
	$(call phases,$(TEST)/bin/python -m pytest -m "not heavy")

check: $(TEST)/installed
	$(TEST)/bin/python -m pytest -m quick $(PARALLEL) $(PYTEST_ARGS)

# pip tells beforehand what it would install: no CUDA, which is gigabytes, and no build of torch.
heavy: private export PATH := $(CURDIR)/$(HEAVY)/bin:$(PATH)
heavy:
	$(check)
	@mkdir -p $(OBJECTS)
	@test -x $(HEAVY)/bin/pip || $(PYTHON) -m venv $(HEAVY)
	@$(HEAVY)/bin/python -m pip install --quiet --upgrade pip
	@if ! $(HEAVY)/bin/python -m pip install --quiet --dry-run --ignore-installed \
	    --only-binary :all: --report $(HEAVY)/report.json $(HEAVY_WHEELS) 2>$(HEAVY)/log; then \
	    grep -q 'No matching distribution' $(HEAVY)/log || { cat $(HEAVY)/log >&2; exit 1; }; \
	    echo "make heavy: skipped, no file fits $(TAG): $$(grep -m 1 'No matching' $(HEAVY)/log)"; \
	elif grep -qE '"name": *"(nvidia|cuda|triton)' $(HEAVY)/report.json; then \
	    echo "make heavy: skipped, torch for $(TAG) is a CUDA build here"; \
	else set -e; \
	    echo "installing into $(HEAVY): $(HEAVY_WHEELS)"; \
	    $(HEAVY)/bin/python -m pip install --quiet --only-binary :all: $(HEAVY_WHEELS); \
	    $(HEAVY)/bin/python -m pip install --quiet . --group test; \
	    $(HEAVY)/bin/python -m pytest -m heavy $(PYTEST_ARGS); \
	fi

# Images and their containers, by mount namespaces with overlays: needs root, and no daemon.
containers: private export PATH := $(CURDIR)/$(TEST)/bin:$(PATH)
containers: $(TEST)/installed
	$(TEST)/bin/python -m pytest tests/containers $(PARALLEL) $(PYTEST_ARGS)

# Servers of Debian's are used where they are installed; the tests say which are not.
$(SERVERS)/installed: $(SOURCES)
	@mkdir -p $(OBJECTS)
	$(call install,$(SERVERS),. --group servers)

servers: private export PATH := $(CURDIR)/$(SERVERS)/bin:$(PATH):/usr/sbin
servers: $(SERVERS)/installed
	$(SERVERS)/bin/python -m pytest tests/servers $(PYTEST_ARGS)

# Real programs do the same with the preload library as without; those that are installed.
any-program: private export PATH := $(CURDIR)/$(TEST)/bin:$(PATH):/usr/sbin
any-program: $(TEST)/installed
	$(TEST)/bin/python tests/programs/real_programs.py $(PROGRAMS_ARGS)
	$(TEST)/bin/python -m pytest tests/programs $(PYTEST_ARGS)

bench-servers: $(SERVERS)/installed
	@env -u PYHUGETEXT $(SERVERS)/bin/python benchmarks/servers.py $(BENCH_ARGS)

# Those that PyPI has; austin's file needs a later glibc than Debian 12's.
TOOLS := .venv-tools/$(TAG)
TOOLS_ARGS ?=
$(TOOLS)/installed: $(SOURCES)
	$(call install,$(TOOLS),. --group test py-spy pystack austin-dist)

tools: $(TOOLS)/installed
	@$(TOOLS)/bin/python tests/platforms/tools.py $(TOOLS_ARGS)

SUITES := .venv-suites/$(TAG)
$(SUITES)/installed: $(SOURCES)
	$(call install,$(SUITES),. numpy pytest hypothesis)

suites: $(SUITES)/installed
	@$(SUITES)/bin/python tests/platforms/suites.py cpython || test $$? = 77
	@$(SUITES)/bin/python tests/platforms/suites.py cpython --backing memfd test_gc test_threading \
	    test_multiprocessing_fork test_ctypes test_site test_fork1 test_subprocess test_capi \
	    test_faulthandler test_import test_importlib test_venv test_regrtest || test $$? = 77
	@$(SUITES)/bin/python tests/platforms/suites.py numpy || test $$? = 77

# Wheels that bring their tests, or a part of them.
WHEEL_SUITES ?= greenlet gevent llvmlite numba numpy pandas pyarrow scipy
OTHERS_SUITES := .venv-suites/others-$(TAG)
$(OTHERS_SUITES)/installed: $(SOURCES)
	$(call install,$(OTHERS_SUITES),. $(WHEEL_SUITES) pytest hypothesis objgraph psutil)

wheel-suites: $(OTHERS_SUITES)/installed
	@status=0; for suite in $(WHEEL_SUITES); do \
	    $(OTHERS_SUITES)/bin/python tests/platforms/suites.py --both $$suite || test $$? = 77 || status=1; \
	done; exit $$status

# 77 is "skipped", said in a sentence by the script, here and in other harnesses.
KERNELS ?=
KERNELS_ARGS ?=
kernels:
	@PYTHONPATH=tests $(PYTHON) -m kernels $(KERNELS) $(KERNELS_ARGS) || test $$? = 77

ZOO := .venv-zoo/$(TAG)
ZOO_ARGS ?=
$(ZOO)/installed: $(SOURCES)
	$(call install,$(ZOO),.)

zoo: $(ZOO)/installed
	@PYTHONPATH=tests $(ZOO)/bin/python -m zoo $(ZOO_ARGS) || test $$? = 77

# Both print what repeats a finding, and say what they leave out on this machine.
SECONDS ?= 60
SEED ?=
BACKINGS ?=
POOL ?= 0
siege: $(TEST)/installed
	@$(TEST)/bin/python tests/siege/driver.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) \
	    $(if $(BACKINGS),--backings $(BACKINGS)) --pool $(POOL)

INJECT_ARGS ?=
inject: $(TEST)/installed
	@$(TEST)/bin/python tests/siege/inject.py $(INJECT_ARGS)

# In dist: for every python that is found, x86_64 and aarch64. WHEELS='--python /usr/bin/python3
# --target x86_64' makes fewer.
WHEELS ?=
WHEEL_TOOLS := .venv-wheels/$(TAG)
$(WHEEL_TOOLS)/installed: Makefile pyproject.toml
	$(call install,$(WHEEL_TOOLS),--group wheels)

wheels: $(WHEEL_TOOLS)/installed
	$(WHEEL_TOOLS)/bin/python packaging/wheels/make.py $(WHEELS)
	$(WHEEL_TOOLS)/bin/python -m pytest tests/wheels $(PYTEST_ARGS)

include tests/fuzz/targets.mk

# KINDS="address undefined thread"; the modules are built anew for each, with GCC.
KINDS ?= address undefined thread
SANITIZE ?= build/sanitize
sanitize: private export PATH := $(CURDIR)/$(TEST)/bin:$(PATH)
sanitize: $(TEST)/installed $(LINT)/installed
	@for tool in gcc g++ setarch; do command -v $$tool >/dev/null || { echo "make sanitize needs $$tool:\
	 install it (Debian: apt-get install gcc g++ util-linux)." >&2; exit 1; }; done
	@$(TEST)/bin/python tests/sanitize/run.py $(CURDIR)/$(SANITIZE) $(CURDIR)/$(LINT) $(KINDS)

# CHROOTS="/srv/trixie /srv/sid": directories with other suites' compilers, beside those on PATH.
CHROOTS ?=
compilers:
	@$(PYTHON) tests/analysis/compilers.py $(CHROOTS:%=--chroot %) $(COMPILERS_ARGS)
analyze:
	@$(PYTHON) tests/analysis/compilers.py --analyze $(CHROOTS:%=--chroot %) $(COMPILERS_ARGS)

# Clang compiles under clang-tidy, GCC without it; for both a warning is an error.
$(LINT)/installed: Makefile pyproject.toml
	$(call install,$(LINT),--group lint cmake ninja 'pybind11[global]')

GCC := -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++
MODULES = -DPython_EXECUTABLE=$(CURDIR)/$(LINT)/bin/python -Dpybind11_ROOT=$(CURDIR)/$(LINT)
configure = @cmake --fresh --preset $(1) $(2) >build/configure.log || \
    { cat build/configure.log; exit 1; }
lint: private export PATH := $(CURDIR)/$(LINT)/bin:$(PATH)
lint: $(LINT)/installed
	@for tool in gcc g++ clang clang++ clang-format clang-tidy; do \
	    command -v $$tool >/dev/null || { echo "make lint needs $$tool: install it (Debian:\
	 apt-get install gcc g++ clang clang-format clang-tidy)." >&2; exit 1; }; done
	@mkdir -p build
	ruff check
	ruff format --check
	mypy --strict
	check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --quiet --offline .github
	clang-format --dry-run -Werror $(NATIVE)
	$(call configure,werror,$(MODULES) $(GCC))
	cmake --build --preset werror
	$(call configure,proof,$(GCC))
	cmake --build --preset proof
	$(call configure,tidy,$(MODULES))
	cmake --build --preset tidy -- -k 0

format: $(LINT)/installed
	$(LINT)/bin/ruff check --fix-only
	$(LINT)/bin/ruff format
	clang-format -i $(NATIVE)

BENCH := .venv-bench/$(TAG)
$(BENCH)/installed: $(SOURCES)
	$(call install,$(BENCH),.)

bench-startup: $(BENCH)/installed
	@$(BENCH)/bin/python benchmarks/startup.py $(BENCH_ARGS)

# The suite: a wheel that does not fit, or that would bring CUDA, costs its workload and no more.
comma := ,
SUITE_WHEELS ?= numpy pandas pyarrow scikit-learn sqlalchemy django sqlglot torch==2.13.0
SUITE := .venv-bench/suite-$(TAG)
$(SUITE)/installed: $(SOURCES)
	$(call install,$(SUITE),'.[bench$(comma)cli]')
	@for wheel in $(SUITE_WHEELS); do \
	    if ! $(SUITE)/bin/python -m pip install --quiet --dry-run --only-binary :all: \
	        --report $(SUITE)/report.json $$wheel 2>$(SUITE)/log; then \
	        grep -q 'No matching distribution' $(SUITE)/log || { cat $(SUITE)/log >&2; exit 1; }; \
	        echo "make bench: without $$wheel: no file fits $(TAG)"; \
	    elif grep -qE '"name": *"(nvidia|cuda|triton)' $(SUITE)/report.json; then \
	        echo "make bench: without $$wheel: for $(TAG) it is a CUDA build here"; \
	    else \
	        echo "installing into $(SUITE): $$wheel"; \
	        $(SUITE)/bin/python -m pip install --quiet --only-binary :all: $$wheel || exit 1; \
	    fi; \
	done
	@touch $@

bench: $(SUITE)/installed
	@env -u PYHUGETEXT $(SUITE)/bin/python benchmarks/suite.py $(BENCH_ARGS)

# A generator that complains of a link complains of all: --strict.
DOCS := .venv-docs/$(TAG)
$(DOCS)/installed: Makefile pyproject.toml
	@test -x $(DOCS)/bin/pip || $(PYTHON) -m venv $(DOCS)
	@echo "installing into $(DOCS): --group docs"
	$(call pip,$(DOCS),--group docs)
	@touch $@

man:
	@mkdir -p build
	@PYTHONPATH=src $(PYTHON) docs/site/manual.py build/pyhugetext.1
	@echo build/pyhugetext.1

docs: $(DOCS)/installed man
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo build/site/index.html

# Every command in an environment that has what the documents want installed, and nothing else.
$(DOCS_TEST)/installed: $(SOURCES)
	@mkdir -p $(OBJECTS)
	$(call install,$(DOCS_TEST),'.[all]' numpy)

docs-test: $(TEST)/installed $(DOCS_TEST)/installed
	DOCUMENTED_PROGRAMS=$(CURDIR)/$(DOCS_TEST)/bin $(TEST)/bin/python -m pytest tests/documents -n 0 $(PYTEST_ARGS)

docs-links:
	@$(PYTHON) docs/site/links.py

clean:
	rm -rf build dist .venv-demo .venv-test .venv-heavy .venv-servers .venv-tools .venv-suites .venv-zoo .venv-lint .venv-wheels .venv-docs .venv-docs-test \
	    .venv-bench .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
