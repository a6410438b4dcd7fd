"""The command line, as a user meets it: separate processes, real text, messages read."""

import dataclasses
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import processes, torchrun
from support.command_line import metrics, run
from support.processes import TINY, write_texts
from transformers import AutoConfig, AutoTokenizer

from bertfast.config import CorpusConfig, TrainConfig
from bertfast.data.load import build_corpus
from bertfast.inference.encoder import Encoder
from bertfast.presets import PRESETS

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def texts(tmp_path):
    return write_texts(tmp_path / "texts.txt")


def test_a_run_end_to_end(texts, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "bertfast.pretrain", "--corpus", texts, "--steps", 4, "--out", out]
    command += torchrun.TINY  # in the precision of this machine
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=torchrun.HANGS)
    assert done.returncode == 0, done.stderr
    closing = done.stdout.splitlines()[-2:]
    assert re.fullmatch(r"MLM loss \d+\.\d{3}, NSP loss \d\.\d{3}", closing[0])
    assert re.fullmatch(r"\d+\.\d sentence pairs/sec on \[device\(type='cpu'\)\]", closing[1])
    assert [record["step"] for record in metrics(out)] == [0, 1, 2, 3]
    mean = sum(record["mlm_loss"] for record in metrics(out)) / 4
    assert closing[0].startswith(f"MLM loss {mean:.3f}")
    assert "<svg" in (out / "loss.svg").read_text()
    assert "kernels:" in done.stderr

    encoded = run("--model", out, "a crane is flying", module="encode")
    assert encoded.returncode == 0, encoded.stderr
    assert "(1, 6, 32)" in encoded.stdout
    assert "(1, 32)" in encoded.stdout
    pair = run("--model", out, "a crane driver came", "he just left", module="encode")
    assert "(1, 10, 32)" in pair.stdout


def test_the_models_padding_token_is_the_tokenizers(texts, tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncrane\n[PAD]\n")
    out = tmp_path / "out"
    done = run("--corpus", texts, "--tokenizer", tmp_path / "vocab.txt", "--steps", 1, "--out", out, *TINY)
    assert done.returncode == 0, done.stderr
    assert AutoConfig.from_pretrained(out).pad_token_id == AutoTokenizer.from_pretrained(out).pad_token_id == 6


def test_without_pairs_the_closing_lines_name_none(texts, tmp_path):
    done = run("--corpus", texts, "--objective", "none", "--steps", 2, "--out", tmp_path / "out", *TINY)
    assert done.returncode == 0, done.stderr
    closing = done.stdout.splitlines()[-2:]
    assert re.fullmatch(r"MLM loss \d+\.\d{3}", closing[0])
    assert re.fullmatch(r"\d+\.\d examples/sec on \[device\(type='cpu'\)\]", closing[1])


NEXT = {
    "english": ("The crane is flying over the lake. It isn't a bird of prey, is it? Nobody knows!\n\n" * 9, []),
    "german": (
        "Der Kranich fliegt über den See. Er ist kein Raubvogel, oder?\n\n" * 9,
        ["--tokenizer", "wordpiece", "--language", "de"],
    ),
    "japanese": ("鶴は湖の上を飛んでいます。それは鳥です。\n\n" * 9, ["--tokenizer", "char", "--language", "ja"]),
    "proteins": ("".join(f"{'MKVLAAGIVG' * (3 + i)}\n" for i in range(40)), ["--tokenizer", "char"]),
    "options": ("-x --yy -z 'quoted' \"twice\" $HOME `id`\n" * 40, ["--text-form", "lines"]),
    "short": ("One.\nTwo.\n\n" * 40, ["--max-len", "5"]),
}


@pytest.mark.parametrize("kind", NEXT)
def test_a_run_ends_with_commands_that_work(tmp_path, kind):
    text, options = NEXT[kind]
    (tmp_path / "a.txt").write_text(text)
    out = tmp_path / "the run's $folder"
    command = [
        "--corpus",
        tmp_path / "a.txt",
        "--min-freq",
        1,
        "--steps",
        2,
        "--out",
        out,
        *TINY,
        *options,
        "--negatives",
        "any",
    ]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    *_, heading, fill, encode, probe = done.stderr.splitlines()
    assert heading == "what to try next:"
    assert shlex.split(probe) == ["python", "-m", "bertfast.probe", "--model", str(out), "--labels", "FILE.tsv"]
    for line, module, shape in ((fill, "fill_mask", r"0\.\d{4}  "), (encode, "encode", r"encoded text \(1, ")):
        python, flag, name, *arguments = shlex.split(line)
        assert (python, flag, name) == ("python", "-m", f"bertfast.{module}")
        tried = run(*arguments, module=module)
        assert tried.returncode == 0, tried.stderr
        assert re.match(shape, tried.stdout)
        assert "[UNK]" not in line
    assert fill.count("[MASK]") == 1
    if kind == "german":
        assert shlex.split(fill)[-1] == "der kranich fliegt [MASK] den see."


def test_quiet_runs_end_without_them(texts, tmp_path):
    done = run("--corpus", texts, "--steps", 2, "--out", tmp_path / "out", "--quiet", *TINY)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("pictures")
def test_sentence_order_is_called_so(texts, tmp_path, capfd):
    words = ["--corpus", texts, "--steps", 2, "--objective", "sop", "--out", tmp_path / "out", *TINY]
    assert importlib.import_module("bertfast.pretrain").main([*map(str, words)]) == 0
    out, err = capfd.readouterr()
    assert re.fullmatch(r"MLM loss \d+\.\d{3}, SOP loss \d\.\d{3}", out.splitlines()[-2]), err
    assert ", SOP 0." in err
    picture = (tmp_path / "out" / "loss.svg").read_text()
    assert "SOP loss" in picture
    assert "NSP" not in err + picture


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        (["--text-form", "plain"], (120, 6)),
        (["--text-form", "lines"], (40, 2)),
        (["--text-form", "plain", "--eval-text-form", "lines"], (120, 2)),
        (["--text-form", "lines", "--eval-text-form", "plain"], (40, 6)),
    ],
)
def test_a_text_to_evaluate_on_may_have_another_form(tmp_path, forms, expected):
    """As many sentences of each text as its form finds: a line has three, or is one."""
    line = "The crane came. It flew over the water. Then he just left.\n"
    (tmp_path / "trained_on.txt").write_text("\n\n".join(line * 2 for _ in range(20)))
    (tmp_path / "held_out.txt").write_text(line * 2)
    pretrain = importlib.import_module("bertfast.pretrain")
    options = pretrain._parser().parse_args(
        ["--corpus", str(tmp_path / "trained_on.txt"), "--eval-corpus", str(tmp_path / "held_out.txt"), *forms]
    )
    found = pretrain._corpora(options, PRESETS["notebook"])
    assert tuple(corpus.num_sentences for corpus in found) == expected


def test_a_built_text_to_evaluate_on_has_its_form(texts, tmp_path, capfd):
    build_corpus(texts, out=tmp_path / "built", config=CorpusConfig())
    main = importlib.import_module("bertfast.pretrain").main
    assert main(["--corpus", str(texts), "--eval-corpus", str(tmp_path / "built"), "--eval-text-form", "lines"]) == 2
    assert (
        "--eval-corpus names a built corpus, whose settings can't be changed: leave out --eval"
        in capfd.readouterr().err
    )


def test_a_non_finite_loss_names_its_batch(texts, tmp_path):
    out = tmp_path / "out"
    common = ["--corpus", texts, "--steps", 9, "--lr", "1e30", "--warmup", 0, "--checkpoint-every", 1, "--out", out]
    done = run(*common, *TINY)
    assert done.returncode == 2
    told = re.fullmatch(
        r"error: at step (\d) the loss is (nan|inf|\S+e\+\d+), its gradient's norm (nan|inf): lower --lr, or lengthen "
        rf"--warmup; its batch: python -m bertfast.corpus show {out} --step \1",
        done.stderr.splitlines()[-1],
    )
    assert told, done.stderr
    assert "Traceback" not in done.stderr
    step = int(told[1])
    assert [record["step"] for record in metrics(out)] == list(range(step))
    assert (out / "checkpoints" / f"step-{step:08d}.safetensors").exists()  # what the weights were before it


def test_a_run_that_learns_nothing_says_so(texts, tmp_path):
    """Once. (The words of this text are drawn independently: there is nothing to learn, and at this rate no way.)"""
    done = run("--corpus", texts, "--steps", 60, "--lr", "1e-7", "--out", tmp_path / "out", *TINY)
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.count("nothing is learned from context so far. What usually helps: another --lr (now 1e-07)") == 1
    )


def test_tensorboard_without_its_package(texts, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    main = importlib.import_module("bertfast.pretrain").main
    assert main(["--corpus", str(texts), "--tensorboard", "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err == ("error: --tensorboard needs the package tensorboard: pip install tensorboard\n")
    assert not (tmp_path / "out").exists()


def test_two_workers_give_one_workers_losses(texts, tmp_path):
    """Of the text to evaluate on, too. Two workers, whose job travels through a folder, also write event files."""
    (tmp_path / "held_out.txt").write_text(texts.read_text()[:1000])
    common = ["--corpus", texts, "--eval-corpus", tmp_path / "held_out.txt", "--steps", 5, "--dropout", "0"]
    common += TINY
    out = tmp_path / "two"
    one = run(*common, "--out", tmp_path / "one")
    two = run(*common, "--out", out, "--gpus", 2, "--tensorboard")
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert "--gpus 2 is 2 CPU worker processes over gloo" in two.stderr
    assert two.stdout.splitlines()[-1].endswith("on [device(type='cpu'), device(type='cpu')]")
    assert [line["step"] for line in metrics(out) if "mlm_loss" in line] == [0, 1, 2, 3, 4]
    for ours, theirs in zip(metrics(out), metrics(tmp_path / "one"), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() & {"mlm_loss", "nsp_loss", "eval_mlm_loss", "eval_nsp_loss"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)

    assert "to evaluate on: " in two.stderr
    assert re.search(r"step 5, held-out text: MLM loss \d\.\d{3} \(perplexity [\d.]+, accuracy ", two.stderr)
    assert [line["step"] for line in metrics(out) if "eval_mlm_loss" in line] == [4]
    assert list((out / "tensorboard").iterdir())
    saved = json.loads((out / "run.json").read_text())
    assert saved["train"]["steps"] == 5
    assert saved["corpus"]["fingerprint"] != saved["held_out"]["fingerprint"]


def test_resume_continues_exactly(texts, tmp_path):
    common = ["--corpus", texts, "--steps", 6, *TINY]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*common, "--out", whole).returncode == 0
    first = run(*common, "--out", parts, "--checkpoint-every", 2, "--resume")
    assert "holds no checkpoint: starting at step 0" in first.stderr
    newest = max((parts / "checkpoints").iterdir())
    assert newest.name == "step-00000006.safetensors"
    newest.unlink()  # as if the run had been stopped after step 4
    second = run(*common, "--out", parts, "--resume")
    assert second.returncode == 0, second.stderr
    assert "step-00000004.safetensors, step 4" in second.stderr
    assert metrics(parts) == metrics(whole)
    model = (parts / "model.safetensors").read_bytes()
    assert model == (whole / "model.safetensors").read_bytes()
    shutil.rmtree(parts / "checkpoints")
    third = run(*common, "--out", parts, "--resume")
    assert third.returncode == 2
    assert third.stderr.splitlines()[-1].startswith(f"error: {parts} holds a model but no checkpoint to continue from")
    assert (parts / "model.safetensors").read_bytes() == model
    assert metrics(parts) == metrics(whole)


def test_resume_passes_over_a_damaged_checkpoint(texts, tmp_path):
    out = tmp_path / "out"
    common = ["--corpus", texts, "--steps", 4, "--out", out, *TINY]
    assert run(*common, "--checkpoint-every", 2).returncode == 0
    damaged = out / "checkpoints" / "step-00000004.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    done = run(*common, "--resume")
    assert done.returncode == 0, done.stderr
    assert "step-00000004.safetensors is damaged" in done.stderr
    assert "step-00000002.safetensors, step 2" in done.stderr

    for path in (out / "checkpoints").iterdir():
        path.write_bytes(b"not a checkpoint")
    before = metrics(out)
    done = run(*common, "--resume")
    assert done.returncode == 2
    assert "every checkpoint in" in done.stderr
    assert metrics(out) == before


def test_a_preset_brings_a_recipe(texts, tmp_path):
    """Each of its settings gives way to a flag; --recipe notebook leaves the sizes alone."""

    def trained(out, *arguments):
        done = run("--corpus", texts, "--preset", "tiny", "--min-freq", 1, "--out", tmp_path / out, *arguments)
        assert done.returncode == 0, done.stderr
        saved = json.loads((tmp_path / out / "run.json").read_text())
        return done.stderr, saved["train"], saved["model"]

    said, ours, model = trained("ours", "--minutes", 0.01)
    assert {name: ours[name] for name in PRESETS["tiny"].train} == {**PRESETS["tiny"].train, "minutes": 0.01}
    assert len(metrics(tmp_path / "ours")) == ours["steps"]
    assert (model["hidden_size"], model["hidden_dropout_prob"]) == (128, 0.0)
    assert "0.01 minutes with batches of 256, AdamW 0.005, Muon 0.015, rising over 5% and falling over 50%" in said
    assert "objective none, 25% of the tokens predicted, started from neighbouring tokens" in said

    _, some, _ = trained("some", "--steps", 2, "--optimizer", "adamw", "--batch-size", 32)
    assert (some["steps"], some["minutes"], some["optimizer"], some["batch_size"]) == (2, 0.0, "adamw", 32)

    _, theirs, model = trained("notebook", "--steps", 1, "--recipe", "notebook", "--batch-size", 64)
    expected = dataclasses.asdict(TrainConfig(steps=1, batch_size=64))
    assert theirs == expected
    assert (model["hidden_size"], model["hidden_dropout_prob"]) == (128, 0.2)


def test_output_bias_starts_from_frequencies(texts, tmp_path):
    """So the very first loss is about the entropy of the words' frequencies, 2.68, not log V, 3.00."""
    counts = np.unique(texts.read_text().split(), return_counts=True)[1]
    share = counts / counts.sum()
    options = [*TINY, "--batch-size", 128]
    done = run("--corpus", texts, "--steps", 1, "--out", tmp_path / "out", "--min-freq", 1, *options)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "out")[0]["mlm_loss"] == pytest.approx(-(share * np.log(share)).sum(), abs=0.1)


BAD = {
    "no such path": (["--corpus", "nowhere"], "nowhere"),
    "heads": (["--hidden", "100", "--heads", "3"], "3 heads don't divide the hidden size 100"),
    "max_len": (["--max-len", "4"], "--max-len must lie between 5 and"),
    "unknown option": (["--wheels", "4"], "unrecognized arguments: --wheels 4"),
    "choice": (["--preset", "huge"], "argument --preset: invalid choice: 'huge'"),
    "number": (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
    "steps": (["--steps", "0"], "--steps must be at least 1"),
    "learning rate": (["--lr", "-1"], "--lr must be a positive number"),
    "no CUDA": (["--device", "cuda"], "torch sees no CUDA device"),
    "resume nothing": (["--resume"], "--resume needs --out"),
    "dp on the CPU": (["--device", "cpu", "--gpus", "2", "--parallel", "dp"], "--parallel ddp"),
    "small batch": (["--batch-size", "1", "--gpus", "2", "--device", "cpu"], "can't be shared by 2 devices"),
    "no power of two": (["--shards", "6", "--deterministic"], "--shards must be a power of two, not 6"),
    "few shards": (
        ["--shards", "1", "--gpus", "2", "--device", "cpu", "--deterministic"],
        "can't share 1 shards evenly",
    ),
    "many shards": (["--shards", "513"], "--shards 513 is more than the 512 examples of --batch-size"),
    "clip": (["--clip", "-1"], "--clip must not be negative"),
    "init with sizes": (["--init", "x", "--hidden", "64"], "leave out --hidden"),
    "init": (["--init", "nowhere"], "nowhere: no such folder"),
    "init with a tokenizer": (["--init", "x", "--tokenizer", "word"], "leave out --tokenizer"),
    "init with a vocabulary size": (["--init", "x", "--vocab-size", "7"], "leave out --vocab-size"),
    "init with a start": (["--init", "x", "--start-from", "text"], "leave out --start-from"),
    "a large number": (["--steps", "1" + "0" * 30], "is too large: give less than 9,223,372,036,854,775,808"),
    "a large rate": (["--lr", "1e39"], "--lr 1e+39 is too large"),
    "a large time": (["--minutes", "1e308"], "--minutes 1e+308 is too large"),
    "a time of centuries": (["--minutes", "1e17"], "--minutes 1e+17 is too large: give less than 1,000,000,000"),
    "a long timeout": (["--timeout", "1" + "0" * 13], "--timeout 10000000000000 is too large"),
    "a negative vocabulary": (["--vocab-size", "-1"], "--vocab-size must lie between 0 and 2^24, not -1"),
    "a large vocabulary": (["--vocab-size", "4000000000000"], "--vocab-size must lie between 0 and 2^24"),
    "init with a preset": (["--init", "x", "--preset", "tiny"], "leave out --preset"),
    "vectors without init": (["--keep-vectors", "20"], "keeps the vectors of --init's model: give --init"),
    "probe without init": (["--probe-labels", "x.tsv"], "compare with --init's model: give --init"),
    "two lengths": (["--steps", "5", "--minutes", "1"], "--steps and --minutes both say how long to train"),
    "too many workers": (["--device", "cpu", "--gpus", "4096"], "--gpus 4096 asks for more CPU workers than"),
    "empty corpus name": (["--corpus", ""], "--corpus was given an empty name"),
    "many heads": (["--hidden", "512", "--heads", "512"], "more than the 256 that attention takes"),
    "dropout": (["--dropout", "1"], "must lie between 0 and 0.999"),
    "evaluated twice": (["--eval", "--eval-corpus", "x"], "--eval holds out a share of the corpus, --eval-corpus"),
    "empty evaluation": (["--eval-corpus", ""], "--eval-corpus was given an empty name"),
    "nothing to evaluate": (["--eval-corpus", "nowhere"], "no such file or folder: nowhere"),
    "form of no text": (["--eval-text-form", "lines"], "--eval-text-form is for the text of --eval-corpus"),
    "out below a file": (["--out", "file/sub"], "Not a directory"),
    "out's name too long": (["--out", "x" * 300], "File name too long"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(case, texts, tmp_path, monkeypatch, capfd):
    arguments, message = BAD[case]
    if case == "no CUDA" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    corpus = [] if "--corpus" in arguments else ["--corpus", texts]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert importlib.import_module("bertfast.pretrain").main([*map(str, corpus), *arguments]) == 2
    captured = capfd.readouterr()
    assert message in captured.err
    assert captured.err.count("error: ") == 1
    assert captured.err.splitlines()[-1].startswith("error: ")
    assert not captured.out
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_holds_anything_is_refused(texts, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    done = run("--corpus", texts, "--out", out, *TINY)
    assert done.returncode == 2
    assert "already holds files" in done.stderr
    assert [path.name for path in out.iterdir()] == ["precious"]


def test_resume_where_no_run_is(texts, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("mine")
    done = run("--corpus", texts, "--out", tmp_path / "out", "--resume", *TINY)
    assert done.returncode == 2
    assert "holds files, but no run to resume" in done.stderr
    assert (tmp_path / "out" / "config.json").read_text() == "mine"


@pytest.mark.parametrize("workers", [1, 2])
def test_init_starts_from_a_model(texts, tmp_path, workers):
    """Every library is offered the trained positions alone, which further training on shorter texts keeps."""
    first, second = tmp_path / "first", tmp_path / "second"
    common = ["--corpus", texts, "--precision", "fp32", "--export", "sentence-transformers"]
    done = run(*common, "--steps", 3, "--out", first, *TINY)
    assert done.returncode == 0, done.stderr
    shorter = ["--batch-size", 16, "--max-len", 16, "--device", "cpu", "--no-deterministic", "--steps", 1, "--lr", 1e-6]
    done = run(*common, "--init", first, "--gpus", workers, "--out", second, *shorter)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(
        load_file(second / "model.safetensors"), load_file(first / "model.safetensors"), rtol=0, atol=1e-5
    )
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()
    for folder in (first, second):
        assert AutoConfig.from_pretrained(folder).max_position_embeddings == 512
        assert AutoTokenizer.from_pretrained(folder).model_max_length == 32
        assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 32
        assert Encoder.load(folder).max_len == 32


def test_another_models_checkpoint_is_refused(texts, tmp_path):
    out = tmp_path / "out"
    assert run("--corpus", texts, "--steps", 1, "--out", out, *TINY).returncode == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = run("--corpus", texts, "--steps", 1, "--out", out, "--resume", *TINY, "--layers", 3)
    assert done.returncode == 2
    assert "--layers: 2 -> 3" in done.stderr
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line(texts, tmp_path, workers):
    """A file-size limit stands in for the full disk: writes fail half-way all the same."""
    command = ["--corpus", texts, "--steps", 1, "--out", tmp_path / "out", *TINY, "--gpus", workers]
    full = processes.Fault("bertfast.pretrain:choose_path", 1, largest_file=20_000)
    done = processes.run(command, tmp_path / "log", full)
    assert done.status == 2, done.err
    assert "Traceback" not in done.err
    assert not list((tmp_path / "out" / "checkpoints").glob("*"))


def test_encode_names_a_folder_without_a_model(tmp_path):
    done = run("--model", tmp_path, "text", module="encode")
    assert done.returncode == 2
    assert "holds no config.json" in done.stderr
    assert run("--model", tmp_path / "none", "text", module="encode").returncode == 2


def test_torchrun_takes_no_option_for_its_own():
    """Its parser fails at what abbreviates two of its options, even behind the module's name."""
    from torch.distributed.run import get_args_parser

    flags = [
        flag
        for action in importlib.import_module("bertfast.pretrain")._parser()._actions
        for flag in action.option_strings
    ]
    assert "--start-from" in flags
    for flag in flags:
        words = ["-m", "bertfast.pretrain", flag, "value"]
        assert get_args_parser().parse_args(words).training_script_args == words[2:]
