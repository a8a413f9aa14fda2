"""``neuroxai methods``: what can be asked of a network."""

from __future__ import annotations

from neuroxai.cli.console import plain


def methods() -> None:
    """List the explanation methods, their parameters and sources."""
    import dataclasses

    from rich.text import Text

    from neuroxai.methods import all_methods

    console = plain()
    for name, method in all_methods().items():
        made = method()
        sign = "signed" if method.signed else "never negative"
        said = f"  {method.title}, {sign}, {method.citation}"
        console.print(Text.assemble((name, "bold"), said))
        parameters = [
            f"{field.name}={_word(getattr(made, field.name))}"
            for field in dataclasses.fields(method)
        ]
        if parameters:
            console.print("    " + "  ".join(parameters))
    console.print("Set a parameter:  --set METHOD.NAME=VALUE")


def _word(value: object) -> str:
    name = getattr(value, "name", None)
    return str(name if isinstance(name, str) else value)
