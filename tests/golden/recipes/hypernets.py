"""Adapters made by hyper-networks, evaluated for each task: HyperFormer and HyperFormer++ through their exporter, PHA
in the container (zoo 5.5). The references run the published networks in torch on the saved tensors."""
import numpy as np
import torch

from bottleneck_hooks import change_sub_layer, layer_norm, tensor
from container_goldens import build_all, case, take
import hyperformer  # tools/export, which container_goldens puts on the path

_WIDTH, _BOTTLENECK, _EMBEDDING, _INNER, _PROJECTED = 64, 4, 6, 8, 5
_TASKS = ("cola", "mrpc", "rte")
_LENGTHS = (1, 7, 20)


def _linear(rng, name, out, inner, deviation=1.0):
    return {f"{name}.weight": deviation * rng(f"{name}.w", out, inner) / np.sqrt(inner),
            f"{name}.bias": 0.2 * deviation * rng(f"{name}.b", out)}


def _samplers(rng, prefix, norms):
    tensors = {}
    for side, out, inner, deviation in (("down", _BOTTLENECK, _WIDTH, 0.2), ("up", _WIDTH, _BOTTLENECK, 0.5)):
        name = f"{prefix}{side}_sampler_hyper_net"
        tensors |= _linear(rng, f"{name}.weight_generator.0", out * inner, _PROJECTED, deviation)
        tensors |= _linear(rng, f"{name}.bias_generator.0", out, _PROJECTED, deviation)
    for norm in norms:
        name = f"{prefix}{norm}_layernorm_hypernet"
        tensors |= _linear(rng, f"{name}.weight_generator", _WIDTH, _PROJECTED)
        tensors |= _linear(rng, f"{name}.bias_generator", _WIDTH, _PROJECTED, 0.5)
    return tensors


def _task_net(rng, name, inner, out):
    return (_linear(rng, f"{name}.task_embeding_generator.0", _INNER, inner) |
            _linear(rng, f"{name}.task_embeding_generator.2", out, _INNER))


def _state(rng, layers, efficient, norms):
    """A decoder's network and the tasks, as the repository names them."""
    parts = 3 if efficient else 2
    net = {"layer_id_embeddings.weight": rng("layers", layers, _EMBEDDING)}
    net |= _task_net(rng, "task_hypernet", parts * _EMBEDDING, _PROJECTED)
    if efficient:
        net |= {"adapters_block_type.weight": rng("blocks", 2, _EMBEDDING), "LayerNorm.weight": 1 + 0.2 * rng("n", _PROJECTED),
                "LayerNorm.bias": 0.2 * rng("nb", _PROJECTED)} | _samplers(rng, "", norms)
    else:
        net |= _samplers(rng, "feed_forward_", norms) | _samplers(rng, "self_attention_", norms)
    state = {f"decoder.adapter_layers_hyper_net.{name}": value for name, value in net.items()}
    state |= {f"task_embedding_controller.task_to_embeddings.{task}": rng(task, _EMBEDDING) for task in _TASKS}
    if efficient:
        state |= {f"task_embedding_controller.{name}": value
                  for name, value in _task_net(rng, "task_hyper_net", _EMBEDDING, _EMBEDDING).items()}
    return state


class _Network:
    """The published forward pass on a state."""

    def __init__(self, state):
        self.values = {name: tensor(value) for name, value in state.items()}
        self.net = "decoder.adapter_layers_hyper_net."

    def linear(self, name, x):
        return torch.nn.functional.linear(x, self.values[f"{name}.weight"], self.values[f"{name}.bias"])

    def task_net(self, name, x):
        return self.linear(f"{name}.task_embeding_generator.2",
                           torch.relu(self.linear(f"{name}.task_embeding_generator.0", x)))

    def embedding(self, task, layer, block):
        x = self.values[f"task_embedding_controller.task_to_embeddings.{task}"]
        if "task_embedding_controller.task_hyper_net.task_embeding_generator.0.weight" in self.values:
            x = self.task_net("task_embedding_controller.task_hyper_net", x)
        parts = [x, self.values[f"{self.net}layer_id_embeddings.weight"][layer]]
        if block is not None:
            parts.append(self.values[f"{self.net}adapters_block_type.weight"][block])
        x = self.task_net(f"{self.net}task_hypernet", torch.cat(parts))
        if f"{self.net}LayerNorm.weight" in self.values:
            x = torch.nn.functional.layer_norm(x, x.shape, self.values[f"{self.net}LayerNorm.weight"],
                                               self.values[f"{self.net}LayerNorm.bias"], 1e-6)
        return x

    def adapter(self, x, prefix, act):
        def made(name, *shape):
            return self.linear(f"{self.net}{prefix}{name}", x).reshape(*shape)

        def norm(which, u):
            name = f"{which}_layernorm_hypernet"
            if f"{self.net}{prefix}{name}.weight_generator.weight" not in self.values:
                return u
            return torch.nn.functional.layer_norm(u, (_WIDTH,), made(f"{name}.weight_generator", _WIDTH),
                                                  made(f"{name}.bias_generator", _WIDTH))

        def f(u):
            down = torch.nn.functional.linear(
                norm("pre", u), made("down_sampler_hyper_net.weight_generator.0", _BOTTLENECK, _WIDTH),
                made("down_sampler_hyper_net.bias_generator.0", _BOTTLENECK))
            up = torch.nn.functional.linear(
                act(down), made("up_sampler_hyper_net.weight_generator.0", _WIDTH, _BOTTLENECK),
                made("up_sampler_hyper_net.bias_generator.0", _WIDTH))
            return norm("post", up) + u
        return f


def _hyperformer(efficient, norms, task, act):
    functions = {"gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"), "relu": torch.relu}

    def make(model, box, rng):
        layers = model.config.num_hidden_layers
        state = _state(rng, layers, efficient, norms)
        made, names = hyperformer.convert(state, act, box.base_name)
        take(box, made)
        network = _Network(state)
        for layer in range(layers):
            for which, prefix, block in (("mlp", "feed_forward_", 0), ("attn", "self_attention_", 1)):
                x = network.embedding(names[task], layer, block if efficient else None)
                f = network.adapter(x, "" if efficient else prefix, functions[act])
                change_sub_layer(model, f"L{layer}.{which}", lambda taps, f=f: f(taps["o"]))
    return make


def _pha(task):
    """A prototype of the task and an embedding of the layer give the adapter; behind the MLP, h = o + f(norm(o))."""
    def make(model, box, rng):
        width, inner = 5, 9
        first = rng("first", inner, 2 * _EMBEDDING) / np.sqrt(2 * _EMBEDDING)
        second = {"wd": 0.25 * rng("wd", width * _WIDTH, inner), "wu": 0.5 * rng("wu", _WIDTH * width, inner),
                  "bd": 0.1 * rng("bd", width, inner), "bu": 0.1 * rng("bu", _WIDTH, inner)}
        shapes = {"wd": (width, _WIDTH), "wu": (_WIDTH, width), "bd": (width,), "bu": (_WIDTH,)}
        for layer in range(model.config.num_hidden_layers):
            norm = {"ln_w": 1 + 0.2 * rng(f"{layer}.lw", _WIDTH), "ln_b": 0.2 * rng(f"{layer}.lb", _WIDTH)}
            for number in range(2):
                prototype = rng(f"prototype.{number}", _EMBEDDING)
                hidden = np.maximum(first @ np.concatenate([prototype, rng(f"layer.{layer}", _EMBEDDING)]), 0)
                parts = {name: (matrix @ hidden).reshape(shapes[name]) for name, matrix in second.items()}
                box.add(f"L{layer}.mlp", "bn", {"tap": "o", "act": "gelu", "task": number}, **parts, **norm)
                if number != task:
                    continue

                def change(taps, p=parts, n=norm):
                    inner = torch.nn.functional.gelu(layer_norm(taps["o"], n["ln_w"], n["ln_b"]) @ tensor(p["wd"]).T +
                                                     tensor(p["bd"]))
                    return taps["o"] + inner @ tensor(p["wu"]).T + tensor(p["bu"])
                change_sub_layer(model, f"L{layer}.mlp", change)
    return make


def _of_task(model, name, family, make, task):
    return case(model, name, family, make, lengths=_LENGTHS, extra={"options": {"task": task}})


CASES = [
    _of_task("llama", "hyperformer_pp", "hyperformer", _hyperformer(True, ("pre", "post"), 1, "gelu_new"), 1),
    _of_task("mistral", "hyperformer", "hyperformer", _hyperformer(False, ("post",), 2, "relu"), 2),
    _of_task("qwen3", "pha", "pha", _pha(1), 1),
]


def build(out):
    build_all(out, CASES)
