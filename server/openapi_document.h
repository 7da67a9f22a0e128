#pragma once

// The OpenAPI document of the HTTP routes, as server/openapi.json has it. It is kept by hand;
// openapi_test holds it to the routes and to the fields that they take.

#include <string_view>

namespace polyad {

std::string_view OpenApiDocument();

}  // namespace polyad
