#include "server/tls/tls_files.h"

#include <gtest/gtest.h>

#include "tests/server/test_certificates.h"

namespace polyad {
namespace {

class TlsFilesTest : public testing::Test {
 protected:
  TlsFilesTest() { folder_.WritePair(first_); }

  TlsPaths Paths() const { return {folder_.Path("cert.pem"), folder_.Path("key.pem"), ""}; }
  // As the supervisor calls it: what has changed is read once it has settled.
  static void Tick(TlsFiles& files) {
    files.ReloadIfChanged();
    files.ReloadIfChanged();
  }
  bool Serves(const PemPair& pair) const {
    return store_.current().material->certificate_pem() == pair.certificate;
  }
  bool HasMetric(const std::string& line) const {
    return metrics_.Render({}).find("\n" + line + "\n") != std::string::npos;
  }

  const TestAuthority authority_{"authority"};
  const PemPair first_ = authority_.SignServer();
  const PemPair second_ = authority_.SignServer(500'000);
  const PemFolder folder_;
  Metrics metrics_;
  TlsStore store_{[this] {
    folder_.WritePair(first_);
    return TlsMaterial::Load(Paths()).value();
  }()};
};

TEST_F(TlsFilesTest, AChangedPairIsTakenOnceItHasSettled) {
  TlsFiles files(Paths(), store_, metrics_);
  const uint64_t version = store_.current().version;
  Tick(files);
  EXPECT_EQ(store_.current().version, version) << "nothing has changed";
  folder_.Write("cert.pem", second_.certificate);
  files.ReloadIfChanged();  // the key is still to come
  folder_.Write("key.pem", second_.key);
  files.ReloadIfChanged();
  EXPECT_FALSE(HasMetric("polyad_tls_stale 1")) << "half of a pair is not reported";
  files.ReloadIfChanged();
  EXPECT_TRUE(Serves(second_));
  EXPECT_GT(store_.current().version, version);
  EXPECT_TRUE(HasMetric("polyad_tls_reloads_total{result=\"ok\"} 1"));
}

TEST_F(TlsFilesTest, ABadPairChangesNothingAndIsReported) {
  TlsFiles files(Paths(), store_, metrics_);
  folder_.Write("cert.pem", second_.certificate);
  Tick(files);
  EXPECT_TRUE(Serves(first_));
  EXPECT_TRUE(HasMetric("polyad_tls_stale 1"));
  EXPECT_TRUE(HasMetric("polyad_tls_reloads_total{result=\"refused\"} 1"));
  Tick(files);
  EXPECT_TRUE(HasMetric("polyad_tls_reloads_total{result=\"refused\"} 1")) << "once is enough";
  std::filesystem::remove(folder_.Path("key.pem"));
  Tick(files);
  EXPECT_TRUE(Serves(first_));
  folder_.Write("key.pem", second_.key, 0644);
  Tick(files);
  EXPECT_TRUE(Serves(first_));
  folder_.Write("key.pem", second_.key);
  EXPECT_TRUE(files.Reload().ok());
  EXPECT_TRUE(Serves(second_));
  EXPECT_TRUE(HasMetric("polyad_tls_stale 0"));
}

TEST_F(TlsFilesTest, TheCertificatesEndIsAMetric) {
  EXPECT_EQ(metrics_.Render({}).find("polyad_tls_certificate_expiry_seconds{"), std::string::npos);
  TlsFiles files(Paths(), store_, metrics_);
  const auto end = [&] {
    const std::string text = metrics_.Render({});
    constexpr std::string_view kName = "\npolyad_tls_certificate_expiry_seconds ";
    return std::stod(text.substr(text.find(kName) + kName.size()));
  };
  const double first_end = static_cast<double>(store_.current().material->expires_unix_s());
  EXPECT_NEAR(end(), first_end, 1e4);  // as the text format rounds it
  folder_.WritePair(second_);
  EXPECT_TRUE(files.Reload().ok());
  EXPECT_NEAR(end(), first_end + 413'600, 1e4);
}

}  // namespace
}  // namespace polyad
