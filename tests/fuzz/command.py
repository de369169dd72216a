"""What the commands here have in common: a seed, and how much is tried."""

from __future__ import annotations

import argparse


def parser(what: str | None, **counts: int) -> argparse.ArgumentParser:
    """`--seed 0` and a number for each of `counts`, told by the command's docstring."""
    out = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in {"seed": 0, **counts}.items():
        out.add_argument(f"--{name}", type=int, default=usual)
    return out
