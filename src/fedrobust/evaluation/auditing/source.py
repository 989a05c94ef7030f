"""Where a model to audit comes from: a run, a file of weights, or a user's own module."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from fedrobust.component import from_config
from fedrobust.data import AnyData, Dataset
from fedrobust.errors import ConfigError, RecordError
from fedrobust.experiment import Experiment, read_yaml
from fedrobust.messages import explain
from fedrobust.models import AnyModel, build_model
from fedrobust.perturb import Pgd
from fedrobust.reading import broken, fill, mapping_of, present


@dataclass(frozen=True)
class Source:
    """A model, the data to audit it on, and the attack that its claim rests on, where known.

    ``data`` and ``network`` are the components that they come from; surrogates are made of them.
    """

    model: nn.Module
    dataset: Dataset
    data: Any
    network: Any
    claim: Pgd | None = None


def opened(where: str, data: str | None, spec: str | None, last: bool) -> Source:
    """The model ``where``: a run directory, a .safetensors file, or module:name.

    ``data`` and ``spec`` name a data set and a network, by name or as YAML; a run knows its own.
    ``last`` takes a run's last model and not the one that validation chose. Of a module of one's
    own ``spec`` is the network of its surrogates.

    Raises: ``ConfigError`` for what cannot be found or does not fit, ``RecordError`` for a run that
    is not finished or broken, ``DataError`` for the data.
    """
    path = Path(where)
    if path.is_dir():
        if spec is not None:
            raise ConfigError(f"{where} is a run and knows its network: leave --model out")
        return _of_run(path, data, last)
    if last:
        raise ConfigError(f"--last is for run directories, and {where} is none: leave it out")
    if not path.exists() and (path.suffix or ":" not in where or "/" in where):
        raise ConfigError(
            f"{where} does not exist: give a run directory, a .safetensors file, or a module of "
            "your own as package.module:name, without .py"
        )
    if data is None:
        raise ConfigError("name the data to audit on: --data mnist")
    source = _component(AnyData, data, "--data")
    network = None if spec is None else _component(AnyModel, spec, "--model")
    dataset = source.load()
    if path.suffix == ".safetensors":
        if network is None:
            raise ConfigError(f"name the network that {path} holds: --model mnist-cnn-small")
        return Source(_filled(network, path, dataset), dataset, source, network)
    if ":" not in where:
        raise ConfigError(
            f"{where} is no run directory and no .safetensors file; a module of your own is "
            "written package.module:name"
        )
    return Source(_own(where), dataset, source, network)


def _of_run(path: Path, data: str | None, last: bool) -> Source:
    file = path / ("model.safetensors" if last else "best.safetensors")
    if not present(path / "config.yaml"):
        cells = path / "cells"
        inside = f"; it is a sweep: audit one of {cells}" if cells.is_dir() else ""
        raise RecordError(f"{path} is no run directory: it holds no config.yaml{inside}")
    if not present(file):
        raise RecordError(
            f"{path} holds no {file.name}: finish the run with --resume, or try "
            f"{'without --last' if last else '--last'}"
        )
    content = mapping_of(path / "config.yaml")
    try:
        experiment = from_config(Experiment, content)
    except ConfigError as error:
        raise broken(path / "config.yaml", error) from error
    source = experiment.data if data is None else _component(AnyData, data, "--data")
    dataset = source.load()
    attack = experiment.evaluation.attack
    claim = attack if isinstance(attack, Pgd) else None
    model = _filled(experiment.model, file, dataset)
    return Source(model, dataset, source, experiment.model, claim)


def _filled(spec: Any, file: Path, dataset: Dataset) -> nn.Module:
    draw = torch.Generator().manual_seed(0)
    model = build_model(spec, dataset.shape, dataset.classes, draw, trains=False)
    fill(model, file)
    return model


def _component(kind: Any, text: str, option: str) -> Any:
    """A component from its name, or from YAML such as {name: elu-cnn, width: 16}."""
    try:
        return TypeAdapter(kind).validate_python(read_yaml(text))
    except ValidationError as error:
        raise ConfigError(f"{option} {text}: {explain(error, kind)}") from error


def _own(where: str) -> nn.Module:
    module, _, name = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
        model = found if isinstance(found, nn.Module) or not callable(found) else found()
    except Exception as error:  # a user's module may fail in any way
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{where} is no torch.nn.Module, and gives none when called")
    return model
