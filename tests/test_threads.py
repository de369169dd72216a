"""Threads: as many as are asked for, and never more than affinity and control groups give."""

import math
import os

import pytest
import sympy as sp

import minidyn as md
from minidyn.simulate import threads as room

x = sp.Symbol("x")
NOISY = md.Map(md.Loss(x**2 / 2, [x]), md.SGD(0.1), md.GaussianNoise(0.3))


def group(root, name, **files):
    """A control group's folder with these files in it."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file.replace("_", ".", 1)).write_text(text)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("0::/\n", 6.0),
        ("0::/box/run\n", 1.5),  # its own quota is larger than that of the group above
        ("0::/box\n", 1.5),
        ("0::/elsewhere\n", 6.0),
        ("9:memory:/mem\n3:cpu,cpuacct:/old\n1:name=systemd:/old\n", 2.5),
        ("3:cpu,cpuacct:/free\n", math.inf),
        ("9:cpuset:/old\n", math.inf),
        ("3:cpu:/broken\n", math.inf),
        ("", math.inf),
    ],
)
def test_the_least_quota_binds(tmp_path, groups, expected):
    """Of a group and those above it the least quota counts, for both versions; what cannot be read is none."""
    group(tmp_path, ".", cpu_max="600000 100000\n")
    group(tmp_path, "box", cpu_max="150000 100000\n")
    group(tmp_path, "box/run", cpu_max="max 100000\n")
    group(tmp_path, "cpu/old", cpu_cfs_quota_us="250000", cpu_cfs_period_us="100000")
    group(tmp_path, "cpu,cpuacct/free", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    group(tmp_path, "cpu/broken", cpu_cfs_quota_us="many", cpu_cfs_period_us="0")
    (tmp_path / "groups").write_text(groups)
    assert room.quota(tmp_path, tmp_path / "groups") == expected
    assert room.quota(tmp_path, tmp_path / "no such file") == math.inf


@pytest.mark.parametrize(("share", "expected"), [(0.3, 1), (1.0, 1), (1.2, 2), (math.inf, 4), (90.0, 4)])
def test_cores_are_the_least_of_affinity_and_quota(monkeypatch, share, expected):
    """A quota of 1.2 processors is worth two threads, one of 0.3 is worth one, and affinity bounds both."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(room, "quota", lambda root, groups: share)
    assert room.cores.__wrapped__() == expected


def test_more_threads_than_there_are_cores_are_not_made(monkeypatch):
    """threads= is the most that is used, and the cores bind it; by default all cores are used."""
    monkeypatch.setattr(room, "cores", lambda: 3)
    used = [md.simulate(NOISY, [1.0], 4, paths=1000, threads=n, rng=0).meta["threads"] for n in (1, 2, 64, None)]
    assert used == [1, 2, 3, 3]
