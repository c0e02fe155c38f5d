"""The README tells the truth: its code runs and prints what it says, its table is METHODS."""

import contextlib
import io
import re
from pathlib import Path

from masksolve.methods import methods_table

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_code_prints_what_the_readme_says():
    namespace = {}
    blocks = re.findall(r"```(python|text)\n(.*?)```", README, flags=re.DOTALL)
    assert [kind for kind, _ in blocks].count("text") >= 3
    printed = None
    for kind, text in blocks:
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, "README.md", "exec"), namespace)
            printed = out.getvalue()
        else:
            # "..." stands for what the reader need not compare.
            pattern = ".*".join(map(re.escape, text.split("...")))
            assert re.fullmatch(pattern, printed), printed


def test_table_is_generated_from_methods():
    table = re.search(r"<!-- methods: .*? -->\n(.*?)\n<!-- end of methods -->", README, re.DOTALL)
    assert table[1] == methods_table(), "paste the output of methods_table() into the README"


def test_speeds_are_those_that_the_benchmark_wrote():
    """All that have a goal, missed or met."""
    section = re.search(r"<!-- speed: .*? -->\n(.*?)\n<!-- end of speed -->", README, re.DOTALL)
    written = (Path(__file__).parents[1] / "benchmarks" / "results" / "cpu.md").read_text()
    reach = re.search(r"## Reach\n.*?\n(\|.*?)\n\n", written, re.DOTALL)
    goals = [line for line in reach[1].splitlines() if line.split("|")[2].strip()]
    assert len(goals) > 20
    assert section[1].splitlines() == goals, "paste the lines of cpu.md that have a goal"


def test_commands_are_those_of_the_makefile():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{command}:" in makefile
