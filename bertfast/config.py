"""Every setting, with its default and its help text. A default is written here and nowhere else.

The command lines are derived from these classes: a field's metadata holds its help, its choices and, if it differs from
the field's name, its flag.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from bertfast.errors import InputError


def setting(default: Any, help: str, *, flag: str | None = None, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field that also becomes a command-line flag."""
    return dataclasses.field(default=default, metadata={"help": help, "flag": flag, "choices": choices})


def flag(config: type, name: str) -> str:
    """How the command line calls the class's field `name`: `--hidden` for `hidden_size`; the name if it has no flag."""
    metadata = next(field.metadata for field in dataclasses.fields(config) if field.name == name)
    return f"--{(metadata['flag'] or name).replace('_', '-')}" if metadata else name


class Checked:
    """A dataclass of settings that refuses a value that is not among a setting's choices."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            choices, value = field.metadata.get("choices"), getattr(self, field.name)
            if choices and value not in choices:
                raise InputError(f"{flag(type(self), field.name)} must be one of {', '.join(choices)}, not {value!r}")


@dataclasses.dataclass(frozen=True)
class BertConfig(Checked):
    """The model's sizes, under Hugging Face's names. The defaults are the notebook's small BERT."""

    vocab_size: int = 30522
    hidden_size: int = setting(128, "width of the hidden states", flag="hidden")
    num_hidden_layers: int = setting(2, "number of layers", flag="layers")
    num_attention_heads: int = setting(2, "attention heads per layer; must divide the hidden size", flag="heads")
    intermediate_size: int = setting(256, "width of the feed-forward network", flag="ffn")
    hidden_dropout_prob: float = setting(0.2, "dropout probability of hidden states and attention", flag="dropout")
    attention_probs_dropout_prob: float = 0.2
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{flag(BertConfig, name)} must be at least 1, not {getattr(self, name)}")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"{self.num_attention_heads} heads don't divide the hidden size {self.hidden_size}: "
                "choose --heads so that --hidden is a multiple of it"
            )
        if self.num_attention_heads > 256:
            raise InputError(f"--heads {self.num_attention_heads} is more than the 256 that attention takes")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) <= 0.999:
                raise InputError(f"{flag(BertConfig, name)} must lie between 0 and 0.999, not {getattr(self, name)}")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the vocabulary's storage: a multiple of 128, which suits vector and tensor-core products."""
        return math.ceil(self.vocab_size / 128) * 128

    def check_takes(self, vocab_size: int, examples: SamplerConfig) -> None:
        """Raises InputError if the model can't take ids of a vocabulary of this size, or such examples."""
        if examples.max_len > self.max_position_embeddings:
            raise InputError(
                f"--max-len {examples.max_len} exceeds the model's {self.max_position_embeddings} positions"
            )
        if examples.objective != "none" and self.type_vocab_size < 2:
            raise InputError("the model has one token type, a pair of sentences needs two: use --objective none")
        if vocab_size > self.vocab_size:
            raise InputError(f"the corpus has {vocab_size} tokens, the model only {self.vocab_size}")


TEXT_FORMS = ("auto", "wikitext", "lines", "plain")


@dataclasses.dataclass(frozen=True)
class CorpusConfig(Checked):
    """How text becomes a tokenised corpus."""

    tokenizer: str = setting(
        "word", "word, wordpiece, char, or the path of a tokenizer.json, a vocab.txt or the folder that holds one"
    )
    vocab_size: int = setting(
        0, "maximum size of a trained vocabulary; 0: no limit for word, BERT's 30,522 for wordpiece and char"
    )
    min_freq: int = setting(
        5, "minimum count of a word (for wordpiece, of a pair to merge) that gets a token of its own"
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
        "documents; plain: prose, blank lines between paragraphs; auto: detect the form from the text",
        choices=TEXT_FORMS,
    )
    documents: str = setting(
        "auto",
        "file: each file or record is a document; paragraph: blank lines end documents; auto: paragraph in the form "
        "lines, else file, but a file that is alone or larger than 1 MiB is divided at its headings, rules and form "
        "feeds, or about every 100 sentences",
        choices=("auto", "file", "paragraph"),
    )
    language: str = setting("en", "language of the text; its sentence rules, or the nearest ones, divide plain text")
    text_column: str = setting(
        "text",
        "key (.jsonl, .json) or column (.csv, .tsv, .parquet, hf:NAME) with the text; data.text: a key in another",
    )
    delimiter: str = setting(",", "character between the fields of a .csv file")
    skip_bad_files: bool = setting(False, "skip and name files that cannot be read as text, instead of stopping")
    deduplicate: bool = setting(False, "drop every sentence that equals an earlier one")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocab_size and self.vocab_size < 6:
            raise InputError(f"--vocab-size {self.vocab_size} leaves no room beside BERT's 5 special tokens")
        if self.strip_accents and self.tokenizer == "word":
            raise InputError("--strip-accents is for --tokenizer wordpiece or char: words are taken as they are")
        if self.min_freq < 1:
            raise InputError(f"--min-freq must be at least 1, not {self.min_freq}")
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0 ':
            raise InputError(
                f"--delimiter must be one character, no quote, space or line break, not {self.delimiter!r} "
                "(a file whose delimiter is a tab is called .tsv)"
            )

    @property
    def base_language(self) -> str:
        """`language` without region or script: pt for pt-BR."""
        return self.language.replace("_", "-").split("-")[0].lower()


@dataclasses.dataclass(frozen=True)
class SamplerConfig(Checked):
    """What a training example is; docs/sampling.md defines each choice."""

    objective: str = setting(
        "nsp",
        "nsp: next-sentence prediction (BERT); sop: sentence order (ALBERT); none: masked tokens only (RoBERTa)",
        choices=("nsp", "sop", "none"),
    )
    max_len: int = setting(64, "maximum tokens of an example, including special tokens")
    seed: int = setting(0, "seed of every random decision")
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
    short_seq_prob: float = setting(0.1, "share of filled sentence pairs with a random, shorter target length")
    mlm_probability: float = setting(0.15, "share of the tokens to predict")
    masking: str = setting(
        "token",
        "unit of masking: a token (BERT), a whole word, or a span of 1 to 10 words (SpanBERT)",
        choices=("token", "whole_word", "span"),
    )
    mask_share: float = setting(0.8, "share of the predicted tokens that [MASK] replaces")
    random_share: float = setting(0.1, "share of the predicted tokens that a random token replaces")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 5 <= self.max_len <= 1 << 16:
            raise InputError(f"--max-len must lie between 5 and {1 << 16}, not {self.max_len}")
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"--seed must lie between 0 and 2^63 - 1, not {self.seed}")
        for name in ("short_seq_prob", "mlm_probability", "mask_share", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"--{name.replace('_', '-')} must lie between 0 and 1, not {getattr(self, name)}")
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

    steps: int = setting(50, "training steps")
    epochs: float = setting(0.0, "train until each example was seen this often, on average, instead of --steps")
    minutes: float = setting(
        0.0,
        "train for this long instead of --steps: as many steps as fit; loading and the last evaluation do not count",
    )
    batch_size: int = setting(512, "examples per step, over all workers")
    short_len: int = setting(
        0,
        "maximum tokens of an example in the first nine tenths of the steps, which then cost less; the last tenth has "
        "--max-len, as in BERT's own training; 0: --max-len throughout",
    )
    optimizer: str = setting(
        "adamw",
        "adamw: for every parameter; muon: Muon for the matrices of the layers, AdamW for the rest",
        choices=("adamw", "muon"),
    )
    lr: float = setting(5e-3, "AdamW's peak learning rate")
    muon_lr: float = setting(0.02, "Muon's peak learning rate; it rises and falls as --lr does")
    head_first: float = setting(
        0.0,
        "share of the steps, the first ones, in which only the masked-LM head learns, as suits a new head on a trained "
        "model",
    )
    head_lr: float = setting(2e-3, "AdamW's peak learning rate in these steps")
    weight_decay: float = setting(
        0.0,
        "share, times the learning rate, by which each step shrinks weights and embeddings; not biases and LayerNorms",
    )
    warmup: float = setting(0.1, "share of the steps, the first ones, over which the learning rate rises from 0")
    decay: float = setting(0.9, "share of the steps, the last ones, over which it falls to 0")
    precision: str = setting(
        "auto",
        "precision of matrix products; auto: bf16 if device and torch support it natively, else fp32",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = setting("auto", "where to train", choices=("auto", "cpu", "cuda"))
    gpus: int = setting(
        0, "number of devices, CPU processes if there is no GPU; 0: every visible GPU, or one CPU process"
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
    max_grad_norm: float = setting(1.0, "maximum norm of the gradient; 0: no clipping", flag="clip")
    timeout: int = setting(300, "seconds that a worker waits for the others within a step")
    eval: bool = setting(
        False,
        "hold out the last documents and evaluate on them: at the end, and up to nine times before, in about 2% of the "
        "time",
    )
    eval_share: float = setting(0.05, "share of the documents that --eval holds out")
    tensorboard: bool = setting(False, "also write TensorBoard event files, to tensorboard/ in the run directory")
    log_every: int = setting(
        0, "steps between progress lines if standard error is not a terminal; 0: one line every 30 seconds"
    )
    checkpoint_every: int = setting(0, "steps between checkpoints; 0: only every ten minutes and at the end")
    keep_checkpoints: int = setting(2, "number of checkpoints to keep, the newest ones")
    inexact: bool = setting(
        False, "let --resume continue even if the result would differ from an uninterrupted run, and list why"
    )
    init_weights: str = ""
    """The digest of the weights that --init gave; empty without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch_size", "timeout", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise InputError(f"{flag(TrainConfig, name)} must be at least 1, not {getattr(self, name)}")
        for name in ("gpus", "log_every", "checkpoint_every", "shards", "max_grad_norm"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{flag(TrainConfig, name)} must not be negative, not {getattr(self, name)}")
        for name in ("epochs", "minutes"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"--{name} must be 0 or a positive number, not {getattr(self, name)}")
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
        if not 0 <= self.head_first < 1:
            raise InputError(f"--head-first must be at least 0 and less than 1, not {self.head_first}")
        if not 0 < self.eval_share < 1:
            raise InputError(f"--eval-share must lie between 0 and 1, not {self.eval_share}")
        for name in ("lr", "muon_lr", "head_lr"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{flag(TrainConfig, name)} must be a positive number, not {getattr(self, name)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"--weight-decay must be 0 or a positive number, not {self.weight_decay}")

    @property
    def head_steps(self) -> int:
        """The steps, the first ones, in which only the masked-LM head learns."""
        return round(self.head_first * self.steps)

    @property
    def warmup_steps(self) -> int:
        """The first ones of those in which all parameters learn."""
        return round(self.warmup * (self.steps - self.head_steps))

    @property
    def decay_steps(self) -> int:
        """The last ones of those in which all parameters learn."""
        return round(self.decay * (self.steps - self.head_steps))

    @property
    def long_share(self) -> float:
        """The share of the steps, the last ones, whose examples have `max_len` instead of `short_len`."""
        return 0.1 if self.short_len else 1.0

    @property
    def first_long_step(self) -> int:
        """The first of these steps."""
        return self.steps - max(1, round(self.long_share * self.steps))

    def at(self, step: int) -> TrainConfig:
        """The configuration with the one length that the examples of `step` have."""
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
        "a text longer than --max-len: truncate it, encode windows and pool all their tokens, or refuse it",
        choices=("truncate", "window", "error"),
    )
    normalize: bool = setting(False, "scale each vector to length 1")
    max_len: int = setting(0, "maximum tokens of a text, including special tokens; 0: as many as the model takes")
    overlap: int = setting(0, "tokens that a window shares with the previous one")
    precision: str = setting(
        "fp32",
        "precision of matrix products; auto: bf16 if device and torch support it natively, else fp32",
        choices=("auto", "fp32", "bf16"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap < 0:
            raise InputError(f"--overlap must not be negative, not {self.overlap}")
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
        "column (.csv, .tsv, .parquet) or key (.jsonl, .json) with the text; auto: text, or the other one of two, the "
        "first if neither is called label",
    )
    label_column: str = setting("auto", "the same with the label; auto: label, or the other one of two")


@dataclasses.dataclass(frozen=True)
class ProbeConfig(EncodeConfig):
    """How a probe is made: on how many labels, and how texts become vectors."""

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

    top_k: int = setting(5, "number of candidates for each [MASK]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k < 1:
            raise InputError(f"--top-k must be at least 1, not {self.top_k}")


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named model with the settings that suit it: fields of BertConfig and TrainConfig, and a kind of tokenizer."""

    model: dict[str, Any]
    train: dict[str, Any]
    tokenizer: str


def _published(layers: int, hidden: int, dropout: float, **train: Any) -> Preset:
    """The sizes of Devlin et al. (2019) and Turc et al. (2019): heads of 64, feed-forward 4 times as wide."""
    model = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }
    return Preset(model, train, "wordpiece")


# Of small models, which have minutes to hours: no dropout, masked tokens alone, a rate that stays up until its last
# third. docs/recipes.md has what each gives.
_SMALL: dict[str, Any] = {
    "dropout": 0.0,
    "objective": "none",
    "optimizer": "muon",
    "muon_lr": 0.02,
    "lr": 3e-3,
    "batch_size": 256,
    "warmup": 0.05,
    "decay": 0.3,
    "minutes": 30.0,
}

# As published, for runs of many hours or days.
_LARGE: dict[str, Any] = {"dropout": 0.1, "minutes": 30.0}

PRESETS = {
    "notebook": Preset({}, {}, "word"),
    "tiny": _published(2, 128, **_SMALL),
    "mini": _published(4, 256, **_SMALL),
    "small": _published(4, 512, **_LARGE, lr=5e-4),
    "medium": _published(8, 512, **_LARGE, lr=5e-4),
    "base": _published(12, 768, **_LARGE, lr=1e-4),
    "large": _published(24, 1024, **_LARGE, lr=1e-4),
}

DEFAULT_PRESET = "notebook"

# A model that was trained before, by --init, learns at a low rate, so that it keeps what it knows.
CONTINUED = {"objective": "none", "lr": 1e-4, "batch_size": 64, "minutes": 30.0}

# If it has no masked-LM head: gradients through an untrained one would only disturb it.
NEW_HEAD = {"head_first": 0.1}

# Settings whose default is the preset's.
PRESET_FIELDS = {name for preset in PRESETS.values() for name in (*preset.model, *preset.train, *NEW_HEAD, "tokenizer")}
