#pragma once

#include <cstddef>
#include <cstdint>

#include "data/image.h"

namespace rep {

/// Decodes of a JPEG file what `wanted` asks for, and what it takes to have those pixels exactly as
/// OpenCV's decoder has them: same inverse transform, same interpolation of the colours; EXIF's
/// orientation is ignored. False, with `out` left in any state, for what OpenCV has to look at: a
/// file that is progressive, arithmetic coded, of other than one or three components, or of which
/// libjpeg complains in any way. Rows below the wanted ones are not read, so damage
/// there is not seen. Never prints. Throws what `wanted` throws.
bool decode_jpeg(const uint8_t* bytes, size_t size, const Wanted& wanted, ImagePart& out);

}  // namespace rep
