"""A PostgreSQL server with pgbench's tables, whose log goes wherever it is told, as the user that servers run as."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

from measure import Failed, environment

USER = "postgres"
PORT = 54329
# Debian's and PGDG's packages; a server of another version than pgBackRest knows is none to compare with.
PROGRAMS = tuple(Path(f"/usr/lib/postgresql/{major}/bin") for major in (15, 14, 13))
# Nothing but what is measured changes the cluster or its log: no checkpoint and no vacuum of the server's own choice. Segments
# stay, so that every program archives the same.
SETTINGS = f"""
listen_addresses = ''
port = {PORT}
archive_mode = on
archive_command = ''
wal_level = replica
max_wal_senders = 3
wal_keep_size = 64GB
max_wal_size = 64GB
checkpoint_timeout = 1h
autovacuum = off
shared_buffers = 512MB
synchronous_commit = off
log_checkpoints = off
"""
DRAIN_SECONDS_MAX = 600
RELOAD_SECONDS = 0.3
CLIENTS = 4


def account():
    """The user that servers run as, and the words before a command that make it run as that user."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name, []
    return USER, ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]


class Server:
    """One cluster in a directory of its own. `with` starts it anew and ends it."""

    def __init__(self, work, programs):
        self.work, self.programs = work, programs
        self.user, self.front = account()
        self.data, self.socket = work / "data", work / "socket"

    @property
    def connection(self):
        return f"host={self.socket} port={PORT} user={self.user} dbname=postgres"

    def __enter__(self):
        self.stop(self.data)
        for directory in (self.data, self.socket):
            shutil.rmtree(directory, ignore_errors=True)
        self.mine(self.socket)
        self.run("initdb", "--pgdata", self.data, "--data-checksums", "--auth=trust", "--no-sync", "-U", self.user)
        with open(self.data / "postgresql.conf", "a") as file:
            file.write(f"{SETTINGS}unix_socket_directories = '{self.socket}'\n")
        self.start(self.data)
        return self

    def __exit__(self, *_):
        self.stop(self.data)

    def start(self, data, *options):
        """Starts a server in a directory and waits for it."""
        log = self.work / "server.log"
        words = [word for option in options for word in ("-o", f"-c {option}")]
        self.run("pg_ctl", "start", "-w", "-t", "600", "-D", data, "-l", log, *words)

    def stop(self, data):
        """Ends the server of a directory, if there is one."""
        if (data / "postmaster.pid").exists():
            try:
                self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", data)
            except Failed as error:
                # One that was killed left its mark.
                if "No such process" not in str(error):
                    raise

    def mine(self, directory):
        """A directory that belongs to the server's user."""
        directory.mkdir(parents=True, exist_ok=True)
        if self.front:
            shutil.chown(directory, self.user, self.user)
        return directory

    def run(self, name, *arguments):
        """What a program of the server's says."""
        command = [*self.front, self.programs / name, *arguments]
        return self.run_any(command)

    def run_any(self, command, **env):
        """What a program that runs as the server's user says."""
        answer = subprocess.run(
            [str(word) for word in command],
            env=environment(env),
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            # A server that is started holds what its starter was given.
            stdout=(out := open(self.work / "said", "w+")),
            stderr=subprocess.STDOUT,
        )
        with out:
            out.seek(0)
            said = out.read()
        if answer.returncode:
            raise Failed(f"{command}: exit {answer.returncode}: {said[-2000:]}")
        return said.strip()

    def sql(self, text, socket=None):
        return self.run("psql", "-XAtq", "-h", socket or self.socket, "-p", PORT, "-U", self.user, "-d", "postgres", "-c", text)

    def pgbench(self, *arguments):
        return self.run("pgbench", "-h", self.socket, "-p", PORT, "-U", self.user, *arguments, "postgres")

    def fill(self, scale):
        """pgbench's tables; 100 is 1.5 GB."""
        self.pgbench("-i", "-q", "-s", scale)
        self.sql("checkpoint")

    def load(self, transactions, seed):
        """So many transactions of pgbench; nothing is left under way."""
        each = max(1, transactions // CLIENTS)
        self.pgbench("-n", "-c", CLIENTS, "-j", 2, "-t", each, f"--random-seed={seed}")

    def switch(self):
        """Begins a new segment of the log."""
        self.sql("select pg_switch_wal()")

    def content(self, socket=None):
        """What the tables have: equal for equal databases."""
        tables = (
            "select (select (count(*), sum(abalance)) from pgbench_accounts), (select (count(*), sum(tbalance)) from "
            "pgbench_tellers), (select (count(*), sum(delta), sum(aid)) from pgbench_history)"
        )
        return self.sql(tables, socket)

    # The log.

    def archive_by(self, command):
        """From now on this is `archive_command`; None: files of the log gather."""
        self.sql(f"alter system set archive_command = '{command or ''}'")
        os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGHUP)
        if command is None:
            # Nothing says when the archiver has read that.
            time.sleep(RELOAD_SECONDS)

    def ready(self):
        """Files of the log that are to be archived."""
        names = os.listdir(self.data / "pg_wal/archive_status")
        return sorted(name[: -len(".ready")] for name in names if name.endswith(".ready"))

    def mark(self, names, state):
        """Says of files of the log that they are to be archived (`ready`), or were (`done`)."""
        other = {"ready": "done", "done": "ready"}[state]
        for name in names:
            status = self.data / "pg_wal/archive_status"
            if (status / f"{name}.{other}").exists():
                (status / f"{name}.{other}").rename(status / f"{name}.{state}")

    def warm_log(self, names):
        for name in names:
            (self.data / "pg_wal" / name).read_bytes()

    def drained(self, each=lambda: None):
        """Waits until nothing is left to be archived; calls `each` now and then."""
        until = time.monotonic() + DRAIN_SECONDS_MAX
        while self.ready():
            if time.monotonic() > until:
                raise Failed(f"{len(self.ready())} files of the log are not archived: see {self.work / 'server.log'}")
            each()
            time.sleep(0.005)

    def segments(self, count, seed):
        """So many full segments of pgbench's log, never archived and marked as if they were; their names."""
        self.archive_by(None)
        self.switch()
        self.sql("checkpoint")
        self.mark(self.ready(), "done")
        made = []
        while len(made) < count + 1:
            self.load(4000, seed)
            seed += 1
            # Histories and labels are not of it.
            made = [name for name in self.ready() if len(name) == 24]
        self.switch()
        self.mark(self.ready(), "done")
        return made[:count]
