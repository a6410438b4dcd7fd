"""Pretrain a BERT on raw text, and write it as a folder that transformers loads."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Importing the modules below takes seconds, in which Ctrl-C ends the process without a traceback.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch

from bertfast.command_line import Parser, add_settings, first_given, run_command, settings
from bertfast.config import (
    READING,
    TEXT_FORMS,
    BertConfig,
    CorpusConfig,
    EncodeConfig,
    SamplerConfig,
    TrainConfig,
    flag,
)
from bertfast.data.corpus import Corpus, is_built
from bertfast.data.load import load_corpus, refuse_settings
from bertfast.data.sources.find import SOURCES
from bertfast.distributed.devices import choose_devices
from bertfast.distributed.peers import peers
from bertfast.errors import InputError, Stopped
from bertfast.files import expanded
from bertfast.hub.export import check_form, export
from bertfast.hub.forms import FORMS
from bertfast.hub.sentence_transformers import Modules, load_modules
from bertfast.hub.state_dict import MASKED_LM_HEAD
from bertfast.hub.transformers import Pretrained, load_pretrained
from bertfast.model import Bert
from bertfast.presets import CONTINUED, DEFAULT_PRESET, NEW_HEAD, PRESET_FIELDS, PRESETS, Preset
from bertfast.reporting.next_steps import next_steps
from bertfast.reporting.recipe_line import recipe_line
from bertfast.torchrun import is_main_process, under_torchrun
from bertfast.training.averaging import Judge, write_average
from bertfast.training.job import TrainingJob
from bertfast.training.launch import check_extras, train_in
from bertfast.training.run_directory import choose_path, claimed

logger = logging.getLogger("bertfast")  # by -m this module is "__main__"


def main(arguments: Sequence[str] | None = None) -> int:
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_command(_parser(), _main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m bertfast.pretrain", description=__doc__)
    group = parser.add_argument_group("text, model and run directory")
    group.add_argument(
        "--corpus",
        action="append",
        default=[],
        metavar="PATH|NAME",
        help=f"{SOURCES}; a folder written by python -m bertfast.corpus build; may be repeated (default: "
        "English prose from Python's own documentation)",
    )
    group.add_argument(
        "--eval-corpus",
        action="append",
        default=[],
        metavar="PATH|NAME",
        help="text to evaluate on, as --eval does on the corpus's last documents; may be repeated",
    )
    group.add_argument(
        "--eval-text-form", choices=TEXT_FORMS, help="--text-form of the text to evaluate on (default: the same)"
    )
    group.add_argument(
        "--preset",
        choices=list(PRESETS),
        help=f"sizes of the model, and a way to train it (default: {DEFAULT_PRESET}; not with --init)",
    )
    group.add_argument("--init", metavar="DIR", type=expanded, help="start from the model and tokenizer in this folder")
    group.add_argument(
        "--probe-labels",
        metavar="FILE",
        help="with --init, labelled texts as for python -m bertfast.probe --labels: average the weights before and "
        "after training in the proportion that classifies them best (needs the extra probe)",
    )
    group.add_argument(
        "--probe-similarity",
        metavar="FILE.tsv",
        help="with --init, scored pairs as for python -m bertfast.probe --similarity: use a proportion that costs at "
        "most a point of their similarity; without --probe-labels, the one with the best similarity",
    )
    group.add_argument(
        "--out", metavar="DIR", type=expanded, help="run directory to write (default: a new one under runs/)"
    )
    group.add_argument(
        "--export",
        action="append",
        default=[],
        choices=list(FORMS),
        help="also write the files that this library needs to --out; may be repeated",
    )
    group.add_argument("--resume", action="store_true", help="continue from the newest intact checkpoint in --out")
    group.add_argument(
        "--recipe",
        default="auto",
        choices=["auto", "notebook"],
        help="auto: train as suits the preset, or with --init a trained model; notebook: as the d2l notebook does",
    )
    add_settings(parser, BertConfig, "model; overrides the preset", by_preset=PRESET_FIELDS)
    add_settings(parser, TrainConfig, "training", by_preset=PRESET_FIELDS)
    add_settings(parser, CorpusConfig, "corpus and tokenizer", by_preset=PRESET_FIELDS)
    return parser


def _main(options: argparse.Namespace) -> None:
    _check_options_of_init(options)
    # Before the corpus is built, so that a bad folder is reported at once.
    torch.manual_seed(settings(SamplerConfig, options).seed)
    start = load_pretrained(options.init) if options.init else None
    modules = load_modules(start.folder, start.model.config, start.tokenizer) if start else Modules({})
    preset = _preset(options, start)
    config = _train_config(options, preset, start, modules)
    model_config = _model_config(options, preset, config)
    if start:
        start.model.config.check_takes(start.tokenizer.vocab_size, config)
    check_extras(config, bool(options.eval_corpus))
    exports = _exports(options, modules)
    for form in exports:
        check_form(form)
    judge = _judge(options, start, modules)
    if not under_torchrun():
        choose_devices(config)  # raises, if it does, before the corpus is built
    out = choose_path(options.out, options.resume)
    with claimed(out, options.resume) as directory:
        corpus, eval_corpus = _corpora(options, preset)
        for line in start.notes() if start else ():
            logger.info(line)
        if start and not judge and not config.keep_vectors:
            logger.warning(
                "further training may cost the model more on other text than it gains on this (docs/recipes.md): give "
                "--probe-labels FILE or --probe-similarity FILE, and probes decide how much of the change is kept"
            )
        logger.info("writing to %s", out)
        fitted = dataclasses.replace(model_config, vocab_size=corpus.vocab_size, pad_token_id=corpus.special_ids.pad)
        model = start.model if start else Bert(fitted)
        logger.info(recipe_line(model.config, config))
        try:
            run = train_in(directory, TrainingJob(model, corpus, config, eval_corpus))
        except Stopped:
            _export(out, exports)
            raise
        if is_main_process():
            if judge:
                run = write_average(run, judge, out)
            _export(out, exports)
            print(run.closing_lines(), flush=True)
            for line in next_steps(out, corpus, config.max_len):
                logger.info(line)


def _corpora(options: argparse.Namespace, preset: Preset) -> tuple[Corpus, Corpus | None]:
    """The corpus to train on, and the one to evaluate on, if any."""
    form = options.eval_text_form
    if form and not options.eval_corpus:
        raise InputError("--eval-text-form is for the text of --eval-corpus: give one, or leave it out")
    if form and any(map(is_built, options.eval_corpus)):
        raise InputError(
            "--eval-corpus names a built corpus, whose settings can't be changed: leave out --eval-text-form"
        )
    for name in ("corpus", "eval_corpus"):
        if "" in getattr(options, name):
            raise InputError(
                f"--{name.replace('_', '-')} was given an empty name: name a file or a folder (. for this one)"
            )
    _refuse_settings_of_built(options)
    tokenizer = str(options.init.absolute()) if options.init else preset.tokenizer
    config = settings(CorpusConfig, options, tokenizer=tokenizer)
    eval_corpus = None
    with peers().rank_0_first() if under_torchrun() else contextlib.nullcontext():
        corpus = load_corpus(*options.corpus, config=config)
        if options.eval_corpus:
            eval_config = dataclasses.replace(config, text_form=form or config.text_form)
            eval_corpus = load_corpus(*options.eval_corpus, tokenizer=corpus.folder, config=eval_config)
    for line in corpus.description:
        logger.info(line)
    for line in eval_corpus.description if eval_corpus else ():
        logger.info("to evaluate on: %s", line)
    return corpus, eval_corpus


def _refuse_settings_of_built(options: argparse.Namespace) -> None:
    """Raises InputError for settings of text where built corpora alone would take them."""
    given = {*vars(options)}
    if not all(map(is_built, options.eval_corpus)):
        given -= set(READING)  # they are for the text to evaluate on
    refuse_settings(options.corpus, given)
    if all(map(is_built, options.corpus)):
        refuse_settings(options.eval_corpus, given if options.corpus else given & set(READING))


def _preset(options: argparse.Namespace, start: Pretrained | None) -> Preset:
    """The preset that --preset, --init and --recipe choose; the options for single settings override it."""
    preset = PRESETS[options.preset or DEFAULT_PRESET]
    if start is not None:
        preset = Preset({}, CONTINUED | (NEW_HEAD if MASKED_LM_HEAD in start.fresh else {}), "")
    if options.recipe == "notebook":
        sizes = {name: value for name, value in preset.model.items() if "dropout" not in name}
        preset = Preset(sizes, {}, preset.tokenizer)
    return preset


def _judge(options: argparse.Namespace, start: Pretrained | None, modules: Modules) -> Judge | None:
    """The judge of the weights that the main process writes; None: it writes the trained ones."""
    if options.probe_labels is None and options.probe_similarity is None:
        return None
    if start is None:
        raise InputError("--probe-labels and --probe-similarity compare with --init's model: give --init")
    if not is_main_process():
        return None
    return Judge(start, modules.settings, options.probe_labels, options.probe_similarity)


def _exports(options: argparse.Namespace, modules: Modules) -> dict[str, EncodeConfig]:
    """The forms to export, each with how it makes vectors: as --init's model does, if that is known.

    A folder of sentence-transformers that is trained on stays one.
    """
    if modules.refusal:
        logger.warning("%s: the trained model's folder has no such modules", modules.refusal)
    forms = [*options.export, *["sentence-transformers"] * bool(modules.settings)]
    return dict.fromkeys(forms, EncodeConfig(**modules.settings))


def _export(folder: Path, exports: Mapping[str, EncodeConfig]) -> None:
    """Adds the forms to the model that the main process has written, if it has: a run can be stopped before."""
    if is_main_process() and (folder / "model.safetensors").exists():
        for form, vectors in exports.items():
            export(folder, form, vectors)


def _train_config(
    options: argparse.Namespace, preset: Preset, start: Pretrained | None, modules: Modules
) -> TrainConfig:
    lengths = [name for name in ("steps", "epochs", "minutes") if name in options]
    if len(lengths) > 1:
        flags = " and ".join(flag(TrainConfig, name) for name in lengths)
        raise InputError(f"{flags} both say how long to train: give one of them")
    train = {name: value for name, value in preset.train.items() if not (lengths and name == "minutes")}
    if start is not None:
        pooling = modules.settings.get("pooling", TrainConfig.kept_pooling)
        train |= {"init_weights": start.digest(), "kept_pooling": pooling}
    return settings(TrainConfig, options, **train)


def _check_options_of_init(options: argparse.Namespace) -> None:
    """Raises InputError for options that --init determines, or that need it."""
    if not options.init:
        if "keep_vectors" in options and options.keep_vectors:
            raise InputError("--keep-vectors keeps the vectors of --init's model: give --init")
        return
    sizes = [field.name for field in dataclasses.fields(BertConfig) if field.name != "vocab_size"]
    if given := first_given(options, BertConfig, sizes):
        raise InputError(f"--init determines the model's sizes: leave out {given}")
    if options.preset:
        raise InputError("--init determines the model: leave out --preset")
    if given := first_given(options, CorpusConfig, ("tokenizer", "vocab_size", "min_freq", "strip_accents")):
        raise InputError(f"--init determines the tokenizer: leave out {given}")
    if "start_from" in options:
        raise InputError("--init's model is the start: leave out --start-from")


def _model_config(options: argparse.Namespace, preset: Preset, config: TrainConfig) -> BertConfig:
    sizes = dict(preset.model)
    if "hidden_dropout_prob" in options:
        sizes["attention_probs_dropout_prob"] = options.hidden_dropout_prob
    model_config = settings(BertConfig, options, **sizes)
    positions = max(model_config.max_position_embeddings, config.max_len)
    return dataclasses.replace(model_config, max_position_embeddings=positions)


if __name__ == "__main__":
    sys.exit(main())
