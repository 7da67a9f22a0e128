"""What the converters' command lines share: arguments from the module's description, and trained tensors from a file."""
import argparse
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import weights_io  # noqa: E402


def arguments(doc, *positional, **options):
    """Parses the command line; an option is its type, (type, default), or a list of choices whose first is the default.

    An option that is a type alone must be given.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in positional:
        parser.add_argument(name)
    for name, kind in options.items():
        if isinstance(kind, list):
            parser.add_argument(f"--{name}", choices=kind, default=kind[0])
        elif isinstance(kind, tuple):
            parser.add_argument(f"--{name}", type=kind[0], default=kind[1])
        else:
            parser.add_argument(f"--{name}", type=kind, required=True)
    return parser.parse_args()


def read_state(path):
    """{name: array} of a .safetensors file or a torch file, floats as float32; pickles are opened weights-only."""
    if path.endswith(".safetensors"):
        return weights_io.read_f32(path)
    import torch
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in state.items()}


def base_name(path):
    return os.path.basename(os.path.normpath(path))


def write_lora(out, tensors, base, config):
    """A PEFT LoRA directory; tensors: {name: array} without PEFT's prefix."""
    os.makedirs(out, exist_ok=True)
    stored = {f"base_model.model.{name}": weights_io.encode(value, "F32") for name, value in tensors.items()}
    weights_io.write_safetensors(f"{out}/adapter_model.safetensors", stored, {"format": "pt"})
    weights_io.write_json(f"{out}/adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True} | config)
