#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <opencv2/imgcodecs.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/error.h"
#include "core/identity.h"
#include "core/random.h"
#include "data/dataset.h"
#include "data/image_format.h"
#include "data/jpeg.h"
#include "data/stream.h"
#include "formats/npz.h"
#include "formats/safetensors.h"
#include "formats/torch_zip.h"
#include "formats/weight_file.h"
#include "nn/weight_names.h"
#include "tests/jpeg_bytes.h"
#include "tests/zip_bytes.h"

// The readers of files that may come from anybody, each behind one function of bytes, for libFuzzer
// (tests/fuzz/fuzz.cpp, scripts/fuzz.sh) and for the seeded mutations of the ordinary suite
// (tests/fuzz_test.cpp). Whatever the bytes, a reader returns or throws Error.
namespace rep::fuzz {

/// A file in memory under a path of its own, for readers that want a path.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(memfd_create("fuzz", 0)) {
    if (descriptor_ < 0) throw std::runtime_error("no file in memory");
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  const std::string& put(const std::string& bytes) {
    if (ftruncate(descriptor_, 0) != 0 ||
        pwrite(descriptor_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
      throw std::runtime_error("the file in memory cannot be written");
    }
    return path_;
  }
  const std::string& path() const { return path_; }

 private:
  int descriptor_;
  std::string path_ = "/proc/self/fd/" + std::to_string(descriptor_);
};

inline MemoryFile& memory_file() {
  static MemoryFile file;
  return file;
}

/// A folder for as long as the process lives, in which every one of `files` is the file in memory.
class Folder {
 public:
  Folder(const std::string& name, const std::vector<std::string>& files)
      : path_(std::filesystem::temp_directory_path() /
              ("rep_fuzz_" + name + "_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
    for (const std::string& file : files) {
      std::filesystem::create_symlink(memory_file().path(), path_ / file);
    }
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

/// Opens both splits of a data set whose files of these names all hold `bytes`, and looks at
/// everything that a run would look at before its first step.
inline void data_set(const std::string& name, const std::vector<std::string>& files,
                     const std::string& options, const std::string& bytes) {
  memory_file().put(bytes);
  static std::map<std::string, Folder> folders;
  const std::string root = folders.try_emplace(name, name, files).first->second.path();
  const Section section{
      name, YAML::Load("{name: " + name + ", root: " + root + options + "}"), "fuzz", {}};
  for (const Split split : {Split::kTest, Split::kTrain}) {
    std::unique_ptr<Dataset> data;
    try {
      data = open_dataset(section, split, 42);
    } catch (const Error&) {
      if (split == Split::kTrain) throw;
      continue;  // a list of training images is none of test images
    }
    StreamConfig stream;
    stream.tasks = 1;
    for (const char* order : {"class_iid", "class_instance"}) {
      if (order == std::string("class_instance") && data->sequence_starts().empty()) continue;
      stream.order = order;
      cut_into_tasks(*data, *data, stream, 42);
    }
    data->fingerprint();
    if (data->size() > 0) data->image(data->size() - 1);
  }
}

inline void config(const std::string& bytes) {
  const Config config = parse_config(bytes, "fuzz.yaml");
  if (Registry<DatasetKind>::get().entries().count(config.dataset.name) > 0) {
    Registry<DatasetKind>::get().at(config.dataset.name).value.options(config.dataset);
  }
  make_class_order(config.stream.class_order, 10, config.seed);
  to_text(to_json(config));  // as results are written
  to_text(identity(config));
}

inline uint8_t at(const ImagePart& part, int64_t y, int64_t x, int64_t channel) {
  const int64_t pixel = (y - part.top) * part.pixels.width + x - part.left;
  return part.pixels.pixels.at(static_cast<size_t>(pixel * 3 + channel));
}

/// Decodes a part and the whole of a JPEG file, and compares both with OpenCV's decoding, which the
/// decoder promises the pixels of. What it leaves to OpenCV is refused here.
inline void jpeg(const std::string& bytes) {
  const auto* const data = reinterpret_cast<const uint8_t*>(bytes.data());
  Region crop, all;
  const auto some = [&](int64_t height, int64_t width) {
    constexpr int64_t kPixels = 1 << 18;  // larger ones take seconds and show nothing new
    if (width > kPixels / height) throw Error("a large picture");
    Random random({bytes.size()});
    const auto below = [&](int64_t n) {
      return static_cast<int64_t>(random.below(static_cast<uint64_t>(n)));
    };
    crop.height = 1 + below(height);
    crop.width = 1 + below(width);
    crop.top = below(height - crop.height + 1);
    crop.left = below(width - crop.width + 1);
    return crop;
  };
  const auto whole = [&](int64_t height, int64_t width) { return all = {0, 0, height, width}; };
  ImagePart part, picture;
  const bool part_decodes = decode_jpeg(data, bytes.size(), some, part);
  if (!decode_jpeg(data, bytes.size(), whole, picture)) throw Error("left to OpenCV");
  if (!part_decodes) throw std::logic_error("the whole decodes, but a part does not");
  const cv::Mat expected =
      cv::imdecode(cv::Mat(1, static_cast<int>(bytes.size()), CV_8UC1, const_cast<uint8_t*>(data)),
                   cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
  if (expected.empty()) throw Error("OpenCV decodes nothing");
  if (expected.rows != all.height || expected.cols != all.width) {
    throw std::logic_error("OpenCV has a picture of another size");
  }
  for (int64_t y = 0; y < all.height; ++y) {
    for (int64_t x = 0; x < all.width; ++x) {
      const bool in_crop = y >= crop.top && y < crop.top + crop.height && x >= crop.left &&
                           x < crop.left + crop.width;
      for (int channel = 0; channel < 3; ++channel) {
        const uint8_t pixel =
            expected.at<cv::Vec3b>(static_cast<int>(y), static_cast<int>(x))[2 - channel];
        if (at(picture, y, x, channel) != pixel) throw std::logic_error("the whole differs");
        if (in_crop && at(part, y, x, channel) != pixel) throw std::logic_error("a part differs");
      }
    }
  }
}

/// Decodes an image of whatever kind, turned and not.
inline void image(const std::string& bytes) {
  const auto* const data = reinterpret_cast<const uint8_t*>(bytes.data());
  const auto extent = announced_extent({data, bytes.size()});
  if (extent && extent->height > 0 && extent->width > (1U << 18) / extent->height) {
    throw Error("a large image");  // takes seconds and shows nothing new
  }
  for (const ExifOrientation exif : {ExifOrientation::kApply, ExifOrientation::kIgnore}) {
    ImagePart part;
    decode_part(
        data, bytes.size(), "fuzz", exif,
        [](int64_t height, int64_t width) {
          return Region{0, 0, height, width};
        },
        part);
  }
}

/// A small image file of that ending.
inline std::string image_bytes(const std::string& ending) {
  std::vector<uint8_t> file;
  cv::imencode(ending, cv::Mat(64, 48, CV_8UC3, cv::Scalar(10, 100, 200)), file);
  return {file.begin(), file.end()};
}

/// A small JPEG file of that kind, all of whose pixels differ from their neighbours.
inline std::string jpeg_bytes(const testing::JpegFormat& format) {
  Image image = Image::make(19, 37);
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    image.pixels[i] = static_cast<uint8_t>(i * 89 + i / 111 * 23);
  }
  const std::vector<uint8_t> file = testing::encode_jpeg(format, image);
  return {file.begin(), file.end()};
}

inline std::string file_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " is not there");
  return {std::istreambuf_iterator<char>(file), {}};
}

/// All of a literal, with its zero bytes.
template <size_t N>
std::string literal(const char (&text)[N]) {
  return {text, N - 1};
}

struct Target {
  std::function<void(const std::string&)> read;
  std::vector<std::string> valid;  // inputs that `read` takes, to begin from
};

/// By name. An entry of an archive is also mutated by itself, packed with a right checksum, which
/// mutations of the whole archive hardly ever have.
inline std::map<std::string, Target> targets() {
  const std::string source = REP_SOURCE_DIR "/", fixtures = source + "tests/fixtures/";
  const std::string npy = literal("\x93NUMPY\x01\0\x38\0") +
                          "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}" +
                          std::string(24, 'x');
  // Protocol 2: {'w': _rebuild_tensor_v2(storage '0' of 6 floats, 0, (2, 3), (3, 1), False, {})}.
  const std::string pickle = literal(
      "\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage"
      "ctorch\nFloatStorage\nX\x01\0\0\0"
      "0X\x03\0\0\0cpuK\x06tQK\0K\x02K\x03\x86K\x03K\x01\x86\x89"
      "ccollections\nOrderedDict\n)RtRs.");
  std::string cifar;
  for (const char label : {3, 99, 0}) {
    cifar += std::string(1, '\1') + std::string(1, label) + std::string(3072, label);
  }
  return {
      {"config",
       {config,
        {file_bytes(source + "configs/cifar100/rep-l2p.yaml"),
         file_bytes(source + "configs/stream51/slda.yaml"),
         "stream: {class_order: [3, 1, 0, 2, 9, 4, 5, 6, 7, 8]}\ntrain: {epochs: 1}\n"}}},
      {"cifar100",
       {[](const std::string& bytes) {
          data_set("cifar100", {"train.bin", "test.bin"}, "", bytes);
        },
        {cifar}}},
      {"stream51",
       {[](const std::string& bytes) {
          data_set("stream51", {"Stream-51_meta_train.json", "Stream-51_meta_test.json", "0.png"},
                   ", frame_stride: 2", bytes);
        },
        {"[[0, 0, 0, 0, [30, 40, 3], [30, 10, 25, 5], \"a/1.png\"], [50, 1, 0, 7, [30, 40], "
         "[4.5, 0, 30, 0], \"0.png\"], [0, 0, 0, 2, [30, 40, 3], [30, 10, 25, 5], \"0.png\"]]",
         "[[3, [30, 40, 3], [30, 10, 25, 5], \"0.png\"], [51, [30, 40, 3], [3, 1, 2, 0], "
         "\"0.png\"]]"}}},
      {"jpeg",
       {jpeg,
        {jpeg_bytes({"4:2:0", 3, 2, 2}), jpeg_bytes({"4:4:4"}), jpeg_bytes({"4:1:1", 3, 4, 1}),
         jpeg_bytes({"4:4:0, restarts", 3, 1, 2, false, false, 3}), jpeg_bytes({"grey", 1}),
         jpeg_bytes({"progressive", 3, 2, 2, true})}}},
      {"image",
       {image,
        {image_bytes(".png"), image_bytes(".webp"), image_bytes(".bmp"), image_bytes(".tif"),
         image_bytes(".ppm"), image_bytes(".jp2"), jpeg_bytes({"4:2:0", 3, 2, 2})}}},
      {"safetensors",
       {[](const std::string& bytes) { read_safetensors(memory_file().put(bytes)); },
        {file_bytes(fixtures + "dtypes.safetensors")}}},
      {"npz",
       {[](const std::string& bytes) { read_npz(memory_file().put(bytes)); },
        {file_bytes(fixtures + "dtypes_deflated.npz"), file_bytes(fixtures + "object.npz")}}},
      {"npy",
       {[](const std::string& bytes) {
          read_npz(memory_file().put(testing::zip_bytes({{"a.npy", bytes}})));
        },
        {npy}}},
      {"pth",
       {[](const std::string& bytes) { read_torch_zip(memory_file().put(bytes)); },
        {file_bytes(fixtures + "plain.pth"), file_bytes(fixtures + "shared.pth")}}},
      {"weights",
       {[](const std::string& bytes) {
          read_weight_file(memory_file().put(bytes));
          to_timm_names(read_weight_file(memory_file().put(bytes)).tensors, "fuzz");
          read_weight_file(memory_file().put(bytes), "model");
        },
        {file_bytes(fixtures + "nested.pth"),
         "{\"metadata\": {\"total_size\": 8}, \"weight_map\": {\"a\": \"b.bin\"}}",
         file_bytes(fixtures + "google_vit.npz")}}},
      {"pickle",
       {[](const std::string& bytes) {
          read_torch_zip(memory_file().put(testing::zip_bytes(
              {{"x/data.pkl", bytes}, {"x/data/0", std::string(24, 'x')}, {"x/version", "3\n"}})));
        },
        {pickle}}},
  };
}

}  // namespace rep::fuzz
