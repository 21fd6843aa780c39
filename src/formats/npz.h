#pragma once

#include <string>

#include "formats/named_tensors.h"

namespace rep {

/// The arrays of a numpy .npz file (zip of .npy, stored or deflated; through libzip),
/// little-endian, C order (Fortran order is converted): f8 f4 f2 i8 i4 i2 i1 u1 b1 and '|V2'
/// (bfloat16 as Flax writes it). Names lose their ".npy". Pickled object arrays are refused. Throws
/// Error.
NamedTensors read_npz(const std::string& path);

}  // namespace rep
