"""A discrete-event model of replicas that batch continuously and swap adapters (simulate.py).

A replica runs steps; a step takes

  step_ms + row_ms * decoding rows + token_ms * prompt tokens + adapter_ms * distinct adapters

and gives every row one token. A waiting request joins at the beginning of a step, in order of
arrival, where there is a row for it, where the step's prompt tokens stay within step_tokens (one
prompt always fits) and once its adapter is in memory. An adapter that is not is read beside the
steps, one at a time, in host_ms from the host's memory or disk_ms from disk; memory and host memory
each keep the most recently used, and nothing that a request waits for or uses leaves memory.
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
    replica_per_hour: float = 0.0
    shared_cores: int = 0  # 0: a step's time is its own; else one core a step, of so many for all

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
        self.step, self.stepping, self.busy_s = 0, False, 0.0
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
        """-> seconds of the read that begins now, or None."""
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

    def begin_step(self, sharing):
        """-> seconds of the step that begins now beside `sharing` others, or None."""
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
        self.joined, self.stepping = joining, True
        of = self.of
        step_ms = of.step_ms + of.row_ms * decoding + of.token_ms * tokens
        seconds = (step_ms + of.adapter_ms * len(self.used)) / 1e3
        if of.shared_cores:
            seconds *= max(1.0, (sharing + 1) / of.shared_cores)
        self.busy_s += seconds
        return seconds

    def end_step(self, now):
        """-> how many requests ended."""
        self.step, self.stepping = self.step + 1, False
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
    """`homes`: {adapter: index of its replica} in the place of hashing, where they are known."""

    def __init__(self, routing, replicas, spill, homes=None, seed=1):
        self.choose = getattr(self, routing)
        self.replicas, self.spill = replicas, spill
        self.turn = itertools.cycle(replicas)
        self.orders = {adapter: [index] for adapter, index in (homes or {}).items()}
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
            self.orders[adapter] = sorted(range(len(self.replicas)), key=weight)
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


def run(trace, setup):
    """-> (requests with their times, replicas, seconds until the last ended)."""
    requests = [Request(line) for line in trace]
    replicas = [Replica(number, setup.calibration) for number in range(setup.count)]
    router = Router(setup.routing, replicas, setup.spill, setup.homes)
    order = itertools.count()
    events = [(one.at, next(order), "arrive", one) for one in requests]
    heapq.heapify(events)
    now, stepping = 0.0, 0
    while events:
        now, _, kind, what = heapq.heappop(events)
        replica = what
        if kind == "arrive":
            replica = router.choose(what.adapter)
            replica.arrive(what)
            router.outstanding += 1
        elif kind == "read":
            replica.end_read()
        else:
            router.outstanding -= replica.end_step(now)
            stepping -= 1
        seconds = replica.begin_read()
        if seconds is not None:
            heapq.heappush(events, (now + seconds, next(order), "read", replica))
        if not replica.stepping:
            seconds = replica.begin_step(stepping)
            if seconds is not None:
                stepping += 1
                heapq.heappush(events, (now + seconds, next(order), "step", replica))
    return requests, replicas, now
