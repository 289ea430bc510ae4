"""The processes of a run: how many there are, who starts them, and where they meet."""

import errno
import logging
import os
import re
import socket
from collections.abc import Mapping
from multiprocessing.connection import Listener

import torch

from ..errors import InputError

logger = logging.getLogger(__name__)

_MOST_PORT = 65535
# What Gloo and NCCL read; the second takes the beginning of a name, too.
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
# What launchers tell each process of how many of them they start on its machine.
_OF_THIS_MACHINE = {
    "LOCAL_WORLD_SIZE": "torchrun",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "mpirun",
    "MPI_LOCALNRANKS": "mpirun",
}
# And of how many there are on all machines.
_OF_ALL = {"WORLD_SIZE": "a launcher", "SLURM_STEP_NUM_TASKS": "srun"}


def check_launcher(environment: Mapping[str, str], num_machines: int) -> None:
    """
    Make sure that nothing else starts a process for each GPU: each would train alone.

    Args:
        environment: that of this process.
        num_machines: how many machines there are, on each of which one process is started.

    Raises:
        InputError: something does.
    """
    expected = (
        "one on each machine, which starts those of its GPUs itself: --num-gpus says how many, and "
        "--num-machines and --machine-rank say which machine it is"
    )
    for names, most in ((_OF_THIS_MACHINE, 1), (_OF_ALL, num_machines)):
        for name, launcher in names.items():
            text = environment.get(name, "")
            if text.isdecimal() and int(text) > most:
                where = " on this machine" if names is _OF_THIS_MACHINE else ""
                raise InputError(
                    f"{name} is {text} in the environment: {launcher} starts {text} processes"
                    f"{where}, expected {expected}"
                )


def check_processes(num_gpus: int, num_machines: int, machine_rank: int) -> None:
    """
    Make sure that this machine can run as many processes as it is asked for.

    Args:
        num_gpus: how many processes; each has a GPU, if there are any.
        num_machines: how many machines there are.
        machine_rank: the number of this one.

    Raises:
        InputError: it cannot.
    """
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    why = f", of which there are {gpus} here" if gpus else (
        f": there is no GPU here, so that each is a process on the CPU, which has {cores} cores"
    )  # fmt: skip
    for name, value, low, high, reason in (
        ("--num-gpus", num_gpus, 0, gpus or cores, why),
        ("--num-machines", num_machines, 1, None, ""),
        (
            "--machine-rank",
            machine_rank,
            0,
            num_machines - 1,
            f": --num-machines is {num_machines}",
        ),
    ):
        limit = f"{low} or more" if high is None else f"{low} to {high}" if high > low else f"{low}"
        if value < low:
            raise InputError(f"{name} is {value}, expected {limit}")
        if high is not None and value > high:
            raise InputError(f"{name} is {value}, expected {limit}{reason}")


def check_interfaces(environment: Mapping[str, str], num_processes: int) -> None:
    """
    Make sure that this machine has the network interfaces by which processes are to meet.

    Args:
        environment: that of this process.
        num_processes: how many there are on all machines.

    Raises:
        InputError: it lacks one.
    """
    here = [name for _, name in socket.if_nameindex()]
    for variable in _INTERFACES if num_processes > 1 else ():
        value = environment.get(variable, "")
        if variable.startswith("NCCL") and value[:1] in ("^", "="):  # all others, these exactly
            continue
        for name in filter(None, value.split(",")):
            is_prefix = variable.startswith("NCCL")
            if not any(x == name or (is_prefix and x.startswith(name)) for x in here):
                raise InputError(
                    f"{variable} is {value!r} in the environment, expected network interfaces of "
                    f"this machine: {', '.join(here)}"
                )


def check_workers(key: str, num_workers: int) -> None:
    """
    Make sure that the workers of a data loader can hand over what they load: they do by sockets in
    the folder for temporary files. If they cannot, torch waits for them without end.

    Args:
        key: what says how many workers there are.
        num_workers: their number.

    Raises:
        InputError: they cannot.
    """
    if num_workers < 1 or not hasattr(socket, "AF_UNIX"):
        return
    try:
        with Listener(family="AF_UNIX"):
            pass
    except OSError as e:
        raise InputError(
            f"{key} is {num_workers}, but workers cannot hand over what they load by sockets in "
            f"the folder for temporary files ({e}): expected one with a short path in TMPDIR, or "
            "0 workers"
        ) from e


def check_dist_url(
    url: str | None, num_gpus: int, num_machines: int, machine_rank: int = 0
) -> None:
    """
    Make sure that processes can meet at an address: they wait half an hour for each other.

    Args:
        url: as on the command line; None if it is not there.
        num_gpus: how many processes each machine has.
        num_machines: how many machines there are.
        machine_rank: the number of this one, the first of which listens.

    Raises:
        InputError: they cannot.
    """
    example = "an address of the first machine, such as 'tcp://10.0.0.1:29500'"
    if num_machines > 1 and url in (None, "auto"):
        found = "there is no --dist-url" if url is None else f"--dist-url is {url!r}"
        raise InputError(f"--num-machines is {num_machines}, but {found}: expected {example}")
    if url is None:
        return
    if not re.fullmatch(r"tcp://.+:\d+(/.*)?|file://.+|env://.*|auto", url):
        raise InputError(f"--dist-url is {url!r}, expected 'auto' or {example}")
    port = re.match(r"tcp://.+:(\d+)", url)
    # Of one process torch does not use it.
    lowest = 1 if num_gpus * num_machines > 1 else 0
    if port and not lowest <= int(port[1]) <= _MOST_PORT:
        raise InputError(f"--dist-url is {url!r}, expected a port of {lowest} to {_MOST_PORT}")
    address = re.match(r"tcp://(?:\[([^]]+)\]|([^/]+)):(\d+)(?:/|$)", url)
    host = (address[1] or address[2]) if address else ""
    if address and ":" in (address[2] or ""):
        raise InputError(f"--dist-url is {url!r}, expected brackets: 'tcp://[{host}]:{address[3]}'")
    if host and num_gpus * num_machines > 1:
        _check_host(f"--dist-url is {url!r}", host)
    listens = machine_rank == 0 and num_gpus * num_machines > 1
    if address and listens and _is_in_use(host, int(address[3])):
        raise InputError(
            f"--dist-url is {url!r}, a port that another program uses, such as another training: "
            "expected a free one, or 'auto'"
        )
    if url.startswith("env://") and num_gpus * num_machines > 1:
        missing = [x for x in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(x)]
        if missing:
            raise InputError(
                f"--dist-url is {url!r}, expected {' and '.join(missing)} in the environment, too"
            )
        number = os.environ["MASTER_PORT"]
        if not (number.isdecimal() and 0 < int(number) <= _MOST_PORT):
            raise InputError(
                f"MASTER_PORT is {number!r} in the environment, expected a port of 1 to "
                f"{_MOST_PORT}"
            )
        name = os.environ["MASTER_ADDR"]
        _check_host(f"MASTER_ADDR is {name!r} in the environment", name)


def _check_host(words: str, host: str) -> None:
    """
    Warn if a machine has no address: torch looks for it for half an hour, without a word of ours.
    In some clusters the first one gets it only when it has started.
    """
    try:
        socket.getaddrinfo(host, None)
    except UnicodeError as e:
        raise InputError(f"{words}, expected the name of a machine: {host!r} is none ({e})") from e
    except OSError as e:
        logger.warning(
            f"{words}, but {host!r} has no address yet ({e.strerror}): waiting for it. Expected "
            "the name or the address of the first machine"
        )


def _is_in_use(host: str, port: int) -> bool:
    """Whether another program listens at a port of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as e:
            return e.errno == errno.EADDRINUSE
    return False
