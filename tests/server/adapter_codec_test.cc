#include "server/adapter_codec.h"

#include <gtest/gtest.h>

#include <cmath>

#include "server/field_error.h"

namespace polyad {
namespace {

v1::LoadAdapterRequest Valid() {
  v1::LoadAdapterRequest request;
  request.set_name("pirate");
  request.set_uri("adapters/pirate");
  return request;
}

TEST(AdapterCodecTest, DecodesEveryField) {
  v1::LoadAdapterRequest request = Valid();
  request.set_pinned(true);
  request.set_replace(true);
  request.set_keep_previous(true);
  request.set_expected_digest(std::string(64, 'A'));
  request.set_expected_version(3);
  request.add_allowed_tenants("alice");
  (*request.mutable_options())["task"] = 2;
  request.mutable_defaults()->mutable_sampling()->set_top_k(7);
  const auto spec = DecodeLoadAdapter(request);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name, "pirate");
  EXPECT_EQ(spec->path, "adapters/pirate");
  EXPECT_TRUE(spec->pinned);
  EXPECT_TRUE(spec->replace);
  EXPECT_TRUE(spec->keep_previous);
  EXPECT_EQ(spec->share, std::nullopt);
  EXPECT_EQ(spec->expected_digest, std::string(64, 'a'));
  EXPECT_EQ(spec->expected_version, 3);
  EXPECT_EQ(spec->allowed_tenants, std::vector<std::string>{"alice"});
  EXPECT_EQ(spec->options, (AdapterOptions{{"task", 2}}));
  ASSERT_NE(spec->defaults, nullptr);
  AdapterInfo info;
  info.defaults = spec->defaults;
  info.kept = true;
  info.share = 0.25;
  v1::Adapter adapter;
  EncodeAdapter(info, adapter);
  EXPECT_EQ(adapter.defaults().sampling().top_k(), 7);
  EXPECT_TRUE(adapter.kept());
  EXPECT_EQ(adapter.share(), 0.25);
  request.clear_keep_previous();
  request.set_share(0);
  EXPECT_EQ(DecodeLoadAdapter(request)->share, 0);
}

TEST(AdapterCodecTest, RefusesByTheFieldsName) {
  const auto blamed = [](const v1::LoadAdapterRequest& request) {
    return BlamedField(DecodeLoadAdapter(request).status());
  };
  v1::LoadAdapterRequest request = Valid();
  request.set_name("../x");
  EXPECT_EQ(blamed(request), "name");
  request = Valid();
  request.clear_uri();
  EXPECT_EQ(blamed(request), "uri");
  request.set_uri(std::string(4097, 'a'));
  EXPECT_EQ(blamed(request), "uri");
  request = Valid();
  request.set_expected_digest("xyz");
  EXPECT_EQ(blamed(request), "expected_digest");
  request = Valid();
  for (const double share : {-0.001, 1.0, 2.0, double{NAN}, double{INFINITY}, -double{INFINITY}}) {
    request.set_share(share);
    EXPECT_EQ(blamed(request), "share") << share;
  }
  request.set_share(0.5);
  request.set_keep_previous(true);
  EXPECT_EQ(blamed(request), "share");
  request = Valid();
  request.set_expected_version(-1);
  EXPECT_EQ(blamed(request), "expected_version");
  request = Valid();
  for (int i = 0; i < 257; ++i) request.add_allowed_tenants("t");
  EXPECT_EQ(blamed(request), "allowed_tenants");
  request = Valid();
  for (int i = 0; i < 9; ++i) (*request.mutable_options())[std::to_string(i)] = i;
  EXPECT_EQ(blamed(request), "options");
  request = Valid();
  (*request.mutable_options())[std::string(65, 'k')] = 1;
  EXPECT_EQ(blamed(request), "options");
  request = Valid();
  request.mutable_defaults()->mutable_sampling()->set_n(2);
  EXPECT_EQ(blamed(request), "defaults.sampling.n");
  request = Valid();
  request.mutable_defaults()->set_system_prompt(std::string((64 << 10) + 1, 'a'));
  EXPECT_EQ(blamed(request), "defaults.system_prompt");
  request = Valid();
  request.mutable_defaults()->set_chat_template(std::string((64 << 10) + 1, 'a'));
  EXPECT_EQ(blamed(request), "defaults.chat_template");
  request.mutable_defaults()->set_chat_template("{% for m in messages %}no end");
  EXPECT_EQ(blamed(request), "defaults.chat_template");
}

TEST(AdapterCodecTest, EncodesWhatServes) {
  AdapterInfo info;
  info.report.name = "pirate";
  info.report.version = 4;
  info.report.ranks = {8, 16};
  info.report.targets = {"q_proj"};
  info.report.layer_delta_norms = {0.5, 0.25};
  info.num_leases = 2;
  info.aliases = {"captain"};
  v1::Adapter adapter;
  EncodeAdapter(info, adapter);
  EXPECT_EQ(adapter.report().version(), 4);
  EXPECT_EQ(adapter.report().ranks(1), 16);
  EXPECT_EQ(adapter.report().layer_delta_norms_size(), 2);
  EXPECT_EQ(adapter.num_leases(), 2);
  EXPECT_EQ(adapter.aliases(0), "captain");

  EngineLoad load;
  load.num_running = 3;
  load.running_adapters = {"pirate"};
  v1::GetLoadResponse encoded;
  EncodeLoad(load, encoded);
  EXPECT_EQ(encoded.num_running(), 3);
  EXPECT_EQ(encoded.running_adapters(0), "pirate");
}

}  // namespace
}  // namespace polyad
