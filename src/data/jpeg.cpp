#include "data/jpeg.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>

// After <cstdio>, which it needs and does not include.
#include <jpeglib.h>

namespace rep {
namespace {

/// One file's decompressor. libjpeg reports an error by a jump out of the call, so whatever calls
/// it is a function of its own below, which holds nothing that wants a destructor.
struct Decoder {
  Decoder(const uint8_t* bytes, size_t size) : data(bytes), length(size) {
    info.err = jpeg_std_error(&errors);
    info.client_data = this;
    errors.error_exit = [](j_common_ptr common) {
      std::longjmp(static_cast<Decoder*>(common->client_data)->failed, 1);
    };
    errors.emit_message = [](j_common_ptr common, int level) {
      if (level < 0) ++common->err->num_warnings;
    };
    errors.output_message = [](j_common_ptr) {};
  }
  ~Decoder() { jpeg_destroy_decompress(&info); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  const uint8_t* data;
  size_t length;
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  std::jmp_buf failed{};
};

bool read_header(Decoder& decoder) {
  if (setjmp(decoder.failed) != 0) return false;
  jpeg_create_decompress(&decoder.info);
  jpeg_mem_src(&decoder.info, decoder.data, decoder.length);
  return jpeg_read_header(&decoder.info, TRUE) == JPEG_HEADER_OK;
}

bool is_plain(Decoder& decoder) {
  jpeg_decompress_struct& info = decoder.info;
  return !info.progressive_mode && !info.arith_code && !jpeg_has_multiple_scans(&info) &&
         (info.num_components == 1 || info.num_components == 3);
}

/// Makes the decoder give only the blocks of columns that hold `region` and a pixel to either side,
/// and these columns region's. Colours at half resolution are interpolated between neighbours but
/// at the outermost column, which therefore must not be a wanted one.
bool start(Decoder& decoder, Region& region) {
  if (setjmp(decoder.failed) != 0) return false;
  jpeg_decompress_struct& info = decoder.info;
  info.out_color_space = JCS_RGB;
  jpeg_start_decompress(&info);
  const int64_t block = DCTSIZE * info.max_h_samp_factor;
  const int64_t first = std::max<int64_t>(0, region.left - 1) / block * block;
  const int64_t last =
      std::min<int64_t>(info.output_width, ((region.left + region.width) / block + 1) * block);
  auto left = static_cast<JDIMENSION>(first), width = static_cast<JDIMENSION>(last - first);
  jpeg_crop_scanline(&info, &left, &width);
  region.left = left;
  region.width = width;
  return true;
}

bool read_rows(Decoder& decoder, const Region& region, uint8_t* pixels) {
  if (setjmp(decoder.failed) != 0) return false;
  jpeg_decompress_struct& info = decoder.info;
  const auto top = static_cast<JDIMENSION>(region.top);
  if (top > 0 && jpeg_skip_scanlines(&info, top) != top) return false;
  const auto bottom = static_cast<JDIMENSION>(region.top + region.height);
  while (info.output_scanline < bottom) {
    JSAMPROW row = pixels + (info.output_scanline - top) * region.width * 3;
    if (jpeg_read_scanlines(&info, &row, 1) != 1) return false;
  }
  return true;
}

}  // namespace

bool decode_jpeg(const uint8_t* bytes, size_t size, const Wanted& wanted, ImagePart& out) {
  Decoder decoder(bytes, size);
  if (!read_header(decoder) || !is_plain(decoder)) return false;
  if (decoder.info.image_width > kMaxPixels / decoder.info.image_height) return false;
  Region region = wanted(decoder.info.image_height, decoder.info.image_width);
  if (!start(decoder, region)) return false;
  out.resize(region);
  return read_rows(decoder, region, out.pixels.pixels.data()) && decoder.errors.num_warnings == 0;
}

}  // namespace rep
