"""How our program grows: with files, with bytes, with snapshots, on one core and on two.

Curves of wall time, CPU and peak memory. Points go to the results as they come, so a run can be cut off anywhere.
"""

import base64
import os
import shutil
import sys
import time
from pathlib import Path

import generate
import measure
import trees
from rounds import say
from tools import Place

FILES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
BYTES = (100_000_000, 300_000_000, 1_000_000_000, 3_000_000_000, 10_000_000_000, 30_000_000_000)
SNAPSHOTS = (1, 10, 100, 300, 1_000, 3_000, 10_000)
CURVES = {"files": FILES, "bytes": BYTES, "snapshots": SNAPSHOTS}
# Files of the tree that the curve of snapshots backs up, one of which changes each time.
SMALL_TREE_FILES = 100


class Growth:
    """The curves of one program, in a work directory; at each point and number of cores it starts anew."""

    def __init__(self, work, results, program, cores=("0", "0,1"), most=None):
        self.work, self.results, self.program = work / "growth", results, program
        self.cores = [cores_ for cores_ in cores if set(map(int, cores_.split(","))) <= os.sched_getaffinity(0)]
        # The largest point of a curve, for a short run.
        self.most = most or {}

    def run(self, curves, until=None):
        """Does what is not done yet; returns whether all is done, or the time is up."""
        for curve in curves:
            points = [point for point in CURVES[curve] if point <= self.most.get(curve, point)]
            todo = [
                point for point in points if not self.results.of("done", variant="growth", corpus=curve, point=point)
            ]
            if todo and not getattr(self, curve)(todo, until):
                return False
        return True

    def done(self, curve, point):
        self.results.add("done", variant="growth", corpus=curve, point=point)

    def files(self, points, until):
        tree = self.work / "files"
        for point in points:
            if late(until):
                return False
            # A smaller tree is not a part of a larger one: each stands for itself, and there is room for one.
            shutil.rmtree(tree, ignore_errors=True)
            generate.tiny_files(tree, point)
            trees.warm(tree)
            for cores in self.cores:
                place = self.place(f"files-{point}-{cores}")
                self.measure("files", point, cores, "backup", self.program.backup(place, tree, "initial"))
                self.measure("files", point, cores, "unchanged", self.program.backup(place, tree, "unchanged"))
                self.measure("files", point, cores, "list", self.program.list(place))
                out = place.directory / "restored"
                self.measure("files", point, cores, "restore", self.program.restore(place, out))
            self.clean()
            self.done("files", point)
        return True

    def bytes(self, points, until):
        """One stream of so many bytes: disks that hold the largest three times over are rare."""
        for point in points:
            if late(until):
                return False
            for cores in self.cores:
                place = self.place(f"bytes-{point}-{cores}")
                stream = [sys.executable, Path(__file__).with_name("stream.py"), point]
                self.measure("bytes", point, cores, "backup", self.program.backup_stream(place, stream))
                self.measure("bytes", point, cores, "unchanged", self.program.backup_stream(place, stream))
                self.measure("bytes", point, cores, "list", self.program.list(place))
                self.measure("bytes", point, cores, "restore", self.program.restore_stream(place))
                shutil.rmtree(place.directory)
            self.done("bytes", point)
        return True

    def snapshots(self, points, until):
        """One repository that gets more and more snapshots; both numbers of cores are measured at each point."""
        tree = self.work / "snapshots-tree"
        # Deriving a key from a passphrase takes longer than all else that these do.
        place = Place(self.work / "snapshots", key=self.work / "key")
        made_file = self.work / "snapshots-made"
        made = int(made_file.read_text()) if made_file.exists() else 0
        if not made:
            shutil.rmtree(place.directory, ignore_errors=True)
            shutil.rmtree(tree, ignore_errors=True)
            place.home.mkdir(parents=True)
            place.key.write_bytes(base64.b64encode(os.urandom(32)))
            measure.just_run(self.program.init(place))
            generate.tiny_files(tree, SMALL_TREE_FILES)
        for point in points:
            # Those that the measurements make count, too.
            while made < point - 2 * len(self.cores):
                if late(until):
                    return False
                self.change(tree, made)
                measure.just_run(self.program.backup(place, tree, "more"))
                made += 1
                made_file.write_text(str(made))
            for cores in self.cores:
                self.change(tree, -made)
                self.measure("snapshots", point, cores, "backup", self.program.backup(place, tree, "changed"))
                self.measure("snapshots", point, cores, "unchanged", self.program.backup(place, tree, "unchanged"))
                self.measure("snapshots", point, cores, "list", self.program.list(place))
                out = place.directory / f"restored-{point}-{cores}"
                self.measure("snapshots", point, cores, "restore", self.program.restore(place, out))
                made += 2
                made_file.write_text(str(made))
            self.done("snapshots", point)
        return True

    def change(self, tree, number):
        (tree / "changing").write_text(f"{number} {time.time_ns()}\n")

    def place(self, name):
        place = Place(self.work / name)
        shutil.rmtree(place.directory, ignore_errors=True)
        place.home.mkdir(parents=True)
        measure.just_run(self.program.init(place))
        return place

    def measure(self, curve, point, cores, phase, command):
        command.cores = cores
        row = {
            "variant": "growth",
            "corpus": curve,
            "point": point,
            "cores": len(cores.split(",")),
            "phase": phase,
            "program": self.program.name,
        }
        try:
            cost = measure.run(command).row()
        except (measure.Failed, OSError) as error:
            self.results.add("run", **row, failed=str(error))
            say(f"{curve} {point} {phase} FAILED: {error}")
            return
        self.results.add("run", **row, **cost)
        say(f"{curve} {point:>11} {phase:9} {row['cores']} cores {cost['wall']:8.2f} s {cost['peak_kib'] // 1024} MiB")

    def clean(self):
        for old in self.work.iterdir():
            if old.name.startswith("files-"):
                shutil.rmtree(old)
        os.sync()


def late(until):
    return until is not None and time.monotonic() > until
