"""A folder of csrc/ includes only what lies below it; import-linter holds bertfast/ to the same (pyproject.toml).

And every module of bertfast/ has its tests.
"""

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each folder's files may include their own folder and those listed, and any file may include HOST_DEVICE.
CSRC = {
    "core/math": set(),
    "core/sampling": {"core/math"},
    "core": {"core/math"},
    "cpu/simd": {"core/math"},
    "cpu": {"core", "core/math", "core/sampling", "cpu/simd"},
    "cuda/tile": {"core/math"},
    "cuda": {"core", "core/math", "core/sampling", "cuda/tile"},
    "bindings": {"core", "core/math", "core/sampling", "cpu", "cpu/simd", "cuda"},
}
HOST_DEVICE = "core/host_device.h"

# bertfast/a/b.py is tested in tests/a/test_b.py, and these modules in files of another name.
TESTED_IN = {
    "__init__": ("test_package.py",),
    "_native": ("distributed/test_devices.py", "fuzz/test_native.py"),
    "_version": ("test_package.py",),
    "check": ("training/test_device_check.py",),
    "data.building.pool": ("data/building/test_build.py",),
    "data.building.units": ("data/building/test_build.py",),
    "data.deduplication": ("data/building/test_build.py",),
    "data.fingerprint": ("data/test_corpus.py",),
    "data.load": ("data/test_corpus.py", "test_command_line.py"),
    "data.normal_form": (
        *("data/test_sentences.py", "data/readers/test_labelled.py", "data/readers/test_scored_pairs.py"),
        *("inference/test_encoder.py", "inference/test_fill_mask.py", "test_encode.py"),
    ),
    "data.readers.columns": ("data/readers/test_records.py",),
    "data.readers.kinds": ("data/sources/test_folders.py",),
    "data.readers.json_array": ("data/readers/test_records.py",),
    "data.readers.parquet": ("data/readers/test_records.py",),
    "data.sources.find": ("data/test_sentences.py", "data/sources/test_folders.py"),
    "data.tokenizing.special_tokens": ("data/tokenizing/test_training.py", "data/tokenizing/test_tokenizer.py"),
    "data.tokenizing.splitting": ("data/tokenizing/test_tokenizer.py", "end_to_end/test_languages.py"),
    "data.text_file": ("data/test_sentences.py", "data/readers/test_records.py"),
    "distributed.cuda_graph": ("training/test_step.py",),
    "distributed.differences": ("training/test_fingerprint.py",),
    "evaluate": ("training/test_evaluation.py",),
    "export": ("hub/test_export.py",),
    "fill_mask": ("inference/test_fill_mask.py",),
    "hub.card_text": ("hub/test_model_card.py",),
    "hub.forms": ("hub/test_model_card.py",),
    "hub.onnx": ("hub/test_export.py",),
    "hub.state_dict": ("hub/test_transformers.py",),
    "inference.vectors_file": ("test_encode.py",),
    "ops.__init__": ("ops/test_kernels.py", "training/test_device_check.py"),
    "ops.arguments": ("ops/test_dropout.py", "ops/test_embedding.py"),
    "ops.feed_forward": ("ops/test_sublayers.py",),
    "ops.reference": ("ops/test_adam.py", "ops/test_dropout.py", "ops/test_gelu.py", "ops/test_layer_norm.py"),
    "ops.self_attention": ("ops/test_sublayers.py",),
    "presets": ("test_pretrain.py",),
    "reporting.plot": ("reporting/test_metrics.py",),
    "reporting.recipe_line": ("test_pretrain.py",),
    "sampling.batch": ("sampling/test_sampler.py",),
    "sampling.inspect": ("training/test_stages.py",),
    "sampling.statistics": ("test_corpus.py",),
    "training.determinism": ("training/test_trainer.py",),
    "training.device_check.choice": ("training/test_device_check.py",),
    "training.device_check.differences": ("training/test_device_check.py",),
    "training.device_check.job": ("training/device_check/test_worker.py",),
    "training.device_check.ops": ("training/test_device_check.py",),
    "training.device_check.steps": ("training/test_device_check.py",),
    "training.device_check.verdict": ("training/test_device_check.py",),
    "training.job": ("training/test_launch.py",),
    "training.resume": ("training/test_trainer.py",),
    "training.run": ("training/test_trainer.py",),
    "training.setup": ("training/test_step.py",),
}


def files_in(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / "csrc" / folder).iterdir() if path.is_file())


@pytest.mark.parametrize("folder", CSRC)
def test_csrc_includes_point_upward(folder):
    for path in files_in(folder):
        for include in re.findall(r'#include "([\w/.]+)"', path.read_text(encoding="utf-8")):
            allowed = include == HOST_DEVICE or include.rpartition("/")[0] in CSRC[folder] | {folder}
            assert allowed, f"{path.name} includes {include}"


def test_every_folder_of_csrc_has_a_layer():
    assert {path.parent.relative_to(ROOT / "csrc").as_posix() for path in (ROOT / "csrc").rglob("*.*")} == set(CSRC)


@pytest.mark.parametrize("folder", sorted(set(CSRC) - {"bindings"}))
def test_only_bindings_know_python(folder):
    for path in files_in(folder):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#include <(pybind11|torch|Python|ATen)", text), path.name
        if folder.startswith("core"):
            assert not re.search(r"cuda_runtime|\bnew\b [A-Za-z]|malloc|std::vector", text), path.name


def definitions() -> dict[str, set[str]]:
    """For each module, the functions, classes and constants that it alone defines and that are no everyday words."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "bertfast").rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        if path.name == "__init__.py" and len(body) < 2:  # at most a docstring
            continue
        named = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        targets = [each for node in body if isinstance(node, ast.Assign) for each in node.targets]
        targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
        named += [each.id for each in targets if isinstance(each, ast.Name)]
        module = ".".join(path.relative_to(ROOT / "bertfast").with_suffix("").parts)
        found[module] = {name for name in named if "_" in name or not name.islower()}
    times = Counter(name for names in found.values() for name in names)
    return {module: {name for name in names if times[name] == 1} for module, names in found.items()}


def mentioned(path: Path) -> set[str]:
    """The modules that a test file imports or names in a string, and the names in its code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.ImportFrom(module=module, names=names):
                found |= {module, *(each.name for each in names), *(f"{module}.{each.name}" for each in names)}
            case ast.Import(names=names):
                found |= {each.name for each in names}
            case ast.Constant(value=str(text)):
                for words in re.findall(r"\bbertfast(?:\.\w+)*", text):
                    parts = words.split(".")
                    found |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return found


@functools.cache
def sources() -> dict[str, str]:
    """Each module's text, by its dotted name."""
    paths = (path for path in (ROOT / "bertfast").rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8") for path in paths}


def importers(module: str) -> set[str]:
    """The modules that import a module of bertfast, through which it can be tested."""
    name = f"bertfast.{module}".removesuffix(".__init__")
    return {importer for importer, text in sources().items() if re.search(rf"\b{re.escape(name)}\b", text)}


def faults(module: str, defined: set[str]) -> Iterator[str]:
    *folders, name = module.split(".")
    mirror = "/".join((*folders, f"test_{name}.py"))
    files = TESTED_IN.get(module, ())
    if (ROOT / "tests" / mirror).exists():
        if files:
            yield f"{module}: {mirror} exists: take the module out of TESTED_IN"
    elif not files:
        yield f"{module}: neither tests/{mirror} nor an entry in TESTED_IN"
    for file in files:
        if not (ROOT / "tests" / file).exists():
            yield f"{module}: there is no tests/{file}"
            continue
        mirrored = f"bertfast.{file.removesuffix('.py').replace('/', '.').replace('test_', '')}"
        known = {mirrored, *mentioned(ROOT / "tests" / file)}
        if known.isdisjoint({f"bertfast.{module}".removesuffix(".__init__"), *defined, *importers(module)}):
            yield f"{module}: tests/{file} imports neither it nor what imports it, and names nothing of it"


def test_every_module_is_tested():
    modules = definitions()
    found = [fault for module, defined in modules.items() for fault in faults(module, defined)]
    found += [f"{module}: there is no such module" for module in TESTED_IN.keys() - modules.keys()]
    assert not found, "\n".join(found)
