# The three verbs every room's CMakeLists.txt uses: polyad_library, polyad_test, polyad_fuzz.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(POLYAD_CCACHE ccache)
if(POLYAD_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${POLYAD_CCACHE})
endif()
find_program(POLYAD_MOLD mold)
if(POLYAD_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_library(polyad_options INTERFACE)
target_include_directories(polyad_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(polyad_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wvla -Werror
  -Wnon-virtual-dtor -Woverloaded-virtual -fno-omit-frame-pointer)
# GCC 12 takes some of its own inlined string copies for overlapping ones (its bug 105651), and under sanitizers its own
# checks for uninitialised reads.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(polyad_options INTERFACE -Wno-restrict)
  if(POLYAD_SANITIZE)
    target_compile_options(polyad_options INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()
# Sums are reduced in the order the source says (same bits): no fast-math, no contraction behind our back.
target_compile_options(polyad_options INTERFACE -ffp-contract=off)

if(POLYAD_SANITIZE)
  add_compile_options(-fsanitize=${POLYAD_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${POLYAD_SANITIZE})
  # What the source asks, since GCC and Clang each have a way of their own to say so.
  if(POLYAD_SANITIZE MATCHES "address")
    add_compile_definitions(POLYAD_ASAN)
  elseif(POLYAD_SANITIZE MATCHES "thread")
    add_compile_definitions(POLYAD_TSAN)
  endif()
endif()

# Every target of a build with fuzz targets counts its branches, or libFuzzer would only see the harness.
if(POLYAD_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# polyad_library(NAME room SRCS a.cc HDRS a.h DEPS other_room absl::status)
function(polyad_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;HDRS;DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(${ARG_NAME} STATIC ${ARG_SRCS} ${ARG_HDRS})
    target_link_libraries(${ARG_NAME} PUBLIC polyad_options ${ARG_DEPS})
  else()
    add_library(${ARG_NAME} INTERFACE)
    target_link_libraries(${ARG_NAME} INTERFACE polyad_options ${ARG_DEPS})
  endif()
endfunction()

# polyad_test(NAME x_test [THREADS] SRCS x_test.cc DEPS room LABEL unit [TIMEOUT 60])
# THREADS: it starts some. ThreadSanitizer has nothing to find in a unit test that does not, and is not built for it;
# tests/one_thread.cc ends such a test should it start one after all.
function(polyad_test)
  cmake_parse_arguments(ARG "THREADS" "NAME;LABEL;TIMEOUT" "SRCS;DEPS;ARGS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(POLYAD_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")  # of tests that take ten seconds, on a machine busy with another one
  endif()
  if(ARG_LABEL STREQUAL "unit" AND NOT ARG_THREADS)
    list(APPEND ARG_SRCS ${CMAKE_SOURCE_DIR}/tests/one_thread.cc)
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE polyad_options ${ARG_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${ARG_NAME} PRIVATE POLYAD_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  if(ARG_LABEL STREQUAL "unit" AND NOT ARG_THREADS AND POLYAD_SANITIZE STREQUAL "thread")
    set_target_properties(${ARG_NAME} PROPERTIES EXCLUDE_FROM_ALL ON)
    return()
  endif()
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} ${ARG_ARGS})
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
  if(ARG_LABEL STREQUAL "e2e")
    set_tests_properties(${ARG_NAME} PROPERTIES RUN_SERIAL ON)  # a server takes all cores, and clients have deadlines
  endif()
  if(ARG_LABEL STREQUAL "unit")
    set_property(GLOBAL APPEND PROPERTY POLYAD_UNIT_TESTS ${ARG_NAME})  # the target unit_tests builds them
  endif()
endfunction()

# polyad_fuzz(NAME x_fuzz SRCS x_fuzz.cc DEPS room): a libFuzzer binary under clang, nothing otherwise.
function(polyad_fuzz)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  if(POLYAD_FUZZ)
    add_executable(${ARG_NAME} ${ARG_SRCS})
    target_link_libraries(${ARG_NAME} PRIVATE polyad_options ${ARG_DEPS})
    target_compile_options(${ARG_NAME} PRIVATE -fsanitize=fuzzer)
    target_link_options(${ARG_NAME} PRIVATE -fsanitize=fuzzer)
    set_property(GLOBAL APPEND PROPERTY POLYAD_FUZZ_TARGETS ${ARG_NAME})  # the target fuzz_targets builds them
  endif()
endfunction()
