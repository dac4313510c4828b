"""Rounds over a PostgreSQL server: full backups, incremental ones after a load, restores, the log.

A round does phase after phase, and in each the programs one after the other, in an order that moves on with the round, as
`rounds.py` does it with files. Every program gets a repository of its own in every round.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import install
import measure
import trees
from measure import Cost, Failed
from pgserver import PROGRAMS, Server
from pgtools import Copy, Ours, PgBackRest
from rounds import say

VARIANT, CORPUS = "postgres", "pgbench"
PHASES = ("full", "incremental", "restore", "log")
SCALE = 100
# Of the load between the backups, at the whole scale.
TRANSACTIONS = 20_000
# Of the log that is archived: just below 1 GB.
SEGMENTS = 60
SAMPLE_SECONDS = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


def run(options, work, results, begun, until):
    """Everything, as the command line wants it; returns whether it was all done."""
    place = (work / "postgres").resolve()
    place.mkdir(parents=True, exist_ok=True)
    programs, pgbackrest = find(options.install)
    server = Server(place, programs)
    # Where it was built the server's user may not be able to go.
    ours = place / "backup"
    shutil.copy2(install.ours(options.backup), ours)
    server.mine(place)
    found = [Ours(ours, server), *([PgBackRest(pgbackrest, server)] if pgbackrest else []), Copy(server)]
    begun()
    for program in found:
        results.add("program", name=program.name, version=program.version())
        say(f"{program.name}: {program.version()}")
    if not pgbackrest:
        results.add("program", name="pgbackrest", missing=["pgbackrest"])
    results.add("program", name="postgres", version=server.run("postgres", "--version"))
    with server:
        return Rounds(server, results, found, options.scale, options.phases or PHASES).run(options.rounds, until)


def find(may_install):
    """Where the server's programs are, and pgBackRest."""
    programs = next((place for place in PROGRAMS if (place / "pgbench").exists()), None)
    if programs is None and may_install:
        install.attempt(install.apt_server)
        programs = next((place for place in PROGRAMS if (place / "pgbench").exists()), None)
    if programs is None:
        sys.exit("no PostgreSQL 13 to 15 is there: --install, or apt-get install postgresql")
    pgbackrest = shutil.which("pgbackrest")
    if pgbackrest is None and may_install:
        install.attempt(install.apt_install, ["pgbackrest"])
        pgbackrest = shutil.which("pgbackrest")
    return programs, pgbackrest


class Rounds:
    """All rounds over one server."""

    def __init__(self, server, results, programs, scale, phases=PHASES):
        self.server, self.results, self.programs, self.phases = server, results, programs, phases
        self.scale = max(1, round(SCALE * scale))
        self.transactions = max(100, round(TRANSACTIONS * scale))
        self.segments = max(4, round(SEGMENTS * min(1, scale)))
        self.longest = 0.0

    def run(self, rounds, until):
        started = time.monotonic()
        self.server.fill(self.scale)
        self.log = self.server.segments(self.segments, seed=1_000_000)
        _, size = trees.count(self.server.data / "base")
        say(f"pgbench, scale {self.scale}: {size / 1e6:.0f} MB ({time.monotonic() - started:.0f} s)")
        self.results.add("pgbench", scale=self.scale, bytes=size, transactions=self.transactions, segments=len(self.log))
        for number in range(1, rounds + 1):
            key = {"variant": VARIANT, "corpus": CORPUS, "round": number}
            if self.results.of("done", **key):
                continue
            if until and time.monotonic() + self.longest > until:
                return False
            started = time.monotonic()
            self.round(number)
            self.longest = max(self.longest, time.monotonic() - started)
            self.results.add("done", **key, seconds=round(time.monotonic() - started, 1))
        return True

    def round(self, number):
        say(f"{CORPUS}, round {number}")
        rounds = self.server.work / "rounds"
        shutil.rmtree(rounds, ignore_errors=True)
        shift = (number - 1) % len(self.programs)
        order = self.programs[shift:] + self.programs[:shift]
        homes = {program.name: self.server.mine(rounds / program.name) for program in order}
        for program in order:
            program.begin(homes[program.name])
        copying = [program for program in order if not isinstance(program, Copy)]
        for phase, work in (("full", self.backup), ("incremental", self.backup), ("restore", self.restore)):
            if phase not in self.phases:
                continue
            loaded = self.load(number) if phase == "incremental" else []
            for program in copying:
                self.archive(program, homes[program.name], loaded)
                self.row(number, phase, program, homes[program.name], work)
        if number == 1 and "restore" in self.phases:
            self.compare(copying, homes)
        for program in order if "log" in self.phases else ():
            self.server.archive_by(None)
            self.row(number, "log", program, homes[program.name], self.push)
        self.server.archive_by(None)

    def row(self, number, phase, program, home, work):
        """Does one phase of one program, and records it."""
        before = program.stored(home)
        row = {"variant": VARIANT, "corpus": CORPUS, "round": number, "phase": phase, "program": program.name}
        try:
            cost = work(program, home, phase)
        except (Failed, OSError) as error:
            self.results.add("run", **row, failed=str(error))
            say(f"  {phase} {program.name} FAILED: {error}")
            return
        # Of backups without the log, and of the log without backups.
        which = 1 if phase == "log" else 0
        stored = program.stored(home)[which]
        cost.update(stored=stored, added=stored - before[which])
        self.results.add("run", **row, **cost)
        more = f", {cost['segments_per_second']:.1f} segments/s" if phase == "log" else ""
        say(
            f"  {phase:11} {program.name:10} {cost['wall']:7.2f} s, {cost['user'] + cost['system']:6.2f} s of CPU, "
            f"{cost['peak_kib'] // 1024:4} MiB, {cost['added'] / 1e6:8.2f} MB{more}"
        )

    def load(self, number):
        """Changes the database and holds the log of it back; the log's files."""
        self.server.archive_by(None)
        self.server.load(self.transactions, seed=number)
        self.server.switch()
        self.server.sql("checkpoint")
        return self.server.ready()

    def archive(self, program, home, files):
        """From now on this program archives, and before anything is measured these files, too."""
        self.server.archive_by(None)
        self.server.mark(self.server.ready(), "done")
        self.server.mark(files, "ready")
        self.server.archive_by(program.push(home))
        self.server.drained()

    def backup(self, program, home, phase):
        trees.warm(self.server.data / "base")
        self.server.sql("checkpoint")
        cost = measure.run(program.backup(home, phase)).row()
        self.server.drained()
        return cost

    def restore(self, program, home, _):
        out = home / "restored"
        if program.name == "pgbackrest":
            # It restores into directories that exist.
            self.server.mine(out).chmod(0o700)
        trees.warm(home / "repository")
        return measure.run(program.restore(home, out)).row()

    def push(self, program, home, _):
        """The same segments by every program: from the moment when the server may archive until the last is archived."""
        server = self.server
        server.mark(server.ready(), "done")
        server.mark(self.log, "ready")
        server.warm_log(self.log)
        os.sync()
        memory = Memory(program.executables)
        before, started = busy(), time.monotonic()
        server.archive_by(program.push(home))
        server.drained(memory.look)
        wall = time.monotonic() - started
        user, system = (after - then for after, then in zip(busy(), before))
        started = time.monotonic()
        os.sync()
        sync = time.monotonic() - started
        cost = Cost(wall=wall, user=user, system=system, peak_kib=memory.peak_kib, sync=sync).row()
        return {**cost, "segments": len(self.log), "segments_per_second": round(len(self.log) / wall, 2)}

    def compare(self, programs, homes):
        """Starts what was restored, and asks it what the original is asked."""
        expected = self.server.content()
        for program in programs:
            data, socket = homes[program.name] / "restored", self.server.mine(homes[program.name] / "socket")
            options = (f"unix_socket_directories={socket}", "archive_mode=off")
            found = "it does not start"
            try:
                self.server.start(data, *options)
                found = self.server.content(socket)
                self.server.stop(data)
            except Failed as error:
                say(f"  {error}")
            differences = [] if found == expected else [f"{found} is not {expected}"]
            self.results.add("compared", variant=VARIANT, corpus=CORPUS, program=program.name, differences=differences)
            say(f"  {program.name} restored {'the same' if not differences else differences[0]}")


class Memory:
    """The most that processes of these executables had in memory together, as far as looking now and then shows it."""

    def __init__(self, executables):
        self.executables = {os.path.realpath(path) for path in executables}
        self.peak_kib, self.next = 0, 0.0

    def look(self):
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + SAMPLE_SECONDS
        total = 0
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            try:
                if os.readlink(f"{entry.path}/exe") in self.executables:
                    total += int(Path(entry.path, "statm").read_text().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
            except OSError:
                # It has ended.
                continue
        self.peak_kib = max(self.peak_kib, total)


def busy():
    """Seconds that the machine's processors were busy, for programs and for the system: what archives is started by the
    server, and nobody waits for it."""
    user, nice, system = (int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:4])
    return (user + nice) / TICKS, system / TICKS
