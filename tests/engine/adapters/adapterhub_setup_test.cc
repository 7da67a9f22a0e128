// AdapterHub's adapter_setup.json: what is read, and what is refused by name.
#include "engine/adapters/adapterhub_setup.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad {
namespace {

OrderedJson Single(const std::string& name) {
  return {{"type", "single"}, {"children", OrderedJson::array({name})}};
}

OrderedJson SetupOf(const std::string& type, const std::vector<std::string>& names) {
  OrderedJson children = OrderedJson::array();
  for (const std::string& name : names) children.push_back(Single(name));
  return {{"adapter_setup", {{"type", type}, {"children", children}}},
          {"head_setup", nullptr},
          {"version", "adapters.1.3.0"}};
}

void ExpectRefusal(const OrderedJson& json, absl::StatusCode code, const std::string& message) {
  const Status status = ParseHubSetup(json).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(message));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(HubSetup, AFusionLiesInAFolderNamedAfterItsAdapters) {
  const StatusOr<HubSetup> setup = ParseHubSetup(SetupOf("Fuse", {"b", "a"}));
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_THAT(setup->Folders(), testing::ElementsAre("b", "a", "b,a"));
}

TEST(HubSetup, WeightsOfAnAverageSumToOne) {
  OrderedJson json = SetupOf("Average", {"a", "b"});
  EXPECT_THAT(ParseHubSetup(json)->weights, testing::ElementsAre(0.5, 0.5));
  json["adapter_setup"]["kwargs"]["weights"] = {1, 3};
  EXPECT_THAT(ParseHubSetup(json)->weights, testing::ElementsAre(0.25, 0.75));
  json["adapter_setup"]["kwargs"]["weights"] = {1, -1};
  ExpectRefusal(json, kInvalid, "weights");
  json["adapter_setup"]["kwargs"]["weights"] = {1, 2, 3};
  ExpectRefusal(json, kInvalid, "weights");
}

TEST(HubSetup, AnAverageDividesByItsAdaptersEvenWhereOneActsAlone) {
  OrderedJson json = SetupOf("Average", {"a", "b", "c"});
  json["adapter_setup"]["kwargs"]["weights"] = {1, 2, 3};
  const HubSetup setup = *ParseHubSetup(json);
  EXPECT_DOUBLE_EQ(*setup.AverageWeight(2, 3), 0.5 / 3);
  EXPECT_DOUBLE_EQ(*setup.AverageWeight(2, 1), 1.0 / 3);
  EXPECT_EQ(setup.AverageWeight(2, 2).status().code(), kUnimplemented);
}

TEST(HubSetup, WhatIsNotServedIsRefusedByName) {
  ExpectRefusal(SetupOf("Parallel", {"a", "b"}), kUnimplemented, "Parallel");
  ExpectRefusal(SetupOf("Stack", {"a", "a"}), kUnimplemented, "twice");
  ExpectRefusal(SetupOf("Fuse", {"a"}), kUnimplemented, "one adapter");
  ExpectRefusal(SetupOf("Stack", {}), kInvalid, "children");
  ExpectRefusal(SetupOf("Stack", {"../a"}), kInvalid, "children");
  ExpectRefusal(OrderedJson::array(), kInvalid, "adapter_setup.json");
  OrderedJson nested = SetupOf("Stack", {"a"});
  nested["adapter_setup"]["children"].push_back(SetupOf("Fuse", {"b", "c"})["adapter_setup"]);
  ExpectRefusal(nested, kUnimplemented, "Fuse within another composition");
  OrderedJson heads = SetupOf("Stack", {"a", "b"});
  heads["head_setup"] = Single("a");
  ExpectRefusal(heads, kUnimplemented, "head_setup");
  OrderedJson many = SetupOf("Stack", {});
  for (int i = 0; i < 17; ++i) {
    many["adapter_setup"]["children"].push_back(Single("a" + std::to_string(i)));
  }
  ExpectRefusal(many, kInvalid, "1 to 16");
}

}  // namespace
}  // namespace polyad
