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

// `inner` as one more child of `outer`.
OrderedJson Within(OrderedJson outer, const OrderedJson& inner) {
  outer["adapter_setup"]["children"].push_back(inner["adapter_setup"]);
  return outer;
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
  EXPECT_THAT(ParseHubSetup(json)->root.weights, testing::ElementsAre(0.5, 0.5));
  json["adapter_setup"]["kwargs"]["weights"] = {1, 3};
  EXPECT_THAT(ParseHubSetup(json)->root.weights, testing::ElementsAre(0.25, 0.75));
  json["adapter_setup"]["kwargs"]["weights"] = {1, -1};
  ExpectRefusal(json, kInvalid, "weights");
  json["adapter_setup"]["kwargs"]["weights"] = {1, 2, 3};
  ExpectRefusal(json, kInvalid, "weights");
}

TEST(HubSetup, AnAverageDividesByItsAdaptersEvenWhereOneActsAlone) {
  OrderedJson json = SetupOf("Average", {"a", "b", "c"});
  json["adapter_setup"]["kwargs"]["weights"] = {1, 2, 3};
  const HubNode setup = ParseHubSetup(json)->root;
  EXPECT_DOUBLE_EQ(*setup.AverageWeight(2, 3), 0.5 / 3);
  EXPECT_DOUBLE_EQ(*setup.AverageWeight(2, 1), 1.0 / 3);
  EXPECT_EQ(setup.AverageWeight(2, 2).status().code(), kUnimplemented);
}

TEST(HubSetup, CompositionsNestAsTheLibraryRunsThem) {
  const OrderedJson average = Within(SetupOf("Average", {"a"}), SetupOf("Stack", {"b", "c"}));
  const OrderedJson json =
      Within(Within(SetupOf("Stack", {}), average), SetupOf("Fuse", {"d", "e"}));
  const StatusOr<HubSetup> setup = ParseHubSetup(json);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_THAT(setup->Folders(), testing::ElementsAre("a", "b", "c", "d", "e", "d,e"));
  const HubNode& inner = setup->root.children[0];
  EXPECT_EQ(inner.composition, HubComposition::kAverage);
  EXPECT_EQ(inner.children[1].composition, HubComposition::kStack);
  EXPECT_TRUE(inner.Names(2));
  EXPECT_FALSE(inner.Names(3));
  EXPECT_EQ(setup->MultiTask(), nullptr);
  const StatusOr<HubSetup> choice =
      ParseHubSetup(Within(SetupOf("Stack", {"c"}), SetupOf("MultiTask", {"a", "b"})));
  ASSERT_TRUE(choice.ok()) << choice.status();
  ASSERT_NE(choice->MultiTask(), nullptr);
  EXPECT_EQ(choice->MultiTask()->children.size(), 2u);
}

TEST(HubSetup, WhatIsNotServedIsRefusedByName) {
  ExpectRefusal(SetupOf("Parallel", {"a", "b"}), kUnimplemented, "Parallel");
  ExpectRefusal(SetupOf("Stack", {"a", "a"}), kUnimplemented, "twice");
  ExpectRefusal(SetupOf("Fuse", {"a"}), kUnimplemented, "one adapter");
  ExpectRefusal(SetupOf("Stack", {}), kInvalid, "children");
  ExpectRefusal(SetupOf("Stack", {"../a"}), kInvalid, "children");
  ExpectRefusal(OrderedJson::array(), kInvalid, "adapter_setup.json");
  ExpectRefusal(Within(SetupOf("Average", {"a"}), SetupOf("Fuse", {"b", "c"})), kUnimplemented,
                "Fuse within Average is not served at depth 0");
  ExpectRefusal(Within(SetupOf("Stack", {"a"}), SetupOf("Stack", {"b", "c"})), kUnimplemented,
                "Stack within Stack is not served at depth 0");
  ExpectRefusal(Within(SetupOf("Stack", {"a"}), SetupOf("Average", {"a", "c"})), kUnimplemented,
                "twice");
  ExpectRefusal(Within(SetupOf("MultiTask", {"a"}), SetupOf("Average", {"b", "c"})), kUnimplemented,
                "Average within MultiTask");
  OrderedJson choices = Within(SetupOf("Stack", {}), SetupOf("MultiTask", {"a", "b"}));
  ExpectRefusal(Within(choices, SetupOf("MultiTask", {"c", "d"})), kUnimplemented,
                "2 compositions");
  OrderedJson deep = Within(SetupOf("Stack", {}), SetupOf("Fuse", {"x", "y"}));
  for (int i = 0; i < 20; ++i) deep = Within(SetupOf("Average", {}), deep);
  ExpectRefusal(deep, kInvalid, "nested too deep");
  ExpectRefusal({{"adapter_setup", Single("a")}}, kUnimplemented, "'single' alone");
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
