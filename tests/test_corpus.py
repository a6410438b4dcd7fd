"""`python -m bertfast.corpus`: what it builds is a source, what it shows is what a run was trained on."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import io
import os
import re
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from support.notebook import wikitext_folder

from bertfast import corpus as corpus_command
from bertfast import evaluate
from bertfast.config import BertConfig, CorpusConfig, SamplerConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.data.load import load_corpus
from bertfast.data.tokenizing.tokenizer import Tokenizer
from bertfast.errors import InputError
from bertfast.model import Bert
from bertfast.pretrain import main as pretrain_main
from bertfast.sampling.sampler import Sampler
from bertfast.sampling.statistics import statistics
from bertfast.training.launch import train

TEXT = "It was dark.\nThe rain fell.\nNobody came.\n\nThe sun shone.\nIt was bright, very bright.\n\n" * 3
TINY = "--steps 3 --batch-size 4 --hidden 8 --heads 2 --ffn 8 --layers 1 --device cpu".split()  # noqa: SIM905


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "some.txt"
    path.write_text(TEXT)
    return path


def command(capsys, *arguments: object) -> tuple[int, str, str]:
    status = corpus_command.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


@pytest.fixture
def built(text, tmp_path, capsys) -> Path:
    out = tmp_path / "deep" / "built"
    assert command(capsys, "build", text, "--out", out, "--tokenizer", "wordpiece", "--min-freq", "1")[0] == 0
    return out


def test_build_is_what_load_corpus_builds(text, built):
    loaded = load_corpus(text, config=CorpusConfig("wordpiece", min_freq=1))
    assert {path.name for path in loaded.folder.iterdir()} == {path.name for path in built.iterdir()}
    for path in loaded.folder.iterdir():
        assert path.read_bytes() == (built / path.name).read_bytes()
    assert {path.name for path in built.parent.iterdir()} == {"built"}


def test_a_built_corpus_is_a_source(built):
    corpus = load_corpus(built)
    assert corpus.fingerprint == Corpus.open(built).fingerprint
    assert corpus.description == (f"{built} (a built corpus)", *Corpus.open(built).description)
    assert load_corpus(built, tokenizer=built).folder == built


def test_training_and_evaluating_on_a_built_corpus(built, tmp_path, capsys):
    out = tmp_path / "run"
    assert pretrain_main(["--corpus", str(built), "--out", str(out), *TINY]) == 0
    assert f"{built} (a built corpus)" in capsys.readouterr().err
    assert evaluate.main(["--model", str(out), "--corpus", str(built), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("MLM loss")


def test_settings_beside_a_built_corpus_are_refused(built, text, tmp_path, capsys):
    assert pretrain_main(["--corpus", str(built), "--min-freq", "2", *TINY]) == 2
    stands = f"error: {built} is a built corpus, whose settings can't be changed: leave out"
    assert capsys.readouterr().err == f"{stands} --min-freq, or build another\n"
    with pytest.raises(InputError, match="which can't be combined: give it alone, or build one from all texts"):
        load_corpus(built, text)
    other = load_corpus(text, config=CorpusConfig(min_freq=1)).folder
    with pytest.raises(InputError, match=rf"another tokenizer than {other}: build one with --tokenizer {other}$"):
        load_corpus(built, tokenizer=other)


@pytest.mark.parametrize(
    ("corpus", "held_out", "options", "refused"),
    [
        ("built", "held_out.csv", ["--text-column", "body", "--language", "de"], ""),  # for the text to evaluate on
        ("built", "held_out.csv", ["--text-column", "body", "--min-freq", "2"], "--min-freq"),
        ("built", "built", ["--language", "de"], "--language"),
        ("text", "built", ["--text-form", "lines"], ""),  # for the text to train on
    ],
)
def test_settings_beside_a_built_corpus_are_for_the_other_text(
    built, text, tmp_path, capsys, corpus, held_out, options, refused
):
    (tmp_path / "held_out.csv").write_text("body\n" + "The crane came. It flew. It was late.\n" * 2)
    paths = {"built": built, "text": text, "held_out.csv": tmp_path / "held_out.csv"}
    tokenizer = ["--tokenizer", str(built)] if corpus == "text" else []
    given = ["--corpus", str(paths[corpus]), "--eval-corpus", str(paths[held_out]), *options, *tokenizer]
    status = pretrain_main([*given, "--out", str(tmp_path / "run"), *TINY])
    message = capsys.readouterr().err
    assert status == (2 if refused else 0), message
    assert (f"whose settings can't be changed: leave out {refused}," in message) == bool(refused)


def test_build_below_a_file(text, capsys):
    status, _, message = command(capsys, "build", text, "--out", f"{text}/x/y")
    assert (status, message) == (2, f"error: --out {text}/x/y is below {text}, which is no folder: name another\n")


def test_build_into_the_folder_that_a_link_leads_to(text, tmp_path, capsys):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    assert command(capsys, "build", text, "--out", tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert load_corpus(tmp_path / "disk").num_documents == 6
    assert command(capsys, "build", text, "--out", tmp_path / "link")[0] == 0


@pytest.mark.parametrize("kind", ["a loop", "a pipe", "a mount point", "where no folder can be made"])
def test_build_refuses_a_place_before_it_reads(text, tmp_path, capsys, monkeypatch, kind):
    out, line = tmp_path / "out", " is in use and holds no corpus: name another folder"
    monkeypatch.setattr("bertfast.data.load.build", lambda *arguments: pytest.fail("it builds"))
    if kind == "a loop":
        out.symlink_to(out)
    elif kind == "a pipe":
        os.mkfifo(out)
    elif kind == "a mount point":
        out.mkdir()
        monkeypatch.setattr(Path, "is_mount", lambda path: path == out)
        line = " is a mount point: name a folder in it"
    else:
        out = Path("/proc/out")  # not even root can
        line = f": no folder can be made in /proc ({os.strerror(errno.ENOENT)}): name another"
    assert command(capsys, "build", text, "--out", out) == (2, "", f"error: --out {out}{line}\n")


def test_build_opens_what_is_there_where_nothing_can_be_written(text, built, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda **settings: pytest.fail("it writes"))
    again = ("build", text, "--out", built, "--tokenizer", "wordpiece", "--min-freq", 1)
    assert command(capsys, *again)[0] == 0


def test_build_leaves_what_is_there(text, built, tmp_path, capsys):
    before = {path: path.read_bytes() for path in built.iterdir()}
    again = ("build", text, "--out", built, "--tokenizer", "wordpiece", "--min-freq")
    assert command(capsys, *again, 1)[0] == 0
    assert command(capsys, *again, 2)[::2] == (2, f"error: {built} holds another corpus: name another folder\n")
    assert {path: path.read_bytes() for path in built.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    for place in (tmp_path / "mine", text):
        status, _, errors = command(capsys, "build", text, "--out", place)
        assert (status, errors) == (2, f"error: --out {place} is in use and holds no corpus: name another folder\n")
    assert text.read_text() == TEXT
    (tmp_path / "empty").mkdir()
    assert command(capsys, "build", text, "--out", tmp_path / "empty")[0] == 0
    assert load_corpus(tmp_path / "empty").num_documents == 6


def test_standard_input(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert command(capsys, "build", "-", "--out", tmp_path / "out", "--min-freq", "1")[0] == 0
    assert load_corpus(tmp_path / "out").num_sentences == 15


# ---- bad input


def binary(folder: Path) -> None:
    (folder / "bad.txt").write_bytes(bytes(range(256)) * 9)


def nul(folder: Path) -> None:
    (folder / "bad.txt").write_bytes(b"Some text.\n" * 9 + b"\0")


def mixed_encodings(folder: Path) -> None:
    (folder / "bad.txt").write_bytes("Zürich.\n".encode() * 9 + "Zürich.\n".encode("latin-1"))


def cut_short(folder: Path) -> None:
    (folder / "bad.txt.gz").write_bytes(gzip.compress(TEXT.encode())[:-9])


def no_such_column(folder: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"other": ["a"]}), folder / "bad.parquet")


def symlink_loop(folder: Path) -> None:
    (folder / "bad").symlink_to(folder)


BAD = {
    binary: "{0}/bad.txt is not text: byte 0 is zero; give UTF-8 text files",
    nul: "{0}/bad.txt is not text: byte 99 is zero; give UTF-8 text files",
    mixed_encodings: "{0}/bad.txt is not UTF-8: byte 82 (",
    cut_short: "{0}/bad.txt.gz is cut short or damaged (",
    no_such_column: "{0}/bad.parquet: no column 'text'; there are 'other': name one with --text-column",
    symlink_loop: "{0}/bad is a symbolic link to a folder around it, {0}: remove the link",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_input_is_one_line_or_skipped(text, tmp_path, capsys, spoil):
    folder, out = tmp_path / "texts", tmp_path / "out"
    folder.mkdir()
    text.rename(folder / "good.txt")
    (folder / "empty.txt").write_text("")
    spoil(folder)
    status, output, errors = command(capsys, "build", folder, "--out", out, "--min-freq", "1")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"error: {BAD[spoil].format(folder)}")
    assert not out.exists()
    status, output, _ = command(capsys, "build", folder, "--out", out, "--min-freq", "1", "--skip-bad-files")
    assert status == 0
    assert f"1 bad left out, the first: {BAD[spoil].format(folder)}" in output
    assert "6 documents, 15 sentences" in output


def test_a_tokenizer_without_a_mask(text, tmp_path, capsys):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    status, _, errors = command(capsys, "build", text, "--out", tmp_path / "out", "--tokenizer", tmp_path / "vocab.txt")
    lacks = "the tokenizer has no [MASK]: bertfast needs all of BERT's special tokens"
    assert (status, errors) == (2, f"error: {tmp_path}/vocab.txt: {lacks}\n")


@pytest.mark.parametrize("form", ["lines", "plain"])
@pytest.mark.parametrize("size", [5, pytest.param(50, marks=pytest.mark.long)])
def test_a_line_of_50_mb(tmp_path, capsys, size, form):
    words = size * 1_000_000 // 11
    (tmp_path / "some.txt").write_text(f"a first . line\n{'ten chars. ' * words}\na last . line\n")
    assert command(capsys, "build", tmp_path / "some.txt", "--out", tmp_path / "out", "--text-form", form)[0] == 0
    corpus = load_corpus(tmp_path / "out")
    assert corpus.token_counts[corpus.tokenizer.backend.token_to_id("ten")] == words


# ---- info


def test_info(capsys):
    corpus = load_corpus(wikitext_folder())
    status, output, _ = command(capsys, "info", corpus.folder, "--max-len", "32")
    assert status == 0
    lengths = [int(corpus.sentence_offsets[s + 1] - corpus.sentence_offsets[s]) for s in range(corpus.num_sentences)]
    pairs = sum(int(last - first) - 1 for first, last in zip(*[corpus.document_offsets[i:] for i in (0, 1)]))  # noqa: B905
    assert f"{pairs:,} adjacent pairs of sentences" in output
    rows = re.findall(r"^ +(?:(\d+)-)?(\d+) +([\d,]+) +[\d.]+%(?: (#+))?$", output, re.MULTILINE)
    for first, last, count, _ in rows:
        among = range(int(first or last), int(last) + 1)
        assert int(count.replace(",", "")) == sum(1 for length in lengths if length in among)
    assert sum(int(row[2].replace(",", "")) for row in rows) == len(lengths)
    assert max(len(row[3]) for row in rows) == 50
    sampler = Sampler(corpus, SamplerConfig(max_len=32))
    epoch = sampler.padded(0, sampler.num_examples).attention_mask.double()
    assert f"of {epoch.sum(1).mean():.1f} tokens on average" in output
    assert f"{(1 - epoch.mean()):.1%} of a padded batch is padding" in output
    assert f"{(epoch.sum(1) == 32).double().mean():.1%} of them full" in output
    the = corpus.tokenizer.backend.token_to_id("the")
    assert f"most frequent: [UNK] {corpus.token_counts[1] / corpus.num_tokens:.1%}  the " in output
    assert f"the {(np.asarray(corpus.tokens) == the).mean():.1%}" in output


def test_info_of_a_corpus_without_pairs(tmp_path, capsys):
    (tmp_path / "some.txt").write_text("a b c.\n\nd e f.\n\n")
    out = tmp_path / "out"
    build = ("build", tmp_path / "some.txt", "--min-freq", "1", "--documents", "paragraph", "--out", out)
    assert command(capsys, *build)[0] == 0
    status, output, _ = command(capsys, "info", out)
    assert status == 0
    assert "0 adjacent pairs" in output
    assert "none (the corpus has no two sentences in one document" in output


# ---- show

LAST_STEP = (1 << 63) // (TrainConfig().batch_size * TrainConfig().max_len) - 2
"""Of those whose examples' numbers, times --max-len, fit 63 bits."""


def words(line: str) -> list[tuple[str, str]]:
    """What each token was, and what the model sees."""
    pairs = re.findall(r"\[([^ ]+?)→([^ ]+)\]|(\S+)", line.split(": ", 1)[1])
    return [(was, "[MASK]" if seen == "MASK" else seen) if was else (word, word) for was, seen, word in pairs]


def test_show_is_the_batch_that_a_step_has(text, tmp_path, capsys):
    corpus = load_corpus(text, config=CorpusConfig(min_freq=1))
    config = TrainConfig(batch_size=7, seed=5, max_len=12, mlm_probability=0.5)
    options = "--step 3 --batch-size 7 --seed 5 --max-len 12 --mlm-probability 0.5 --examples 99".split()  # noqa: SIM905
    status, output, _ = command(capsys, "show", corpus.folder, *options)
    assert status == 0
    first, *lines = output.splitlines()
    assert first == f"step 3: examples 21 to 27, of epoch {21 // Sampler(corpus, config).num_examples}"
    assert len(lines) == 7
    batch = Sampler(corpus, config).packed(21, 7)
    truth = batch.input_ids.clone()
    truth[batch.masked_positions] = batch.labels
    ends = batch.cu_seqlens.tolist()
    for i, line in enumerate(lines):
        label = ["true next", "another sentence"][batch.next_sentence_label[i]]
        assert line.startswith(f"{21 + i} ({label}): [CLS] ")
        were, seen = (corpus.tokenizer.tokens(ids[ends[i] : ends[i + 1]].tolist()) for ids in (truth, batch.input_ids))
        assert words(line) == list(zip(were, seen, strict=True))
        assert line.count("→") == int(batch.cu_masked[i + 1] - batch.cu_masked[i])


@pytest.mark.parametrize("step", [LAST_STEP + 1, (1 << 63) - 2])
def test_show_of_a_step_beyond_all_numbers(text, capsys, step):
    folder = load_corpus(text, config=CorpusConfig(min_freq=1)).folder
    assert command(capsys, "show", folder, "--step", str(LAST_STEP))[0] == 0
    message = f"error: --step {step} is too large: its examples' numbers leave no room in 64 bits\n"
    assert command(capsys, "show", folder, "--step", str(step)) == (2, "", message)


@pytest.mark.parametrize("prefix", ["##", "~"])
def test_show_joins_pieces(tmp_path, capsys, prefix):
    (tmp_path / "some.txt").write_text("unbelievable unaffable\n" * 9)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##affable\n##believable\n")
    tokenizer = Tokenizer.load(tmp_path).backend.to_str().replace("##", prefix)
    (tmp_path / "tokenizer.json").write_text(tokenizer)
    corpus = load_corpus(tmp_path / "some.txt", tokenizer=tmp_path, config=CorpusConfig(text_form="lines"))
    options = "--objective none --mlm-probability 0 --max-len 6 --mask-share 1 --random-share 0"
    _, output, _ = command(capsys, "show", corpus.folder, *options.split(), "--segments", "sentence")
    texts = [line.split(": ", 1)[1] for line in output.splitlines()[1:-1]]
    assert set(texts) <= {
        "[CLS] [un→MASK]believable unaffable [SEP]",
        f"[CLS] un [{prefix}believable→MASK] unaffable [SEP]",
        "[CLS] unbelievable [un→MASK]affable [SEP]",
        f"[CLS] unbelievable un [{prefix}affable→MASK] [SEP]",
    }
    assert len(set(texts)) > 1


def test_show_of_a_run_is_what_its_step_read(text, tmp_path, capsys):
    """The run's own settings, and its share of the text where some was held out."""
    corpus = load_corpus(text, config=CorpusConfig(min_freq=1))
    config = TrainConfig(steps=3, batch_size=6, seed=9, device="cpu", objective="sop", eval=True, eval_share=0.3)
    model = Bert(BertConfig(corpus.vocab_size, 8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    train(model, corpus, config, tmp_path / "run")
    status, output, _ = command(capsys, "show", tmp_path / "run", "--step", "2", "--examples", "2")
    assert status == 0
    lines = output.splitlines()
    kept, _ = corpus.split(0.3)
    batch = Sampler(kept, config).packed(12, 2)
    for i, line in enumerate(lines[1:3]):
        assert re.match(rf"{12 + i} \((in order|swapped)\): ", line)
        seen = corpus.tokenizer.tokens(batch.input_ids[batch.cu_seqlens[i] : batch.cu_seqlens[i + 1]].tolist())
        assert [word for _, word in words(line)] == seen
    assert lines[3] == "and 4 more (--examples)"
    for arguments, message in (
        (["--step", "3"], "--step 3: the run has the steps 0 to 2"),
        (["--step", "-1"], "--step -1: the run has the steps 0 to 2"),
        (["--step", "0", "--seed", "1"], f"the run in {tmp_path}/run has settings of its own: leave out --seed"),
        (["--step", "0", "--examples", "0"], "--examples must be at least 1, not 0"),
    ):
        assert command(capsys, "show", tmp_path / "run", *arguments) == (2, "", f"error: {message}\n")
    (corpus.folder / "tokens.bin").unlink()
    status, _, errors = command(capsys, "show", tmp_path / "run", "--step", "0")
    assert status == 2
    assert errors.endswith(f"was in {corpus.folder}, and is gone: build it again\n")


def test_info_of_a_run_is_of_its_corpus(text, tmp_path, capsys):
    """By the run's own settings, and of its share of the text."""
    corpus = load_corpus(text, config=CorpusConfig(min_freq=1))
    config = TrainConfig(steps=1, batch_size=6, device="cpu", objective="sop", max_len=16, eval=True, eval_share=0.3)
    model = Bert(BertConfig(corpus.vocab_size, 8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    train(model, corpus, config, tmp_path / "run")
    status, output, _ = command(capsys, "info", tmp_path / "run")
    assert status == 0
    kept = corpus.split(0.3)[0]
    trained = "trained on the documents 1 to 4 of these; the others were held out"
    kept = dataclasses.replace(kept, description=(*corpus.description, trained))
    assert output.splitlines() == list(statistics(kept, config))
    assert output.startswith(f"{text} (lines)\n6 documents, ")
    status, _, errors = command(capsys, "info", tmp_path / "run", "--max-len", "9")
    assert (status, errors) == (
        2,
        f"error: the run in {tmp_path}/run has settings of its own: leave out --max-len\n",
    )


@pytest.mark.parametrize("name", ["info", "show --step 0"])
def test_what_is_no_corpus(tmp_path, capsys, name):
    what, *rest = name.split()
    status, _, errors = command(capsys, what, tmp_path, *rest)
    assert status == 2
    assert errors.startswith(f"error: {tmp_path} holds no corpus: give a ")
    assert errors.count("\n") == 1
