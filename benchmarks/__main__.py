"""Timings of minidyn's public calls, each beside the program it is measured against, in one table.

    python -m benchmarks                    # the whole table, some minutes
    python -m benchmarks w2 w4 --quick      # some of it, roughly
    python -m benchmarks --json table.json
    python -m benchmarks --list             # names of workloads and studies

docs/benchmarks.md says what each figure is.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks import harness, peers, registry


def main(arguments: list[str]) -> int:
    """Run what is asked for; 1 if something failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time minidyn beside reference programs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="workloads or studies; all workloads if none")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer repeats: a first impression")
    parser.add_argument("--json", metavar="PATH", help="also write the rows and the machine as JSON")
    parser.add_argument("--no-peers", action="store_true", help="leave out JAX, heyoka and the like")
    parser.add_argument("--list", action="store_true", help="list the names")
    given = parser.parse_args(arguments)
    if given.list:
        print("workloads:", *registry.WORKLOADS)
        print("studies:  ", *registry.STUDIES)
        return 0
    names = given.names or list(registry.WORKLOADS)
    for name in names:
        if name not in registry.WORKLOADS and name not in registry.STUDIES:
            known = ", ".join([*registry.WORKLOADS, *registry.STUDIES])
            parser.error(f"nothing is called {name!r}; there are {known}")
    peers.wanted = not given.no_peers
    about = harness.machine()
    _introduce(about, any(name in registry.WORKLOADS for name in names))
    found, failed = [], 0
    for name in names:
        if name in registry.STUDIES:
            registry.study(name, given.quick)
            continue
        began = time.perf_counter()
        try:
            for row in registry.workload(name, given.quick):
                found.append(row)
                print(row.line(), flush=True)
        except Exception as e:
            failed += 1
            print(f"{name} FAILED: {type(e).__name__}: {e}", flush=True)
        about.setdefault("seconds", {})[name] = time.perf_counter() - began
        if given.json:
            harness.write_json(given.json, found, about)
    missed = [row for row in found if row.met is False]
    if found:
        print(f"\n{len(found)} rows; {sum(row.met is True for row in found)} bars met, {len(missed)} missed")
    return 1 if failed else 0


def _introduce(about: dict, table: bool) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(f"{about['processor']}, {about['cores']} cores, load {about['load']}; {about['date']}\n{versions}\n")
    if table:
        print(harness.HEAD)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
