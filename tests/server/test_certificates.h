#pragma once

// Certificates that tests make themselves, by OpenSSL's library: an authority, and what it signs.

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

namespace polyad {

struct PemPair {
  std::string certificate;
  std::string key;
};

struct CertificateOptions {
  std::string common_name{};
  std::string names{};  // subject alternative names as OpenSSL's configuration has them, or empty
  int64_t begin_s = -3600;  // from now
  int64_t end_s = 86'400;
};

class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name) : key_(EVP_EC_gen("P-256"), &EVP_PKEY_free) {
    certificate_ = Make({.common_name = name, .names = ""}, *key_, nullptr);
  }

  std::string pem() const { return PemOf(*certificate_); }
  PemPair Sign(const CertificateOptions& options) const {
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"),
                                                                  &EVP_PKEY_free);
    const Certificate made = Make(options, *key, certificate_.get());
    return {PemOf(*made), KeyPem(*key, "")};
  }
  // What a local server shows.
  PemPair SignServer(int64_t end_s = 86'400) const {
    return Sign({.common_name = "server", .names = "DNS:localhost,IP:127.0.0.1", .end_s = end_s});
  }
  static std::string LockedKeyPem(const std::string& password) {
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"),
                                                                  &EVP_PKEY_free);
    return KeyPem(*key, password);
  }

 private:
  using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

  // Signed by the authority, or, where `issuer` is null, by itself as one.
  Certificate Make(const CertificateOptions& options, EVP_PKEY& key, X509* issuer) const {
    static long serial = 1;
    Certificate made(X509_new(), &X509_free);
    X509_set_version(made.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.get()), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(made.get()), static_cast<long>(options.begin_s));
    X509_gmtime_adj(X509_getm_notAfter(made.get()), static_cast<long>(options.end_s));
    X509_NAME* subject = X509_get_subject_name(made.get());
    if (!options.common_name.empty()) {
      X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(options.common_name.data()),
                                 static_cast<int>(options.common_name.size()), -1, 0);
    }
    X509* signer = issuer == nullptr ? made.get() : issuer;
    X509_set_issuer_name(made.get(), X509_get_subject_name(signer));
    X509_set_pubkey(made.get(), &key);
    Extend(*made, *signer, NID_basic_constraints,
           issuer == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
    if (!options.names.empty()) Extend(*made, *signer, NID_subject_alt_name, options.names);
    X509_sign(made.get(), key_.get(), EVP_sha256());
    return made;
  }
  static void Extend(X509& made, X509& issuer, int nid, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, &issuer, &made, nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    X509_add_ext(&made, extension, -1);
    X509_EXTENSION_free(extension);
  }
  static std::string TextOf(BIO& bio) {
    char* data = nullptr;
    const long size = BIO_get_mem_data(&bio, &data);
    return std::string(data, static_cast<size_t>(size));
  }
  static std::string PemOf(X509& certificate) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), &BIO_free);
    PEM_write_bio_X509(bio.get(), &certificate);
    return TextOf(*bio);
  }
  static std::string KeyPem(EVP_PKEY& key, const std::string& password) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), &BIO_free);
    PEM_write_bio_PKCS8PrivateKey(bio.get(), &key, password.empty() ? nullptr : EVP_aes_128_cbc(),
                                  password.data(), static_cast<int>(password.size()), nullptr,
                                  nullptr);
    return TextOf(*bio);
  }

  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_;
  Certificate certificate_{nullptr, &X509_free};
};

// A directory of the test's own for PEM files; each takes the place of the one before it whole.
class PemFolder {
 public:
  PemFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "polyad-tls-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~PemFolder() { std::filesystem::remove_all(folder_); }
  PemFolder(const PemFolder&) = delete;
  PemFolder& operator=(const PemFolder&) = delete;

  std::string Write(const std::string& name, const std::string& text, mode_t mode = 0600) const {
    std::ofstream(folder_ + "/next") << text;
    ::chmod((folder_ + "/next").c_str(), mode);
    std::filesystem::rename(folder_ + "/next", Path(name));
    return Path(name);
  }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  void WritePair(const PemPair& pair) const {
    Write("cert.pem", pair.certificate);
    Write("key.pem", pair.key);
  }

 private:
  std::string folder_;
};

}  // namespace polyad
