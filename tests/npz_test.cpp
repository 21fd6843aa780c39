#include "formats/npz.h"

#include "weight_files.h"

namespace rep {
namespace {

using testing::expect_error;
using testing::expect_same;

// A .npy of format version 1 with that header, padded as the format says, and that data.
std::string npy(std::string header, const std::string& data) {
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string bytes = "\x93NUMPY\x01";
  bytes += '\0';
  bytes += static_cast<char>(header.size() & 0xff);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header + data;
}

std::string header(const std::string& descr, const std::string& shape) {
  return "{'descr': " + descr + ", 'fortran_order': False, 'shape': " + shape + ", }";
}

void expect_refused(const std::string& entry_bytes, const std::string& part) {
  const std::string path = testing::temporary_zip("hostile.npz", {{"a.npy", entry_bytes}});
  SCOPED_TRACE(entry_bytes.substr(0, 128));
  expect_error([&] { read_npz(path); }, part);
}

class ReadNpz : public ::testing::TestWithParam<const char*> {};

TEST_P(ReadNpz, ReadsEveryTypeThatNumpyWrote) {
  const NamedTensors file = read_npz(testing::fixture(GetParam()));
  const std::vector<int64_t> shape{2, 3};
  ASSERT_EQ(file.size(), 13u);
  const auto expect = [&](const char* name, const torch::Tensor& expected) {
    expect_same(testing::at(file, name), expected, name);
  };
  expect("f8", testing::formula(1, shape, torch::kFloat64));
  expect("f4", testing::formula(2, shape));
  expect("f2", testing::formula(3, shape, torch::kFloat16));
  expect("bf16", testing::formula(4, shape, torch::kBFloat16));
  expect("fortran", testing::formula(5, shape));
  expect("i8", testing::counts(shape, -3, torch::kInt64));
  expect("i4", testing::counts(shape, -3, torch::kInt32));
  expect("i2", testing::counts(shape, -3, torch::kInt16));
  expect("i1", testing::counts(shape, -3, torch::kInt8));
  expect("u1", testing::counts(shape, 0, torch::kUInt8));
  expect("b1", testing::counts(shape, 0, torch::kBool));
  expect("scalar", torch::tensor(1.5f));
  expect("empty", torch::zeros({0, 4}));
  EXPECT_TRUE(testing::at(file, "fortran").is_contiguous());
}

INSTANTIATE_TEST_SUITE_P(StoredAndDeflated, ReadNpz,
                         ::testing::Values("dtypes.npz", "dtypes_deflated.npz"));

TEST(ReadNpz, ReadsHeadersThatOtherWritersWrite) {
  const std::string one(4, '\0');
  // Python 2's long integers, double quotes, another order, no spaces, no last comma.
  for (const char* text : {"{'descr': '<f4', 'fortran_order': False, 'shape': (1L,), }",
                           "{\"shape\":(1,1),\"fortran_order\":True,\"descr\":\"<f4\"}",
                           "{'fortran_order': False, 'shape': (), 'descr': '<f4'}"}) {
    const std::string path = testing::temporary_zip("other.npz", {{"a.npy", npy(text, one)}});
    EXPECT_EQ(read_npz(path).at(0).second.numel(), 1) << text;
  }
  // Format version 2: four bytes of header length.
  std::string version2 = npy(header("'<f4'", "(1,)"), one);
  version2[6] = 2;
  version2.insert(10, 2, '\0');
  EXPECT_EQ(read_npz(testing::temporary_zip("v2.npz", {{"a.npy", version2}})).at(0).first, "a");
}

TEST(HostileNpz, PickledObjectsAreNeverRead) {
  expect_error([] { read_npz(testing::fixture("object.npz")); }, "pickled objects are never read");
}

TEST(HostileNpz, OtherTypesAreRefused) {
  const std::string data(8, '\0');
  for (const char* descr : {"'>f4'", "'<c8'", "'<U2'", "'<u8'", "'|V8'", "'=f8'", "''", "'|O'"}) {
    expect_refused(npy(header(descr, "(1,)"), data), "little-endian type");
  }
  expect_refused(npy(header("[('x', '<f8')]", "(1,)"), data), "not one of a plain array");
}

TEST(HostileNpz, ShapesMustFitTheData) {
  const std::string data(8, '\0');
  for (const char* shape : {"(3,)", "(1,)", "()", "(0,)", "(2, 1152921504606846976)",
                            "(4294967296, 4294967296)", "(4611686018427387906,)",
                            "(0, 999999999999999999)", "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2)"}) {
    const bool long_number = std::string(shape) == "(4611686018427387906,)" ||
                             std::string(shape) == "(2, 1152921504606846976)";
    expect_refused(npy(header("'<f4'", shape), data),
                   long_number ? "not one of a plain array" : "does not fit its data");
  }
}

TEST(HostileNpz, HeadersOfAnotherFormAreRefused) {
  const std::string data(4, '\0');
  for (const char* text :
       {"", "{", "{}", "[]", "{'descr': '<f4'}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}",
        "{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}"}) {
    expect_refused(npy(text, data), "not one of a plain array");
  }
  expect_refused("", "too short");
  expect_refused("not numpy at all", "not a .npy array");
  std::string lying = npy(header("'<f4'", "(1,)"), data);
  lying[9] = '\x7f';
  expect_refused(lying, "has a header longer than itself");
}

TEST(HostileNpz, AnEntryCannotClaimMoreThanItHolds) {
  // A megabyte of zeros packs to about a kilobyte: an honest file that is read ...
  const std::string zeros(1 << 20, '\0');
  const std::string good = npy(header("'<f4'", "(262144,)"), zeros);
  const std::string path = testing::temporary_zip("packed.npz", {{"a.npy", good}}, true);
  EXPECT_EQ(read_npz(path).at(0).second.numel(), 262144);
  // ... until the central directory (PK 1 2; its size field at 24) claims four gigabytes.
  std::string bytes = testing::bytes_of_file(path);
  const size_t central = bytes.rfind("PK\x01\x02");
  ASSERT_NE(central, std::string::npos);
  for (size_t i = 0; i < 4; ++i) bytes[central + 24 + i] = i == 3 ? '\x7f' : '\xff';
  expect_error([&] { read_npz(testing::temporary_file("bomb.npz", bytes)); }, "claims more bytes");
}

TEST(HostileNpz, OtherFilesAreRefused) {
  expect_error([] { read_npz(testing::temporary_file("text.npz", "hello")); }, "zip archive");
  expect_error([] { read_npz(::testing::TempDir() + "/rep_weights_absent.npz"); }, "zip archive");
  expect_error(
      [] {
        read_npz(testing::temporary_zip("other.npz", {{"readme.txt", "x"}}));
      },
      "not a numpy .npz");
  expect_error([] { read_npz(testing::fixture("plain.pth")); }, "not a numpy .npz");
}

TEST(HostileNpz, DamageGivesAnErrorOrATensor) {
  for (const char* name : {"dtypes.npz", "dtypes_deflated.npz"}) {
    testing::fuzz(
        testing::bytes_of_file(testing::fixture(name)), 400,
        [](const std::string& bytes) { read_npz(testing::temporary_file("fuzz.npz", bytes)); });
  }
  // The same behind right checksums.
  testing::fuzz(npy(header("'<f4'", "(2, 3)"), std::string(24, '\1')), 1000,
                [](const std::string& bytes) {
                  read_npz(testing::temporary_zip("fuzz.npz", {{"a.npy", bytes}}));
                });
}

}  // namespace
}  // namespace rep
