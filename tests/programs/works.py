"""Programs that people have, each with real work whose output is the same each time."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from typing import NamedTuple


class Work(NamedTuple):
    """A shell script for /bin/sh -e, run in an empty directory; `prepare` runs there before and is
    not measured. `program` is the file whose text is looked at, `start` what its start costs."""

    name: str
    program: str
    script: str
    prepare: str = ""
    start: tuple[str, ...] = ()  # arguments of a start; ("--version",) where there are none
    user: str = ""  # who runs it, for what refuses to be root


_CPP = r"""
cat > large.cpp <<'END'
#include <algorithm>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <vector>
template <int N> struct Row { std::map<std::string, std::vector<int>> cells; int at = N; };
template <int N> int fill(Row<N> &row) {
    for (int i = 0; i < N; ++i) row.cells[std::to_string(i)].push_back(i);
    return static_cast<int>(row.cells.size()) + fill<N - 1>(*reinterpret_cast<Row<N - 1> *>(&row));
}
template <> int fill<0>(Row<0> &) { return 0; }
int main() {
    Row<40> row;
    std::regex words("[a-z]+");
    std::cout << fill(row) << std::regex_match("abc", words) << "\n";
}
END
"""

_JAVA = r"""
cat > Hello.java <<'END'
import java.util.*;
public class Hello {
    public static void main(String[] words) {
        Map<String, Integer> counts = new TreeMap<>();
        for (int i = 0; i < 2000000; i++) counts.merge("k" + i % 1000, i % 7, Integer::sum);
        System.out.println(counts.hashCode());
        System.exit(counts.size() == 1000 ? 5 : 6);
    }
}
END
javac Hello.java
"""

_GIT = r"""
export HOME=$PWD GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
rm -rf repository copy && git init -q repository && cd repository
for n in 1 2 3 4 5; do seq $((n * 100)) $((n * 300)) > file$((n % 2)); git add .; git commit -qm "n $n"; done
git log --stat --format=%H; git diff HEAD~3 | md5sum; git gc -q; git fsck; git clone -q . ../copy
cd ../copy; git blame file1 | md5sum; git no-such-command
"""

_POSTGRES = r"""
PATH=@BIN@:$PATH; rm -rf data; export PGUSER=postgres PGHOST=$PWD PGDATABASE=postgres
initdb -D data -U postgres -A trust --no-sync --no-instructions > initdb.log
pg_ctl -D data -w -l log -o "-k $PWD -c listen_addresses=''" start > start.log
pgbench -i -q -s 2 2> /dev/null
pgbench -S -n -t 2000 -c 2 | grep -E '^(transaction type|number of (transactions|failed))'
psql -Atc "select sum(abalance), count(*), md5(string_agg(aid::text, ',' order by aid)) from pgbench_accounts"
psql -Atc "select regexp_replace(md5(g::text), '[a-f]+', 'x', 'g') from generate_series(1, 500) g" | md5sum
@MORE@
pg_ctl -D data -w -m fast stop > stop.log
"""

_REDIS = r"""
redis-server --port 0 --unixsocket $PWD/socket --save '' --daemonize yes --pidfile $PWD/pid > log
until redis-cli -s socket ping > ping 2>&1; do sleep 0.05; done
ask() { redis-cli -s socket "$@"; }
ask debug populate 20000 > /dev/null; ask dbsize; ask set a 1; ask incr a
ask eval 'local s = 0 for i = 1, 100000 do s = s + i % 7 end return s' 0
ask zadd z 1 a 2 b 3 c; ask zrange z 0 -1 withscores; ask lpush l 1 2 3; ask sort l
@MORE@
number=$(cat pid); ask shutdown nosave || true
while kill -0 $number 2> /dev/null; do sleep 0.05; done
"""

_NGINX = r"""
mkdir -p logs www; seq 20000 > www/index.html
cat > conf <<END
pid $PWD/pid; error_log $PWD/logs/error; events {}
http { access_log off; gzip on; client_body_temp_path $PWD/body;
  proxy_temp_path $PWD/proxy; fastcgi_temp_path $PWD/f; uwsgi_temp_path $PWD/u; scgi_temp_path $PWD/s;
  server { listen unix:$PWD/socket; root $PWD/www; } }
END
nginx -c $PWD/conf -p $PWD 2> log
for n in 1 2 3 4 5; do
  curl -s --compressed --unix-socket socket http://h/ | md5sum
  curl -s -o /dev/null -w '%{http_code}\n' --unix-socket socket http://h/none
done
@MORE@
number=$(cat pid); nginx -c $PWD/conf -p $PWD -s quit 2> log
while kill -0 $number 2> /dev/null; do sleep 0.05; done
"""

_NODE = r"""
node -e '
const zlib = require("zlib"), crypto = require("crypto");
let text = ""; for (let i = 0; i < 60000; i++) text += JSON.stringify({i, s: "x".repeat(i % 9)});
console.log(crypto.createHash("sha256").update(text).digest("hex"), zlib.gzipSync(text).length,
  text.replace(/[0-9]+/g, n => n * 2).length); process.exit(3)'
"""

_BASH = r"""
bash -c 'declare -A a; for ((i = 0; i < 60000; i++)); do a[$((i % 100))]+=$i; done
for k in "${!a[@]}"; do echo "$k ${#a[$k]}"; done | sort | md5sum; exit 4'
"""

_PERL = r"""
perl -e 'my %c; $c{$_ % 1000} .= sprintf("%x", $_) for 1..400000;
print join(",", map { $_ . length($c{$_}) } sort keys %c), "\n"; exit 6'
"""

_RUBY = r"""
ruby -e 'require "json"; require "digest"; a = (1..60000).map { |i| {"k" => i.to_s * (i % 5)} }
puts Digest::SHA256.hexdigest(JSON.generate(a)); puts a.group_by { |h| h["k"].size }.keys.sort.inspect; exit 7'
"""

_PYPY = r"""
pypy3 -c 'import hashlib, json, sys
a = {str(i): list(range(i % 20)) for i in range(60000)}
print(hashlib.sha256(json.dumps(a).encode()).hexdigest(), sum(len(v) for v in a.values()))
sys.exit(8)'
"""

_GDB = r"""
gdb -nx -batch -ex 'break main' -ex run -ex 'print sizeof(struct row)' -ex backtrace -ex 'info line main' \
  -ex 'python print(sum(range(1000)))' -ex continue ./debugged 2>&1 | grep -v -e '^warning' -e process -e debuginfod
"""
_DEBUGGED = r"""
cat > debugged.c <<'END'
struct row { int a[7]; } rows[3];
int main(void) { return rows[0].a[0]; }
END
gcc -g -o debugged debugged.c
"""


def _first(*patterns: str) -> str:
    """The first file there is."""
    for pattern in patterns:
        found = shutil.which(pattern) or next(iter(sorted(glob.glob(pattern))), "")
        if found:
            return os.path.realpath(found)
    return ""


def works() -> Iterator[Work]:
    """Those of which the program is installed."""
    postgres = _first("/usr/lib/postgresql/*/bin/postgres", "postgres")
    cc1plus = _first("/usr/lib*/gcc/*/*/cc1plus")
    jvm = _first("java")
    on_path = {name: _first(name) for name in (
        "node", "git", "gdb", "bash", "perl", "ruby", "pypy3", "redis-server", "nginx", "clang++"
    )}  # fmt: skip
    scripts = _POSTGRES.replace("@BIN@", os.path.dirname(postgres))
    user = "postgres" if os.geteuid() == 0 else ""
    yield Work("postgres", postgres, scripts, user=user)
    yield Work("redis", on_path["redis-server"], _REDIS)
    yield Work("nginx", on_path["nginx"], _NGINX, start=("-v",))
    yield Work("node", on_path["node"], _NODE)
    yield Work("clang++", on_path["clang++"], "clang++ -O2 -S -o - large.cpp | md5sum", _CPP)
    yield Work("g++", cc1plus, "g++ -O2 -S -o - large.cpp | md5sum", _CPP)
    yield Work("git", on_path["git"], _GIT)
    yield Work("gdb", on_path["gdb"], _GDB, _DEBUGGED)
    yield Work("bash", on_path["bash"], _BASH)
    yield Work("perl", on_path["perl"], _PERL)
    yield Work("ruby", on_path["ruby"], _RUBY)
    yield Work("pypy3", on_path["pypy3"], _PYPY)
    if _first("javac"):
        yield Work("java", jvm, "java -Xshare:auto Hello", _JAVA, start=("-version",))
