"""Start the same command in several processes that train one model: `handloom train --launch`.

A number starts so many on this machine, one a GPU, or with gloo on a CPU; a file is accelerate's
own configuration, for FSDP or DeepSpeed. The processes' errors come back here, and one line of them
is shown: that of the process which failed by itself.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.conduct import batch_arguments
from align.processes import PeerGoneError, is_main, peers_reported
from align.recipe import Recipe
from align.resources.launch import launch_file
from annotate.errors import HandloomError, InputError, Interrupted, TrainingError
from annotate.runs import Project, Run

_GOES_ON = "The same command goes on from the last checkpoint"
_LAUNCHED = "HANDLOOM_LAUNCHED"
# Where torch's launcher looks for what a process has to say.
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
# Puts these behind all other reasons.
_PEER_GONE = "peer gone: "
# torch's own words for a process that left none: it ended with a traceback.
_SAID_NOTHING = "To enable traceback see"


def train_in_processes(
    project: Project, recipe: str, options: Mapping[str, Any], wanted: str | None
) -> Run | None:
    """`align.train.train`, in this process or, where that is asked for, in several.

    Args:
        recipe: a file or a name.
        options: the other arguments of `train`.
        wanted: how many processes, or an accelerate configuration. None: what the recipe says.

    Returns:
        The run; None where another process shows it.

    Raises:
        HandloomError: as `train` and `launch`.
        SystemExit: in a launched process, with an error's status.
    """
    from align.train import read_recipe, train

    try:
        if "RANK" not in os.environ and _LAUNCHED not in os.environ:
            named = {name: options[name] for name in ("data", "model", "seed")}
            checked, _ = read_recipe(project, recipe, **named)
            if (processes := wanted or checked.launch) is not None:
                launch(str(processes), _arguments(recipe, options), checked)
                return None
        with peers_reported():
            run = train(project, recipe, **options)
    except KeyboardInterrupt:
        raise Interrupted("interrupted", remedy=_GOES_ON) from None
    except HandloomError as error:
        _hand_up(error)
        raise
    return run if is_main() else None


def launch(wanted: str, arguments: Sequence[str], recipe: Recipe) -> None:
    """Run `handloom ARGUMENTS` in several processes, until all have ended.

    Raises:
        InputError: `wanted` is neither a number from 2 nor an accelerate configuration, or the
            recipe's batch cannot be shared among so many.
        TrainingError: a process failed; the others were ended.
        Interrupted: by Ctrl-C.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Its own report runs over fifty lines, and each process warns of parameters that are all used.
    logging.disable(logging.ERROR)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ[_LAUNCHED] = "1"
    try:
        if wanted.isdigit():
            _start_number(int(wanted), arguments, recipe)
        else:
            _start_configured(launch_file(wanted), arguments)
    except ChildFailedError as error:
        raise _reason(error.failures) from None
    except SignalException:
        raise Interrupted("interrupted", remedy=_GOES_ON) from None
    except subprocess.CalledProcessError as error:  # a single process, which has said why
        raise SystemExit(error.returncode) from None
    except (ImportError, ValueError) as error:
        raise TrainingError(f"accelerate refuses this: {error}", where=wanted) from error
    finally:
        logging.disable(logging.NOTSET)
        del os.environ[_LAUNCHED]


def _arguments(recipe: str, options: Mapping[str, Any]) -> list[str]:
    """The same command for each process."""
    given = {
        name: value for name, value in options.items() if value is not None and value is not False
    }
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]
    return ["train", recipe, *flags]


def _start_number(processes: int, arguments: Sequence[str], recipe: Recipe) -> None:
    from torch.distributed import run

    if processes < 2:
        raise InputError("several processes are at least 2", where="--launch")
    batch_arguments(recipe, processes)
    # Each would take all cores otherwise.
    own = str(max(1, (os.cpu_count() or 1) // processes))
    os.environ.setdefault("OMP_NUM_THREADS", own)
    options = ["--standalone", f"--nproc-per-node={processes}", "--module", "align"]
    parsed = run.get_args_parser().parse_args([*options, *arguments])
    run.run(parsed)  # type: ignore[no-untyped-call]


def _start_configured(file: Path, arguments: Sequence[str]) -> None:
    from accelerate.commands.launch import launch_command, launch_command_parser

    options = [f"--config_file={file}", "--main_process_port=0", "--module", "align"]
    launch_command(launch_command_parser().parse_args([*options, *arguments]))


def _hand_up(error: HandloomError) -> None:
    """In a process that `launch` has started, leave the error to it instead of showing it.

    Raises:
        SystemExit: with the error's status, once it is written down.
    """
    place = os.environ.get(_ERROR_FILE)
    if _LAUNCHED not in os.environ or place is None:
        return
    said = f"{_PEER_GONE if isinstance(error, PeerGoneError) else ''}{error}"
    Path(place).write_text(json.dumps({"message": said, "timestamp": int(time.time())}))
    raise SystemExit(error.status) from None


def _reason(failures: dict[int, Any]) -> HandloomError:
    """Of several processes' failures the one that the others followed from."""
    own = [(rank, f) for rank, f in failures.items() if not f.message.startswith(_PEER_GONE)]
    # Those that were ended because another one failed come last.
    number, first = min(
        own or failures.items(), key=lambda f: (f[1].exitcode == -signal.SIGTERM, f[1].timestamp)
    )
    if first.exitcode == Interrupted.status:
        return Interrupted(first.message)
    if first.message.startswith(_SAID_NOTHING):
        return TrainingError(f"process {number} failed; what it said stands above")
    if first.exitcode >= 0:
        return TrainingError(first.message.removeprefix(_PEER_GONE))
    said = f"process {number} was ended by {signal.Signals(-first.exitcode).name}, and all with it"
    if first.exitcode == -signal.SIGKILL:
        said += "; most often memory has run out"
    return TrainingError(said, remedy=_GOES_ON)
