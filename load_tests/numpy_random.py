"""numpy's random numbers without numpy, draw for draw: what published workloads were made with.

Legacy is numpy.random.seed(...) and its module functions, which numpy keeps as they are (NEP 19).
Generator is numpy.random.Generator(PCG64(seed)). Only the distributions that a workload needs. The
unit tests hold both to figures that numpy drew.

Sources: Matsumoto and Nishimura 1998 (MT19937); O'Neill 2014 (PCG XSL RR 128/64); Ahrens and Dieter
1974 and Marsaglia and Tsang 2000 (gamma); Marsaglia and Tsang 2000 (ziggurat, 256 layers); Lemire
2019 (bounded integers).
"""

import math
import random

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1
MASK128 = (1 << 128) - 1


class Legacy:
    """numpy.random after numpy.random.seed(seed), 0 <= seed < 2^32."""

    def __init__(self, seed):
        state = [seed & MASK32]
        for i in range(1, 624):
            state.append((1812433253 * (state[-1] ^ (state[-1] >> 30)) + i) & MASK32)
        self.bits = random.Random()
        self.bits.setstate((3, (*state, 624), None))
        self.spare_normal = None

    def uniform(self):
        """A float in [0, 1) of 53 bits."""
        return self.bits.random()

    def exponential(self):
        return -math.log1p(-self.uniform())

    def power(self, exponent, count):
        """numpy.random.power: P(x < t) = t ** exponent for t in [0, 1]."""
        return [(-math.expm1(-self.exponential())) ** (1 / exponent) for _ in range(count)]

    def randint(self, low, high, count):
        """Integers of [low, high), by masks and rejection."""
        mask = (1 << (high - 1 - low).bit_length()) - 1
        drawn = []
        while len(drawn) < count:
            value = self.bits.getrandbits(32) & mask if mask else 0
            if low + value < high:
                drawn.append(low + value)
        return drawn

    def normal(self):
        """Polar method; every second number was made with the one before it."""
        if self.spare_normal is not None:
            spare, self.spare_normal = self.spare_normal, None
            return spare
        while True:
            x, y = 2 * self.uniform() - 1, 2 * self.uniform() - 1
            square = x * x + y * y
            if 0 < square < 1:
                factor = math.sqrt(-2 * math.log(square) / square)
                self.spare_normal = factor * x
                return factor * y

    def standard_gamma(self, shape):
        if shape == 1:
            return self.exponential()
        if shape < 1:
            return self.gamma_below_one(shape)
        b = shape - 1 / 3
        c = 1 / math.sqrt(9 * b)
        while True:
            x = self.normal()
            cube = (1 + c * x) ** 3
            if cube <= 0:
                continue
            u = self.uniform()
            if u < 1 - 0.0331 * x**4 or math.log(u) < 0.5 * x * x + b * (1 - cube + math.log(cube)):
                return b * cube

    def gamma_below_one(self, shape):
        while True:
            u, v = self.uniform(), self.exponential()
            if u <= 1 - shape:
                x = u ** (1 / shape)
                if x <= v:
                    return x
            else:
                y = -math.log((1 - u) / shape)
                x = (1 - shape + shape * y) ** (1 / shape)
                if x <= v + y:
                    return x

    def gamma(self, shape, scale, count):
        return [scale * self.standard_gamma(shape) for _ in range(count)]


def seed_words(seed, count):
    """numpy.random.SeedSequence(seed): `count` words of 32 bits."""
    entropy = []
    while seed or not entropy:
        entropy.append(seed & MASK32)
        seed >>= 32
    constant = 0x43B0D7E5

    def hashed(value, multiplier):
        nonlocal constant
        value ^= constant
        constant = constant * multiplier & MASK32
        value = value * constant & MASK32
        return value ^ (value >> 16)

    def mixed(x, y):
        value = (0xCA01F9DD * x - 0x4973F715 * y) & MASK32
        return value ^ (value >> 16)

    pool = [hashed(entropy[i] if i < len(entropy) else 0, 0x931E8875) for i in range(4)]
    for source in range(4):
        for target in range(4):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source], 0x931E8875))
    for word in entropy[4:]:
        for target in range(4):
            pool[target] = mixed(pool[target], hashed(word, 0x931E8875))
    constant = 0x8B51F9DD
    return [hashed(pool[i % 4], 0x58F38DED) for i in range(count)]


# The layers of the normal density: the edge of the tail, and the area of every layer.
TAIL, AREA = 3.6541528853610087963519472518, 0.0049286732339746519


def ziggurat():
    """-> ([width of layer / 2^52], [mantissas below which a draw is inside], [density at edge])."""
    density = lambda x: math.exp(-0.5 * x * x)
    edges = [TAIL]
    for _ in range(254):
        edges.append(math.sqrt(-2 * math.log(AREA / edges[-1] + density(edges[-1]))))
    edges = edges[::-1]  # edges[i] is layer i + 1's, rising; layer 0 is the base with the tail
    base = AREA / density(TAIL)
    inside = [TAIL / base] + [0] + [edges[i - 1] / edges[i] for i in range(1, 255)]
    widths = [base / 2**52] + [edge / 2**52 for edge in edges]
    return widths, [int(x * 2**52) for x in inside], [1.0] + [density(edge) for edge in edges]


WIDTHS, INSIDE, DENSITIES = ziggurat()


class Generator:
    """numpy.random.Generator(numpy.random.PCG64(seed))."""

    MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645

    def __init__(self, seed):
        words = seed_words(seed, 8)
        a, b, c, d = (words[i] | words[i + 1] << 32 for i in range(0, 8, 2))
        self.increment = ((c << 64 | d) << 1 | 1) & MASK128
        self.state = self.increment
        self.state = (self.state + (a << 64 | b)) & MASK128
        self.advance()
        self.half = None  # of the last 64 bits that were asked for as two times 32

    def advance(self):
        self.state = (self.state * self.MULTIPLIER + self.increment) & MASK128

    def bits64(self):
        self.advance()
        value = (self.state >> 64) ^ (self.state & MASK64)
        turn = self.state >> 122
        return (value >> turn | value << (64 - turn)) & MASK64

    def bits32(self):
        if self.half is not None:
            value, self.half = self.half, None
            return value
        value = self.bits64()
        self.half = value >> 32
        return value & MASK32

    def uniform(self):
        return (self.bits64() >> 11) / 2**53

    def normal(self):
        while True:
            bits = self.bits64()
            layer, mantissa = bits & 0xFF, (bits >> 9) & ((1 << 52) - 1)
            x = mantissa * WIDTHS[layer]
            x = -x if bits >> 8 & 1 else x
            if mantissa < INSIDE[layer]:
                return x
            if layer == 0:
                return self.normal_of_tail(mantissa)
            step = DENSITIES[layer - 1] - DENSITIES[layer]
            if step * self.uniform() + DENSITIES[layer] < math.exp(-0.5 * x * x):
                return x

    def normal_of_tail(self, mantissa):
        while True:
            x = -math.log1p(-self.uniform()) / TAIL
            y = -math.log1p(-self.uniform())
            if 2 * y > x * x:
                return -(TAIL + x) if mantissa >> 8 & 1 else TAIL + x

    def below(self, bound):
        """An integer of [0, bound), bound <= 2^32."""
        if bound == 1:
            return 0
        product = self.bits32() * bound
        threshold = ((1 << 32) - bound) % bound
        while product & MASK32 < threshold:
            product = self.bits32() * bound
        return product >> 32

    def integers(self, low, high, count):
        return [low + self.below(high - low) for _ in range(count)]

    def interval(self, largest):
        """An integer of [0, largest], by masks and rejection: what shuffle() draws."""
        mask = (1 << largest.bit_length()) - 1
        while largest:
            value = self.bits32() & mask
            if value <= largest:
                return value
        return 0

    def shuffle(self, items):
        for i in range(len(items) - 1, 0, -1):
            j = self.interval(i)
            items[i], items[j] = items[j], items[i]
