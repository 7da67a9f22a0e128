// What a constraint costs a decode step on a real tokenizer: a mask of an automaton that was just
// compiled, one that is known already, and compiling. Advancing by the token before is in it.
//   constraint_bench MODEL [--benchmark_filter=...]     MODEL: a directory or GGUF file

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "engine/constraint/constraint.h"
#include "engine/load_tokenizer.h"
#include "engine/spec/model_files.h"

namespace polyad {
namespace {

struct Form {
  ConstraintSpec spec;
  std::string output;  // whose every token is asked for its mask
};

const std::map<std::string, Form>& Forms() {
  using Kind = ConstraintSpec::Kind;
  static const auto& forms = *new std::map<std::string, Form>{
      {"object",
       {{.kind = Kind::kJsonObject}, "{\"title\": \"A tale\", \"pages\": [1, 22, {\"x\": null}]"}},
      {"schema",
       {{.kind = Kind::kJsonSchema,
         .text =
             "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":40},"
             "\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":130},\"email\":{\"type\":"
             "\"string\","
             "\"format\":\"email\"},\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"red\","
             "\"green\",\"blue\"]},"
             "\"maxItems\":5}},\"required\":[\"name\",\"age\",\"email\"],\"additionalProperties\":"
             "false}"},
        "{\"name\": \"Ada Lovelace\", \"age\": 36, \"email\": \"ada@example.org\", \"tags\": "
        "[\"red\", \"blue\"]"}},
      {"regex",
       {{.kind = Kind::kRegex, .text = ".{0,200}"}, "Any text at all, as long as it is short."}},
      {"grammar",
       {{.kind = Kind::kGrammar,
         .text = "root ::= expr\nexpr ::= term ((\"+\" | \"-\") term)*\nterm ::= factor ((\"*\" | "
                 "\"/\") factor)*\n"
                 "factor ::= [0-9]+ | \"(\" expr \")\"\n"},
        "(12+3)*(4-(5*6))/7"}},
  };
  return forms;
}

struct Vocabulary {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const TokenTrie> trie;
};

// Masks of every place of the form's output, by the clock and the count.
template <typename Prepare>
void TimeMasks(benchmark::State& state, const Form& form, const Vocabulary& vocabulary,
               const Prepare& prepare) {
  const std::vector<int32_t> tokens =
      *vocabulary.tokenizer->Encode(form.output, {.add_special = false});
  std::shared_ptr<Constraint> constraint = *Constraint::Compile(form.spec, vocabulary.trie);
  double worst = 0;
  for (auto _ : state) {
    prepare(constraint);
    ConstraintState place;
    double seconds = 0;
    for (size_t i = 0; i <= tokens.size(); ++i) {
      const std::span<const int32_t> output = std::span(tokens).first(i);
      const auto begin = std::chrono::steady_clock::now();
      if (i > 0) constraint->Advance(output, place);
      benchmark::DoNotOptimize(constraint->Mask(output, place));
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      seconds += took.count();
      worst = std::max(worst, took.count());
    }
    state.SetIterationTime(seconds / static_cast<double>(tokens.size() + 1));
  }
  state.counters["worst_us"] = worst * 1e6;
  state.counters["states"] = static_cast<double>(constraint->automaton().num_states());
  state.counters["work"] = static_cast<double>(constraint->automaton().work());
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: constraint_bench MODEL [--benchmark_...]\n");
    return 64;
  }
  const StatusOr<ModelFiles> files = OpenModel(argv[1]);
  if (!files.ok()) return 1;
  StatusOr<std::unique_ptr<const Tokenizer>> tokenizer = LoadTokenizer(files->tokenizer());
  if (!tokenizer.ok()) return 1;
  Vocabulary vocabulary;
  vocabulary.tokenizer = *std::move(tokenizer);
  vocabulary.trie =
      std::make_shared<TokenTrie>(*vocabulary.tokenizer, vocabulary.tokenizer->vocab_size());
  std::printf("%zu tokens, %zu nodes, %zu bytes alone\n", vocabulary.trie->tokens().size(),
              vocabulary.trie->nodes().size(), vocabulary.trie->single_bytes().count());
  for (const auto& [name, form] : Forms()) {
    benchmark::RegisterBenchmark(("compile/" + name).c_str(), [&form, &vocabulary](
                                                                  benchmark::State& state) {
      for (auto _ : state)
        benchmark::DoNotOptimize(Constraint::Compile(form.spec, vocabulary.trie));
    })->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark(
        ("fresh/" + name).c_str(),
        [&form, &vocabulary](benchmark::State& state) {
          TimeMasks(state, form, vocabulary, [&](std::shared_ptr<Constraint>& constraint) {
            constraint = *Constraint::Compile(form.spec, vocabulary.trie);
          });
        })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark(("known/" + name).c_str(),
                                 [&form, &vocabulary](benchmark::State& state) {
                                   TimeMasks(state, form, vocabulary,
                                             [](std::shared_ptr<Constraint>&) {});
                                 })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
  argc -= 1;
  argv[1] = argv[0];
  benchmark::Initialize(&argc, argv + 1);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace polyad

int main(int argc, char** argv) { return polyad::Main(argc, argv); }
