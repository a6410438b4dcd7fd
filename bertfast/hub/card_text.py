"""The text of a run's model card, with the header that the Hugging Face Hub reads.

It depends on the run alone, not on the clock or the machine: a resumed run has the same card. It names no folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from bertfast._version import __version__
from bertfast.config import SamplerConfig, TrainConfig
from bertfast.data.corpus import Corpus
from bertfast.data.tokenizing.special_tokens import MASK
from bertfast.hub.forms import FORMS, Form
from bertfast.hub.state_dict import num_parameters
from bertfast.model import Bert
from bertfast.reporting.average import Average
from bertfast.reporting.context_free import unigram_entropy
from bertfast.reporting.metrics import History

_OBJECTIVES = {"nsp": "next-sentence prediction", "sop": "sentence order"}
_LIBRARY_TAG = "- bertfast\n"
_OTHER_LIBRARIES, _LIMITS = "## With other libraries\n", "## Limits\n"
# Not to be published: run.json contains paths on the machine, and the names of event files the machine's name.
_PRIVATE = ("checkpoints/*", "tensorboard/*", "run.json")


class CardFacts(NamedTuple):
    """What the card of a run is made from."""

    model: Bert
    config: TrainConfig
    corpus: Corpus
    held_out: Corpus | None
    history: History
    dtype: torch.dtype
    """The dtype of matrix products."""
    base_model: str | None
    """As in `Run`."""
    average: Average | None
    """As in `Run`."""


_CARD = """\
---
{header}
---

# BERT, {layers} layers of {hidden_size}, trained on {short_names}

A BERT encoder with its pretraining heads (`BertForPreTraining`), trained by bertfast {version}.

## Model

{model}

## Text

{text}

## Training

{training}
{weights}
## Losses

![training curve](loss.png)

{losses}

In nats, for each predicted token or pair{losses_of}.

## With transformers

```python
import transformers

fill = transformers.pipeline("fill-mask", ".")  # or the model's name on the Hub
fill("a sentence with a {mask} in it")
encoder = transformers.AutoModel.from_pretrained(".")
```

## With bertfast

```python
import bertfast

encoder = bertfast.Encoder.load(".")
encoder.embed(["one text", "another"])
```

## Limits

The model has learned everything from {teachers}, including errors and prejudices. It was tested only by the {tests}
above.

<!--
bertfast wrote this card, and rewrites it when the run is resumed or saved again, unless you edit it.
To publish this folder, choose a license in the header, and run here:
hf upload OWNER/NAME . . {exclude}"""


def card_text(facts: CardFacts) -> str:
    """The card, without the sections of exported forms."""
    config = facts.model.config
    return _CARD.format(
        header="\n".join(_header(facts)),
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        short_names=_names(facts.corpus, 3),
        version=__version__,
        model=_table(_of_model(facts)),
        text="\n".join(_text(facts)),
        training=_table(_of_training(facts)),
        weights="" if facts.average is None else _weights(facts.average),
        losses=_losses(facts),
        losses_of=", with the weights as trained" * (facts.average is not None),
        tests="losses" if facts.average is None else "losses and the figures of its weights",
        mask=MASK,
        teachers="the text above" if facts.base_model is None else "the text above and in its earlier training",
        exclude=" ".join(f'--exclude "{name}"' for name in _PRIVATE),
    )


def with_forms(card: str, present: Mapping[str, Form]) -> str:
    """The card with the tags and examples of these forms only."""
    card = re.sub(f"^{_OTHER_LIBRARIES}.*?(?=^{_LIMITS})", "", card, flags=re.MULTILINE | re.DOTALL)
    before, after = card.split(_LIBRARY_TAG, 1)
    after = re.sub(rf"\A(- ({'|'.join(FORMS)})\n)*", "", after)
    card = before + _LIBRARY_TAG + "".join(f"- {name}\n" for name in present) + after
    if not present:
        return card
    examples = "".join(f"\n### {name}\n\n```python\n{form.example}\n```\n" for name, form in present.items())
    before, after = card.rsplit(_LIMITS, 1)
    return f"{before}{_OTHER_LIBRARIES}{examples}\n{_LIMITS}{after}"


def _header(facts: CardFacts) -> Iterator[str]:
    yield "# license: yours to choose, https://huggingface.co/docs/hub/repositories-licenses"
    if facts.corpus.language:  # in quotes: in YAML, no is false
        yield f'language: "{facts.corpus.language}"  # by --language'
    yield "library_name: transformers"
    yield "pipeline_tag: fill-mask"
    if facts.base_model:
        yield f'base_model: "{facts.base_model}"'
    yield "tags:"
    yield "- bert"
    yield _LIBRARY_TAG.strip()


def _table(rows: Iterator[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _of_model(facts: CardFacts) -> Iterator[tuple[str, str]]:
    model = facts.model
    config, normalisation = model.config, facts.corpus.tokenizer.normalisation
    yield "parameters", f"{num_parameters(model):,}"
    yield "layers", f"{config.num_hidden_layers}"
    yield "hidden size", f"{config.hidden_size}, in {config.num_attention_heads} attention heads"
    yield "feed-forward size", f"{config.intermediate_size}"
    yield "vocabulary", f"{config.vocab_size:,} tokens{f', {normalisation}' * bool(normalisation)}"
    positions = config.max_position_embeddings
    rest = f"; of {positions} positions, the others were not trained" if model.max_len < positions else ""
    yield "length", f"up to {model.max_len} tokens{rest}"
    if facts.config.objective == "none":
        heads = "pooler and next-sentence head"
        yield "not trained", heads if facts.base_model is None else f"{heads}, which are unchanged"


def _text(facts: CardFacts) -> Iterator[str]:
    corpus, held_out = facts.corpus, facts.held_out
    yield f"Trained on {_names(corpus)}:"
    yield ""
    yield from (f"- {line}" for line in corpus.figures)
    if corpus.part:
        yield f"- of these, the documents {_range(corpus.part)} were trained on: {corpus.num_tokens:,} tokens"
    if held_out is None:
        return
    yield ""
    if held_out.fingerprint == corpus.fingerprint and held_out.part:
        yield f"Evaluated on the documents {_range(held_out.part)} of the same text: {held_out.num_tokens:,} tokens."
        return
    yield f"Evaluated on {_names(held_out)}:"
    yield ""
    yield from (f"- {line}" for line in held_out.figures)


def _range(part: tuple[int, int]) -> str:
    first, end = part
    return f"{first + 1:,} to {end:,}"


def _names(corpus: Corpus, most: int | None = None) -> str:
    """The names of the corpus's sources, at most `most`, as code, in which Markdown has no effect."""
    shown = corpus.names[:most]
    more = f" and {len(corpus.names) - len(shown)} more" if len(shown) < len(corpus.names) else ""
    return ", ".join(f"`{''.join(c if c.isprintable() and c != '`' else '?' for c in name)}`" for name in shown) + more


def _of_training(facts: CardFacts) -> Iterator[tuple[str, str]]:
    config, records = facts.config, facts.history.records
    start = "random weights"
    if facts.base_model is not None:
        start = f"`{facts.base_model}`" if facts.base_model else "a model that was trained before"
    yield "began with", start
    yield "objective", " and ".join([_masking(config), *filter(None, [_OBJECTIVES.get(config.objective)])])
    done = records[-1].step + 1 if records else config.steps
    planned = f" of {config.steps:,}" if done < config.steps else ""
    yield "steps", f"{done:,}{planned}, with batches of {config.batch_size:,} examples"
    short = f"; {config.short_len} in the first {config.first_long_step:,} steps" if config.short_len else ""
    yield "length of an example", f"up to {config.max_len} tokens{short}"
    tokens = [record.tokens for record in records if record.tokens is not None]
    if len(tokens) == config.steps:
        yield "tokens seen", f"{sum(tokens):,}, special tokens included"
    if config.head_steps:
        yield "masked-LM head alone", f"in the first {config.head_steps:,} steps, peak rate {config.head_lr:g}"
    if config.keep_vectors:
        yield (
            "kept vectors",
            f"those it began with: 1 - cosine, pooling {config.kept_pooling}, weight {config.keep_vectors:g}",
        )
    muon = config.optimizer == "muon"
    yield "optimizer", "Muon for the matrices of the layers, AdamW for the rest" if muon else "AdamW"
    rates = f"{config.muon_lr:g} (Muon), {config.lr:g} (AdamW)" if muon else f"{config.lr:g}"
    yield (
        "peak learning rate",
        f"{rates}, rising over {100 * config.warmup:g}% and falling over {100 * config.decay:g}% of the steps",
    )
    yield "weight decay", f"{config.weight_decay:g}"
    yield "gradient clipping", f"at norm {config.max_grad_norm:g}" if config.max_grad_norm else "none"
    dropout = facts.model.config
    yield (
        "dropout",
        f"{dropout.hidden_dropout_prob:g}, in attention {dropout.attention_probs_dropout_prob:g}",
    )
    yield "precision", "float32" if facts.dtype == torch.float32 else "bfloat16, with weights in float32"
    yield "seed", f"{config.seed}"


def _weights(average: Average) -> str:
    return f"""
## Weights

The weights are start + {average.share:g} x (trained - start): an average of those before and after training. A head
that was new is as trained.

{_grid(average.rows())}

Accuracy in % of a classifier on frozen vectors, Spearman's correlation x 100, both ± two standard errors.
{average.reason}
"""


def _masking(config: SamplerConfig) -> str:
    units = {"token": "tokens", "whole_word": "whole words", "span": "spans of words"}
    masked, replaced = 100 * config.mlm_probability, 100 * config.mask_share
    return (
        f"masked {units[config.masking]}, {masked:g}% of all tokens (of these, {replaced:g}% became `{MASK}` and "
        f"{100 * config.random_share:g}% a random token)"
    )


def _losses(facts: CardFacts) -> str:
    """A table: the mean of the last tenth of the steps, the last evaluation, and the loss by frequencies alone."""
    records = facts.history.records
    last = records[-max(1, len(records) // 10) :]
    rows = [["", "masked tokens", _OBJECTIVES.get(facts.config.objective, "")]]
    if last:
        means = (sum(losses) / len(last) for losses in zip(*((r.mlm_loss, r.nsp_loss) for r in last), strict=True))
        rows.append([f"training, mean of the last {len(last):,} steps", *(f"{mean:.3f}" for mean in means)])
    for entry in facts.history.evaluations[-1:]:
        masked = f"{entry.eval_mlm_loss:.3f} (perplexity {entry.eval_mlm_perplexity:.4g}, "
        masked += f"accuracy {entry.eval_mlm_accuracy:.1%})"
        rows.append([f"held-out text, after step {entry.step + 1:,}", masked, ""])
        if entry.eval_nsp_loss is not None and entry.eval_nsp_accuracy is not None:
            rows[-1][2] = f"{entry.eval_nsp_loss:.3f} (accuracy {entry.eval_nsp_accuracy:.1%})"
    rows.append(["by the tokens' frequencies alone", f"{unigram_entropy(facts.corpus.token_counts):.3f}", ""])
    columns = 2 if facts.config.objective == "none" else 3
    return _grid(row[:columns] for row in rows)


def _grid(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *others])
