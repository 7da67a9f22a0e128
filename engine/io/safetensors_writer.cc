#include "engine/io/safetensors_writer.h"

#include <cerrno>
#include <cstring>

#include "engine/base/check.h"
#include "engine/io/json.h"
#include "engine/io/quote.h"

namespace polyad {

StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorToWrite> tensors) {
  OrderedJson header = OrderedJson::object();
  header["__metadata__"] = {{"format", "pt"}};
  int64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.type},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes}}};
    offset += tensor.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(path, std::move(tensors)));
  writer->file_ = std::fopen(writer->PartName().c_str(), "wbx");
  if (writer->file_ == nullptr) {
    return Internal("%s: cannot be created: %s", Quote(path), std::strerror(errno));
  }
  const auto length = static_cast<uint64_t>(text.size());
  POLYAD_RETURN_IF_ERROR(writer->WriteBytes(&length, sizeof(length)));
  POLYAD_RETURN_IF_ERROR(writer->WriteBytes(text.data(), text.size()));
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(PartName().c_str());
}

Status SafetensorsWriter::WriteBytes(const void* data, size_t size) {
  if (size == 0 || std::fwrite(data, 1, size, file_) == size) return absl::OkStatus();
  return Internal("%s: cannot be written: %s", Quote(path_), std::strerror(errno));
}

Status SafetensorsWriter::Write(std::span<const uint8_t> bytes) {
  POLYAD_CHECK(next_ < tensors_.size(), "a tensor that was announced");
  POLYAD_CHECK(written_ == 0 && static_cast<int64_t>(bytes.size()) == tensors_[next_].bytes,
               "the size announced");
  ++next_;
  return WriteBytes(bytes.data(), bytes.size());
}

Status SafetensorsWriter::WritePiece(std::span<const uint8_t> bytes) {
  POLYAD_CHECK(next_ < tensors_.size(), "a tensor that was announced");
  written_ += static_cast<int64_t>(bytes.size());
  POLYAD_CHECK(written_ <= tensors_[next_].bytes, "the size announced");
  if (written_ == tensors_[next_].bytes) {
    ++next_;
    written_ = 0;
  }
  return WriteBytes(bytes.data(), bytes.size());
}

Status SafetensorsWriter::Finish() {
  POLYAD_CHECK(next_ == tensors_.size(), "every tensor was written");
  const bool closed = std::fclose(file_) == 0;
  file_ = nullptr;
  if (closed && std::rename(PartName().c_str(), path_.c_str()) == 0) return absl::OkStatus();
  const Status status = Internal("%s: cannot be written: %s", Quote(path_), std::strerror(errno));
  std::remove(PartName().c_str());
  return status;
}

}  // namespace polyad
