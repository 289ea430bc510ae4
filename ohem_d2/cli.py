"""The commands of ``ohem-d2``."""

import argparse
import logging
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType
from typing import NoReturn

from detectron2.engine import default_argument_parser, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from . import __version__
from .arguments import parser_of
from .data import ADDRESSES
from .errors import InputError
from .paths import wrong_file_name, wrong_folder_name, wrong_name
from .relabel.exchange import TOOLS, export_suspects, import_decisions
from .relabel.run import relabel as write_relabelled
from .report.data_page import MAX_PICTURES, look_at_data
from .report.run import RANKINGS, write_report
from .standard_output import unbroken_output
from .training.checkpoint import NotSavedError
from .training.checks import check_output_dir
from .training.config_file import CONFIGS
from .training.interruption import (
    SIGNALS,
    Interrupted,
    end_by,
    interruptible,
    passing_on_signals,
)
from .training.output_folder import check_not_in_the_way
from .training.processes import (
    check_dist_url,
    check_interfaces,
    check_launcher,
    check_processes,
)
from .training.system_errors import LIKELY_CAUSES, of_system
from .training.trainer import run

logger = logging.getLogger("ohem_d2")  # which each run gives a file

_PATIENCE = 60  # seconds, in which a checkpoint should be written
DATASET_HELP = f"a registered name, {ADDRESSES.replace(' or ', ', or ')}"


def main(argv: Sequence[str] | None = None) -> None:
    """
    Run a command.

    Args:
        argv: the command line, without the name of the program; that of this process by default.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = parser_of(
        "ohem-d2",
        "Online hard example mining for Detectron2.",
        "commands:\n"
        + "".join(f"  {name:<11}{command.__doc__}\n" for name, command in COMMANDS.items())
        + "\n'ohem-d2 COMMAND --help' tells the arguments of a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    command = parser.parse_args(argv[:1]).command  # the rest is for the command's own parser
    COMMANDS[command](argv[1:], f"{parser.prog} {command}")


@unbroken_output()
def train(argv: Sequence[str], prog: str | None = None) -> None:
    """Train or evaluate a detector with online hard example mining."""
    parser = parser_of(
        prog,
        train.__doc__,
        """
examples:
  %(prog)s                                           # the quick start: no data, no GPU
  %(prog)s --config-file configs/faster_rcnn_ohem.yaml --num-gpus 8
  %(prog)s --config-file COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml \\
      MODEL.ROI_HEADS.NAME OHEMROIHeads
  %(prog)s --config-file configs/mask_rcnn_R_50_FPN_1x_ohem.py train.max_iter=1000
""",
        default_argument_parser(),
    )
    parser.set_defaults(config_file=str(CONFIGS / "quick_start.yaml"))
    args = parser.parse_args(argv)
    if args.opts[:1] and args.opts[0] in COMMANDS:
        parser.error(f"{args.opts[0]} is a command of ohem-d2, expected the arguments alone here")
    parser.check_settings(args.opts)
    _find_own_modules()
    try:
        check_launcher(os.environ, args.num_machines)
        check_interfaces(os.environ, args.num_gpus * args.num_machines)
        check_processes(args.num_gpus, args.num_machines, args.machine_rank)
        given = args.dist_url != parser.get_default("dist_url")
        url = args.dist_url if given else None
        check_dist_url(url, args.num_gpus, args.num_machines, args.machine_rank)
    except InputError as e:
        sys.exit(f"error: {e}")
    with _told_in_one_line():  # of no shared memory
        errors = multiprocessing.get_context("spawn").SimpleQueue()  # as launch starts processes
    prog = prog or f"python {shlex.quote(sys.argv[0])}"
    resume = f"{prog} --resume {shlex.join(x for x in argv if x != '--resume')}".rstrip()
    signals: AbstractContextManager[list[int]] = nullcontext([])
    if args.num_gpus * args.num_machines > 1:
        signals = passing_on_signals()
    try:
        with signals as came:
            launch(
                _run,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(args, errors, resume),
            )
    except InputError as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:  # before the training, or a second time
        end_by(signal.SIGINT)
    except ProcessExitedException as e:
        ended_by = [*came, *(x for x in SIGNALS if x.name == e.signal_name)]
        if ended_by:
            end_by(ended_by[0])
        rank = args.machine_rank * args.num_gpus + e.error_index
        how = f"was killed by {e.signal_name}" if e.signal_name else f"exited with {e.exit_code}"
        cause = LIKELY_CAUSES.get(e.signal_name or "", "")
        sys.exit(f"error: the process of rank {rank} {how}{cause}; the others were stopped")
    except ProcessRaisedException as e:
        if came:
            end_by(came[0])
        if errors.empty():  # before anything was run in it
            rank = args.machine_rank * args.num_gpus + e.error_index
            last = [x.strip() for x in str(e).splitlines() if x.strip()][-1]
            sys.exit(f"error: rank {rank} did not start: {last}")
        sys.exit(f"error: {errors.get()}")  # what the first one met; others may have missed it


def _run(args: argparse.Namespace, errors: SimpleQueue, resume: str) -> None:
    """
    Train or evaluate in this process. What fails is left to the process that asked for it: of
    several, it names the one that failed first, and the traceback is in the log of that one.

    Args:
        args: those of `train`.
        errors: what to leave.
        resume: the command that goes on with the training if a signal ends it.
    """
    to_go_on = "" if args.eval_only else f". To go on: {resume}"
    try:
        # The first for a process that was started for this.
        with unbroken_output(), interruptible():
            run(args)
    except NotSavedError as e:
        errors.put(f"{e}{to_go_on}")
        raise InputError(f"{e}{to_go_on}") from e
    except InputError as e:
        errors.put(str(e))
        raise
    except Interrupted as e:
        logger.warning(f"{e}{to_go_on}")
        if comm.get_local_rank() > 0:
            # The first process to end takes the others along: let it be the one that writes.
            time.sleep(_PATIENCE)
        end_by(e.signum)
    except Exception as e:
        if (words := of_system(e)) is not None:
            if comm.get_world_size() > 1:
                words = f"rank {comm.get_rank()}: {words}"
            errors.put(f"{words}{to_go_on}")
            raise InputError(f"{words}{to_go_on}") from e
        if comm.get_world_size() > 1:
            what = f"rank {comm.get_rank()} failed: {_in_one_line(e)}"
            logger.exception(what)
            errors.put(f"{what}{_where_logged()}; the others were stopped")
        raise


def _in_one_line(e: Exception) -> str:
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text if len(text) <= 300 else text[:300] + '...'}"


def _where_logged() -> str:
    """The file that the log of this process goes to, if there is one yet."""
    streams = (getattr(handler, "stream", None) for handler in logger.handlers)
    names = (str(getattr(stream, "name", "")) for stream in streams)
    return next((f" (traceback in {name})" for name in names if os.path.isfile(name)), "")


@unbroken_output()
def report(argv: Sequence[str], prog: str | None = None) -> None:
    """Write down what a trained model finds hard in a data set, and labels that may be wrong."""
    parser = parser_of(
        prog,
        report.__doc__,
        """
RoIs are mined by the code that training mines with; each object and each look-alike that the model
gets wrong is one example. Where model and labels disagree, the label may be wrong as well: these
are ranked by what the label costs the model. index.html shows both, the worst first;
hard_examples.json and label_errors.json beside it have them in COCO's format.

example:
  %(prog)s --config-file output/config.yaml --dataset ohem_shapes_test \\
      --output report MODEL.WEIGHTS output/model_final.pth
""",
    )
    parser.add_argument("--config-file", required=True, help="that of the training")
    parser.add_argument("--dataset", required=True, help=DATASET_HELP)
    parser.add_argument("--output", required=True, help="the folder to write")
    parser.add_argument("--max-images", type=int, help="look at the first ones only")
    parser.add_argument(
        "--label-errors",
        choices=RANKINGS,
        default="loss",
        help="how label errors are found: by what labels cost the model, or by cleanlab's scores",
    )
    parser.add_argument(
        "--compare",
        metavar="REPORT",
        help="the folder of an earlier report on the same images, to compare its model with",
    )
    parser.add_argument(
        "opts",
        nargs="*",
        help="KEY VALUE pairs, MODEL.WEIGHTS above all; key=value for a .py config",
    )
    args = parser.parse_intermixed_args(argv)
    _find_own_modules()
    setup_logger(name="fvcore")
    setup_logger(name="ohem_d2")
    with _told_in_one_line():
        # As it was given: a path of '' would be the current folder.
        check_output_dir("--output", args.output)
        if args.compare is not None and (reason := wrong_name(args.compare)):
            raise InputError(f"--compare is {args.compare!r}, which {reason}, expected a folder")
        with _interrupted_by_signals():
            write_report(
                args.config_file,
                args.dataset,
                Path(args.output),
                args.opts,
                max_images=args.max_images,
                ranking=args.label_errors,
                compare=None if args.compare is None else Path(args.compare),
            )


class _Signalled(KeyboardInterrupt):
    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Signalled(signum)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """
    Let the other signals that end a process interrupt it as Ctrl-C does. Those that it was started
    to ignore (by nohup, for example) stay ignored.
    """
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # others may not
        for name in ("SIGTERM", "SIGHUP"):  # the second where there is one
            signum = getattr(signal, name, None)
            if signum is not None and signal.getsignal(signum) is not signal.SIG_IGN:
                handlers[signum] = signal.signal(signum, _interrupt)
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def data(argv: Sequence[str], prog: str | None = None) -> None:
    """Look at a data set before any training: what is in it, and what is odd."""
    parser = parser_of(
        prog,
        data.__doc__,
        """
With --output, index.html shows images with their boxes, those in which something is odd first, and
findings.csv lists all that is odd, with file names.

example:
  %(prog)s "voc://data/cells" --output look
""",
    )
    parser.add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    parser.add_argument("--output", help="a folder to write a page with pictures to")
    parser.add_argument(
        "--max-pictures", type=int, default=MAX_PICTURES, help="on the page; default: %(default)s"
    )
    args = parser.parse_args(argv)
    _find_own_modules()
    setup_logger(name="ohem_d2")
    with _told_in_one_line():
        if args.output is not None:
            check_output_dir("--output", args.output)
        output = None if args.output is None else Path(args.output)
        if output is None and args.max_pictures != MAX_PICTURES:
            logger.warning(f"--max-pictures is {args.max_pictures}, to no effect without --output")
        with unbroken_output(is_result=output is None):
            look_at_data(args.dataset, output, args.max_pictures)


@unbroken_output()
def relabel(argv: Sequence[str], prog: str | None = None) -> None:
    """Correct the labels of a data set by decisions on suspected label errors."""
    parser = parser_of(
        prog,
        relabel.__doc__,
        """
The corrected annotations are written in the format that they came in, COCO, PASCAL VOC or YOLO,
with all else in them as it was. The files of the data set stay as they are.

examples:
  %(prog)s decisions.json --output corrected
  %(prog)s report --accept 0.7 --output corrected
""",
    )
    parser.add_argument(
        "decisions",
        metavar="DECISIONS",
        help="what the report's page saved; with --accept or --ignore, the folder of a report",
    )
    parser.add_argument("--output", required=True, help="the folder to write")
    parser.add_argument(
        "--dataset",
        help="an address or a name, in place of the one in DECISIONS: coco://, voc:// or yolo://",
    )
    way = parser.add_mutually_exclusive_group()
    for action, what in (("accept", "becomes a label"), ("ignore", "becomes a region to ignore")):
        way.add_argument(
            f"--{action}",
            type=float,
            metavar="SCORE",
            help=f"each suspected missing label that the model gives this score or more {what}",
        )
    args = parser.parse_args(argv)
    _find_own_modules()
    setup_logger(name="ohem_d2")
    with _told_in_one_line():
        if reason := wrong_folder_name(args.output):
            raise InputError(f"--output is {args.output!r}, which {reason}, expected a folder")
        scores = {x: getattr(args, x) for x in ("accept", "ignore")}
        given = [(action, score) for action, score in scores.items() if score is not None]
        decisions = Path(args.decisions)
        write_relabelled(decisions, Path(args.output), args.dataset, given[0] if given else None)


@unbroken_output()
def suspects(argv: Sequence[str], prog: str | None = None) -> None:
    """Take the suspected label errors of a report to a labelling tool, and back as decisions."""
    parser = parser_of(
        prog,
        suspects.__doc__,
        """
examples:
  %(prog)s report --to label-studio --output tasks.json
  %(prog)s report --to cvat --output suspects.xml
  %(prog)s report --from annotations.xml --output decisions.json
""",
    )
    parser.add_argument("report", metavar="REPORT", help="the folder that 'ohem-d2 report' wrote")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--to", choices=TOOLS, help="write pre-annotations")
    way.add_argument("--from", dest="export", help="read what the tool exports (.json, .xml)")
    parser.add_argument("--output", required=True, help="the file to write")
    args = parser.parse_args(argv)
    with _told_in_one_line():
        if reason := wrong_file_name(args.output):
            raise InputError(f"--output is {args.output!r}, which {reason}, expected a file's path")
        report_folder, output = Path(args.report), Path(args.output)
        if args.to is not None:
            export_suspects(report_folder, args.to, output)
        else:
            import_decisions(report_folder, Path(args.export), output)


@unbroken_output()
def proposals(argv: Sequence[str], prog: str | None = None) -> None:
    """Compute the selective search proposals of a data set, as Fast R-CNN learns from."""
    from .data.selective_search import MODES, compute_proposals  # which needs Unix

    parser = parser_of(
        prog,
        proposals.__doc__,
        """
The file is what DATASETS.PROPOSAL_FILES_TRAIN and PROPOSAL_FILES_TEST name. A run that was stopped
goes on where it was when the same command is given again.

example:
  %(prog)s voc_2007_trainval --output proposals/voc_2007_trainval.pkl
""",
    )
    parser.add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    parser.add_argument("--output", required=True, help="the file to write")
    parser.add_argument("--mode", choices=MODES, default="fast", help="default: %(default)s")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes; default: one per core"
    )
    args = parser.parse_args(argv)
    with _told_in_one_line():
        if reason := wrong_file_name(args.output):
            raise InputError(f"--output is {args.output!r}, which {reason}, expected a file's path")
        output = Path(args.output)
        if output.is_dir():
            raise InputError(
                f"--output is {args.output!r}, which is a folder, expected a file's path"
            )
        check_output_dir("the folder of --output", output.parent)
        part = f"{output.name}.part"
        check_not_in_the_way("the folder of --output", output.parent, (), [output.name], [part])
        compute_proposals(args.dataset, output, args.mode, args.jobs)


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    """End a command, and say why in one line, where users can mend it."""
    try:
        yield
    except InputError as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt as e:
        if str(e):
            print(f"interrupted: {e}", file=sys.stderr)
        # As a shell has it of what a signal stops: 130 for Ctrl-C, 143 for SIGTERM.
        sys.exit(128 + getattr(e, "signum", signal.SIGINT))
    except Exception as e:
        if (words := of_system(e)) is None:
            raise
        sys.exit(f"error: {words}")


def _find_own_modules() -> None:
    """Let configs name what modules in the current folder define, as Python itself would."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


COMMANDS = {
    "train": train,
    "report": report,
    "suspects": suspects,
    "relabel": relabel,
    "data": data,
    "proposals": proposals,
}
