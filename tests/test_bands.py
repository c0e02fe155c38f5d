import os
import signal
import threading
import time

import numpy as np
import pytest

from masksolve.bands import (
    _cgroup_cores,
    available_cores,
    check_workers,
    report_progress,
    run_bands,
)
from masksolve.errors import OptionError


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_band_is_done_once(workers):
    done = []
    run_bands(range(20), done.append, workers=workers)
    assert sorted(done) == list(range(20))


def test_threads_begin_apart_and_help_one_another():
    begun, here = {}, threading.Barrier(2, timeout=10)

    def work(band):
        begun.setdefault(threading.get_ident(), []).append(band)
        if band in (0, 5):
            here.wait()  # both threads are under way
        if band == 0:
            time.sleep(
                0.2
            )  # while the other does its own, and then what this one would come to last

    run_bands(range(10), work, workers=2)
    first, second = sorted(begun.values())
    assert first[0] == 0
    assert second == [5, 6, 7, 8, 9, 4, 3, 2, 1]


def test_bands_run_side_by_side():
    barrier = threading.Barrier(2, timeout=10)
    run_bands([0, 1], lambda _: barrier.wait(), workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_stops_what_has_not_begun(workers):
    begun = []

    def work(band):
        begun.append(band)
        if band == 1:
            raise RuntimeError("band 1")
        time.sleep(0.01)

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="band 1"):
        run_bands(range(1000), work, workers=workers)
    assert len(begun) < 100
    assert threading.active_count() == before


def test_cores_follow_affinity_and_cgroup(tmp_path):
    assert available_cores() <= len(os.sched_getaffinity(0))
    own = tmp_path / "own"
    assert _cgroup_cores(tmp_path, own) > 10**6  # no such file: no limit
    own.write_text("1:cpu:/x\n0::/service/job\n")
    job = tmp_path / "service" / "job"
    job.mkdir(parents=True)
    assert _cgroup_cores(tmp_path, own) > 10**6
    (job / "cpu.max").write_text("max 100000\n")
    assert _cgroup_cores(tmp_path, own) > 10**6
    (job / "cpu.max").write_text("350000 100000\n")
    assert _cgroup_cores(tmp_path, own) == 4
    (tmp_path / "service" / "cpu.max").write_text("150000 100000\n")
    assert _cgroup_cores(tmp_path, own) == 2, "a cgroup above limits it too"


def test_an_interrupt_while_helpers_start_leaves_no_work_behind(monkeypatch):
    """Thread.start waits for the thread, and Ctrl-C may come just then."""
    start, done, started = threading.Thread.start, [], []

    def interrupted(thread):
        start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)

    def work(band):
        time.sleep(0.01)
        done.append(band)

    with pytest.raises(KeyboardInterrupt):
        run_bands(range(100), work, workers=3)
    after = len(done)
    assert len(started) == 1
    assert after < 100
    time.sleep(0.1)
    assert len(done) == after


def test_an_interrupt_while_waiting_waits_for_the_band_under_way():
    """The caller's own band is done long before the helper's when Ctrl-C comes."""
    helper_done = threading.Event()
    main = threading.get_ident()

    def work(_):
        if threading.get_ident() == main:
            time.sleep(0.05)
        else:
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
            time.sleep(0.8)
            helper_done.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_bands([0, 1], work, workers=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert helper_done.is_set()


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True, np.array([1, 2])])
def test_workers_must_be_a_positive_integer(workers):
    with pytest.raises(OptionError, match="workers must be a positive integer"):
        check_workers(workers)


def test_progress_is_told_to_a_callable():
    told = []
    with report_progress(lambda done, total: told.append((done, total)), 10, "x") as advance:
        advance(4)
        advance(6)
    assert told == [(4, 10), (10, 10)]


def test_progress_bar_counts_blocks(capsys):
    with report_progress(True, 10, "flow 2:4") as advance:
        advance(10)
    shown = capsys.readouterr().err
    assert "flow 2:4" in shown
    assert "10.0/10.0" in shown


def test_no_progress_is_silent(capsys):
    with report_progress(False, 10, "x") as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_progress_of_another_kind_is_refused():
    message = "progress must be True, False or a callable"
    with pytest.raises(OptionError, match=message), report_progress("yes", 10, "x"):
        pass
