"""Shell scripts that complete the command line, made of what its parsers know."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import NamedTuple

from pyhugetext._backing import ALLOWED

FILES = "files"
PIDS = "pids"
NOTHING = "nothing"


class Option(NamedTuple):
    """`value` is what follows it: FILES, PIDS, NOTHING that can be guessed, words to choose from;
    None where it takes none."""

    flags: tuple[str, ...]
    summary: str
    value: str | None


class Command(NamedTuple):
    """A command. `arguments` is what its positional ones are, as of an option's value."""

    name: str
    summary: str
    options: tuple[Option, ...]
    arguments: str
    takes_command: bool


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return " ".join(str(choice) for choice in action.choices)
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if name == "BACKING":
        return " ".join(ALLOWED)
    if name == "PID":
        return PIDS
    return FILES if name.startswith(("FILE", "PREFIX")) or name.endswith("FILE") else NOTHING


def options_of(parser: argparse.ArgumentParser) -> Iterator[Option]:
    """The options of a parser."""
    for action in parser._actions:
        if action.option_strings:
            value = None if action.nargs == 0 else _value(action)
            yield Option(tuple(action.option_strings), action.help or "", value)


def commands(
    modules: Mapping[str, ModuleType], parsers: Mapping[str, argparse.ArgumentParser]
) -> list[Command]:
    """What there is to complete."""
    out = []
    for name, module in modules.items():
        positional = [a for a in parsers[name]._actions if not a.option_strings]
        out.append(
            Command(
                name,
                module.SUMMARY,
                tuple(options_of(parsers[name])),
                _value(positional[0]) if positional else NOTHING,
                getattr(module, "TAKES_COMMAND", False),
            )
        )
    return out


_BASH = r"""# Completion of pyhugetext for bash and, by bashcompinit, zsh.
_pyhugetext() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command= options= value= i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --)
                # What follows is a program with arguments of its own.
                if declare -F _command_offset >/dev/null; then
                    _command_offset $((i + 1))
                elif ((i + 1 == COMP_CWORD)); then
                    COMPREPLY=($(compgen -c -- "$current"))
                fi
                return
                ;;
            -*) ;;
            *) [ -n "$command" ] || command=${COMP_WORDS[i]} ;;
        esac
    done
    case $command in
@CASES@
    esac
    case $value in
        files)
            # An empty answer is completed with files.
            case $current in -*) value=$options ;; *) return ;; esac
            ;;
        pids) value="$(cd /proc && echo [0-9]*)" ;;
        nothing) value=$options ;;
    esac
    case $current in -*) value=$options ;; esac
    COMPREPLY=($(compgen -W "$value" -- "$current"))
    [ ${#COMPREPLY[@]} -gt 0 ] || compopt +o default 2>/dev/null
}
if [ -n "$ZSH_VERSION" ]; then
    autoload -U +X compinit bashcompinit
    (( $+functions[compdef] )) || compinit
    bashcompinit
fi
complete -o default -F _pyhugetext pyhugetext
"""


def bash(found: list[Command], options: list[Option]) -> str:
    """The script for bash and zsh."""

    def flags(some: tuple[Option, ...] | list[Option]) -> str:
        return " ".join(flag for option in some for flag in option.flags)

    names = " ".join(command.name for command in found)
    cases = [f"        '') options='{flags(options)}' value='{names}' ;;"]
    for command in found:
        cases.append(f"        {command.name})")
        more = " --" if command.takes_command else ""
        cases.append(f"            options='{flags(command.options)}{more}'")
        cases.append("            case $previous in")
        cases += [
            f"                {' | '.join(option.flags)}) value='{option.value}' ;;"
            for option in command.options
            if option.value is not None
        ]
        cases.append(f"                *) value='{command.arguments}' ;;")
        cases += ["            esac", "            ;;"]
    return _BASH.replace("@CASES@", "\n".join(cases))


def _quoted(text: str) -> str:
    text = text.replace("%%", "%").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def fish(found: list[Command], options: list[Option]) -> str:
    """The script for fish."""
    start = "complete -c pyhugetext"
    lines = ["# Completion of pyhugetext for fish.", f"{start} -f"]
    for option in options:
        lines.append(f"{start} -n __fish_use_subcommand {_fish_option(option)}")
    for command in found:
        summary = _quoted(command.summary)
        lines.append(f"{start} -n __fish_use_subcommand -a {command.name} -d {summary}")
    for command in found:
        one = f"{start} -n '__fish_seen_subcommand_from {command.name}'"
        lines += [f"{one} {_fish_option(option)}" for option in command.options]
        wanted = _fish_value(command.arguments)
        if wanted:
            lines.append(f"{one} {wanted}")
    return "\n".join(lines) + "\n"


def _fish_value(value: str) -> str:
    if value == FILES:
        return "-F"
    if value == PIDS:
        return "-a '(__fish_complete_pids)'"
    return "" if value == NOTHING else f"-a {_quoted(value)}"


def _fish_option(option: Option) -> str:
    parts = [
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
    ]
    if option.value is not None:
        wanted = _fish_value(option.value)
        parts += ["-r", wanted] if option.value == FILES else ["-x", wanted]
    parts.append(f"-d {_quoted(option.summary)}")
    return " ".join(part for part in parts if part)
