"""The processes of a run, and where they meet."""

import multiprocessing.util
import socket
import tempfile

import pytest
import torch

from ohem_d2 import cli
from ohem_d2.errors import InputError
from ohem_d2.training.processes import (
    check_dist_url,
    check_interfaces,
    check_launcher,
    check_workers,
)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:29511", "--dist-url is '127.0.0.1:29511', expected 'auto' or an address"),
        ("tcp://10.0.0.1:99999", "--dist-url is '.*:99999', expected a port of 1 to 65535"),
        ("tcp://10.0.0.1:0", "--dist-url is '.*:0', expected a port of 1 to 65535"),
        ("tcp://10.0.0.1", "--dist-url is 'tcp://10.0.0.1', expected 'auto' or an address"),
        ("auto", "--num-machines is 2, but --dist-url is 'auto': expected an address of the first"),
        (None, "--num-machines is 2, but there is no --dist-url: expected an address of the first"),
        ("env://", "--dist-url is 'env://', expected MASTER_ADDR and MASTER_PORT in the environm"),
    ],
)
def test_machines_that_would_not_meet(monkeypatch, url, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    given = [] if url is None else ["--dist-url", url]
    with pytest.raises(SystemExit, match=message):
        cli.main(["train", "--num-machines", "2", *given])


@pytest.mark.parametrize("port", ["abc", "99999", "-1", "0", "29500 "])
def test_a_port_in_the_environment_that_is_none(monkeypatch, port):
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(InputError, match=f"^MASTER_PORT is '{port}' in the .*, expected a port of"):
        check_dist_url("env://", 8, 2)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("tcp://node-1:29500", "--dist-url is 'tcp://node-1:29500', but"),
        ("env://", "MASTER_ADDR is 'node-1' in the environment, but"),
    ],
)
def test_a_host_that_has_no_address(monkeypatch, caplog, url, words):
    def look_up(host, port):
        assert host == "node-1"
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("MASTER_ADDR", "node-1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    check_dist_url(url, 1, 1)  # alone, nobody is met
    assert not caplog.messages
    check_dist_url(url, 1, 2, machine_rank=1)
    [told] = caplog.messages
    assert told.startswith(f"{words} 'node-1' has no address yet (Name or service not known)")


def test_a_host_that_is_none():
    with pytest.raises(InputError, match="expected the name of a machine: 'node..1' is none"):
        check_dist_url("tcp://node..1:29500", 1, 2, machine_rank=1)
    check_dist_url("tcp://[::1]:29500", 1, 2, machine_rank=1)
    with pytest.raises(InputError, match=r"expected brackets: 'tcp://\[::1\]:29500'"):
        check_dist_url("tcp://::1:29500", 1, 2, machine_rank=1)


def test_workers_need_sockets_for_what_they_load(monkeypatch, tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: folder)
        check_workers("KEY", 2)
    folder = str(tmp_path / ("long" * 25))
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: folder)
    check_workers("KEY", 0)
    with pytest.raises(InputError, match=r"^KEY is 2, but .* temporary files \(AF_UNIX path too"):
        check_workers("KEY", 2)


def test_a_port_that_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        check_dist_url(url, 1, 1)  # alone, nobody is met
        check_dist_url(url, 2, 2, machine_rank=1)
        with pytest.raises(InputError, match=f"^--dist-url is '{url}', a port that another progr"):
            check_dist_url(url, 2, 1)
    check_dist_url(url, 2, 1)


def test_network_interfaces_that_are_not_here(monkeypatch):
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    gloo, nccl = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
    for variable, value in (
        (gloo, "eth0"), (gloo, "lo,eth0"), (gloo, ""), (nccl, "eth"), (nccl, "^docker"),
        (nccl, "=eth0"),
    ):  # fmt: skip
        check_interfaces({variable: value}, 2)
    for variable, value in ((gloo, "eth7"), (gloo, "eth"), (gloo, "lo,ib0"), (nccl, "ib")):
        check_interfaces({variable: value}, 1)
        message = rf"^{variable} is '{value}' in the environment, expected .*: lo, eth0$"
        with pytest.raises(InputError, match=message):
            check_interfaces({variable: value}, 2)


def test_machines_that_meet(monkeypatch):
    check_dist_url("tcp://10.0.0.1:29500", 8, 2)
    check_dist_url("tcp://[::1]:29500", 8, 2)
    check_dist_url("file:///shared/meeting", 1, 2)
    for url in (None, "auto", "env://"):
        check_dist_url(url, 1, 1)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    check_dist_url("env://", 8, 2)


@pytest.mark.parametrize(
    ("environment", "machines", "message"),
    [
        ({"LOCAL_WORLD_SIZE": "2"}, 1, "LOCAL_WORLD_SIZE is 2 .*: torchrun starts 2 processes on"),
        ({"LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "16"}, 2, "LOCAL_WORLD_SIZE is 8 .*: torchrun"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 1, "OMPI_COMM_WORLD_LOCAL_SIZE is 4 .*: mpirun"),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}, 1, "WORLD_SIZE is 2 .*expected one on each"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, 2, "SLURM_STEP_NUM_TASKS is 4 .*: srun starts 4 processes"),
    ],
)
def test_a_launcher_that_starts_a_process_for_each_gpu(environment, machines, message):
    with pytest.raises(InputError, match=message):
        check_launcher(environment, machines)


@pytest.mark.parametrize(
    ("environment", "machines"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "RANK": "0"}, 1),
        ({"WORLD_SIZE": "2", "RANK": "1"}, 2),  # as clusters tell the number of machines
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}, 2),
        ({"SLURM_NTASKS": "4"}, 1),  # as in a shell of salloc
        ({"WORLD_SIZE": ""}, 1),
    ],
)
def test_launchers_that_start_one_process(environment, machines):
    check_launcher(environment, machines)


def test_the_command_looks_at_its_environment(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="error: LOCAL_WORLD_SIZE is 2 in the environment"):
        cli.main(["train"])
