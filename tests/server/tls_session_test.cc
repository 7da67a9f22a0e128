// HTTPS: our server against OpenSSL's client. covers: server/http/http_connection.cc

#include "server/tls/tls_session.h"

#include <gtest/gtest.h>

#include <atomic>

#include "server/http/http_server.h"
#include "server/tls/tls_store.h"
#include "tests/server/serving_fixture.h"
#include "tests/server/tls_client.h"

namespace polyad {
namespace {

class TlsSessionTest : public testing::Test {
 protected:
  TlsSessionTest() {
    folder_.WritePair(authority_.SignServer());
    folder_.Write("ca.pem", clients_.pem());
  }

  std::shared_ptr<const TlsMaterial> Load(bool require_client = false) const {
    return TlsMaterial::Load({folder_.Path("cert.pem"), folder_.Path("key.pem"),
                              folder_.Path("ca.pem"), require_client})
        .value();
  }
  // Answers with the request's body and how many names its client's certificate has.
  void Start(HttpServer::Options options = {}, bool require_client = false) {
    store_ = std::make_unique<TlsStore>(Load(require_client));
    options.listen = "127.0.0.1:0";
    options.tls = store_.get();
    server_ =
        HttpServer::Start(options, clock_, [](const std::shared_ptr<HttpExchange>& exchange) {
          const auto peer = exchange->peer();
          exchange->Respond(200, "text/plain",
                            (peer == nullptr ? "nobody" : std::to_string(peer->names.size())) +
                                " " + exchange->request().body);
        }).value();
  }
  TlsClientOptions Believing() const { return {.authority = authority_.pem()}; }
  const std::string& address() const { return server_->address(); }

  RealClock clock_;
  const TestAuthority authority_{"authority"};
  const TestAuthority clients_{"clients"};
  const PemFolder folder_;
  std::unique_ptr<TlsStore> store_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(TlsSessionTest, RequestsAreAnsweredOneAfterAnotherAndTheEndIsSaid) {
  Start();
  TlsClient client(address(), Believing());
  ASSERT_TRUE(client.connected()) << client.error();
  for (int i = 0; i < 3; ++i) {
    const std::string body = "body" + std::to_string(i);
    client.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n" + body);
    EXPECT_NE(client.ReadUntil("nobody " + body).find("nobody " + body), std::string::npos);
  }
  client.Send(Get("/"));
  EXPECT_NE(client.ReadAll().find("Connection: close"), std::string::npos);
  EXPECT_TRUE(client.clean_end()) << "close_notify, not a cut";
}

TEST_F(TlsSessionTest, BodiesLargerThanARecordArriveAndLeaveWhole) {
  Start();
  const std::string body(3 << 20, 'b');
  const std::string answer = AskTls(address(), Post("/", body), Believing());
  EXPECT_EQ(StatusOf(answer), 200);
  EXPECT_EQ(answer.substr(answer.find("\r\n\r\n") + 4), "nobody " + body);
}

TEST_F(TlsSessionTest, OnlyHttp11OverTls12AndLaterIsSpoken) {
  Start();
  for (int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClientOptions options = Believing();
    options.max_version = version;
    options.protocols = "\x02h2\x08http/1.1";
    TlsClient client(address(), options);
    EXPECT_TRUE(client.connected()) << client.error();
    EXPECT_EQ(client.protocol(), "http/1.1");
  }
  TlsClientOptions old = Believing();
  old.max_version = TLS1_1_VERSION;
  EXPECT_FALSE(TlsClient(address(), old).connected());
  TlsClientOptions foreign = Believing();
  foreign.protocols = "\x02h2";
  TlsClient client(address(), foreign);
  EXPECT_FALSE(client.connected());
  EXPECT_EQ(client.error(), "tlsv1 alert no application protocol");
}

TEST_F(TlsSessionTest, AClientsCertificateIsCheckedWhereItIsShown) {
  Start();
  const CertificateOptions gateway = {.common_name = "", .names = "DNS:gate,URI:x:y"};
  TlsClientOptions options = Believing();
  options.own = clients_.Sign(gateway);
  EXPECT_NE(AskTls(address(), Get("/"), options).find("\r\n\r\n2 "), std::string::npos);
  options.own = authority_.Sign(gateway);  // not the authority of clients
  options.max_version = TLS1_2_VERSION;    // where the client hears of it in the handshake
  TlsClient wrong(address(), options);
  EXPECT_FALSE(wrong.connected());
  EXPECT_EQ(wrong.error(), "tlsv1 alert unknown ca");
  CertificateOptions over = gateway;
  over.begin_s = -7200;
  over.end_s = -3600;
  options.own = clients_.Sign(over);
  TlsClient expired(address(), options);
  EXPECT_FALSE(expired.connected());
  EXPECT_EQ(expired.error(), "sslv3 alert certificate expired");
}

TEST_F(TlsSessionTest, WhereOneIsRequiredNobodyComesWithout) {
  Start({}, true);
  TlsClientOptions options = Believing();
  options.max_version = TLS1_2_VERSION;
  EXPECT_FALSE(TlsClient(address(), options).connected());
  options.own = clients_.Sign({.common_name = "gate", .names = ""});
  EXPECT_NE(AskTls(address(), Get("/"), options).find("\r\n\r\n1 "), std::string::npos);
}

TEST_F(TlsSessionTest, PlainHttpIsToldWhatThePortSpeaks) {
  Start();
  const std::string answer = Ask(address(), Get("/health"));
  EXPECT_EQ(StatusOf(answer), 400);
  EXPECT_TRUE(answer.ends_with("this port speaks HTTPS: use https://...\n")) << answer;
  EXPECT_NE(answer.find("Content-Length: 40\r\n"), std::string::npos);
}

TEST_F(TlsSessionTest, ASlowHandshakeHoldsNobodyUpAndIsGivenUp) {
  HttpServer::Options options;
  options.limits.handshake_timeout_ms = 5000;
  Start(options);
  std::vector<std::unique_ptr<TlsClient>> slow;
  for (int i = 0; i < 100; ++i) {
    slow.push_back(std::make_unique<TlsClient>(address(), TlsClientOptions{.handshake = false}));
    if (i % 2 == 0) slow.back()->socket().Send("\x16\x03\x01\x02");  // the head of a record
  }
  ASSERT_TRUE(Eventually([&] { return server_->num_connections() == 100; }));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(StatusOf(AskTls(address(), Get("/"), Believing())), 200);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
  for (const auto& one : slow) EXPECT_EQ(one->socket().ReadAll(), "");
  EXPECT_TRUE(Eventually([&] { return server_->num_connections() == 0; }));
}

TEST_F(TlsSessionTest, GarbageAndCutsLeaveNothing) {
  Start();
  for (const std::string& bytes :
       {std::string("\x16\x03\x01\xff\xff garbage"), std::string(5000, '\0'),
        std::string("SSH-2.0\r\n"), std::string("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 10)}) {
    RawClient client(address());
    client.Send(bytes);
    client.ReadAll();
  }
  {
    TlsClient client(address(), Believing());
    client.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf");
    client.socket().Send("this is no record");
    client.socket().ReadAll();
  }
  EXPECT_TRUE(Eventually([&] { return server_->num_connections() == 0; }));
  EXPECT_EQ(StatusOf(AskTls(address(), Get("/"), Believing())), 200);
}

TEST_F(TlsSessionTest, ANewCertificateServesNewConnectionsAndOldOnesGoOn) {
  Start();
  TlsClient before(address(), Believing());
  folder_.WritePair(authority_.SignServer());
  store_->Replace(Load());
  TlsClient after(address(), Believing());
  EXPECT_GT(after.serial(), before.serial());
  for (TlsClient* client : {&before, &after}) {
    client->Send(Get("/"));
    EXPECT_EQ(StatusOf(client->ReadAll()), 200);
  }
}

TEST_F(TlsSessionTest, AClientThatDoesNotReadHoldsABoundedBuffer) {
  HttpServer::Options options;
  options.limits.max_stream_bytes = 64 << 10;
  Start(options);
  server_.reset();
  std::atomic<int64_t> accepted{0};
  std::atomic<bool> refused{false};
  options.listen = "127.0.0.1:0";
  options.tls = store_.get();
  server_ = HttpServer::Start(options, clock_, [&](const std::shared_ptr<HttpExchange>& exchange) {
              exchange->BeginStream("text/event-stream");
              const std::string event(1000, 'x');
              while (accepted.load() < 100'000 && exchange->Write(event)) ++accepted;
              refused.store(true);
              exchange->AbortStream();
            }).value();
  TlsClient client(address(), Believing());
  client.Send(Get("/"));
  ASSERT_TRUE(Eventually([&] { return refused.load(); }));
  EXPECT_LT(accepted.load(), 20'000);  // our 64 KiB and what the kernel's socket buffers take
}

TEST_F(TlsSessionTest, AStreamIsDecryptedWholeByAReaderThatPauses) {
  Start();
  server_.reset();
  std::string sent;
  for (int i = 0; i < 5000; ++i) sent += "event " + std::to_string(i) + "\n";
  HttpServer::Options options;
  options.listen = "127.0.0.1:0";
  options.tls = store_.get();
  options.limits.max_stream_bytes = 16 << 20;
  std::atomic<bool> written{false};
  server_ = HttpServer::Start(options, clock_, [&](const std::shared_ptr<HttpExchange>& exchange) {
              exchange->BeginStream("text/event-stream");
              for (int i = 0; i < 100; ++i) exchange->Write(sent);  // more than sockets hold
              exchange->EndStream();
              written.store(true);
            }).value();
  TlsClient client(address(), Believing());
  client.Send("GET / HTTP/1.0\r\n\r\n");
  client.ReadUntil("event 0\n");
  ASSERT_TRUE(Eventually([&] { return written.load(); }));
  const std::string answer = client.ReadAll();
  std::string expected;
  for (int i = 0; i < 100; ++i) expected += sent;
  EXPECT_TRUE(answer.substr(answer.find("\r\n\r\n") + 4) == expected) << answer.size();
}

}  // namespace
}  // namespace polyad
