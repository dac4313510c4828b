"""What we want to reach against whom: at most so many times the peer's figure, medians of one run.

A corpus of None stands for all of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """At most `ratio` times what the peer needs of `measure` in this phase on this corpus."""

    variant: str
    corpus: str
    phase: str
    measure: str
    peer: str
    ratio: float


AIMS = (
    Aim("local", "source", "initial", "wall", "restic", 0.30),
    Aim("local", "source", "initial", "wall", "rustic", 0.12),
    Aim("local", "source", "initial", "wall", "borg", 0.16),
    Aim("local", "source", "initial", "wall", "pipe", 1.0),
    Aim("local", "source", "initial", "stored", "pipe", 1.04),
    Aim("local", "tiny", "initial", "wall", "restic", 0.25),
    Aim("local", "objects", "initial", "wall", "restic", 0.35),
    Aim("local", "objects", "initial", "wall", "pipe", 0.75),
    Aim("local", "random", "initial", "wall", "restic", 0.30),
    Aim("local", "random", "initial", "wall", "pipe", 0.70),
    Aim("local", "sql", "initial", "wall", "restic", 0.25),
    Aim("local", "sql", "initial", "wall", "pipe", 0.60),
    Aim("local", "source", "unchanged", "wall", "restic", 0.15),
    Aim("local", "source", "unchanged", "wall", "bupstash", 0.50),
    Aim("local", "source", "changed", "wall", "restic", 0.25),
    Aim("local", "source", "changed", "added", "restic", 0.60),
    Aim("local", "source", "restore", "wall", "restic", 0.40),
    Aim("local", "source", "restore", "wall", "pipe", 1.1),
    Aim("local", "source", "check", "wall", "restic", 0.30),
    *(Aim("local", None, "initial", "stored", peer, 1.0) for peer in ("restic", "rustic", "borg", "bupstash")),
    *(
        Aim("remote", None, phase, "wall", peer, 0.40)
        for phase in ("initial", "unchanged", "restore")
        for peer in ("restic", "rustic")
    ),
    Aim("postgres", "pgbench", "full", "wall", "pgbackrest", 0.70),
    Aim("postgres", "pgbench", "incremental", "wall", "pgbackrest", 0.80),
    Aim("postgres", "pgbench", "incremental", "added", "pgbackrest", 0.80),
    Aim("postgres", "pgbench", "restore", "wall", "pgbackrest", 0.80),
    # One and a half times as many segments a second.
    Aim("postgres", "pgbench", "log", "wall", "pgbackrest", 0.67),
)

# Of our program, in every row.
PEAK_MIB_MAX = 160


def aim(variant, corpus, phase, measure, peer):
    """The ratio aimed at, or None."""
    for one in AIMS:
        if (one.variant, one.phase, one.measure, one.peer) == (variant, phase, measure, peer):
            if one.corpus in (None, corpus):
                return one.ratio
    return None
