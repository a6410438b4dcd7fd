"""`python -m bertfast.evaluate`: prints a model's losses and accuracies on other text."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from bertfast import ops
from bertfast.command_line import Parser, add_model, add_settings, run_command, settings
from bertfast.config import READING, CorpusConfig, SamplerConfig, TrainConfig
from bertfast.data.load import load_corpus, refuse_settings
from bertfast.distributed.devices import choose_devices, choose_precision, log_choice
from bertfast.distributed.world import World, describe
from bertfast.errors import InputError
from bertfast.hub.state_dict import MASKED_LM_HEAD, NEXT_SENTENCE_HEAD, POOLER
from bertfast.hub.transformers import load_pretrained
from bertfast.reporting.run_info import RunInfo
from bertfast.training.device_check.choice import choose
from bertfast.training.device_check.job import SAMPLER
from bertfast.training.evaluation import SHARED, HeldOut, evaluate, in_words

logger = logging.getLogger("bertfast")  # by -m this module is "__main__"


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bertfast.evaluate",
        description="Evaluate a pretrained model on a text, as --eval does during training.",
    )
    add_model(parser)
    parser.add_argument(
        "--corpus",
        action="append",
        required=True,
        metavar="PATH|NAME",
        help="text to evaluate on, tokenised with the model's tokenizer: a file, folder or name; may be repeated",
    )
    add_settings(
        parser,
        TrainConfig,
        "examples (default: as in the model's training run) and device",
        (*SHARED, "device", "precision", "check"),
    )
    add_settings(
        parser,
        CorpusConfig,
        "reading the text",
        READING,
    )
    return parser


def _main(options: argparse.Namespace) -> None:
    run = RunInfo.read(options.model).train if (options.model / "run.json").exists() else SamplerConfig()
    config = settings(TrainConfig, options, gpus=1, **{name: getattr(run, name) for name in SHARED})
    pretrained = load_pretrained(options.model, MASKED_LM_HEAD)
    model = pretrained.model
    if config.objective != "none" and (missing := {POOLER, NEXT_SENTENCE_HEAD} & pretrained.fresh.keys()):
        raise InputError(f"{options.model} has no {' and no '.join(sorted(missing))}: give --objective none")
    device = choose_devices(config)[0]
    log_choice(config, [device])
    dtype = choose_precision(config, device)
    refuse_settings(options.corpus, vars(options))
    corpus = load_corpus(*options.corpus, tokenizer=options.model, config=settings(CorpusConfig, options))
    model.config.check_takes(corpus.vocab_size, config)
    if config.max_len > model.max_len:
        logger.warning("--max-len %s: the model was trained on at most %s tokens", config.max_len, model.max_len)
    world = World(0, 1, [device], [device], deterministic=False, shards=1)
    for line in (*corpus.description, describe(world, dtype)):
        logger.info(line)
    trusted = choose(device, 1, config.check)
    held_out = HeldOut.of(corpus, config, device)
    if SAMPLER in trusted.failures:
        held_out.make_on_host()
    for line in trusted.warnings:
        logger.warning(line)
    with ops.use_twins(trusted.twins):
        evaluation = evaluate(model.to(device), held_out, 0, dtype, world)
    print(in_words(evaluation, config.objective))


if __name__ == "__main__":
    sys.exit(main())
