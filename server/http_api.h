#pragma once

// The HTTP routes. Who may call each is in the table of access (access.h), and a route that is not
// in it does not start; what is no route does not exist. Runs on the HTTP server's workers;
// `serving` outlives it. Shapes: OpenAI's API; vLLM's adapter routes.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/http_exchange.h"
#include "server/openai_request.h"
#include "server/serving.h"

namespace polyad {

class HttpApi {
 public:
  using Exchange = std::shared_ptr<HttpExchange>;

  struct Route {
    std::string_view method;
    std::string_view path;
    void (HttpApi::*handler)(const Exchange& exchange, const std::string& tenant);
  };

  explicit HttpApi(Serving& serving);

  void Handle(const Exchange& exchange);
  static const std::vector<Route>& Routes();

 private:
  void Page(const Exchange& exchange, const std::string& tenant);
  void StatusRoute(const Exchange& exchange, const std::string& tenant);
  void Health(const Exchange& exchange, const std::string& tenant);
  void Ready(const Exchange& exchange, const std::string& tenant);
  void MetricsText(const Exchange& exchange, const std::string& tenant);
  void Version(const Exchange& exchange, const std::string& tenant);
  void Document(const Exchange& exchange, const std::string& tenant);
  void ListModels(const Exchange& exchange, const std::string& tenant);
  void GetModel(const Exchange& exchange, const std::string& tenant);
  void Completions(const Exchange& exchange, const std::string& tenant);
  void ChatCompletions(const Exchange& exchange, const std::string& tenant);
  void Embeddings(const Exchange& exchange, const std::string& tenant);
  void TokenizeRoute(const Exchange& exchange, const std::string& tenant);
  void DetokenizeRoute(const Exchange& exchange, const std::string& tenant);
  void LoadAdapterRoute(const Exchange& exchange, const std::string& tenant);
  void UnloadAdapterRoute(const Exchange& exchange, const std::string& tenant);

  void Generate(OpenAiKind kind, const Exchange& exchange, const std::string& tenant);
  StatusOr<std::string> Tokenize(std::string_view body, const std::string& tenant) const;
  StatusOr<std::string> Detokenize(std::string_view body, const std::string& tenant) const;
  Status CheckModel(const std::string& model, const std::string& tenant) const;
  StatusOr<std::string> Authorize(const Route& route, const HttpExchange& exchange) const;

  Serving& serving_;
};

}  // namespace polyad
