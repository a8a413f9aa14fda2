"""``neuroxai metrics``: the metrics of maps."""

from __future__ import annotations

from typing import Annotated

import typer

from neuroxai.cli import options
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output

Name = Annotated[
    str | None,
    typer.Argument(metavar="METRIC", help="Print all that is known of one metric."),
]


def metrics(name: Name = None, as_json: options.AsJson = False) -> None:
    """List the metrics of maps, or describe one."""
    import inspect

    from rich.text import Text

    from neuroxai.metrics.table import METRICS, make_metric

    if name is not None:
        metric = type(make_metric(name))
        if as_json:
            Output(as_json=True).print_json("metrics", _entry(name))
        else:
            plain().print(f"{name}\n\n{inspect.getdoc(metric)}", soft_wrap=True, markup=False)
        return
    if as_json:
        Output(as_json=True).print_json("metrics", {"metrics": [_entry(each) for each in METRICS]})
        return
    console = plain()
    family = ""
    for each in METRICS:
        entry = METRICS[each]
        if entry.family != family:
            family = entry.family
            console.print(Text(f"\n{family}", "bold"))
        better = {True: "higher is better", False: "lower is better", None: "describes"}
        console.print(
            Text.assemble(
                ("  " + each, "bold"),
                f"  {entry.title}, {better[entry.higher_is_better]}, {entry.citation}",
            ),
            soft_wrap=True,
        )
    console.print("\nMeasure:  neuroxai measure CASE --method grad_cam --metric deletion")


def _entry(name: str) -> dict[str, object]:
    from neuroxai.metrics.table import METRICS, make_metric

    metric = METRICS[name]
    return {
        "name": name, "title": metric.title, "family": metric.family, "citation": metric.citation,
        "higher_is_better": metric.higher_is_better, "unit": metric.unit,
        "parameters": make_metric(name).parameters(),
    }  # fmt: skip
