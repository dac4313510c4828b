#!/usr/bin/env python3
"""Tests of the harness itself: python3 -B benches/peers/tests.py"""

import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import corpora
import measure
import mutate
import report
import stream
import trees
from pgserver import Server
from results import Results

HERE = Path(__file__).parent


class Trees(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.work = Path(directory.name)

    def test_the_same_corpus_is_made_every_time(self):
        made = [corpora.make(self.work / name, kind, 0.001) for name in "ab" for kind in ("tiny", "random", "sql")]
        for one, other in zip(made[:3], made[3:]):
            self.assertEqual(digests(one.data), digests(other.data))

    def test_changes_are_undone_whenever_they_were_cut_off(self):
        corpus = corpora.make(self.work, "tiny", 0.05)
        before = trees.describe(corpus.data)
        inodes = {path: path.stat().st_ino for path in corpus.data.rglob("*")}
        corpus.mutation.apply()
        changed = trees.describe(corpus.data)
        self.assertEqual({kind for kind, count in corpus.about["changes"].items() if count}, set(mutate.KINDS))
        names = before.keys() ^ changed.keys()
        others = [name for name in before.keys() & changed.keys() if before[name] != changed[name]]
        self.assertGreater(len(names) + len(others), 90)
        corpus.mutation.revert()
        self.assertEqual(trees.describe(corpus.data), before)
        self.assertEqual({path: path.stat().st_ino for path in corpus.data.rglob("*")}, inodes)
        for cut in (1, 2, 55, 101):
            for work in (corpus.mutation.apply, corpus.mutation.revert):
                with cut_off_after(cut), self.assertRaises(InterruptedError):
                    work()
                corpus.mutation.revert()
                self.assertEqual(trees.describe(corpus.data), before, f"{work.__name__} cut off after {cut} moves")
                corpus.mutation.apply()
                self.assertEqual(trees.describe(corpus.data), changed)
            corpus.mutation.revert()

    def test_a_difference_is_seen(self):
        for name in "ab":
            (self.work / name).mkdir()
            (self.work / name / "file").write_text("the same")
        self.assertEqual(trees.differences(self.work / "a", self.work / "b"), [])
        (self.work / "b/file").write_text("not same")
        self.assertEqual(len(trees.differences(self.work / "a", self.work / "b")), 1)

    def test_results_survive_a_cut_and_the_later_row_counts(self):
        results = Results(self.work / "results.jsonl")
        for wall in (1.0, 2.0):
            results.add("run", variant="local", corpus="tiny", phase="initial", program="backup", round=1, wall=wall)
        with open(results.path, "a") as file:
            file.write('{"kind": "ru')
        again = Results(results.path)
        self.assertEqual([row["wall"] for row in again.runs(variant="local")], [2.0])

    def test_a_report_says_what_is_missing_what_failed_and_what_is_not_reached(self):
        results = Results(self.work / "results.jsonl")
        results.add("program", name="borg", missing=["borg"])
        key = {"variant": "local", "corpus": "source", "phase": "initial", "round": 1}
        cost = {"user": 1.0, "system": 0.5, "peak_kib": 1024, "sync": 0.0, "stored": 100, "added": 100}
        results.add("run", program="backup", wall=5.0, **key, **cost)
        results.add("run", program="restic", wall=10.0, **key, **cost)
        results.add("run", program="rustic", failed="no | such\nthing", **key)
        text = report.write(results, self.work / "report").read_text()
        self.assertIn("| borg | MISSING: no borg |", text)
        self.assertIn("0.50 wall, 1.00 stored | 0.3 wall, 1 stored | **wall NOT reached**, reached |", text)
        self.assertIn("| initial | rustic | FAILED: no / such thing |", text)
        self.assertIn("<svg", (self.work / "report/local-source-wall.svg").read_text())


class Postgres(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.work = Path(directory.name)

    def test_the_same_segments_are_archived_by_everybody(self):
        server = Server(self.work, Path("/nowhere"))
        status = server.data / "pg_wal/archive_status"
        status.mkdir(parents=True)
        names = [f"00000001000000000000000{number}" for number in range(4)]
        for name in names:
            (status / f"{name}.done").touch()
        server.mark(names[:2], "ready")
        self.assertEqual(server.ready(), names[:2])
        server.mark(names, "done")
        self.assertEqual(server.ready(), [])
        server.mark([*names, "00000001000000000000000F"], "ready")
        self.assertEqual(server.ready(), names)

    def test_a_report_has_segments_a_second_and_what_is_aimed_at(self):
        results = Results(self.work / "results.jsonl")
        cost = {"user": 1.0, "system": 0.5, "peak_kib": 1024, "sync": 0.0, "stored": 100, "added": 100}
        for program, wall, rate in (("backup", 2.0, 30.0), ("pgbackrest", 4.0, 15.0), ("cp+fsync", 3.0, 20.0)):
            row = {"variant": "postgres", "corpus": "pgbench", "phase": "log", "round": 1, "program": program}
            results.add("run", **row, wall=wall, segments_per_second=rate, **cost)
        results.add("compared", variant="postgres", corpus="pgbench", program="backup", differences=[])
        text = report.write(results, self.work / "report").read_text()
        self.assertIn("Segments of the log a second: backup 30.0, pgbackrest 15.0, cp+fsync 20.0.", text)
        self.assertIn("| 0.50 wall | 0.67 wall | reached |", text)
        self.assertIn("Servers start from what was restored", text)


class Measuring(unittest.TestCase):
    def setUp(self):
        if not Path(measure.GNU_TIME).exists():
            self.skipTest("GNU time is not there")
        # A busy disk has no part in this.
        sync = mock.patch("os.sync")
        sync.start()
        self.addCleanup(sync.stop)

    def test_cpu_and_memory_of_all_programs_of_a_pipe_are_counted(self):
        program = "import sys; data = b'x' * (100 << 20); print(sum(range(3_000_000)))"
        cost = measure.run(measure.Command([[sys.executable, "-c", program]] * 2))
        self.assertGreater(cost.peak_kib, 200 << 10)
        self.assertLess(cost.peak_kib, 300 << 10)
        self.assertGreater(cost.user, 0.02)
        small = measure.run(measure.Command([["true"]]))
        self.assertLess(small.peak_kib, 8 << 10, "the memory of this interpreter counted")

    def test_a_failure_anywhere_in_a_pipe_is_a_failure(self):
        for steps in ([["false"], ["true"]], [["true"], ["false"]]):
            with self.assertRaises(measure.Failed):
                measure.run(measure.Command(steps))


class Delay(unittest.TestCase):
    def test_each_direction_takes_half_a_round_trip_and_requests_are_counted(self):
        target = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(target.close)

        def serve():
            connection, _ = target.accept()
            with connection:
                while data := connection.recv(1000):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        proxy = subprocess.Popen(
            [sys.executable, HERE / "delay.py", str(target.getsockname()[1]), "200"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        port = int(proxy.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as client:
            took = [round_trip(client) for _ in range(3)]
        self.assertGreaterEqual(took[0], 0.39, "a connection begins with a handshake")
        for later in took[1:]:
            self.assertGreaterEqual(later, 0.19)
            self.assertLess(later, 2)
        answer = proxy.communicate("\n")[0]
        self.assertIn('"connections": 1, "requests": 3', answer)


class Stream(unittest.TestCase):
    def test_no_page_of_the_stream_is_there_twice(self):
        with mock.patch("sys.stdout") as out:
            parts = []
            out.buffer.write = lambda part: parts.append(bytes(part))
            stream.main(20_000_000)
        data = b"".join(parts)
        pages = {data[at : at + stream.PAGE] for at in range(0, len(data), stream.PAGE)}
        self.assertEqual(len(data), 20_000_000)
        self.assertEqual(len(pages), -(-len(data) // stream.PAGE))


def digests(root):
    return {str(path.relative_to(root)): trees.digest(path) for path in root.rglob("*") if path.is_file()}


def round_trip(client):
    started = time.monotonic()
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    client.recv(1000)
    return time.monotonic() - started


def cut_off_after(moves):
    """The process is gone after so many renames."""
    left = [moves]
    real = Path.rename

    def rename(path, to):
        if left[0] == 0:
            raise InterruptedError
        left[0] -= 1
        return real(path, to)

    return mock.patch.object(Path, "rename", rename)


if __name__ == "__main__":
    unittest.main()
