"""The user's own code: a factory in a file or module, and modules handed over in Python."""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from spdify.errors import SourceError, UsageError
from spdify.records import Inputs, InputSpec, Source
from spdify.sources.construction import construct
from spdify.sources.loaded_model import LoadedModel
from spdify.sources.near_names import near_names
from spdify.sources.network import is_download_error
from spdify.sources.options import KwargValue, check_input_size
from spdify.sources.quantized import require_floats
from spdify.sources.spec import safe_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from spdify.sources.options import BuildOptions
    from spdify.sources.spec import ParsedSpec

_OPTIONS = {"num_classes": "--num-classes", "in_chans": "--in-chans"}


def build_code(parsed: ParsedSpec, options: BuildOptions) -> LoadedModel:
    """Build a model with a factory of the user's.

    Args:
        parsed: A spec of kind `code`.
        options: What was asked for; the checkpoint is not loaded here.

    Returns:
        The model in eval mode on the CPU, with the weights that the factory has given it.

    Raises:
        SourceError: The file, module or factory is not there, or raises.
        UsageError: `--pretrained`, or the input size is not known.
    """
    if options.pretrained:
        raise UsageError(
            f"Cannot fetch pretrained weights for {parsed.canonical}: spdify does not know where they are.",
            hint="Pass --checkpoint FILE, or an argument of the factory: --model-kwargs pretrained=True.",
        )
    kwargs = options.constructor_kwargs(strict=False)
    model = _call(parsed, kwargs, options.seed).cpu().eval()
    source = Source(
        spec=parsed.canonical,
        kind="code",
        name=parsed.name,
        kwargs=kwargs,
        num_classes=_class_count(model, kwargs),
        weights=f"as the factory gives them, seed {options.seed}",
    )
    size = options.input_size or _known_input_size(model, parsed.canonical)
    return LoadedModel(model, source, Inputs(args=(InputSpec(shape=(1, *size)),)))


def from_module(module: nn.Module, *, name: str | None = None, inputs: Inputs | None = None) -> LoadedModel:
    """Take a module that exists already.

    Args:
        module: Copied; the caller's own stays as it is, on its device and in its mode.
        name: Name for folders and titles; the class's name by default.
        inputs: Example inputs; by default of the size that the module states in `default_cfg` or `pretrained_cfg`.

    Returns:
        The copy, in eval mode on the CPU.

    Raises:
        SourceError: `module` is no module, or cannot be copied.
        RefusedError: It is quantized already.
        UsageError: The input size is not known.
    """
    if not isinstance(module, nn.Module):
        raise SourceError(f"Cannot use the model: expected a torch.nn.Module, got {type(module).__name__}.")
    title = name or type(module).__name__
    require_floats(module, title)
    try:
        model = copy.deepcopy(module).cpu().eval()
    except Exception as error:
        raise SourceError(
            f"Cannot copy {title}: {type(error).__name__}: {error}",
            hint="Hand over the model before its first forward pass, or a factory: path/to/file.py:FACTORY.",
        ) from error
    if inputs is None:
        inputs = Inputs(args=(InputSpec(shape=(1, *_known_input_size(model, title))),))
    source = Source(
        spec=f"object:{type(module).__module__}.{type(module).__qualname__}",
        kind="object",
        name=safe_name(title),
        num_classes=_class_count(model, {}),
        weights="as handed over",
    )
    return LoadedModel(model, source, inputs)


def _call(parsed: ParsedSpec, kwargs: dict[str, KwargValue], seed: int) -> nn.Module:
    with _importable(parsed):
        factory = _factory(parsed, _import(parsed))
        _check_arguments(parsed, factory, kwargs)
        try:
            return construct(factory, kwargs, name=parsed.canonical, seed=seed)
        except Exception as error:
            if isinstance(error, SourceError) or not is_download_error(error):
                raise
            raise SourceError(f"Cannot build {parsed.canonical}: {type(error).__name__}: {error}") from error


@contextmanager
def _importable(parsed: ParsedSpec) -> Iterator[None]:
    """Let the code import its neighbours, as `python file.py` and `python -m module` would."""
    folder = str(Path(parsed.target).resolve().parent if parsed.is_file else Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        # By value: the code may have changed the list, too.
        if folder in sys.path:
            sys.path.remove(folder)


def _import(parsed: ParsedSpec) -> ModuleType:
    try:
        return _import_file(Path(parsed.target)) if parsed.is_file else importlib.import_module(parsed.target)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"Cannot import {parsed.target} for {parsed.canonical}: {type(error).__name__}: {error}"
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        names = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        near = near_names(path.name, [], elsewhere=names, prefix=_folder_prefix(path))
        raise SourceError(f"Cannot find the file {path}.", hint=near)
    # A name of its own: `model.py` must not stand for every other file of that name.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"spdify_code_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise SourceError(f"Cannot import {path}: Python has no loader for it.")
    module = importlib.util.module_from_spec(spec)
    # Registered while it runs: dataclasses and pickling look a class's module up there.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _folder_prefix(path: Path) -> str:
    return "" if path.parent == Path() else f"{path.parent.as_posix()}/"


def _factory(parsed: ParsedSpec, module: ModuleType) -> Callable[..., Any]:
    factory = getattr(module, parsed.factory, None)
    if callable(factory) and not isinstance(factory, nn.Module):
        return factory  # type: ignore[no-any-return]
    if factory is not None:
        raise SourceError(
            f"Cannot use {parsed.canonical}: expected a function or class, got {type(factory).__name__}.",
            hint="Write a function that returns the model.",
        )
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    own = [name for name in names if getattr(vars(module)[name], "__module__", None) == module.__name__]
    hint = near_names(parsed.factory, names) or (f"It has {', '.join(own[:5])}." if own else "")
    raise SourceError(f"Cannot find '{parsed.factory}' in {parsed.target}.", hint=hint)


def _check_arguments(parsed: ParsedSpec, factory: Callable[..., Any], kwargs: dict[str, KwargValue]) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        options = [option for key, option in _OPTIONS.items() if key in kwargs and key not in signature.parameters]
        hint = f"Leave out {' and '.join(options)}, or let the factory take it." if options else ""
        raise SourceError(
            f"Cannot call {parsed.canonical}{signature}: {error}.",
            hint=hint or "Set its arguments with --model-kwargs key=value.",
        ) from error


def _class_count(model: nn.Module, kwargs: dict[str, KwargValue]) -> int | None:
    count = kwargs.get("num_classes", getattr(model, "num_classes", None))
    return count if isinstance(count, int) else None


def stated_input_size(model: nn.Module) -> tuple[int, ...] | None:
    """Give the size of one input without the batch, where a module states it itself.

    Raises:
        UsageError: What it states is no size.
    """
    for holder in (getattr(model, "pretrained_cfg", None), getattr(model, "default_cfg", None), model):
        size = holder.get("input_size") if isinstance(holder, dict) else getattr(holder, "input_size", None)
        if isinstance(size, (tuple, list)) and size and all(isinstance(value, int) for value in size):
            check_input_size(tuple(size))
            return tuple(size)
    return None


def _known_input_size(model: nn.Module, name: str) -> tuple[int, ...]:
    """Read the size from the module's own statement; guessing one would make every later figure doubtful."""
    if (size := stated_input_size(model)) is not None:
        return size
    raise UsageError(
        f"Cannot know the input size of {name}.",
        hint="Pass --input-size C,H,W (in Python: example_input=tensor, or input_size=(C, H, W)).",
    )
