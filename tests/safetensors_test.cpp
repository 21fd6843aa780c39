#include "formats/safetensors.h"

#include <cstring>

#include "golden.h"
#include "weight_files.h"

namespace rep {
namespace {

using testing::expect_error;
using testing::expect_same;

// A file with that header and so many zero bytes of data.
std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + std::string(data_bytes, '\0');
}

void expect_refused(const std::string& header, size_t data_bytes, const std::string& part) {
  const std::string path =
      testing::temporary_file("hostile.safetensors", file_of(header, data_bytes));
  SCOPED_TRACE(header.substr(0, 200));
  expect_error([&] { read_safetensors(path); }, part);
  expect_error([&] { list_safetensors(path); }, part);
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

TEST(ReadSafetensors, ReadsEveryDtypeThatPythonWrote) {
  const Safetensors file = read_safetensors(testing::fixture("dtypes.safetensors"));
  const std::vector<int64_t> shape{2, 3};
  ASSERT_EQ(file.tensors.size(), 12u);
  const auto expect = [&](const char* name, const torch::Tensor& expected) {
    expect_same(testing::at(file.tensors, name), expected, name);
  };
  expect("f64", testing::formula(1, shape, torch::kFloat64));
  expect("f32", testing::formula(2, shape));
  expect("f16", testing::formula(3, shape, torch::kFloat16));
  expect("bf16", testing::formula(4, shape, torch::kBFloat16));
  expect("i64", testing::counts(shape, -3, torch::kInt64));
  expect("i32", testing::counts(shape, -3, torch::kInt32));
  expect("i16", testing::counts(shape, -3, torch::kInt16));
  expect("i8", testing::counts(shape, -3, torch::kInt8));
  expect("u8", testing::counts(shape, 0, torch::kUInt8));
  expect("bool", testing::counts(shape, 0, torch::kBool));
  expect("scalar", torch::tensor(1.5f));
  expect("empty", torch::zeros({0, 4}));
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"note", "caf\u00e9"}};
  EXPECT_EQ(file.metadata, metadata);
}

TEST(ReadSafetensors, ListsWithoutReading) {
  std::map<std::string, std::string> metadata;
  const auto list = list_safetensors(testing::fixture("dtypes.safetensors"), &metadata);
  ASSERT_EQ(list.size(), 12u);
  for (const TensorInfo& info : list) {
    if (info.name == "bf16") {
      EXPECT_EQ(info.dtype, "BF16");
      EXPECT_EQ(info.shape, (std::vector<int64_t>{2, 3}));
    }
  }
  EXPECT_EQ(metadata.at("format"), "pt");
}

TEST(ReadSafetensors, ReadsARealBackbone) {
  const std::string name = "data/weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors";
  SKIP_WITHOUT_SHARED(name);
  const Safetensors file = read_safetensors(golden::shared(name));
  int64_t parameters = 0;
  for (const auto& [tensor_name, tensor] : file.tensors) parameters += tensor.numel();
  EXPECT_EQ(file.tensors.size(), 152u);
  EXPECT_EQ(parameters, 5717416);
  EXPECT_EQ(describe(testing::at(file.tensors, "patch_embed.proj.weight")), "F16 [192, 3, 16, 16]");
  EXPECT_EQ(file.metadata.at("mean"), "0.5");
}

TEST(WriteSafetensors, WritesTheFormatByteForByte) {
  const std::string path = testing::temporary_file("written.safetensors", "");
  write_safetensors(path, {{"b", torch::tensor({1.0f, -2.0f})}, {"a", torch::tensor({1, 2, 3})}},
                    {{"k", "v"}});
  // Large items first; the header is padded with spaces to a multiple of 8.
  std::string header = R"({"__metadata__":{"k":"v"},)"
                       R"("a":{"dtype":"I64","shape":[3],"data_offsets":[0,24]},)"
                       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[24,32]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  std::string expected = file_of(header, 32);
  const int64_t a[] = {1, 2, 3};
  const float b[] = {1.0f, -2.0f};
  std::memcpy(&expected[8 + header.size()], a, sizeof(a));
  std::memcpy(&expected[8 + header.size() + 24], b, sizeof(b));
  EXPECT_EQ(testing::bytes_of_file(path), expected);
}

TEST(WriteSafetensors, WritesViewsGradientsAndOddSizesAsTheirValues) {
  const std::string path = testing::temporary_file("views.safetensors", "");
  const torch::Tensor base = testing::formula(1, {4, 6});
  const torch::Tensor odd = testing::counts({3}, 0, torch::kUInt8);
  const torch::Tensor trained = base.clone().set_requires_grad(true);
  write_safetensors(path, {{"odd", odd},
                           {"transposed", base.t()},
                           {"column", base.select(1, 3)},
                           {"trained", trained},
                           {"empty", torch::zeros({0})}});
  const NamedTensors read = read_safetensors(path).tensors;
  ASSERT_EQ(read.size(), 5u);
  expect_same(testing::at(read, "odd"), odd);
  expect_same(testing::at(read, "transposed"), base.t());
  expect_same(testing::at(read, "column"), base.select(1, 3));
  expect_same(testing::at(read, "trained"), base);
  EXPECT_FALSE(testing::at(read, "trained").requires_grad());
}

TEST(WriteSafetensors, RefusesTwoTensorsOfOneName) {
  const std::string path = ::testing::TempDir() + "/rep_weights_twice.safetensors";
  const torch::Tensor x = torch::zeros({1});
  EXPECT_THROW(write_safetensors(path, {{"x", x}, {"x", x}}), c10::Error);
  EXPECT_THROW(write_safetensors(path, {{"__metadata__", x}}), c10::Error);
  EXPECT_FALSE(std::ifstream(path).good());
}

TEST(HostileSafetensors, LengthsThatLieAreRefused) {
  const std::string good = testing::bytes_of_file(testing::fixture("dtypes.safetensors"));
  const auto refused = [](const std::string& bytes, const std::string& part) {
    const std::string path = testing::temporary_file("cut.safetensors", bytes);
    expect_error([&] { read_safetensors(path); }, part);
  };
  refused("", "");
  refused("1234567", "too short");
  refused(std::string(8, '\xff'), "longer than the file");
  refused(std::string(8, '\0'), "not valid JSON");
  refused(good.substr(0, 100), "longer than the file");
  refused(good.substr(0, good.size() - 1), "outside the file");
  refused(good + "x", "do not fill the file");
  for (size_t size = 0; size < good.size(); size += 13) refused(good.substr(0, size), "");
}

TEST(HostileSafetensors, OffsetsMustTileTheData) {
  const std::string f2 = "F32", two = "[2]";
  expect_refused("{\"a\":" + entry(f2, two, "[0,9]") + "}", 8, "outside the file");
  expect_refused("{\"a\":" + entry(f2, two, "[8,0]") + "}", 8, "outside the file");
  expect_refused("{\"a\":" + entry(f2, two, "[0,18446744073709551615]") + "}", 8, "list of counts");
  expect_refused("{\"a\":" + entry(f2, two, "[-8,0]") + "}", 8, "list of counts");
  expect_refused("{\"a\":" + entry(f2, two, "[0,8,8]") + "}", 8, "outside the file");
  expect_refused("{\"a\":" + entry(f2, two, "[0,8]") + ",\"b\":" + entry(f2, two, "[4,12]") + "}",
                 12, "tensor 'b' overlaps");
  expect_refused("{\"a\":" + entry(f2, two, "[0,8]") + ",\"b\":" + entry(f2, two, "[0,8]") + "}", 8,
                 "tensor 'b' overlaps");
  expect_refused("{\"a\":" + entry(f2, two, "[0,8]") + ",\"b\":" + entry(f2, two, "[12,20]") + "}",
                 20, "leaves a gap");
  expect_refused("{\"a\":" + entry(f2, two, "[4,12]") + "}", 12, "leaves a gap");
  expect_refused("{\"a\":" + entry(f2, two, "[0,8]") + "}", 12, "do not fill");
}

TEST(HostileSafetensors, ShapesMustFitTheirOffsets) {
  const auto refused = [](const std::string& shape, const std::string& part) {
    expect_refused("{\"a\":" + entry("F32", shape, "[0,8]") + "}", 8, part);
  };
  refused("[3]", "does not fit");
  refused("[]", "does not fit");
  refused("[1152921504606846976]", "does not fit");
  refused("[4294967296,4294967296]", "does not fit");  // 2^64 items
  refused("[4611686018427387906]", "does not fit");    // 2^62 + 2: 8 bytes modulo 2^64
  refused("[0,9223372036854775807,9223372036854775807]", "does not fit");
  refused("[18446744073709551615]", "list of counts");
  refused("[-2]", "list of counts");
  refused("[2.0]", "list of counts");
  refused("\"2\"", "list of counts");
  refused("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", "does not fit");  // 17 dimensions
}

TEST(HostileSafetensors, HeadersOfAnotherFormAreRefused) {
  expect_refused("[]", 0, "not a JSON object");
  expect_refused("{", 0, "not valid JSON");
  expect_refused("{} x", 0, "not valid JSON");
  expect_refused("{\"\xff\":1}", 0, "not valid JSON");
  expect_refused("{\"a\":1}", 0, "not described by");
  expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, "not described by");
  expect_refused("{\"a\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,4]}}", 4,
                 "not described by");
  expect_refused("{\"a\":" + entry("F8_E4M3", "[1]", "[0,1]") + "}", 1, "dtype other than");
  expect_refused("{\"__metadata__\":{\"a\":1}}", 0, "object of strings");
  expect_refused("{\"__metadata__\":[]}", 0, "object of strings");
  expect_refused("{\"\\u001b[2J\":" + entry("F32", "[1]", "[0,4]") + "}", 4, "unprintable");
  const std::string one = "\"a\":" + entry("F32", "[1]", "[0,4]");
  expect_refused("{" + one + "," + one + "}", 4, "a key twice");
  expect_refused(
      "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
      "a key twice");
}

TEST(HostileSafetensors, DeepNestingIsRefusedBeforeItIsBuilt) {
  const size_t deep = 1000000;
  expect_refused("{\"a\":" + std::string(deep, '['), 0, "nested too deeply");
  std::string objects = "{\"a\":";
  for (size_t i = 0; i < 1000; ++i) objects += "{\"a\":";
  expect_refused(objects, 0, "nested too deeply");
}

TEST(HostileSafetensors, BooleansOtherThanZeroAndOneAreRefused) {
  std::string bytes = file_of("{\"a\":" + entry("BOOL", "[2]", "[0,2]") + "}", 2);
  read_safetensors(testing::temporary_file("bool.safetensors", bytes));
  bytes.back() = '\2';
  expect_error([&] { read_safetensors(testing::temporary_file("bool.safetensors", bytes)); },
               "other values than 0 and 1");
}

TEST(HostileSafetensors, DamageGivesAnErrorOrATensor) {
  testing::fuzz(testing::bytes_of_file(testing::fixture("dtypes.safetensors")), 1500,
                [](const std::string& bytes) {
                  read_safetensors(testing::temporary_file("fuzz.safetensors", bytes));
                });
}

}  // namespace
}  // namespace rep
