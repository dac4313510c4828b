"""From results to Markdown tables and SVG pictures: medians, and how they stand to the aims."""

import math
import statistics

import plots
from aims import PEAK_MIB_MAX, aim

OURS = "backup"
PHASES = ("initial", "unchanged", "changed", "full", "incremental", "restore", "check", "log")
MEASURES = {
    "wall": ("Wall time", lambda value: f"{value:.2f} s"),
    "cpu": ("CPU time, user and system", lambda value: f"{value:.2f} s"),
    "peak": ("Peak memory", lambda value: f"{value:.0f} MiB"),
    "stored": ("Stored", lambda value: f"{value / 1e6:.1f} MB"),
}


def write(results, directory):
    """Writes `peers.md` and the pictures it shows into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = ["# Compared with its peers", "", *about(results)]
    for variant, title in (("local", "A local disk"), ("remote", "An S3 server far away"), ("postgres", "PostgreSQL")):
        if results.of("run", variant=variant):
            parts += ["", f"## {title}", *compared(results, variant, directory)]
    if results.of("run", variant="growth"):
        parts += ["", "## Growth", *growth(results, directory)]
    (directory / "peers.md").write_text("\n".join(parts) + "\n")
    return directory / "peers.md"


def about(results):
    lines = []
    for row in results.of("machine")[-1:]:
        lines.append(
            f"{row['cores']} cores of {row['model']}, {row['memory_mib'] // 1024} GiB, {row['file_system']}, "
            f"Linux {row['kernel']}; {row['time'][:10]}; commit {row['commit']}. All encrypt; medians of the rounds."
        )
    programs = {row["name"]: row for row in results.of("program")}
    lines += ["", "| program | version |", "|---|---|"]
    for row in programs.values():
        missing = ", ".join(row.get("missing", ()))
        lines.append(f"| {row['name']} | {row['version'] if not missing else f'MISSING: no {missing}'} |")
    corpora = {row["name"]: row for row in results.of("corpus")}
    if corpora:
        lines += ["", "| corpus | files | MB | changed | made of |", "|---|---|---|---|---|"]
    for row in corpora.values():
        changed = ", ".join(f"{count} {kind}" for kind, count in row["changes"].items() if count)
        scaled = f" (scale {row['scale']:g})" if row["scale"] != 1 else ""
        lines.append(
            f"| {row['name']}{scaled} | {row['files']} | {row['bytes'] / 1e6:.0f} | {changed} | {row['made_of']} |"
        )
    for row in results.of("pgbench")[-1:]:
        lines += [
            "",
            f"pgbench's tables at scale {row['scale']}, {row['bytes'] / 1e6:.0f} MB; {row['transactions']} transactions between the "
            f"full backup and the incremental one; {row['segments']} segments of its log.",
        ]
    return lines


def compared(results, variant, directory):
    rows = results.runs(variant=variant)
    corpora = ordered(row["corpus"] for row in rows)
    programs = ordered((row["program"] for row in rows), first=OURS)
    table = {}
    for row in rows:
        table.setdefault((row["corpus"], row["phase"], row["program"]), []).append(row)
    lines = []
    for corpus in corpora:
        rounds = len({row["round"] for row in rows if row["corpus"] == corpus})
        lines += ["", f"### {corpus}: {rounds} round{'s' if rounds > 1 else ''}", ""]
        lines += corpus_table(table, variant, corpus, programs)
        lines += archived(table, corpus, programs)
        lines += same(results, variant, corpus)
        for measure, (title, show) in MEASURES.items():
            groups = []
            for phase in PHASES if measure != "stored" else ("initial", "full", "incremental"):
                found = [(program, median(table, corpus, phase, program, measure)) for program in programs]
                if any(value is not None for _, value in found):
                    groups.append((phase, [(program, value) for program, value in found if value is not None]))
            if groups:
                name = f"{variant}-{corpus}-{measure}.svg"
                (directory / name).write_text(plots.bars(f"{title}: {corpus}", groups, show))
                lines.append(f"![{title}]({name})")
    return lines


def archived(table, corpus, programs):
    """How fast the log was archived."""
    rates = [(program, median(table, corpus, "log", program, "segments_per_second")) for program in programs]
    said = ", ".join(f"{program} {rate:.1f}" for program, rate in rates if rate)
    return ["", f"Segments of the log a second: {said}."] if said else []


def corpus_table(table, variant, corpus, programs):
    extra = " | requests | MB sent | MB received" if variant == "remote" else " | stored MB | added MB"
    lines = [
        f"| phase | program | wall s (least-most) | CPU s | sync after s | peak MiB{extra} | backup is | aim | |",
        "|---|---|---|---|---|---|---|---|---|---|" + ("---|---|" if variant == "remote" else "---|"),
    ]
    for phase in PHASES:
        for program in programs:
            runs = table.get((corpus, phase, program))
            if not runs:
                continue
            good = [run for run in runs if "failed" not in run]
            if not good:
                reason = runs[-1]["failed"].replace("\n", " ").replace("|", "/")[:120]
                lines.append(f"| {phase} | {program} | FAILED: {reason} |")
                continue
            walls = [run["wall"] for run in good]
            cells = [phase, program, f"{statistics.median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f})"]
            cells += [f"{of(good, 'cpu'):.2f}", f"{of(good, 'sync'):.2f}", f"{of(good, 'peak'):.0f}"]
            if variant == "remote":
                cells += [f"{of(good, 'requests'):.0f}", mega(of(good, "sent")), mega(of(good, "received"))]
            else:
                cells += [mega(of(good, "stored")), mega(of(good, "added"))]
            lines.append("| " + " | ".join(cells + verdict(table, variant, corpus, phase, program)) + " |")
    return lines


def verdict(table, variant, corpus, phase, program):
    """Three cells: ratios of ours to this peer, what is aimed at, and whether that is reached."""
    if program == OURS:
        peak = max(run["peak_kib"] / 1024 for run in table[corpus, phase, OURS] if "failed" not in run)
        return ["", f"peak {PEAK_MIB_MAX} MiB", "reached" if peak <= PEAK_MIB_MAX else f"**NOT reached** ({peak:.0f})"]
    ratios, aims, verdicts = [], [], []
    for measure in ("wall", "stored", "added"):
        mine, theirs = (median(table, corpus, phase, who, measure) for who in (OURS, program))
        wanted = aim(variant, corpus, phase, measure, program)
        shown = measure == "wall" or wanted or (measure == "added" and phase in ("changed", "incremental"))
        if mine is None or not theirs or not shown:
            continue
        ratio = mine / theirs
        ratios.append(f"{ratio:.2f} {measure}")
        if wanted:
            aims.append(f"{wanted:g} {measure}")
            verdicts.append("reached" if ratio <= wanted else f"**{measure} NOT reached**")
    return [", ".join(ratios), ", ".join(aims), ", ".join(verdicts)]


def same(results, variant, corpus):
    """Whether what was restored is what was backed up."""
    found = {row["program"]: row["differences"] for row in results.of("compared", variant=variant, corpus=corpus)}
    if not found:
        return [""]
    good = [program for program, differences in found.items() if not differences]
    said = "Restored trees that equal the originals in names, permissions, times and content"
    if variant == "postgres":
        said = "Servers start from what was restored and answer as the original does"
    lines = ["", f"{said}: {', '.join(good)}."]
    for program, differences in found.items():
        if differences:
            lines.append(f"**{program} restored something else**, for example `{differences[0]}`.")
    return [*lines, ""]


def growth(results, directory):
    rows = [row for row in results.runs(variant="growth") if "failed" not in row]
    lines = []
    for curve in ordered(row["corpus"] for row in rows):
        here = [row for row in rows if row["corpus"] == curve]
        for measure in ("wall", "cpu", "peak"):
            curves = []
            for phase in ordered(row["phase"] for row in here):
                for cores in sorted({row["cores"] for row in here}, reverse=True):
                    line = [
                        (row["point"], of([row], measure))
                        for row in here
                        if (row["phase"], row["cores"]) == (phase, cores)
                    ]
                    curves.append((phase, line, cores == 1))
            unit = "MiB" if measure == "peak" else "seconds"
            drawn = plots.lines(f"{MEASURES[measure][0]} over {curve}; dashed: one core", curve, unit, curves)
            if drawn:
                name = f"growth-{curve}-{measure}.svg"
                (directory / name).write_text(drawn)
                lines += ["", f"![{MEASURES[measure][0]} over {curve}]({name})"]
        lines += ["", *growth_table(curve, here)]
    return lines


def growth_table(curve, rows):
    lines = [
        f"| {curve} | cores | phase | wall s | CPU s | peak MiB | wall grows with the power of |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = sorted(rows, key=lambda row: (PHASE_ORDER.get(row["phase"], 9), row["cores"], row["point"]))
    before = None
    for row in rows:
        power = ""
        if (
            before
            and (before["phase"], before["cores"]) == (row["phase"], row["cores"])
            and before["wall"]
            and row["wall"]
        ):
            power = f"{math.log(row['wall'] / before['wall']) / math.log(row['point'] / before['point']):.2f}"
        cells = [f"{row['wall']:.2f}", f"{of([row], 'cpu'):.2f}", f"{of([row], 'peak'):.0f}", power]
        lines.append(f"| {row['point']} | {row['cores']} | {row['phase']} | " + " | ".join(cells) + " |")
        before = row
    return lines


PHASE_ORDER = {"backup": 0, "unchanged": 1, "list": 2, "restore": 3}


def of(runs, measure):
    """The median of a measure over runs."""
    if measure == "cpu":
        return statistics.median(run["user"] + run["system"] for run in runs)
    if measure == "peak":
        return statistics.median(run["peak_kib"] / 1024 for run in runs)
    return statistics.median(run[measure] for run in runs)


def median(table, corpus, phase, program, measure):
    runs = [run for run in table.get((corpus, phase, program), ()) if "failed" not in run]
    if not runs or (measure not in ("cpu", "peak") and measure not in runs[0]):
        return None
    return of(runs, measure)


def mega(value):
    return f"{value / 1e6:.2f}"


def ordered(names, first=None):
    """Each name once, in the order of their coming, this one before the others."""
    found = list(dict.fromkeys(names))
    return sorted(found, key=lambda name: name != first)
