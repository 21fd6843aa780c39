#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "core/bytes.h"
#include "core/fields.h"
#include "data/image.h"

namespace rep {

/// `dataset.decoded_cache` of data sets that lie in image files.
struct DecodedCacheOptions {
  std::string folder;
  std::string limit = "4GiB";
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("folder", folder, other_path,
          doc("Folder for decoded images, made where missing; empty: no cache."));
    visit("limit", limit,
          doc("Bytes of its files together, e.g. 4GiB; nothing is added beyond.", "bytes"));
  }
};

/// A folder of decoded images, each a file of its whole eight-bit RGB pixels, named by its source's
/// content. What does not fit the limit any more is not added; nothing is thrown out. Several
/// processes may use a folder at once: a file is there whole or not at all, and one process at a
/// time adds. A file that is not as it must be is passed over and written again; its pixels
/// themselves are taken on trust.
class DecodedCache {
 public:
  /// Makes the folder and removes what a dead process left half written. Throws Error.
  DecodedCache(const std::string& folder, int64_t limit);

  /// Into `out` at least the wanted part of the image of that name (64 characters that identify its
  /// content and how it was decoded; "": nothing is known): from the cache, or else from `decode`,
  /// which returns the whole image, and from then on from the cache. Throws what `decode` and
  /// `wanted` throw; when the cache cannot be written, warns once and leaves it so.
  void part(const std::string& name, const Wanted& wanted, const std::function<Image()>& decode,
            ImagePart& out);

 private:
  bool read(const std::string& name, const Wanted& wanted, ImagePart& out) const;
  void add(const std::string& name, const Image& image);

  std::string folder_;
  int64_t limit_;
  std::atomic<bool> writable_{true};
};

}  // namespace rep
