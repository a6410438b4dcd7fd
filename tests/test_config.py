"""Every dataclass of settings refuses a value outside a setting's choices or range, whoever builds it."""

import dataclasses
import inspect
import math
import re

import pytest

from bertfast import config
from bertfast.errors import InputError

CLASSES = [each for _, each in inspect.getmembers(config, dataclasses.is_dataclass)]


def settings_with(kind):
    """A parameter for each setting, of any class, that has such metadata."""
    found = [(each, field) for each in CLASSES for field in dataclasses.fields(each) if field.metadata.get(kind)]
    return pytest.mark.parametrize(
        ("settings", "field"), found, ids=lambda each: each.__name__ if each in CLASSES else each.name
    )


@settings_with("choices")
def test_a_value_that_is_no_choice_is_refused(settings, field):
    choices = field.metadata["choices"]
    with pytest.raises(InputError, match=f"must be one of {', '.join(choices)}, not 'other value'"):
        settings(**{field.name: "other value"})
    assert getattr(settings(), field.name) in choices


@settings_with("within")
@pytest.mark.parametrize("wrong", [-1, math.nan])
def test_a_number_out_of_range_is_refused(settings, field, wrong):
    message = f"{config.flag(settings, field.name)} must {field.metadata['within'].rule}, not {wrong}"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        settings(**{field.name: wrong})
    assert field.metadata["within"].contains(getattr(settings(), field.name))


def test_every_class_of_settings_is_checked():
    assert {each.__name__ for each in CLASSES} >= {"BertConfig", "CorpusConfig", "EncodeConfig", "TrainConfig"}
    assert all(issubclass(each, config.Checked) for each in CLASSES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"max_len": 4}, "--max-len must lie between 5 and 65536, not 4"),
        ({"max_len": 65537}, "--max-len must lie between 5 and 65536, not 65537"),
        ({"seed": 1 << 63}, r"--seed must lie between 0 and 2\^63 - 1, not 9223372036854775808"),
        ({"mask_share": 1.1}, r"--mask-share must lie between 0 and 1, not 1\.1"),
        ({"head_first": 1}, "--head-first must be at least 0 and less than 1, not 1"),
        ({"eval_share": 0.0}, r"--eval-share must lie between 0 and 1, not 0\.0"),
        ({"minutes": float("inf")}, "--minutes must be 0 or a positive number, not inf"),
        ({"max_grad_norm": -0.5}, r"--clip must not be negative, not -0\.5"),
        ({"weight_decay": -0.1}, r"--weight-decay must be 0 or a positive number, not -0\.1"),
        ({"weight_decay": float("inf")}, "--weight-decay must be 0 or a positive number, not inf"),
        ({"muon_lr": 0.0}, r"--muon-lr must be a positive number, not 0\.0"),
        ({"muon_lr": float("inf")}, "--muon-lr must be a positive number, not inf"),
        ({"head_lr": 0.0}, r"--head-lr must be a positive number, not 0\.0"),
        ({"steps": 1 << 63}, "--steps 9223372036854775808 is too large: give less than 9,223,372,036,854,775,808"),
        ({"minutes": 1e308}, r"--minutes 1e\+308 is too large"),
        ({"lr": 1e39}, r"--lr 1e\+39 is too large"),
        ({"lr": -1.0}, r"--lr must be a positive number, not -1\.0"),
    ],
)
def test_the_ends_of_ranges(wrong, message):
    with pytest.raises(InputError, match=message):
        config.TrainConfig(**wrong)
