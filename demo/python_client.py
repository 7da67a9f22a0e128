#!/usr/bin/env python3
"""What a program of one's own does over gRPC: list models, count tokens, stream an answer, compare two texts.

Needs grpcio and grpcio-tools (or Debian's python3-grpcio with protoc and its plugin); the stubs are made from proto/ on
the fly.

  python_client.py --grpc HOST:PORT [--model ADAPTER] "The sky is"
"""
import argparse
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent


def make_stubs():
    """Compiles proto/polyad/v1/inference.proto into a temporary folder and imports it."""
    with tempfile.TemporaryDirectory(prefix="polyad-stubs-") as folder:
        if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={folder}", f"--grpc_python_out={folder}",
                        "polyad/v1/inference.proto"]) != 0:
            raise SystemExit("protoc failed")
        sys.path.insert(0, folder)
        from polyad.v1 import inference_pb2, inference_pb2_grpc
        sys.path.pop(0)
        return inference_pb2, inference_pb2_grpc


def stream_answer(service, pb, model, prompt, max_tokens):
    """Prints an answer as it comes; -> its Finish."""
    request = pb.GenerateRequest(model=model, text=prompt, sampling=pb.Sampling(temperature=0),
                                 stopping=pb.Stopping(max_tokens=max_tokens))
    finish = None
    for event in service.Generate(request, timeout=600):
        kind = event.WhichOneof("event")
        if kind == "prompt":
            served = event.prompt.adapter
            print(f"{served.name} version {served.version}, {event.prompt.num_prompt_tokens} prompt tokens:")
        elif kind == "delta":
            print(event.delta.text, end="", flush=True)
        else:
            finish = event.finish
    print()
    return finish


def similarity(service, pb, model, first, second):
    """Cosine of two texts' embeddings, which have length 1."""
    request = pb.EmbedRequest(model=model, inputs=[pb.EmbedInput(text=first), pb.EmbedInput(text=second)], pooling=pb.MEAN)
    a, b = (embedding.values for embedding in service.Embed(request, timeout=600).embeddings)
    return sum(x * y for x, y in zip(a, b))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpc", default="127.0.0.1:50051")
    parser.add_argument("--model", default="", help="an adapter; default: the base model")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("prompt")
    options = parser.parse_args()
    pb, stubs = make_stubs()
    service = stubs.InferenceServiceStub(grpc.insecure_channel(options.grpc))
    try:
        models = service.ListModels(pb.ListModelsRequest()).models
        print("models: " + ", ".join(model.name for model in models))
        tokens = service.Tokenize(pb.TokenizeRequest(text=options.prompt)).token_ids
        print(f"tokens: {len(tokens)}, again as text: {service.Detokenize(pb.DetokenizeRequest(token_ids=tokens)).text!r}")
        finish = stream_answer(service, pb, options.model, options.prompt, options.max_tokens)
        print(f"{finish.usage.completion_tokens} tokens, ended by {pb.Finish.Reason.Name(finish.reason)}")
        print(f"similarity to itself: {similarity(service, pb, options.model, options.prompt, options.prompt):.3f}")
    except grpc.RpcError as error:
        raise SystemExit(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
