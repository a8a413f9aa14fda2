"""The help of every command: panels, examples, and the same options everywhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from neuroxai.cli import app
from neuroxai.cli.panels import ORDER, OTHER


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name of every command, with those of its groups, and the command."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands())
OF_A_NETWORK = {"--model", "--weights", "--card", "--trust", "--output-key", "--device"}
OF_A_RUN = {"--out", "--quiet", "--json"}
OF_A_CASE = {"--file", "--layout", "--strict", "--quiet", "--json"}
OF_A_COHORT = {"--layout", "--strict", "--split", "--part", "--cases"}
WITHOUT = {
    # All layers of one pass over the whole image are needed at once.
    "dissect": {"--memory"},
}
OWN_MEANING = {
    "--out": {"phantom", "train", "demo", "convert torch", "convert keras", "models card"},
    "--layout": {"phantom"},  # chosen, not detected
    "--mask": {"dissect"},  # a concept, not where the evidence is
    "--seed": {"phantom", "demo"},
    "--set": {"train"},
    "--trust": {"convert torch"},
    "--strict": {"check"},
}
"""Commands in which an option of this name is about something else."""


def options(command: Any) -> dict[str, Any]:
    """Return the options of a command by their long names."""
    found = {}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            found[max(parameter.opts, key=len)] = parameter
    return found


def arguments(command: Any) -> set[str]:
    return {each.metavar for each in command.params if each.param_type_name == "argument"}


def help_of(name: str, width: int = 80) -> str:
    command = COMMANDS[name]
    text: str = command.get_help(
        command.make_context(name, [], resilient_parsing=True, terminal_width=width)
    )
    return text


def test_every_command_is_examined() -> None:
    assert {"explain", "inspect", "predict", "evaluate", "dissect", "check", "train"} <= {*COMMANDS}
    assert "models check" in COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_a_panel(name: str) -> None:
    for option, parameter in options(COMMANDS[name]).items():
        if option != "--help":
            assert parameter.rich_help_panel in ORDER, option
            assert parameter.rich_help_panel != OTHER, option
    lines = help_of(name).splitlines()
    shown = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert shown == sorted(shown, key=ORDER.index)
    assert len(shown) > 1
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_with_examples_that_it_understands(name: str) -> None:
    text = help_of(name)
    _, _, examples = text.rpartition("Example")
    lines = [line.strip() for line in examples.splitlines()[1:] if line.strip()]
    assert lines
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "neuroxai"
        count = len(name.split())
        assert words[:count] == name.split()
        COMMANDS[name].make_context(name, words[count:])  # raises an error of usage


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_all_options_that_it_could_have(name: str) -> None:
    command = COMMANDS[name]
    known = {*options(command)}
    expected = {"--json"}
    if "CASE" in arguments(command):
        expected |= OF_A_CASE
    if "COHORT" in arguments(command):
        expected |= OF_A_COHORT
    if "--model" in known:
        expected |= OF_A_NETWORK | OF_A_RUN | {"--memory"}
    if "--out" in known and name != "models card":  # which shows a card unless --init is given
        expected |= OF_A_RUN
    if "--slice" in known or ("CASE" in arguments(command) and "--model" in known):
        expected.add("--slice")
    if "--data" in known:
        expected.add("--layout")
    assert not expected - known - WITHOUT.get(name, set())
    assert not WITHOUT.get(name, set()) & known, "the exception is not needed"


def test_an_option_means_the_same_in_every_command() -> None:
    meanings: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for name, command in COMMANDS.items():
        for option, parameter in options(command).items():
            if name not in OWN_MEANING.get(option, set()):
                meaning = (parameter.help, parameter.metavar, tuple(parameter.opts),
                           parameter.rich_help_panel)  # fmt: skip
                meanings.setdefault(option, {}).setdefault(meaning, []).append(name)
    differing = {option: each for option, each in meanings.items() if len(each) > 1}
    assert not differing
    shared = {option for option, each in meanings.items() if len(next(iter(each.values()))) > 3}
    assert {"--layout", "--memory", "--device", "--strict"} <= shared


def test_values_have_names_instead_of_types() -> None:
    for name in COMMANDS:
        for line in help_of(name).splitlines():
            if line.startswith("  -"):
                assert "<" not in line, f"{name}: {line}"


def test_every_command_is_in_a_panel_of_the_main_help() -> None:
    group = typer.main.get_command(app)
    assert all(command.rich_help_panel for command in group.commands.values())  # type: ignore[attr-defined]
