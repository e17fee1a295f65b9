"""The command line of tests/killing.py; ``scripts/kill`` runs it, and records the part "killing"."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import killing
import verification

from hwrnn.report import Progress


def main() -> int:
    """Kill, interrupt and fill; 1 where something was not whole."""
    parser = argparse.ArgumentParser(prog="scripts/kill", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="kills in all (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the moments (default: 1)")
    parser.add_argument("--what", choices=[*killing.WRITERS, *killing.RUNS, *killing.VERBS], help="only one of these")
    parser.add_argument("--number", type=int, metavar="K", help="only kill number K of a writer named by --what")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/verification.md")
    given = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="hwrnn-kill-") as folder:
        material = killing.Material(Path(folder) / "material")
        tallies = _killed(given, material)
        disks = _filled(given, material)
    for name, tally in tallies.items():
        faults += tally.faults
        print(f"{name}: {tally.kills} kills, {tally.during} of them while a temporary file was there")
    for verb, found in disks.items():
        faults += found.faults
        print(f"{verb}: {found.tried} disks, {found.met} of them full")
    kills = sum(tally.kills for tally in tallies.values())
    print(f"{kills} kills, {sum(found.met for found in disks.values())} full disks, {len(faults)} faults")
    for fault in faults:
        print(f"  {fault}\n    repeat: scripts/kill --seed {given.seed} --what '{_name(fault)}'")
    if given.record and not given.what:
        _record(given, tallies, disks, len(faults))
    return 1 if faults else 0


def _name(fault: str) -> str:
    return max((n for n in (*killing.WRITERS, *killing.RUNS, *killing.VERBS) if fault.startswith(n)), key=len)


def _killed(given: argparse.Namespace, material: killing.Material) -> dict[str, killing.Tally]:
    """The kills, each kind's by its share."""
    shares = {name: share for name, (_, share) in (*killing.WRITERS.items(), *killing.RUNS.items())}
    shares = {name: share for name, share in shares.items() if given.what in (None, name)}
    bar, done, found = Progress("kill"), 0, {}
    for name, share in shares.items():
        count = -(-given.count * share // sum(shares.values()))

        def tick(more: int, name: str = name) -> None:
            nonlocal done
            done += more
            bar(done, given.count, name)

        if name in killing.WRITERS:
            found[name] = killing.kills(name, material, count, given.seed, tick, given.number)
        else:
            found[name] = killing.interruptions(name, material, count, given.seed, tick)
    return found


def _filled(given: argparse.Namespace, material: killing.Material) -> dict[str, killing.Full]:
    """The full disks, of each verb."""
    verbs = [verb for verb in killing.VERBS if given.what in (None, verb)]
    bar, found = Progress("fill"), {}
    for k, verb in enumerate(verbs):
        bar(k, len(verbs), verb)
        found[verb] = killing.full_disks(verb, material)
    return found


def _record(
    given: argparse.Namespace, tallies: dict[str, killing.Tally], disks: dict[str, killing.Full], faults: int
) -> None:
    writers = {name: tally for name, tally in tallies.items() if name in killing.WRITERS}
    runs = {name: tally for name, tally in tallies.items() if name in killing.RUNS}
    kills = sum(tally.kills for tally in tallies.values())
    text = (
        f"Processes were ended {kills:,} times at random moments, three in four by SIGKILL, the others by SIGTERM and"
        f" Ctrl-C; {faults} faults were found in all of what follows. A writer writes one of two versions under one"
        " name, for ever: afterwards the name held the one version or the other, whole, and the next run removed what"
        " else was left. A run of training was resumed from its checkpoint until it ended, and its model equals that of"
        " an undisturbed run byte for byte. A full disk was met at every single call of the system that creates, syncs"
        " or renames, and behind some numbers of bytes in a file: one sentence, and everything as it was. A kill ends a"
        " process, not a machine: that files are on the disk before they are renamed (`fsync`) is not shown by it."
    )
    tables = [
        verification.Table(
            ("writer", "kills", "in the middle of writing", "corrupt"),
            [(name, t.kills, t.during, len(t.faults)) for name, t in writers.items()],
        ),
        verification.Table(
            ("run, interrupted and resumed", "kills", "before the first checkpoint", "other bits than undisturbed"),
            [(name, t.kills, t.old, len(t.faults)) for name, t in runs.items()],
        ),
        verification.Table(
            ("command on a full disk", "full at", "not one sentence, or something harmed"),
            [(verb, found.met, len(found.faults)) for verb, found in disks.items()],
        ),
    ]
    verification.record("killing", f"scripts/kill --count {given.count} --seed {given.seed} --record", text, tables)


if __name__ == "__main__":
    sys.exit(main())
