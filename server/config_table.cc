#include "server/config.h"

// The table itself; config.cc holds what is done with it.

namespace polyad {

const std::vector<Knob>& Knobs() {
  using C = ServerConfig;
  constexpr int64_t kMiB = int64_t{1} << 20;
  static const std::vector<Knob>& knobs = *new std::vector<Knob>{
      {"model", &C::model, "", 0, 0, "", "Model directory (Hugging Face) or GGUF file. Required."},
      {"model-name", &C::model_name, "", 0, 0, "",
       "What clients call the base model; empty: the last part of its path."},
      {"dtype", &C::dtype, "", 0, 0, "auto|f32|bf16|int8",
       "f32 computes in fp32 throughout; the others keep weights as stored. bf16: activations are "
       "bf16; int8: they are rounded to int8, 32 at a time, where they meet integer weights; auto: "
       "int8 for a GGUF file, else bf16."},
      {"backend", &C::backend, "", 0, 0, "cpu|reference|cuda|auto",
       "What computes; auto: cuda where its plugin and a device can be had, or else cpu with a "
       "line "
       "that says why."},
      {"cuda-plugin", &C::cuda_plugin, "", 0, 0, "",
       "Path of the CUDA plugin; empty: polyad_cuda.so in ../lib of the program's folder, or where "
       "the system finds libraries."},
      {"cuda-device", &C::cuda_device, "", 0, 1023, "", "Which device, in the driver's order."},
      {"cuda-memory-mib", &C::cuda_memory_mib, "MiB", 0, int64_t{16} * kMiB, "",
       "Memory of the device that may be taken, for weights, K/V, adapters and work; 0: all there "
       "is."},
      {"cuda-products", &C::cuda_products, "", 0, 0, "own|auto|cublas",
       "What multiplies by a base's bf16 weights: polyad's own kernels, or NVIDIA's cuBLASLt where "
       "it gives a row the same bits in any batch. auto: cublas where the system finds its "
       "library, "
       "or else own; cublas: an error where it does not."},
      {"cuda-graph-rows", &C::cuda_graph_rows, "rows", 0, 1024, "",
       "Steps of up to so many rows go to the device as CUDA graphs, where it is one alone; 0: "
       "launch by launch, as larger ones do."},
      {"tensor-parallel", &C::tensor_parallel, "ranks", 1, 64, "",
       "Devices, from cuda-device on, that weights and K/V are split among; with the CPU, parts of "
       "its threads."},
      {"isa", &C::isa, "", 0, 0, "auto|scalar|avx2|avx512|amx",
       "Instruction set; auto takes the machine's best."},
      {"threads", &C::threads, "threads", 0, 1024, "", "Compute threads; 0: one per core."},
      {"memory-mib", &C::memory_mib, "MiB", 0, kMiB, "",
       "Memory of the K/V cache and all resident adapters together, in place of kv-mib and "
       "max-adapter-mib: each has what the other leaves; 0: each has its own."},
      {"kv-mib", &C::kv_mib, "MiB", 1, kMiB, "", "Memory for the K/V cache."},
      {"kv-dtype", &C::kv_dtype, "", 0, 0, "auto|bf16|int8|int4",
       "What K/V is held as. auto: f32 with --dtype f32, which takes nothing else, or else bf16; "
       "int8 and int4: codes, 1.88 and 3.05 times the tokens of bf16 at heads of 64."},
      {"kv-spill-mib", &C::kv_spill_mib, "MiB", 0, kMiB, "",
       "Memory for K/V evicted from the cache, to be copied back rather than computed; 0: none."},
      {"kv-spill-file-mib", &C::kv_spill_file_mib, "MiB", 0, kMiB, "",
       "A file for what that memory has no room for; 0: none."},
      {"kv-spill-dir", &C::kv_spill_dir, "", 0, 0, "",
       "Directory of that file, which has no name and goes with the process."},
      {"max-context", &C::max_context, "tokens", 0, kMiB, "",
       "Prompt and output of one request; 0: what the model allows."},
      {"max-step-tokens", &C::max_step_tokens, "tokens", 1, 65536, "",
       "Rows of one engine step, prefill chunks and decodes together."},
      {"max-running", &C::max_running, "sequences", 1, 4096, "", "Sequences in one step."},
      {"max-queued", &C::max_queued, "requests", 1, kMiB, "",
       "Requests that may wait; one more is RESOURCE_EXHAUSTED."},
      {"max-queued-tokens", &C::max_queued_tokens, "tokens", 1, int64_t{1} << 40, "",
       "Tokens that those may cost at most, of prompts and outputs."},
      {"max-wait-ms", &C::max_wait_ms, "ms", 0, 3'600'000, "",
       "Longest that a request may have to wait for its turn, as estimated when it comes; one "
       "whose "
       "estimate passes four fifths of it is RESOURCE_EXHAUSTED. 0: no limit."},
      {"max-request-mib", &C::max_request_mib, "MiB", 1, kMiB, "",
       "Memory of all requests' prompts, waiting and running."},
      {"max-prompt-kib", &C::max_prompt_kib, "KiB", 1, 4096, "", "Text of one prompt."},
      {"prefix-cache", &C::prefix_cache, "", 0, 0, "",
       "Share the K/V of equal prompt beginnings. Soft prompts are shared all the same."},
      {"adapter", &C::adapters, "", 0, 0, "",
       "NAME=PATH of an adapter to load at start-up; may be repeated."},
      {"adapter-root", &C::adapter_roots, "", 0, 0, "",
       "Directory that adapters may be loaded from while serving; may be repeated."},
      {"adapters-from", &C::adapters_from, "", 0, 0, "",
       "JSON file of the adapters that are to be there, which the server keeps itself to, also "
       "when "
       "it changes."},
      {"state-dir", &C::state_dir, "", 0, 0, "",
       "Directory of this server alone where adapters loaded while serving, aliases and pins are "
       "kept; without it they end with the process."},
      {"max-adapters", &C::max_adapters, "adapters", 1, kMiB, "", "Adapters held at a time."},
      {"max-adapter-mib", &C::max_adapter_mib, "MiB", 1, kMiB, "",
       "Memory of all resident adapters; those that nobody uses make room for others."},
      {"max-adapter-file-mib", &C::max_adapter_file_mib, "MiB", 1, kMiB, "",
       "Largest adapter file that is read."},
      {"grpc-listen", &C::grpc_listen, "", 0, 0, "",
       "HOST:PORT of the data port; port 0 takes a free one."},
      {"admin-listen", &C::admin_listen, "", 0, 0, "", "HOST:PORT of the admin port."},
      {"http-listen", &C::http_listen, "", 0, 0, "", "HOST:PORT of HTTP."},
      {"tenants-file", &C::tenants_file, "", 0, 0, "",
       "JSON file of tenants, their keys and their quotas; none: no key is asked for."},
      {"admin-token-file", &C::admin_token_file, "", 0, 0, "",
       "File with the admin token; none: the admin routes ask for none where they can be reached "
       "from this machine alone, and are closed elsewhere."},
      {"metrics-token-file", &C::metrics_token_file, "", 0, 0, "",
       "File with a token that opens /metrics alone, beside the admin token."},
      {"tls-cert", &C::tls_cert, "", 0, 0, "",
       "PEM file of the certificate that all three listeners show, its chain behind it; none: they "
       "speak plain."},
      {"tls-key", &C::tls_key, "", 0, 0, "",
       "PEM file of its private key, which only its owner and group may read."},
      {"tls-client-ca", &C::tls_client_ca, "", 0, 0, "",
       "PEM file of the authorities whose client certificates are believed; none: none is asked "
       "for."},
      {"tls-require-client-cert", &C::tls_require_client_cert, "", 0, 0, "",
       "Turn away clients without a certificate, also those with a key."},
      {"tls-handshake-timeout-ms", &C::tls_handshake_timeout_ms, "ms", 100, 600000, "",
       "For a connection's handshake."},
      {"insecure", &C::insecure, "", 0, 0, "",
       "Allow listening beyond this machine without credentials, or without TLS. Opens no admin "
       "route."},
      {"grpc-reflection", &C::grpc_reflection, "", 0, 0, "auto|on|off",
       "Whether the gRPC ports tell anyone what services and messages they have. auto: those that "
       "listen on this machine alone do."},
      {"max-streams", &C::max_streams, "streams", 1, 10000, "", "gRPC streams per connection."},
      {"grpc-max-metadata-kib", &C::grpc_max_metadata_kib, "KiB", 1, 64, "",
       "Header fields of one gRPC call."},
      {"grpc-min-ping-ms", &C::grpc_min_ping_ms, "ms", 1000, 3600000, "",
       "Between two pings of a gRPC client; two sooner ones end its connection."},
      {"grpc-max-age-ms", &C::grpc_max_age_ms, "ms", 0, 604800000, "",
       "After that a gRPC connection takes no more calls, and its client makes another; 0: any."},
      {"grpc-age-grace-ms", &C::grpc_age_grace_ms, "ms", 1000, 604800000, "",
       "For the calls under way then; those that last longer are cut."},
      {"grpc-max-idle-ms", &C::grpc_max_idle_ms, "ms", 0, 604800000, "",
       "After that without a call a gRPC connection is closed; 0: any."},
      {"stream-buffer-kib", &C::stream_buffer_kib, "KiB", 1, 65536, "",
       "Unread output of one stream before it is given up."},
      {"http-workers", &C::http_workers, "threads", 1, 64, "",
       "Threads that parse and tokenise HTTP requests."},
      {"http-max-connections", &C::http_max_connections, "connections", 1, 65536, "",
       "HTTP connections at a time."},
      {"http-request-timeout-ms", &C::http_request_timeout_ms, "ms", 100, 600000, "",
       "For a request's head, then for each 64 KiB of its body."},
      {"drain-ms", &C::drain_ms, "ms", 0, 600000, "",
       "After SIGTERM, for requests under way; then they are ended."},
      {"stall-ms", &C::stall_ms, "ms", 2000, 3600000, "",
       "A step that takes longer is reported, and the server is not ready until it ends."},
      {"log-level", &C::log_level, "", 0, 0, "debug|info|warning|error",
       "Least level that is logged."},
      {"otlp-endpoint", &C::otlp_endpoint, "", 0, 0, "",
       "http://HOST[:PORT] of an OpenTelemetry collector that gets a span for each request; none: "
       "nothing is sent."},
  };
  return knobs;
}

}  // namespace polyad
