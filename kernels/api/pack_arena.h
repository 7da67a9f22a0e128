#pragma once

// Where one adapter's packed ops lie: slabs of its own, so that letting the adapter go gives back
// all of its memory and no more than that. Each slab is asked for before it is taken. Slabs begin
// with 64 KiB and grow with what the arena holds, up to 4 MiB of huge pages, so that neither a
// small adapter nor a large one leaves much of its last slab unused. A backend packs into the arena
// that is in force on the calling thread (Scope); where none is, as it always did. What was packed
// keeps its slab alive, the arena itself may go.
//
// One loader thread. RESOURCE_EXHAUSTED where the system refuses, or what `grant` says.

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"

namespace polyad {

class PackArena {
 public:
  static constexpr int64_t kPageBytes = int64_t{64} << 10;  // slabs are whole pages

  // Whether so many bytes, of whole pages, may be taken.
  using Grant = std::function<absl::Status(int64_t bytes)>;
  explicit PackArena(Grant grant) : grant_(std::move(grant)) {}
  PackArena(const PackArena&) = delete;
  PackArena& operator=(const PackArena&) = delete;

  // `bytes` of zeros, on a boundary of 64.
  absl::StatusOr<std::shared_ptr<char>> Allocate(int64_t bytes);
  int64_t bytes() const { return bytes_; }  // of all slabs

  // Of the calling thread; null: none.
  static PackArena* Current();
  class Scope {
   public:
    explicit Scope(PackArena* arena);  // null: none is in force
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    PackArena* const before_;
  };

 private:
  absl::Status AddSlab(int64_t at_least);

  const Grant grant_;
  int64_t bytes_ = 0;
  std::shared_ptr<char> slab_;
  int64_t slab_bytes_ = 0;
  int64_t used_ = 0;  // of the slab
};

}  // namespace polyad
