"""Every setting, with its default and its help text. A default stands here and nowhere else.

The command lines are derived from these classes: a field's metadata holds its help, its choices and, where it differs
from the field's name, its flag.
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
    """A dataclass of settings that refuses a value which is none of a setting's choices."""

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
    num_attention_heads: int = setting(2, "attention heads a layer; must divide the hidden size", flag="heads")
    intermediate_size: int = setting(256, "width of the feed-forward network", flag="ffn")
    hidden_dropout_prob: float = setting(0.2, "dropout of hidden states and of attention", flag="dropout")
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
        """Rows that the vocabulary's storage takes: a multiple of 128, which suits vector and tensor-core products."""
        return math.ceil(self.vocab_size / 128) * 128

    def check_takes(self, vocab_size: int, examples: SamplerConfig) -> None:
        """Raises InputError where the model can't take the ids of such a vocabulary, or such examples."""
        if examples.max_len > self.max_position_embeddings:
            raise InputError(
                f"--max-len {examples.max_len} exceeds the model's {self.max_position_embeddings} positions"
            )
        if examples.objective != "none" and self.type_vocab_size < 2:
            raise InputError("the model knows one token type, a pair of sentences has two: give --objective none")
        if vocab_size > self.vocab_size:
            raise InputError(f"the corpus has {vocab_size} tokens, the model only {self.vocab_size}")


@dataclasses.dataclass(frozen=True)
class CorpusConfig(Checked):
    """How text becomes a tokenised corpus."""

    tokenizer: str = setting("word", "word, wordpiece, or the path of a tokenizer.json, a vocab.txt or their folder")
    vocab_size: int = setting(
        0, "most tokens of a trained vocabulary; 0: no limit for word, BERT's 30,522 for wordpiece"
    )
    min_freq: int = setting(5, "a word (or, for wordpiece, a pair to merge) rarer than this gets no token of its own")
    lowercase: bool = setting(True, "lower-case the text; a tokenizer that is given keeps its own way")
    text_form: str = setting(
        "auto",
        "wikitext: a paragraph a line, ' . ' between sentences; lines: a sentence a line, blank lines between "
        "documents; plain: prose, blank lines between documents; auto: told from the text",
        choices=("auto", "wikitext", "lines", "plain"),
    )
    language: str = setting("en", "the language whose rules end a sentence in plain text")
    text_column: str = setting("text", "the key (.jsonl) or column (.csv, .tsv, .parquet, hf:NAME) that holds the text")
    skip_bad_files: bool = setting(
        False, "leave out files that cannot be read as text, and name them, instead of stopping"
    )

    deduplicate: bool = setting(False, "drop every sentence that is equal to an earlier one")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocab_size and self.vocab_size < 6:
            raise InputError(f"--vocab-size {self.vocab_size} leaves no room beside BERT's 5 special tokens")
        if self.min_freq < 1:
            raise InputError(f"--min-freq must be at least 1, not {self.min_freq}")


@dataclasses.dataclass(frozen=True)
class SamplerConfig(Checked):
    """What a training example is; docs/design.md defines each choice."""

    objective: str = setting(
        "nsp",
        "nsp: next-sentence prediction (BERT); sop: sentence order (ALBERT); none: masked tokens alone (RoBERTa)",
        choices=("nsp", "sop", "none"),
    )
    max_len: int = setting(64, "most tokens of an example, special tokens included")
    seed: int = setting(0, "seed of every random decision")
    negatives: str = setting(
        "other",
        "a wrong next sentence comes from another document, or, as in the notebook, from any",
        choices=("other", "any"),
    )
    too_long: str = setting(
        "truncate",
        "a pair longer than max_len is truncated (BERT) or dropped (the notebook)",
        choices=("truncate", "drop"),
    )
    segments: str = setting(
        "auto",
        "a segment is one sentence, or several that fill max_len (BERT, RoBERTa); auto: fill for the objective none, "
        "sentence for pairs",
        choices=("auto", "sentence", "fill"),
    )
    short_seq_prob: float = setting(0.1, "share of filled sentence pairs with a shorter, random target length")
    mlm_probability: float = setting(0.15, "share of the tokens that are predicted")
    masking: str = setting(
        "token",
        "what is masked together: a token (BERT), all pieces of a word, or a span of 1 to 10 words (SpanBERT)",
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
        """Whether a segment takes as many sentences as there is room for."""
        return self.segments == "fill" or (self.segments == "auto" and self.objective == "none")


@dataclasses.dataclass(frozen=True)
class TrainConfig(SamplerConfig):
    """One training run: what an example is, and how the model learns from it."""

    steps: int = setting(50, "training steps")
    batch_size: int = setting(512, "examples a step, over all workers")
    lr: float = setting(5e-3, "Adam's learning rate at its peak")
    warmup: int = setting(5, "steps over which the learning rate rises from 0")
    precision: str = setting(
        "auto",
        "arithmetic of the matrix products: bf16 where the device computes it natively (auto), fp32 or bf16",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = setting("auto", "where to train", choices=("auto", "cpu", "cuda"))
    gpus: int = setting(0, "number of devices; 0: every visible GPU, or one CPU process")
    parallel: str = setting(
        "ddp",
        "several devices: a process each (ddp) or one process with a thread each (dp)",
        choices=("ddp", "dp"),
    )
    deterministic: bool | None = setting(
        None,
        "the same weights, bit for bit, on any number of workers and threads; or, with --no-deterministic, sums in the "
        "fastest order (default: deterministic on a CPU whose cores the shards keep busy)",
    )
    shards: int = setting(
        0,
        "pieces that a step's batch is computed in: more take less memory; 0: 8 where a run is deterministic (4 if "
        "it is so unasked and in bf16), else one a worker",
    )
    cuda_graph: bool | None = setting(
        None,
        "capture the step as a CUDA graph, so that the GPU waits for no host; or, with --no-cuda-graph, call its parts "
        "one by one (default: captured where each process trains on one GPU, and not deterministically)",
    )
    mlm_loss: str = setting(
        "auto",
        "how the masked-LM loss is computed: in chunks of its logits, fused in one kernel (some GPUs, in bf16), or by "
        "whichever a trial finds faster, which is the chunks where the kernel fails (auto)",
        choices=("auto", "chunked", "fused"),
    )
    check: bool = setting(
        True,
        "ask, before a GPU is trusted, whether it computes each op as plain torch does: once for each GPU, driver, "
        "torch and build (python -m bertfast.check)",
    )
    compile: bool = setting(False, "have torch.compile fuse what lies between the kernels; the first steps take longer")
    max_grad_norm: float = setting(1.0, "longer gradients are scaled down to this norm; 0: never", flag="clip")
    timeout: int = setting(300, "seconds that a worker waits for the others within a step before it gives up")
    eval: bool = setting(False, "hold out the last documents, and evaluate on them ten times a run")
    eval_share: float = setting(0.05, "share of the documents that --eval holds out")
    tensorboard: bool = setting(False, "write event files for TensorBoard too, into the folder's tensorboard/")
    log_every: int = setting(
        0, "steps between lines of progress, where standard error is no terminal; 0: a line every half minute"
    )
    checkpoint_every: int = setting(0, "steps between checkpoints; 0: one, at the end")
    keep_checkpoints: int = setting(2, "checkpoints that are kept, the newest ones")
    inexact: bool = setting(
        False, "let --resume go on where the result can't be what the run would have ended with, and say why"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch_size", "timeout", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise InputError(f"{flag(TrainConfig, name)} must be at least 1, not {getattr(self, name)}")
        for name in ("warmup", "gpus", "log_every", "checkpoint_every", "shards", "max_grad_norm"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{flag(TrainConfig, name)} must not be negative, not {getattr(self, name)}")
        if self.shards > self.batch_size:
            raise InputError(f"--shards {self.shards} is more than the {self.batch_size} examples of --batch-size")
        if not 0 < self.eval_share < 1:
            raise InputError(f"--eval-share must lie between 0 and 1, not {self.eval_share}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"--lr must be a positive number, not {self.lr}")


@dataclasses.dataclass(frozen=True)
class EncodeConfig(Checked):
    """How a text becomes a vector."""

    pooling: str = setting(
        "mean",
        "a text's vector is the mean or the maximum of its tokens' hidden states, [CLS] and [SEP] included, or [CLS]'s",
        choices=("mean", "max", "cls"),
    )
    layer: int = setting(-1, "whose hidden states: 0 the embeddings, 1 the first layer, -1 the last, -2 the one before")
    long: str = setting(
        "truncate",
        "a text longer than the model takes is cut off, encoded in windows that are pooled by their tokens, or refused",
        choices=("truncate", "window", "error"),
    )
    overlap: int = setting(0, "tokens that a window shares with the one before")
    precision: str = setting(
        "fp32",
        "arithmetic of the matrix products: fp32, bf16, or bf16 where the device computes it natively (auto)",
        choices=("auto", "fp32", "bf16"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap < 0:
            raise InputError(f"--overlap must not be negative, not {self.overlap}")

    def layer_of(self, model: BertConfig) -> int:
        """`layer`, counted from the front. Raises InputError where the model hasn't so many."""
        layers = model.num_hidden_layers
        if not -layers - 1 <= self.layer <= layers:
            raise InputError(
                f"--layer {self.layer}: the model has the layers 0 (embeddings) to {layers}, or -1 to {-layers - 1}"
            )
        return self.layer % (layers + 1)


@dataclasses.dataclass(frozen=True)
class FillMaskConfig(Checked):
    """How a [MASK] is filled."""

    top_k: int = setting(5, "candidates for each [MASK]")

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


def _published(layers: int, hidden: int, lr: float) -> Preset:
    """The sizes of Devlin et al. (2019) and Turc et al. (2019): heads of 64, feed-forward 4 times as wide."""
    model = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }
    return Preset(model, {"lr": lr}, "wordpiece")


PRESETS = {
    "notebook": Preset({}, {}, "word"),
    "tiny": _published(2, 128, 1e-3),
    "mini": _published(4, 256, 1e-3),
    "small": _published(4, 512, 5e-4),
    "medium": _published(8, 512, 5e-4),
    "base": _published(12, 768, 1e-4),
    "large": _published(24, 1024, 1e-4),
}

DEFAULT_PRESET = "notebook"

# Settings whose default is the preset's.
PRESET_FIELDS = {name for preset in PRESETS.values() for name in (*preset.model, *preset.train, "tokenizer")}
