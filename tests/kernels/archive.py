"""Packages of Debian's suites, looked up and fetched by apt in a state of its own: the machine's lists,
packages and settings are neither read nor changed.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kernels.needs import Failure, Skip, run

KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
# Dates are not checked: a mirror may stand still. Signatures are.
SETTINGS = """\
Dir::State "{place}/state"; Dir::Cache "{place}/cache"; Dir::Etc "{place}/etc";
Dir::State::status "{place}/status"; Dir::Log "{place}"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";
APT::Architecture "{architecture}"; APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User ""; Acquire::Languages "none"; Acquire::Retries "2";
Acquire::Check-Valid-Until "false"; Acquire::Check-Date "false";
"""


class Archive:
    """One suite for one architecture."""

    def __init__(self, work: Path, suite: str, architecture: str) -> None:
        self.suite, self.architecture = suite, architecture
        self.place = work / "apt" / f"{suite}-{architecture}"
        self.debs = work / "debs" / f"{suite}-{architecture}"
        self._updated = False

    def _call(self, *command: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "APT_CONFIG": str(self.place / "apt.conf"), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            command, env=environ, cwd=self.debs, capture_output=True, text=True, check=False
        )

    def update(self) -> None:
        """Fetches the lists; skips where there is no network or no such suite."""
        if self._updated:
            return
        if not KEYS.exists():
            raise Skip(f"{KEYS} is missing: install it (Debian: debian-archive-keyring)")
        for folder in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d",
                       "etc/preferences.d", "etc/trusted.gpg.d", "etc/sources.list.d"):  # fmt: skip
            (self.place / folder).mkdir(parents=True, exist_ok=True)
        self.debs.mkdir(parents=True, exist_ok=True)
        (self.place / "status").touch()
        settings = SETTINGS.format(place=self.place, architecture=self.architecture)
        (self.place / "apt.conf").write_text(settings)
        (self.place / "etc/sources.list").write_text("".join(self._sources()))
        result = self._call("apt-get", "-q", "--error-on=any", "update")
        if result.returncode:
            said = [line for line in result.stderr.splitlines() if line.startswith(("E:", "W:"))]
            raise Skip(
                f"Debian's {self.suite} cannot be reached ({' '.join(said[:1]) or 'no reason given'}):"
                " a network, or DEBIAN_MIRROR, is needed"
            )
        self._updated = True

    def _sources(self) -> list[str]:
        places = [(MIRROR, self.suite)]
        if self.suite not in ("sid", "unstable"):  # which has no security suite of its own
            places.append((f"{MIRROR}-security", f"{self.suite}-security"))
        return [f"deb [signed-by={KEYS}] {url} {suite} main\n" for url, suite in places]

    def depends(self, package: str) -> list[str]:
        """The names of what it depends on directly; skips where there is no such package."""
        self.update()
        result = self._call("apt-cache", "depends", package)
        found = re.findall(r"^ *\|?(?:Pre)?Depends: (\S+)$", result.stdout, re.M)
        if result.returncode or not result.stdout:
            raise Skip(f"Debian's {self.suite} has no package {package} for {self.architecture}")
        return found

    def fetch(self, packages: Sequence[str]) -> list[Path]:
        """The files of these packages, downloaded where they are not here yet."""
        self.update()
        told = self._call("apt-cache", "show", "--no-all-versions", *packages).stdout
        files = {}
        for part in told.split("\n\n"):  # a call for all: apt reads the suite's lists at each
            fields = dict(re.findall(r"^(Package|Filename|Version): (\S+)$", part, re.M))
            if len(fields) == 3:
                # In the pool's name the epoch is missing; apt-get writes it as %3a.
                name = fields["Filename"].rpartition("/")[2]
                name = name.replace("_", f"_{_epoch(fields['Version'])}", 1)
                files[fields["Package"]] = self.debs / name
        unknown = [package for package in packages if package not in files]
        if unknown:
            raise Skip(f"Debian's {self.suite} has no package {unknown[0]} for {self.architecture}")
        missing = [package for package in packages if not files[package].exists()]
        if missing and self._call("apt-get", "-q", "download", *missing).returncode:
            raise Skip(f"{' '.join(missing)} could not be downloaded from Debian's {self.suite}")
        for package in missing:
            if not files[package].exists():
                raise Failure(f"apt-get downloaded {package}, but not as {files[package].name}")
        return [files[package] for package in packages]

    def unpack(self, packages: Sequence[str], place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        for file in self.fetch(packages):
            run(["dpkg-deb", "-x", file, place], f"{file.name} cannot be unpacked")


def _epoch(version: str) -> str:
    epoch, colon, _ = version.partition(":")
    return f"{epoch}%3a" if colon else ""
