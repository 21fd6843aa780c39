#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/image.h"

// After <cstdio>, which it needs and does not include.
#include <jpeglib.h>

namespace rep::testing {

/// How a file is to be written.
struct JpegFormat {
  std::string name;
  int components = 3, across = 1, down = 1;  // how many samples of brightness there are to a colour
  bool progressive = false, arithmetic = false;
  unsigned restart = 0;  // blocks between restart markers
};

/// `image` as a JPEG file; of one component, its red.
inline std::vector<uint8_t> encode_jpeg(const JpegFormat& format, const Image& image) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  errors.error_exit = [](j_common_ptr) { throw std::runtime_error("libjpeg cannot encode"); };
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.input_components = format.components;
  info.in_color_space = format.components == 3 ? JCS_RGB : JCS_GRAYSCALE;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 90, TRUE);
  info.comp_info[0].h_samp_factor = format.across;
  info.comp_info[0].v_samp_factor = format.down;
  info.arith_code = format.arithmetic ? TRUE : FALSE;
  info.restart_interval = format.restart;
  if (format.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(static_cast<size_t>(image.width * format.components));
  for (int64_t y = 0; y < image.height; ++y) {
    for (size_t i = 0; i < row.size(); ++i) {
      const size_t pixel = i / static_cast<size_t>(format.components);
      const size_t channel = i % static_cast<size_t>(format.components);
      row[i] = image.pixels[(static_cast<size_t>(y * image.width) + pixel) * 3 + channel];
    }
    JSAMPROW one = row.data();
    jpeg_write_scanlines(&info, &one, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::vector<uint8_t> file(bytes, bytes + size);
  std::free(bytes);
  return file;
}

}  // namespace rep::testing
