"""Rounds: every program does every phase once, phase by phase, in an order that moves on by one each round.

Nothing is deleted within a round, because file systems create files more slowly soon after many were deleted; each
program restores into a directory that did not exist. Before a round, what earlier ones left is deleted if the space is
needed, and then there is a rest.
"""

import os
import shutil
import subprocess
import time

import measure
import trees
from tools import Place

PHASES = ("initial", "unchanged", "changed", "restore", "check")


class Rounds:
    """All rounds of one variant over corpora; each row goes to the results at once."""

    def __init__(self, variant, work, results, programs, phases=PHASES, rest=70, server=None):
        self.variant, self.work, self.results = variant, work, results
        self.programs, self.phases, self.rest = programs, phases, rest
        # What gives each program a bucket and counts its traffic, in the remote variant.
        self.server = server
        self.longest = 0.0

    def run(self, corpora, rounds, until=None):
        """Does what is not done yet; returns whether all is done, or the time is up."""
        for corpus in corpora:
            for number in range(1, rounds + 1):
                key = {"variant": self.variant, "corpus": corpus.name, "round": number}
                if self.results.of("done", **key):
                    continue
                took = [row["seconds"] for row in self.results.of("done", **{**key, "round": number - 1})]
                if until and time.monotonic() + max([self.longest, *took]) > until:
                    return False
                started = time.monotonic()
                self.round(corpus, number)
                self.results.add("done", **key, seconds=round(time.monotonic() - started, 1))
                self.longest = max(self.longest, time.monotonic() - started)
        return True

    def round(self, corpus, number):
        say(f"{corpus.name}, round {number}")
        corpus.mutation.revert()
        where = self.work / "rounds" / f"{self.variant}-{corpus.name}-{number}"
        self.room(corpus, where)
        shift = (number - 1) % len(self.programs)
        order = self.programs[shift:] + self.programs[:shift]
        places = {}
        with self.server.started(where) if self.server else nothing() as server:
            for program in order:
                place = Place(where / program.name)
                place.home.mkdir(parents=True)
                place.bucket = server.bucket(program.name) if server else None
                if self.ready(program, place):
                    places[program.name] = place
            try:
                for phase in self.phases:
                    if phase == "changed":
                        corpus.mutation.apply()
                    for program in order:
                        if program.name in places:
                            row = {"corpus": corpus.name, "round": number, "phase": phase, "program": program.name}
                            if not self.phase(program, places[program.name], corpus, row, server):
                                del places[program.name]
                if number == 1 and "restore" in self.phases:
                    self.compare(corpus, order, places)
            finally:
                corpus.mutation.revert()

    def phase(self, program, place, corpus, row, server):
        """Runs and records one phase; returns whether the program can go on."""
        out = place.directory / "restored"
        if row["phase"] == "restore":
            out.mkdir()
            command = program.restore(place, out)
        elif row["phase"] == "check":
            command = program.check(place)
        else:
            command = program.backup(place, corpus.data, row["phase"])
        if command is None:
            return True
        # Just before: a system may give memory back that nobody used for a while, and then the first programs of a phase
        # would read what the last ones find in memory.
        if row["phase"] not in ("restore", "check"):
            trees.warm(corpus.data, content=row["phase"] == "initial")
        elif place.repository.exists():
            trees.warm(place.repository)
        before = None if server else measure.stored_bytes(place.repository)
        if server:
            server.traffic()
        try:
            cost = measure.run(command).row()
        except (measure.Failed, OSError) as error:
            self.results.add("run", variant=self.variant, **row, failed=str(error))
            say(f"  {row['phase']} {program.name} FAILED: {error}")
            return False
        if row["phase"] not in ("restore", "check"):
            place.last = row["phase"]
        if server:
            cost.update(server.traffic())
        else:
            cost["stored"] = measure.stored_bytes(place.repository)
            cost["added"] = cost["stored"] - before
        self.results.add("run", variant=self.variant, **row, **cost)
        say(f"  {row['phase']:9} {program.name:8} {cost['wall']:8.2f} s, {cost['peak_kib'] // 1024} MiB")
        return True

    def ready(self, program, place):
        """Prepares a program and its repository; returns whether that went well."""
        try:
            program.prepare(place)
            command = program.init(place)
            if command is not None:
                measure.just_run(command)
            return True
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or b""
            text = f"{error} {said.decode(errors='replace')}"
            say(f"  {program.name} FAILED to begin: {text}")
            self.results.add("note", program=program.name, text=text)
            return False

    def compare(self, corpus, order, places):
        """Compares what was restored with what was backed up last, once for every program."""
        # The pipe has no second backup; its archive holds the tree as it was first.
        for changed in (True, False):
            corpus.mutation.apply() if changed else corpus.mutation.revert()
            for program in order:
                place = places.get(program.name)
                if place is None or (place.last == "changed") != changed:
                    continue
                out = place.directory / "restored"
                if not any(out.iterdir()):
                    # It does not restore.
                    continue
                root = program.restored(out, corpus.data)
                found = trees.differences(corpus.data, root)
                self.results.add(
                    "compared", variant=self.variant, corpus=corpus.name, program=program.name, differences=found
                )
                say(f"  {program.name} restored {'the same' if not found else 'something else: ' + found[0]}")

    def room(self, corpus, where):
        """Makes room for a round, and rests if that meant deleting."""
        rounds = self.work / "rounds"
        rounds.mkdir(exist_ok=True)
        shutil.rmtree(where, ignore_errors=True)
        # A repository and a restored tree for each, and files take whole blocks.
        need = len(self.programs) * (2 * corpus.about["bytes"] + 4096 * corpus.about["files"])
        if shutil.disk_usage(rounds).free < need + (2 << 30):
            for old in sorted(rounds.iterdir()):
                say(f"  deleting {old.name}, then resting {self.rest} s")
                shutil.rmtree(old)
            os.sync()
            time.sleep(self.rest)
        free = shutil.disk_usage(rounds).free
        if free < need:
            say(f"  this round may need {need >> 30} GiB, and {free >> 30} are free")


class nothing:
    """No server."""

    def __enter__(self):
        return None

    def __exit__(self, *_):
        return False


def say(text):
    print(text, flush=True)
