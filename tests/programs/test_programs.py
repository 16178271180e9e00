"""Real programs that do real work under the preload library: the same output and exit status as
without, and their text from the store at the second start."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.common import HUGE, tool
from support.preloaded import NAME, Ended, Preloaded, preload_library
from support.store import require_huge_disk
from support.users import require_root


@dataclass(frozen=True)
class Program:
    """A shell script that says the same each time, and the objects that a store can serve: not the
    position-independent executables, which lie elsewhere in each process."""

    name: str
    script: str
    needs: tuple[str, ...]
    covered: tuple[str, ...] = ()


UNIT = """
#include <algorithm>
#include <map>
#include <string>
#include <vector>
template <int N> int f(std::map<int, std::string> &m) { m[N] = std::to_string(N); return f<N - 1>(m); }
template <> int f<0>(std::map<int, std::string> &m) { return int(m.size()); }
int main() {
    std::map<int, std::string> m;
    std::vector<int> v(100);
    std::sort(v.begin(), v.end());
    return f<120>(m) - 120 + v[0];
}
"""

MAIN = """
public class Main {
    public static void main(String[] a) throws Exception {
        var map = new java.util.TreeMap<Integer, String>();
        for (int i = 0; i < 200000; i++) map.merge(i % 977, "x", String::concat);
        int sum = 0;
        for (var s : map.values()) sum = sum * 31 + s.length();
        var md = java.security.MessageDigest.getInstance("SHA-256");
        System.out.println(sum + " " + java.util.HexFormat.of().formatHex(md.digest(map.toString().getBytes())));
    }
}
"""

REDIS = """
redis-server --port 0 --unixsocket $PWD/s --save '' --dir $PWD > log 2>&1 & pid=$!
c() { redis-cli -s $PWD/s "$@"; }
for i in $(seq 100); do c ping > /dev/null 2>&1 && break; sleep 0.1; done
for i in $(seq 50); do echo "set k$i v$i"; echo "lpush l $i"; done | c | sort | uniq -c
c eval "local s=0 for i=1,1000000 do s=s+i end return s" 0
c sort l desc limit 0 5; c dbsize; c shutdown nosave; wait $pid; echo ended $?
"""

NGINX = """
mkdir -p www logs; seq 20000 > www/numbers
cat > conf <<END
daemon off; pid $PWD/pid; error_log stderr crit; worker_processes 2;
events { worker_connections 64; }
http { access_log off; client_body_temp_path $PWD/t1; proxy_temp_path $PWD/t2; fastcgi_temp_path $PWD/t3;
uwsgi_temp_path $PWD/t4; scgi_temp_path $PWD/t5;
server { listen unix:$PWD/s; root $PWD/www; gzip on; gzip_types *; } }
END
rm -f s; nginx -p $PWD -c $PWD/conf & pid=$!
for i in $(seq 100); do [ -S s ] && break; sleep 0.1; done
for i in $(seq 20); do curl -s --unix-socket s http://x/numbers | md5sum; done | uniq -c
curl -s --compressed --unix-socket s http://x/numbers | md5sum
curl -s -o /dev/null -w '%{http_code}\\n' --unix-socket s http://x/none
kill -QUIT $pid; wait $pid; echo ended $?
"""

GIT = """
rm -rf r; git init -q -b main r; cd r; git config user.email a@b; git config user.name n
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
for i in $(seq 20); do seq $i 400 > f$i; git add f$i; git commit -qm "$i"; done
git gc -q; git fsck; git log --oneline | md5sum; git diff HEAD~5 | md5sum; git archive HEAD | md5sum
"""

POSTGRES = """
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); rm -rf data
$bin/initdb --no-sync --auth=trust -D data > /dev/null; echo initdb $?
$bin/pg_ctl -w -D data -l log -o "-k $PWD -h ''" start > /dev/null; echo started $?
q() { $bin/psql -h $PWD -AtX postgres "$@"; }
q -c 'create table t as select i, md5(i::text) m from generate_series(1, 50000) i'
q -c 'create index on t(m)' -c "select count(*), max(m), sum(i) from t where m > '8'"
$bin/pgbench -h $PWD -i -q postgres > /dev/null 2>&1; echo pgbench -i $?
$bin/pgbench -h $PWD -c 2 -t 100 postgres 2>/dev/null | grep -c 'actually processed: 200/200'
q -c 'select sum(abalance) = sum(delta) from pgbench_accounts, (select sum(delta) delta from pgbench_history) h' > /dev/null
$bin/pg_ctl -w -D data -m fast stop > /dev/null; echo stopped $?
"""

PROGRAMS = (
    Program(
        "bash",
        "bash -c 'for i in {1..20000}; do s=$(( (s * 31 + i) % 99991 )); a[i]=$s; done; echo $s ${#a[@]}'",
        ("bash",),
    ),
    Program(
        "perl",
        "perl -MDigest::MD5=md5_hex -e 'for (1..200000) { $h{md5_hex($_)} = $_ } "
        'print md5_hex(join ",", sort keys %h), "\\n"\'',
        ("perl",),
    ),
    Program(
        "ruby",
        "ruby -e 'require \"digest\"; a = (1..100000).map { |i| Digest::MD5.hexdigest(i.to_s) }; "
        "puts Digest::MD5.hexdigest(a.sort.join); exit 3'",
        ("ruby",),
    ),
    Program(
        "pypy3",
        "pypy3 -c 'print(sum(hash(str(i).encode().hex()) & 0 or i * i for i in range(300000)))'",
        ("pypy3",),
    ),
    Program("git", GIT, ("git",)),
    Program("gcc", "g++ -O2 -c -o u.o unit.cc; md5sum u.o", ("g++",), ("cc1plus",)),
    Program("clang", "clang++ -O2 -c -o u.o unit.cc; md5sum u.o", ("clang++",), ("libLLVM-14.so.1",)),
    Program(
        "node",
        "node -e 'const c = require(\"crypto\"); let o = {}; for (let i = 0; i < 3e5; i++) o[i % 1000] = "
        '(o[i % 1000] || 0) + i; console.log(c.createHash("sha256").update(JSON.stringify(o)).digest("hex")); '
        "process.exit(5)'",
        ("node",),
        ("node",),
    ),
    Program("java", "javac -d . Main.java && java -cp . Main; echo $?", ("java", "javac"), ("libjvm.so",)),
    Program("redis", REDIS, ("redis-server", "redis-cli")),
    Program("nginx", NGINX, ("nginx", "curl")),
    Program(
        "gdb",
        "gdb -q -batch -nx -ex 'break main' -ex run -ex 'info symbol $pc' -ex finish -ex 'print 6*7' "
        "--args ./inner 2>&1 | grep -v '^warning\\|debuginfod\\|Download\\|^Breakpoint\\|0x\\|thread'",
        ("gdb", "gcc"),
    ),
    Program("postgres", POSTGRES, ()),
)

# What a program of root's does as somebody else.
USERS = {"postgres": "postgres"}


@pytest.fixture
def run(tmp_path: Path) -> Preloaded:
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/") and parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    made = Preloaded(tmp_path)
    made.library = Path(shutil.copy(preload_library(), tmp_path))
    made.library.chmod(0o755)
    return made


def prefix_of(program: Program) -> tuple[str, ...]:
    user = USERS.get(program.name)
    if not user:
        return ()
    require_root()
    if user not in (one.pw_name for one in pwd.getpwall()):
        pytest.skip(f"there is no user {user}")
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        pytest.skip("PostgreSQL is not installed")
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "env")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_program_works_as_without_from_the_store(
    run: Preloaded, tmp_path: Path, program: Program
) -> None:
    require_huge_disk(tmp_path)
    for name in program.needs:
        if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"):
            tool(name)
    prefix = prefix_of(program)
    work = tmp_path / "work"
    work.mkdir()
    (work / "unit.cc").write_text(UNIT)
    (work / "Main.java").write_text(MAIN)
    (work / "inner.c").write_text("int main(void) { return 0; }\n")
    if program.name == "gdb":
        assert run.plain(tool("gcc"), "-o", work / "inner", work / "inner.c").status == 0
    run.store.mkdir(mode=0o700)
    if prefix:
        shutil.chown(work, USERS[program.name])
        shutil.chown(run.store, USERS[program.name])
    script = f"cd {shlex.quote(str(work))}; PATH=$PATH:/usr/sbin\n{program.script}"
    command = (*prefix, "sh", "-c", script)
    env = {"LC_ALL": "C", "MALLOC_ARENA_MAX": "2", "HOME": str(work)}
    plain = run.plain(*command, **env)
    assert plain.stdout, plain.stderr
    filling = run(*command, PYHUGETEXT_BUILD="always", PYHUGETEXT_BACKING="store", **env)
    warm = run(*command, PYHUGETEXT_BUILD="never", PYHUGETEXT_BACKING="store", **env)
    for ended in (filling, warm):
        assert (ended.status, ended.stdout) == (plain.status, plain.stdout), ended.stderr
        assert ended.stderr == plain.stderr or "log" in plain.stderr
    assert warm.reports
    check(program, warm)


def check(program: Program, warm: Ended) -> None:
    """What is large enough is covered: small objects whole, of others what was used at a start."""
    found = set()
    for report in warm.reports.values():
        assert report["settings_problems"] == []
        for region in report["regions"]:
            name = os.path.basename(region["path"])
            assert name != NAME or not region["mapped_bytes"]
            assert region["mapped_bytes"] <= region["coverable_bytes"]
            if region["mapped_bytes"]:
                assert region["backing"] == "store", region
                found.add(name)
            elif region["coverable_bytes"] > HUGE:
                assert region["status"] not in ("pending", "ok"), region
    missing = set(program.covered) - found
    assert not missing, (missing, {
        (r["path"], r["reason"]) for report in warm.reports.values()
        for r in report["regions"] if os.path.basename(r["path"]) in missing
    })  # fmt: skip
