#include "engine/adapters/plane_file.h"

#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <system_error>
#include <utility>

#include "engine/adapters/zoo_container.h"
#include "engine/base/check.h"
#include "engine/io/quote.h"
#include "engine/io/safetensors.h"
#include "engine/io/safetensors_writer.h"

namespace polyad {
namespace {

constexpr char kFile[] = "/zoo.safetensors";

std::string OpName(SiteRef ref, size_t plane) {
  for (const SiteSpelling& spelling : kSiteSpellings) {
    if (spelling.site != ref.site) continue;
    return absl::StrFormat("L%d.%s.sg.%d", ref.layer, spelling.name, plane);
  }
  POLYAD_CHECK(false, "a site of a layer");
  return "";
}

StatusOr<SignPlane> ReadPlane(const SafetensorsFile& file, const std::string& op,
                              const SiteShape& shape) {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor bits, file.Read(op + ".bits"));
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor scale, file.Read(op + ".coef"));
  SignPlane plane;
  plane.bits.resize(static_cast<size_t>(shape.out * ((shape.in + 31) / 32)));
  POLYAD_ASSIGN_OR_RETURN(plane.scale, ToFloats(scale));
  if (bits.bytes.size() != static_cast<int64_t>(plane.bits.size() * sizeof(uint32_t))) {
    return InvalidArgument("tensor %s.bits: expected %d words, got %s", op, plane.bits.size(),
                           ShapeToString(bits.shape));
  }
  std::memcpy(plane.bits.data(), bits.bytes.data(), plane.bits.size() * sizeof(uint32_t));
  return plane;
}

std::span<const uint8_t> BytesOf(const auto& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(values[0])};
}

}  // namespace

StatusOr<std::vector<SitePlanes>> ReadPlanes(const std::string& directory, const ModelSpec& spec) {
  POLYAD_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(directory + kFile));
  std::vector<SitePlanes> sites;
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    for (const Site site : LayerSites(spec)) {
      SitePlanes read{{layer, site}, {}};
      const SiteShape shape = ShapeOf(spec, site);
      read.planes.out = shape.out;
      read.planes.in = shape.in;
      for (size_t k = 0; file.Find(OpName(read.site, k) + ".bits") != nullptr; ++k) {
        POLYAD_ASSIGN_OR_RETURN(SignPlane plane, ReadPlane(file, OpName(read.site, k), shape));
        const auto scales = static_cast<int64_t>(plane.scale.size());
        if (scales > shape.out) read.planes.groups = scales / shape.out;
        read.planes.planes.push_back(std::move(plane));
      }
      if (!read.planes.planes.empty()) sites.push_back(std::move(read));
    }
  }
  return sites;
}

Status WritePlanes(const std::string& directory, const std::vector<SitePlanes>& sites) {
  std::map<std::string, std::span<const uint8_t>> changed;
  for (const SitePlanes& site : sites) {
    for (size_t k = 0; k < site.planes.planes.size(); ++k) {
      const SignPlane& plane = site.planes.planes[k];
      changed[OpName(site.site, k) + ".bits"] = BytesOf(plane.bits);
      changed[OpName(site.site, k) + ".coef"] = BytesOf(plane.scale);
    }
  }
  const std::string path = directory + kFile;
  const std::string old = path + ".old";
  std::error_code error;
  std::filesystem::rename(path, old, error);
  if (error) return Internal("%s: %s", Quote(path), error.message());
  POLYAD_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(old));
  std::vector<TensorToWrite> tensors;
  for (const TensorInfo& info : file.tensors()) {
    tensors.push_back({info.name, info.stored_type, info.shape, info.bytes});
  }
  POLYAD_ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(path, tensors));
  for (const TensorInfo& info : file.tensors()) {
    if (const auto found = changed.find(info.name); found != changed.end()) {
      POLYAD_RETURN_IF_ERROR(writer->Write(found->second));
      continue;
    }
    POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, file.Read(info.name));
    POLYAD_RETURN_IF_ERROR(writer->Write(tensor.bytes.span()));
  }
  POLYAD_RETURN_IF_ERROR(writer->Finish());
  std::filesystem::remove(old, error);
  if (error) return Internal("%s: %s", Quote(old), error.message());
  return absl::OkStatus();
}

}  // namespace polyad
