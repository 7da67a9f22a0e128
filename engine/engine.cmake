# The facade: the only door to everything below it.
polyad_library(NAME engine
  SRCS engine.cc engine_create.cc load_tokenizer.cc
  HDRS engine.h engine_parts.h load_tokenizer.h
  DEPS engine_runtime engine_model engine_adapters engine_text engine_spec)
