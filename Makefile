# node-toolkit: named nodes, pids and messages for the shell.
#
#   make                build everything into build/bin
#   make demo           install what is missing, build, and show two nodes at work
#   make check          install what is missing, build, and run every test
#   make install        into PREFIX (below DESTDIR); make uninstall removes the files again
#   make deb            build the Debian packages into build/deb (needs debhelper)
#   make check-on SUITE=trixie   `make check' on another release of Debian (needs root and debootstrap)
#   make fuzz           run each target of tests/fuzz for FUZZ_SECONDS, with clang's libFuzzer
#   make chaos          kill and cut off five nodes, as SEED (1) says, for MINUTES (1); see tests/chaos/run
#   make scale          start N (60) nodes on an etcd of three members, and measure them; see tests/scale/run
#   make detection      measure how soon the loss of a node is noticed, TRIES (10) of each kind; see tests/chaos/detect
#   make pictures       install what is missing, and draw the pictures of README.md; the chart is of the latest make bench
#   make unit           build and run the unit tests, and replay the fuzz targets' corpora
#   make lint bench clean deps compile_commands.json
#
# Variables: CC CFLAGS LDFLAGS PREFIX LIBDIR DESTDIR BUILD V=1.  Two further variables select a build in another directory:
#   SAN=address,undefined or SAN=thread   compiles with these sanitizers
#   LUA=checked                           links a Lua with its assertions and API checks on, built from Debian's source
# A new tool is a new file cmd/node-NAME.c: this file lists no tools.

VERSION := 0.1.0
PREFIX  ?= /usr/local
LIBDIR  ?= lib
BUILD   ?= build
CFLAGS  ?= -O2 -g
comma   := ,
O       := $(patsubst $(CURDIR)/%,%,$(BUILD))$(if $(LUA),/lua-$(LUA))$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
Q       := $(if $(V),,@)

MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.SECONDARY:

ifneq ($(filter-out checked,$(LUA)),)
$(error LUA=$(LUA): the only other Lua is LUA=checked)
endif

# --- flags -------------------------------------------------------------------------------------------------

WARN   := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
HARDEN := -fstack-protector-strong $(if $(filter-out -O0,$(filter -O%,$(CFLAGS))),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
GUARD  := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer,$(HARDEN))

# pkg-config is run once, and only for targets that need it: `make deps` must work before pkg-config is installed.
TOOL_PACKAGES  := libcurl jansson libssl libcrypto
AGENT_PACKAGES := $(TOOL_PACKAGES) libmicrohttpd gnutls libuv lua5.4
pkg         = $(or $(shell pkg-config $1),$(error libraries are missing: run `make deps'))
PKG_CFLAGS  = $(eval PKG_CFLAGS := $$(patsubst -I%,-isystem%,$(call pkg,--cflags $(AGENT_PACKAGES))))$(PKG_CFLAGS)
TOOL_LIBS   = $(eval TOOL_LIBS := $(call pkg,--libs $(TOOL_PACKAGES)))$(TOOL_LIBS)
EDIT_LIBS   = $(eval EDIT_LIBS := $(call pkg,--libs libedit))$(EDIT_LIBS)
SCREEN_LIBS = $(eval SCREEN_LIBS := $(call pkg,--libs ncursesw))$(SCREEN_LIBS)
AGENT_LIBS  = $(eval AGENT_LIBS := $(WRAP_LUA) $(call static_lua,$(call pkg,--libs $(AGENT_PACKAGES))) $(MALLOC) -lresolv -lm -lpthread -lrt)$(AGENT_LIBS)
# Lua is linked statically: functions travel as bytecode, so the build determines which Lua a node has; and calls into
# Lua are the hot path.
static_lua  = $(patsubst -llua%,$(if $(LUA),$(LUA_LIB),-Wl$(comma)-Bstatic -llua% -Wl$(comma)-Bdynamic),$1)
# lib/vm/lua/concat.c says why.  The checked Lua has an assertion that forbids the remedy.
WRAP_LUA    = $(if $(LUA),,$(foreach f,luaT_tryconcatTM,-Wl$(comma)--wrap=$f -Wl$(comma)-u$(comma)__wrap_$f))
LUA_LIB     = $(if $(LUA),$O/lua/liblua.a)
# One scheduler frees what another has allocated: threads would wait for the locks of libc's malloc.  jemalloc has no
# such lock.
MALLOC      = $(if $(SAN),,-ljemalloc)

DEFINES := $(if $(LUA),-DLUA_IS_CHECKED) -D_GNU_SOURCE -DNODE_VERSION='"$(VERSION)"' -DNODE_SHARE_DIR='"$(PREFIX)/share/node-toolkit"' \
           -DNODE_LIBEXEC_DIR='"$(PREFIX)/libexec/node-toolkit"'
COMPILE  = $(CC) -std=gnu11 $(DEFINES) -Ilib $(PKG_CFLAGS) $(WARN) $(GUARD) $(CPPFLAGS) $(CFLAGS)
LINK     = $(CC) $(GUARD) $(CFLAGS) $(LDFLAGS) -Wl,--as-needed -Wl,-z,relro -Wl,-z,now

# --- the files --------------------------------------------------------------------------------------------

objects  = $(patsubst %.c,$O/obj/%.o,$(wildcard $1))
program  = $(patsubst cmd/%.c,$O/bin/%,$1)

LIB      := $(call objects,lib/*/*.c lib/*/*/*.c)
NODEMSG  := $(call objects,lib/base/*.c lib/core/*.c lib/wire/*.c lib/client/*.c)
SHARED   := $(patsubst %.c,$O/obj/%.o,$(filter-out cmd/node-%.c,$(wildcard cmd/*.c)))
LIBEXEC  := cmd/node-guard.c cmd/node-files.c cmd/node-feed.c
TOOLS    := $(call program,$(filter-out cmd/node-start.c $(LIBEXEC),$(wildcard cmd/node-*.c)))
AGENT    := $(call program,$(wildcard cmd/node-start.c))
HELPERS  := $(patsubst cmd/%.c,$O/libexec/node-toolkit/%,$(LIBEXEC))
TSAN     := $(if $(findstring thread,$(SAN)),$O/obj/tests/tsan/longjmp.o $O/obj/tests/tsan/close.o)
HARNESS  := $(patsubst %.c,$O/obj/%.o,$(filter-out tests/unit/test_%.c,$(wildcard tests/unit/*.c)))
UNIT     := $(patsubst tests/unit/%.c,$O/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ     := $(patsubst tests/fuzz/%.c,$O/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH    := $(patsubst tests/bench/%.c,$O/bench/%,$(wildcard tests/bench/*.c))
CHAOS    := $(patsubst tests/chaos/%.c,$O/chaos/%,$(wildcard tests/chaos/*.c))
SOURCES  := $(wildcard lib/*/*.c lib/*/*/*.c cmd/*.c tests/tsan/*.c tests/unit/*.c tests/fuzz/*.c tests/bench/*.c \
                        tests/chaos/*.c)
# What is about texts and files starts no thread that another suite does not start, and is left out with SAN=thread.
TEXTS    := $(patsubst %,tests/%.bats,completions completions-tty install json manual node-cookie readme)
SUITES   := $(filter-out $(if $(findstring thread,$(SAN)),$(TEXTS)),$(wildcard tests/*.bats))
SCRIPTS  := $(wildcard .ci/run tests/run tests/demo tests/pictures tests/arrows tests/check-on tests/metrics-check tests/bench/run tests/bench/names tests/bench/lines tests/bench/streams tests/bench/large tests/bench/many \
                        tests/chaos/run tests/chaos/plan tests/chaos/detect tests/scale/run tests/*.bash tests/*/*.bash $(SUITES))

all: $(TOOLS) $(AGENT) $(HELPERS) $O/lib/libnodemsg.a $O/share/node-toolkit

# --- build -------------------------------------------------------------------------------------------------

# This file changes only when the compiler or the flags change; all objects depend on it and are then made again.
STAMP = $(subst ','\'',$(COMPILE) / $(LINK))
$O/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(STAMP)' | cmp -s - $@ || echo '$(STAMP)' >$@

$O/obj/%.o: %.c $O/flags
	@mkdir -p $(@D)
	@$(if $(Q),echo '  CC      $<')
	$(Q)$(COMPILE) -MMD -MP -c -o $@ $<

$O/lib/libnodemsg.a: $(NODEMSG)
$O/lib/libnode.a:    $(LIB)
$O/lib/libtool.a:    $(SHARED)
$O/lib/%.a: $O/flags
	@mkdir -p $(@D)
	@$(if $(Q),echo '  AR      $@')
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(TOOLS): LIBS = $(TOOL_LIBS)
$O/bin/node-shell: LIBS = $(TOOL_LIBS) $(EDIT_LIBS)
$O/bin/node-top: LIBS = $(TOOL_LIBS) $(SCREEN_LIBS)
$(TOOLS): $O/bin/%: $O/obj/cmd/%.o $O/lib/libtool.a $O/lib/libnodemsg.a

$(AGENT): LIBS = $(AGENT_LIBS)
$(AGENT): $O/bin/%: $O/obj/cmd/%.o $O/lib/libtool.a $O/lib/libnode.a

# The agent starts node-guard before each command: linking it statically halves the cost of that.
$O/libexec/node-toolkit/node-guard: LIBS = $(if $(SAN),,-static)
$O/libexec/node-toolkit/node-files $O/libexec/node-toolkit/node-feed: LIBS = $(TOOL_LIBS)
$(HELPERS): $O/libexec/node-toolkit/%: $O/obj/cmd/%.o
$O/libexec/node-toolkit/node-files $O/libexec/node-toolkit/node-feed: $O/lib/libtool.a $O/lib/libnodemsg.a

$(UNIT) $(FUZZ) $(BENCH): LIBS = $(AGENT_LIBS)
# This program fails each allocation in turn: the linker puts its own functions in place of the allocator's.
$O/unit/test_nomem: LIBS = $(AGENT_LIBS) $(foreach f,malloc calloc realloc strdup,-Wl$(comma)--wrap=$f)
$(UNIT): $O/unit/%: $O/obj/tests/unit/%.o $(HARNESS) $O/lib/libtool.a $O/lib/libnode.a
$(FUZZ): $O/fuzz/%: $O/obj/tests/fuzz/%.o $O/obj/tests/fuzz/replay.o $O/lib/libnode.a
$(BENCH): $O/bench/%: $O/obj/tests/bench/%.o $(HARNESS) $O/lib/libnode.a

$(AGENT) $(UNIT) $(FUZZ) $(BENCH): $(TSAN) | $(LUA_LIB)

$(CHAOS): LIBS =
$(CHAOS): $O/chaos/%: $O/obj/tests/chaos/%.o

$(TOOLS) $(AGENT) $(HELPERS) $(UNIT) $(FUZZ) $(BENCH) $(CHAOS):
	@mkdir -p $(@D)
	@$(if $(Q),echo '  LINK    $@')
	$(Q)$(LINK) -o $@ $^ $(LIBS)

# The checked Lua is the installed version with the installed headers, so it reads and writes the same bytecode.
$(BUILD)/lua-source: tests/lua-source
	tests/lua-source $@

$O/lua/liblua.a: $O/flags | $(BUILD)/lua-source
	@mkdir -p $(@D)
	@$(if $(Q),echo '  LUA     $@')
	$(Q)rm -f $@ $(@D)/*.o && cd $(@D) && \
	  ls $(abspath $(BUILD))/lua-source/src/*.c | grep -v '/luac\?\.c$$' | xargs -P $(shell nproc) -n 4 \
	    $(CC) -std=gnu99 -DLUA_COMPAT_5_3 -DLUA_USE_LINUX -DLUA_USE_APICHECK -DLUAI_ASSERT $(GUARD) $(CFLAGS) -c && \
	  $(AR) rcs $(@F) *.o

# An agent finds its Lua modules at ../share/node-toolkit from its own directory, both built and installed.
$O/share/node-toolkit:
	@mkdir -p $(@D)
	$(Q)ln -sfn $(CURDIR)/share $@

# --- tests -------------------------------------------------------------------------------------------------

# After `deps' a second make runs, because this one has run pkg-config before the libraries were installed.
AGAIN = +@$(MAKE) $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

check: deps
	$(AGAIN) all $(UNIT) $(FUZZ)
	@BUILD=$(abspath $O) SAN=$(SAN) tests/run $(UNIT) $(FUZZ) $(SUITES)

check-on:
	@BUILD=$(BUILD) tests/check-on $(or $(SUITE),$(error which release? As in: make check-on SUITE=trixie)) check

# Builds what every test, `chaos' among them, runs.
everything: all $(UNIT) $(FUZZ) $(CHAOS)

unit: $(UNIT) $(FUZZ)
	@BUILD=$(abspath $O) SAN=$(SAN) tests/run $(UNIT) $(FUZZ)

# Builds the targets separately, since libFuzzer has a main of its own.  An input that fails is kept in build/fuzzer as
# NAME.found.…: fix the fault, and add the input to the corpus.
FUZZ_SECONDS ?= 20
FUZZER := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
fuzz:
	@mkdir -p $O/fuzzer
	@set -e; for source in tests/fuzz/fuzz_*.c; do \
	  name=$$(basename $$source .c | sed s/fuzz_//); dir=$O/fuzzer/$$name; mkdir -p $$dir; \
	  clang -std=gnu11 $(DEFINES) -Ilib $(PKG_CFLAGS) -g -O1 $(FUZZER) -o $$dir.run $$source \
	    $(wildcard lib/base/*.c lib/core/*.c lib/wire/*.c lib/agent/cluster/etcd_json.c) $(TOOL_LIBS) -lresolv -lpthread; \
	  split -l 1 -a 4 tests/fuzz/$$name.corpus $$dir/given.; \
	  $$dir.run -max_total_time=$(FUZZ_SECONDS) -max_len=2000 -verbosity=0 -print_final_stats=0 -artifact_prefix=$$dir.found. $$dir; \
	done

demo: deps
	$(AGAIN) all
	@BUILD=$(abspath $O) tests/demo

pictures: deps
	$(AGAIN) all $(BENCH)
	@BUILD=$(abspath $O) tests/pictures

bench: all $(BENCH)
	@BUILD=$(abspath $O) tests/bench/run
	@BUILD=$(abspath $O) tests/bench/names
	@BUILD=$(abspath $O) tests/bench/lines
	@BUILD=$(abspath $O) tests/bench/streams
	@BUILD=$(abspath $O) tests/bench/large
	@BUILD=$(abspath $O) tests/bench/many
	$O/bench/vm_bench tests/bench/long.lua

SEED    ?= 1
MINUTES ?= 1
chaos: all $(CHAOS)
	@BUILD=$(abspath $O) SAN=$(SAN) tests/chaos/run $(SEED) $(MINUTES) $(PLAN)

scale: all
	@BUILD=$(abspath $O) SLACK=$(SLACK) tests/scale/run $(N)

detection: all $(CHAOS)
	@BUILD=$(abspath $O) SAN=$(SAN) tests/chaos/detect $(TRIES)

lint: compile_commands.json
	tests/arrows
	clang-format --dry-run -Werror $(wildcard lib/*/*.[ch] lib/*/*/*.[ch] cmd/*.[ch] tests/*/*.[ch])
	printf "%s\n" $(SOURCES) | xargs -P $(shell nproc) -n 1 clang-tidy --quiet -p .
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability --inline-suppr \
	  --suppress=missingIncludeSystem --suppress=nullPointerArithmeticRedundantCheck -D_GNU_SOURCE -D__GNUC__ \
	  -D'json_array_foreach(a,i,v)=while((v=next(a,i=0)))' \
	  -D'json_object_foreach(o,k,v)=while((k=next(o,v=0)))' -D'STAILQ_FOREACH(v,l,f)=while((v=next(l)))' -Ilib lib cmd
	$(if $(SCRIPTS),shellcheck -x -e SC2016 -e SC2030 -e SC2031 -e SC2317 $(SCRIPTS))
	$(if $(wildcard man/*.[1-7]),mandoc -Tlint -Wwarning $(wildcard man/*.[1-7]))

entry = {"directory": "$(CURDIR)", "file": "$1", "command": "$(subst ",\",$(COMPILE)) -c $1"}
compile_commands.json: $(SOURCES) Makefile
	@$(file >$@,[$(subst } {,}$(comma) {,$(foreach f,$(SOURCES),$(call entry,$f)))]):

# --- the Debian packages ----------------------------------------------------------------------------------

DEPS := gcc libc6-dev pkg-config libcurl4-openssl-dev libjansson-dev libmicrohttpd-dev libgnutls28-dev libuv1-dev \
        liblua5.4-dev libssl-dev libedit-dev libncurses-dev libjemalloc-dev bats bats-support bats-assert bats-file bash-completion curl iproute2 jq \
        etcd-server etcd-client mandoc openssl procps strace vim-tiny zsh fish tmux $(if $(LUA),dpkg-dev) $(if $(filter pictures,$(MAKECMDGOALS)),termtosvg gnuplot-nox)

deps:
	@missing=$$(for p in $(DEPS); do \
	  dpkg-query -W -f '$${Status}' "$$p" 2>/dev/null | grep -q 'ok installed' || echo "$$p"; done); \
	[ -z "$$missing" ] && exit 0; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	echo "installing with apt-get:" $$missing; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends $$missing

# --- install -----------------------------------------------------------------------------------------------

# One table for install and uninstall: mode, directory (below PREFIX, unless it begins with a slash), files.
TO := $(DESTDIR)$(PREFIX)
# fish looks below /usr/local only where XDG_DATA_DIRS says so; this directory is for what the administrator installs.
FISH_DIR ?= $(if $(filter /usr/local,$(PREFIX)),/etc/fish/completions,share/fish/vendor_completions.d)
define INSTALLED
$(call $1,755,bin,$(TOOLS) $(AGENT))
$(call $1,755,libexec/node-toolkit,$(HELPERS))
$(call $1,644,$(LIBDIR),$O/lib/libnodemsg.a)
$(call $1,644,$(LIBDIR)/pkgconfig,$O/nodemsg.pc)
$(call $1,644,lib/systemd/system,$(filter $O/systemd/system/%,$(UNITS)))
$(call $1,644,lib/systemd/user,$(filter $O/systemd/user/%,$(UNITS)))
$(call $1,644,include/node-toolkit/base,lib/base/err.h)
$(call $1,644,include/node-toolkit,lib/client/nodemsg.h)
$(call $1,644,share/node-toolkit/node,$(wildcard share/node/*))
$(call $1,644,share/node-toolkit/examples,$(wildcard share/examples/*))
$(call $1,644,share/node-toolkit/grafana,$(wildcard share/grafana/*))
$(call $1,644,share/man/man1,$(wildcard man/*.1))
$(call $1,644,share/man/man3,$(wildcard man/*.3))
$(call $1,644,share/man/man7,$(wildcard man/*.7))
$(call $1,644,share/bash-completion/completions,$(wildcard completions/bash/*))
$(call $1,644,share/zsh/site-functions,$(wildcard completions/zsh/*))
$(call $1,644,$(FISH_DIR),$(wildcard completions/fish/*))
endef
at   = $(if $(filter /%,$1),$(DESTDIR)$1,$(TO)/$1)
put  = $(if $3,$(Q)install -d $(call at,$2) && install -m $1 $3 $(call at,$2))
drop = $(if $3,$(Q)rm -f $(addprefix $(call at,$2)/,$(notdir $3)))
UNITS := $(patsubst share/%,$O/%,$(wildcard share/systemd/*/*))

install: all $O/nodemsg.pc $(UNITS)
	$(call INSTALLED,put)

uninstall:
	$(call INSTALLED,drop)
	$(Q)for d in include/node-toolkit/base include/node-toolkit libexec/node-toolkit share/node-toolkit/node \
	  share/node-toolkit/examples share/node-toolkit/grafana share/node-toolkit; do rmdir $(TO)/$$d 2>/dev/null || :; done

$O/nodemsg.pc: Makefile $O/flags
	@printf '%s\n' 'Name: nodemsg' 'Description: talk to a node of node-toolkit' 'Version: $(VERSION)' \
	  'Requires: jansson libcurl libssl libcrypto' \
	  'Cflags: -I$(PREFIX)/include/node-toolkit' 'Libs: -L$(PREFIX)/$(LIBDIR) -lnodemsg' >$@

$O/systemd/%: share/systemd/% $O/flags
	@mkdir -p $(@D)
	@sed 's|@PREFIX@|$(PREFIX)|g' $< >$@

# The packaging is below share/debian, and dpkg wants it at the top: the packages are built from a copy of the tree.
DEB := $(BUILD)/deb
deb:
	$(Q)rm -rf $(DEB) && mkdir -p $(DEB)/node-toolkit
	$(Q)cp -a .ci Makefile HACKING.md LICENSE README.md cmd completions lib man share tests $(DEB)/node-toolkit
	$(Q)mv $(DEB)/node-toolkit/share/debian $(DEB)/node-toolkit/debian
	$(Q)cd $(DEB)/node-toolkit && env -u MAKEFLAGS -u BUILD dpkg-buildpackage -b -us -uc
	$(Q)rm -rf $(DEB)/node-toolkit && ls $(DEB)/*.deb

clean:
	rm -rf $(BUILD) compile_commands.json

FORCE:
.PHONY: all check check-on everything unit demo pictures bench chaos scale detection lint deps install uninstall deb clean FORCE
-include $(wildcard $O/obj/*/*.d $O/obj/*/*/*.d $O/obj/*/*/*/*.d)
