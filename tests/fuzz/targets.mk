# The libFuzzer targets: each is NAME.cpp in this folder, and beside it what of src/native it is made
# of. `make fuzz` has the rest.
FUZZED_entry := kernel/maps kernel/pagemap kernel/scratch kernel/smaps kernel/strings store/copy_window \
    store/mend store/record store/store store/trust store/written limits/groups limits/memory
FUZZED_groups := kernel/strings limits/groups limits/memory
FUZZED_layout := builder/elf_file builder/layout builder/offsets builder/sections builder/segments \
    elf/object elf/plan
FUZZED_maps := kernel/filters kernel/maps kernel/pagemap kernel/smaps kernel/strings
FUZZED_object := elf/object
FUZZED_plan := elf/object elf/plan kernel/maps kernel/pagemap kernel/scratch kernel/smaps kernel/strings \
    process/elsewhere
FUZZED_record := kernel/strings store/record store/trust store/written
FUZZED_settings := kernel/strings

TARGETS ?= $(sort $(patsubst FUZZED_%,%,$(filter FUZZED_%,$(.VARIABLES))))
RUNS ?= 1000000
# Whole seconds that a target may take at most; 0: as long as RUNS does.
SECONDS_EACH ?= 0
# COMPARES=0: the numbers that are compared guide no more, and undefined behaviour ends the program
# without a word. Faster: for long runs from a corpus that was made with them.
COMPARES ?= 1
UNGUIDED := $(filter 0,$(COMPARES))
FUZZ ?= build/fuzz$(if $(UNGUIDED),-unguided)
FUZZ_CORPUS ?= $(FUZZ:-unguided=)/corpus
SANITIZED := -fsanitize=address,undefined \
    $(if $(UNGUIDED),-fsanitize-trap=undefined,-fno-sanitize-recover=undefined)
COVERED := $(SANITIZED) -fsanitize=fuzzer-no-link \
    $(if $(UNGUIDED),-fno-sanitize-coverage=trace-cmp)
FUZZ_FLAGS := -std=c++20 -O2 -g -fno-exceptions -fno-rtti -MMD -MP \
    -Isrc/native -Itests/fuzz -include tests/fuzz/shim.h

# The checks are no part of what is to be covered.
$(FUZZ)/checks/%.o: tests/fuzz/%.cpp
	@mkdir -p $(@D)
	@echo "clang++ $<"
	@clang++ $(FUZZ_FLAGS) $(SANITIZED) -c -o $@ $<
$(FUZZ)/core/%.o: src/native/%.cpp
	@mkdir -p $(@D)
	@echo "clang++ $<"
	@clang++ $(FUZZ_FLAGS) $(COVERED) -fsanitize-coverage-ignorelist=tests/fuzz/ignored.txt -c -o $@ $<
# The settings are part of their target's unit.
$(FUZZ)/checks/settings.o: FUZZ_FLAGS += $(COVERED)
# The world and the memory say to AddressSanitizer what is whose, and are not looked at themselves.
$(FUZZ)/checks/memory.o $(FUZZ)/checks/world.o: SANITIZED :=
# What does not ask the world is linked without it.
$(FUZZ)/support.a: $(FUZZ)/checks/memory.o $(FUZZ)/checks/world.o
	@rm -f $@
	@ar rcs $@ $^

define fuzz_target
# What is inline in both is the core's: its objects come first.
$(FUZZ)/$(1): $(FUZZED_$(1):%=$(FUZZ)/core/%.o) $(FUZZ)/checks/$(1).o $(FUZZ)/support.a
	@clang++ -fsanitize=fuzzer,address,undefined -o $$@ $$^
endef
$(foreach target,$(TARGETS),$(eval $(call fuzz_target,$(target))))
-include $(shell find $(FUZZ)/checks $(FUZZ)/core -name '*.d' 2>/dev/null)

fuzz:
	@command -v clang++ >/dev/null || { echo "make fuzz needs clang++ and its run-time libraries:\
	 install them (Debian: apt-get install clang libclang-rt-14-dev)." >&2; exit 1; }
	@$(MAKE) --no-print-directory -j2 $(TARGETS:%=$(FUZZ)/%)
	@$(PYTHON) tests/fuzz/run.py --runs $(RUNS) --seconds $(SECONDS_EACH) \
	    --corpus $(FUZZ_CORPUS) $(FUZZ) $(TARGETS)

# Whether each target finds a defect that was put where it looks.
.PHONY: planted
planted:
	@$(PYTHON) tests/fuzz/planted.py build/planted $(TARGETS)
