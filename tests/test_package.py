"""What `import bertfast` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.small_run import CONFIG, make_model

import bertfast


def test_the_package_offers_its_contract(corpus):
    for name in ("load_corpus", "Bert", "BertConfig", "TrainConfig", "Encoder", "train"):
        assert callable(getattr(bertfast, name))
    assert bertfast.train(make_model(corpus), corpus, CONFIG).history.records


def test_the_former_name_of_train_warns():
    """`bertfast.pretrain` was the function, until the command's module of that name was imported."""
    script = "import bertfast, warnings; warnings.simplefilter('error', DeprecationWarning); bertfast.pretrain"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "DeprecationWarning: bertfast.pretrain(...) is called bertfast.train(...) now" in done.stderr
    script = "import bertfast; assert bertfast.pretrain is bertfast.train"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_citation_names_this_version():
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {bertfast.__version__}\n" in citation
