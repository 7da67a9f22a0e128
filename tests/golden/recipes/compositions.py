"""Several adapters at once: compositions/<model>/<name>/ with goldens from PEFT's weighted combination.

composition.json lists the parts, directories under adapters/<model>/, with their scales. The original is
add_weighted_adapter with combination_type "cat", whose change is the sum of scale * change of each part.
"""
import os
import shutil

import adapter_goldens
import golden_lib
import tiny_tokenizer
from golden_lib import weights_io

COMPOSITIONS = {
    "llama": {"two": [("plain", 0.7), ("rank3", 0.4)],
              "three_signs": [("all_linear", 0.6), ("patterns", -0.5), ("rslora", 0.3)]},
    "gpt2": {"two": [("all_linear", 0.5), ("bf16", 0.8)]},
}


def _build_one(out, model_name, name, parts):
    from peft import PeftModel
    base_path = f"{out}/models/{model_name}"
    path = f"{out}/compositions/{model_name}/{name}"
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    names = [part for part, _ in parts]
    directories = [f"{out}/adapters/{model_name}/{part}" for part in names]
    model = PeftModel.from_pretrained(golden_lib.load_model(base_path), directories[0],
                                      adapter_name=names[0])
    for part, directory in list(zip(names, directories))[1:]:
        model.load_adapter(directory, adapter_name=part)
    model.add_weighted_adapter(names, [scale for _, scale in parts], "mix", combination_type="cat")
    model.set_adapter("mix")
    model.eval()
    tensors, summary = golden_lib.make_golden(model, f"composition/{model_name}/{name}",
                                              tiny_tokenizer.VOCAB_SIZE, (1, 7, 33))
    effect = adapter_goldens.largest_change(golden_lib.load_model(base_path), model, tensors, 3)
    if effect < adapter_goldens.MIN_EFFECT:
        raise SystemExit(f"{path}: the composition hardly shows, largest logit change {effect}")
    weights_io.write_json(f"{path}/composition.json",
                          {"adapters": [{"name": part, "scale": scale} for part, scale in parts]})
    golden_lib.write_golden(path, tensors, summary | {"model": model_name,
                                                      "largest_logit_change": round(effect, 4)})
    print(f"compositions/{model_name}/{name}: largest logit change {effect:.2f}", flush=True)


def build(out):
    for model_name, compositions in COMPOSITIONS.items():
        for name, parts in compositions.items():
            _build_one(out, model_name, name, parts)
