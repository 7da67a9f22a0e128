#include "engine/runtime/tenant_ledger.h"

#include <gtest/gtest.h>

namespace polyad {
namespace {

TEST(TenantLedger, ANewcomerStartsAtTheLeastServedOfTheActive) {
  TenantLedger ledger;
  ledger.Enter("a")->served = 100;
  ledger.Enter("b")->served = 70;
  EXPECT_EQ(ledger.Enter("c")->served, 70);
}

TEST(TenantLedger, IdlingEarnsNoCreditAndPaysNoDebt) {
  TenantLedger ledger;
  TenantLedger::Account* busy = ledger.Enter("busy");
  ledger.Enter("idler");
  TenantLedger::Account* heavy = ledger.Enter("heavy");
  heavy->served = 1000;
  ledger.Leave("idler");
  ledger.Leave("heavy");
  busy->served = 500;
  EXPECT_EQ(ledger.Enter("idler")->served, 500);
  EXPECT_EQ(ledger.Enter("heavy")->served, 1000);
}

TEST(TenantLedger, TheNewestRequestSaysWhatItsTenantMayHave) {
  TenantLedger ledger;
  const TenantLedger::Account* a = ledger.Enter("a", {.weight = 2 * kUnitWeight});
  EXPECT_EQ(a->share.ChargeOf(1000), 500);
  ledger.Enter("a", {.weight = kUnitWeight / 2, .max_sequences = 3});
  EXPECT_EQ(a->share.ChargeOf(1000), 2000);
  EXPECT_EQ(a->share.max_sequences, 3);
}

TEST(TenantLedger, OnlyTheFirstRequestOfATenantLiftsIt) {
  TenantLedger ledger;
  TenantLedger::Account* a = ledger.Enter("a");
  ledger.Enter("b")->served = 50;
  a->served = 10;
  EXPECT_EQ(ledger.Enter("a")->served, 10);
}

TEST(TenantLedger, RemembersABoundedNumberOfIdleTenants) {
  TenantLedger ledger;
  for (size_t i = 0; i < TenantLedger::kMaxIdleTenants + 100; ++i) {
    ledger.Enter("tenant-" + std::to_string(i));
    ledger.Leave("tenant-" + std::to_string(i));
  }
  EXPECT_EQ(ledger.size(), TenantLedger::kMaxIdleTenants);
}

}  // namespace
}  // namespace polyad
