"""bertfast turns raw text into a pretrained BERT.

>>> corpus = bertfast.load_corpus("path/to/wikitext-2", tokenizer="word")
>>> model = bertfast.Bert(bertfast.BertConfig(vocab_size=corpus.vocab_size))
>>> run = bertfast.train(model, corpus, bertfast.TrainConfig(steps=50))
>>> run.save("runs/wiki")
>>> bertfast.Encoder.load("runs/wiki")("a crane is flying").shape
torch.Size([1, 6, 128])
"""

import importlib
import pkgutil
import warnings
from typing import TYPE_CHECKING, Any

from bertfast._version import __version__ as __version__

if TYPE_CHECKING:
    from bertfast.config import BertConfig as BertConfig
    from bertfast.config import CorpusConfig as CorpusConfig
    from bertfast.config import TrainConfig as TrainConfig
    from bertfast.data.corpus import Corpus as Corpus
    from bertfast.data.load import load_corpus as load_corpus
    from bertfast.errors import InputError as InputError
    from bertfast.inference.encoder import Encoder as Encoder
    from bertfast.model import Bert as Bert
    from bertfast.sampling.sampler import Sampler as Sampler
    from bertfast.training.launch import train as train
    from bertfast.training.run import Run as Run

# In a source checkout, Python finds this folder before the installed package, but only the latter has the compiled
# extension: look for it there too. `_native` refuses an extension of another version.
__path__ = pkgutil.extend_path(__path__, __name__)

_HOMES = {
    "Bert": "model",
    "BertConfig": "config",
    "Corpus": "data.corpus",
    "CorpusConfig": "config",
    "Encoder": "inference.encoder",
    "InputError": "errors",
    "Run": "training.run",
    "Sampler": "sampling.sampler",
    "TrainConfig": "config",
    "load_corpus": "data.load",
    "train": "training.launch",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used, so that building a corpus doesn't import torch."""
    if name == "pretrain":
        warnings.warn("bertfast.pretrain(...) is called bertfast.train(...) now", DeprecationWarning, stacklevel=2)
        name = "train"
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"bertfast.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
