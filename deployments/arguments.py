"""The grammar of ``reca``: commands, options, help. Only the standard library, so that ``reca --help`` is instant.

Each command names the function that runs it as ``package.module:function``; nothing of it is imported here.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from typing import Any, NoReturn

from deployments.shortcuts import add_shortcuts
from reca_core.contracts.errors import BadInput
from reca_core.contracts.registry import FAMILIES

FLOWS = {
    "prepare": "check pictures, list the unusable ones, write the manifest",
    "post-train": "prepare, then train a model with Reconstruction Alignment and register it",
    "train-then-evaluate": "post-train, then measure base and trained model and compare them",
    "evaluate": "measure one model, or the pictures in a folder, on benchmarks",
    "study": "train and measure the arms of an experiment, with several seeds",
    "sweep": "train and measure several learning rates or loss weights, and name the best",
    "re-evaluate": "measure registered versions again, report what moved, and promote the better one if asked",
    "rollback": "take a champion back: the version before it is champion again",
}
EPILOG = """\
exit status: 0 done; 2 bad input, nothing was started; 3 a prerequisite is missing; 4 a stage failed;
5 finished, but something is unscored or refused; 130 interrupted. Everything is kept below the home
(--home, RECA_HOME, ./reca-home), and a run that is repeated resumes or reuses what is there."""


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are BadInput with the closest name, like every other complaint."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As argparse, without abbreviated options: a new option must not change what an old command means."""
        super().__init__(*arguments, **({"allow_abbrev": False} | options))

    def error(self, message: str) -> NoReturn:
        """Raise BadInput instead of exiting."""
        found = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if found is None:
            raise BadInput(message, field=self.prog, remedy=f"{self.prog} --help")
        word, choices = found[1], re.findall(r"[\w-]+", found[2])
        near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
        shown = [choice for choice in choices if "_" not in choice]
        remedy = f"did you mean {near[0].replace('_', '-')}?" if near else f"{self.prog} --help"
        raise BadInput(f"nothing is called {word!r}", field=self.prog, choices=shown, remedy=remedy)


class FlowHelp(argparse.Action):
    """``--help`` of a flow: the options, then its settings and the recipes, which only then are imported."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> NoReturn:
        """Write the help and end."""
        flow = getattr(namespace, "flow", None)
        text = parser.format_help()
        if flow:
            from deployments.manual import manual

            text += manual(flow)
        sys.stdout.write(text)
        parser.exit()


def build() -> Parser:
    """The whole grammar."""
    shared = _shared_options()
    parser = Parser(
        "reca",
        description="Post-train unified multimodal models, and measure what it changed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    _demo(commands.add_parser("demo", parents=[shared], help="train, measure and compare the bundled tiny model"))
    _run(commands.add_parser("run", parents=[shared], help="start any of the flows below, or a recipe", add_help=False))
    for flow, purpose in FLOWS.items():
        parser_of_flow = commands.add_parser(flow, parents=[shared], help=purpose, add_help=False)
        _run_options(parser_of_flow, flow)
        if flow == "rollback":
            _rollback(parser_of_flow)
        if "-" in flow:
            _run_options(commands.add_parser(flow.replace("-", "_"), parents=[shared], add_help=False), flow)
    _score(commands.add_parser("score", parents=[shared], help="score recorded answers without any model"))
    _compare(commands.add_parser("compare", parents=[shared], help="compare models or results, two or more"))
    _rerun(commands.add_parser("rerun", parents=[shared], help="repeat a run from its stored request"))
    _fetch(commands.add_parser("fetch", parents=[shared], help="get a benchmark's own files, each checked by hash"))
    _convert(commands.add_parser("convert", parents=[shared], help="a checkpoint between our layout and its authors'"))
    _sampling(commands, shared)
    _stack(commands, shared)
    return parser


def _shared_options() -> Parser:
    """Options that every command takes, before or after its name."""
    shared = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = shared.add_argument_group("where and how")
    group.add_argument("--home", metavar="DIR", help="where everything is kept (RECA_HOME, ./reca-home)")
    group.add_argument("--json", action="store_true", dest="as_json", help="one JSON object on standard output")
    group.add_argument("--verbose", action="store_true", help="show the log lines of Prefect and of the stages")
    group.add_argument("--prefect-url", metavar="URL", help="use this Prefect server (RECA_PREFECT_API_URL)")
    group.add_argument("--benchmark-data", metavar="DIR", help="the benchmarks' own files (RECA_BENCHMARK_DATA)")
    group.add_argument("--mlflow-uri", metavar="URI", help="use this MLflow store (RECA_MLFLOW_TRACKING_URI)")
    group.add_argument(
        "--auth", metavar="FILE", help="user:password of both servers, mode 0600; reca up turns it on (RECA_AUTH_FILE)"
    )
    return shared


def flow_name(text: str) -> str:
    """A flow's name, underscores accepted. Raises BadInput with the closest one."""
    name = text.replace("_", "-")
    if name in FLOWS:
        return name
    near = difflib.get_close_matches(name, list(FLOWS), n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else ""
    raise BadInput(f"no flow is called {text!r}", field="FLOW", choices=list(FLOWS), remedy=remedy)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(target="deployments.commands.demo:demo")
    parser.add_argument("--full", action="store_true", help="the study behind docs/tiny.md: all arms, several seeds")
    _setting_options(parser)


def _rollback(parser: argparse.ArgumentParser) -> None:
    """The flow with its model's name as an argument, in the stack of the home where one runs."""
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="registered model")
    parser.set_defaults(target="deployments.commands.rollback:rollback")


def _run(parser: argparse.ArgumentParser) -> None:
    choices = f"{', '.join(FLOWS)}; may be left out where --recipe says it"
    parser.add_argument("flow", type=flow_name, metavar="FLOW", nargs="?", help=choices)
    _run_options(parser)


def _run_options(parser: argparse.ArgumentParser, flow: str = "") -> None:
    parser.set_defaults(target="deployments.commands.run:run", **({"flow": flow} if flow else {}))
    parser.add_argument("-h", "--help", action=FlowHelp, nargs=0, help="these options and every setting of the flow")
    parser.add_argument("--recipe", metavar="NAME", help="start from a named recipe")
    _setting_options(parser)
    add_shortcuts(parser, flow)


def _setting_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE.json", help='settings as {"training": {"steps": 100}, ...}')
    parser.add_argument(
        "--set", metavar="A.B=VALUE", action="append", default=[], dest="sets", help="one setting; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and start nothing")
    parser.add_argument("--print-hash", action="store_true", help="print the request hash and start nothing")


def _score(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(target="deployments.commands.score:score")
    parser.add_argument("benchmark", metavar="BENCHMARK", help="geneval, dpg, imgedit or gedit")
    parser.add_argument("--answers", metavar="FILE", help="geneval, dpg, imgedit: recorded answers of the judge")
    parser.add_argument("--questions", metavar="FILE", help="dpg: the question table")
    parser.add_argument("--layout", choices=["grid4", "first_image", "per_image"], help="dpg: pictures in files")
    parser.add_argument("--pictures", type=int, metavar="N", help="dpg: pictures per prompt")
    parser.add_argument("--items", metavar="FILE", help="imgedit: basic_edit.json")
    parser.add_argument("--replies", metavar="FILE", help="gedit: recorded replies")
    parser.add_argument("--rows", metavar="FILE", help="gedit: recorded rows")
    parser.add_argument("--arithmetic", choices=["corrected", "parity"], default="corrected")
    parser.add_argument("--output", metavar="FILE|-", default="-", help="where the result goes; - is standard output")


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(target="deployments.commands.compare:compare")
    parser.add_argument(
        "sides",
        nargs="+",
        metavar="A",
        help="what the others are compared with comes first: a folder or hash of answers, pictures or a training, "
        "models:/NAME@ALIAS, NAME/3, a bundled model, a checkpoint, or an MLflow run",
    )
    parser.add_argument("--arithmetic", choices=["corrected", "parity"], default="corrected")
    parser.add_argument("--resamples", type=int, default=2000, metavar="N", help="bootstrap resamples")
    parser.add_argument("--output", metavar="FILE", default="", help="also write it: JSON, or Markdown to FILE.md")


def _rerun(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(target="deployments.commands.rerun:rerun")
    parser.add_argument("run", metavar="RUN", help="folder, beginning of its hash, or MLflow run: every run names it")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="reuse nothing: make everything anew in a home of its own, and say whether it came out the same",
    )


def _fetch(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(target="deployments.commands.fetch:fetch")
    parser.add_argument("benchmark", metavar="BENCHMARK", help="geneval, dpg, imgedit, gedit, pope or mmvp")
    parser.add_argument(
        "--no-pictures", action="store_false", dest="pictures", help="leave out the pictures that prompts start from"
    )


def _convert(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(target="deployments.commands.convert:convert")
    parser.add_argument("--family", metavar="FAMILY", required=True, help=", ".join(FAMILIES))
    parser.add_argument(
        "--from", metavar="SRC", required=True, dest="source", help="directory, weights file, run directory or hub id"
    )
    parser.add_argument("--to", metavar="DST", required=True, dest="destination", help="not there yet, or empty")
    parser.add_argument(
        "--layout", choices=["reca", "upstream"], required=True, help="ours, or the one that its authors publish"
    )
    parser.add_argument("--base", metavar="DIR", default="", help="what the weights were trained from; gives the rest")
    parser.add_argument(
        "--weights", choices=["model", "ema"], help="of a trained model that keeps both; never ema unless asked"
    )


def _sampling(commands: argparse._SubParsersAction[Parser], shared: Parser) -> None:
    generate = commands.add_parser("generate", parents=[shared], help="draw pictures from text")
    generate.set_defaults(target="deployments.commands.sampling:generate")
    generate.add_argument("--prompt", metavar="TEXT", action="append", default=[], help="what to draw; repeatable")
    generate.add_argument("--prompts", metavar="FILE.jsonl", help='one {"text": ...} or prompt record per line')
    generate.add_argument("--seeds", metavar="0-3", default="0", help="seeds such as 0-3 or 1,5,9; one picture each")
    reconstruct = commands.add_parser("reconstruct", parents=[shared], help="redraw pictures from what the model saw")
    reconstruct.set_defaults(target="deployments.commands.sampling:reconstruct")
    reconstruct.add_argument("--images", metavar="DIR", required=True, help="folder of pictures")
    reconstruct.add_argument("--seeds", metavar="0-3", default="0", help="seeds; one reconstruction each")
    describe = commands.add_parser("describe", parents=[shared], help="ask a question about a picture")
    describe.set_defaults(target="deployments.commands.sampling:describe")
    describe.add_argument("--image", metavar="FILE", required=True)
    describe.add_argument("--question", metavar="TEXT", default="Describe the picture.")
    for parser in (generate, reconstruct, describe):
        parser.add_argument(
            "--model",
            metavar="MODEL",
            required=True,
            help="bundled name, directory, hub id, models:/NAME@ALIAS or models:/NAME/3",
        )
        parser.add_argument(
            "--set",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            dest="sets",
            help="a sampling setting such as guidance_scale=3",
        )
    for parser in (generate, reconstruct):
        parser.add_argument("--output", metavar="DIR", required=True, help="receives pictures and samples.jsonl")


def _stack(commands: argparse._SubParsersAction[Parser], shared: Parser) -> None:
    up = commands.add_parser("up", parents=[shared], help="start Prefect, MLflow and a worker, with everything in them")
    up.set_defaults(target="deployments.commands.up:start")
    up.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="where both servers listen")
    up.add_argument("--prefect-port", type=int, metavar="N", default=4200)
    up.add_argument("--mlflow-port", type=int, metavar="N", default=5000)
    up.add_argument(
        "--database",
        metavar="URL",
        default="",
        help="postgresql://user@host:port/ (password from PGPASSWORD or PGPASSFILE) instead of files below the home",
    )
    up.add_argument("--foreground", action="store_true", help="stay, start again what dies, stop all on Ctrl-C")
    down = commands.add_parser("down", parents=[shared], help="stop all that reca up started, also after a crash")
    down.set_defaults(target="deployments.commands.down:stop")
    status = commands.add_parser("status", parents=[shared], help="does every part of the stack answer?")
    status.set_defaults(target="deployments.commands.status:status")
    clean = commands.add_parser("clean", parents=[shared], help="remove what no version, run or score refers to")
    clean.set_defaults(target="deployments.commands.clean:clean")
    clean.add_argument("--older-than", metavar="AGE", default="30d", help="12h, 30d, 4w: what was used since stays")
    clean.add_argument("--dry-run", action="store_true", help="say what would go and remove nothing")
    doctor = commands.add_parser("doctor", parents=[shared], help="look for what is wrong and say how to mend it")
    doctor.set_defaults(target="deployments.commands.doctor:doctor")
    doctor.add_argument(
        "--detector", metavar="FILE", help="instead: is this GenEval's published detector, does it convert and see?"
    )
