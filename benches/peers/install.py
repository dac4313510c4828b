"""Gets what is compared and what measures, into a directory of its own where the package manager allows that."""

import os
import shutil
import subprocess
from pathlib import Path

from measure import GNU_TIME

ROOT = Path(__file__).resolve().parents[2]
APT = {"borg": "borgbackup", "age": "age", "age-keygen": "age", "zstd": "zstd", "tar": "tar", "taskset": "util-linux"}
APT_LIBRARIES = {"bupstash": ("libsodium-dev", "pkg-config")}
CARGO = {"rustic": ("rustic-rs", "--no-default-features"), "bupstash": ("bupstash",)}
# Newer than the stable release that many machines have; the package needs no more than an old libc.
RESTIC_FROM = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main"


def ours(given):
    """The program of this repository: the given one, or built now."""
    if given:
        return Path(given).resolve()
    subprocess.run(["cargo", "build", "--release", "-p", "backup-cli"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return ROOT / target / "release/backup"


def missing(programs, directories, backup):
    """Which of the programs' needs are not there: name of the program, and the needs."""
    found = {}
    for program in programs:
        lacking = program.find(directories, backup if program.name == "backup" else None)
        if lacking:
            found[program.name] = lacking
    return found


def install(lacking, tools):
    """Installs what can be had; what goes wrong is printed, and the program stays missing."""
    needs = [need for needs in lacking.values() for need in needs]
    packages = [APT[need] for need in needs if need in APT]
    packages += [library for need in needs for library in APT_LIBRARIES.get(need, ())]
    if not Path(GNU_TIME).exists():
        packages.append("time")
    attempt(apt_install, sorted(set(packages)))
    for need in needs:
        if need == "restic":
            attempt(newer_restic, tools)
            if not shutil.which("restic", path=f"{tools}/bin"):
                attempt(apt_install, ["restic"])
        if need in CARGO:
            attempt(cargo_install, CARGO[need], tools)


def attempt(how, *arguments):
    try:
        how(*arguments)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"not installed: {error}")


def apt_install(packages):
    if packages:
        as_root = [] if os.geteuid() == 0 else ["sudo"]
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*as_root, "apt-get", "update", "-qq"], check=True)
        subprocess.run(
            [*as_root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], check=True, env=env
        )


def apt_server():
    """PostgreSQL, without a cluster that nobody asked for."""
    settings = Path("/etc/postgresql-common/createcluster.d/peers.conf")
    if os.geteuid() == 0 and not settings.parent.exists():
        settings.parent.mkdir(parents=True)
    if os.geteuid() == 0:
        settings.write_text("create_main_cluster = false\n")
    apt_install(["postgresql"])


def cargo_install(crate, tools):
    subprocess.run(["cargo", "install", "--locked", "--root", tools, *crate], check=True)


def newer_restic(tools):
    """restic of a newer Debian, unpacked into the tools' directory; the machine's own packages stay as they are."""
    place = tools / "apt"
    for directory in ("lists/partial", "cache/archives/partial"):
        (place / directory).mkdir(parents=True, exist_ok=True)
    (place / "sources").write_text(RESTIC_FROM + "\n")
    settings = {
        "Dir::Etc::sourcelist": place / "sources",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": place / "lists",
        "Dir::Cache": place / "cache",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", *options, "update", "-qq"], check=True)
    subprocess.run(["apt-get", *options, "download", "restic"], check=True, cwd=place)
    package = sorted(place.glob("restic_*.deb"))[-1]
    subprocess.run(["dpkg", "-x", package, place / "unpacked"], check=True)
    (tools / "bin").mkdir(exist_ok=True)
    shutil.copy2(place / "unpacked/usr/bin/restic", tools / "bin/restic")
