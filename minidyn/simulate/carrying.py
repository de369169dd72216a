"""An engine is carried from save to save."""

import logging
import time
from bisect import bisect_right

import numpy as np

from minidyn.common.status import Status
from minidyn.simulate.checkpoint import Keeper
from minidyn.simulate.engines import Engine
from minidyn.simulate.progress import Bar
from minidyn.simulate.recording import Recorder

_FEW, _SOON = 16, 0.1  # saves at once at first; more while they are made in so many seconds
log = logging.getLogger("minidyn")


def carry(engine: Engine, recorder: Recorder, kept: Keeper, saves: list[int], bar: Bar,
          regular: bool) -> tuple[int, bool]:  # fmt: skip
    """Carry the engine from save to save; the steps done, and whether Ctrl-C ended it.

    regular : whether the last save is one of those that a longer run has too."""
    done = kept.resume(engine, recorder)
    if done:
        engine.look_ahead(done, 0)
    if done > saves[0]:
        log.info("%s goes on after step %d of %d", bar.label, done, saves[-1])

    together = _FEW

    def alive() -> int:
        return int((engine.ending(done)[0] == Status.FINISHED).sum())

    try:
        with bar:
            bar.start(done)
            if not recorder.count:
                recorder.save(engine)
            while recorder.count < len(saves):
                many = min(together, several(engine, recorder, kept, saves, done, regular))
                if many > 1:
                    began, targets = time.perf_counter(), np.array(saves[recorder.count : recorder.count + many])
                    recorder.add(engine.advance_saving(done, targets))
                    done = int(targets[-1])
                    bar.update(done, alive)
                    together = 2 * together if time.perf_counter() - began < _SOON else max(1, together // 2)
                    continue
                target = saves[recorder.count]
                while done < target:
                    kept.note(done, engine, recorder)
                    count = engine.slice(target - done)
                    ends = done + count == saves[-1] and not regular
                    (engine.look_ahead if ends else engine.advance)(done, count)
                    done += count
                    bar.update(done, alive)
                recorder.save(engine)
            recorder.observe()
            kept.note(done, engine, recorder, last=True)
    except KeyboardInterrupt:
        if not recorder.count:
            raise
        log.warning("%s was interrupted after step %d", bar.label, done)
        return done, True
    taken = max(time.perf_counter() - bar.began, 1e-9)
    speed = (done - bar.first) / taken
    log.info("%s: %d steps of %d paths in %.3g s, %.3g steps/s", bar.label, done, bar.paths, taken, speed)
    return done, False


def several(engine: Engine, recorder: Recorder, kept: Keeper, saves: list[int], done: int, regular: bool) -> int:
    """How many of the next saves the engine may make in one call: as many as lie in a slice of time, where nobody looks
    at it between them."""
    if not (engine.saves_by_itself and recorder.plain and type(kept) is Keeper):
        return 0
    reach = done + engine.slice(saves[-1] - done)
    return bisect_right(saves, reach, recorder.count, len(saves) - (not regular)) - recorder.count
