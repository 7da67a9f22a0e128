#pragma once

// What the system last said of a library that was opened at run time, or of a function in it.

#include <dlfcn.h>

#include <string>

namespace polyad::cuda {

inline std::string LoaderMessage() {
  const char* message = dlerror();
  return message == nullptr ? "no reason given" : message;
}

}  // namespace polyad::cuda
