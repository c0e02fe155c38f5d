"""Two processes on the CPU: what each scenario shows is in ranks.py, beside this file."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import masksolve.torch as mt
from masksolve.errors import OptionError

from . import ranks


def run(folder, *scenarios):
    """Run scenarios in two processes; what they say is shown if one fails."""
    environment = dict(os.environ)
    if sys.platform == "linux":  # a machine's own name need not resolve
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", ranks.__file__, str(rank), str(folder), *scenarios],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)


def test_training_ends_where_one_process_ends(tmp_path):
    run(tmp_path, "ddp", "fsdp", "mixed_precision")


def test_bad_calls_are_told_on_all_ranks(tmp_path):
    run(tmp_path, "refusals")


def test_when_sparse_layers_pack(tmp_path):
    run(tmp_path, "sparse")


def test_checkpoints(tmp_path):
    """What two processes saved, sharded, is read by one."""
    run(tmp_path, "checkpoints")
    expected = torch.load(tmp_path / "full.pt")
    model = read(tmp_path / "good")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    mt.check_sparsity(model)
    with pytest.raises(RuntimeError, match="mask is refused, but was read in place"):
        read(tmp_path / "bad")


def read(folder):
    model = ranks.masked(seed=3)
    with warnings.catch_warnings():  # that it is one process
        warnings.simplefilter("ignore", UserWarning)
        ranks.load(model, folder)
    return model


def test_alone_there_is_nothing_to_compare():
    model = nn.Linear(8, 8)
    mt.sparsify(model, 2, 4)
    with pytest.raises(OptionError, match="not initialized"):
        mt.check_same_masks(model)
