"""run.json: written by a run, read back, and refused in one line if it can't be read."""

import json

import pytest
from support.run_info import INFO

from bertfast.errors import InputError
from bertfast.reporting.run_info import RunInfo, Text


@pytest.mark.parametrize("held_out", [None, Text("/corpora/b", "f2", None, ())])
def test_a_run_info_is_read_as_written(tmp_path, held_out):
    info = RunInfo(INFO.model, INFO.train, INFO.corpus, held_out)
    info.write(tmp_path)
    assert RunInfo.read(tmp_path) == info
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert "Wörterbuch" in (tmp_path / "run.json").read_text(encoding="utf-8")


def test_a_folder_without_run_json(tmp_path):
    with pytest.raises(InputError, match=r"holds no run\.json: give a folder"):
        RunInfo.read(tmp_path)


def set_to(*keys, value):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_to("train", "a_setting_of_tomorrow", value=1),
        set_to("train", "steps", value="many"),
        set_to("train", "steps", value=0),
        set_to("train", "objective", value="rotation"),
        set_to("train", "warmup", value=5),
        set_to("train", value=None),
        set_to("corpus", value=None),
        set_to("corpus", value=[1]),
        set_to("corpus", "part", value=[1]),
        set_to("corpus", "part", value="no"),
        set_to("corpus", "description", value=7),
        lambda content: content.pop("model"),
    ],
)
def test_invalid_content(tmp_path, change):
    INFO.write(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    change(content)
    (tmp_path / "run.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"run\.json can't be read .*damaged, or another version .*; train again, into"
    ) as caught:
        RunInfo.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("warmup", "shares"), [(5, (0.1, 0.9)), (0, (0.0, 1.0)), (80, (1.0, 0.0))])
def test_a_warm_up_of_version_0_3_0(tmp_path, warmup, shares):
    """It was a number of steps, and the rate fell in all steps after it."""
    INFO.write(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    content["train"] |= {"warmup": warmup, "steps": 50}
    del content["train"]["decay"], content["settled"], content["average"]
    (tmp_path / "run.json").write_text(json.dumps(content), encoding="utf-8")
    train = RunInfo.read(tmp_path).train
    assert (train.warmup, train.decay) == pytest.approx(shares)


def test_a_truncated_file(tmp_path):
    INFO.write(tmp_path)
    (tmp_path / "run.json").write_bytes((tmp_path / "run.json").read_bytes()[:50])
    with pytest.raises(InputError, match="can't be read"):
        RunInfo.read(tmp_path)
    (tmp_path / "run.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="can't be read"):
        RunInfo.read(tmp_path)
