"""What a measurement ran on, for its report; from /proc, so Linux only."""

import os
import pathlib

# The instruction sets that decide which kernels run.
NOTED_FLAGS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
)


def describe():
    cpu = {}
    for line in (
        pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    ):
        key, _, value = line.partition(":")
        cpu[key.strip()] = value.strip()
    model = f"family {cpu.get('cpu family')}, model {cpu.get('model')}"
    memory_kib = int(pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    flags = cpu.get("flags", "").split()
    return {
        "cpu": f"{cpu.get('model name', '?')} ({model})",
        "cores": os.cpu_count(),
        "flags": [flag for flag in NOTED_FLAGS if flag in flags],
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": os.uname().release,
        "load_average": os.getloadavg()[0],
    }


def steal_ticks():
    """(ticks stolen by the hypervisor, ticks in all) since boot."""
    fields = [
        int(x)
        for x in pathlib.Path("/proc/stat")
        .read_text(encoding="utf-8")
        .split("\n", 1)[0]
        .split()[1:9]
    ]
    return fields[7], sum(fields)


def resident_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no VmRSS")


def num_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def num_threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))
