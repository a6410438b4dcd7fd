"""It learns: the notebook's configuration on real text, as the command line runs it."""

import re

import pytest
from support.command_line import metrics, run
from support.notebook import wikitext_folder


@pytest.mark.parametrize(("batch", "end"), [(128, "6.0"), pytest.param(512, "5.", marks=pytest.mark.documents)])
def test_fifty_steps_of_the_notebook(tmp_path, batch, end):
    """The mean true MLM loss is below that of the notebook's own code with its averaging corrected.

    That is 6.46 in batches of 512, as the notebook's, and in batches of 128 it is 6.60, the least of three seeds. What
    learns nothing has 6.22, since the output bias starts from the words' frequencies. Ours has 6.04 and 6.11.
    """
    out = tmp_path / "out"
    options = ["--batch-size", batch, "--precision", "fp32", "--device", "cpu", "--out", out]
    done = run("--corpus", wikitext_folder(), *options)
    assert done.returncode == 0, done.stderr
    losses = [record["mlm_loss"] for record in metrics(out)]
    assert len(losses) == 50
    # Fifty steps end above what needs no context (5.65), and are told so.
    assert done.stderr.count(f"the run ends with an MLM loss of {end}") == done.stderr.count("What usually helps") == 1
    assert sum(losses) / 50 < 6.16
    assert sum(losses[-10:]) / 10 < 6.15
    assert done.stdout.splitlines()[-2].startswith(f"MLM loss {sum(losses) / 50:.3f}, NSP loss 0.")

    encoded = run("--model", out, "a crane is flying", module="encode")
    assert "(1, 6, 128)" in encoded.stdout
    assert "(1, 128)" in encoded.stdout
    pair = run("--model", out, "a crane driver came", "he just left", module="encode")
    assert "(1, 10, 128)" in pair.stdout


def test_the_notebooks_learning_rate(tmp_path):
    options = ["--lr", "0.01", "--steps", 25, "--batch-size", 128, "--device", "cpu", "--out", tmp_path / "out"]
    done = run("--corpus", wikitext_folder(), *options)
    assert done.returncode == 0, done.stderr
    assert re.match(r"MLM loss 6\.", done.stdout)
    assert max(record["mlm_loss"] for record in metrics(tmp_path / "out")) < 7.5


@pytest.mark.long
def test_bf16_learns_as_well_as_fp32(tmp_path):
    """The loss on held-out text, always masked alike, after 200 steps."""
    found = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        options = ["--precision", precision, "--steps", 200, "--batch-size", 128, "--eval", "--device", "cpu"]
        done = run("--corpus", wikitext_folder(), *options, "--out", out)
        assert done.returncode == 0, done.stderr
        found[precision] = metrics(out)[-1]["eval_mlm_loss"]
    assert found["fp32"] < 6.2, found
    assert abs(found["bf16"] - found["fp32"]) < 0.02, found
