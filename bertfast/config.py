"""Every setting, with its default and its help text. A default is written here and nowhere else.

The command lines are derived from these classes: a field's metadata holds its help, its choices or its range, and its
flag if that differs from the field's name.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from bertfast.errors import InputError


class Range(NamedTuple):
    """The numbers that a setting takes."""

    rule: str
    """What a number must do, for the error message: "be at least 1"."""
    contains: Callable[[float], bool]
    """False for NaN, as every comparison is."""
    limit: float | None = 1 << 63
    """Numbers from here on are too large for anything; None: none is."""


def between(low: float, high: float) -> Range:
    return Range(f"lie between {low} and {high}", lambda number: low <= number <= high)


AT_LEAST_1 = Range("be at least 1", lambda number: number >= 1)
NOT_NEGATIVE = Range("not be negative", lambda number: number >= 0)
ANY_NOT_NEGATIVE = NOT_NEGATIVE._replace(limit=None)
ZERO_OR_POSITIVE = Range("be 0 or a positive number", lambda number: 0 <= number < math.inf, 10**9)
POSITIVE = Range("be a positive number", lambda number: 0 < number < math.inf, 3e38)  # what float32 holds
SECONDS = AT_LEAST_1._replace(limit=10**9)
SHARE = between(0, 1)


def setting(
    default: Any,
    help: str | None = None,
    *,
    flag: str | None = None,
    choices: tuple[str, ...] | None = None,
    within: Range | None = None,
) -> Any:
    """A dataclass field that `Checked` checks. With a `help` text it also becomes a command-line flag."""
    metadata = {"help": help, "flag": flag, "choices": choices, "within": within}
    return dataclasses.field(default=default, metadata={k: v for k, v in metadata.items() if v is not None})


def flag(config: type, name: str) -> str:
    """The command-line flag of the class's field `name`: `--hidden` for `hidden_size`; the name if it has no flag."""
    metadata = next(field.metadata for field in dataclasses.fields(config) if field.name == name)
    return f"--{metadata.get('flag', name).replace('_', '-')}" if "help" in metadata else name


class Checked:
    """A dataclass of settings that refuses a value outside a setting's choices or range."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            choices, within = field.metadata.get("choices"), field.metadata.get("within")
            value = getattr(self, field.name)
            if choices and value not in choices:
                raise InputError(f"{flag(type(self), field.name)} must be one of {', '.join(choices)}, not {value!r}")
            if within and not within.contains(value):
                raise InputError(f"{flag(type(self), field.name)} must {within.rule}, not {value}")
            if within and within.limit is not None and value >= within.limit:
                raise InputError(
                    f"{flag(type(self), field.name)} {value} is too large: give less than {within.limit:,}"
                )


@dataclasses.dataclass(frozen=True)
class BertConfig(Checked):
    """The model's sizes, under Hugging Face's names. The defaults are the notebook's small BERT."""

    vocab_size: int = setting(30522, within=AT_LEAST_1)
    hidden_size: int = setting(128, "width of the hidden states", flag="hidden", within=AT_LEAST_1)
    num_hidden_layers: int = setting(2, "number of layers", flag="layers", within=AT_LEAST_1)
    num_attention_heads: int = setting(
        2, "attention heads per layer; must divide the hidden size", flag="heads", within=AT_LEAST_1
    )
    intermediate_size: int = setting(256, "width of the feed-forward network", flag="ffn", within=AT_LEAST_1)
    hidden_dropout_prob: float = setting(
        0.2, "dropout probability of hidden states and attention", flag="dropout", within=between(0, 0.999)
    )
    attention_probs_dropout_prob: float = setting(0.2, within=between(0, 0.999))
    max_position_embeddings: int = setting(512, within=AT_LEAST_1)
    type_vocab_size: int = setting(2, within=AT_LEAST_1)
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"{self.num_attention_heads} heads don't divide the hidden size {self.hidden_size}: "
                "choose --heads so that --hidden is a multiple of it"
            )
        if self.num_attention_heads > 256:
            raise InputError(f"--heads {self.num_attention_heads} is more than the 256 that attention takes")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the vocabulary's storage: a multiple of 128, which suits vector and tensor-core products."""
        return math.ceil(self.vocab_size / 128) * 128

    def check_takes(self, vocab_size: int, examples: SamplerConfig) -> None:
        """Raises InputError if the model is too small for a vocabulary of this size, or for these examples."""
        if examples.max_len > self.max_position_embeddings:
            raise InputError(
                f"--max-len {examples.max_len} exceeds the model's {self.max_position_embeddings} positions"
            )
        if examples.objective != "none" and self.type_vocab_size < 2:
            raise InputError("the model has one token type, a pair of sentences needs two: use --objective none")
        if vocab_size > self.vocab_size:
            raise InputError(f"the corpus has {vocab_size} tokens, the model only {self.vocab_size}")


TEXT_FORMS = ("auto", "wikitext", "lines", "paragraphs", "plain")


@dataclasses.dataclass(frozen=True)
class CorpusConfig(Checked):
    """How text becomes a tokenised corpus."""

    tokenizer: str = setting(
        "word", "word, wordpiece, char, or the path of a tokenizer.json, a vocab.txt or the folder that holds one"
    )
    vocab_size: int = setting(
        0,
        "maximum size of a trained vocabulary; 0: no limit for word, BERT's 30,522 for wordpiece and char",
        within=Range("lie between 0 and 2^24", lambda number: 0 <= number <= 1 << 24),
    )
    min_freq: int = setting(
        5, "minimum count of a word (for wordpiece, of a pair to merge) that gets a token of its own", within=AT_LEAST_1
    )
    lowercase: bool = setting(True, "lower-case the text; a tokenizer given by path uses its own setting")
    strip_accents: bool | None = setting(
        None,
        "strip accents and other marks from letters, in wordpiece and char (default: as BERT does from lower-cased "
        "English text, and not in other languages, where they tell letters apart)",
    )
    text_form: str = setting(
        "auto",
        "wikitext: one paragraph per line, ' . ' between sentences; lines: one sentence per line, blank lines between "
        "documents; paragraphs: prose, one paragraph per line, blank lines between documents; plain: prose, blank "
        "lines between paragraphs; auto: detect the form from the text",
        choices=TEXT_FORMS,
    )
    documents: str = setting(
        "auto",
        "file: each file or record is a document; paragraph: blank lines end documents; auto: paragraph in the forms "
        "lines and paragraphs, else file, but a file that is alone or larger than 1 MiB is divided at its headings, "
        "rules and form feeds, or about every 100 sentences",
        choices=("auto", "file", "paragraph"),
    )
    language: str = setting("en", "language of the text; its sentence rules, or the nearest ones, divide plain text")
    text_column: str = setting(
        "text",
        "key (.jsonl, .json) or column (.csv, .tsv, .parquet, hf:NAME) with the text; data.text: a key in another",
    )
    delimiter: str = setting(",", "character between the fields of a .csv file")
    skip_bad_files: bool = setting(
        False,
        "leave out files that cannot be read as text, instead of stopping; the log counts them and names the first",
    )
    deduplicate: bool = setting(False, "drop every sentence that equals an earlier one")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocab_size and self.vocab_size < 6:
            raise InputError(f"--vocab-size {self.vocab_size} leaves no room beside BERT's 5 special tokens")
        if self.strip_accents and self.tokenizer == "word":
            raise InputError("--strip-accents is for --tokenizer wordpiece or char: words are taken as they are")
        if not re.fullmatch(r"[A-Za-z]{2,3}([-_]\w+)*", self.language):
            raise InputError(f"--language {self.language!r} is not a language code: give one like en, de or zh")
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0 ':
            raise InputError(
                f"--delimiter must be one character, no quote, space or line break, not {self.delimiter!r} "
                "(a file whose delimiter is a tab is called .tsv)"
            )

    @property
    def base_language(self) -> str:
        """`language` without region or script: pt for pt-BR."""
        return self.language.replace("_", "-").split("-")[0].lower()


READING = ("text_form", "language", "documents", "text_column", "delimiter", "skip_bad_files")
"""Settings of CorpusConfig that say how a text is read, whatever its tokenizer."""


@dataclasses.dataclass(frozen=True)
class SamplerConfig(Checked):
    """What a training example is; docs/sampling.md defines each choice."""

    objective: str = setting(
        "nsp",
        "nsp: next-sentence prediction (BERT); sop: sentence order (ALBERT); none: masked tokens only (RoBERTa)",
        choices=("nsp", "sop", "none"),
    )
    max_len: int = setting(64, "maximum tokens of an example, including special tokens", within=between(5, 1 << 16))
    seed: int = setting(
        0,
        "seed of every random decision",
        within=Range("lie between 0 and 2^63 - 1", lambda number: 0 <= number < 1 << 63),
    )
    negatives: str = setting(
        "other",
        "where a wrong next sentence comes from: another document, or any, as in the d2l notebook",
        choices=("other", "any"),
    )
    too_long: str = setting(
        "truncate",
        "truncate a pair longer than --max-len (as BERT does) or drop it (as the d2l notebook does)",
        choices=("truncate", "drop"),
    )
    segments: str = setting(
        "auto",
        "a segment is one sentence, or as many as fit --max-len (BERT, RoBERTa); auto: fill with --objective none, "
        "sentence for pairs",
        choices=("auto", "sentence", "fill"),
    )
    short_seq_prob: float = setting(
        0.1, "share of filled sentence pairs with a random, shorter target length", within=SHARE
    )
    mlm_probability: float = setting(0.15, "share of the tokens to predict", within=SHARE)
    masking: str = setting(
        "token",
        "unit of masking: a token (BERT), a whole word, or a span of 1 to 10 words (SpanBERT)",
        choices=("token", "whole_word", "span"),
    )
    mask_share: float = setting(0.8, "share of the predicted tokens that [MASK] replaces", within=SHARE)
    random_share: float = setting(0.1, "share of the predicted tokens that a random token replaces", within=SHARE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask_share + self.random_share > 1:
            raise InputError("--mask-share and --random-share add up to more than 1")
        if self.too_long == "drop" and (self.fills_segments or self.objective == "none"):
            raise InputError("--too-long drop works on sentence pairs: --segments sentence with --objective nsp or sop")

    @property
    def fills_segments(self) -> bool:
        """Whether a segment takes as many sentences as fit."""
        return self.segments == "fill" or (self.segments == "auto" and self.objective == "none")


@dataclasses.dataclass(frozen=True)
class TrainConfig(SamplerConfig):
    """One training run: what an example is, and how the model learns from it."""

    steps: int = setting(50, "training steps", within=AT_LEAST_1)
    epochs: float = setting(
        0.0,
        "train until each example was seen this often, on average, instead of --steps",
        within=ZERO_OR_POSITIVE,
    )
    minutes: float = setting(
        0.0,
        "train for this long instead of --steps: as many steps as fit; loading and the last evaluation do not count",
        within=ZERO_OR_POSITIVE,
    )
    batch_size: int = setting(512, "examples per step, over all workers", within=AT_LEAST_1)
    short_len: int = setting(
        0,
        "maximum tokens of an example in the first nine tenths of the steps, which then cost less; the last tenth has "
        "--max-len, as in BERT's own training; 0: --max-len throughout",
    )
    start_from: str = setting(
        "random",
        "what a new model knows before its first step; random: how frequent words are; text: also which words stand "
        "side by side in the text, which saves a small model the first part of its training",
        choices=("random", "text"),
    )
    optimizer: str = setting(
        "adamw",
        "adamw: for every parameter; muon: Muon for the matrices of the layers, AdamW for the rest",
        choices=("adamw", "muon"),
    )
    lr: float = setting(5e-3, "AdamW's peak learning rate", within=POSITIVE)
    muon_lr: float = setting(0.02, "Muon's peak learning rate; it rises and falls as --lr does", within=POSITIVE)
    head_first: float = setting(
        0.0,
        "share of the steps, at the start, in which only the masked-LM head learns, as suits a new head on a trained "
        "model",
        within=Range("be at least 0 and less than 1", lambda number: 0 <= number < 1),
    )
    head_lr: float = setting(2e-3, "AdamW's peak learning rate in these steps", within=POSITIVE)
    keep_vectors: float = setting(
        0.0,
        "with --init: weight of a term of the loss, 1 - cosine of an example's vector and the one that the model gave "
        "it at the start, which keeps what its vectors are good for",
        within=ZERO_OR_POSITIVE,
    )
    weight_decay: float = setting(
        0.0,
        "share, times the learning rate, that weights and embeddings lose in each step; biases and LayerNorms do not",
        within=ZERO_OR_POSITIVE,
    )
    warmup: float = setting(0.1, "share of the steps, at the start, over which the learning rate rises from 0")
    decay: float = setting(0.9, "share of the steps, at the end, over which it falls to 0")
    precision: str = setting(
        "auto",
        "precision of matrix products; auto: bf16 if device and torch support it natively, else fp32",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = setting("auto", "where to train", choices=("auto", "cpu", "cuda"))
    gpus: int = setting(
        0,
        "number of devices, CPU processes if there is no GPU; 0: every visible GPU, or one CPU process",
        within=NOT_NEGATIVE,
    )
    parallel: str = setting(
        "ddp",
        "with several devices: one process per device (ddp) or one process with a thread per device (dp)",
        choices=("ddp", "dp"),
    )
    deterministic: bool | None = setting(
        None,
        "produce the same weights, bit for bit, on any number of workers and threads; --no-deterministic: sum in the "
        "fastest order (default: deterministic on a CPU if each thread has a shard of at least 8,192 tokens)",
    )
    shards: int = setting(
        0,
        "pieces in which a batch is computed: more pieces take less memory; 0: 8 with --deterministic, at most as many "
        "if a run is deterministic by default, else one per worker",
        within=NOT_NEGATIVE,
    )
    cuda_graph: bool | None = setting(
        None,
        "capture the step as a CUDA graph, so that the GPU never waits for the host; --no-cuda-graph: launch kernels "
        "one by one (default: capture if each process trains on one GPU and the run is not deterministic)",
    )
    mlm_loss: str = setting(
        "auto",
        "how to compute the masked-LM loss; chunked: its logits chunk by chunk; fused: in one kernel (on some GPUs, in "
        "bf16); auto: the faster of the two in a trial, or chunked if the fused kernel fails",
        choices=("auto", "chunked", "fused"),
    )
    check: bool = setting(
        True,
        "before a GPU is trusted, check whether it computes each op as plain torch does: once for each GPU, driver, "
        "torch and build (python -m bertfast.check)",
    )
    compile: bool = setting(False, "use torch.compile for the code between the kernels; the first steps take longer")
    max_grad_norm: float = setting(
        1.0, "maximum norm of the gradient; 0: no clipping", flag="clip", within=ANY_NOT_NEGATIVE
    )
    timeout: int = setting(300, "seconds that a worker waits for the others within a step", within=SECONDS)
    eval: bool = setting(
        False,
        "hold out the last documents and evaluate on them: at the end, and up to nine times before, in about 2% of the "
        "time",
    )
    eval_share: float = setting(
        0.05,
        "share of the documents that --eval holds out",
        within=Range("lie between 0 and 1", lambda number: 0 < number < 1),
    )
    tensorboard: bool = setting(False, "also write TensorBoard event files, to tensorboard/ in the run directory")
    log_every: int = setting(
        0,
        "steps between progress lines if standard error is not a terminal; 0: one line every 30 seconds",
        within=NOT_NEGATIVE,
    )
    checkpoint_every: int = setting(
        0, "steps between checkpoints; 0: only every ten minutes and at the end", within=NOT_NEGATIVE
    )
    keep_checkpoints: int = setting(2, "number of checkpoints to keep, the newest ones", within=AT_LEAST_1)
    inexact: bool = setting(
        False, "let --resume continue even if the result would differ from an uninterrupted run, and list why"
    )
    init_weights: str = ""
    """The digest of the weights that --init gave; empty without it."""
    kept_pooling: str = setting("mean", choices=("mean", "max", "cls"))
    """How the vectors that --keep-vectors keeps are made: as by the folder of --init, if it says so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs and self.minutes:
            raise InputError("--epochs and --minutes both say how long to train: give one of them")
        if self.short_len and not 5 <= self.short_len < self.max_len:
            raise InputError(f"--short-len must lie between 5 and --max-len ({self.max_len}), not {self.short_len}")
        if self.shards > self.batch_size:
            raise InputError(f"--shards {self.shards} is more than the {self.batch_size} examples of --batch-size")
        if not (0 <= self.warmup <= 1 and 0 <= self.decay <= 1 and self.warmup + self.decay <= 1 + 1e-9):
            raise InputError(
                f"--warmup {self.warmup:g} and --decay {self.decay:g} must be shares of the run, together at most 1"
            )

    @property
    def head_steps(self) -> int:
        """How many steps, at the start, train only the masked-LM head."""
        return round(self.head_first * self.steps)

    @property
    def warmup_steps(self) -> int:
        """How many steps the learning rate rises, once all parameters learn."""
        return round(self.warmup * (self.steps - self.head_steps))

    @property
    def decay_steps(self) -> int:
        """How many steps, at the end, the learning rate falls."""
        return round(self.decay * (self.steps - self.head_steps))

    @property
    def long_share(self) -> float:
        """The share of the steps, at the end, whose examples have `max_len` instead of `short_len`."""
        return 0.1 if self.short_len else 1.0

    @property
    def first_long_step(self) -> int:
        """The first step whose examples have `max_len`."""
        return self.steps - max(1, round(self.long_share * self.steps))

    def at(self, step: int) -> TrainConfig:
        """The configuration of a run whose examples all have the maximum length that `step` has."""
        return dataclasses.replace(
            self, short_len=0, max_len=self.short_len if step < self.first_long_step else self.max_len
        )


@dataclasses.dataclass(frozen=True)
class EncodeConfig(Checked):
    """How a text becomes a vector. A folder with modules of sentence-transformers has defaults of its own."""

    pooling: str = setting(
        "mean",
        "a text's vector: the mean or maximum of all tokens' hidden states, [CLS] and [SEP] included, or that of [CLS]",
        choices=("mean", "max", "cls"),
    )
    layer: int = setting(-1, "layer to take: 0 is the embeddings, 1 the first layer, -1 the last, -2 the one before")
    long: str = setting(
        "truncate",
        "a text longer than --max-len: truncate it; encode windows and pool all their tokens (with cls, average their "
        "[CLS], weighted by length); or refuse it",
        choices=("truncate", "window", "error"),
    )
    normalize: bool = setting(False, "scale each vector to length 1")
    max_len: int = setting(0, "maximum tokens of a text, including special tokens; 0: as many as the model takes")
    overlap: int = setting(
        0, "tokens that a window shares with the previous one, and that count twice", within=NOT_NEGATIVE
    )
    precision: str = setting(
        "fp32",
        "precision of matrix products; auto: bf16 if device and torch support it natively, else fp32",
        choices=("auto", "fp32", "bf16"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_len < 3 and self.max_len != 0:
            raise InputError(f"--max-len must be at least 3, [CLS] and [SEP] included, not {self.max_len}")

    def layer_of(self, model: BertConfig) -> int:
        """`layer`, counted from the front. Raises InputError if the model has fewer layers."""
        layers = model.num_hidden_layers
        if not -layers - 1 <= self.layer <= layers:
            raise InputError(
                f"--layer {self.layer}: the model has the layers 0 (embeddings) to {layers}, or -1 to {-layers - 1}"
            )
        return self.layer % (layers + 1)


@dataclasses.dataclass(frozen=True)
class LabelColumns(Checked):
    """Which columns of a file hold texts and their labels."""

    text_column: str = setting(
        "auto",
        "column (.csv, .tsv, .parquet) or key (.jsonl, .json) with the text; auto: text, or of two columns the one not "
        "called label, the first if neither is",
    )
    label_column: str = setting("auto", "the same with the label; auto: label, or of two columns the other one")


@dataclasses.dataclass(frozen=True)
class ProbeConfig(EncodeConfig):
    """How many labels a probe learns from, and how texts become vectors."""

    labels_each: str = setting("100,1000,all", "numbers of labels to learn from, separated by commas; all: every label")

    def __post_init__(self) -> None:
        super().__post_init__()
        for each in self.labels_each.split(","):
            if each != "all" and not (each.isascii() and each.isdigit() and int(each)):
                raise InputError(f"--labels-each takes numbers and all, as in 100,1000,all, not {self.labels_each!r}")

    def counts(self, available: int) -> list[int]:
        """The numbers of labels, ascending. `available` stands for all; larger numbers remain."""
        return sorted({available if each == "all" else int(each) for each in self.labels_each.split(",")})


@dataclasses.dataclass(frozen=True)
class FillMaskConfig(Checked):
    """How a [MASK] is filled in."""

    top_k: int = setting(5, "number of candidates for each [MASK]", within=AT_LEAST_1)
