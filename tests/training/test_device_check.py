"""The check of a device, with the host in its place: faults become verdicts, and runs act on them."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from support.small_run import ALONE, CONFIG, CPU, make_model

from bertfast import check, ops
from bertfast.data.corpus import Corpus
from bertfast.distributed.world import World
from bertfast.errors import InputError
from bertfast.ops.gelu import bias_gelu
from bertfast.sampling.sampler import Sampler
from bertfast.training.device_check import choice, steps, verdict
from bertfast.training.device_check.choice import Choice
from bertfast.training.device_check.differences import difference, same_bits
from bertfast.training.device_check.ops import CHECKS
from bertfast.training.device_check.verdict import Outcome, Verdict, examine
from bertfast.training.fingerprint import from_checkpoint, twins_of
from bertfast.training.launch import train
from bertfast.training.loss_form import choose_loss_form
from bertfast.training.setup import Setup

GPU = torch.device("cuda", 0)
WORKER = Path(__file__).parents[1] / "support" / "faulty_worker.py"


def outcomes(
    monkeypatch: pytest.MonkeyPatch, worker: list[str], *checks: str, seconds: float = 300
) -> dict[str, tuple[str, str]]:
    monkeypatch.setattr(verdict, "checks_of", lambda device, devices: list(checks))
    found = examine(CPU, 1, (sys.executable, *worker), seconds)
    return {each.check: (each.status, each.said) for each in found}


def test_a_fault_is_reported_and_other_checks_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an op that computes wrong numbers, and after one that ends its process."""
    found = outcomes(
        monkeypatch, [str(WORKER)], "dropout_add_layer_norm", "bias_gelu", "attention", "adam", "masked_lm_loss"
    )
    assert [status for status, _ in found.values()] == ["passed", "failed", "passed", "failed", "passed"]
    assert ": off by" in found["bias_gelu"][1]
    assert "killed by SIGABRT" in found["adam"][1]
    assert "\n" not in found["bias_gelu"][1] + found["adam"][1]


def test_a_hang_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """To begin it has longer: no process does so within a millisecond."""
    hang = 'import json, signal; print(json.dumps({"ready": True}), flush=True); signal.pause()'
    assert outcomes(monkeypatch, ["-c", hang], "bias_gelu", seconds=0.001) == {"bias_gelu": ("failed", "it hangs")}


def test_a_check_does_not_join_the_torchrun_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process reports which of torchrun's variables it sees."""
    monkeypatch.setattr(verdict, "checks_of", lambda device, devices: ["adam"])
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    said = """
import json, os
print(json.dumps({"ready": True}))
seen = [name for name in os.environ if name.endswith("RANK") or name.startswith(("WORLD", "MASTER", "TORCHELASTIC"))]
print(json.dumps({"check": "adam", "status": "passed", "said": " ".join(seen), "seconds": 0.0}))
"""
    [outcome] = examine(CPU, 1, (sys.executable, "-c", said))
    assert outcome == Outcome("adam", "passed", "", 0.0)


def test_a_worker_that_cannot_begin_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = ["-c", "import sys; sys.exit('no device is here')"]
    status, why = outcomes(monkeypatch, worker, "bias_gelu")["bias_gelu"]
    assert status == "not checked" and "no device is here" in why


def test_a_verdict_is_cached_if_every_check_ran(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [Outcome("adam", "failed", "off", 1.0)]
    monkeypatch.setattr(verdict, "examine", lambda *_: iter(ended))
    assert verdict.cached(CPU, 1) is None
    made = verdict.make(CPU, 1)
    monkeypatch.setattr(verdict, "examine", lambda *_: pytest.fail("it is made anew"))
    assert verdict.cached(CPU, 1) == made == Verdict((ended[0],))
    assert made.failures == {"adam": "off"}
    assert verdict.cached(CPU, 2) is None
    (file,) = (cache / "device-checks").iterdir()
    file.write_text("{")
    assert verdict.cached(CPU, 1) is None
    monkeypatch.setattr(verdict, "examine", lambda *_: iter([Outcome("adam", "not checked", "", 0.0)]))
    verdict.make(CPU, 1)
    assert verdict.cached(CPU, 1) is None


def test_the_command(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for status, expected in (("passed", 0), ("failed", 1), ("not checked", 1)):
        ended = [Outcome("adam", status, "why", 1.0)]
        monkeypatch.setattr(verdict, "examine", lambda *_, ended=ended: iter(ended))
        assert check.main(["--device", "cpu", "--json"]) == expected
        said = json.loads(capsys.readouterr().out)
        assert said["outcomes"][0]["status"] == status and said["machine"]["torch"].startswith(torch.__version__)
        assert check.main(["--device", "cpu"]) == expected
        assert f"adam  {status}  1.0 s  why" in capsys.readouterr().out
    assert check.main(["--device", "cuda"]) == 2 or torch.cuda.is_available()


def test_differences() -> None:
    one = torch.tensor([1.0, 2.0, 4.0])
    assert difference("", [one], [one + torch.tensor([0, 0.4, 0])], 0.1).found == pytest.approx(0.1)
    for other in (one * float("nan"), one.double(), one[:2]):
        assert not difference("", [one, other], [one, one], 1e9).is_small
    assert same_bits("", [one], [one + torch.tensor([0.0, 1, 1])]).found == 2
    assert same_bits("", [one], [torch.empty(0)]).found == 1


def test_every_op_with_a_twin_is_checked() -> None:
    assert set(ops.PARTS) | {"fused_mlm_loss"} == set(CHECKS)


def test_twins_run_within_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an op, those that launch its kernel use their twins, too."""
    x, bias = torch.randn(3, 33), torch.randn(33)
    with ops.use_twins(["bias_gelu"]):
        monkeypatch.setattr(ops.native, "bias_gelu", lambda *_: pytest.fail("the kernel is called"), raising=False)
        bias_gelu(x, bias)
        assert ops.kernels(CPU).endswith(" but for bias_gelu, feed_forward")
    monkeypatch.undo()
    assert ops.has_kernels(CPU, "feed_forward")


Trained = tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]


@pytest.fixture(scope="module")
def trained() -> list[Trained]:
    """What the check trains, with calls instead of replays: in graphs, uncaptured, and in eager steps."""
    train_so, found = steps._train, []

    def train_and_keep(*arguments: object) -> Trained:
        found.append(train_so(*arguments))  # type: ignore[arg-type]
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "dtypes", lambda device: [torch.float32])
        patch.setattr(steps, "_train", train_and_keep)
        assert all(each.is_small for each in steps.check_replay(CPU))
    return found


@pytest.mark.parametrize("wrong", ["nothing", "losses", "weights"])
def test_steps_are_compared(monkeypatch: pytest.MonkeyPatch, trained: list[Trained], wrong: str) -> None:
    (start, losses, weights), *others = trained
    losses = losses * 1.01 if wrong == "losses" else losses
    weights = [2 * each for each in weights] if wrong == "weights" else weights
    runs = iter([(start, losses, weights), *others])
    monkeypatch.setattr(steps, "dtypes", lambda device: [torch.float32])
    monkeypatch.setattr(steps, "_train", lambda *arguments: next(runs))
    found = list(steps.check_replay(CPU))
    assert [each.what for each in found if not each.is_small] == {
        "nothing": [],
        "losses": ["torch.float32, losses of replayed steps, result 0"],
        "weights": ["torch.float32, weights after replayed steps"],
    }[wrong]


def test_an_all_reduce_is_compared() -> None:
    assert all(each.is_small for each in steps.check_all_reduce(CPU, 2))


def of_a_gpu(monkeypatch: pytest.MonkeyPatch, failures: dict[str, str], capability: tuple[int, int] = (9, 0)) -> None:
    found = Verdict(tuple(Outcome(name, "failed", why, 0.0) for name, why in failures.items()))
    monkeypatch.setattr(choice, "cached", lambda device, devices: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Tesla V100")


def test_what_a_run_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_gpu(monkeypatch, {"attention": "off by 2", "sampler": "it hangs"})
    found = choice.choose(GPU, 1, check=True)
    assert found.twins == ("attention", "self_attention") and found.fused
    assert found.warnings[0].startswith("attention fails on this device (off by 2): it is computed in plain torch;")
    assert "batches are made on the host" in found.warnings[1]
    assert choice.choose(GPU, 1, check=False) == choice.choose(CPU, 1, check=True) == Choice()


def test_an_all_reduce_is_of_this_hosts_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_gpu(monkeypatch, {})
    asked: list[int] = []
    monkeypatch.setattr(choice, "cached", lambda device, devices: asked.append(devices) or Verdict(()))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for devices in (1, 2, 16):
        choice.choose(GPU, devices, check=True)
    assert asked == [1, 2, 4]


def test_a_gpu_older_than_the_kernels_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_gpu(monkeypatch, {}, (7, 0))
    found = choice.choose(GPU, 1, check=False)
    assert set(found.twins) == set(ops.PARTS) and not found.fused
    assert found.warnings == (
        "Tesla V100 (compute capability 7.0) is older than the kernels, which need 7.5: all is computed in plain "
        "torch, and batches are made on the host",
    )


def test_rank_0_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1, 2, [CPU] * 2, [CPU], False, 2)
    told = Choice(("adam", "all-reduce"), ("why",))
    bits: list[int] = []
    monkeypatch.setattr(choice, "from_rank_0", lambda world, number: bits.append(number) or bits[0])
    choice.broadcast_choice(told, world)
    assert choice.broadcast_choice(Choice(), world) == Choice(("adam", "all-reduce"))


@pytest.mark.parametrize("failure", ["sampler", "replayed step", "all-reduce"])
def test_a_step_that_does_not_replay_runs_eagerly(failure: str) -> None:
    world = World(0, 1, [GPU], [GPU], False, 1, captured=True)
    assert not Choice((failure,)).world(world, None).captured
    assert Choice().world(world, True).captured
    with pytest.raises(InputError, match=f"--cuda-graph: the {failure} fails on this device"):
        Choice((failure,)).world(world, True)


def test_a_run_acts_on_the_verdict(
    corpus: Corpus, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a GPU: it uses twins and the host's batches, and logs a line for each."""
    failing = Choice(("bias_gelu", "sampler"), ("bias_gelu fails",))
    monkeypatch.setattr(choice, "choose", lambda *_: failing)
    seen: list[str] = []
    kernels = ops.kernels
    monkeypatch.setattr(ops, "kernels", lambda device: seen.append(kernels(device)) or seen[-1])
    before = [each.tolist() for each in Sampler(corpus, CONFIG).packed(0, 3)[:3]]
    by_twin = train(make_model(corpus), corpus, CONFIG)
    assert seen[0].endswith("but for bias_gelu, feed_forward") and said.count("warning: bias_gelu fails") == 1
    assert kernels(CPU).endswith(")")
    monkeypatch.setattr(choice, "choose", lambda *_: Choice())
    plain = train(make_model(corpus), corpus, CONFIG)
    assert [record.step for record in by_twin.history.records] == [0, 1, 2]
    assert by_twin.history.records[-1].mlm_loss == pytest.approx(plain.history.records[-1].mlm_loss, rel=1e-3)
    on_host = Sampler(corpus, CONFIG)
    on_host.make_on_host()
    assert [each.tolist() for each in on_host.packed(0, 3)[:3]] == before


def test_what_a_checkpoint_says_of_it() -> None:
    run = {"masked-LM loss": "chunked", "--optimizer": "adamw", "--weight-decay": 0.0, "--lr": 1.0}
    assert twins_of(None) == twins_of(run) == twins_of(from_checkpoint(run)) == twins_of({"--lr": 1.0}) == []
    resumed = {**run, "computed in plain torch": "attention, self_attention"}
    assert from_checkpoint(resumed) == resumed
    kept = Choice(("adam",)).without(twins_of(resumed))
    assert kept.twins == ("attention", "self_attention", "adam")
    assert kept.warnings[0] == "attention is computed in plain torch: as the run that is resumed did"
    assert Choice().without(["an op of yesterday", "adam"]).failures == ("adam",)


def test_the_fused_loss_is_not_tried_where_it_fails(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    from bertfast.training import loss_form

    monkeypatch.setattr(loss_form, "_why_not_fused", lambda setup: None)
    monkeypatch.setattr(loss_form, "_made_up_loss", lambda *_: pytest.fail("it is tried"))
    setup = Setup(make_model(corpus), [Sampler(corpus, CONFIG)], CONFIG, ALONE, torch.bfloat16)
    assert not choose_loss_form(setup, None, works=False).is_fused
    asked = setup._replace(config=dataclasses.replace(CONFIG, mlm_loss="fused"))
    with pytest.raises(InputError, match="it fails on this device"):
        choose_loss_form(asked, None, works=False)
