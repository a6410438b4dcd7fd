"""A probe of labels, compared with scikit-learn."""

from __future__ import annotations

import re
import statistics
import sys
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
import transformers
from scipy.sparse import hstack
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.preprocessing import StandardScaler
from support import planted_labels

from bertfast.config import ProbeConfig
from bertfast.data.readers.labelled import Labelled
from bertfast.errors import InputError
from bertfast.inference.encoder import Encoder
from bertfast.inference.probe import classification, draws
from bertfast.inference.probe.classification import compare_labels, probe_labels
from bertfast.inference.probe.draws import Drawn, train_and_test
from bertfast.inference.probe.verdict import RANDOM, ROWS, VECTORS, WITH_RANDOM, WITH_VECTORS, WORDS
from bertfast.model import Bert

ALL = ProbeConfig(labels_each="all")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return planted_labels.save(tmp_path_factory.mktemp("model"), knows=True)


def by_hand(folder, texts, kind):
    """Mean-pooled vectors by transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder)
    if kind == "random":
        config = Encoder.load(folder).model.config
        torch.manual_seed(0)
        return Encoder(Bert(config), planted_labels.tokenizer()).embed(texts).numpy()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model.eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(2)
    return ((states * mask).sum(1) / mask.sum(1)).numpy()


@pytest.mark.usefixtures("one_strength")
@pytest.mark.parametrize("row", ROWS)
def test_an_accuracy_equals_scikit_learns(folder, row):
    train, test = planted_labels.labelled(80, 0), planted_labels.labelled(200, 1)
    [column] = probe_labels(Encoder.load(folder), train, test, ALL).columns
    both = []
    if row in (WORDS, WITH_VECTORS, WITH_RANDOM):
        vectorizer = TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True)
        both.append((vectorizer.fit_transform(train.texts), vectorizer.transform(test.texts)))
    if row != WORDS:
        kind = "random" if row in (RANDOM, WITH_RANDOM) else "trained"
        of_train, of_test = (by_hand(folder, each.texts, kind).astype(float) for each in (train, test))
        scaler = StandardScaler().fit(of_train)
        both.append(tuple(scaler.transform(each) / of_train.shape[1] ** 0.5 for each in (of_train, of_test)))
    of_train, of_test = both[0] if len(both) == 1 else map(hstack, zip(*both, strict=True))
    model = LogisticRegression(max_iter=1000).fit(of_train, train.labels)
    right = model.predict(of_test) == np.array(test.labels)
    assert column.labels == 80
    assert column.correct[row].tolist() == [right.tolist()]
    assert column.accuracy(row).value == pytest.approx(100 * model.score(of_test, test.labels))
    assert column.accuracy(row).margin == pytest.approx(200 * statistics.stdev(right.astype(float)) / 200**0.5)


def test_regularisation_is_chosen_by_cross_validation():
    rng = np.random.default_rng(0)
    labels = np.array(list("aabbbbccccccc") * 10)
    features = rng.normal(size=(130, 20)) + (labels == "a")[:, None]
    ours = classification._fitted(features, labels)
    folds, dealt = [0] * 130, 0
    for label in "abc":
        for index in np.flatnonzero(labels == label):
            folds[index] = dealt % 5
            dealt += 1
    grid = {"C": [0.1, 1.0, 10.0, 100.0]}
    search = GridSearchCV(LogisticRegression(max_iter=1000), grid, cv=PredefinedSplit(folds)).fit(features, labels)
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    assert ours.C == search.best_params_["C"] == 0.1
    assert ours.coef_ == pytest.approx(search.best_estimator_.coef_, abs=1e-3)
    far = classification._fitted(rng.normal(size=(130, 20)) / 30 + (labels == "b")[:, None] / 10, labels)
    assert far.C > 0.1


def test_four_labels_make_four_folds():
    features, labels = np.array([[0.0], [1.0], [0.1], [1.1]]), np.array(list("abab"))
    assert (classification._fitted(features, labels).predict(features) == labels).all()


def test_many_labels_use_one_fold(monkeypatch):
    monkeypatch.setattr(classification, "_ONE_FOLD", 130)
    fits = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, x, y: fits.append(len(y)) or fit(self, x, y))
    classification._fitted(np.random.default_rng(0).normal(size=(130, 3)), np.array(["a", "b"] * 65))
    assert fits == [104] * 4 + [130]


# ---- draws


@pytest.mark.usefixtures("one_strength")
def test_a_fifth_is_held_out():
    given = planted_labels.labelled(203, 0)
    found = probe_labels(planted_labels.encoder(knows=True), given, config=ALL)
    assert (found.columns[0].labels, found.tests, found.labels) == (163, 40, 2)
    train, test = draws._hold_out(given)
    pairs = (zip(each.texts, each.labels, strict=True) for each in (train, test))
    assert sorted(chain(*pairs)) == sorted(zip(given.texts, given.labels, strict=True))
    for each in (train, test):
        share = Counter(given.labels)["good"] / 203
        assert Counter(each.labels)["good"] == pytest.approx(share * len(each.labels), abs=2)
    assert found.largest == max(Counter(test.labels).values()) / 40


def test_few_labels_are_drawn_several_times(monkeypatch):
    drawn = []

    def guessing(features, labels):
        drawn.append(Counter(labels))
        return DummyClassifier(strategy="uniform", random_state=len(drawn)).fit(features, labels)

    monkeypatch.setattr(classification, "_fitted", guessing)
    train, test = planted_labels.labelled(1200, 0), planted_labels.labelled(50, 1)
    config = ProbeConfig(labels_each="1000,all,20")
    columns = probe_labels(planted_labels.encoder(knows=False), train, test, config).columns
    assert [(column.labels, column.draws) for column in columns] == [(20, 5), (1000, 3), (1200, 1)]
    assert [sum(counts.values()) for counts in drawn] == [20] * 25 + [1000] * 15 + [1200] * 5
    assert all(counts["good"] == pytest.approx(0.6 * sum(counts.values()), rel=0.1) for counts in drawn)
    assert len({right.tobytes() for right in columns[0].correct[VECTORS]}) == 5


@pytest.mark.usefixtures("one_strength")
def test_each_text_is_embedded_once(monkeypatch):
    embedded = []
    embed = Encoder.embed_texts
    monkeypatch.setattr(
        Encoder, "embed_texts", lambda self, texts, *rest: embedded.append(list(texts)) or embed(self, texts, *rest)
    )
    train, test = planted_labels.labelled(400, 0), planted_labels.labelled(30, 1)
    probe_labels(planted_labels.encoder(knows=False), train, test, ProbeConfig(labels_each="10,30"))
    trained, untrained = embedded
    assert trained == untrained
    assert len(set(trained)) == len(trained) <= 5 * 30 + 30
    assert set(test.texts) < set(trained)


def test_a_comparison_warns_once_of_truncated_texts(said):
    encoder = planted_labels.encoder(knows=False)
    encoder.max_len = 4
    drawn = Drawn.of(*train_and_test(planted_labels.labelled(50, 0)), ALL)
    assert compare_labels([("a", encoder), ("b", encoder)], drawn, ALL).correct.keys() == {"a", "b"}
    assert len([line for line in said if line.startswith("warning: 50 of 50 texts were truncated")]) == 1


@pytest.mark.usefixtures("one_strength")
def test_figures_are_reproducible_and_torchs_seed_is_unchanged():
    given = planted_labels.labelled(150, 0)
    encoder = planted_labels.encoder(knows=False)
    config = ProbeConfig(labels_each="20,all")
    first = probe_labels(encoder, given, config=config)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert probe_labels(encoder, given, config=config).lines() == first.lines()
    assert torch.equal(torch.get_rng_state(), state)


# ---- the verdict


@pytest.mark.usefixtures("one_strength")
def test_only_a_model_that_knows_the_words_helps():
    train, test = planted_labels.labelled(2000, 0), planted_labels.labelled(1000, 1)
    config = ProbeConfig(labels_each="20")
    knows = probe_labels(planted_labels.encoder(knows=True), train, test, config)
    assert knows.columns[0].accuracy(VECTORS).value > 90
    assert re.fullmatch(
        r"Pretraining helped with 20 labels \(vectors: [\d.]+ ± [\d.]+ points above TF-IDF, "
        r"[\d.]+ ± [\d.]+ points above random weights( with TF-IDF)?\)\.",
        knows.sentence,
    )
    random = probe_labels(planted_labels.encoder(knows=False), train, test, config)
    assert random.sentence.startswith("Pretraining did not help with 20 labels (vectors")


# ---- wrong input

GIVEN = planted_labels.labelled(30, 0)


@pytest.mark.parametrize(
    ("train", "test", "each", "message"),
    [
        (
            Labelled(["a", "b"], ["x", "x"]),
            GIVEN,
            "all",
            "all texts have the same label, 'x': a probe needs at least two",
        ),
        (Labelled([], []), GIVEN, "all", "all texts have the same label, 'none'"),
        (Labelled(["a", "b", "c"], ["x", "x", "y"]), None, "all", "0 texts are too few to test on"),
        (Labelled(["a", "b", "c"], ["x", "x", "y"]), GIVEN, "all", "fewer than two labels have more than one text"),
        (GIVEN, Labelled(["a", "b"], ["good", "fair"]), "all", "the test has the label 'fair', which no text to learn"),
        (GIVEN, None, "100,1000", "--labels-each 100,1000: give at least 4, two for each label, and at most 24, the"),
        (GIVEN, None, "3", "--labels-each 3: give at least 4"),
    ],
)
def test_wrong_input(train, test, each, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        probe_labels(planted_labels.encoder(knows=False), train, test, ProbeConfig(labels_each=each))


@pytest.mark.usefixtures("one_strength")
def test_a_warning_names_what_is_left_out(said):
    given = Labelled([*GIVEN.texts, "", " \t"], [*GIVEN.labels, "good", "other"])
    test = Labelled([GIVEN.texts[0].upper(), "g1 g2", ""], ["good", "bad", "bad"])
    found = probe_labels(planted_labels.encoder(knows=False), given, test, ProbeConfig(labels_each="2,8,all,100"))
    assert [column.labels for column in found.columns] == [8, 30]
    assert [line for line in said if line.startswith("warning")] == [
        "warning: 2 of 32 labelled texts have no words and are left out",
        "warning: 1 of 3 test texts have no words and are left out",
        "warning: 1 of 2 test texts are also among those to learn from",
        "warning: no figures for 2 and 100 labels: they must be 4 to 30 here",
    ]


@pytest.mark.usefixtures("one_strength")
def test_one_warning_for_truncated_texts(said):
    encoder = planted_labels.encoder(knows=False)
    encoder.max_len = 8  # seven words take nine tokens
    probe_labels(encoder, GIVEN, config=ALL)
    [warning] = [line for line in said if line.startswith("warning")]
    assert warning.startswith("warning: 30 of 30 texts were truncated to the 8 tokens that the model takes")


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"^a probe needs scikit-learn: pip install 'bertfast\[probe\]'$"):
        probe_labels(planted_labels.encoder(knows=False), GIVEN)
