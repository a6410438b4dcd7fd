"""The settings: each dataclass refuses what is none of its choices, whoever builds it."""

import dataclasses
import inspect

import pytest

from bertfast import config
from bertfast.errors import InputError

CLASSES = [each for _, each in inspect.getmembers(config, dataclasses.is_dataclass) if each is not config.Preset]
CHOICES = [(each, field) for each in CLASSES for field in dataclasses.fields(each) if field.metadata.get("choices")]


@pytest.mark.parametrize(
    ("settings", "field"), CHOICES, ids=lambda each: each.__name__ if each in CLASSES else each.name
)
def test_a_value_that_is_no_choice_is_refused(settings, field):
    choices = field.metadata["choices"]
    with pytest.raises(InputError, match=f"must be one of {', '.join(choices)}, not 'other value'"):
        settings(**{field.name: "other value"})
    assert getattr(settings(), field.name) in choices


def test_every_class_of_settings_checks_its_choices():
    assert {each.__name__ for each in CLASSES} >= {"BertConfig", "CorpusConfig", "EncodeConfig", "TrainConfig"}
    assert all(issubclass(each, config.Checked) for each in CLASSES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight_decay": -0.1}, r"--weight-decay must be 0 or a positive number, not -0\.1"),
        ({"weight_decay": float("inf")}, "--weight-decay must be 0 or a positive number, not inf"),
        ({"muon_lr": 0.0}, r"--muon-lr must be a positive number, not 0\.0"),
        ({"muon_lr": float("inf")}, "--muon-lr must be a positive number, not inf"),
        ({"head_lr": 0.0}, r"--head-lr must be a positive number, not 0\.0"),
        ({"lr": -1.0}, r"--lr must be a positive number, not -1\.0"),
    ],
)
def test_what_the_optimizer_does_not_take(wrong, message):
    with pytest.raises(InputError, match=message):
        config.TrainConfig(**wrong)
