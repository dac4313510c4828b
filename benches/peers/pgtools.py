"""What is compared of PostgreSQL: `backup`, pgBackRest, and for the log `cp` with `fsync`; each as the server's user.

Both encrypt and compress by Zstandard at level 3, verify pages' checksums, have two processors, and wait until the log that a
backup needs is archived.
"""

import base64
import os
import shutil
import subprocess

from measure import Command, stored_bytes
from pgserver import PORT

PGBACKREST = """[global]
repo1-path={repository}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass={passphrase}
repo1-retention-full=10
process-max=2
compress-type=zst
compress-level=3
start-fast=y
archive-async=y
spool-path={spool}
lock-path={lock}
log-level-file=off
log-level-console=error
log-level-stderr=error

[peers]
pg1-path={data}
pg1-socket-path={socket}
pg1-port={port}
pg1-user={user}
"""


class Ours:
    """`backup`, unlocked by a file with a key, as a server's command has to be."""

    name = "backup"

    def __init__(self, program, server):
        self.program, self.server, self.executables = program, server, (program,)

    def version(self):
        return subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.strip()

    def begin(self, home):
        """A new repository in a directory of its own."""
        key = home / "key"
        key.write_bytes(base64.b64encode(os.urandom(32)))
        key.chmod(0o600)
        if self.server.front:
            shutil.chown(key, self.server.user, self.server.user)
        self.server.run_any(self.words(home, "init"), HOME=home)

    def words(self, home, *arguments):
        front = [*self.server.front, self.program, "--progress", "none", "--repo", home / "repository"]
        return [*front, "--key-file", home / "key", *arguments]

    def command(self, home, *arguments):
        return Command([self.words(home, *arguments)], {"HOME": home}, self.server.work)

    def backup(self, home, kind):
        server = self.server
        source = ("--mode", "physical", "--pgdata", server.data, "--connection", server.connection)
        return self.command(home, "create", "postgres", *source, "--type", kind, "--fast-checkpoint")

    def restore(self, home, out):
        return self.command(home, "restore-postgres", "latest", "--to", out, "--target-immediate")

    def push(self, home):
        """The server's `archive_command`."""
        return f"{self.program} --repo {home}/repository --key-file {home}/key log push %p"

    def stored(self, home):
        """Bytes of backups, and of the log."""
        log = stored_bytes(home / "repository/logs")
        return stored_bytes(home / "repository") - log, log


class PgBackRest:
    """pgBackRest with two processes, which archives asynchronously."""

    name = "pgbackrest"

    def __init__(self, program, server):
        self.program, self.server, self.executables = program, server, (program,)

    def version(self):
        return subprocess.run([self.program, "version"], capture_output=True, text=True).stdout.strip()

    def begin(self, home):
        settings = {name: self.server.mine(home / name) for name in ("repository", "spool", "lock")}
        server = self.server
        config = home / "pgbackrest.conf"
        config.write_text(
            PGBACKREST.format(
                **settings, data=server.data, socket=server.socket, port=PORT, user=server.user, passphrase="a" * 32
            )
        )
        server.run_any(self.words(home, "stanza-create"))

    def words(self, home, *arguments):
        return [*self.server.front, self.program, f"--config={home}/pgbackrest.conf", "--stanza=peers", *arguments]

    def command(self, home, *arguments):
        return Command([self.words(home, *arguments)], {}, self.server.work)

    def backup(self, home, kind):
        kind = {"full": "full", "incremental": "incr"}[kind]
        return self.command(home, f"--type={kind}", "backup")

    def restore(self, home, out):
        return self.command(home, f"--pg1-path={out}", "--type=immediate", "restore")

    def push(self, home):
        return f"{self.program} --config={home}/pgbackrest.conf --stanza=peers archive-push %p"

    def stored(self, home):
        return stored_bytes(home / "repository/backup"), stored_bytes(home / "repository/archive")


class Copy:
    """`cp`, and the file and its name made durable: neither compressed nor encrypted."""

    name = "cp+fsync"

    def __init__(self, server):
        self.server, self.executables = server, [shutil.which(name) for name in ("cp", "sync")]

    def version(self):
        said = subprocess.run(["cp", "--version"], capture_output=True, text=True).stdout
        return said.split("\n")[0]

    def begin(self, home):
        self.server.mine(home / "log")

    def push(self, home):
        return f"cp %p {home}/log/%f && sync {home}/log/%f {home}/log"

    def stored(self, home):
        return 0, stored_bytes(home / "log")
