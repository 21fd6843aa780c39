// numpy's .npz: a zip archive of .npy arrays
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#include "formats/npz.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "formats/zip_file.h"

namespace rep {

namespace {

constexpr int64_t kMaxArrayHeaderBytes = 64 * 1024;

struct ArrayHeader {
  std::string descr;  // "<f4"
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

// Reads the header's Python literal, {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
// Every function gives nothing (or false) on anything else, object and record types included.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : rest_(text) {}

  std::optional<ArrayHeader> parse() {
    ArrayHeader header;
    std::vector<std::string> seen;
    if (!accept("{")) return std::nullopt;
    while (!accept("}")) {
      const auto key = quoted();
      if (!key || std::count(seen.begin(), seen.end(), *key) > 0 || !accept(":")) {
        return std::nullopt;
      }
      seen.push_back(*key);
      if (!value(*key, header)) return std::nullopt;
      if (!accept(",") && rest().substr(0, 1) != "}") return std::nullopt;
    }
    if (seen.size() != 3 || !rest().empty()) return std::nullopt;
    return header;
  }

 private:
  bool value(const std::string& key, ArrayHeader& header) {
    if (key == "descr") {
      const auto text = quoted();
      header.descr = text.value_or("");
      return text.has_value();
    }
    if (key == "fortran_order") {
      header.fortran_order = accept("True");
      return header.fortran_order || accept("False");
    }
    return key == "shape" && shape(header.shape);
  }

  bool shape(std::vector<int64_t>& sizes) {
    if (!accept("(")) return false;
    while (!accept(")")) {
      const auto size = count();
      if (!size) return false;
      sizes.push_back(*size);
      if (!accept(",") && rest().substr(0, 1) != ")") return false;
    }
    return true;
  }

  std::optional<int64_t> count() {
    const std::string_view digits = rest().substr(0, rest().find_first_not_of("0123456789"));
    if (digits.empty() || digits.size() > 18) return std::nullopt;  // 18 digits fit int64_t
    rest_.remove_prefix(digits.size());
    accept("L");  // Python 2's numpy wrote long integers
    return std::stoll(std::string(digits));
  }

  std::optional<std::string> quoted() {
    const std::string_view text = rest();
    if (text.empty() || (text[0] != '\'' && text[0] != '"')) return std::nullopt;
    const size_t end = text.find(text[0], 1);
    if (end == std::string_view::npos) return std::nullopt;
    rest_.remove_prefix(end + 1);
    return std::string(text.substr(1, end - 1));
  }

  bool accept(std::string_view token) {
    if (rest().substr(0, token.size()) != token) return false;
    rest_.remove_prefix(token.size());
    return true;
  }

  std::string_view rest() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n"), rest_.size()));
    return rest_;
  }

  std::string_view rest_;
};

std::optional<torch::ScalarType> dtype_of_descr(const std::string& descr) {
  constexpr std::pair<const char*, torch::ScalarType> kDescrs[] = {
      {"<f8", torch::kFloat64},  {"<f4", torch::kFloat32}, {"<f2", torch::kFloat16},
      {"<i8", torch::kInt64},    {"<i4", torch::kInt32},   {"<i2", torch::kInt16},
      {"|i1", torch::kInt8},     {"|u1", torch::kUInt8},   {"|b1", torch::kBool},
      {"|V2", torch::kBFloat16},  // numpy has no bfloat16 of its own
  };
  for (const auto& [known, dtype] : kDescrs) {
    if (descr == known) return dtype;
  }
  return std::nullopt;
}

[[noreturn]] void fail(const ZipFile& file, const std::string& name, const std::string& problem) {
  throw Error(file.path() + ": array '" + name + "' " + problem);
}

// Reads the preamble and header of one .npy; `bytes_left` becomes the size of what follows.
ArrayHeader read_header(const ZipFile& file, const std::string& name, ZipFile::Stream& stream,
                        int64_t& bytes_left) {
  constexpr std::string_view kMagic = "\x93NUMPY";
  // Magic, version (major, minor), the header's length: 2 bytes in version 1, 4 in versions 2
  // and 3.
  std::array<uint8_t, 12> preamble{};
  if (bytes_left < 12) fail(file, name, "is too short to be a .npy array");
  stream.read(preamble.data(), 10);
  const int major = preamble[6];
  if (std::memcmp(preamble.data(), kMagic.data(), kMagic.size()) != 0 || major < 1 || major > 3) {
    fail(file, name, "is not a .npy array of format version 1, 2 or 3");
  }
  if (major > 1) stream.read(preamble.data() + 10, 2);
  int64_t header_bytes = preamble[8] | preamble[9] << 8;
  if (major > 1) header_bytes |= int64_t{preamble[10]} << 16 | int64_t{preamble[11]} << 24;
  bytes_left -= major > 1 ? 12 : 10;
  if (header_bytes > std::min(bytes_left, kMaxArrayHeaderBytes)) {
    fail(file, name, "has a header longer than itself or than 64 KiB");
  }
  std::string text(static_cast<size_t>(header_bytes), '\0');
  stream.read(text.data(), header_bytes);
  bytes_left -= header_bytes;
  const auto header = HeaderParser(text).parse();
  if (!header) fail(file, name, "has a header that is not one of a plain array (no record types)");
  return *header;
}

torch::Tensor read_array(const ZipFile& file, const std::string& name,
                         const ZipFile::Entry& entry) {
  ZipFile::Stream stream(file, entry);
  int64_t bytes_left = entry.bytes;
  const ArrayHeader header = read_header(file, name, stream, bytes_left);
  const auto dtype = dtype_of_descr(header.descr);
  if (!dtype) {
    fail(file, name,
         "is not of a little-endian type f8, f4, f2, i8, i4, i2, i1, u1, b1 or V2 (pickled objects "
         "are "
         "never read): convert it with numpy's astype");
  }
  const auto bytes = bytes_of(header.shape, static_cast<int64_t>(c10::elementSize(*dtype)));
  if (!bytes || *bytes != bytes_left) fail(file, name, "has a shape that does not fit its data");

  std::vector<int64_t> stored_shape = header.shape;
  if (header.fortran_order) std::reverse(stored_shape.begin(), stored_shape.end());
  torch::Tensor tensor = torch::empty(stored_shape, *dtype);
  stream.read(tensor.data_ptr(), *bytes);
  stream.finish();
  if (*dtype == torch::kBool && !are_bools(tensor.data_ptr(), static_cast<size_t>(*bytes))) {
    fail(file, name, "is of type b1 but holds other values than 0 and 1");
  }
  if (header.fortran_order) {
    std::vector<int64_t> reversed(stored_shape.size());
    for (size_t i = 0; i < reversed.size(); ++i) {
      reversed[i] = static_cast<int64_t>(reversed.size() - 1 - i);
    }
    tensor = tensor.permute(reversed).contiguous();
  }
  return tensor;
}

}  // namespace

NamedTensors read_npz(const std::string& path) {
  constexpr std::string_view kSuffix = ".npy";
  const ZipFile file(path);
  NamedTensors tensors;
  int64_t total = 0;
  for (const auto& [entry_name, entry] : file.entries()) {
    if (entry_name.size() <= kSuffix.size() ||
        entry_name.compare(entry_name.size() - kSuffix.size(), kSuffix.size(), kSuffix) != 0 ||
        !is_tensor_name(entry_name)) {
      throw Error(path +
                  ": not a numpy .npz file, which is a zip archive of nothing but .npy arrays");
    }
    if (entry.bytes > kMaxTensorBytes - total) {
      throw Error(path + ": the arrays take more than 16 GiB, the most that is read from one file");
    }
    total += entry.bytes;
    const std::string name = entry_name.substr(0, entry_name.size() - kSuffix.size());
    tensors.emplace_back(name, read_array(file, name, entry));
  }
  if (tensors.empty()) throw Error(path + ": the .npz file has no arrays");
  return tensors;
}

}  // namespace rep
