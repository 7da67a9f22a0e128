"""SSF: every linear site's and norm's output scaled and shifted, y = gamma f(x) + beta (zoo 5.2)."""
from container_goldens import bias, build_all, case, module, places, replace, replace_norm, take, weight
import ssf as ssf_export  # tools/export, which container_goldens puts on the path


def _ssf(linear_sites):
    def make(model, box, rng):
        for place in places(model, *linear_sites):
            target = module(model, place)
            w, b = weight(target), bias(target)
            gamma, beta = 1 + 0.2 * rng(f"{place}.gamma", len(w)), 0.15 * rng(f"{place}.beta", len(w))
            replace(target, gamma[:, None] * w, gamma * b + beta)
            box.add(place, "os", c=gamma)
            box.add(place, "bi", b=gamma * b + beta)
        for place in places(model, "norm1", "norm2") + ["normf"]:
            target = module(model, place)
            w = target.weight.detach().double().numpy()
            gamma = 1 + 0.2 * rng(f"{place}.gamma", len(w))
            replace_norm(target, gamma * w)  # an RMS norm has nowhere to put a shift
            box.add(place, "nw", w=gamma * w)
    return make


def _published_files(model, box, rng):
    """GPT-2, from tensors named as SSF's own files are, through tools/export/ssf.py."""
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    tensors = {}

    def pair(name, width):
        tensors[name.format("ssf_scale")] = 1 + 0.2 * rng(f"{name}.scale", width)
        tensors[name.format("ssf_shift")] = 0.15 * rng(f"{name}.shift", width)
        return tensors[name.format("ssf_scale")], tensors[name.format("ssf_shift")]

    for layer in range(model.config.n_layer):
        for site, name in {"qkv": "attn.{}_1", "o": "attn.{}_2", "fc1": "mlp.{}_1", "fc2": "mlp.{}_2"}.items():
            target = module(model, f"L{layer}.{site}")
            w, b = weight(target), bias(target)
            gamma, beta = pair(f"blocks.{layer}.{name}", len(w))
            replace(target, gamma[:, None] * w, gamma * b + beta)
    norms = [(f"L{layer}.norm{i}", f"blocks.{layer}.{{}}_{i}") for layer in range(model.config.n_layer)
             for i in (1, 2)]
    for place, name in norms + [("normf", "{}_1")]:
        target = module(model, place)
        w, b = target.weight.detach().double().numpy(), target.bias.detach().double().numpy()
        gamma, beta = pair(name, len(w))
        replace_norm(target, gamma * w, gamma * b + beta)
    made = ssf_export.convert(tensors, before, box.base_name)
    take(box, made)


CASES = [
    case("llama", "ssf", "ssf", _ssf(["q", "k", "v", "o", "gate", "up", "down"])),
    case("gpt2", "ssf", "ssf", _published_files),
]


def build(out):
    build_all(out, CASES)
