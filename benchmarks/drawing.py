"""Pictures of the library's comparisons, drawn and written as `minidyn run` does."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import minidyn as md
from benchmarks.harness import Row


def comparisons(quick: bool) -> Iterator[Row]:
    """Processor seconds of `Comparison.plot("NAME.png")`: the median after a first one, which the note has."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ellipse", "valley") if quick else sorted(md.list_models()):
            model = md.load_model(name)
            if not model.spec.experiment.flows:  # nothing to compare
                continue
            result = model.run()
            taken = []
            for _ in range(4 if quick else 6):
                began = time.process_time()
                result.plot(Path(folder, f"{name}.png"))
                taken.append(time.process_time() - began)
            first, *others = taken
            note = f"the first one {first:.2f}, the longest {max(others):.2f}"
            yield Row(f"picture of {name}", "s", statistics.median(others), bar=1.0, note=note, extra={"taken": taken})
