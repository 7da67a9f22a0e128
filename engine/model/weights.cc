#include "engine/model/weights.h"

#include <initializer_list>

namespace polyad {
namespace {

class Reader {
 public:
  Reader(const ModelFiles& files, Backend& backend) : files_(files), backend_(backend) {}

  StatusOr<std::vector<float>> Vector(int64_t layer, WeightKind kind) const {
    if (!files_.HasWeight(layer, kind)) return std::vector<float>();
    POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, files_.ReadWeight(layer, kind));
    return ToFloats(tensor);
  }

  StatusOr<NormWeights> Norm(int64_t layer, WeightKind weight, WeightKind bias) const {
    NormWeights norm;
    POLYAD_ASSIGN_OR_RETURN(norm.weight, Vector(layer, weight));
    POLYAD_ASSIGN_OR_RETURN(norm.bias, Vector(layer, bias));
    return norm;
  }

  StatusOr<std::unique_ptr<PackedMatrix>> Matrix(int64_t layer,
                                                 std::initializer_list<WeightKind> kinds) const {
    std::vector<OwnedTensor> tensors;
    std::vector<TensorView> parts;
    for (const WeightKind kind : kinds) {
      POLYAD_ASSIGN_OR_RETURN(OwnedTensor tensor, files_.ReadWeight(layer, kind));
      tensors.push_back(std::move(tensor));
    }
    for (const OwnedTensor& tensor : tensors) parts.push_back(tensor.view());
    return backend_.PackMatrix(parts);
  }

  // Biases of fused parts, one after another; empty where none of them has one.
  StatusOr<std::vector<float>> Bias(int64_t layer, std::initializer_list<WeightKind> kinds) const {
    std::vector<float> all;
    for (const WeightKind kind : kinds) {
      POLYAD_ASSIGN_OR_RETURN(const std::vector<float> part, Vector(layer, kind));
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }

  StatusOr<LinearWeights> Linear(int64_t layer, std::initializer_list<WeightKind> kinds,
                                 std::initializer_list<WeightKind> biases) const {
    LinearWeights linear;
    POLYAD_ASSIGN_OR_RETURN(linear.matrix, Matrix(layer, kinds));
    POLYAD_ASSIGN_OR_RETURN(linear.bias, Bias(layer, biases));
    return linear;
  }

 private:
  const ModelFiles& files_;
  Backend& backend_;
};

StatusOr<LayerWeights> ReadLayer(const Reader& reader, const ModelSpec& spec, int64_t layer) {
  using K = WeightKind;
  LayerWeights weights;
  POLYAD_ASSIGN_OR_RETURN(weights.attention_norm,
                          reader.Norm(layer, K::kAttnNorm, K::kAttnNormBias));
  POLYAD_ASSIGN_OR_RETURN(weights.mlp_norm, reader.Norm(layer, K::kMlpNorm, K::kMlpNormBias));
  POLYAD_ASSIGN_OR_RETURN(weights.q_norm.weight, reader.Vector(layer, K::kQNorm));
  POLYAD_ASSIGN_OR_RETURN(weights.k_norm.weight, reader.Vector(layer, K::kKNorm));
  if (spec.fused_qkv) {
    POLYAD_ASSIGN_OR_RETURN(weights.qkv, reader.Linear(layer, {K::kQkv}, {K::kQkvBias}));
  } else {
    POLYAD_ASSIGN_OR_RETURN(weights.qkv, reader.Linear(layer, {K::kQ, K::kK, K::kV},
                                                       {K::kQBias, K::kKBias, K::kVBias}));
  }
  POLYAD_ASSIGN_OR_RETURN(weights.attention_out, reader.Linear(layer, {K::kO}, {K::kOBias}));
  if (spec.gated_mlp) {
    POLYAD_ASSIGN_OR_RETURN(weights.mlp_in,
                            reader.Linear(layer, {K::kGate, K::kUp}, {K::kGateBias, K::kUpBias}));
    POLYAD_ASSIGN_OR_RETURN(weights.mlp_out, reader.Linear(layer, {K::kDown}, {K::kDownBias}));
  } else {
    POLYAD_ASSIGN_OR_RETURN(weights.mlp_in, reader.Linear(layer, {K::kFcIn}, {K::kFcInBias}));
    POLYAD_ASSIGN_OR_RETURN(weights.mlp_out, reader.Linear(layer, {K::kFcOut}, {K::kFcOutBias}));
  }
  return weights;
}

// Everything but the layers.
StatusOr<Weights> ReadOuter(const Reader& reader, const ModelSpec& spec) {
  Weights weights;
  POLYAD_ASSIGN_OR_RETURN(weights.embedding, reader.Matrix(-1, {WeightKind::kEmbed}));
  if (spec.learned_positions) {
    POLYAD_ASSIGN_OR_RETURN(weights.position_embedding,
                            reader.Matrix(-1, {WeightKind::kPositions}));
  }
  POLYAD_ASSIGN_OR_RETURN(weights.final_norm,
                          reader.Norm(-1, WeightKind::kFinalNorm, WeightKind::kFinalNormBias));
  if (spec.tie_embeddings) {
    weights.head = weights.embedding;
  } else {
    POLYAD_ASSIGN_OR_RETURN(weights.head, reader.Matrix(-1, {WeightKind::kHead}));
  }
  return weights;
}

PrecisionBytes BytesOf(const NormWeights& norm) {
  return FloatBytes(norm.weight.size() + norm.bias.size());
}

PrecisionBytes BytesOf(const LayerWeights& layer) {
  PrecisionBytes bytes;
  for (const LinearWeights* linear :
       {&layer.qkv, &layer.attention_out, &layer.mlp_in, &layer.mlp_out}) {
    bytes += linear->matrix->bytes() + FloatBytes(linear->bias.size());
  }
  for (const NormWeights* norm :
       {&layer.attention_norm, &layer.mlp_norm, &layer.q_norm, &layer.k_norm}) {
    bytes += BytesOf(*norm);
  }
  return bytes;
}

}  // namespace

WeightBytes Weights::bytes() const {
  WeightBytes bytes;
  bytes.embeddings = embedding->bytes();
  if (head != embedding) bytes.embeddings += head->bytes();
  if (position_embedding != nullptr) bytes.embeddings += position_embedding->bytes();
  bytes.layers = BytesOf(final_norm);
  for (const LayerWeights& layer : layers) bytes.layers += BytesOf(layer);
  return bytes;
}

StatusOr<Weights> LoadWeights(const ModelFiles& files, Backend& backend) {
  const ModelSpec& spec = files.spec();
  const Reader reader(files, backend);
  POLYAD_ASSIGN_OR_RETURN(Weights weights, ReadOuter(reader, spec));
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    POLYAD_ASSIGN_OR_RETURN(LayerWeights layer_weights, ReadLayer(reader, spec, layer));
    weights.layers.push_back(std::move(layer_weights));
  }
  return weights;
}

StatusOr<WeightBytes> MeasureWeights(const ModelFiles& files, Backend& backend) {
  const ModelSpec& spec = files.spec();
  const Reader reader(files, backend);
  WeightBytes bytes;
  {
    POLYAD_ASSIGN_OR_RETURN(const Weights outer, ReadOuter(reader, spec));
    bytes = outer.bytes();
  }
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    POLYAD_ASSIGN_OR_RETURN(const LayerWeights weights, ReadLayer(reader, spec, layer));
    bytes.layers += BytesOf(weights);
  }
  return bytes;
}

}  // namespace polyad
