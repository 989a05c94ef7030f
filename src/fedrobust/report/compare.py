"""Compare several runs: their labels, and the settings in which they differ."""

from collections.abc import Iterator, Mapping, Sequence

from fedrobust.report.run_records import ReportRun
from fedrobust.report.wording import component, number


def flat(node: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every leaf of a config with its dotted path."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def differences(runs: Sequence[ReportRun]) -> dict[str, list[str]]:
    """Return the settings in which runs differ: the dotted key, and the value in each run.

    A component whose name differs stands for its fields, so that nothing is listed twice.
    """
    leaves = [dict(flat(run.config)) for run in runs]
    keys = dict.fromkeys(key for leaf in leaves for key in leaf if key != "name")
    varied = {
        key: ["–" if leaf.get(key) is None else number(leaf[key]) for leaf in leaves]
        for key in keys
        if len({repr(leaf.get(key)) for leaf in leaves}) > 1
    }
    parents = tuple(key.removesuffix("name") for key in varied if key.endswith(".name"))
    result = {}
    for key, values in varied.items():
        if key.endswith(".name"):
            whole = key.removesuffix(".name")
            result[whole] = [_at(run.config, whole) for run in runs]
        elif not key.startswith(parents or ("\0",)):
            result[key] = values
    return result


def _at(config: object, path: str) -> str:
    for step in path.split("."):
        config = config.get(step) if isinstance(config, Mapping) else None
    return "–" if config is None else component(config)


def unlike(runs: Sequence[ReportRun]) -> list[str]:
    """Return the settings of the measurement that differ, so that the numbers do not compare."""
    measured = [key for key in differences(runs) if key.split(".")[0] in ("data", "evaluation")]
    return [key for key in measured if key != "evaluation.every"]


def unique_labels(runs: Sequence[ReportRun]) -> list[str]:
    """Return a label for each run: its name, with its folder, or a number, if names repeat."""
    labels = [str(run.config["name"]) for run in runs]
    if len(set(labels)) < len(labels):
        labels = [
            f"{label} ({run.path.name})" if labels.count(label) > 1 else label
            for label, run in zip(labels, runs, strict=True)
        ]
    if len(set(labels)) < len(labels):
        labels = [f"{i}. {label}" for i, label in enumerate(labels, start=1)]
    return labels
