#include "formats/torch_zip.h"

#include <cstdlib>
#include <limits>

#include "formats/pickle.h"
#include "weight_files.h"

namespace rep {
namespace {

using testing::expect_error;
using testing::expect_same;

// ---- a pickle assembler: Python's opcodes by hand (Lib/pickletools.py) ----

template <class T>
std::string little_endian(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}
const std::string kProto = "\x80\x02";
std::string text(const std::string& value) {
  return "X" + little_endian(static_cast<uint32_t>(value.size())) + value;
}
std::string integer(int64_t value) { return "\x8a\x08" + little_endian(value); }
std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
std::string tuple(const std::vector<int64_t>& values) {
  std::string code = "(";
  for (const int64_t value : values) code += integer(value);
  return code + "t";
}

struct Description {
  int64_t items = 6;  // of the storage, whose record holds 6 floats
  int64_t offset = 0;
  std::vector<int64_t> shape{2, 3}, strides{3, 1};
  std::string storage = "FloatStorage";
  std::string key = "0";
};

std::string tensor_code(const Description& d) {
  return global("torch._utils", "_rebuild_tensor_v2") + "((" + text("storage") +
         global("torch", d.storage) + text(d.key) + text("cpu") + integer(d.items) + "tQ" +
         integer(d.offset) + tuple(d.shape) + tuple(d.strides) + "\x89" +
         global("collections", "OrderedDict") + ")RtR";
}

// {"a": code}
std::string dict_of(const std::string& code) { return kProto + "}" + text("a") + code + "s."; }

std::string numbers() {
  const float values[] = {0, 1, 2, 3, 4, 5};
  return {reinterpret_cast<const char*>(values), sizeof(values)};
}

std::string checkpoint(const std::string& pickle, const testing::ZipEntries& more = {}) {
  testing::ZipEntries entries{
      {"x/data.pkl", pickle}, {"x/data/0", numbers()}, {"x/version", "3\n"}};
  entries.insert(entries.end(), more.begin(), more.end());
  return testing::temporary_zip("hostile.pth", entries);
}

void expect_refused(const std::string& pickle, const std::string& part) {
  const std::string path = checkpoint(pickle);
  expect_error([&] { read_torch_zip(path); }, part);
}

TEST(ReadTorchZip, ReadsAPlainDictAndLeavesOtherValuesOut) {
  const NamedTensors file = read_torch_zip(testing::fixture("plain.pth"));
  ASSERT_EQ(file.size(), 2u);
  EXPECT_EQ(file[0].first, "a");
  EXPECT_EQ(file[1].first, "b.weight");
  expect_same(file[0].second, testing::formula(1, {2, 3}));
  expect_same(file[1].second, testing::formula(2, {4}));
}

TEST(ReadTorchZip, ReadsAModulesStateDict) {
  const NamedTensors file = read_torch_zip(testing::fixture("state_dict.pth"));
  const char* names[] = {"0.weight",
                         "0.bias",
                         "1.weight",
                         "1.bias",
                         "1.running_mean",
                         "1.running_var",
                         "1.num_batches_tracked"};
  ASSERT_EQ(file.size(), std::size(names));
  for (size_t i = 0; i < file.size(); ++i) {
    EXPECT_EQ(file[i].first, names[i]);
    const torch::Tensor expected =
        i == 6 ? torch::zeros({}, torch::kInt64)
               : testing::formula(static_cast<int64_t>(i), file[i].second.sizes().vec());
    expect_same(file[i].second, expected, names[i]);
  }
  EXPECT_EQ(describe(file[0].second), "F32 [2, 3]");
}

TEST(ReadTorchZip, TakesTheModelOutOfATrainingCheckpoint) {
  const NamedTensors file = read_torch_zip(testing::fixture("nested.pth"));
  ASSERT_EQ(file.size(), 2u);
  expect_same(testing::at(file, "w"), testing::formula(6, {2, 2}));
  expect_same(testing::at(file, "p"), testing::formula(5, {3, 2}));
}

TEST(ReadTorchZip, GivesSharedStoragesAndViewsMemoryOfTheirOwn) {
  const NamedTensors file = read_torch_zip(testing::fixture("shared.pth"));
  const torch::Tensor base = testing::formula(8, {4, 6});
  ASSERT_EQ(file.size(), 5u);
  expect_same(testing::at(file, "base"), base);
  expect_same(testing::at(file, "transposed"), base.t());
  expect_same(testing::at(file, "row"), base.select(0, 1));
  expect_same(testing::at(file, "block"), base.narrow(0, 1, 2).narrow(1, 2, 3));
  expect_same(testing::at(file, "column"), base.select(1, 3));
  for (const auto& [name, tensor] : file) {
    EXPECT_TRUE(tensor.is_contiguous()) << name;
    EXPECT_EQ(tensor.storage().nbytes(), tensor.nbytes()) << name;
  }
  testing::at(file, "base").zero_();
  expect_same(testing::at(file, "row"), base.select(0, 1));
}

TEST(ReadTorchZip, ReadsEveryDtype) {
  const NamedTensors file = read_torch_zip(testing::fixture("dtypes.pth"));
  ASSERT_EQ(file.size(), 11u);
  const auto expect = [&](const char* name, const torch::Tensor& expected) {
    expect_same(testing::at(file, name), expected, name);
  };
  expect("f64", testing::formula(1, {3}, torch::kFloat64));
  expect("f16", testing::formula(3, {3}, torch::kFloat16));
  expect("bf16", testing::formula(4, {2, 3}, torch::kBFloat16));
  expect("i64", testing::counts({3}, -1, torch::kInt64));
  expect("i32", testing::counts({3}, -1, torch::kInt32));
  expect("i16", testing::counts({3}, -1, torch::kInt16));
  expect("i8", testing::counts({3}, -1, torch::kInt8));
  expect("u8", testing::counts({3}, 0, torch::kUInt8));
  expect("bool", testing::counts({3}, 0, torch::kBool));
  expect("scalar", torch::tensor(1.5f));
  expect("empty", torch::zeros({0, 4}));
}

TEST(ReadTorchZip, ReadsWhatTheAssemblerOfTheseTestsWrites) {
  const NamedTensors file = read_torch_zip(checkpoint(dict_of(tensor_code({}))));
  ASSERT_EQ(file.size(), 1u);
  expect_same(file[0].second, torch::arange(6).reshape({2, 3}).to(torch::kFloat32));
}

TEST(ReadTorchZip, RefusesTheLegacyFormatAndOtherFiles) {
  expect_error([] { read_torch_zip(testing::fixture("legacy.pth")); }, "legacy format");
  expect_error([] { read_torch_zip(testing::fixture("dtypes.npz")); },
               "not one that torch.save wrote");
  expect_error([] { read_torch_zip(testing::fixture("dtypes.safetensors")); }, "zip archive");
  expect_error([] { read_torch_zip(::testing::TempDir() + "/rep_weights_absent.pth"); },
               "zip archive");
  expect_error(
      [] {
        read_torch_zip(checkpoint(dict_of(tensor_code({})), {{"x/byteorder", "big"}}));
      },
      "big-endian");
}

TEST(HostilePickle, UnknownFunctionsAreNeverCalled) {
  const std::string witness = ::testing::TempDir() + "/rep_weights_witness";
  std::remove(witness.c_str());
  const std::string command = text("touch " + witness);
  for (const char* module : {"os", "posix", "nt"}) {
    // REDUCE, NEWOBJ, and as the maker of the dict that holds the tensor.
    const std::string reduce = global(module, "system") + command + "\x85R";
    const std::string new_object = global(module, "system") + command + "\x85\x81";
    for (const std::string& call : {reduce, new_object}) {
      const std::string both =
          kProto + "}(" + text("bad") + call + text("a") + tensor_code({}) + "u.";
      EXPECT_EQ(read_torch_zip(checkpoint(both)).size(), 1u);
      expect_refused(dict_of(call), "no tensors found");
      expect_refused(kProto + call + text("a") + tensor_code({}) + "s.", "no tensors found");
    }
  }
  expect_refused(dict_of(global("builtins", "eval") + text("1/0") + "\x85R"), "no tensors found");
  EXPECT_FALSE(std::ifstream(witness).good());
}

TEST(HostilePickle, OtherOpcodesAreRefused) {
  // INST, OBJ, STACK_GLOBAL, EXT1, POP, DUP, PERSID, REDUCE by text, FRAME, EMPTY_SET, LONG4 ...
  for (const char opcode : std::string("iogP02pIVFldS\x93\x82\x94\x95\x8f\x8b\x8c\x96")) {
    const auto number = std::to_string(static_cast<unsigned char>(opcode));
    expect_refused(kProto + std::string(1, opcode), "opcode " + number);
  }
  expect_refused("\x80\x04}.", "protocol 2");
}

TEST(HostilePickle, ProgramsThatTakeMoreThanTheyHaveAreRefused) {
  for (const std::string& program : {std::string(),
                                     std::string("."),
                                     std::string("R."),
                                     std::string("s."),
                                     std::string("}s."),
                                     std::string("t."),
                                     std::string("\x85."),
                                     std::string("q"),
                                     std::string("q\1."),
                                     std::string("h\1."),
                                     std::string("b."),
                                     std::string("Nb."),
                                     std::string("Q."),
                                     std::string("NQ."),
                                     std::string("(NNe."),
                                     std::string("}(e."),
                                     std::string("](Nu."),
                                     std::string("}(Nu."),
                                     std::string("}(R."),
                                     std::string("X\xff\xff\xff\xff"),
                                     std::string("cos\nsystem"),
                                     std::string("cos"),
                                     std::string("G1234"),
                                     std::string("\x8a\x09"),
                                     std::string("\x8a\xff"),
                                     std::string("(.")}) {
    expect_error([&] { Pickle("x.pth", program); }, "x.pth: ");
  }
}

TEST(HostilePickle, IntegersAreReadAsPythonWritesThem) {
  const auto value = [](const std::string& code) {
    return Pickle("x.pth", code + ".").root().integer;
  };
  EXPECT_EQ(value(std::string("\x8a\0", 2)), 0);
  EXPECT_EQ(value("\x8a\x01\xff"), -1);
  EXPECT_EQ(value(std::string("\x8a\x02\xff\0", 4)), 255);
  EXPECT_EQ(value(std::string("\x8a\x05\0\0\0\0\1", 7)), int64_t{1} << 32);
  EXPECT_EQ(value("J\xfe\xff\xff\xff"), -2);
  EXPECT_EQ(value("M\x01\x80"), 32769);
  EXPECT_EQ(value("K\x80"), 128);
}

TEST(HostilePickle, DepthCyclesAndRepetitionCostNoStackAndLittleMemory) {
  const size_t deep = 1000000;
  expect_refused(kProto + ")" + std::string(deep, '\x85') + ".", "no tensors found");
  expect_refused(kProto + ")" + std::string(deep + 100000, '\x85') + ".", "a million values");
  expect_refused(kProto + std::string(deep, '(') + ".", "takes more than it has");
  expect_refused(kProto + "}q\1" + text("model") + "h\1s.", "no tensors found");  // contains itself
  // A list of lists, each appended to the one before after that was put away: no depth is ever
  // seen.
  std::string chain = kProto + "]q\1";
  for (int i = 0; i < 100000; ++i)
    chain +=
        "]q\2a"
        "h\2q\1";
  expect_refused(chain + ".", "no tensors found");
  // A long key copied into many storages.
  const std::string key(1 << 20, 'k');
  expect_refused(dict_of(tensor_code({6, 0, {2, 3}, {3, 1}, "FloatStorage", key})),
                 "not described as torch.save does");
  expect_refused(
      dict_of(tensor_code({6, 0, std::vector<int64_t>(17, 1), std::vector<int64_t>(17, 1)})),
      "more than 16 dimensions");
}

// Two bytes an item, and four bytes for every copy of all of them.
TEST(HostilePickle, OneDictIsNotTheStateOfAnyNumberOfObjects) {
  std::string program = kProto + "}" + std::string("q\0", 2) + "(";
  for (int i = 0; i < 1 << 16; ++i) program += std::string("h\0", 2);
  program += "u";
  for (int i = 0; i < 32; ++i) program += "N" + std::string("h\0", 2) + "b";
  expect_refused(program + ".", "a million values");
}

TEST(HostileTensor, ViewsMustStayInsideTheirStorage) {
  const int64_t most = std::numeric_limits<int64_t>::max();
  const int64_t least = std::numeric_limits<int64_t>::min();
  const auto refused = [](Description d, const std::string& part) {
    expect_refused(dict_of(tensor_code(d)), part);
  };
  refused({6, 1, {2, 3}, {3, 1}}, "outside its storage");
  refused({6, 0, {2, 3}, {4, 1}}, "outside its storage");
  refused({6, -1, {2, 3}, {3, 1}}, "outside its storage");
  refused({6, 6, {1}, {1}}, "outside its storage");
  refused({6, most, {2, 3}, {3, 1}}, "outside its storage");
  refused({6, least, {2, 3}, {3, 1}}, "outside its storage");
  refused({6, 0, {2, 3}, {most, 1}}, "outside its storage");
  refused({6, 0, {3, 2}, {most / 2 + 1, 1}}, "outside its storage");  // twice it is 2^63
  refused({6, 5, {2, 3}, {-3, -1}}, "outside its storage");
  refused({6, 0, {2, -3}, {3, 1}}, "too large");
  refused({6, 0, {int64_t{1} << 60}, {0}}, "too large");
  refused({6, 0, {int64_t{1} << 32, int64_t{1} << 32}, {0, 0}}, "too large");
  refused({6, 0, {0, most}, {1, 1}}, "too large");
  refused({6, 0, {int64_t{1} << 20}, {0}}, "larger than its storage");
  refused({6, 0, {2, 3}, {1}}, "not described");
}

TEST(HostileTensor, StoragesMustBeThereAndAsLargeAsTheySay) {
  const auto refused = [](Description d, const std::string& part) {
    expect_refused(dict_of(tensor_code(d)), part);
  };
  refused({7, 0, {2, 3}, {3, 1}}, "no storage of the size");
  refused({5, 0, {1}, {1}}, "no storage of the size");
  refused({int64_t{1} << 62, 0, {1}, {1}}, "no storage of the size");  // times 4 it is 0
  refused({-1, 0, {1}, {1}}, "not described");
  refused({6, 0, {1}, {1}, "DoubleStorage"}, "no storage of the size");
  refused({6, 0, {1}, {1}, "ComplexFloatStorage"}, "not of a type");
  refused({6, 0, {1}, {1}, "FloatStorage", "1"}, "no storage of the size");
  refused({6, 0, {1}, {1}, "FloatStorage", "../version"}, "no storage of the size");
  // One storage under two types.
  const std::string both = kProto + "}(" + text("a") + tensor_code({}) + text("b") +
                           tensor_code({6, 0, {1}, {1}, "IntStorage"}) + "u.";
  expect_refused(both, "another type or size");
  // A boolean 63 (0x3f, in the bytes of the floats).
  refused({24, 0, {24}, {1}, "BoolStorage"}, "other values than 0 and 1");
}

TEST(HostileTensor, NamesMustBeDistinctAndPrintable) {
  const std::string one = tensor_code({});
  expect_refused(kProto + "}(" + text("a") + one + text("a") + one + "u.", "comes twice");
  expect_refused(kProto + "}(" + text("\x1b[2J") + one + "u.", "unprintable");
}

TEST(HostileTensor, DamageGivesAnErrorOrATensor) {
  for (const char* name :
       {"plain.pth", "state_dict.pth", "nested.pth", "shared.pth", "dtypes.pth"}) {
    testing::fuzz(testing::bytes_of_file(testing::fixture(name)), 200,
                  [](const std::string& bytes) {
                    read_torch_zip(testing::temporary_file("fuzz.pth", bytes));
                  });
  }
  // The same behind right checksums, where every byte is a program's.
  const std::string program = kProto + "}(" + text("a") + tensor_code({}) + text("b") +
                              tensor_code({6, 1, {5}, {1}}) + "u.";
  testing::fuzz(program, 5000, [](const std::string& bytes) { read_torch_zip(checkpoint(bytes)); });
}

}  // namespace
}  // namespace rep
