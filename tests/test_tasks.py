"""Tasks on executors: the same results whoever does them, whoever is killed, and wherever they are stopped."""

import multiprocessing as mp
import os
import signal
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import minidyn as md
from minidyn.simulate import tasks, workers
from minidyn.simulate.packed import pack, unpack
from minidyn.simulate.tasks import carry_tasks, job_of

SPAWN = mp.get_context("spawn")
PIECES = range(1, 24)


def draw(scale, piece):
    """Numbers that depend on the piece alone."""
    rng = np.random.default_rng(piece)
    return {"x": scale * rng.normal(size=(piece % 4, 3)), "rows": [(piece, rng.random()), None], "text": "é\n"}


def die_once(folder, piece):
    """Kill the worker at two pieces, each once."""
    mark = Path(folder) / f"killed-{piece}"
    if piece in (5, 17) and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(2.0, piece)


def die_always(piece):
    """Kill every worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(piece):
    """Fail at one piece as an observable of a user may."""
    if piece == 9:
        raise ZeroDivisionError("nine")
    return draw(2.0, piece)


def interrupted(piece):
    """What `simulate` does: Ctrl-C ends it, and it returns what there is."""
    try:
        if piece == 4:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    except KeyboardInterrupt:
        return "a part"
    return draw(2.0, piece)


def bits(results):
    """Packed results, whose equality is that of bits."""
    return [pack(result) for result in results]


@pytest.fixture(scope="module")
def wanted():
    return bits(draw(2.0, piece) for piece in PIECES)


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, SPAWN) as made:
        yield made


class Slow(Executor):
    """Does tasks in another order than they came in, one by one; knows how many were waiting."""

    def __init__(self):
        self.waiting, self.most, self.open = [], 0, True
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.waiting.append((future, fn, args))
        self.most = max(self.most, len(self.waiting))
        return future

    def work(self):
        while self.open:
            if self.waiting:
                future, fn, args = self.waiting.pop(-1)
                if future.set_running_or_notify_cancel():
                    future.set_result(fn(*args))
            time.sleep(0.001)


def test_results_are_the_same_whoever_finds_them(wanted, pool):
    """Here, in threads, in spawned processes, in any order: the same results in the order of the pieces, to the bit."""
    slow = Slow()
    with ThreadPoolExecutor(3) as threads:
        for executor in (None, threads, pool, slow):
            assert bits(carry_tasks(partial(draw, 2.0), PIECES, executor, what={})) == wanted, executor
    slow.open = False


def test_functions_without_a_name_travel(wanted, pool):
    """A lambda and what it closes over reach other processes, where cloudpickle is installed."""
    scale = 2.0
    assert bits(carry_tasks(lambda piece: draw(scale, piece), PIECES, pool, what={})) == wanted


@pytest.mark.parametrize("bad", [threading.Lock(), (i for i in range(3))], ids=["lock", "generator"])
def test_what_cannot_travel_is_refused(bad, pool):
    """Work that no other process can have is an InputError before anything runs."""
    with pytest.raises(md.InputError, match="cannot be sent to other processes"):
        list(carry_tasks(partial(draw, bad), PIECES, pool, what={}))


def test_stopped_at_any_task_and_called_again(wanted, tmp_path):
    """Wherever a job is stopped, the next call does what is missing and ends with the same results."""
    done = []

    def counted(piece):
        done.append(piece)
        return draw(2.0, piece)

    for stop in (1, 2, 7, 23):
        for result, _ in zip(carry_tasks(counted, PIECES, None, what={}, folder=tmp_path), range(stop), strict=False):
            assert result["text"] == "é\n"
    assert done == list(PIECES)
    with ThreadPoolExecutor(3) as threads:
        assert bits(carry_tasks(counted, PIECES, threads, what={}, folder=tmp_path)) == wanted
    assert len(done) == len(PIECES)


def test_another_job_is_refused(tmp_path):
    """A folder that belongs to another job, or holds other things, is refused with what differs, and is not changed."""
    list(carry_tasks(partial(draw, 2.0), PIECES, None, what={"lr": "0.1"}, folder=tmp_path))
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.iterdir())
    assert job_of(tmp_path)["lr"] == "0.1"
    with pytest.raises(md.InputError, match=r"lr is 0\.1 there and 0.2 here"):
        list(carry_tasks(partial(draw, 2.0), PIECES, None, what={"lr": "0.2"}, folder=tmp_path))
    with pytest.raises(md.InputError, match="tasks is 23 there and 4 here"):
        list(carry_tasks(partial(draw, 2.0), range(4), None, what={"lr": "0.1"}, folder=tmp_path))
    assert before == sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.iterdir())
    (tmp_path / "state").touch()
    with pytest.raises(md.InputError, match=r"holds other things \(state\)"):
        list(carry_tasks(partial(draw, 2.0), PIECES, None, what={"lr": "0.1"}, folder=tmp_path))


@pytest.mark.parametrize("damage", ["cut", "flip", "swap", "gone"])
def test_damaged_results_are_found_again(damage, wanted, tmp_path):
    """A task's file that is cut, changed, another's or gone is a task to be done again."""
    for _ in carry_tasks(partial(draw, 2.0), PIECES, None, what={}, folder=tmp_path):
        pass
    file, other = tmp_path / "task-000007", tmp_path / "task-000011"
    data = file.read_bytes()
    if damage == "cut":
        file.write_bytes(data[:-1])
    elif damage == "flip":
        file.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif damage == "swap":
        other.replace(file)
    else:
        file.unlink()
    for executor in (None, 1):
        assert bits(carry_tasks(partial(draw, 2.0), PIECES, executor, what={}, folder=tmp_path)) == wanted


def test_workers_of_ours_are_replaced(wanted, tmp_path):
    """Where workers are killed, new ones do what they had been at: of a number of processes, of a function."""
    forked = mp.get_context("forkserver")
    forked.set_forkserver_preload(["minidyn"])
    for executor, count in ((1, 8), (partial(ProcessPoolExecutor, 2, forked), len(PIECES))):
        for mark in tmp_path.glob("killed-*"):
            mark.unlink()
        work = partial(die_once, str(tmp_path))
        assert bits(carry_tasks(work, PIECES[:count], executor, what={})) == wanted[:count]
        assert len(list(tmp_path.glob("killed-*"))) == (1 if executor == 1 else 2)


def test_a_users_pool_that_broke_is_said_and_nothing_is_lost(wanted, tmp_path):
    """A broken executor of the user's is one sentence; with another one the same call goes on."""
    (marks := tmp_path / "marks").mkdir()
    with (
        ProcessPoolExecutor(1, SPAWN) as broken,
        pytest.raises(md.WorkerError, match="broke down; make another one and call again"),
    ):
        list(carry_tasks(partial(die_once, str(marks)), PIECES, broken, what={}, folder=tmp_path / "job"))
    kept = len(list((tmp_path / "job").glob("task-*")))
    assert 0 < kept < len(PIECES)
    assert bits(carry_tasks(partial(die_once, str(marks)), PIECES, 1, what={}, folder=tmp_path / "job")) == wanted


def test_tasks_that_kill_all_workers_end():
    """Where nothing is done between one breakdown and the next, that is said."""
    with pytest.raises(md.WorkerError, match="broke down 6 times in a row"):
        list(carry_tasks(die_always, PIECES, partial(ProcessPoolExecutor, 1, mp.get_context("fork")), what={}))


def test_an_executor_that_was_shut_down_is_said():
    """An executor that takes no tasks any more is one sentence."""
    with ThreadPoolExecutor(1) as threads:
        pass
    with pytest.raises(md.WorkerError, match="was shut down"):
        list(carry_tasks(partial(draw, 2.0), PIECES, threads, what={}))


def test_errors_of_a_task_come_out(pool, tmp_path):
    """What a task raises is raised here, and what others found is kept."""
    for executor in (None, pool):
        with pytest.raises(ZeroDivisionError, match="nine"):
            list(carry_tasks(fail, PIECES, executor, what={}, folder=tmp_path))
    assert len(list(tmp_path.glob("task-*"))) >= 8


def test_ctrl_c_is_never_a_result(wanted, tmp_path):
    """A task that Ctrl-C ended early is not kept as done: the job ends, and the next call does it again."""
    with pytest.raises(KeyboardInterrupt):
        list(carry_tasks(interrupted, PIECES, None, what={}, folder=tmp_path))
    assert {p.name for p in tmp_path.glob("task-*")} == {"task-000000", "task-000001", "task-000002"}
    assert bits(carry_tasks(partial(draw, 2.0), PIECES, None, what={}, folder=tmp_path)) == wanted


def test_ctrl_c_in_a_worker_alone_is_a_lost_task():
    """An interruption that reaches a worker and not its client is done again, and given up after a few times."""
    with pytest.raises(md.WorkerError, match="task 3 was lost with its worker 6 times"):
        list(carry_tasks(interrupted, PIECES, partial(ProcessPoolExecutor, 1, mp.get_context("fork")), what={}))


def test_few_tasks_wait_at_a_time():
    """However many pieces there are, few are with the executor, and few results wait for an earlier one."""
    slow = Slow()
    most = workers.cores() * tasks._FLYING
    job = carry_tasks(partial(draw, 1.0), range(300), slow, what={})
    assert len(list(job)) == 300 and 1 < slow.most <= most
    slow.open = False


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": {3}}, np.array([None]), 1j], ids=lambda v: type(v).__name__)
def test_results_that_have_no_file_are_refused(value):
    """A task must return what can be kept to the bit."""
    with pytest.raises(md.InputError, match="a task returned"):
        pack({"x": [value]})


@pytest.mark.parametrize("seed", range(20))
def test_packed_results_come_back_to_the_bit(seed):
    """Arrays of any type, shape and order, NaN and infinities, texts and nests of them come back as they were."""
    rng = np.random.default_rng(seed)
    kinds = [np.float64, np.float32, np.int64, np.uint8, bool, "S3", "U4", ">f8"]

    def one(depth):
        kind = rng.integers(4 if depth else 3)
        if kind == 0:
            shape = tuple(rng.integers(0, 4, rng.integers(0, 4)))
            array = np.asarray(1e3 * rng.normal(size=shape), order=rng.choice(["C", "F"]))
            return array.astype(kinds[rng.integers(len(kinds))])
        if kind == 1:
            return [float("nan"), -0.0, float("-inf"), 2**80, -5, True, None, "a\x00\n ü", 5e-324][rng.integers(9)]
        if kind == 2:
            return rng.normal()
        return [one(depth - 1) for _ in range(3)] if rng.random() < 0.5 else {f"k\n{i}": one(depth - 1) for i in "ab"}

    def same(a, b):
        if isinstance(a, np.ndarray):
            return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        if isinstance(a, dict):
            return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(map(same, a, b))
        return type(a) is type(b) and repr(a) == repr(b)

    value = [one(3) for _ in range(5)]
    assert same(value, unpack(pack(value)))
