"""What evaluation/__main__.py and benchmarks/__main__.py share: find a verb, run it, print its
summary.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from attribution.arguments import count
from attribution.commands import Parser, one_line, quiet_libraries
from attribution.types import UserError
from evaluation import results

Verbs = Mapping[str, tuple[str, str]]


def main(program: str, verbs: Verbs, argv: list[str] | None = None) -> int:
    """0 when done, 2 for bad input with one line on stderr, 130 when interrupted (the same command
    resumes).
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(program, verbs), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] not in verbs:
        print(f"{program}: no verb {argv[0]!r}; one of: {', '.join(verbs)}", file=sys.stderr)
        return 2
    quiet_libraries()
    module = import_module(verbs[argv[0]][0])
    parser = Parser(f"python -m {program} {argv[0]}", description=module.__doc__)
    add_common(parser)
    module.add_arguments(parser)
    try:
        _run(module, argv[0], parser.parse_args(argv[1:]))
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        print(f"{program} {argv[0]}: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
        return 130
    return 0


def _usage(program: str, verbs: Verbs) -> str:
    lines = [f"  {verb:16} {text}" for verb, (_, text) in verbs.items()]
    return f"usage: python -m {program} VERB [--help] ...\n\nverbs:\n" + "\n".join(lines)


def add_common(parser: argparse.ArgumentParser) -> None:
    """What every verb takes."""
    add = parser.add_argument
    add("--index", type=Path, default=Path("assets/openclipart"), metavar="DIR")
    add(
        "--results",
        type=Path,
        default=results.FOLDER,
        metavar="DIR",
        help="JSON lines, kept in git",
    )
    add(
        "--cache", type=Path, default=Path("runs/evaluation"), metavar="DIR", help="not kept in git"
    )
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--threads", type=count(), help="torch threads; default: all cores")
    add("--report", action="store_true", help="only print what the results say so far")


def _run(module, verb: str, args: argparse.Namespace) -> None:
    args.module = module.__name__
    if not args.report:
        if args.threads:
            import torch

            torch.set_num_threads(args.threads)
        module.run(args)
    if not hasattr(module, "summarise"):
        return
    runs = results.current(args.results, verb)
    if not runs and getattr(args, "plan", False):
        return  # a plan asks for no results
    if not runs:
        raise UserError(
            f"{args.results / verb}.jsonl holds no results yet: run the verb without --report"
        )
    print("\n\n".join(map(results.markdown, results.summaries(module, runs))))
