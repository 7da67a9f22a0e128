#include "engine/spec/sites.h"

#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad {
namespace {

ModelSpec Llama() {
  ModelSpec spec;
  spec.architecture = Architecture::kLlama;
  spec.hidden_size = 64;
  spec.num_layers = 12;
  spec.num_heads = 4;
  spec.num_kv_heads = 2;
  spec.head_dim = 24;
  spec.intermediate_size = 80;
  spec.vocab_size = 320;
  return spec;
}

ModelSpec Gpt2() {
  ModelSpec spec = Llama();
  spec.architecture = Architecture::kGpt2;
  spec.num_kv_heads = 4;
  spec.head_dim = 16;
  spec.gated_mlp = false;
  spec.fused_qkv = true;
  return spec;
}

TEST(SitesTest, ResolvesHuggingFacePaths) {
  const ModelSpec llama = Llama();
  EXPECT_EQ(*ResolveModulePath(llama, "model.layers.3.self_attn.q_proj"), (SiteRef{3, Site::kQ}));
  EXPECT_EQ(*ResolveModulePath(llama, "model.layers.11.mlp.down_proj"), (SiteRef{11, Site::kDown}));
  EXPECT_EQ(*ResolveModulePath(llama, "lm_head"), (SiteRef{-1, Site::kHead}));
  EXPECT_EQ(*ResolveModulePath(llama, "model.embed_tokens"), (SiteRef{-1, Site::kEmbed}));
  const ModelSpec gpt2 = Gpt2();
  EXPECT_EQ(*ResolveModulePath(gpt2, "transformer.h.0.attn.c_attn"), (SiteRef{0, Site::kQkv}));
  EXPECT_EQ(*ResolveModulePath(gpt2, "transformer.h.0.attn.c_proj"), (SiteRef{0, Site::kO}));
  EXPECT_EQ(*ResolveModulePath(gpt2, "transformer.h.0.mlp.c_proj"), (SiteRef{0, Site::kFcOut}));
  EXPECT_EQ(*ResolveModulePath(gpt2, "transformer.wte"), (SiteRef{-1, Site::kEmbed}));
}

TEST(SitesTest, RefusesPathsTheModelDoesNotHave) {
  const ModelSpec llama = Llama();
  for (const std::string path :
       {"", "model", "model.layers.", "model.layers.3", "model.layers.3.",
        "model.layers.12.mlp.up_proj", "model.layers.1000000000.mlp.up_proj",
        "model.layers.99999999999999999999.mlp.up_proj", "model.layers.-1.mlp.up_proj",
        "model.layers.03.mlp.up_proj", "model.layers.+3.mlp.up_proj", "model.layers. 3.mlp.up_proj",
        "model.layers.3.mlp.up_proj.", "model.layers.3.mlp", "model.layers.3.input_layernorm",
        "layers.3.mlp.up_proj", "Model.layers.3.mlp.up_proj", "transformer.h.0.attn.c_attn",
        "model.norm"}) {
    EXPECT_EQ(ResolveModulePath(llama, path).status().code(), absl::StatusCode::kNotFound) << path;
  }
}

TEST(SitesTest, PathsRoundTrip) {
  for (const ModelSpec& spec : {Llama(), Gpt2()}) {
    for (const Site site : LayerSites(spec)) {
      ASSERT_TRUE(HasSite(spec, site));
      const SiteRef ref{7, site};
      EXPECT_EQ(*ResolveModulePath(spec, ModulePath(spec, ref)), ref) << SiteName(site);
    }
    for (const Site site : {Site::kHead, Site::kEmbed}) {
      const SiteRef ref{-1, site};
      EXPECT_EQ(*ResolveModulePath(spec, ModulePath(spec, ref)), ref);
    }
  }
}

TEST(SitesTest, ShapesAreOutByIn) {
  const ModelSpec spec = Llama();
  EXPECT_EQ(ShapeOf(spec, Site::kQ), (SiteShape{96, 64, 0}));
  EXPECT_EQ(ShapeOf(spec, Site::kK), (SiteShape{48, 64, 96}));
  EXPECT_EQ(ShapeOf(spec, Site::kV), (SiteShape{48, 64, 144}));
  EXPECT_EQ(ShapeOf(spec, Site::kO), (SiteShape{64, 96, 0}));
  EXPECT_EQ(ShapeOf(spec, Site::kGate), (SiteShape{80, 64, 0}));
  EXPECT_EQ(ShapeOf(spec, Site::kUp), (SiteShape{80, 64, 80}));
  EXPECT_EQ(ShapeOf(spec, Site::kDown), (SiteShape{64, 80, 0}));
  EXPECT_EQ(ShapeOf(spec, Site::kHead), (SiteShape{320, 64, 0}));
  EXPECT_EQ(ShapeOf(Gpt2(), Site::kQkv), (SiteShape{192, 64, 0}));
  EXPECT_EQ(ShapeOf(Gpt2(), Site::kFcIn), (SiteShape{80, 64, 0}));
}

TEST(SitesTest, ASiteBelongsToOneStyleOfModel) {
  EXPECT_FALSE(HasSite(Llama(), Site::kQkv));
  EXPECT_FALSE(HasSite(Llama(), Site::kFcIn));
  EXPECT_FALSE(HasSite(Gpt2(), Site::kQ));
  EXPECT_FALSE(HasSite(Gpt2(), Site::kGate));
}

}  // namespace
}  // namespace polyad
