"""Text to a tokenised, memory-mapped corpus: built once, streaming, and then opened at once."""

from bertfast.corpus.corpus import Corpus as Corpus
from bertfast.corpus.corpus import is_built as is_built
from bertfast.corpus.load import build_corpus as build_corpus
from bertfast.corpus.load import default_cache as default_cache
from bertfast.corpus.load import load_corpus as load_corpus
from bertfast.corpus.load import refuse_settings as refuse_settings
