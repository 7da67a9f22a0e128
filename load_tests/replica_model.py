"""A discrete-event model of replicas that batch continuously and swap adapters (simulate.py).

A replica runs steps; a step takes

  step_ms + row_ms * decoding rows + token_ms * prompt tokens + adapter_ms * distinct adapters

and gives every row one token. A waiting request joins at the beginning of a step, in order of
arrival, where there is a row for it, where the step's prompt tokens stay within step_tokens (one
prompt always fits) and once its adapter is in memory. An adapter that is not is read beside the
steps, one at a time, in host_ms from the host's memory or disk_ms from disk, busy_read times that
while its replica steps; memory and host memory each keep the most recently used, and nothing that a
request waits for or uses leaves memory.

Replicas have machines of their own, or share one whose slowness beside each other was measured
(Beside).
"""

import collections
import dataclasses
import hashlib
import heapq
import itertools
import math
import random

ROUTINGS = ("random", "robin", "least", "affine", "bounded")


@dataclasses.dataclass
class Calibration:
    """Times in milliseconds, memory in adapters."""

    step_ms: float
    row_ms: float
    token_ms: float
    adapter_ms: float
    host_ms: float
    disk_ms: float
    slots: int
    host_slots: int
    rows: int
    step_tokens: int
    front_ms: float = 0.0  # of every first token, outside the replica: proxy, HTTP, tokenizer
    busy_read: float = 1.0  # how many times longer a read takes while its replica steps
    replica_per_hour: float = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{field.name}: expected a number, got {value!r}")
            if field.type is int and not isinstance(value, int):
                raise ValueError(f"{field.name}: expected a whole number, got {value!r}")
            least = 1 if field.name in ("slots", "rows", "step_tokens") else 0
            if not (math.isfinite(value) and value >= least):
                raise ValueError(f"{field.name}: expected at least {least}, got {value}")
        if self.step_ms + min(self.row_ms, self.token_ms) <= 0:
            raise ValueError("step_ms: expected a step to take time")


@dataclasses.dataclass
class Beside:
    """How many times longer what runs on one machine takes beside other replicas' steps."""

    steps: tuple  # [k - 1]: a step, while k run
    reads: tuple  # [k]: a read, while k steps run

    def __post_init__(self):
        if not self.steps or not self.reads or min(*self.steps, *self.reads) <= 0:
            raise ValueError("beside: expected factors greater than 0 of steps and of reads")


class Machine:
    """The steps and reads that run side by side, each with the seconds it has left if alone."""

    def __init__(self, beside):
        self.beside, self.left = beside, {}  # left: {(kind, replica): seconds}
        self.since, self.version, self.steps = 0.0, 0, 0

    def pace(self, kind):
        """How many times longer it takes now; the last factor holds for more steps."""
        if kind == "step":
            factors, index = self.beside.steps, self.steps - 1
        else:
            factors, index = self.beside.reads, self.steps
        return factors[index] if index < len(factors) else factors[-1]

    def advance(self, now):
        for key in self.left:
            self.left[key] -= (now - self.since) / self.pace(key[0])
        self.since = now

    def add(self, now, kind, replica, seconds):
        self.advance(now)
        self.left[kind, replica] = seconds
        self.steps += kind == "step"

    def first(self):
        """-> (when the next ends if nothing changes, its key), or None."""
        found = None
        for key, left in self.left.items():
            end = self.since + left * self.pace(key[0])
            if found is None or end < found[0]:
                found = (end, key)
        return found

    def end(self, now):
        """-> (kind, replica) of what ends now."""
        key = self.first()[1]
        self.advance(now)
        del self.left[key]
        self.steps -= key[0] == "step"
        return key


class Request:
    """One line of a trace on its way; times in seconds, None before they have come."""

    __slots__ = ("at", "adapter", "prompt", "output", "replica", "hit", "first", "end")

    def __init__(self, line):
        self.at, self.adapter = line["at_s"], line["model"]
        self.prompt, self.output = line["prompt_tokens"], line["output_tokens"]
        self.replica = self.hit = self.first = self.end = None


class Memory:
    """Two tiers of least recently used adapters, beneath them a disk that has all."""

    def __init__(self, slots, host_slots):
        self.slots, self.host_slots = slots, host_slots
        self.resident, self.host = collections.OrderedDict(), collections.OrderedDict()
        self.pins = collections.Counter()  # requests that wait for an adapter or use it

    def make_room(self):
        """False where every resident adapter is pinned."""
        if len(self.resident) < self.slots:
            return True
        victim = next((one for one in self.resident if not self.pins[one]), None)
        if victim is None:
            return False
        del self.resident[victim]
        self.host[victim] = None
        self.host.move_to_end(victim)
        while len(self.host) > self.host_slots:
            self.host.popitem(last=False)
        return True

    def unpin(self, adapter):
        self.pins[adapter] -= 1
        if not self.pins[adapter]:
            del self.pins[adapter]


class Replica:
    def __init__(self, number, calibration):
        self.number, self.of = number, calibration
        self.memory = Memory(calibration.slots, calibration.host_slots)
        self.waiting = collections.OrderedDict()  # request: None, in order of arrival
        self.rows = []  # heap of (last step, order, request)
        self.used = collections.Counter()  # adapters of rows
        self.missing = collections.OrderedDict()  # adapters to read, in order of asking
        self.reading = None
        self.joined = []  # requests whose prompts are in the running step
        self.step, self.stepping, self.began, self.busy_s = 0, False, 0.0, 0.0
        self.reads = {"host": 0, "disk": 0}
        self.order = itertools.count()

    @property
    def outstanding(self):
        return len(self.waiting) + len(self.rows)

    def arrive(self, request):
        self.waiting[request] = None
        adapter, memory = request.adapter, self.memory
        request.replica = self.number
        request.hit = adapter in memory.resident and adapter != self.reading
        if adapter in memory.resident:  # or on its way there
            memory.pins[adapter] += 1
            memory.resident.move_to_end(adapter)
        else:
            self.missing.setdefault(adapter, None)

    def begin_read(self):
        """-> seconds that the read that begins now takes if alone, or None."""
        if self.reading is not None or not self.missing or not self.memory.make_room():
            return None
        self.reading, _ = self.missing.popitem(last=False)
        self.memory.resident[self.reading] = None
        for request in self.waiting:
            self.memory.pins[self.reading] += request.adapter == self.reading
        tier = "host" if self.reading in self.memory.host else "disk"
        self.memory.host.pop(self.reading, None)
        self.reads[tier] += 1
        return (self.of.host_ms if tier == "host" else self.of.disk_ms) / 1e3

    def end_read(self):
        self.reading = None

    def ready(self, request):
        return request.adapter in self.memory.resident and request.adapter != self.reading

    def begin_step(self, now):
        """-> seconds that the step that begins now takes if alone, or None."""
        decoding = len(self.rows)
        tokens, joining = 0, []
        for request in self.waiting:
            if decoding + len(joining) == self.of.rows:
                break
            if not self.ready(request):
                continue
            if joining and tokens + request.prompt > self.of.step_tokens:
                break
            joining.append(request)
            tokens += request.prompt
        if not joining and not self.rows:
            return None
        for request in joining:
            del self.waiting[request]
            self.used[request.adapter] += 1
            heapq.heappush(self.rows, (self.step + request.output, next(self.order), request))
        self.joined, self.stepping, self.began = joining, True, now
        of = self.of
        step_ms = of.step_ms + of.row_ms * decoding + of.token_ms * tokens
        return (step_ms + of.adapter_ms * len(self.used)) / 1e3

    def end_step(self, now):
        """-> how many requests ended."""
        self.step, self.stepping = self.step + 1, False
        self.busy_s += now - self.began
        for request in self.joined:
            request.first = now + self.of.front_ms / 1e3
        ended = 0
        while self.rows and self.rows[0][0] <= self.step:
            request = heapq.heappop(self.rows)[2]
            request.end = now
            self.used[request.adapter] -= 1
            if not self.used[request.adapter]:
                del self.used[request.adapter]
            self.memory.unpin(request.adapter)
            ended += 1
        return ended


class Router:
    """`homes`: {adapter: index of its replica} before hashing, where they are known."""

    def __init__(self, routing, replicas, spill, homes=None, seed=1):
        self.choose = getattr(self, routing)
        self.replicas, self.spill = replicas, spill
        self.turn = itertools.cycle(replicas)
        self.orders, self.homes = {}, homes or {}
        self.rng = random.Random(seed)
        self.outstanding = 0  # of all replicas

    def random(self, _):
        return self.rng.choice(self.replicas)

    def robin(self, _):
        return next(self.turn)

    def least(self, _):
        return min(self.replicas, key=lambda replica: replica.outstanding)

    def order_of(self, adapter):
        """Every adapter's own order of replicas: rendezvous hashing (Thaler, Ravishankar 1998)."""
        if adapter not in self.orders:
            weight = lambda i: hashlib.blake2b(f"{adapter} {i}".encode(), digest_size=8).digest()
            home = lambda i: (i != self.homes.get(adapter), weight(i))
            self.orders[adapter] = sorted(range(len(self.replicas)), key=home)
        return self.orders[adapter]

    def affine(self, adapter):
        return self.replicas[self.order_of(adapter)[0]]

    def bounded(self, adapter):
        """The first that has at most `spill` times the mean (Mirrokni et al. 2018)."""
        most = math.ceil(self.spill * (self.outstanding + 1) / len(self.replicas))
        for i in self.order_of(adapter):
            if self.replicas[i].outstanding < most:
                return self.replicas[i]
        return self.least(adapter)


@dataclasses.dataclass
class Setup:
    calibration: Calibration
    count: int
    routing: str = "affine"
    spill: float = 1.25
    homes: dict = None
    beside: Beside = None  # of the machine that all share; None: each has its own

    def machines(self):
        """-> [the machine of each replica]"""
        if self.beside:
            return [Machine(self.beside)] * self.count
        alone = Beside((1.0,), (1.0, self.calibration.busy_read))
        return [Machine(alone) for _ in range(self.count)]


def run(trace, setup):
    """-> (requests with their times, replicas, seconds until the last ended)."""
    requests = [Request(line) for line in trace]
    replicas = [Replica(number, setup.calibration) for number in range(setup.count)]
    machines = setup.machines()
    router = Router(setup.routing, replicas, setup.spill, setup.homes)
    order = itertools.count()
    events = [(one.at, next(order), one, 0) for one in requests]
    heapq.heapify(events)
    now = ended = 0.0
    while events:
        now, _, what, version = heapq.heappop(events)
        if isinstance(what, Request):
            replica = router.choose(what.adapter)
            replica.arrive(what)
            router.outstanding += 1
        elif version != what.version:
            continue  # something began or ended there since
        else:
            kind, replica = what.end(now)
            if kind == "read":
                replica.end_read()
            else:
                router.outstanding -= replica.end_step(now)
            ended = now
        machine = machines[replica.number]
        begun = [("read", replica.begin_read())]
        if not replica.stepping:
            begun.append(("step", replica.begin_step(now)))
        begun = [(kind, seconds) for kind, seconds in begun if seconds is not None]
        if isinstance(what, Request) and not begun:
            continue
        for kind, seconds in begun:
            machine.add(now, kind, replica, seconds)
        machine.version += 1
        first = machine.first()
        if first:
            heapq.heappush(events, (first[0], next(order), machine, machine.version))
    return requests, replicas, ended
