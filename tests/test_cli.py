"""The command line, as a user meets it: results, refusals, interruptions."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

import masksolve as ms
from masksolve.cli import main
from masksolve.files import open_tensors
from masksolve.methods import METHODS

SAMPLE = Path(__file__).parents[1] / "notebooks" / "data" / "minilm_sample.safetensors"
QUERY = "encoder.layer.3.attention.self.query.weight"
COMMAND = [sys.executable, "-m", "masksolve.cli"]


@pytest.fixture
def run(capsys):
    """Run the command in this process; returns (exit code, stdout, stderr)."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(run):
    """Run a command that must be refused in one line; returns that line."""

    def call(*arguments):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"masksolve: error: [^\n]+\n", err)
        return err

    return call


@pytest.fixture
def model(tmp_path):
    """A small model with one tensor of every kind, and its path."""
    rng = np.random.default_rng(0)
    tensors = {
        "layer.0.weight": rng.normal(size=(16, 24)).astype(np.float32),
        "layer.1.weight": rng.normal(size=(24, 10)).astype(ml_dtypes.bfloat16),
        "conv[0].weight": rng.normal(size=(8, 8, 3, 3)).astype(np.float16),
        "layer.0.bias": rng.normal(size=16).astype(np.float32),
        "scale": np.array(2.0, np.float32),
        "ids": np.arange(64).reshape(8, 8),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    return path, tensors


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


# find


def test_find_on_real_weights(run, tmp_path):
    code, out, err = run(
        "find", SAMPLE, "--pattern", "2:4", "--tensor", "*attention*",
        "--out", tmp_path / "m.safetensors", "--apply", tmp_path / "p.safetensors",
        "--json", tmp_path / "r.json", "--plot", tmp_path / "m.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    weights, masks = load_file(SAMPLE), load_file(tmp_path / "m.safetensors")
    pruned, report = (
        load_file(tmp_path / "p.safetensors"),
        json.loads((tmp_path / "r.json").read_text()),
    )
    assert set(masks) == {name for name in weights if "attention" in name}
    for name, array in weights.items():
        mask = masks.get(name, np.True_)
        if name in masks:
            ms.check_mask(mask, 2, 4)
            assert ms.certify_mask(array, mask, 2, 4).optimal
        expected = np.where(mask, array.view(np.uint16), 0)
        np.testing.assert_array_equal(pruned[name].view(np.uint16), expected)
    kept = {
        name: np.abs(weights[name][mask].astype(float)).sum()
        / np.abs(weights[name].astype(float)).sum()
        for name, mask in masks.items()
    }
    for record in report["tensors"]:
        share = kept[record["name"]]
        assert record["kept_share"] == pytest.approx(share)
        assert re.search(
            rf"{re.escape(record['name'])} +384x384 +float16 +{100 * share:.2f} % +0 ", out
        )
        assert record["objective"] == record["bound"]
        assert (record["gap"], record["optimal"]) == (0, True)
        assert record["kept_entries"] == masks[record["name"]].sum()
        assert record["seconds"] > 0
    assert report["pattern"] == "2:4"
    assert (report["degree"], report["masksolve"]) == ("exact", ms.__version__)
    assert {s["name"]: s["reason"] for s in report["skipped"]} == dict.fromkeys(
        set(weights) - set(masks), "not selected"
    )
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    with safetensors.safe_open(tmp_path / "p.safetensors", "np") as file:
        assert file.metadata()["source"].startswith("sentence-transformers")
    with safetensors.safe_open(tmp_path / "m.safetensors", "np") as file:
        assert file.metadata()["pattern"] == "2:4"
    assert files_in(tmp_path) == ["m.png", "m.safetensors", "p.safetensors", "r.json"]


def test_every_skipped_tensor_is_listed_with_its_reason(run, model, tmp_path):
    path, tensors = model
    _, out, _ = run(
        "find", path, "--pattern", "2:4", "--exclude", "conv*", "--json", tmp_path / "r.json"
    )
    reasons = {
        "conv[0].weight": "excluded",
        "layer.0.bias": "1-D",
        "scale": "0-D",
        "ids": "not floating (int64)",
    }
    report = json.loads((tmp_path / "r.json").read_text())
    assert {s["name"]: s["reason"] for s in report["skipped"]} == reasons
    for name, reason in reasons.items():
        shape = "x".join(map(str, tensors[name].shape)) or r"\(\)"
        assert re.search(rf"{re.escape(name)} +{shape} +\w+ +{re.escape(reason)}", out)
    assert {t["name"] for t in report["tensors"]} == set(tensors) - set(reasons)
    assert "all 2 " in out


def test_axes_of_convolution_weights(run, model, tmp_path):
    path, tensors = model
    out = tmp_path / "m.npz"
    assert run("find", path, "--pattern", "2:4", "--axes", "0,1", "--out", out)[0] == 0
    with np.load(out) as masks:
        ms.check_mask(masks["conv[0].weight"], 2, 4, axes=(0, 1))
        expected = ms.find_mask(tensors["conv[0].weight"], 2, 4, axes=(0, 1))
        np.testing.assert_array_equal(masks["conv[0].weight"], expected)
    code, text, _ = run("find", path, "--pattern", "2:4", "--axes", "2,3")
    assert code == 0
    assert re.search(r"layer.0.weight +16x24 +float32 +2-D, so it has no axes 2,3", text)


def test_names_select_literally_and_by_glob(run, model, tmp_path):
    path, _ = model
    run("find", path, "--pattern", "2:4", "--tensor", "conv[0].weight", "--tensor", "layer.?.weight",
        "--exclude", "layer.1.weight", "--json", tmp_path / "r.json")  # fmt: skip
    report = json.loads((tmp_path / "r.json").read_text())
    assert {t["name"] for t in report["tensors"]} == {"conv[0].weight", "layer.0.weight"}


def test_bfloat16_goes_through_bit_for_bit(run, model, tmp_path):
    path, tensors = model
    run("find", path, "--pattern", "2:4", "--tensor", "layer.1.weight",
        "--out", tmp_path / "m.npy", "--apply", tmp_path / "p.safetensors")  # fmt: skip
    mask, array = np.load(tmp_path / "m.npy"), tensors["layer.1.weight"]
    with safetensors.safe_open(tmp_path / "p.safetensors", "np") as file:
        assert file.get_slice("layer.1.weight").get_dtype() == "BF16"
        assert file.metadata() == {"format": "pt"}
        pruned = file.get_tensor("layer.1.weight")
        for name in set(tensors) - {"layer.1.weight"}:
            assert file.get_tensor(name).tobytes() == tensors[name].tobytes()
    np.testing.assert_array_equal(pruned.view(np.uint16), np.where(mask, array.view(np.uint16), 0))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_numpy_files(run, tmp_path, suffix, dtype):
    W = np.random.default_rng(0).normal(size=(12, 12)).astype(dtype)
    path, out = tmp_path / f"W{suffix}", tmp_path / f"p{suffix}"
    np.save(path, W) if suffix == ".npy" else np.savez(path, W=W, b=np.ones(3))
    code, text, err = run("find", path, "--pattern", "1:4", "--apply", out)
    assert (code, err) == (0, "")
    assert re.search(rf" W +12x12 +{np.dtype(dtype).name} ", text)
    pruned = (np.load(out) if suffix == ".npy" else np.load(out)["W"]).view(dtype)
    expected = np.where(ms.find_mask(W, 1, 4), W, np.zeros((), dtype))
    assert pruned.tobytes() == expected.tobytes()


def test_method_backend_degree_and_workers_are_obeyed(run, model, tmp_path):
    path, tensors = model
    run("find", path, "--pattern", "3:8", "--method", "greedy", "--backend", "cover", "--degree", "at_most",
        "--workers", "1", "--tensor", "layer.0.weight", "--json", tmp_path / "r.json")  # fmt: skip
    (record,) = json.loads((tmp_path / "r.json").read_text())["tensors"]
    expected = ms.solve(
        tensors["layer.0.weight"], 3, 8, method="greedy", backend="cover", degree="at_most"
    )
    assert (record["method"], record["backend"], record["workers"]) == ("greedy", "cover", 1)
    assert (record["objective"], record["gap"]) == (expected.objective, expected.gap)
    assert expected.gap > 0


def test_zeros_have_no_share_and_json_stays_json(run, tmp_path):
    np.save(tmp_path / "z.npy", np.zeros((8, 8)))
    code, out, _ = run(
        "find", tmp_path / "z.npy", "--pattern", "2:4", "--json", tmp_path / "r.json"
    )
    assert code == 0
    assert re.search(r"z +8x8 +float64 +- +0 ", out)

    def no_constant(name):
        pytest.fail(f"{name} is not JSON")

    report = json.loads((tmp_path / "r.json").read_text(), parse_constant=no_constant)
    assert report["tensors"][0]["kept_share"] is None


BIG = [[2.0**1023, 0], [0, 0]]
HUGE = np.full((4, 4), 1.7e308)  # whose own sum is beyond the largest double


@pytest.mark.parametrize(
    ("tensors", "share", "records"),
    [
        ({"a": BIG, "b": BIG}, "100.00 %", {(1, 2.0**1023)}),
        ({"a": HUGE, "b": np.eye(4)}, "-", {(0.5, None), (1, 4)}),
    ],
)
@pytest.mark.parametrize("command", ["find", "compare"])
def test_sums_may_exceed_the_largest_double(
    run, tmp_path, command, tensors, share, records
):  # fmt: skip
    np.savez(tmp_path / "big.npz", **tensors)
    code, out, err = run(command, tmp_path / "big.npz", "--pattern", "1:2", "--method", "flow",
                         "--json", tmp_path / "r.json", "--plot", tmp_path / "p.png")  # fmt: skip
    assert (code, err) == (0, "")
    last = out[out.rindex("all 2") :]
    assert re.search(rf" {share} +0 ", last)
    report = json.loads((tmp_path / "r.json").read_text())
    rows = [row for t in report["tensors"] for row in t.get("methods", [t])]
    assert {(row["kept_share"], row["total"]) for row in rows} == records


def test_shares_and_gaps_of_all_tensors_together(run, tmp_path):
    rng = np.random.default_rng(0)
    # Scales at both ends of what a double holds: the sums must be formed without under- or overflow.
    for scale in (1e-310, 1.0, 1e306):
        tensors = {name: scale * rng.random((16, 16)) for name in "ab"}
        np.savez(tmp_path / "w.npz", **tensors)
        found = {name: ms.solve(W, 2, 8, method="greedy") for name, W in tensors.items()}
        weight = [np.sum(W / scale) for W in tensors.values()]
        share = np.average([s.kept_share for s in found.values()], weights=weight)
        bounds = [s.bound / scale for s in found.values()]
        gap = np.average([s.gap for s in found.values()], weights=bounds)
        assert gap > 0
        for command in ("find", "compare"):
            _, out, _ = run(command, tmp_path / "w.npz", "--pattern", "2:8", "--method", "greedy")
            last = out[out.rindex("all 2") :]
            assert re.search(rf" {100 * share:.2f} % +{100 * gap:.2g} % ", last), (scale, last)


@pytest.mark.parametrize("command", ["find", "compare"])
def test_keeping_nothing_is_a_share_of_nothing(run, tmp_path, command):
    np.savez(tmp_path / "w.npz", a=np.eye(8), b=np.eye(4))
    _, out, _ = run(command, tmp_path / "w.npz", "--pattern", "0:4", "--method", "flow")
    assert len(re.findall(r" 0\.00 % +0 ", out)) == 3
    assert " - " not in out


@pytest.mark.parametrize("name", [b"w\xff", "重み".encode()])
def test_names_that_the_terminal_or_utf_8_lacks(tmp_path, name):
    path = tmp_path / os.fsdecode(name + b".npy")
    np.save(path, np.eye(8))
    shown = "w\\udcff" if name[:1] == b"w" else "\\u91cd\\u307f"
    text = "w\\udcff" if name[:1] == b"w" else "重み"
    outputs = {
        "find": ("--out", "m.npz", "--json", "f.json", "--plot", "f.svg"),
        "compare": ("--json", "c.json", "--plot", "c.svg"),
    }
    for command, arguments in outputs.items():
        done = subprocess.run(
            [*COMMAND, command, path, "--pattern", "2:4", "--method", "flow", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert shown in done.stdout
        report = json.loads((tmp_path / arguments[arguments.index("--json") + 1]).read_bytes())
        assert report["file"] == str(tmp_path / text) + ".npy"
        assert report["tensors"][0]["name"] == text
    assert list(np.load(tmp_path / "m.npz")) == [text]
    for suffix in (".npz", ".safetensors"):
        assert (
            main(
                ["find", str(path), "--pattern", "2:4", "-q", "--out", str(tmp_path / f"o{suffix}")]
            )
            == 0
        )
        assert list(open_tensors(tmp_path / f"o{suffix}").tensors) == [text]


def test_what_is_printed_leaves_stdout_as_it_was(run, model):
    before = sys.stdout.errors
    run("find", model[0], "--pattern", "2:4")
    assert sys.stdout.errors == before


def test_quiet_shows_nothing(run, model):
    assert run("find", model[0], "--pattern", "2:4", "--quiet") == (0, "", "")
    assert run("compare", model[0], "--pattern", "2:4", "--method", "conv", "-q") == (0, "", "")


def test_force_is_needed_to_overwrite(run, refused, model, tmp_path):
    out = tmp_path / "m.npz"
    out.write_text("precious")
    arguments = ("find", model[0], "--pattern", "2:4", "--out", out)
    assert "exists; give --force" in refused(*arguments)
    assert out.read_text() == "precious"
    assert run(*arguments, "--force")[0] == 0
    assert np.load(out)["layer.0.weight"].dtype == bool


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pattern", "5:4"), "n must not exceed m"),
        (("--pattern", "24"), "written n:m"),
        ((), "Missing option '--pattern'"),
        (("--pattern", "2:4", "--method", "flwo"), "did you mean 'flow'"),
        (("--pattern", "2:4", "--method", "flow", "--backend", "numpy"), "has no backend 'numpy'"),
        (("--pattern", "8:16", "--method", "conv"), "use method='flow'"),
        (("--pattern", "2:4", "--degree", "some"), "degree must be"),
        (("--pattern", "2:4", "--workers", "0"), "workers must be a positive"),
        (("--pattern", "2:4", "--axes", "0"), "two integers"),
        (("--pattern", "2:4", "--axes", "1,1"), "two different axes"),
        (("--pattern", "2:4", "--axes", "7,8"), "has nothing to mask"),
        (("--pattern", "2:4", "--tensor", "layer.0.wieght"), "did you mean 'layer.0.weight'"),
        (("--pattern", "2:4", "--tensor", "layer.0.bias"), "'layer.0.bias' is skipped: 1-D"),
        (("--pattern", "2:4", "--exclude", "*"), "has nothing to mask"),
        (("--pattern", "2:4", "--out", "m.npy"), "holds one array, but there are 3 masks"),
        (("--pattern", "2:4", "--out", "m.pt"), "--out m.pt does not end in"),
        (("--pattern", "2:4", "--apply", "p.npz"), "--apply p.npz does not end in .safetensors"),
        (("--pattern", "2:4", "--json", "r.txt"), "--json r.txt does not end in .json"),
        (("--pattern", "2:4", "--plot", "m.txt"), "--plot m.txt does not end in"),
        (("--pattern", "2:4", "--plot", "no/m.png"), "--plot no/m.png: there is no folder"),
        (("--pattern", "2:4", "--out", "model.safetensors"), "same file as the input"),
        (("--pattern", "2:4", "--out", "a.npz", "--apply", "model.safetensors"), "same file as"),
        (("--pattern", "2:4", "--nonsense"), "No such option"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line_before_the_work(
    refused, model, monkeypatch, arguments, message
):
    monkeypatch.chdir(model[0].parent)
    monkeypatch.setattr("masksolve.find.solve", lambda *_, **__: pytest.fail("the work began"))
    assert message in refused("find", "model.safetensors", *arguments)
    assert files_in(model[0].parent) == ["model.safetensors"]


@pytest.mark.parametrize("command", ["find", "compare"])
def test_bad_files_are_refused_in_one_line(refused, tmp_path, command):
    (tmp_path / "cut.safetensors").write_bytes(SAMPLE.read_bytes()[:10_000])
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "pickle.npy", np.array([[{}]]), allow_pickle=True)
    for name, message in {
        "cut.safetensors": "truncated",
        "text.npz": "not a .npz file",
        "pickle.npy": "pickled Python objects",
        "none.npy": "there is no file",
    }.items():
        assert message in refused(command, tmp_path / name, "--pattern", "2:4")


def test_nan_is_reported_with_the_name_of_its_tensor(refused, model, tmp_path):
    path, tensors = model
    tensors["layer.1.weight"][3, 4] = np.nan
    save_file(tensors, path)
    line = refused("find", path, "--pattern", "2:4", "--out", tmp_path / "m.npz")
    assert "tensor 'layer.1.weight': scores must be finite, but the entry at (3, 4) is nan" in line
    line = refused("compare", path, "--pattern", "2:4", "--sample", "0")
    assert "tensor 'layer.1.weight'" in line
    assert files_in(tmp_path) == ["model.safetensors"]


def test_damage_that_shows_late_leaves_nothing_behind(refused, tmp_path):
    path, W = tmp_path / "w.npz", np.random.default_rng(0).normal(size=(64, 64))
    np.savez(path, a=W, b=W + 1)
    raw = bytearray(path.read_bytes())
    raw[raw.find((W + 1).tobytes()) + 1000] ^= 1
    path.write_bytes(raw)
    line = refused("find", path, "--pattern", "2:4", "--out", tmp_path / "m.npz")
    assert "damaged" in line
    assert files_in(tmp_path) == ["w.npz"]


def test_unknown_commands_and_methods_are_refused(refused):
    assert "No such command 'fnd'" in refused("fnd")
    assert "did you mean 'greedy'" in refused(
        "compare", SAMPLE, "--pattern", "2:4", "--method", "greddy"
    )
    assert "--sample" in refused("compare", SAMPLE, "--pattern", "2:4", "--sample", "-1")


def test_defects_are_not_hidden(model, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("masksolve.find.solve", fail)
    with pytest.raises(ZeroDivisionError):
        main(["find", str(model[0]), "--pattern", "2:4"])


def test_without_the_extra_it_is_named(refused, monkeypatch):
    for package in ("typer", "rich"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert 'pip install "masksolve[cli]"' in refused("methods")


def test_without_matplotlib_the_extra_is_named_before_the_work(refused, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("masksolve.find.solve", lambda *_, **__: pytest.fail("the work began"))
    line = refused("find", model[0], "--pattern", "2:4", "--plot", "m.png")
    assert 'pip install "masksolve[plot]"' in line


def test_a_shape_that_overflows_is_refused_without_a_warning(tmp_path):
    with (tmp_path / "huge.npy").open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**40)}
        np.lib.format.write_array_header_1_0(stream, header)
    command = [*COMMAND, "find", "huge.npy", "--pattern", "2:4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"masksolve: error: huge\.npy is truncated[^\n]+\n", done.stderr)


@pytest.mark.parametrize(("command", "function"), [("find", "find_mask"), ("compare", "compare")])
def test_options_are_checked_without_solving_anything(run, model, monkeypatch, command, function):
    sizes = []
    real = getattr(ms, function)

    def counted(scores, **options):
        sizes.append(scores.size)
        return real(scores, **options)

    monkeypatch.setattr(f"masksolve.find.{function}", counted)
    arguments = ("--pattern", "2:4", "--method", "flow", "--tensor", "layer.0.weight")
    assert run(command, model[0], *arguments)[0] == 0
    assert sizes == ([] if command == "find" else [16 * 24])


def test_a_missing_engine_is_found_before_the_work(refused, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "masksolve.solvers.flow_networkx", None)
    for function in ("solve", "compare"):
        monkeypatch.setattr(f"masksolve.find.{function}", lambda *_, **__: pytest.fail("work"))
    line = refused(
        "find", model[0], "--pattern", "2:4", "--method", "flow", "--backend", "networkx"
    )
    assert "networkx" in line
    assert "networkx" in refused(
        "compare", model[0], "--pattern", "2:4", "--method", "flow/networkx"
    )


# compare and methods


def test_compare_on_real_weights(run, tmp_path):
    code, out, err = run(
        "compare", SAMPLE, "--pattern", "2:4", "--sample", "64", "--tensor", "*attention*",
        "--json", tmp_path / "r.json", "--plot", tmp_path / "c.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    report = json.loads((tmp_path / "r.json").read_text())
    exact = {record.label for record in METHODS if record.exact}
    assert [t["name"] for t in report["tensors"]] == [
        n for n in load_file(SAMPLE) if "attention" in n
    ]
    for tensor in report["tensors"]:
        rows = {f"{row['method']}/{row['backend']}": row for row in tensor["methods"]}
        assert {label for label, row in rows.items() if row["gap"] == 0} == exact
        assert len({rows[label]["objective"] for label in exact}) == 1
        assert all(row["blocks"] == 64 for row in rows.values())
    # The sum over the tensors, in the last section of the table.
    last = out[out.index("all 2 tensors") :]
    assert re.search(r"flow/ortools +\d\d\.\d\d % +0 +128/128 ", last)
    assert re.search(r"greedy/native +\d\d\.\d\d % +\d\.\d+ % +\d+/128 ", last)
    assert "left out: greedy/cover" in out
    assert set(report["left_out"]) == {"greedy/cover"}
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_compare_takes_the_methods_asked_for_and_all_blocks(run, model, tmp_path):
    run("compare", model[0], "--pattern", "2:4", "--method", "greedy", "--method", "flow/networkx",
        "--sample", "0", "--tensor", "layer.0.weight", "--json", tmp_path / "r.json")  # fmt: skip
    report = json.loads((tmp_path / "r.json").read_text())
    rows = report["tensors"][0]["methods"]
    assert [(row["method"], row["backend"], row["blocks"]) for row in rows] == [
        ("greedy", "native", 24),
        ("flow", "networkx", 24),
    ]


def test_methods_lists_the_table(run):
    code, out, _ = run("methods")
    assert code == 0
    words = " ".join(out.split())
    for record in METHODS:
        exact = "yes" if record.exact else "no"
        row = f"{record.name} {record.backend} {exact} {record.guarantee} {record.about}"
        assert row in words  # whole, though wrapped
    assert max(map(len, out.splitlines())) <= 80


def test_version_and_help(run):
    assert run("--version") == (0, f"masksolve {ms.__version__}\n", "")
    for arguments in ((), ("--help",), ("-h",)):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert all(command in out for command in ("find", "compare", "methods"))
    assert "--pattern" in run("find", "--help")[1]


# As a process of its own


def test_exit_code_and_one_line_without_a_traceback(tmp_path):
    command = [*COMMAND, "find", str(tmp_path / "none.npy"), "--pattern", "2:4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"masksolve: error: there is no file {tmp_path / 'none.npy'}\n"


def test_help_is_quick():
    code = (
        "import sys; from masksolve.cli import main; main(['find', '--help']);"
        "slow = {'numba', 'ortools', 'scipy', 'networkx', 'matplotlib', 'safetensors'};"
        "sys.exit(', '.join(slow & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# What a background job of a shell, or nohup, leaves ignored stays so in its children.
HEED_CTRL_C = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from masksolve.cli import main; sys.exit(main())"
)


@pytest.fixture(params=["heeded", "ignored"])
def ctrl_c_here(request):
    """Ctrl-C as the test run itself found it: heeded, or ignored as under nohup."""
    wanted = signal.SIG_IGN if request.param == "ignored" else signal.default_int_handler
    before = signal.signal(signal.SIGINT, wanted)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_here")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path, number, code):
    W = np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32)
    np.savez(tmp_path / "w.npz", W=W)
    old = tmp_path / "old.npz"
    old.write_text("precious")
    process = subprocess.Popen(
        [sys.executable, "-c", HEED_CTRL_C,
         "find", "w.npz", "--pattern", "8:16", "--method", "flow", "--backend", "networkx",
         "--out", "old.npz", "--apply", "p.npz", "--json", "r.json", "--force"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(files_in(tmp_path)) < 5:  # until the work has begun
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    assert err == ("masksolve: interrupted\n" if number == signal.SIGINT else "")
    assert files_in(tmp_path) == ["old.npz", "w.npz"]
    assert old.read_text() == "precious"


def on_terminal(width, *arguments):
    """Run the command on a terminal of this width and return what it shows."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=follower, stdout=follower, stderr=follower, env={**environment, "TERM": "xterm"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 1 << 16)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize(
    ("arguments", "total"),
    [
        (("find", "--method", "flow"), 64**2),
        (("compare", "--method", "flow", "--method", "greedy", "--sample", "0"), 2 * 64**2),
    ],
)
def test_the_bar_counts_every_block_once(tmp_path, arguments, total):
    np.save(tmp_path / "w.npy", np.random.default_rng(0).normal(size=(256, 256)))
    shown = on_terminal(100, arguments[0], tmp_path / "w.npy", "--pattern", "2:4", *arguments[1:])
    steps = [
        int(done) for done in re.findall(rf"(\d+)/{total}\D", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    ]
    assert steps[-1] == total
    assert steps == sorted(steps)


def test_numbers_are_whole_on_a_terminal_of_80_columns(tmp_path):
    name = "a.very.long.name.of.a.tensor.that.does.not.fit.into.any.column.weight"
    W = np.random.default_rng(0).normal(size=(160, 128, 3, 3)).astype(ml_dtypes.float8_e4m3fnuz)
    save_file({name: W}, tmp_path / "w.safetensors")
    shown = on_terminal(
        80,
        "find",
        tmp_path / "w.safetensors",
        "--pattern",
        "2:4",
        "--axes",
        "0,1",
        "--method",
        "greedy",
    )
    table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown[shown.rindex("\x1b[2K") :])
    assert max(map(len, table.splitlines())) <= 80
    (line,) = (line for line in table.splitlines() if "160x128x3x3" in line)
    assert re.search(r"160x128x3x3 +float8_e4m3fnuz +\d\d\.\d\d % +\d\.\d+ % +[\d.]+ m?s", line)
    column = [line[: line.index("  ")] if "  " in line else line for line in table.splitlines()]
    assert name in "".join(part.strip() for part in column)
    assert "…" not in table


# count


def test_count_shows_exact_numbers(run):
    code, out, _ = run("count", "4:8")
    assert code == 0
    assert "116963796250" in out
    assert str(70**8) in out
    code, out, _ = run("count", "2:4", "--degree", "at_most")
    assert "7343" in out


def test_count_of_a_tensor_and_of_what_is_too_large(run):
    code, out, _ = run("count", "2:4", "--shape", "8x8")
    assert code == 0
    assert str(90**4) in out
    code, out, _ = run("count", "8:16", "--shape", "4096x4096")
    assert "about 1e3639983" in out
    code, out, _ = run("count", "16:32")
    assert code == 0
    assert "too many to count" in out
    assert "estimate" in out


def test_count_refuses_what_it_cannot_read(refused):
    assert "n:m" in refused("count", "four")
    for shape in ("wide", "4", "-4x4", "4x-1", "1_0x4", "4.0x4"):
        assert "--shape takes sizes" in refused("count", "2:4", f"--shape={shape}")
    assert "degree" in refused("count", "2:4", "--degree", "any")
