# SPDX-License-Identifier: Apache-2.0
"""PaddleClas: found, checked, loaded, and what the plugin uses of it.

The package `ppcls_ise.compat` serves PaddleClas 2.4.2 (the last wheel with the training engine)
and the develop branch alike.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from ppcls_ise.errors import ConfigError, ReIDError

PPCLS_HOME = "PPCLS_HOME"

_INSTALL_PADDLE = (
    "Install it with `pip install paddlepaddle==3.3.1` (CPU) or see the README for GPU builds "
    "(supported: 3.x and 2.6.2)."
)
_INSTALL_PPCLS = (
    "Install it with `pip install --no-deps paddleclas==2.4.2` (the last wheel that ships the "
    f"training engine), or point the environment variable {PPCLS_HOME} to a source checkout of "
    "PaddleClas."
)


# PaddleClas's ``AttrDict``, nested: sections by their names.
Config = dict[str, Any]


class EnvironmentProblem(ReIDError, ImportError):
    """PaddlePaddle or PaddleClas is missing or unsupported; the message says what to install."""


class InputPipelineFailure(BaseException):
    """A training batch could not be made; ``__cause__`` is the reason.

    Not an ``Exception`` on purpose: see `training_loop`.
    """


def _paddle_problem() -> str | None:
    if importlib.util.find_spec("paddle") is None:
        return f"ppcls_ise needs PaddlePaddle, which is not installed. {_INSTALL_PADDLE}"
    for package in ("paddlepaddle", "paddlepaddle-gpu"):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if version.split(".")[0] != "3" and not version.startswith("2.6.2"):
            return f"ppcls_ise does not support PaddlePaddle {version}. {_INSTALL_PADDLE}"
    return None


def ppcls_folder() -> Path:
    """Folder of the ``ppcls`` package: from ``PPCLS_HOME``, else a top-level ``ppcls`` that is
    installed, else inside the installed ``paddleclas`` wheel. Imports nothing.

    Raises:
        EnvironmentProblem: there is none, or it lacks the training engine.
    """
    if home := os.environ.get(PPCLS_HOME):
        folder, source = Path(home).expanduser() / "ppcls", f"{PPCLS_HOME}={home}"
    else:
        found: list[str] = []
        for package, inside in (("ppcls", ""), ("paddleclas", "ppcls")):
            spec = importlib.util.find_spec(package)
            if spec is not None and spec.submodule_search_locations:
                found = [str(Path(spec.submodule_search_locations[0]) / inside), package]
                break
        if not found:
            raise EnvironmentProblem(
                f"ppcls_ise needs PaddleClas, which is not installed. {_INSTALL_PPCLS}"
            )
        folder, source = Path(found[0]), f"the installed {_wheel_name()}"
    if not (folder / "engine" / "engine.py").is_file():
        raise EnvironmentProblem(
            f"The PaddleClas found ({source}) has no training engine: there is no "
            f"ppcls/engine/engine.py in it. {_INSTALL_PPCLS}"
        )
    return folder


def _wheel_name() -> str:
    try:
        return f"paddleclas {importlib.metadata.version('paddleclas')}"
    except importlib.metadata.PackageNotFoundError:
        return "ppcls"


def environment_problem() -> str | None:
    """What keeps the plugin from working here, as a sentence for the user; None when all is well.

    Imports neither Paddle nor PaddleClas.
    """
    if problem := _paddle_problem():
        return problem
    try:
        ppcls_folder()
    except EnvironmentProblem as error:
        return str(error)
    return None


def load(name: str = "ppcls") -> ModuleType:
    """Import a module of PaddleClas, e.g. ``load("ppcls.engine.engine")``.

    ``ppcls`` is bound to the folder of `ppcls_folder` by its path, not through ``sys.path``: both
    the wheel and a checkout hold further top-level names (``tools``, ``deploy``) that would shadow
    the user's own.
    """
    if "ppcls" not in sys.modules:
        if problem := environment_problem():
            raise EnvironmentProblem(problem)
        folder = ppcls_folder()
        spec = importlib.util.spec_from_file_location(
            "ppcls", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["ppcls"] = package
        try:
            spec.loader.exec_module(package)
        except BaseException:  # the next attempt shall not find a half
            for module in [m for m in sys.modules if m.partition(".")[0] == "ppcls"]:
                del sys.modules[module]
            raise
    return importlib.import_module(name)


def version() -> str:
    """Which PaddleClas is in use, without a path."""
    folder = Path(str(load().__file__)).parent
    spec = importlib.util.find_spec("paddleclas")
    places = (spec.submodule_search_locations if spec else None) or []
    return _wheel_name() if str(folder.parent) in map(str, places) else "checkout"


def describe() -> str:
    """One line for logs: which PaddleClas is in use, and from where."""
    return f"PaddleClas {version()} at {Path(str(load().__file__)).parent}"


def profiler_problem(options: Any) -> str | None:
    """Why PaddleClas's profiler cannot take ``options``; None if it can."""
    profiler = load("ppcls.utils.profiler")
    if importlib.util.find_spec("paddle.utils.profiler") is None:
        return (
            "PaddleClas's profiler needs paddle.utils.profiler, which this version of PaddlePaddle "
            "does not have any more: leave -p away, and profile with paddle.profiler"
        )
    try:
        profiler.ProfilerOptions(options)
    except (ValueError, AssertionError) as error:
        return f"these are no options of PaddleClas's profiler (batch_range=[10,20];...): {error}"
    return None


# What PaddleClas's engine calls for each section of the configuration.
_BUILDERS = {
    "build_model": "Arch",
    "build_loss": "Loss",
    "build_optimizer": "Optimizer",
    "build_metrics": "Metric",
    "build_dataloader": "DataLoader",
}


@contextmanager
def building() -> Iterator[None]:
    """While in it, what PaddleClas or a component raises for values of the configuration is a
    `ConfigError` that names the section."""
    try:
        yield
    except (ReIDError, OSError, MemoryError):
        raise
    except Exception as error:
        called = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        section = next((_BUILDERS[name] for name in called if name in _BUILDERS), None)
        if section is None:
            raise
        raise ConfigError(
            f"{section}: PaddleClas cannot build what the config describes: "
            f"{type(error).__name__}: {error}"
        ) from error


def weights_home() -> str:
    """The folder where PaddleClas keeps downloaded weights."""
    return load("ppcls.utils.download").WEIGHTS_HOME


def engine_class() -> type:
    """PaddleClas's ``Engine``."""
    return load("ppcls.engine.engine").Engine


def logger() -> logging.Logger:
    """PaddleClas's logger: silent on all ranks but 0 once the engine has set it up."""
    return logging.getLogger("ppcls")


def is_host_code(thing: Any) -> bool:
    """Whether PaddleClas defines this class or function."""
    return str(thing.__module__).startswith("ppcls.")


def say_log_errors_once() -> None:
    """Have a log file that cannot be written (disk full) said in one line, not in a traceback per
    record; for the handlers that the engine has set up."""
    for handler in logger().handlers:
        handler.handleError = functools.partial(_say_once, handler)  # type: ignore[method-assign]


def _say_once(handler: logging.Handler, record: logging.LogRecord) -> None:
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    place = getattr(handler, "baseFilename", "the log")
    sys.stderr.write(
        f"{place} cannot be written, and lines are missing there: {sys.exc_info()[1]}\n"
    )


def build_transforms(transform_ops: list[dict[str, Any]]) -> list[Callable[[Any], Any]]:
    """Build the operators of a YAML ``transform_ops`` list, PaddleClas's own and the plugin's."""
    return load("ppcls.data").create_operators(transform_ops)


def parse_config(path: str) -> Config:
    """Read a YAML file as PaddleClas does: nested ``AttrDict``, literals in strings parsed."""
    return load("ppcls.utils.config").parse_config(path)


def attribute_dict(values: dict[str, Any]) -> Config:
    """``values``, and what is nested in it, as PaddleClas's ``AttrDict`` (keys readable as
    attributes)."""
    return load("ppcls.utils.config").AttrDict(
        {k: attribute_dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    )


def copy_of(config: Any) -> Any:
    """A copy of a whole config (``copy.deepcopy`` would make plain dictionaries of it)."""
    if isinstance(config, dict):
        return load("ppcls.utils.config").AttrDict({k: copy_of(v) for k, v in config.items()})
    return [copy_of(item) for item in config] if isinstance(config, list) else config


def precision(engine: Any, *, is_eval: bool) -> AbstractContextManager[Any]:
    """The mixed-precision context of ``engine`` as its own code enters it; nothing without AMP.

    Develop keeps it as ``auto_cast``; 2.4.2 spells it out in every place.
    """
    if hasattr(engine, "auto_cast"):
        return engine.auto_cast(is_eval=is_eval)
    if engine.amp and (engine.amp_eval or not is_eval):
        return importlib.import_module("paddle").amp.auto_cast(level=engine.amp_level)
    return nullcontext()


def take_visualdl_writer(engine: Any) -> Any:
    """The VisualDL writer that ``engine`` has opened, which then writes and closes nothing itself;
    None unless ``Global.use_visualdl`` is on."""
    writer, engine.vdl_writer = engine.vdl_writer, None
    return writer


@contextmanager
def config_in_file_only() -> Iterator[None]:
    """While in it, the dump of the configuration with which PaddleClas's engine begins goes to the
    log file, and not to the screen, where it is most of what a short run says."""
    engine: Any = load("ppcls.engine.engine")
    print_config = engine.print_config

    def print_to_file(config: Any) -> None:
        screens = [h for h in logger().handlers if not isinstance(h, logging.FileHandler)]
        for handler in screens:
            handler.addFilter(_nothing)
        try:
            print_config(config)
        finally:
            for handler in screens:
                handler.removeFilter(_nothing)

    engine.print_config = print_to_file
    try:
        yield
    finally:
        engine.print_config = print_config


def _nothing(record: logging.LogRecord) -> bool:
    return False


@functools.cache  # save_model is replaced while training
def output_folder_lacks_arch_name() -> bool:
    """Whether checkpoints go to ``output_dir`` itself (develop) instead of
    ``output_dir/<Arch.name>`` (2.4.2, and what PaddleClas's documents and TIPC scripts expect)."""
    source = inspect.getsource(load("ppcls.utils.save_load").save_model)
    return "os.path.join(model_path, model_name)" not in source
