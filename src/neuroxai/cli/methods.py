"""``neuroxai methods``: the explanation methods."""

from __future__ import annotations

from neuroxai.cli import options
from neuroxai.cli.console import plain
from neuroxai.cli.output import Output


def methods(as_json: options.AsJson = False) -> None:
    """List the explanation methods, their parameters and references."""
    from rich.text import Text

    from neuroxai.methods.table import all_entries

    if as_json:
        listed = [
            {
                "name": name,
                "title": entry.title,
                "signed": entry.signed,
                "citation": entry.citation,
                "on_request": entry.on_request,
                "parameters": dict(each.split("=", 1) for each in entry.parameters.split()),
            }
            for name, entry in all_entries().items()
        ]
        Output(as_json=True).print_json("methods", {"methods": listed})
        return
    console = plain()
    for name, entry in all_entries().items():
        sign = "signed" if entry.signed else "never negative"
        asked = ", on request" if entry.on_request else ""
        console.print(
            Text.assemble((name, "bold"), f"  {entry.title}, {sign}, {entry.citation}{asked}"),
            soft_wrap=True,
        )
        if entry.parameters:
            console.print("    " + entry.parameters.replace(" ", "  "), soft_wrap=True)
    console.print("On request:  not part of 'all', as it takes hundreds of passes")
    console.print("Set a parameter:  --set METHOD.NAME=VALUE")
